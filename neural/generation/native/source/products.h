// Products of rows with a packed matrix. Each number of the result is summed over the inputs in one fixed order,
// whatever the number of rows, so that a text does not depend on its neighbours in a batch, bit for bit.
#pragma once

#include <type_traits>

#include "matrix.h"

constexpr int TILE = 6;  // rows: 6 x 4 sums, 4 weights and an input fill 32 registers
constexpr int INTEGER_TILE = 4;  // of integers, whose sums by group and in all are twice as many: a tenth quicker than 6

// f of the number of rows, 1 to MOST, as a constant
template <int MOST, typename F>
static inline void for_rows(int m, F f) {
    if constexpr (MOST > 1)
        if (m < MOST) return for_rows<MOST - 1>(m, f);
    f(std::integral_constant<int, MOST>{});
}

// What is asked of memory while weights are multiplied, so that it is in the second cache in time: at each step of the
// product some lines of 64 bytes
struct Ahead {
    const char *at;
    int lines;

    void ask() {
        if (lines == 4)  // where memory sets the pace: no loop
            ask<4>();
        else
            for (int i = 0; i < lines; i++) ask<1>();
    }
    template <int LINES>
    void ask() {
        for (int i = 0; i < LINES; i++) __builtin_prefetch(at + 64 * i, 0, 2);
        at += 64 * LINES;
    }
};

// At once: what another thread has had last comes far sooner so than line after line
template <bool WRITE>
static inline void ask_for(const void *at, int64_t bytes) {
    const char *p = static_cast<const char *>(at);
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, WRITE, 3);
}

// All of what comes next, in so many steps
static inline Ahead all_of(const void *next, int64_t bytes, int64_t steps) {
    int lines = int((bytes / 64 + steps - 1) / steps);
    return {static_cast<const char *>(next), lines};
}

// While rows in tiles of `tile` are multiplied, each in turn, by weights of `bytes`, four lines a step, that `next`
// follows: what the tile that begins at `row` asks for. A single one asks for what it will soon read itself; of more
// the first ones ask for a part of `next` each, so that memory is read all the time.
static inline Ahead part_of(const uint8_t *weights, int64_t bytes, const uint8_t *next, int64_t row, int64_t rows, int tile) {
    if (rows <= tile) return {reinterpret_cast<const char *>(weights) + 6144, 4};
    int lines = rows <= 3 * tile ? 2 : 1;
    int64_t part = row / tile * lines;  // quarters of `next` that others ask for
    return {reinterpret_cast<const char *>(next) + part * bytes / 4, part < 4 ? lines : 0};
}

// out (M, 16 V) = rows (M, k) . weights (k, 16 V), or is added to it; weights: floats or halves
template <int M, int V, typename T>
static void float_tile(const float *const *rows, const T *weights, int64_t step, int64_t k, float *out,
                       int64_t out_step, bool add, Ahead ahead) {
    f32x16 sums[M][V] = {};
    if (add)
        for (int m = 0; m < M; m++)
            for (int v = 0; v < V; v++) sums[m][v] = load(out + m * out_step + 16 * v);
    for (int64_t i = 0; i < k; i++, weights += step) {
        f32x16 w[V];
        for (int v = 0; v < V; v++) w[v] = load(weights + 16 * v);
        ahead.ask();
        for (int m = 0; m < M; m++)
            for (int v = 0; v < V; v++) sums[m][v] += rows[m][i] * w[v];
    }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < V; v++) store(out + m * out_step + 16 * v, sums[m][v]);
}

template <int V, typename T>
static void float_rows(int m, const float *const *rows, const T *weights, int64_t step, int64_t k, float *out,
                       int64_t out_step, bool add, Ahead ahead) {
    for_rows<TILE>(m, [&](auto M) { float_tile<M, V, T>(rows, weights, step, k, out, out_step, add, ahead); });
}

// float_rows of so many columns, a multiple of 16 up to 64
template <typename T>
static auto float_product(int64_t columns) {
    return columns > 48 ? float_rows<4, T> : columns > 32 ? float_rows<3, T> : columns > 16 ? float_rows<2, T> : float_rows<1, T>;
}

static inline float largest_size(const float *x, int64_t n) {
    f32x16 most = {};
    float rest = 0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        f32x16 v = load(x + i), size = v < 0 ? -v : v;
        most = size > most ? size : most;
    }
    for (; i < n; i++) rest = std::max(rest, std::fabs(x[i]));
    return std::max(rest, largest(most));
}

