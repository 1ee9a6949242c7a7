/* The periphery of a crossbar array in one pass over memory: DAC before the product, noise, ADC and
 * scaling after it. Plain C that a compiler turns into vector instructions; built on first use. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static inline uint32_t rotate(uint32_t x, int bits) { return (x << bits) | (x >> (32 - bits)); }

/* Threefry2x32 with 20 rounds: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011. */
#define ROUND(bits) x0 += x1; x1 = rotate(x1, bits); x1 ^= x0;
#define EVEN ROUND(13) ROUND(15) ROUND(26) ROUND(6)
#define ODD ROUND(17) ROUND(29) ROUND(16) ROUND(24)
static inline void threefry(uint32_t k0, uint32_t k1, uint32_t *word0, uint32_t *word1)
{
    const uint32_t k2 = 0x1BD11BDAu ^ k0 ^ k1;
    uint32_t x0 = *word0 + k0, x1 = *word1 + k1;
    EVEN x0 += k1; x1 += k2 + 1;
    ODD x0 += k2; x1 += k0 + 2;
    EVEN x0 += k0; x1 += k1 + 3;
    ODD x0 += k1; x1 += k2 + 4;
    EVEN x0 += k2; x1 += k0 + 5;
    *word0 = x0;
    *word1 = x1;
}

/* ln(u) for u in (0, 1], float precision: u = m 2^e, ln m = 2 artanh((m - 1) / (m + 1)). */
static inline float logarithm(float u)
{
    int32_t bits;
    memcpy(&bits, &u, 4);
    int32_t exponent = (bits - 0x3F3504F3) >> 23; /* m in [sqrt(1/2), sqrt(2)) */
    bits -= exponent << 23;
    float m;
    memcpy(&m, &bits, 4);
    float s = (m - 1.0f) / (m + 1.0f), z = s * s;
    float p = 2.0f + z * (0.66666667f + z * (0.4f + z * (0.28571429f + z * 0.22222222f)));
    return s * p + (float)exponent * 0.69314718f;
}

/* Two independent normals from two words (Box and Muller, 1958). The radius has 31 bits (largest
 * 6.66), the angle 32. */
static inline void two_normals(uint32_t word0, uint32_t word1, float *a, float *b)
{
    float u = (float)(int32_t)(word0 >> 1) * 4.6566129e-10f + 2.3283064e-10f;
    float turn = (float)(int32_t)word1 * 9.3132257e-10f; /* half turns times two, in [-2, 2] */
    float quarter = rintf(turn);
    float f = (turn - quarter) * 0.5f, z = f * f;
    int32_t q = (int32_t)quarter;
    float sine = f * (3.14159265f + z * (-5.16771278f + z * (2.55016404f
                 + z * (-0.59926453f + z * 0.08214589f))));
    float cosine = 1.0f + z * (-4.93480220f + z * (4.05871213f + z * (-1.33526277f
                   + z * (0.23533063f + z * -0.02580689f))));
    float radius = sqrtf(-2.0f * logarithm(u));
    float c = (q & 1) ? sine : cosine, s = (q & 1) ? cosine : sine;
    *a = radius * (((q + 1) & 2) ? -c : c);
    *b = radius * ((q & 2) ? -s : s);
}

/* Normals of one image: number j and number j + ceil(n / 2) come from counter (j, image). */
void normals(float *out, int64_t n, uint64_t key, uint64_t image)
{
    const uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32), c1 = (uint32_t)image;
    const int64_t half = (n + 1) / 2;
    float *restrict first = out, *restrict second = out + half;
    const int64_t whole = n - half;
    for (int64_t j = 0; j < whole; j++) {
        uint32_t x0 = (uint32_t)j, x1 = c1;
        threefry(k0, k1, &x0, &x1);
        float a, b;
        two_normals(x0, x1, &a, &b);
        first[j] = a;
        second[j] = b;
    }
    if (whole < half) {
        uint32_t x0 = (uint32_t)whole, x1 = c1;
        threefry(k0, k1, &x0, &x1);
        float a, b;
        two_normals(x0, x1, &a, &b);
        first[whole] = a;
    }
}

/* Input levels: round(x / (range step)), clipped. A step of 0 is an ideal DAC: x / range, clipped. */
void dac(const float *restrict x, float *restrict out, int64_t n, float range, float step,
         float levels)
{
    if (step > 0.0f) {
        const float factor = 1.0f / (range * step); /* a division takes as long as ten products */
        for (int64_t i = 0; i < n; i++) {
            float v = rintf(x[i] * factor);
            v = v > levels ? levels : v;
            out[i] = v < -levels ? -levels : v;
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            float v = x[i] / range;
            v = v > 1.0f ? 1.0f : v;
            out[i] = v < -1.0f ? -1.0f : v;
        }
    }
}

/* What follows the product, in place: noise, rounding, clipping (all in ADC steps), scale and offset
 * of the channel; then the result of the row blocks before is added.
 * y and sum: (images, outer, inner). Channels are innermost (inner of them), or channel c is row
 * c, c + channels, ... of the outer dimension.
 * Returns 0, or 1 if there is no memory for an image's noise. */
int adc(float *restrict y, const float *restrict sum, int64_t images, int64_t outer, int64_t inner,
        int64_t channels, int innermost, const float *restrict scale, const float *restrict offset,
        uint64_t key, uint64_t first_image, float noise, int rounds, float levels)
{
    const int64_t n = outer * inner;
    float *drawn = noise > 0.0f ? malloc((size_t)n * sizeof(float)) : NULL;
    if (noise > 0.0f && !drawn) return 1;
    /* Few channels, repeated until a loop over them is worth its start. */
    float several[2][256];
    const float *scales = scale, *offsets = offset;
    int64_t width = channels;
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
        float *v = y + image * n;
        if (drawn) {
            normals(drawn, n, key, first_image + (uint64_t)image);
            for (int64_t i = 0; i < n; i++) v[i] += noise * drawn[i];
        }
        if (rounds)
            for (int64_t i = 0; i < n; i++) v[i] = rintf(v[i]);
        for (int64_t i = 0; i < n; i++) {
            float r = v[i] > levels ? levels : v[i];
            v[i] = r < -levels ? -levels : r;
        }
        if (innermost)
            for (int64_t i = 0; i < n; i += width) {
                const int64_t count = n - i < width ? n - i : width;
                for (int64_t c = 0; c < count; c++) v[i + c] = v[i + c] * scales[c] + offsets[c];
            }
        else
            for (int64_t p = 0; p < outer; p++) {
                const float a = scale[p % channels], b = offset[p % channels];
                for (int64_t c = 0; c < inner; c++) v[p * inner + c] = v[p * inner + c] * a + b;
            }
        if (sum) {
            const float *s = sum + image * n;
            for (int64_t i = 0; i < n; i++) v[i] += s[i];
        }
    }
    free(drawn);
    return 0;
}
