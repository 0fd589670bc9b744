// Runs a causal network: a list of operations on rows, one row a token, tokens of any number of texts together.
// The Python side (neural/generation/native/program.py) writes the list; the names of operations are shared with it.
#include <memory>

#include "attention.h"
#include "threads.h"

enum Kind { EMBED, POSITION, LINEAR, LAYER_NORM, RMS_NORM, ROTATE, ATTEND, ADD, MULTIPLY, SCALE, UNARY, SELECT, NARROW };

enum Function { IDENTITY, RELU, GELU, GELU_TANH, SILU, TANH, SIGMOID, LEAKY_RELU, ELU, SOFTPLUS, MISH, RELU_SQUARED };

// A part of the columns of a buffer
struct View {
    int64_t buffer = -1, offset = 0, width = 0;
};

struct Operation {
    int64_t kind;
    View out, a, b, c;
    int64_t matrix, vector, second;  // which weights; -1 for none
    int64_t number, function;        // heads, the attention's layer; of a product what follows it
    float value;                     // epsilon, factor
};

struct Buffer {
    int64_t width;
    std::vector<float> own;
    float *data;
};

template <typename F>
static void each(float *out, const float *x, int64_t n, F f) {
    for (int64_t i = 0; i < n; i++) out[i] = f(x[i]);
}

static float softplus(float x) { return std::max(x, 0.0f) + std::log1p(std::exp(-std::fabs(x))); }

static void apply(int64_t function, float *out, const float *x, int64_t n, float slope) {
    switch (function) {
        case RELU: return each(out, x, n, [](float v) { return v > 0 ? v : 0.0f; });
        case GELU: return each(out, x, n, [](float v) { return 0.5f * v * (1.0f + fast_erf(v * 0.70710678118654752f)); });
        case GELU_TANH:
            return each(out, x, n, [](float v) {
                return 0.5f * v * (1.0f + fast_tanh(0.79788456080286536f * (v + 0.044715f * v * v * v)));
            });
        case SILU: return each(out, x, n, [](float v) { return v / (1.0f + fast_exp(-v)); });
        case TANH: return each(out, x, n, [](float v) { return fast_tanh(v); });
        case SIGMOID: return each(out, x, n, [](float v) { return 1.0f / (1.0f + fast_exp(-v)); });
        case LEAKY_RELU: return each(out, x, n, [slope](float v) { return v > 0 ? v : slope * v; });
        case ELU: return each(out, x, n, [](float v) { return v > 0 ? v : std::expm1(v); });
        case SOFTPLUS: return each(out, x, n, softplus);
        case MISH: return each(out, x, n, [](float v) { return v * std::tanh(softplus(v)); });
        case RELU_SQUARED: return each(out, x, n, [](float v) { return v > 0 ? v * v : 0.0f; });
        default: return each(out, x, n, [](float v) { return v; });
    }
}

class Engine {
public:
    Engine(int threads, int64_t context) : threads_(threads), scratch_(threads) {
        room_step_ = (context + PAGE - 1) / PAGE * PAGE;
        for (auto &s : scratch_) s.room.resize(TILE * (room_step_ + 64));
    }

    std::vector<std::unique_ptr<Matrix>> matrices;
    std::vector<std::vector<float>> vectors;
    std::vector<Buffer> buffers;
    std::vector<Operation> operations;
    int64_t logits_buffer = -1;

    void add_layer(AttentionLayer layer) {
        layer.offset = tokens_.page_size;
        layers_.push_back(layer);
        tokens_.page_size += (layer.size() + 15) / 16 * 16;
    }

    bool make_pages(int64_t count) { return (tokens_.pool = reserve<float>(count * tokens_.page_size)) != nullptr; }

    int64_t page_bytes() const { return tokens_.page_size * 4; }

    void copy_page(int64_t from, int64_t to) {
        std::memcpy(tokens_.pool + to * tokens_.page_size, tokens_.pool + from * tokens_.page_size, page_bytes());
    }

