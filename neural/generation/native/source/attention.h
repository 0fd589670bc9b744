// Attention over keys and values that lie in pages of 64 tokens.
//
// Of a page each layer has keys [kv_head][head_dim][64] and values [kv_head][64][padded head_dim]: both are the weights
// of a product with 64 outputs or 64 inputs. A text has a table of pages; texts with one beginning share pages. Numbers
// are floats, or halves where the matrices are rounded more coarsely than these: T, below.
#pragma once

#include "products.h"

constexpr int64_t PAGE = 64;

struct AttentionLayer {
    int64_t heads, kv_heads, head_dim, padded, window;  // window: 0 for none
    float scale;
    int64_t offset;  // of its part in a page, numbers
    std::vector<int64_t> ends;  // of each segment: how many tasks there are up to its end

    int64_t keys_size() const { return kv_heads * head_dim * PAGE; }
    int64_t size() const { return keys_size() + kv_heads * PAGE * padded; }
    template <typename T>
    T *keys(T *page, int64_t head) const {
        return page + offset + head * head_dim * PAGE;
    }
    template <typename T>
    T *values(T *page, int64_t head) const {
        return page + offset + keys_size() + head * PAGE * padded;
    }
};

// Tokens of one text that stand one after another in the batch
struct Segment {
    int64_t first, count;  // rows
    const int64_t *pages;
};

struct Tokens {
    const int64_t *positions;
    std::vector<Segment> segments;
    void *pool;
    int64_t page_size;  // numbers

    template <typename T>
    T *page(const Segment &s, int64_t position) const {
        return static_cast<T *>(pool) + s.pages[position / PAGE] * page_size;
    }
};

// How a text's rows and heads are cut into tiles: some tokens, and the heads that share keys, as many as a tile takes
struct Tiles {
    int64_t shared, parts, heads, tokens, count, tasks;

    Tiles(const AttentionLayer &layer, const Segment &s)
        : shared(layer.heads / layer.kv_heads), parts((shared + TILE - 1) / TILE), heads((shared + parts - 1) / parts),
          tokens(std::max<int64_t>(1, TILE / heads)), count((s.count + tokens - 1) / tokens),
          tasks(count * layer.kv_heads * parts) {}

    // Whether one task has all that looks at a head's keys, so that it may as well keep them
    bool alone() const { return parts == 1 && count == 1; }

    // The pairs of a row and a head in a tile, and how many; the tiles that look at most keys come first
    int pairs(const AttentionLayer &layer, const Segment &s, int64_t task, int64_t *rows, int64_t *head_numbers,
              int64_t &kv_head) const {
        int64_t part = task % parts, tile = count - 1 - task / parts / layer.kv_heads;
        kv_head = task / parts % layer.kv_heads;
        int found = 0;
        for (int64_t token = tile * tokens; token < std::min(s.count, (tile + 1) * tokens); token++)
            for (int64_t i = part * heads; i < std::min(shared, (part + 1) * heads); i++, found++) {
                rows[found] = s.first + token;
                head_numbers[found] = kv_head * shared + i;
            }
        return found;
    }
};

// k, v (kv_heads * head_dim): of one head what is kept of a row
template <typename T>
static void keep_key(const AttentionLayer &layer, const Tokens &tokens, const Segment &segment, int64_t row, int64_t head,
                     const float *k, const float *v) {
    int64_t position = tokens.positions[row], slot = position % PAGE, dim = layer.head_dim;
    T *page = tokens.page<T>(segment, position);
    T *keys = layer.keys(page, head) + slot, *values = layer.values(page, head) + slot * layer.padded;
    for (int64_t i = 0; i < dim; i += 16) {
        int64_t count = std::min<int64_t>(16, dim - i);
        float key[16] = {}, value[16] = {};
        T kept[16];
        std::memcpy(key, k + head * dim + i, count * sizeof(float));
        std::memcpy(value, v + head * dim + i, count * sizeof(float));
        store(kept, load(key));
        for (int64_t j = 0; j < count; j++) keys[(i + j) * PAGE] = kept[j];
        store(values + i, load(value));
    }
}

