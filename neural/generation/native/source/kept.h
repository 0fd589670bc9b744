// What a page of 64 tokens keeps of one head: keys and values as they come, or as integers of 8 bits, those of a token by
// scales of its own. Keys are the weights of a product with 64 outputs, values of one with 64 inputs.
//
//   Numbers   keys [head_dim][64], values [64][padded head_dim], floats
//   Integers8 scales of the keys [64] and of the values [64]; keys [2][head_dim / 4][32][4] bytes, the value + 128; values
//             [64][padded head_dim]
#pragma once

#include "products.h"

constexpr int64_t PAGE = 64;

// Up to TILE rows of a head that look at keys, as integers of 16 bits: two bytes a number, the first of which counts 256
struct Queries {
    std::vector<int8_t> bytes;  // [row][2][numbers, to whole fours]
    int64_t width = 0;
    float scales[TILE];
    int32_t bases[TILE];  // what the offset of the keys adds to a row's sum, negated

    const int8_t *high(int row) const { return bytes.data() + row * 2 * width; }
    const int8_t *low(int row) const { return high(row) + width; }

    void quantize(int count, const float *const *rows, int64_t dim) {
        width = (dim + 3) / 4 * 4;
        bytes.resize(TILE * 2 * width);
        for (int row = 0; row < count; row++) {
            const float *x = rows[row];
            int8_t *highs = bytes.data() + row * 2 * width, *lows = highs + width;
            float most = largest_size(x, dim), inverse = most > 0 ? 32512.0f / most : 0.0f;
            int32_t total = 0;
            for (int64_t i = 0; i < dim; i++) {
                int32_t value = int32_t(std::nearbyint(x[i] * inverse)), high = (value + 128) >> 8;
                highs[i] = int8_t(high), lows[i] = int8_t(value - high * 256);
                total += value;
            }
            for (int64_t i = dim; i < width; i++) highs[i] = lows[i] = 0;
            scales[row] = most / 32512.0f, bases[row] = -128 * total;
        }
    }
};

struct Numbers {
    static int64_t bytes(int64_t dim, int64_t padded) { return (dim + padded) * PAGE * sizeof(float); }
    static int64_t keys_bytes(int64_t dim) { return dim * PAGE * sizeof(float); }
    static const float *values(const uint8_t *block, int64_t dim) {
        return reinterpret_cast<const float *>(block) + dim * PAGE;
    }

    // k, v (dim,): of the token that is the page's `slot`
    static void keep(uint8_t *block, int64_t dim, int64_t padded, int64_t slot, const float *k, const float *v) {
        float *keys = reinterpret_cast<float *>(block);
        for (int64_t i = 0; i < dim; i++) keys[i * PAGE + slot] = k[i];
        std::memcpy(keys + dim * PAGE + slot * padded, v, dim * sizeof(float));
    }

    static void prepare(int, const float *const *, int64_t, Queries &) {}

    // out (count, columns to whole sixteens) = rows (count, dim) . keys
    static void scores(int count, const float *const *rows, const Queries &, const uint8_t *block, int64_t dim,
                       int64_t columns, float *out, int64_t out_step, const void *next, int64_t next_bytes) {
        float_product<float>(columns)(count, rows, reinterpret_cast<const float *>(block), PAGE, dim, out, out_step, false,
                                      all_of(next, next_bytes, dim));
    }

    // What the probabilities (count, 64) of a page's tokens are multiplied by
    static void weigh(int, const uint8_t *, float *, int64_t) {}
};

struct Integers8 {
    static constexpr int64_t SCALES = 2 * PAGE * sizeof(float);

    static int64_t bytes(int64_t dim, int64_t padded) { return keys_bytes(dim) + PAGE * padded; }
    static int64_t keys_bytes(int64_t dim) { return SCALES + (dim + 3) / 4 * 4 * PAGE; }
    static const int8_t *values(const uint8_t *block, int64_t dim) {
        return reinterpret_cast<const int8_t *>(block + keys_bytes(dim));
    }

    static void keep(uint8_t *block, int64_t dim, int64_t padded, int64_t slot, const float *k, const float *v) {
        float *scales = reinterpret_cast<float *>(block);
        float key = largest_size(k, dim), value = largest_size(v, dim);
        float by_key = key > 0 ? 127.0f / key : 0.0f, by_value = value > 0 ? 127.0f / value : 0.0f;
        scales[slot] = key / 127.0f, scales[PAGE + slot] = value / 127.0f;
        uint8_t *keys = block + SCALES + slot / 32 * ((dim + 3) / 4 * 128) + slot % 32 * 4;
        int8_t *values = const_cast<int8_t *>(Integers8::values(block, dim)) + slot * padded;
        for (int64_t i = 0; i < dim; i++) keys[i / 4 * 128 + i % 4] = uint8_t(int32_t(std::nearbyint(k[i] * by_key)) + 128);
        for (int64_t i = 0; i < dim; i++) values[i] = int8_t(std::nearbyint(v[i] * by_value));
    }

    static void prepare(int count, const float *const *rows, int64_t dim, Queries &queries) {
        queries.quantize(count, rows, dim);
    }

    static void scores(int count, const float *const *, const Queries &q, const uint8_t *block, int64_t, int64_t columns,
                       float *out, int64_t out_step, const void *next, int64_t next_bytes) {
        for_rows<TILE>(count, [&](auto M) { scores_of<M>(q, block, columns, out, out_step, next, next_bytes); });
    }

    static void weigh(int count, const uint8_t *block, float *probabilities, int64_t step) {
        const float *scales = reinterpret_cast<const float *>(block) + PAGE;
        for (int m = 0; m < count; m++)
            for (int64_t i = 0; i < PAGE; i += 16)
                store(probabilities + m * step + i, load(probabilities + m * step + i) * load(scales + i));
    }

private:
    template <int M>
    static void scores_of(const Queries &q, const uint8_t *block, int64_t columns, float *out, int64_t out_step,
                          const void *next, int64_t next_bytes) {
        const uint8_t *keys = block + SCALES;
        int64_t fours = q.width / 4;
        Ahead ahead = all_of(next, next_bytes, fours * ((columns + 31) / 32));
        for (int64_t first = 0; first < columns; first += 32) {
            i32x16 high[M][2] = {}, low[M][2];
            for (int m = 0; m < M; m++) low[m][0] = low[m][1] = i32x16{} + q.bases[m];
            for (int64_t i = 0; i < fours; i++, keys += 128) {
                ahead.ask();
                for (int v = 0; v < 2; v++) {
                    u8x64 w = load_bytes(keys + 64 * v);
                    for (int m = 0; m < M; m++) {
                        high[m][v] = dot4(high[m][v], w, word(q.high(m) + 4 * i));
                        low[m][v] = dot4(low[m][v], w, word(q.low(m) + 4 * i));
                    }
                }
            }
            for (int v = 0; v < 2; v++) {
                f32x16 scales = load(reinterpret_cast<const float *>(block) + first + 16 * v);
                for (int m = 0; m < M; m++)
                    store(out + m * out_step + first + 16 * v,
                          to_floats(high[m][v] * 256 + low[m][v]) * (scales * q.scales[m]));
            }
        }
    }
};
