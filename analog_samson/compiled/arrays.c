/* A layer of arrays, vector by vector: what scales, currents or noise depend on the single input
 * vector. Patches are gathered and turned into DAC levels, multiplied, and finished (IR drop, noise,
 * ADC, bounds, scale) while they are in the cache. Follows kernels.c in one source. */

#if defined(__AVX512F__)
enum { LANES = 16, WIDE = 8, NARROW = 6 };
#elif defined(__AVX__)
enum { LANES = 8, WIDE = 4, NARROW = 2 };
#else
enum { LANES = 4, WIDE = 8, NARROW = 6 };
#endif
enum { CHUNK = 48, MOST_TILES = 3 }; /* vectors at a time: a multiple of WIDE and of NARROW */

int64_t lanes(void) { return LANES; }

struct layer {
    /* an input: height x width x channels; how kernels walk over it */
    int64_t height, width, channels, out_height, out_width, kernel_height, kernel_width;
    int64_t stride_y, stride_x, top, left, dilation_y, dilation_x;
    int64_t groups, columns;                   /* columns of one group */
    int64_t inputs_an_image;                   /* several if a network folds windows into the batch */
    int64_t n_row_blocks, n_column_blocks;
    const int64_t *row_blocks, *column_blocks; /* their sizes */
    /* of every (group, row block, column block): tiles of LANES columns, [tile][row][column] */
    const float *weights;
    const float *places;  /* of every row of every row block: 1 - (1 - j / n)^2, for the IR drop */
    const float *scales;  /* model units of an ADC step, (row block, group, column) */
    const float *offsets; /* (group, column) */
    const uint64_t *keys;                   /* of the noise, of every row block */
    float range, step, levels;       /* of the DAC; a range of 0: of every vector; a step of 0: ideal */
    float most_halvings;             /* largest factor of the bound management; 0: none */
    float output_noise, output_levels, largest_fit; /* in ADC steps; clipped if above the last */
    float read_variance, additive_variance; /* factors of sum |w| x^2 and of sum x^2 */
    float drop, current;                    /* scale of the IR drop; of sum |w| |x| x rows */
    float rounds;                           /* whether there is an ADC */
};

typedef float lanes_t __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t bits_t __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
static inline lanes_t load(const float *x) { return *(const lanes_t *)x; }
static inline void store(float *x, lanes_t v) { *(lanes_t *)x = v; }
static inline lanes_t magnitude(lanes_t x) { return (lanes_t)((bits_t)x & 0x7FFFFFFF); }

/* Up to four products of ROWS vectors with TILES x LANES columns: w x, |w| x^2, |w| |x| and
 * w x place, where they are wanted. Results: [product][tile][row][LANES]. */
#define PRODUCTS(NAME, TILES, ROWS, READS, DROPS)                                                 \
    static void NAME(const float *restrict weights, const float *restrict places,                  \
                     const float *restrict x, const float *restrict squares, int64_t stride,       \
                     int64_t n, float *restrict out)                                               \
    {                                                                                             \
        lanes_t y[TILES][ROWS], v[TILES][ROWS], a[TILES][ROWS], d[TILES][ROWS];                    \
        for (int t = 0; t < TILES; t++)                                                           \
            for (int r = 0; r < ROWS; r++)                                                        \
                y[t][r] = v[t][r] = a[t][r] = d[t][r] = (lanes_t){0};                              \
        for (int64_t k = 0; k < n; k++) {                                                         \
            lanes_t w[TILES], size[TILES], placed[TILES];                                         \
            for (int t = 0; t < TILES; t++) {                                                     \
                w[t] = load(weights + (t * n + k) * LANES);                                       \
                if (READS || DROPS) size[t] = magnitude(w[t]);                                    \
                if (DROPS) placed[t] = w[t] * places[k];                                          \
            }                                                                                     \
            _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; r++) {                               \
                const lanes_t in = x[r * stride + k] - (lanes_t){0};                               \
                for (int t = 0; t < TILES; t++) {                                                 \
                    y[t][r] += w[t] * in;                                                         \
                    if (READS) v[t][r] += size[t] * squares[r * stride + k];                       \
                    if (DROPS) a[t][r] += size[t] * magnitude(in);                                 \
                    if (DROPS) d[t][r] += placed[t] * in;                                          \
                }                                                                                 \
            }                                                                                     \
        }                                                                                         \
        for (int t = 0; t < TILES; t++)                                                           \
            for (int r = 0; r < ROWS; r++) {                                                      \
                float *to = out + (t * ROWS + r) * LANES;                                         \
                store(to, y[t][r]);                                                               \
                if (READS) store(to + 1 * TILES * ROWS * LANES, v[t][r]);                          \
                if (DROPS) store(to + 2 * TILES * ROWS * LANES, a[t][r]);                          \
                if (DROPS) store(to + 3 * TILES * ROWS * LANES, d[t][r]);                          \
            }                                                                                     \
    }