    // ids, positions, tables: of `count` tokens, those of one text together. selected: rows whose logits are wanted.
    void run(int64_t count, const int64_t *ids, const int64_t *positions, const int64_t *const *tables,
             const int64_t *selected, int64_t selected_count, float *logits) {
        ids_ = ids, selected_ = selected, tokens_.positions = positions;
        tokens_.segments.clear();
        for (int64_t i = 0; i < count; i++)
            if (i && tables[i] == tables[i - 1])
                tokens_.segments.back().count++;
            else
                tokens_.segments.push_back({i, 1, tables[i]});
        for (auto &buffer : buffers) {
            if (int64_t(buffer.own.size()) < count * buffer.width) buffer.own.resize(count * buffer.width);
            buffer.data = buffer.own.data();
        }
        buffers[logits_buffer].data = logits;
        if (next_.size() < operations.size()) next_ = std::vector<std::atomic<int64_t>>(operations.size());
        for (auto &next : next_) next.store(0, std::memory_order_relaxed);
        threads_.run([&](int thread) {
            int64_t rows = count;
            for (size_t i = 0; i < operations.size(); i++) {
                if (operations[i].kind == NARROW) {
                    rows = selected_count;
                    continue;
                }
                perform(operations[i], next_[i], thread, rows);
                threads_.barrier();
            }
        });
    }

private:
    struct Scratch {
        Integers integers;
        std::vector<float> sums, room;
    };

    float *at(const View &v, int64_t row) const {
        return buffers[v.buffer].data + row * buffers[v.buffer].width + v.offset;
    }
    int64_t step(const View &v) const { return buffers[v.buffer].width; }

    template <typename F>
    void own_rows(int thread, int64_t rows, F f) {
        int64_t share = (rows + threads_.count() - 1) / threads_.count();
        for (int64_t row = thread * share; row < std::min(rows, (thread + 1) * share); row++) f(row);
    }

    void perform(const Operation &o, std::atomic<int64_t> &next, int thread, int64_t rows) {
        switch (o.kind) {
            case LINEAR: return product(o, next, thread, rows);
            case ATTEND: return attend(o, next, thread, rows);
            case SELECT:
                return own_rows(thread, rows, [&](int64_t row) { select(o, row); });
            default: return own_rows(thread, rows, [&](int64_t row) { on_row(o, row); });
        }
    }

    void select(const Operation &o, int64_t row) {
        std::memcpy(at(o.out, row), at(o.a, selected_[row]), o.out.width * sizeof(float));
    }

    void on_row(const Operation &o, int64_t row) {
        float *out = at(o.out, row);
        const float *a = o.a.buffer < 0 ? nullptr : at(o.a, row), *b = o.b.buffer < 0 ? nullptr : at(o.b, row);
        int64_t width = o.out.width;
        switch (o.kind) {
            case EMBED: return matrices[o.matrix]->row(ids_[row], out);
            case POSITION: {
                const float *table = vectors[o.vector].data() + tokens_.positions[row] * width;
                for (int64_t i = 0; i < width; i++) out[i] = a[i] + table[i];
                return;
            }
            case LAYER_NORM: return layer_norm(o, a, out, width);
            case RMS_NORM: {
                int64_t part = width / o.number;
                for (int64_t head = 0; head < o.number; head++) rms_norm(o, a + head * part, out + head * part, part);
                return;
            }
            case ROTATE: return rotate(o, row, a, out, width / o.number);
            case ADD:
                for (int64_t i = 0; i < width; i++) out[i] = a[i] + b[i];
                return;
            case MULTIPLY:
                for (int64_t i = 0; i < width; i++) out[i] = a[i] * b[i];
                return;
            case SCALE:
                for (int64_t i = 0; i < width; i++) out[i] = a[i] * o.value;
                return;
            default: return apply(o.function, out, a, width, o.value);
        }
    }

    static float mean_of(const float *x, int64_t n, float centre, bool squares) {
        f32x16 sums = {};
        float rest = 0;
        int64_t i = 0;
        for (; i + 16 <= n; i += 16) {
            f32x16 v = load(x + i) - centre;
            sums += squares ? v * v : v;
        }
        for (; i < n; i++) rest += squares ? (x[i] - centre) * (x[i] - centre) : x[i] - centre;
        return (sum(sums) + rest) / n;
    }

    void layer_norm(const Operation &o, const float *x, float *out, int64_t n) const {
        float mean = mean_of(x, n, 0, false), inverse = 1.0f / std::sqrt(mean_of(x, n, mean, true) + o.value);
        const float *gain = vectors[o.vector].data(), *bias = o.second < 0 ? nullptr : vectors[o.second].data();
        if (bias)
            for (int64_t i = 0; i < n; i++) out[i] = (x[i] - mean) * inverse * gain[i] + bias[i];
        else
            for (int64_t i = 0; i < n; i++) out[i] = (x[i] - mean) * inverse * gain[i];
    }

