/* Per-vector computation of a layer: scales, currents or noise depend on each input vector. Steps
 * of the periphery, on data in the cache: input scaling and DAC (`pad`, `scaled`), products
 * (`product...`), IR drop (`drop_voltage`), standard deviation of the noise (`deviate`), noise, ADC
 * and bound (`finish`), bound management (`manage_bounds`), scale and sum (`add`). */

/* CHUNK: patches at a time, a multiple of VECTORS and of DROP_VECTORS. */
enum { CHUNK = 96, MOST_PANELS = 3 };

struct layer {
    /* an input: height x width x channels; how kernels move over it */
    int64_t height, width, channels, out_height, out_width, kernel_height, kernel_width;
    int64_t stride_y, stride_x, top, left, dilation_y, dilation_x;
    int64_t groups, columns; /* columns of one group */
    int64_t inputs_an_image; /* several if a network folds windows into the batch */
    int64_t n_row_blocks, n_column_blocks;
    const int64_t *row_blocks, *column_blocks; /* their sizes */
    const float *weights; /* of every (row block, group, column block): [panel][row][LANES] */
    const float *places;  /* of every row: 1 - (1 - j / n)^2, for the IR drop */
    const float *scales;  /* model units of an ADC step, (row block, group, column) */
    const float *offsets; /* (group, column) */
    const uint64_t *keys; /* of the noise, of every row block */
    float range, step, levels; /* of the DAC; a range of 0: of every vector; a step of 0: ideal */
    float most_halvings;       /* largest factor of the bound management; 0: none */
    float output_noise, output_levels, largest_fit; /* in ADC steps; clipped if above the last */
    float read_variance, additive_variance;         /* factors of sum |w| x^2 and of sum x^2 */
    float drop, current; /* scale of the IR drop; of rows x sum |w| |x| */
    float rounds;        /* whether there is an ADC */
};

/* Size of the struct, then the offset of each field, to be compared with Python's copy. Writes at
 * most `most` numbers and returns how many there are. */
int64_t layer_layout(int64_t *out, int64_t most)
{
#define AT(field) (int64_t)offsetof(struct layer, field)
    const int64_t layout[] = {
        (int64_t)sizeof(struct layer), AT(height), AT(width), AT(channels), AT(out_height),
        AT(out_width), AT(kernel_height), AT(kernel_width), AT(stride_y), AT(stride_x), AT(top),
        AT(left), AT(dilation_y), AT(dilation_x), AT(groups), AT(columns), AT(inputs_an_image),
        AT(n_row_blocks), AT(n_column_blocks), AT(row_blocks), AT(column_blocks), AT(weights),
        AT(places), AT(scales), AT(offsets), AT(keys), AT(range), AT(step), AT(levels),
        AT(most_halvings), AT(output_noise), AT(output_levels), AT(largest_fit),
        AT(read_variance), AT(additive_variance), AT(drop), AT(current), AT(rounds),
    };
#undef AT
    const int64_t n = sizeof layout / sizeof layout[0];
    memcpy(out, layout, (size_t)(n < most ? n : most) * sizeof(int64_t));
    return n;
}

/* Rows of a block in a padded input, ordered by kernel position, then channel. */
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

/* Whether inputs are converted to DAC levels before patches are taken from them. */
static inline int has_levels(const struct layer *l)
{
    return l->range > 0.0f && l->most_halvings == 0.0f;
}

static inline int is_noisy(const struct layer *l)
{
    return l->output_noise > 0.0f || l->read_variance > 0.0f || l->additive_variance > 0.0f;
}

/* Pad one input with zeros. With a fixed range, divide by it; without bound management, convert to
 * DAC levels. */
static void pad(const struct layer *l, const float *x, float *padded)
{
    const int64_t width = (l->width + 2 * l->left) * l->channels, row = l->width * l->channels;
    const int rounds = has_levels(l) && l->step > 0.0f;
    for (int64_t y = 0; y < l->height; y++) {
        const float *from = x + y * row;
        float *to = padded + (y + l->top) * width + l->left * l->channels;
        if (rounds)
            dac(from, to, row, 1.0f / (l->range * l->step), 1, l->levels);
        else if (l->range > 0.0f)
            for (int64_t i = 0; i < row; i++) {
                const float v = from[i] / l->range;
                to[i] = v > 1.0f ? 1.0f : v < -1.0f ? -1.0f : v;
            }
        else
            memcpy(to, from, (size_t)row * sizeof(float));
    }
}