PRODUCTS(product_of_3, 3, WIDE, 0, 0)
PRODUCTS(product_of_2, 2, WIDE, 0, 0)
PRODUCTS(product, 1, WIDE, 0, 0)
PRODUCTS(product_and_variance, 1, WIDE, 1, 0)
PRODUCTS(product_and_drop, 1, NARROW, 0, 1)
PRODUCTS(product_and_both, 1, NARROW, 1, 1)

/* Normals of some outputs of one image, those that `normals` gives them. */
static void some_normals(float *out, int64_t first, int64_t count, int64_t n, uint64_t key,
                         uint64_t image)
{
    const uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32), c1 = (uint32_t)image;
    const int64_t half = (n + 1) / 2;
    for (int64_t i = 0; i < count; i++) {
        const int64_t j = first + i;
        uint32_t x0 = (uint32_t)(j < half ? j : j - half), x1 = c1;
        threefry(k0, k1, &x0, &x1);
        float a, b;
        two_normals(x0, x1, &a, &b);
        out[i] = j < half ? a : b;
    }
}

/* Where the rows of a block lie in a padded input, as runs of neighbours. */
struct runs {
    int64_t n;
    int64_t *offset, *count;
};

static void find_runs(struct runs *runs, const struct layer *l, int64_t first, int64_t rows)
{
    const int64_t taps = l->kernel_height * l->kernel_width, width = l->width + 2 * l->left;
    runs->n = 0;
    for (int64_t tap = 0; tap < taps; tap++) { /* rows are numbered channel x taps + tap */
        const int64_t low = (first - tap + taps - 1) / taps;
        const int64_t high = (first + rows - tap + taps - 1) / taps;
        const int64_t y = tap / l->kernel_width * l->dilation_y;
        const int64_t x = tap % l->kernel_width * l->dilation_x;
        const int64_t offset = (y * width + x) * l->channels + low, last = runs->n - 1;
        if (high <= low) continue;
        if (last >= 0 && runs->offset[last] + runs->count[last] == offset)
            runs->count[last] += high - low;
        else {
            runs->offset[runs->n] = offset;
            runs->count[runs->n++] = high - low;
        }
    }
}

/* One input with zeros around it: relative to a range that is fixed, in DAC levels unless bounds are
 * managed. */
static void pad(const struct layer *l, const float *x, float *padded)
{
    const int64_t width = (l->width + 2 * l->left) * l->channels, row = l->width * l->channels;
    const float step = l->most_halvings > 0.0f ? 0.0f : l->step;
    for (int64_t y = 0; y < l->height; y++) {
        float *to = padded + (y + l->top) * width + l->left * l->channels;
        if (l->range > 0.0f)
            dac(x + y * row, to, row, l->range, step, l->levels);
        else
            memcpy(to, x + y * row, (size_t)row * sizeof(float));
    }
}

/* Gather one patch. Runs are copied by whole vectors: what is too much is overwritten. */
static void gather(const struct runs *runs, const float *from, int64_t rows, float *to)
{
    float *at = to;
    for (int64_t i = 0; i < runs->n; i++) {
        const float *source = from + runs->offset[i];
        for (int64_t c = 0; c < runs->count[i]; c += LANES) store(at + c, load(source + c));
        at += runs->count[i];
    }
    store(to + rows, (lanes_t){0});
}

/* Turn a patch into DAC levels; returns what outputs are to be multiplied with, 0 for a patch of
 * zeros, which is not multiplied. */
static float scaled(const struct layer *l, float *x, int64_t rows, float halving)
{
    float largest = 1.0f;
    if (l->range == 0.0f) {
        float most[LANES] = {0};
        for (int64_t k = 0; k < rows; k += LANES)
            for (int i = 0; i < LANES; i++) {
                const float size = fabsf(x[k + i]);
                most[i] = size > most[i] ? size : most[i];
            }
        largest = 0.0f;
        for (int i = 0; i < LANES; i++) largest = most[i] > largest ? most[i] : largest;
        if (largest == 0.0f) return 0.0f;
    } else if (l->most_halvings == 0.0f)
        return 1.0f; /* levels already */
    const float scale = 1.0f / largest / halving;
    if (l->step > 0.0f) {
        const float inverse = 1.0f / l->step;
        for (int64_t k = 0; k < rows; k++) {
            const float v = x[k] * scale, q = v * inverse; /* v / step, rounded as a division */
            x[k] = rintf(q + (v - q * l->step) * inverse);
        }
    } else
        for (int64_t k = 0; k < rows; k++) x[k] *= scale;
    return largest * halving;
}

