/* Portable vector types of the compiler. First of several files that are compiled as one. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

int64_t lanes(void) { return LANES; }

typedef float lanes_t __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t bits_t __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t words_t __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
static inline lanes_t load(const float *x) { return *(const lanes_t *)x; }
static inline void store(float *x, lanes_t v) { *(lanes_t *)x = v; }
static inline lanes_t magnitude(lanes_t x) { return (lanes_t)((bits_t)x & 0x7FFFFFFF); }

/* Nearest integer, ties to even, for |x| < 2^22. */
static inline lanes_t rounded(lanes_t x)
{
    const lanes_t large = (lanes_t){0} + 12582912.0f; /* 1.5 2^23: its last bit is 1 */
    return (x + large) - large;
}

static inline lanes_t smaller(lanes_t x, lanes_t y)
{
    const bits_t is_y = y < x; /* NaN in x stays NaN */
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

/* Largest of non-negative numbers, whose order is that of their bits. */
static inline float largest_of(lanes_t x)
{
    int32_t bits[LANES], most = 0;
    float largest;
    memcpy(bits, &x, sizeof bits);
    for (int i = 0; i < LANES; i++) most = bits[i] > most ? bits[i] : most;
    memcpy(&largest, &most, 4);
    return largest;
}