/* Gather one patch. Runs are copied in whole vectors; the excess is overwritten. */
static void gather(const struct runs *runs, const float *from, int64_t rows, float *to)
{
    float *at = to;
    for (int64_t i = 0; i < runs->n; i++) {
        const float *source = from + runs->offset[i];
        const int64_t count = runs->count[i];
        for (int64_t c = 0; c < count; c += LANES) store(at + c, load(source + c));
        at += count;
    }
    store(to + rows, (lanes_t){0});
}

/* Convert a patch, filled up with zeros, to DAC levels. Returns the factor for its outputs; 0 for a
 * patch of zeros. */
static float scaled(const struct layer *l, float *restrict x, int64_t rows, float halving)
{
    float largest = 1.0f;
    if (l->range == 0.0f) {
        lanes_t most = {0};
        for (int64_t k = 0; k < rows; k += LANES) most = larger(magnitude(load(x + k)), most);
        largest = largest_of(most);
        if (largest == 0.0f) return 0.0f;
    }
    const float scale = 1.0f / largest / halving, step = l->step;
    const float inverse = step > 0.0f ? 1.0f / step : 0.0f;
    for (int64_t k = 0; k < rows; k += LANES) {
        const lanes_t v = load(x + k) * scale;
        if (step > 0.0f) { /* v / step, rounded as a division */
            const lanes_t q = v * inverse;
            store(x + k, rounded(q + (v - q * step) * inverse));
        } else
            store(x + k, v);
    }
    return largest * halving;
}

/* Working memory of one call. */
struct work {
    float *padded, *padded_squares;   /* inputs, with zeros around them */
    float *patches, *patch_squares;   /* where the levels depend on the patch: (CHUNK, stride) */
    float *products, *drawn, *again, *results;
    struct runs runs;
    int64_t stride, start[CHUNK];     /* of the patches of a chunk: in padded inputs */
    float factor[CHUNK], norm[CHUNK]; /* factor of outputs; sum x^2 */
    uint8_t is_clipped[CHUNK];
};

struct array {
    int64_t rows, columns, width, first_column; /* width: columns including padding */
    const float *weights, *places;
};

/* Prepare patches of padded inputs for multiplication. */
static void take(const struct layer *l, struct work *w, int64_t rows, const int64_t *start,
                 int64_t n, float halving)
{
    const struct runs whole = {1, &(int64_t){0}, &rows};
    const struct runs *runs = has_levels(l) ? &w->runs : &whole;
    if (!has_levels(l)) /* two loops: reading just after writing is slow */
        for (int64_t i = 0; i < n; i++)
            gather(&w->runs, w->padded + start[i], rows, w->patches + i * w->stride);
    for (int64_t i = 0; i < n; i++) {
        float *patch = w->patches + i * w->stride;
        w->factor[i] = has_levels(l) ? 1.0f : scaled(l, patch, rows, halving);
        if (l->read_variance > 0.0f && !has_levels(l)) {
            float *squares = w->patch_squares + i * w->stride;
            for (int64_t k = 0; k < rows; k += LANES)
                store(squares + k, load(patch + k) * load(patch + k));
        }
        if (l->additive_variance > 0.0f) {
            const float *from = has_levels(l) ? w->padded + start[i] : patch;
            w->norm[i] = 0.0f;
            for (int64_t run = 0; run < runs->n; run++)
                for (int64_t k = 0; k < runs->count[run]; k++) {
                    const float level = from[runs->offset[run] + k];
                    w->norm[i] += level * level;
                }
        }
    }
}

/* y - drop c d with c = a (a (0.05 a - 0.2) + 0.5), where a is the current of the column. */
static void drop_voltage(float *restrict y, const float *restrict a, const float *restrict d,
                         int64_t n, float current, float drop)
{
    for (int64_t i = 0; i < n; i++) {
        const float c = current * a[i];
        y[i] -= drop * (c * (c * (0.05f * c - 0.2f) + 0.5f)) * d[i];
    }
}

static void deviate(float *restrict v, int64_t n, float variance, float factor)
{
    for (int64_t i = 0; i < n; i++) v[i] = sqrtf(variance + factor * v[i]);
}

/* Noise, ADC and bound of LANES outputs of one patch; returns a mask of the clipped outputs. */
static inline bits_t finish(const struct layer *l, const float *y, const float *deviation,
                            float common_deviation, const float *noise, float *to)
{
    lanes_t value = load(y);
    if (noise && deviation) value += load(deviation) * load(noise);
    else if (noise) value += common_deviation * load(noise);
    if (l->rounds > 0.0f) value = rounded(value);
    const lanes_t levels = (lanes_t){0} + l->output_levels;
    store(to, larger(smaller(value, levels), -levels));
    return magnitude(value) > (lanes_t){0} + l->largest_fit;
}