/* What one call works with. */
struct work {
    float *padded, *patches, *squares, *products, *drawn, *again, *results;
    struct runs runs;
    int64_t stride;                   /* of patches and their squares */
    float factor[CHUNK], norm[CHUNK]; /* of every patch: what outputs are times, sum x^2 */
    uint8_t is_clipped[CHUNK];
};

struct array {
    int64_t rows, columns, width, first_column, group; /* width: columns with those of no use */
    const float *weights, *places;
};

static inline int is_noisy(const struct layer *l)
{
    return l->output_noise > 0.0f || l->read_variance > 0.0f || l->additive_variance > 0.0f;
}

/* Multiply patches with one array and finish the outputs, in ADC steps: (patch, width). `noise` is
 * one row of normals a patch. */
static void multiply(const struct layer *l, struct work *w, const struct array *array,
                     int64_t n_patches, const float *const *noise, float *results)
{
    const int64_t rows = array->rows, columns = array->columns;
    const int reads = l->read_variance > 0.0f, drops = l->drop > 0.0f;
    const int additive = l->additive_variance > 0.0f, noisy = is_noisy(l);
    const float current = l->current * (float)rows, levels = l->output_levels;
    const int64_t n_tiles = array->width / LANES;
    memset(w->is_clipped, 0, sizeof w->is_clipped);
    for (int64_t tile = 0; tile < n_tiles;) {
        int64_t together = 1, vectors = drops ? NARROW : WIDE;
        if (!reads && !drops) {
            const int64_t left = n_tiles - tile;
            together = left == 4 ? 2 : left < MOST_TILES ? left : MOST_TILES;
        }
        const float *weights = array->weights + tile * rows * LANES;
        for (int64_t first = 0; first < n_patches; first += vectors) {
            const float *x = w->patches + first * w->stride;
            const float *squares = w->squares + first * w->stride;
            (drops ? reads ? product_and_both : product_and_drop
             : reads ? product_and_variance
             : together == 1 ? product
             : together == 2 ? product_of_2
                             : product_of_3)(weights, array->places, x, squares, w->stride, rows,
                                           w->products);
            for (int64_t t = 0; t < together; t++)
                for (int64_t r = 0; r < vectors && first + r < n_patches; r++) {
                    const int64_t size = together * vectors * LANES;
                    const float *y = w->products + (t * vectors + r) * LANES;
                    const float *v = y + size, *a = v + size, *d = a + size;
                    const int64_t column = (tile + t) * LANES, patch = first + r;
                    float *to = results + patch * array->width + column, value[LANES];
                    for (int c = 0; c < LANES; c++) value[c] = y[c];
                    if (drops)
                        for (int c = 0; c < LANES; c++) {
                            const float i = current * a[c];
                            value[c] -= l->drop * (i * (i * (0.05f * i - 0.2f) + 0.5f)) * d[c];
                        }
                    if (noisy) {
                        const float *z = noise[patch] + column;
                        float variance = l->output_noise * l->output_noise;
                        if (additive) variance += l->additive_variance * w->norm[patch];
                        if (reads)
                            for (int c = 0; c < LANES; c++)
                                value[c] += sqrtf(variance + l->read_variance * v[c]) * z[c];
                        else {
                            const float deviation = sqrtf(variance);
                            for (int c = 0; c < LANES; c++) value[c] += deviation * z[c];
                        }
                    }
                    if (l->rounds > 0.0f)
                        for (int c = 0; c < LANES; c++) value[c] = rintf(value[c]);
                    if (l->most_halvings > 0.0f) {
                        const int64_t left = columns - column;
                        float largest = 0.0f;
                        if (left < LANES)
                            for (int64_t c = left; c < LANES; c++) value[c] = 0.0f;
                        for (int c = 0; c < LANES; c++) {
                            const float size_of = fabsf(value[c]);
                            largest = size_of > largest ? size_of : largest;
                        }
                        w->is_clipped[patch] |= largest > l->largest_fit;
                    }
                    for (int c = 0; c < LANES; c++) {
                        const float below = value[c] > levels ? levels : value[c];
                        to[c] = below < -levels ? -levels : below;
                    }
                }
        }
        tile += together;
    }
}

