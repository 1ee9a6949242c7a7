/* The periphery of a crossbar array in one pass over memory: DAC before the product; noise, ADC and
 * scaling after it. Plain C, which the compiler vectorises. */

/* DAC levels: x times gain (levels per model unit), rounded if `rounds` is not 0, clipped. */
void dac(const float *restrict x, float *restrict out, int64_t n, float gain, int rounds,
         float levels)
{
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] * gain;
        if (rounds) v = rintf(v);
        v = v > levels ? levels : v;
        out[i] = v < -levels ? -levels : v;
    }
}

/* An ADC on a line of products, in place: noise, rounding, clipping (all in ADC steps), then scale
 * and offset of each number, or one for all (`alike`); then `sum` is added. */
static inline __attribute__((always_inline)) void
convert(float *restrict y, const float *restrict drawn, float noise, int rounds, float levels,
        const float *restrict scale, const float *restrict offset, const int alike,
        const float *restrict sum, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float v = y[i];
        if (drawn) v += noise * drawn[i];
        if (rounds) v = rintf(v);
        v = v > levels ? levels : v;
        v = v < -levels ? -levels : v;
        v = v * scale[alike ? 0 : i] + offset[alike ? 0 : i];
        y[i] = sum ? v + sum[i] : v;
    }
}

/* bfloat16 is the upper half of a float. */
static void widen(const uint16_t *restrict from, float *restrict to, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(to + i, &bits, 4);
    }
}

/* All steps after the product, in place, or from bfloat16 `products` to y. y, products and sum:
 * (images, outer, inner). Channels are innermost (`inner` of them), or channel c is row c,
 * c + channels, ... of the outer dimension. Returns 0, or 1 if memory could not be allocated. */
int adc(float *restrict y, const uint16_t *restrict products, const float *restrict sum,
        int64_t images, int64_t outer, int64_t inner, int64_t channels, int innermost,
        const float *restrict scale, const float *restrict offset, uint64_t key,
        uint64_t first_image, float noise, int rounds, float levels)
{
    const int64_t n = outer * inner;
    float *drawn = noise > 0.0f ? malloc((size_t)n * sizeof(float)) : NULL;
    if (noise > 0.0f && !drawn) return 1;
    /* Few channels are repeated, so that the inner loop is long enough. */
    float several[2][256];
    const float *scales = scale, *offsets = offset;
    int64_t width = innermost ? channels : inner;
    if (innermost && channels <= 64) {
        width = 256 / channels * channels;
        for (int64_t c = 0; c < width; c++) {
            several[0][c] = scale[c % channels];
            several[1][c] = offset[c % channels];
        }
        scales = several[0];
        offsets = several[1];
    }
    for (int64_t image = 0; image < images; image++) {
        if (drawn) normals(drawn, n, key, first_image + (uint64_t)image);
        for (int64_t i = 0; i < n; i += width) {
            const int64_t at = image * n + i, count = n - i < width ? n - i : width;
            const float *from = drawn ? drawn + i : NULL, *before = sum ? sum + at : NULL;
            if (products) widen(products + at, y + at, count);
            if (innermost)
                convert(y + at, from, noise, rounds, levels, scales, offsets, 0, before, count);
            else {
                const int64_t c = i / width % channels;
                convert(y + at, from, noise, rounds, levels, scale + c, offset + c, 1, before,
                        count);
            }
        }
    }
    free(drawn);
    return 0;
}