/* Multiply patches with one array; results in ADC steps: (patch, width). `noise`: one row of
 * normals per patch. */
static void multiply(const struct layer *l, struct work *w, const struct array *array,
                     int64_t n_patches, const float *const *noise, float *results)
{
    const int reads = l->read_variance > 0.0f, drops = l->drop > 0.0f, noisy = is_noisy(l);
    const int64_t rows = array->rows, n_panels = array->width / LANES;
    const struct runs whole = {1, &(int64_t){0}, &(int64_t){array->rows}};
    const struct runs *runs = has_levels(l) ? &w->runs : &whole;
    const float *x = has_levels(l) ? w->padded : w->patches;
    const float *squares = has_levels(l) ? w->padded_squares : w->patch_squares;
    int64_t start[CHUNK];
    for (int64_t i = 0; i < CHUNK; i++)
        start[i] = has_levels(l) ? w->start[i < n_patches ? i : 0] : i * w->stride;
    memset(w->is_clipped, 0, sizeof w->is_clipped);
    bits_t used[2]; /* used lanes of all panels but the last, and of the last */
    for (int c = 0; c < LANES; c++) {
        used[0][c] = -1;
        used[1][c] = array->columns - (n_panels - 1) * LANES > c ? -1 : 0;
    }
    for (int64_t panel = 0; panel < n_panels;) {
        int64_t together = 1, vectors = drops ? DROP_VECTORS : VECTORS;
        if (!reads && !drops) {
            const int64_t left = n_panels - panel;
            together = left == 4 ? 2 : left < MOST_PANELS ? left : MOST_PANELS;
        }
        const int64_t size = together * vectors * LANES;
        float *y = w->products, *v = y + size, *a = v + size, *d = a + size;
        for (int64_t first = 0; first < n_patches; first += vectors) {
            (drops ? reads ? product_and_both : product_and_drop
             : reads ? product_and_variance
             : together == 1 ? product
             : together == 2 ? product_of_2
                             : product_of_3)(array->weights + panel * rows * LANES, array->places,
                                             x, squares, start + first, runs, rows, y);
            const float output_variance = l->output_noise * l->output_noise;
            if (drops) drop_voltage(y, a, d, size, l->current * (float)rows, l->drop);
            if (reads) deviate(v, size, output_variance, l->read_variance);
            bits_t is_clipped[VECTORS > DROP_VECTORS ? VECTORS : DROP_VECTORS] = {{0}}, any = {0};
            for (int64_t t = 0; t < together; t++)
                for (int64_t r = 0; r < vectors && first + r < n_patches; r++) {
                    const int64_t column = (panel + t) * LANES, patch = first + r;
                    const int64_t at = (t * vectors + r) * LANES;
                    float deviation = l->output_noise;
                    if (l->additive_variance > 0.0f)
                        deviation = sqrtf(output_variance + l->additive_variance * w->norm[patch]);
                    const bits_t over = used[panel + t == n_panels - 1]
                                        & finish(l, y + at, reads ? v + at : NULL, deviation,
                                                 noisy ? noise[patch] + column : NULL,
                                                 results + patch * array->width + column);
                    is_clipped[r] |= over;
                    any |= over;
                }
            if (l->most_halvings > 0.0f && is_any(any))
                for (int64_t r = 0; r < vectors; r++)
                    w->is_clipped[first + r] |= (uint8_t)is_any(is_clipped[r]);
        }
        panel += together;
    }
}

/* Bound management: repeat clipped products at half the input until none is clipped. Returns
 * whether any was clipped. */
