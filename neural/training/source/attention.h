// Causal attention and its gradient, of some queries and some keys at a time, whose weights stay in a core's cache and are
// made again for the backward pass (Dao et al. 2022, Dao 2023). With dropout on the weights. float32.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <utility>

#include "products.h"
#include "random.h"

struct Sizes {
    int64_t batch, heads, kv_heads, length, width;

    int64_t blocks() const { return (length + BLOCK - 1) / BLOCK; }
    int64_t padded() const { return (width + 15) / 16 * 16; }
    int64_t rows(int64_t block) const { return std::min(BLOCK, length - block * BLOCK); }
};

// Weights whose bits are below the threshold are dropped; the others are divided by the share that stays
struct Dropout {
    uint64_t seed;
    int32_t threshold;  // 0: nothing is dropped

    float share() const { return float(65536 - threshold) / 65536; }
};

// float32 (B, H, T, width): the numbers of a row are side by side, and the others so many apart
struct View {
    float *data;
    int64_t batch, head, token;

    float *at(int64_t b, int64_t h, int64_t t) const { return data + b * batch + h * head + t * token; }
};

// The rows of a head: (T, width)
struct Head {
    float *data;
    int64_t row, width;

    Head(const View &view, int64_t b, int64_t h, int64_t width) : data(view.at(b, h, 0)), row(view.token), width(width) {}

    // to (rows, padded) = factor · those from `first` on; what is padded is 0
    void read(float *to, int64_t first, int64_t rows, int64_t padded, float factor) const {
        for (int64_t t = 0; t < rows; t++, to += padded) {
            const float *from = data + (first + t) * row;
            for (int64_t i = 0; i < width; i++) to[i] = from[i] * factor;
            for (int64_t i = width; i < padded; i++) to[i] = 0.0f;
        }
    }

    // those from `first` on = factor · from (rows, padded)
    void write(const float *from, int64_t first, int64_t rows, int64_t padded, float factor) const {
        for (int64_t t = 0; t < rows; t++, from += padded)
            for (int64_t i = 0; i < width; i++) data[(first + t) * row + i] = from[i] * factor;
    }
};

// A thread's memory, aligned and kept from one call to the next, that is handed out from its beginning
class Room {
public:
    explicit Room(size_t count) {
        static thread_local std::unique_ptr<float, decltype(&std::free)> memory(nullptr, &std::free);
        static thread_local size_t size = 0;
        if (count > size) {
            memory.reset((float *)std::aligned_alloc(64, count * sizeof(float)));
            size = memory ? count : 0;
        }
        next_ = memory.get();
    }

    // Whether the system had so much
    explicit operator bool() const { return next_; }

    // A multiple of 16 numbers
    float *take(int64_t count) { return std::exchange(next_, next_ + count); }

private:
    float *next_;
};

// A block of scores, and the random bits for it
struct Block {
    float *scores;
    uint16_t *bits;

    Block(Room &room) : scores(room.take(BLOCK * BLOCK)), bits((uint16_t *)room.take(BLOCK * BLOCK / 2)) {}

    // queries (rows, padded) and keys (padded, BLOCK); number: of the block; diagonal: whether some keys come later
    void score(const float *queries, const float *keys, int64_t rows, int64_t padded, bool diagonal) const {
        multiply<false>(scores, {queries, padded, 1}, keys, rows, padded, BLOCK);
        for (int64_t r = 0; diagonal && r < rows; r++)
            for (int64_t c = r + 1; c < BLOCK; c++) scores[r * BLOCK + c] = -INFINITY;
    }

    void draw(const Dropout &dropout, int64_t number) const {
        if (dropout.threshold) Random(dropout.seed, number).fill(bits, BLOCK * BLOCK);
    }
};

// Of the rows of a block of queries: the largest score so far, and the sum of the exponentials of all less that
struct Sums {
    float peaks[BLOCK], sums[BLOCK];

    Sums() {
        std::fill_n(peaks, BLOCK, -INFINITY);
        std::fill_n(sums, BLOCK, 0.0f);
    }

    // Scores of a row -> what stays of the exponentials; the factor for what earlier scores gave
    float add(int64_t r, float *row, const uint16_t *bits, int32_t threshold) {
        f32x16 most = load(row), total = {};
        for (int64_t c = 16; c < BLOCK; c += 16) {
            f32x16 x = load(row + c);
            most = x > most ? x : most;
        }
        float peak = std::max(peaks[r], largest(most)), before = fast_exp(peaks[r] - peak);
        for (int64_t c = 0; c < BLOCK; c += 16) {
            f32x16 p = exponential(load(row + c) - peak);
            total += p;
            store(row + c, threshold ? kept(p, bits + c, threshold) : p);
        }
        peaks[r] = peak;
        sums[r] = sums[r] * before + sum(total);
        return before;
    }
};