    void rms_norm(const Operation &o, const float *x, float *out, int64_t n) const {
        float inverse = 1.0f / std::sqrt(mean_of(x, n, 0, true) + o.value);
        const float *gain = vectors[o.vector].data();
        for (int64_t i = 0; i < n; i++) out[i] = x[i] * inverse * gain[i];
    }

    // The halves of each head are the two axes of the planes that turn
    void rotate(const Operation &o, int64_t row, const float *x, float *out, int64_t head_dim) const {
        int64_t half = head_dim / 2, position = tokens_.positions[row];
        const float *cosines = vectors[o.vector].data() + position * half;
        const float *sines = vectors[o.second].data() + position * half;
        for (int64_t head = 0; head < o.number; head++, x += head_dim, out += head_dim)
            for (int64_t i = 0; i < half; i++) {
                float first = x[i], second = x[half + i];
                out[i] = first * cosines[i] - second * sines[i];
                out[half + i] = second * cosines[i] + first * sines[i];
            }
    }

    void product(const Operation &o, std::atomic<int64_t> &next, int thread, int64_t rows) {
        const Matrix &w = *matrices[o.matrix];
        Scratch &own = scratch_[thread];
        if (int64_t(own.sums.size()) < rows * PANEL) own.sums.resize(rows * PANEL);
        Integers *integers = &own.integers;
        if (w.bits != 32 && rows <= 2) {  // sooner done by each than shared
            integers->resize(rows, w);
            for (int64_t row = 0; row < rows; row++) integers->quantize(row, at(o.a, row), w);
        } else if (w.bits != 32) {
            if (thread == 0) shared_.resize(rows, w);
            threads_.barrier();
            integers = &shared_;
            own_rows(thread, rows, [&](int64_t row) { integers->quantize(row, at(o.a, row), w); });
            threads_.barrier();
        }
        int64_t p;
        while ((p = next.fetch_add(1, std::memory_order_relaxed)) < w.panels()) {
            panel_product(w, p, rows, at(o.a, 0), step(o.a), *integers, own.sums.data());
            int64_t first = p * PANEL, width = std::min<int64_t>(PANEL, w.n - first);
            for (int64_t row = 0; row < rows; row++) finish(o, own.sums.data() + row * PANEL, row, first, width);
        }
    }

    // Bias, function and residual, while the sums are at hand
    void finish(const Operation &o, float *sums, int64_t row, int64_t first, int64_t width) const {
        if (o.vector >= 0) {
            const float *bias = vectors[o.vector].data() + first;
            for (int64_t i = 0; i < width; i++) sums[i] += bias[i];
        }
        if (o.function != IDENTITY) apply(o.function, sums, sums, PANEL, o.value);
        float *out = at(o.out, row) + first;
        if (o.b.buffer >= 0) {
            const float *residual = at(o.b, row) + first;
            for (int64_t i = 0; i < width; i++) out[i] = sums[i] + residual[i];
        } else {
            std::memcpy(out, sums, width * sizeof(float));
        }
    }

    void attend(const Operation &o, std::atomic<int64_t> &next, int thread, int64_t rows) {
        const AttentionLayer &layer = layers_[o.number];
        int64_t segment = 0;
        own_rows(thread, rows, [&](int64_t row) {
            while (row >= tokens_.segments[segment].first + tokens_.segments[segment].count) segment++;
            keep_keys(layer, tokens_, tokens_.segments[segment], row, at(o.b, row), at(o.c, row));
        });
        threads_.barrier();
        // A task: some tokens of a text, and the heads that share keys, as many as a tile takes
        int64_t shared = layer.heads / layer.kv_heads, parts = (shared + TILE - 1) / TILE;
        int64_t each_part = (shared + parts - 1) / parts, tokens = std::max<int64_t>(1, TILE / each_part);
        int64_t before = 0, task = next.fetch_add(1, std::memory_order_relaxed);
        for (const Segment &s : tokens_.segments) {
            int64_t tiles = (s.count + tokens - 1) / tokens, tasks = tiles * layer.kv_heads * parts;
            for (; task < before + tasks; task = next.fetch_add(1, std::memory_order_relaxed)) {
                int64_t i = task - before, part = i % parts, head = i / parts % layer.kv_heads;
                int64_t tile = tiles - 1 - i / parts / layer.kv_heads;  // the longest first
                tile_of(o, layer, s, tile * tokens, std::min(s.count, (tile + 1) * tokens), head, part * each_part,
                        std::min(shared, (part + 1) * each_part), scratch_[thread].room.data());
            }
            before += tasks;
        }
    }

