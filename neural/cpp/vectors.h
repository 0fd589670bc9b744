// Sixteen numbers at a time, in GCC's vector extensions: any compiler that has them, any machine.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint8_t u8x64 __attribute__((vector_size(64)));

static inline f32x16 load(const float *p) {
    f32x16 v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

static inline void store(float *p, f32x16 v) { std::memcpy(p, &v, sizeof v); }

static inline u8x64 load_bytes(const uint8_t *p) {
    u8x64 v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

static inline f32x16 to_floats(i32x16 v) { return __builtin_convertvector(v, f32x16); }

// acc[i] += sum of a[4i + j] * b[j] over j < 4; a unsigned, b four signed bytes in one word
static inline i32x16 dot4(i32x16 acc, u8x64 a, int32_t b) {
#if defined(__AVX512VNNI__)
    return (i32x16)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)a, _mm512_set1_epi32(b));
#elif defined(__AVX2__)
    // even and odd bytes as 16-bit numbers, so that no sum of two products overflows
    __m256i low[2], mask = _mm256_set1_epi32(0x00ff00ff);
    std::memcpy(low, &a, sizeof low);
    __m256i evens = _mm256_set1_epi32((int8_t(b) & 0xffff) | int32_t(int8_t(b >> 16)) << 16);
    __m256i odds = _mm256_set1_epi32((int8_t(b >> 8) & 0xffff) | int32_t(int8_t(b >> 24)) << 16);
    __m256i sums[2];
    std::memcpy(sums, &acc, sizeof sums);
    for (int i = 0; i < 2; i++) {
        __m256i even = _mm256_and_si256(low[i], mask), odd = _mm256_and_si256(_mm256_srli_epi32(low[i], 8), mask);
        sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(even, evens));
        sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(odd, odds));
    }
    std::memcpy(&acc, sums, sizeof acc);
    return acc;
#else
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++) acc[i] += int32_t(a[4 * i + j]) * int32_t(int8_t(b >> (8 * j)));
    return acc;
#endif
}

// Numbers of 16 bits (IEEE 754 binary16), of which the machine may know no more than how to store them
typedef uint16_t Half;

static inline f32x16 load(const Half *p) {
    f32x16 v;
#if defined(__AVX512F__)
    __m256i bits;
    std::memcpy(&bits, p, sizeof bits);
    v = (f32x16)_mm512_cvtph_ps(bits);
#elif defined(__F16C__)
    __m128i bits[2];
    std::memcpy(bits, p, sizeof bits);
    __m256 halves[2] = {_mm256_cvtph_ps(bits[0]), _mm256_cvtph_ps(bits[1])};
    std::memcpy(&v, halves, sizeof v);
#else
    for (int i = 0; i < 16; i++) {
        uint32_t h = p[i], exponent = (h >> 10) & 31, fraction = h & 1023;
        float size = exponent == 31 ? NAN : std::ldexp(float((exponent ? 1024 : 0) + fraction), int(exponent ? exponent : 1) - 25);
        v[i] = (h >> 15) ? -size : size;
    }
#endif
    return v;
}

static inline f32x16 load(const int8_t *p) {
#if defined(__AVX512F__)
    __m128i bytes;
    std::memcpy(&bytes, p, sizeof bytes);
    return (f32x16)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
#else
    f32x16 v;
    for (int i = 0; i < 16; i++) v[i] = p[i];
    return v;
#endif
}

static inline float sum(f32x16 v) {
    float half[8], all = 0;
    for (int i = 0; i < 8; i++) half[i] = v[i] + v[i + 8];
    for (int i = 0; i < 4; i++) half[i] += half[i + 4];
    all = (half[0] + half[2]) + (half[1] + half[3]);
    return all;
}

static inline int32_t sum(i32x16 v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_epi32((__m512i)v);
#else
    int32_t all = 0;
    for (int i = 0; i < 16; i++) all += v[i];
    return all;
#endif
}

static inline float largest(f32x16 v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    float most = v[0];
    for (int i = 1; i < 16; i++) most = v[i] > most ? v[i] : most;
    return most;
#endif
}

// Of numbers below 2 ** 22, ties to the even one: what is left of them beside 1.5 * 2 ** 23
static inline i32x16 to_nearest(f32x16 v) { return (i32x16)(v + 12582912.0f) - 0x4b400000; }

// Numbers that a byte holds
static inline void store(int8_t *p, i32x16 v) {
#if defined(__AVX512F__)
    __m128i bytes = _mm512_cvtepi32_epi8((__m512i)v);
    std::memcpy(p, &bytes, sizeof bytes);
#else
    for (int i = 0; i < 16; i++) p[i] = int8_t(v[i]);
#endif
}

// exp to 1 ulp or so (Cephes' expf), written so that compilers vectorise the loops that call it
static inline float fast_exp(float x) {
    x = x < -87.3f ? -87.3f : x;
    x = x > 88.3f ? 88.3f : x;
    float n = std::nearbyint(x * 1.44269504088896341f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = (int32_t(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return p * power;
}

static inline float fast_tanh(float x) {
    float a = std::fabs(x), e = fast_exp(-2.0f * a), big = (1.0f - e) / (1.0f + e);
    float s = x * x, small = a * (1.0f + s * (-0.333333333f + s * (0.133333333f + s * -0.053968254f)));
    return std::copysign(a < 0.1f ? small : big, x);
}

// erf to 2 ulp or so (a minimax polynomial on each side of 0.93)
static inline float fast_erf(float x) {
    float t = std::fabs(x), s = x * x;
    float r = -1.72853470e-5f * t + 3.83197126e-4f, u = -3.88396438e-3f * t + 2.42546219e-2f;
    r = r * s + u;
    r = r * t - 1.06777877e-1f;
    r = r * t - 6.34846687e-1f;
    r = r * t - 1.28717512e-1f;
    r = r * t - t;
    float far = std::copysign(1.0f - fast_exp(r), x);
    float p = -5.96761703e-4f;
    p = p * s + 4.99119423e-3f;
    p = p * s - 2.67681349e-2f;
    p = p * s + 1.12819925e-1f;
    p = p * s - 3.76125336e-1f;
    p = p * s + 1.28379166e-1f;
    return t > 0.927734375f ? far : p * x + x;
}
