/* Products of several input vectors with a panel of columns. */

#if defined(__AVX512F__)
enum { VECTORS = 8, DROP_VECTORS = 6 }; /* vectors at a time, without and with IR drop */
#elif defined(__AVX__)
enum { VECTORS = 4, DROP_VECTORS = 2 };
#else
enum { VECTORS = 8, DROP_VECTORS = 6 };
#endif

/* Rows of a block as runs of consecutive values; offsets from the start of a patch. */
struct runs {
    int64_t n;
    int64_t *offset, *count;
};

/* Up to four products of ROWS vectors with PANELS x LANES columns: w x, |w| x^2 (READS), |w| |x|
 * and w x place (DROPS). Vectors start at x + start[row]. Results: [product][panel][row][LANES]. */
#define PRODUCTS(NAME, PANELS, ROWS, READS, DROPS)                                                \
    static void NAME(const float *restrict weights, const float *restrict places,                 \
                     const float *restrict x, const float *restrict squares,                      \
                     const int64_t *restrict start, const struct runs *runs, int64_t rows,        \
                     float *restrict out)                                                         \
    {                                                                                             \
        lanes_t y[PANELS][ROWS], v[PANELS][ROWS], a[PANELS][ROWS], d[PANELS][ROWS];               \
        for (int t = 0; t < PANELS; t++)                                                          \
            for (int r = 0; r < ROWS; r++)                                                        \
                y[t][r] = v[t][r] = a[t][r] = d[t][r] = (lanes_t){0};                             \
        int64_t from[ROWS];                                                                       \
        for (int64_t run = 0; run < runs->n; run++) {                                             \
            const int64_t n = runs->count[run];                                                   \
            for (int r = 0; r < ROWS; r++) from[r] = start[r] + runs->offset[run];                \
            for (int64_t k = 0; k < n; k++) {                                                     \
                lanes_t w[PANELS], size[PANELS], placed[PANELS];                                  \
                for (int t = 0; t < PANELS; t++) {                                                \
                    w[t] = load(weights + (t * rows + k) * LANES);                                \
                    if (READS || DROPS) size[t] = magnitude(w[t]);                                \
                    if (DROPS) placed[t] = w[t] * places[k];                                      \
                }                                                                                 \
                _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; r++) {                          \
                    const lanes_t in = x[from[r] + k] - (lanes_t){0};                             \
                    for (int t = 0; t < PANELS; t++) {                                            \
                        y[t][r] += w[t] * in;                                                     \
                        if (READS) v[t][r] += size[t] * squares[from[r] + k];                     \
                        if (DROPS) a[t][r] += size[t] * magnitude(in);                            \
                        if (DROPS) d[t][r] += placed[t] * in;                                     \
                    }                                                                             \
                }                                                                                 \
            }                                                                                     \
            weights += n * LANES;                                                                 \
            places += n;                                                                          \
        }                                                                                         \
        for (int t = 0; t < PANELS; t++)                                                          \
            for (int r = 0; r < ROWS; r++) {                                                      \
                float *to = out + (t * ROWS + r) * LANES;                                         \
                store(to, y[t][r]);                                                               \
                if (READS) store(to + 1 * PANELS * ROWS * LANES, v[t][r]);                        \
                if (DROPS) store(to + 2 * PANELS * ROWS * LANES, a[t][r]);                        \
                if (DROPS) store(to + 3 * PANELS * ROWS * LANES, d[t][r]);                        \
            }                                                                                     \
    }
PRODUCTS(product_of_3, 3, VECTORS, 0, 0)
PRODUCTS(product_of_2, 2, VECTORS, 0, 0)
PRODUCTS(product, 1, VECTORS, 0, 0)
PRODUCTS(product_and_variance, 1, VECTORS, 1, 0)
PRODUCTS(product_and_drop, 1, DROP_VECTORS, 0, 1)
PRODUCTS(product_and_both, 1, DROP_VECTORS, 1, 1)
