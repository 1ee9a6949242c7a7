/* Convolutions of few input channels, vectorised over the pixels of an image: vectors over channels
 * would be mostly empty. Images are copied with their padding. All rows of outputs are computed as
 * one long line; values computed beyond the end of a row are not used. */

enum { SPANS = LANES == 8 ? 2 : 4, SIDE = 6 }; /* SPANS x SIDE registers hold sums */

/* Number of outputs in a block of packed weights. */
int64_t few_channels_side(void) { return SIDE; }

/* SIDE outputs of SPANS * LANES pixels: sum over taps of weight times the shifted line. */
static void few_channels_block(const float *restrict line, const float *restrict weights,
                         const int64_t *restrict shifts, int64_t taps, float *restrict out,
                         int64_t length)
{
    lanes_t sums[SIDE][SPANS] = {0};
    for (int64_t t = 0; t < taps; t++) {
        const float *from = line + shifts[t], *w = weights + t * SIDE;
        lanes_t x[SPANS];
        for (int s = 0; s < SPANS; s++) x[s] = load(from + s * LANES);
        for (int c = 0; c < SIDE; c++)
            for (int s = 0; s < SPANS; s++) sums[c][s] += x[s] * w[c];
    }
    for (int c = 0; c < SIDE; c++)
        for (int s = 0; s < SPANS; s++) store(out + c * length + s * LANES, sums[c][s]);
}

/* y = conv(x, w) + bias, stride 1. x: (images, inputs, height, width). weights: (blocks of SIDE
 * outputs, inputs, kernel height, kernel width, SIDE). y: (images, outputs, out height, out width).
 * Returns 0, or 1 if memory could not be allocated. */
int few_channels(const float *restrict x, const float *restrict weights, const float *restrict bias,
           float *restrict y, int64_t images, int64_t inputs, int64_t height, int64_t width,
           int64_t outputs, int64_t kernel_height, int64_t kernel_width, int64_t top, int64_t left)
{
    const int64_t row = width + 2 * left, rows = height + 2 * top, step = SPANS * LANES;
    const int64_t out_height = rows - kernel_height + 1, out_width = row - kernel_width + 1;
    const int64_t taps = inputs * kernel_height * kernel_width;
    const int64_t length = (out_height * row + step - 1) / step * step; /* whole blocks */
    const int64_t size = inputs * rows * row;
    float *line = calloc((size_t)(size + step + kernel_width + row), sizeof(float));
    float *out = malloc((size_t)(SIDE * length) * sizeof(float));
    int64_t *shifts = malloc((size_t)taps * sizeof(int64_t));
    const int failed = !line || !out || !shifts;
    for (int64_t i = 0, t = 0; !failed && i < inputs; i++)
        for (int64_t a = 0; a < kernel_height; a++)
            for (int64_t b = 0; b < kernel_width; b++) shifts[t++] = (i * rows + a) * row + b;
    for (int64_t image = 0; !failed && image < images; image++) {
        for (int64_t i = 0; i < inputs; i++)
            for (int64_t r = 0; r < height; r++)
                memcpy(line + (i * rows + r + top) * row + left,
                       x + ((image * inputs + i) * height + r) * width,
                       (size_t)width * sizeof(float));
        for (int64_t first = 0; first < outputs; first += SIDE) {
            for (int64_t p = 0; p < length; p += step)
                few_channels_block(line + p, weights + first * taps, shifts, taps, out + p, length);
            for (int64_t c = first; c < outputs && c < first + SIDE; c++) {
                const float *from = out + (c - first) * length, offset = bias ? bias[c] : 0.0f;
                float *to = y + (image * outputs + c) * out_height * out_width;
                for (int64_t r = 0; r < out_height; r++)
                    for (int64_t p = 0; p < out_width; p++)
                        to[r * out_width + p] = from[r * row + p] + offset;
            }
        }
    }
    free(line);
    free(out);
    free(shifts);
    return failed;
}

/* Larger of two numbers; NaN if one of them is NaN. */
static inline float largest(float a, float b) { return a > b || a != a ? a : b; }

/* 2 x 2 max pooling. x: (images, planes, 2 height, 2 width), y: (images, planes, height, width).
 * Rows are written in whole vectors; the excess is overwritten by the next row.
 * Returns 0, or 1 if memory could not be allocated. */
int max_pool_2x2(const float *restrict x, float *restrict y, int64_t images, int64_t planes,
                 int64_t height, int64_t width)
{
    const int64_t n = planes * height * width;
    float *pairs = malloc((size_t)(2 * n + LANES) * sizeof(float));
    float *out = malloc((size_t)(n + LANES) * sizeof(float));
    const int failed = !pairs || !out;
    for (int64_t image = 0; !failed && image < images; image++) {
        const float *from = x + image * 4 * n;
        for (int64_t i = 0; i < 2 * n; i++) pairs[i] = largest(from[2 * i], from[2 * i + 1]);
        for (int64_t row = 0; row < planes * height; row++)
            for (int64_t i = 0; i < width; i += LANES) {
                const float *above = pairs + 2 * row * width + i, *below = above + width;
                const lanes_t a = load(above), b = load(below);
                const bits_t is_a = (a > b) | (a != a);
                store(out + row * width + i, (lanes_t)(((bits_t)a & is_a) | ((bits_t)b & ~is_a)));
            }
        memcpy(y + image * n, out, (size_t)n * sizeof(float));
    }
    free(pairs);
    free(out);
    return failed;
}
