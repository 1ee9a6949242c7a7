/* Vector instructions without naming any, and the products of some input vectors with some columns.
 * Follows kernels.c in one source. */

#if defined(__AVX512F__)
enum { LANES = 16, WIDE = 8, NARROW = 6 };
#elif defined(__AVX__)
enum { LANES = 8, WIDE = 4, NARROW = 2 };
#else
enum { LANES = 4, WIDE = 8, NARROW = 6 };
#endif

int64_t lanes(void) { return LANES; }

typedef float lanes_t __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t bits_t __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
static inline lanes_t load(const float *x) { return *(const lanes_t *)x; }
static inline void store(float *x, lanes_t v) { *(lanes_t *)x = v; }
static inline lanes_t magnitude(lanes_t x) { return (lanes_t)((bits_t)x & 0x7FFFFFFF); }

/* Nearest whole number, ties to even, of what an ADC can hold. */
static inline lanes_t rounded(lanes_t x)
{
    const lanes_t large = (lanes_t){0} + 12582912.0f; /* 1.5 2^23: its last bit is 1 */
    return (x + large) - large;
}

static inline lanes_t smaller(lanes_t x, lanes_t y)
{
    const bits_t is_y = y < x; /* not a number stays what it is */
    return (lanes_t)(((bits_t)y & is_y) | ((bits_t)x & ~is_y));
}

static inline lanes_t larger(lanes_t x, lanes_t y)
{
    const bits_t is_y = y > x;
    return (lanes_t)(((bits_t)y & is_y) | ((bits_t)x & ~is_y));
}

static inline int is_any(bits_t x)
{
    uint32_t bits[LANES], any = 0;
    memcpy(bits, &x, sizeof bits);
    for (int i = 0; i < LANES; i++) any |= bits[i];
    return any != 0;
}

/* Largest of numbers without sign, which are ordered as their bits are. */
static inline float largest_of(lanes_t x)
{
    int32_t bits[LANES], most = 0;
    float largest;
    memcpy(bits, &x, sizeof bits);
    for (int i = 0; i < LANES; i++) most = bits[i] > most ? bits[i] : most;
    memcpy(&largest, &most, 4);
    return largest;
}

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
