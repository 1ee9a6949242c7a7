/* The products of some input vectors with some columns. */

#if defined(__AVX512F__)
enum { WIDE = 8, NARROW = 6 }; /* vectors at a time: as many as there are registers for */
#elif defined(__AVX__)
enum { WIDE = 4, NARROW = 2 };
#else
enum { WIDE = 8, NARROW = 6 };
#endif

/* Where the rows of a block lie, seen from the start of a patch: runs of neighbours. */
struct runs {
    int64_t n;
    int64_t *offset, *count;
};

/* Up to four products of ROWS vectors with TILES x LANES columns: w x, |w| x^2, |w| |x| and
 * w x place, where they are wanted. Vectors start at x + start[row]. Results: [product][tile][row]
 * [LANES]. */
#define PRODUCTS(NAME, TILES, ROWS, READS, DROPS)                                                 \
    static void NAME(const float *restrict weights, const float *restrict places,                  \
                     const float *restrict x, const float *restrict squares,                       \
                     const int64_t *restrict start, const struct runs *runs, int64_t rows,         \
                     float *restrict out)                                                          \
    {                                                                                             \
        lanes_t y[TILES][ROWS], v[TILES][ROWS], a[TILES][ROWS], d[TILES][ROWS];                    \
        for (int t = 0; t < TILES; t++)                                                           \
            for (int r = 0; r < ROWS; r++)                                                        \
                y[t][r] = v[t][r] = a[t][r] = d[t][r] = (lanes_t){0};                              \
        int64_t from[ROWS];                                                                       \
        for (int64_t run = 0; run < runs->n; run++) {                                             \
            const int64_t n = runs->count[run];                                                   \
            for (int r = 0; r < ROWS; r++) from[r] = start[r] + runs->offset[run];                 \
            for (int64_t k = 0; k < n; k++) {                                                     \
                lanes_t w[TILES], size[TILES], placed[TILES];                                     \
                for (int t = 0; t < TILES; t++) {                                                 \
                    w[t] = load(weights + (t * rows + k) * LANES);                                \
                    if (READS || DROPS) size[t] = magnitude(w[t]);                                \
                    if (DROPS) placed[t] = w[t] * places[k];                                      \
                }                                                                                 \
                _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; r++) {                           \
                    const lanes_t in = x[from[r] + k] - (lanes_t){0};                              \
                    for (int t = 0; t < TILES; t++) {                                             \
                        y[t][r] += w[t] * in;                                                     \
                        if (READS) v[t][r] += size[t] * squares[from[r] + k];                      \
                        if (DROPS) a[t][r] += size[t] * magnitude(in);                             \
                        if (DROPS) d[t][r] += placed[t] * in;                                      \
                    }                                                                             \
                }                                                                                 \
            }                                                                                     \
            weights += n * LANES;                                                                 \
            places += n;                                                                          \
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