/* Gather, scale and square the patch of a position. */
static void take(const struct layer *l, struct work *w, const struct array *array, int64_t position,
                 float halving, int64_t slot)
{
    const int64_t positions = l->out_height * l->out_width, width = l->width + 2 * l->left;
    const int64_t size = (l->height + 2 * l->top) * width * l->channels, rows = array->rows;
    const int64_t input = position / positions, place = position % positions;
    const int64_t y = place / l->out_width * l->stride_y, x = place % l->out_width * l->stride_x;
    const float *from = w->padded + input * size + (y * width + x) * l->channels
                        + array->group * (l->channels / l->groups);
    float *to = w->patches + slot * w->stride;
    gather(&w->runs, from, rows, to);
    w->factor[slot] = scaled(l, to, rows, halving);
    if (l->read_variance > 0.0f) {
        float *squares = w->squares + slot * w->stride;
        for (int64_t k = 0; k < rows; k++) squares[k] = to[k] * to[k];
    }
    if (l->additive_variance > 0.0f) {
        float sums[LANES] = {0}, sum = 0.0f;
        for (int64_t k = 0; k < rows; k += LANES)
            for (int i = 0; i < LANES; i++) sums[i] += to[k + i] * to[k + i];
        for (int i = 0; i < LANES; i++) sum += sums[i];
        w->norm[slot] = sum;
    }
}



/* Repeat the products that an array clipped, with half the input, until none is; returns whether
 * there were any. */
static int manage_bounds(const struct layer *l, struct work *w, const struct array *array,
                         int64_t first, int64_t n_patches, uint64_t key, uint64_t first_image,
                         float *factor)
{
    const int64_t outputs = l->groups * l->columns, width = array->width;
    const int64_t positions = l->inputs_an_image * l->out_height * l->out_width;
    int64_t which[CHUNK], n = 0;
    const float *noise[CHUNK];
    float *drawn = w->again + CHUNK * width, halving = 1.0f;
    for (int64_t i = 0; i < n_patches; i++)
        if (w->is_clipped[i] && factor[i] > 0.0f) which[n++] = i;
    const int any = n > 0;
    for (uint64_t round = 1; n > 0 && halving <= l->most_halvings; round++) {
        halving *= 2.0f;
        for (int64_t i = 0; i < n; i++) {
            const int64_t at = first + which[i];
            take(l, w, array, at, halving, i);
            noise[i] = drawn + i * width;
            if (is_noisy(l))
                some_normals(drawn + i * width, at % positions * outputs + array->first_column,
                             array->columns, positions * outputs,
                             key + round * 0xD1B54A32D192ED03u,
                             first_image + (uint64_t)(at / positions));
        }
        multiply(l, w, array, n, noise, w->again);
        int64_t left = 0;
        for (int64_t i = 0; i < n; i++) {
            memcpy(w->results + which[i] * width, w->again + i * width,
                   (size_t)width * sizeof(float));
            factor[which[i]] = w->factor[i];
            if (w->is_clipped[i]) which[left++] = which[i];
        }
        n = left;
    }
    return any;
}

/* Some images through all arrays of one block of rows; its outputs are added to those before. */
static void compute(const struct layer *l, struct work *w, int64_t block, int64_t n_images,
                    const float *weights, const float *places, uint64_t first_image, float *out)
{
    const int64_t outputs = l->groups * l->columns, rows = l->row_blocks[block];
    const int64_t positions = l->inputs_an_image * l->out_height * l->out_width;
    const float *noise[CHUNK];
    for (int64_t image = 0; is_noisy(l) && image < n_images; image++)
        normals(w->drawn + image * positions * outputs, positions * outputs, l->keys[block],
                first_image + (uint64_t)image);
    for (int64_t group = 0; group < l->groups; group++) {
        const float *next = weights;
        for (int64_t first = 0; first < n_images * positions; first += CHUNK) {
            const int64_t left = n_images * positions - first;
            const int64_t n_patches = left < CHUNK ? left : CHUNK;
            int have_patches = 0;
            struct array array = {rows, 0, 0, group * l->columns, group, weights, places};
            for (int64_t part = 0; part < l->n_column_blocks; part++) {
                float factor[CHUNK];
                array.columns = l->column_blocks[part];
                array.width = (array.columns + LANES - 1) / LANES * LANES;
                for (int64_t i = 0; i < n_patches; i++) {
                    if (!have_patches) take(l, w, &array, first + i, 1.0f, i);
                    noise[i] = w->drawn + (first + i) * outputs + array.first_column;
                }
                memcpy(factor, w->factor, sizeof factor);
                multiply(l, w, &array, n_patches, noise, w->results);
                have_patches = !(l->most_halvings > 0.0f
                                 && manage_bounds(l, w, &array, first, n_patches, l->keys[block],
                                                  first_image, factor));
                const float *scale = l->scales + block * outputs + array.first_column;
                const float *offset = l->offsets + array.first_column;
                for (int64_t i = 0; i < n_patches; i++) {
                    const float *from = w->results + i * array.width;
                    float *to = out + (first + i) * outputs + array.first_column;
                    for (int64_t c = 0; c < array.columns; c++)
                        to[c] = from[c] * (factor[i] * scale[c]) + (block ? to[c] : offset[c]);
                }
                array.first_column += array.columns;
                array.weights += array.width * rows;
            }
            next = array.weights;
        }
        weights = next;
    }
}