// What one head of queries gives: keys (blocks, padded, BLOCK), values (T, padded); log_sums (T), of exp of the scores
static void attend(const Sizes &s, float scale, const Dropout &dropout, int64_t head, const Head &q, const Head &out,
                   const float *keys, const float *values, float *log_sums, Room room) {
    int64_t n = s.blocks(), width = s.padded();
    float *queries = room.take(BLOCK * width), *found = room.take(BLOCK * width);
    Block block(room);
    for (int64_t i = 0; i < n; i++) {
        int64_t rows = s.rows(i);
        Sums sums;
        q.read(queries, i * BLOCK, rows, width, scale);
        std::fill_n(found, BLOCK * width, 0.0f);
        for (int64_t j = 0; j <= i; j++) {
            block.score(queries, keys + j * width * BLOCK, rows, width, i == j);
            block.draw(dropout, (head * n + i) * n + j);
            for (int64_t r = 0; r < rows; r++) {
                float factor = sums.add(r, block.scores + r * BLOCK, block.bits + r * BLOCK, dropout.threshold);
                if (factor != 1.0f)
                    for (int64_t c = 0; c < width; c++) found[r * width + c] *= factor;
            }
            multiply<true>(found, {block.scores, BLOCK, 1}, values + j * BLOCK * width, rows, s.rows(j), width);
        }
        for (int64_t r = 0; r < rows; r++) {
            out.write(found + r * width, i * BLOCK + r, 1, width, 1.0f / (sums.sums[r] * dropout.share()));
            log_sums[i * BLOCK + r] = sums.peaks[r] + std::log(sums.sums[r]);
        }
    }
}

// Scores -> what stays of the probabilities; slopes by what stayed -> slopes by scores. means: of the slopes of each row
static void slopes_of_scores(const Block &block, float *slopes, const float *log_sums, const float *means, int64_t rows,
                             int32_t threshold) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = r * BLOCK; c < (r + 1) * BLOCK; c += 16) {
            f32x16 p = exponential(load(block.scores + c) - log_sums[r]), slope = load(slopes + c);
            store(block.scores + c, threshold ? kept(p, block.bits + c, threshold) : p);
            store(slopes + c, p * ((threshold ? kept(slope, block.bits + c, threshold) : slope) - means[r]));
        }
}

// The slopes of one head of queries, by what it read: of_q written, for_k and for_v (blocks · BLOCK, padded) added to
static void attend_backward(const Sizes &s, float scale, const Dropout &dropout, int64_t head, const Head &q, const Head &k,
                            const Head &v, const Head &out, const Head &of_out, const Head &of_q, const float *log_sums,
                            float *for_k, float *for_v, Room room) {
    int64_t n = s.blocks(), width = s.padded(), size = BLOCK * width;
    float *queries = room.take(n * size), *slopes = room.take(n * size), *for_q = room.take(n * size);
    float *keys = room.take(size), *turned = room.take(size), *values = room.take(size);
    float *of_scores = room.take(BLOCK * BLOCK), *means = room.take(n * BLOCK), *line = room.take(width);
    Block block(room);
    q.read(queries, 0, s.length, width, scale);
    of_out.read(slopes, 0, s.length, width, 1.0f / dropout.share());
    std::fill_n(for_q, n * size, 0.0f);
    for (int64_t t = 0; t < s.length; t++) {
        f32x16 total = {};
        out.read(line, t, 1, width, dropout.share());
        for (int64_t i = 0; i < width; i += 16) total += load(line + i) * load(slopes + t * width + i);
        means[t] = sum(total);
    }
    for (int64_t j = 0; j < n; j++) {
        int64_t there = s.rows(j);
        std::fill_n(keys, size, 0.0f);
        v.read(keys, j * BLOCK, there, width, 1.0f);
        transpose(values, BLOCK, keys, width, BLOCK, width);
        k.read(keys, j * BLOCK, there, width, 1.0f);
        transpose(turned, BLOCK, keys, width, BLOCK, width);
        for (int64_t i = j; i < n; i++) {
            int64_t first = i * BLOCK, rows = s.rows(i);
            const float *x = queries + i * size, *y = slopes + i * size;
            block.score(x, turned, rows, width, i == j);
            block.draw(dropout, (head * n + i) * n + j);
            multiply<false>(of_scores, {y, width, 1}, values, rows, width, BLOCK);
            slopes_of_scores(block, of_scores, log_sums + first, means + first, rows, dropout.threshold);
            multiply<true>(for_v + j * size, {block.scores, 1, BLOCK}, y, there, rows, width);
            multiply<true>(for_k + j * size, {of_scores, 1, BLOCK}, x, there, rows, width);
            multiply<true>(for_q + i * size, {of_scores, BLOCK, 1}, keys, rows, there, width);
        }
    }
    of_q.write(for_q, 0, s.length, width, scale);
}