// Rows as integers, for products with weights of so many bits: each group of inputs by a scale of its own
struct Integers {
    int64_t k, groups;
    int bits;
    std::vector<float> scales;
    std::vector<int32_t> bases;  // what the offset of the weights adds to a group's sum, negated

    Integers(int64_t k, int bits) : k(k), groups((k + INPUTS - 1) / INPUTS), bits(bits) {}

    const int8_t *group(int64_t row, int64_t g) const { return values() + (row * groups + g) * INPUTS; }

    void reserve(int64_t rows) {
        size_t count = rows * groups;
        if (scales.size() >= count) return;
        lines_.resize((count * INPUTS + sizeof(Line) - 1) / sizeof(Line)), scales.resize(count), bases.resize(count);
    }

    // Asks for the lines that hold `count` numbers of a row from `first` on
    template <bool WRITE>
    void ask(int64_t row, int64_t first, int64_t count) const {
        int64_t group = row * groups + first / INPUTS, more = (count + INPUTS - 1) / INPUTS;
        ask_for<WRITE>(values() + group * INPUTS, more * INPUTS);
        ask_for<WRITE>(scales.data() + group, more * sizeof(float));
        ask_for<WRITE>(bases.data() + group, more * sizeof(int32_t));
    }

    // `count` numbers of a row from `first` on, which begins a group; they end one, or the row
    void round(int64_t row, int64_t first, const float *x, int64_t count) {
        int64_t group = row * groups + first / INPUTS;
        for (; count >= INPUTS; count -= INPUTS, x += INPUTS) round_group(group++, x);
        if (!count) return;
        float last[INPUTS] = {};
        std::memcpy(last, x, count * sizeof(float));
        round_group(group, last);
    }

private:
    struct alignas(64) Line {
        int8_t values[64];
    };
    std::vector<Line> lines_;  // a row: whole groups

    const int8_t *values() const { return reinterpret_cast<const int8_t *>(lines_.data()); }

    void round_group(int64_t group, const float *x) {
        f32x16 first = load(x), second = load(x + 16);
        f32x16 size = first < 0 ? -first : first, other = second < 0 ? -second : second;
        float most = largest(size > other ? size : other), inverse = most > 0 ? 127.0f / most : 0.0f;
        i32x16 low = to_nearest(first * inverse), high = to_nearest(second * inverse);
        int8_t *to = reinterpret_cast<int8_t *>(lines_.data()) + group * INPUTS;
        store(to, low), store(to + 16, high);
        scales[group] = most / 127.0f;
        bases[group] = sum(low + high) * (bits == 8 ? -128 : -8);
    }
};

static inline int32_t word(const int8_t *p) {
    int32_t v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

// out (M, 64) = rows . panel, of int8 times its scales. LINES, MORE: those of `ahead` and of `more`
template <int M, int BITS, bool ZEROS, int LINES, int MORE>
static void integer_tile(const Integers &x, int64_t row, const uint8_t *panel, const float *scales, float *out, Ahead ahead,
                         Ahead more) {
    const int64_t groups = x.groups;
    constexpr int BYTES = (BITS == 8 ? 32 : ZEROS ? 19 : 18) * PANEL;
    f32x16 sums[M][4] = {};
    for (int64_t g = 0; g < groups; g++) {
        const uint8_t *block = panel + g * BYTES;
        i32x16 acc[M][4];
        const int8_t *q[M];
        for (int m = 0; m < M; m++) {
            q[m] = x.group(row + m, g);
            for (int v = 0; v < 4; v++) acc[m][v] = i32x16{} + (ZEROS ? 0 : x.bases[(row + m) * groups + g]);
        }
        if constexpr (BITS == 8) {
            for (int s = 0; s < 8; s++) {
                ahead.ask<LINES>();
                more.ask<MORE>();
                for (int v = 0; v < 4; v++) {
                    u8x64 w = load_bytes(block + s * 256 + v * 64);
                    for (int m = 0; m < M; m++) acc[m][v] = dot4(acc[m][v], w, word(q[m] + 4 * s));
                }
            }
            for (int m = 0; m < M; m++)
                for (int v = 0; v < 4; v++) sums[m][v] += x.scales[(row + m) * groups + g] * to_floats(acc[m][v]);
        } else {
            for (int s = 0; s < 4; s++) {
                ahead.ask<LINES>();
                more.ask<MORE>();
                for (int v = 0; v < 4; v++) {
                    u8x64 pairs = load_bytes(block + s * 256 + v * 64);
                    u8x64 low = pairs & 15, high = (u8x64)((i32x16)pairs >> 4) & 15;
                    for (int m = 0; m < M; m++) {
                        acc[m][v] = dot4(acc[m][v], low, word(q[m] + 8 * s));
                        acc[m][v] = dot4(acc[m][v], high, word(q[m] + 8 * s + 4));
                    }
                }
            }
            ahead.at += LINES * (BYTES - 16 * PANEL) / 4;  // past scales and zero points
            i32x16 zeros = ZEROS ? (i32x16)load_bytes(block + 18 * PANEL) : i32x16{};
            for (int v = 0; v < 4; v++) {
                f32x16 scale = load(reinterpret_cast<const Half *>(block + 16 * PANEL) + 16 * v);
                f32x16 zero = ZEROS ? to_floats(zeros >> (8 * v) & 255) : f32x16{};
                for (int m = 0; m < M; m++) {
                    f32x16 total = to_floats(acc[m][v]);
                    // bases are -8 times the sum of a group's inputs, zero points are in sixteenths
                    if (ZEROS) total += x.bases[(row + m) * groups + g] * (1 / 128.0f) * zero;
                    sums[m][v] += x.scales[(row + m) * groups + g] * total * scale;
                }
            }
        }
    }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < 4; v++)
            store(out + m * PANEL + 16 * v, BITS == 8 ? sums[m][v] * load(scales + 16 * v) : sums[m][v]);
}

