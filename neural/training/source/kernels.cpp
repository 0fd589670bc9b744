// What the trainer does on a CPU in place of torch: causal attention, dropout, and a copy that transposes. The threads are
// OpenMP's, as many as torch has set.
#include <atomic>

#include "attention.h"

// views: queries, keys, values, and what comes out. log_sums (B, H, T). False without memory
extern "C" bool attention_forward(const Sizes *sizes, float scale, const Dropout *dropped, const View *views,
                                  float *log_sums) {
    const Sizes &s = *sizes;
    const Dropout &dropout = *dropped;
    const auto &[q, k, v, out] = *(const View(*)[4])views;
    int64_t n = s.blocks(), width = s.padded(), size = BLOCK * width, group = s.heads / s.kv_heads;
    std::atomic<bool> done = true;
#pragma omp parallel for schedule(dynamic)
    for (int64_t task = 0; task < s.batch * s.kv_heads; task++) {
        int64_t b = task / s.kv_heads, kv = task % s.kv_heads;
        Room room((2 * n + 2) * size + 2 * BLOCK * BLOCK);
        if (!room) {
            done = false;
            continue;
        }
        float *keys = room.take(n * size), *values = room.take(n * size);
        std::fill_n(values + (n - 1) * size, size, 0.0f);
        Head(k, b, kv, s.width).read(values, 0, s.length, width, 1.0f);
        for (int64_t j = 0; j < n; j++) transpose(keys + j * size, BLOCK, values + j * size, width, BLOCK, width);
        Head(v, b, kv, s.width).read(values, 0, s.length, width, 1.0f);
        for (int64_t h = kv * group; h < (kv + 1) * group; h++) {
            int64_t head = b * s.heads + h;
            attend(s, scale, dropout, head, {q, b, h, s.width}, {out, b, h, s.width}, keys, values, log_sums + head * s.length,
                   room);
        }
    }
    return done;
}

// views: queries, keys, values, what came out, and the slopes by it, by queries, keys and values. False without memory
extern "C" bool attention_backward(const Sizes *sizes, float scale, const Dropout *dropped, const View *views,
                                   const float *log_sums) {
    const Sizes &s = *sizes;
    const Dropout &dropout = *dropped;
    const auto &[q, k, v, out, of_out, of_q, of_k, of_v] = *(const View(*)[8])views;
    int64_t n = s.blocks(), width = s.padded(), size = BLOCK * width, group = s.heads / s.kv_heads, of = s.width;
    std::atomic<bool> done = true;
#pragma omp parallel for schedule(dynamic)
    for (int64_t task = 0; task < s.batch * s.kv_heads; task++) {
        int64_t b = task / s.kv_heads, kv = task % s.kv_heads;
        Room room((5 * n + 4) * size + 3 * BLOCK * BLOCK + n * BLOCK);
        if (!room) {
            done = false;
            continue;
        }
        float *for_k = room.take(n * size), *for_v = room.take(n * size);
        std::fill_n(for_k, 2 * n * size, 0.0f);
        for (int64_t h = kv * group; h < (kv + 1) * group; h++) {
            int64_t head = b * s.heads + h;
            attend_backward(s, scale, dropout, head, {q, b, h, of}, {k, b, kv, of}, {v, b, kv, of}, {out, b, h, of},
                            {of_out, b, h, of}, {of_q, b, h, of}, log_sums + head * s.length, for_k, for_v, room);
        }
        Head(of_k, b, kv, of).write(for_k, 0, s.length, width, 1.0f);
        Head(of_v, b, kv, of).write(for_v, 0, s.length, width, 1.0f);
    }
    return done;
}

constexpr int64_t PIECE = 4096;  // of numbers that one generator decides about

// Numbers of 16 bits with float32's exponent
struct Bfloat16 {
    uint16_t bits;

    operator float() const {
        uint32_t wide = uint32_t(bits) << 16;
        float x;
        std::memcpy(&x, &wide, sizeof x);
        return x;
    }

    Bfloat16() = default;
    Bfloat16(float x) {  // to the nearest, ties to the even one
        uint32_t wide;
        std::memcpy(&wide, &x, sizeof wide);
        bits = x != x ? 0x7fc0 : (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
    }
};

template <typename T> static void drop(const Dropout &dropout, T *to, const T *from, int64_t count) {
    float factor = 1.0f / dropout.share();
#pragma omp parallel for schedule(static)
    for (int64_t piece = 0; piece < (count + PIECE - 1) / PIECE; piece++) {
        uint16_t bits[PIECE];
        Random(dropout.seed, piece).fill(bits, PIECE);
        int64_t first = piece * PIECE, there = std::min(PIECE, count - first);
        for (int64_t i = 0; i < there; i++) to[first + i] = bits[i] >= dropout.threshold ? T(from[first + i] * factor) : T(0.0f);
    }
}

// to (count) = what stays of `from`, divided by the share that does
extern "C" void dropout_float32(const Dropout *dropout, float *to, const float *from, int64_t count) {
    drop(*dropout, to, from, count);
}

extern "C" void dropout_bfloat16(const Dropout *dropout, Bfloat16 *to, const Bfloat16 *from, int64_t count) {
    drop(*dropout, to, from, count);
}

// to (columns, rows) = from (rows, columns), whose rows are `step` apart, transposed
extern "C" void transposed(float *to, const float *from, int64_t rows, int64_t columns, int64_t step) {
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < columns; first += 16) {
        int64_t there = std::min<int64_t>(16, columns - first), whole = there == 16 ? rows / 16 * 16 : 0;
        transpose(to + first * rows, rows, from + first, step, whole, 16);
        for (int64_t r = whole; r < rows; r++)
            for (int64_t c = first; c < first + there; c++) to[c * rows + r] = from[r * step + c];
    }
}
