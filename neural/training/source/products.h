// Products of matrices that are in the cache, and what goes with them
#pragma once

#include <type_traits>

#include "vectors.h"

constexpr int64_t BLOCK = 64;  // queries, and keys, that are looked at at a time

// A (rows, depth), of which A[r, k] is at data[r * row + k * column]: transposed where row is 1
struct Factor {
    const float *data;
    int64_t row, column;
};

// M rows of c (…, 16 N) = or += a · b, b (depth, 16 N)
template <int M, int N, bool ADD>
static inline void tile(float *c, int64_t c_row, Factor a, const float *b, int64_t b_row, int64_t depth) {
    f32x16 sums[M][N];
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) sums[m][n] = ADD ? load(c + m * c_row + 16 * n) : f32x16{};
    for (int64_t k = 0; k < depth; k++) {
        f32x16 line[N];
        for (int n = 0; n < N; n++) line[n] = load(b + k * b_row + 16 * n);
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) sums[m][n] += a.data[m * a.row + k * a.column] * line[n];
    }
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) store(c + m * c_row + 16 * n, sums[m][n]);
}

template <int N, bool ADD>
static void panel(float *c, int64_t c_row, Factor a, const float *b, int64_t b_row, int64_t rows, int64_t depth) {
    int64_t r = 0;
    auto next = [&](auto size) {
        constexpr int M = decltype(size)::value;
        for (; r + M <= rows; r += M)
            tile<M, N, ADD>(c + r * c_row, c_row, {a.data + r * a.row, a.row, a.column}, b, b_row, depth);
    };
    next(std::integral_constant<int, 6>());
    next(std::integral_constant<int, 4>());
    next(std::integral_constant<int, 1>());
}

// c (rows, width) = or += a (rows, depth) · b (depth, width); width is a multiple of 16
template <bool ADD> static void multiply(float *c, Factor a, const float *b, int64_t rows, int64_t depth, int64_t width) {
    int64_t n = 0;
    auto next = [&](auto size) {
        constexpr int N = decltype(size)::value;
        for (; n + 16 * N <= width; n += 16 * N) panel<N, ADD>(c + n, width, a, b + n, width, rows, depth);
    };
    next(std::integral_constant<int, 4>());
    next(std::integral_constant<int, 2>());
    next(std::integral_constant<int, 1>());
}

// 16 rows become 16 columns: four times, those of the first half are put between those of the second
static inline void transpose(f32x16 (&rows)[16]) {
    for (int turn = 0; turn < 4; turn++) {
        f32x16 next[16];
        for (int i = 0; i < 8; i++) {
            next[2 * i] = __builtin_shufflevector(rows[i], rows[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            next[2 * i + 1] =
                __builtin_shufflevector(rows[i], rows[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        for (int i = 0; i < 16; i++) rows[i] = next[i];
    }
}

// to (width, to_row) = from (rows, from_row) transposed, rows at most; both are multiples of 16
static inline void transpose(float *to, int64_t to_row, const float *from, int64_t from_row, int64_t rows, int64_t width) {
    for (int64_t i = 0; i < width; i += 16)
        for (int64_t r = 0; r < rows; r += 16) {
            f32x16 lines[16];
            for (int64_t j = 0; j < 16; j++) lines[j] = load(from + (r + j) * from_row + i);
            transpose(lines);
            for (int64_t j = 0; j < 16; j++) store(to + (i + j) * to_row + r, lines[j]);
        }
}

// exp of numbers up to 88; 0 below -87 (Cephes' expf)
static inline f32x16 exponential(f32x16 x) {
    f32x16 n = x * 1.44269504088896341f + 12582912.0f - 12582912.0f;
    f32x16 r = x - n * 0.693359375f + n * 2.12194440e-4f;
    f32x16 p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    i32x16 power = (__builtin_convertvector(n, i32x16) + 127) << 23;
    return x < -87.0f ? f32x16{} : p * (f32x16)power;
}
