// Attention over keys and values that lie in pages of 64 tokens. A text has a table of pages; texts with one beginning
// share pages. In a page each layer has a block for each of its heads, in one of the forms of kept.h: Kept, below.
#pragma once

#include "kept.h"

struct AttentionLayer {
    int64_t heads, kv_heads, head_dim, padded, window;  // window: 0 for none
    float scale;
    int64_t offset, head_bytes;  // of its part in a page, and of each head in it
    std::vector<int64_t> ends;   // of each segment: how many tasks there are up to its end
};

// Tokens of one text that stand one after another in the batch
struct Segment {
    int64_t first, count;  // rows
    const int64_t *pages;
};

struct Tokens {
    const int64_t *positions;
    std::vector<Segment> segments;
    uint8_t *pool;
    int64_t page_bytes;

    // What is kept of a head in the page that has a text's position
    uint8_t *block(const AttentionLayer &layer, const Segment &s, int64_t position, int64_t kv_head) const {
        return pool + s.pages[position / PAGE] * page_bytes + layer.offset + kv_head * layer.head_bytes;
    }
};

// Keys and values that a thread will look at, asked for a little at a time while it multiplies: a layer's texts in order
class Coming {
public:
    int64_t layer = -1;

    void begin(int64_t number, size_t first, size_t end) { layer = number, segment_ = first, end_ = end, page_ = offset_ = 0; }

    // Where the next `lines` of them begin, those of a page at most; nullptr if there are no more
    const void *take(const AttentionLayer &of, const Tokens &tokens, int64_t lines) {
        if (segment_ >= end_) return nullptr;
        const Segment &s = tokens.segments[segment_];
        int64_t position = tokens.positions[s.first];
        if (of.window) page_ = std::max(page_, (position + 1 - of.window) / PAGE);
        const uint8_t *at = tokens.block(of, s, page_ * PAGE, 0) + offset_;
        offset_ += 64 * lines;
        if (offset_ >= of.kv_heads * of.head_bytes) offset_ = 0, page_++;
        if (page_ * PAGE > position) page_ = 0, segment_++;
        return at;
    }

private:
    size_t segment_ = 0, end_ = 0;
    int64_t page_ = 0, offset_ = 0;
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

struct Room {
    std::vector<float> scores;  // TILE * (context rounded up to pages)
    float sums[TILE * 64];
    Queries queries;
};

// Where what attention gives goes, rows (…, heads * head_dim): as floats, as integers, or both; nullptr for none
struct Attended {
    float *floats;
    int64_t step;
    Integers *integers;

    void put(int64_t row, int64_t first, const float *x, int64_t count) const {
        if (floats) std::memcpy(floats + row * step + first, x, count * sizeof(float));
        if (integers) integers->round(row, first, x, count);
    }
};

// Of up to TILE pairs of a token and a head that share keys: their parts of `out`. following: what the thread most likely
// reads next.
template <typename Kept>
static void attend_tile(const AttentionLayer &layer, const Tokens &tokens, const Segment &segment, int64_t kv_head,
                        int count, const int64_t *rows, const int64_t *heads, const float *q, int64_t q_step,
                        const Attended &out, const uint8_t *following, Room &room) {
    const float *at[TILE];
    int64_t highest = 0, lowest = INT64_MAX, high[TILE], low[TILE], dim = layer.head_dim;
    for (int m = 0; m < count; m++) {
        at[m] = q + rows[m] * q_step + heads[m] * dim;
        high[m] = tokens.positions[rows[m]] + 1;
        low[m] = layer.window ? std::max<int64_t>(0, high[m] - layer.window) : 0;
        highest = std::max(highest, high[m]);
        lowest = std::min(lowest, low[m]);
    }
    int64_t begin = lowest / PAGE * PAGE, end = (highest + PAGE - 1) / PAGE * PAGE;
    float *scores = room.scores.data();
    int64_t step = room.scores.size() / TILE;
    auto block = [&](int64_t p) { return tokens.block(layer, segment, p, kv_head); };
    auto values = [&](int64_t p) { return Kept::values(block(p), dim); };
    auto values_bytes = [&](int64_t p) {
        return std::min(PAGE, highest - p) * layer.padded * int64_t(sizeof(*values(p)));
    };
    int64_t keys_bytes = Kept::keys_bytes(dim);
    Kept::prepare(count, at, dim, room.queries);
    for (int64_t p = begin; p < end; p += PAGE) {
        bool last = p + PAGE >= end;
        Kept::scores(count, at, room.queries, block(p), dim, std::min(PAGE, highest - p), scores + p, step,
                     last ? static_cast<const void *>(values(begin)) : block(p + PAGE),
                     last ? values_bytes(begin) : keys_bytes);
    }
    float totals[TILE];
    for (int m = 0; m < count; m++) totals[m] = exponentials(scores + m * step, begin, end, low[m], high[m], layer.scale);
    for (int64_t p = begin; p < end; p += PAGE) Kept::weigh(count, block(p), scores + p, step);
    for (int64_t chunk = 0; chunk < layer.padded; chunk += 64) {
        int64_t width = std::min<int64_t>(64, layer.padded - chunk), real = std::min(width, dim - chunk);
        auto product = float_product<std::decay_t<decltype(*values(0))>>(width);
        for (int64_t p = begin; p < end; p += PAGE) {
            for (int m = 0; m < count; m++) at[m] = scores + m * step + p;
            int64_t steps = std::min(PAGE, highest - p);
            product(count, at, values(p) + chunk, layer.padded, steps, room.sums, 64, p > begin,
                    p + PAGE < end ? all_of(values(p + PAGE), values_bytes(p + PAGE), steps)
                                   : all_of(following, keys_bytes, steps));
        }
        for (int m = 0; m < count; m++) {
            for (int64_t i = 0; i < real; i++) room.sums[m * 64 + i] /= totals[m];
            out.put(rows[m], heads[m] * dim + chunk, room.sums + m * 64, real);
        }
    }
}