/* Images (height, width, channels) through a layer: out (height, width, columns of all groups).
 * Returns 0, or 1 if there is no memory. */
int arrays(const struct layer *l, const float *x, float *out, int64_t images, uint64_t first_image)
{
    const int64_t positions = l->inputs_an_image * l->out_height * l->out_width;
    const int64_t outputs = l->groups * l->columns, values = l->height * l->width * l->channels;
    const int64_t size = (l->height + 2 * l->top) * (l->width + 2 * l->left) * l->channels;
    const int64_t together = positions < CHUNK ? CHUNK / positions : 1;
    int64_t rows = 0, columns = 0, width = 0;
    for (int64_t i = 0; i < l->n_row_blocks; i++)
        rows = l->row_blocks[i] > rows ? l->row_blocks[i] : rows;
    for (int64_t i = 0; i < l->n_column_blocks; i++) {
        columns = l->column_blocks[i] > columns ? l->column_blocks[i] : columns;
        width += (l->column_blocks[i] + LANES - 1) / LANES * LANES;
    }
    columns = (columns + LANES - 1) / LANES * LANES;
    const int64_t taps = l->kernel_height * l->kernel_width;
    struct work w = {.stride = (rows + LANES - 1) / LANES * LANES + LANES};
    const int64_t sizes[] = {
        together * l->inputs_an_image * size + LANES,  CHUNK * w.stride,
        l->read_variance > 0.0f ? CHUNK * w.stride : 0, 4 * MOST_TILES * WIDE * LANES,
        is_noisy(l) ? together * positions * outputs + LANES : 0,
        l->most_halvings > 0.0f ? 2 * CHUNK * columns : 0, CHUNK * columns};
    float **const parts[] = {&w.padded, &w.patches, &w.squares, &w.products,
                             &w.drawn,  &w.again,   &w.results};
    int64_t total = LANES;
    for (int i = 0; i < 7; i++) total += (sizes[i] + LANES - 1) / LANES * LANES;
    float *memory = calloc((size_t)total, sizeof(float));
    w.runs.offset = malloc(2 * (size_t)taps * sizeof(int64_t));
    if (!memory || !w.runs.offset) {
        free(memory);
        free(w.runs.offset);
        return 1;
    }
    w.runs.count = w.runs.offset + taps;
    const uintptr_t line = LANES * sizeof(float);
    float *part = (float *)(((uintptr_t)memory + line - 1) / line * line);
    for (int i = 0; i < 7; i++) {
        *parts[i] = part;
        part += (sizes[i] + LANES - 1) / LANES * LANES;
    }
    for (int64_t image = 0; image < images; image += together) {
        const int64_t n_images = images - image < together ? images - image : together;
        const float *from = x + image * l->inputs_an_image * values, *weights = l->weights;
        for (int64_t i = 0; i < n_images * l->inputs_an_image; i++)
            pad(l, from + i * values, w.padded + i * size);
        int64_t first_row = 0;
        for (int64_t block = 0; block < l->n_row_blocks; block++) {
            const int64_t n_rows = l->row_blocks[block];
            find_runs(&w.runs, l, first_row, n_rows);
            compute(l, &w, block, n_images, weights, l->places + first_row,
                    first_image + (uint64_t)image, out + image * positions * outputs);
            weights += l->groups * width * n_rows;
            first_row += n_rows;
        }
    }
    free(memory);
    free(w.runs.offset);
    return 0;
}