    void tile_of(const Operation &o, const AttentionLayer &layer, const Segment &s, int64_t token, int64_t end,
                 int64_t kv_head, int64_t first, int64_t last, float *room) {
        int64_t rows[TILE], heads[TILE];
        int count = 0;
        for (; token < end; token++)
            for (int64_t i = first; i < last; i++, count++) {
                rows[count] = s.first + token;
                heads[count] = kv_head * (layer.heads / layer.kv_heads) + i;
            }
        attend_tile(layer, tokens_, s, kv_head, count, rows, heads, at(o.a, 0), step(o.a), at(o.out, 0), step(o.out),
                    room, room_step_);
    }

    Threads threads_;
    int64_t room_step_;
    Tokens tokens_{};
    const int64_t *ids_ = nullptr, *selected_ = nullptr;
    std::vector<AttentionLayer> layers_;
    std::vector<Scratch> scratch_;
    Integers shared_;
    std::vector<std::atomic<int64_t>> next_;
};

extern "C" {

void *engine_new(int64_t threads, int64_t context) { return new Engine(int(threads), context); }

void engine_delete(Engine *engine) { delete engine; }

// values: float (n, k); int8 (n, k) with scales float (n,); int4 uint8 (n, k / 2) with scales half (n, k / 32).
// Returns its number, -1 without memory.
int64_t engine_matrix(Engine *engine, int64_t bits, int64_t n, int64_t k, const void *values, const void *scales) {
    auto matrix = std::make_unique<Matrix>(int(bits), n, k);
    if (!matrix->data) return -1;
    if (bits == 32)
        matrix->pack(static_cast<const float *>(values));
    else if (bits == 8)
        matrix->pack(static_cast<const int8_t *>(values), static_cast<const float *>(scales));
    else
        matrix->pack(static_cast<const uint8_t *>(values), static_cast<const uint16_t *>(scales));
    engine->matrices.push_back(std::move(matrix));
    return int64_t(engine->matrices.size()) - 1;
}

int64_t engine_vector(Engine *engine, int64_t n, const float *values) {
    engine->vectors.emplace_back(values, values + n);
    return int64_t(engine->vectors.size()) - 1;
}

int64_t engine_buffer(Engine *engine, int64_t width) {
    engine->buffers.push_back({width, {}, nullptr});
    return int64_t(engine->buffers.size()) - 1;
}

void engine_layer(Engine *engine, int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t window, float scale) {
    int64_t padded = (head_dim + 15) / 16 * 16;
    engine->add_layer({heads, kv_heads, head_dim, padded, window, scale, 0});
}

// fields: kind; buffer, offset, width of out, a, b and c; matrix, vector, second; number, function
void engine_operation(Engine *engine, const int64_t *fields, float value) {
    Operation o{};
    o.kind = fields[0];
    View *views[] = {&o.out, &o.a, &o.b, &o.c};
    for (int i = 0; i < 4; i++) *views[i] = {fields[1 + 3 * i], fields[2 + 3 * i], fields[3 + 3 * i]};
    o.matrix = fields[13], o.vector = fields[14], o.second = fields[15];
    o.number = fields[16], o.function = fields[17], o.value = value;
    engine->operations.push_back(o);
}

void engine_logits(Engine *engine, int64_t buffer) { engine->logits_buffer = buffer; }

int64_t engine_page_bytes(Engine *engine) { return engine->page_bytes(); }

int64_t engine_make_pages(Engine *engine, int64_t count) { return engine->make_pages(count); }

void engine_copy_page(Engine *engine, int64_t from, int64_t to) { engine->copy_page(from, to); }

void engine_run(Engine *engine, int64_t count, const int64_t *ids, const int64_t *positions,
                const int64_t *const *tables, const int64_t *selected, int64_t selected_count, float *logits) {
    engine->run(count, ids, positions, tables, selected, selected_count, logits);
}
}