// A panel stays in the second cache while all rows are read with it. before(row, count, lines): told of a tile's rows; where
// so many lines lie that are read after the product, if any, and memory has time for them.
template <int BITS, bool ZEROS, typename Before>
static void integer_rows(const Matrix &w, int64_t p, const uint8_t *next, int64_t rows, const Integers &x, float *sums,
                         Before before) {
    const uint8_t *panel = w.panel(p);
    const float *scales = BITS == 8 ? w.scales.data() + p * PANEL : nullptr;
    for (int64_t row = 0; row < rows; row += INTEGER_TILE)
        for_rows<INTEGER_TILE>(int(std::min<int64_t>(INTEGER_TILE, rows - row)), [&](auto M) {
            Ahead ahead = part_of(panel, w.panel_bytes, next, row, rows, INTEGER_TILE);
            const void *others = before(row, M, ahead.lines > 1 ? 0 : w.groups * (BITS == 8 ? 8 : 4));
            auto tile = ahead.lines == 4   ? integer_tile<M, BITS, ZEROS, 4, 0>
                        : ahead.lines == 2 ? integer_tile<M, BITS, ZEROS, 2, 0>
                        : ahead.lines == 1 ? (others ? integer_tile<M, BITS, ZEROS, 1, 1> : integer_tile<M, BITS, ZEROS, 1, 0>)
                                           : (others ? integer_tile<M, BITS, ZEROS, 0, 1> : integer_tile<M, BITS, ZEROS, 0, 0>);
            tile(x, row, panel, scales, sums + row * PANEL, ahead, {static_cast<const char *>(others), 1});
        });
}

constexpr int64_t FLOAT_DEPTH = 128;  // a block of weights stays in the first cache

// sums (rows, 64) = x (rows, k) . panel `p`, of floats. next: the weights that are read after.
static void panel_product(const Matrix &w, int64_t p, const uint8_t *next, int64_t rows, const float *x, int64_t x_step,
                          float *sums) {
    int64_t depth = rows <= TILE ? w.k : FLOAT_DEPTH;
    for (int64_t first = 0; first < w.k; first += depth) {
        int64_t deep = std::min(depth, w.k - first), bytes = deep * PANEL * sizeof(float);
        const uint8_t *block = w.panel(p) + first * PANEL * sizeof(float);
        for (int64_t m = 0; m < rows; m += TILE) {
            int count = int(std::min<int64_t>(TILE, rows - m));
            const float *at[TILE];
            for (int i = 0; i < count; i++) at[i] = x + (m + i) * x_step + first;
            float_rows<4>(count, at, reinterpret_cast<const float *>(block), PANEL, deep, sums + m * PANEL, PANEL, first > 0,
                          part_of(block, bytes, first + deep < w.k ? block + bytes : next, m, rows, TILE));
        }
    }
}

// The same of integers
template <typename Before>
static void panel_product(const Matrix &w, int64_t p, const uint8_t *next, int64_t rows, const Integers &x, float *sums,
                          Before before) {
    if (w.bits == 8)
        integer_rows<8, false>(w, p, next, rows, x, sums, before);
    else if (w.zeros)
        integer_rows<4, true>(w, p, next, rows, x, sums, before);
    else
        integer_rows<4, false>(w, p, next, rows, x, sums, before);
}