static int manage_bounds(const struct layer *l, struct work *w, const struct array *array,
                         int64_t first, int64_t n_patches, uint64_t key, uint64_t first_image,
                         float *factor)
{
    const int64_t outputs = l->groups * l->columns, width = array->width;
    const int64_t positions = l->inputs_an_image * l->out_height * l->out_width;
    int64_t which[CHUNK], start[CHUNK], n = 0;
    const float *noise[CHUNK];
    float *drawn = w->again + CHUNK * width, halving = 1.0f;
    for (int64_t i = 0; i < n_patches; i++)
        if (w->is_clipped[i] && factor[i] > 0.0f) which[n++] = i;
    const int any = n > 0;
    for (uint64_t round = 1; n > 0 && halving <= l->most_halvings; round++) {
        halving *= 2.0f;
        for (int64_t i = 0; i < n; i++) start[i] = w->start[which[i]];
        take(l, w, array->rows, start, n, halving);
        for (int64_t i = 0; i < n; i++) {
            const int64_t at = first + which[i];
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

/* Scale outputs of arrays and add them to those of earlier blocks of rows. */
static void add(const float *restrict from, float factor, const float *restrict scale,
                const float *restrict offset, int64_t n, float *restrict to)
{
    if (offset)
        for (int64_t c = 0; c < n; c++) to[c] = from[c] * (factor * scale[c]) + offset[c];
    else
        for (int64_t c = 0; c < n; c++) to[c] += from[c] * (factor * scale[c]);
}

/* Offsets of the patches of a chunk in padded inputs. */
static void find_starts(const struct layer *l, int64_t *start, int64_t first, int64_t n)
{
    const int64_t positions = l->out_height * l->out_width, width = l->width + 2 * l->left;
    const int64_t size = (l->height + 2 * l->top) * width;
    int64_t input = first / positions, y = first % positions / l->out_width;
    int64_t x = first % l->out_width;
    for (int64_t i = 0; i < n; i++) {
        start[i] = (input * size + y * l->stride_y * width + x * l->stride_x) * l->channels;
        if (++x < l->out_width) continue;
        x = 0;
        if (++y < l->out_height) continue;
        y = 0;
        input++;
    }
}

/* Images through all arrays of one block of rows; outputs are added to those of earlier blocks. */
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
            int are_taken = 0;
            struct array array = {rows, 0, 0, group * l->columns, weights, places};
            find_starts(l, w->start, first, n_patches);
            for (int64_t i = 0; i < n_patches; i++)
                w->start[i] += group * (l->channels / l->groups);
            for (int64_t part = 0; part < l->n_column_blocks; part++) {
                float factor[CHUNK];
                array.columns = l->column_blocks[part];
                array.width = (array.columns + LANES - 1) / LANES * LANES;
                if (!are_taken) take(l, w, rows, w->start, n_patches, 1.0f);
                for (int64_t i = 0; i < n_patches; i++)
                    noise[i] = w->drawn + (first + i) * outputs + array.first_column;
                memcpy(factor, w->factor, sizeof factor);
                multiply(l, w, &array, n_patches, noise, w->results);
                are_taken = !(l->most_halvings > 0.0f
                              && manage_bounds(l, w, &array, first, n_patches, l->keys[block],
                                               first_image, factor));
                for (int64_t i = 0; i < n_patches; i++)
                    add(w->results + i * array.width, factor[i],
                        l->scales + block * outputs + array.first_column,
                        block ? NULL : l->offsets + array.first_column, array.columns,
                        out + (first + i) * outputs + array.first_column);
                array.first_column += array.columns;
                array.weights += array.width * rows;
            }
            next = array.weights;
        }
        weights = next;
    }
}

/* Images (height, width, channels) through a layer; out: (height, width, columns of all groups).
 * Returns 0, or 1 if memory could not be allocated. */
int per_vector(const struct layer *l, const float *x, float *out, int64_t images,
               uint64_t first_image)
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
    const int reads = l->read_variance > 0.0f, gathers = !has_levels(l);
    struct work w = {.stride = (rows + LANES - 1) / LANES * LANES + LANES};
    const int64_t in = together * l->inputs_an_image * size, patches = CHUNK * w.stride;
    float **const parts[] = {&w.padded,        &w.padded_squares, &w.patches, &w.patch_squares,
                             &w.products,      &w.drawn,          &w.again,   &w.results};
    const int64_t sizes[] = {in + LANES,
                             reads && !gathers ? in : 0,
                             gathers ? patches : 0,
                             reads && gathers ? patches : 0,
                             4 * MOST_PANELS * VECTORS * LANES,
                             is_noisy(l) ? together * positions * outputs + LANES : 0,
                             l->most_halvings > 0.0f ? 2 * CHUNK * columns : 0,
                             CHUNK * columns};
    int64_t total = LANES;
    for (int i = 0; i < 8; i++) total += (sizes[i] + LANES - 1) / LANES * LANES;
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
    for (int i = 0; i < 8; i++) {
        *parts[i] = part;
        part += (sizes[i] + LANES - 1) / LANES * LANES;
    }
    for (int64_t image = 0; image < images; image += together) {
        const int64_t n_images = images - image < together ? images - image : together;
        const float *from = x + image * l->inputs_an_image * values, *weights = l->weights;
        for (int64_t i = 0; i < n_images * l->inputs_an_image; i++)
            pad(l, from + i * values, w.padded + i * size);
        if (reads && !gathers)
            for (int64_t i = 0; i < in; i++) w.padded_squares[i] = w.padded[i] * w.padded[i];
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