// Scores -> probabilities times their sum, in place; what is outside [low, high) becomes 0. The sum.
static float exponentials(float *scores, int64_t begin, int64_t end, int64_t low, int64_t high, float scale) {
    for (int64_t j = begin; j < low; j++) scores[j] = -INFINITY;
    for (int64_t j = high; j < end; j++) scores[j] = -INFINITY;
    f32x16 peaks = f32x16{} - INFINITY, total = {};
    for (int64_t j = begin; j < end; j += 16) {
        f32x16 s = load(scores + j) * scale;
        peaks = s > peaks ? s : peaks;
        store(scores + j, s);
    }
    float peak = largest(peaks);
    for (int64_t j = begin; j < end; j++) scores[j] = scores[j] == -INFINITY ? 0.0f : fast_exp(scores[j] - peak);
    for (int64_t j = begin; j < end; j += 16) total += load(scores + j);
    return sum(total);
}

// Of up to TILE pairs of a token and a head that share keys: their rows of `out` (…, heads * head_dim).
// room: at least TILE * (context rounded up to pages) + TILE * 64 floats
template <typename T>
static void attend_tile(const AttentionLayer &layer, const Tokens &tokens, const Segment &segment, int64_t kv_head,
                        int count, const int64_t *rows, const int64_t *heads, const float *q, int64_t q_step, float *out,
                        int64_t out_step, float *room, int64_t room_step) {
    const float *at[TILE];
    int64_t highest = 0, lowest = INT64_MAX, high[TILE], low[TILE];
    for (int m = 0; m < count; m++) {
        at[m] = q + rows[m] * q_step + heads[m] * layer.head_dim;
        high[m] = tokens.positions[rows[m]] + 1;
        low[m] = layer.window ? std::max<int64_t>(0, high[m] - layer.window) : 0;
        highest = std::max(highest, high[m]);
        lowest = std::min(lowest, low[m]);
    }
    int64_t begin = lowest / PAGE * PAGE, end = (highest + PAGE - 1) / PAGE * PAGE;
    auto keys = [&](int64_t p, int64_t head) { return layer.keys(tokens.page<T>(segment, p), head); };
    auto values = [&](int64_t p) { return layer.values(tokens.page<T>(segment, p), kv_head); };
    int64_t keys_bytes = layer.head_dim * PAGE * sizeof(T);
    auto values_bytes = [&](int64_t p) { return std::min(PAGE, highest - p) * layer.padded * int64_t(sizeof(T)); };
    int64_t following = std::min(kv_head + 1, layer.kv_heads - 1);  // what the thread most likely reads next
    for (int64_t p = begin; p < end; p += PAGE)
        float_product<T>(highest - p)(count, at, keys(p, kv_head), PAGE, layer.head_dim, room + p, room_step, false,
                                      p + PAGE < end ? all_of(keys(p + PAGE, kv_head), keys_bytes, layer.head_dim)
                                                     : all_of(values(begin), values_bytes(begin), layer.head_dim));
    float totals[TILE];
    for (int m = 0; m < count; m++)
        totals[m] = exponentials(room + m * room_step, begin, end, low[m], high[m], layer.scale);
    float *sums = room + TILE * room_step;
    for (int64_t chunk = 0; chunk < layer.padded; chunk += 64) {
        int64_t width = std::min<int64_t>(64, layer.padded - chunk);
        auto product = float_product<T>(width);
        for (int64_t p = begin; p < end; p += PAGE) {
            for (int m = 0; m < count; m++) at[m] = room + m * room_step + p;
            int64_t steps = std::min(PAGE, highest - p);
            product(count, at, values(p) + chunk, layer.padded, steps, sums, 64, p > begin,
                    p + PAGE < end ? all_of(values(p + PAGE), values_bytes(p + PAGE), steps)
                                   : all_of(keys(begin, following), keys_bytes, steps));
        }
        int64_t real = std::min(width, layer.head_dim - chunk);
        for (int m = 0; m < count; m++) {
            float *to = out + rows[m] * out_step + heads[m] * layer.head_dim + chunk;
            for (int64_t i = 0; i < real; i++) to[i] = sums[m * 64 + i] / totals[m];
        }
    }
}
