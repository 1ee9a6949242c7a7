/* Counter-based normals: they depend on (key, image, index) only. */

/* Threefry2x32 with 20 rounds: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
 * A round depends on the previous one, so several vectors of counters are processed in parallel. */
enum { ABREAST = LANES == 16 ? 8 : 4, BLOCK = 512 }; /* the block: a multiple of ABREAST * LANES */
#define EACH for (int v = 0; v < abreast; v++)
#define ROUND(bits)                                                                               \
    EACH x0[v] += x1[v];                                                                          \
    EACH x1[v] = (x1[v] << bits | x1[v] >> (32 - bits)) ^ x0[v];
#define EVEN ROUND(13) ROUND(15) ROUND(26) ROUND(6)
#define ODD ROUND(17) ROUND(29) ROUND(16) ROUND(24)
#define INJECT(key0, key1)                                                                        \
    EACH x0[v] += key0;                                                                           \
    EACH x1[v] += key1;

/* Both words of counters (first + i, image), i from 0 to abreast * LANES - 1. */
static inline __attribute__((always_inline)) void
threefry(const int abreast, uint32_t k0, uint32_t k1, uint32_t first, uint32_t image,
         uint32_t *word0, uint32_t *word1)
{
    const uint32_t k2 = 0x1BD11BDAu ^ k0 ^ k1;
    words_t x0[ABREAST], x1[ABREAST], lane;
    for (uint32_t i = 0; i < LANES; i++) lane[i] = i;
    EACH x0[v] = lane + (first + (uint32_t)(v * LANES) + k0);
    EACH x1[v] = (words_t){0} + (image + k1);
    EVEN INJECT(k1, k2 + 1)
    ODD INJECT(k2, k0 + 2)
    EVEN INJECT(k0, k1 + 3)
    ODD INJECT(k1, k2 + 4)
    EVEN INJECT(k2, k0 + 5)
    EACH *(words_t *)(word0 + v * LANES) = x0[v];
    EACH *(words_t *)(word1 + v * LANES) = x1[v];
}

/* ln(u) for u in (0, 1], float precision: u = m 2^e, ln m = 2 artanh((m - 1) / (m + 1)). */
static inline float logarithm(float u)
{
    int32_t bits;
    memcpy(&bits, &u, 4);
    int32_t exponent = (bits - 0x3F3504F3) >> 23; /* m in [sqrt(1/2), sqrt(2)) */
    bits -= exponent * (1 << 23);
    float m;
    memcpy(&m, &bits, 4);
    float s = (m - 1.0f) / (m + 1.0f), z = s * s;
    float p = 2.0f + z * (0.66666667f + z * (0.4f + z * (0.28571429f + z * 0.22222222f)));
    return s * p + (float)exponent * 0.69314718f;
}

static inline float with_sign(float x, uint32_t sign)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits ^= sign & 0x80000000u;
    memcpy(&x, &bits, 4);
    return x;
}

/* Two independent normals from two words (Box and Muller, 1958). The radius has 31 bits (largest
 * 6.66), the angle 32: the nearest quarter of a turn and f half turns from there. */
static inline void two_normals(uint32_t word0, uint32_t word1, float *a, float *b)
{
    const float u = (float)(int32_t)(word0 >> 1) * 4.6566129e-10f + 2.3283064e-10f;
    const float radius = sqrtf(-2.0f * logarithm(u));
    const uint32_t quarter = word1 + 0x20000000u; /* in its two highest bits */
    const float f = (float)((int32_t)(quarter & 0x3FFFFFFFu) - 0x20000000) * 4.6566129e-10f;
    const float z = f * f;
    const float sine = f * (3.14159265f + z * (-5.16771278f + z * (2.55016404f
                            + z * (-0.59926453f + z * 0.08214589f))));
    const float cosine = 1.0f + z * (-4.93480220f + z * (4.05871213f + z * (-1.33526277f
                                + z * (0.23533063f + z * -0.02580689f))));
    const int is_odd = (quarter & 0x40000000u) != 0;
    *a = radius * with_sign(is_odd ? sine : cosine, quarter + 0x40000000u);
    *b = radius * with_sign(is_odd ? cosine : sine, quarter);
}

/* Both normals of counters (first + i, image), i from 0 to n - 1; n is at most BLOCK. */
static void pairs_of_normals(uint64_t key, uint64_t image, int64_t first, int64_t n,
                             float *restrict a, float *restrict b)
{
    const uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32), c1 = (uint32_t)image;
    uint32_t word0[BLOCK], word1[BLOCK];
    int64_t i = 0;
    for (; i + (ABREAST - 1) * LANES < n; i += ABREAST * LANES)
        threefry(ABREAST, k0, k1, (uint32_t)(first + i), c1, word0 + i, word1 + i);
    for (; i < n; i += LANES)
        threefry(1, k0, k1, (uint32_t)(first + i), c1, word0 + i, word1 + i);
    for (i = 0; i < n; i++) two_normals(word0[i], word1[i], a + i, b + i);
}

/* Normals of one image: number j and number j + ceil(n / 2) come from counter (j, image). */
void normals(float *out, int64_t n, uint64_t key, uint64_t image)
{
    const int64_t half = (n + 1) / 2, whole = n - half;
    for (int64_t j = 0; j < whole; j += BLOCK)
        pairs_of_normals(key, image, j, whole - j < BLOCK ? whole - j : BLOCK, out + j,
                         out + half + j);
    float unused;
    if (whole < half) pairs_of_normals(key, image, whole, 1, out + whole, &unused);
}

/* Normals `first` to first + count - 1 of the n of an image, equal to those of `normals`. */
static void some_normals(float *out, int64_t first, int64_t count, int64_t n, uint64_t key,
                         uint64_t image)
{
    const int64_t half = (n + 1) / 2;
    float other[BLOCK];
    for (int64_t done = 0; done < count;) {
        const int64_t j = first + done, left = j < half && half - j < count - done ? half - j
                                                                                 : count - done;
        const int64_t now = left < BLOCK ? left : BLOCK;
        if (j < half) pairs_of_normals(key, image, j, now, out + done, other);
        else pairs_of_normals(key, image, j - half, now, other, out + done);
        done += now;
    }
}
