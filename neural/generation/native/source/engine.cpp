// Runs a causal network: a list of operations on rows, one row a token, tokens of any number of texts together.
// The Python side (neural/generation/native/program.py) writes the list; the names of operations are shared with it.
#include "attention.h"
#include "functions.h"
#include "threads.h"

enum Kind {
    EMBED, POSITION, LINEAR, LAYER_NORM, RMS_NORM, ROTATE, ATTEND, ADD, MULTIPLY, SCALE, UNARY, SELECT, QUANTIZE, KEEP
};

// A part of the columns of a buffer
struct View {
    int64_t buffer = -1, offset = 0, width = 0;
};

struct Operation {
    int64_t kind;
    View out, a, b, c;
    int64_t matrix, vector, second;  // which weights; -1 for none
    int64_t number, function;        // heads, the attention's layer; of a product what follows it
    int64_t narrow;                  // whether on the selected rows alone
    int64_t attention;               // the layer of the next one; -1 for none
    int64_t reads, rounds;           // integers: those that a product reads, and what the result is rounded to; -1 for none
    float value;                     // epsilon, factor
};

struct Buffer {
    int64_t width;
    std::vector<float> own;
    float *data;
};

class Engine {
public:
    // integers: whether keys and values are kept as such
    Engine(int threads, int64_t context, bool integers)
        : keeps_integers_(integers), scratch_(threads),
          threads_(
              threads, [this](size_t i) { return tasks(operations[i]); },
              [this](size_t i, int64_t task, int thread) { perform(operations[i], task, thread); }) {
        for (auto &s : scratch_) s.room.scores.resize(TILE * ((context + PAGE - 1) / PAGE * PAGE));
    }

    std::vector<std::unique_ptr<Matrix>> matrices;
    std::vector<std::vector<float>> vectors;
    std::vector<Buffer> buffers;
    std::vector<Integers> integers;
    std::vector<Operation> operations;
    int64_t logits_buffer = -1;

    void add(const Operation &o) {
        operations.push_back(o);
        if (o.kind == ATTEND)
            for (auto before = operations.rbegin() + 1; before != operations.rend() && before->attention < 0; before++)
                before->attention = o.number;
        for (auto &own : scratch_)
            if (int64_t(own.row.size()) < o.out.width) own.row.resize(o.out.width);
    }

    void add_layer(AttentionLayer layer) {
        layer.offset = tokens_.page_bytes;
        layer.head_bytes = keeps_integers_ ? Integers8::bytes(layer.head_dim, layer.padded)
                                           : Numbers::bytes(layer.head_dim, layer.padded);
        layers_.push_back(layer);
        tokens_.page_bytes += layer.kv_heads * layer.head_bytes;
    }

    bool make_pages(int64_t count) {
        pages_ = std::make_unique<Memory>(count * page_bytes());
        return (tokens_.pool = static_cast<uint8_t *>(pages_->data())) != nullptr;
    }

    int64_t page_bytes() const { return tokens_.page_bytes; }

    void copy_page(int64_t from, int64_t to) {
        std::memcpy(tokens_.pool + to * page_bytes(), tokens_.pool + from * page_bytes(), page_bytes());
    }

    // ids, positions, tables: of `count` tokens, those of one text together. selected: rows whose logits are wanted.
    void run(int64_t count, const int64_t *ids, const int64_t *positions, const int64_t *const *tables,
             const int64_t *selected, int64_t selected_count, float *logits) {
        ids_ = ids, selected_ = selected, tokens_.positions = positions;
        rows_ = count, selected_rows_ = selected_count;
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
        for (auto &rounded : integers) rounded.reserve(count);
        for (auto &own : scratch_) own.coming.layer = -1;
        threads_.run(operations.size());
    }

private:
    struct Scratch {
        std::vector<float> sums, row;
        Coming coming;
        Room room;
    };

    static constexpr int64_t MOST_ASKED = 32;  // rows: more are not in the first cache any more when they are needed
    // nullptr of no view
    float *at(const View &v, int64_t row) const {
        return v.buffer < 0 ? nullptr : buffers[v.buffer].data + row * buffers[v.buffer].width + v.offset;
    }
    int64_t step(const View &v) const { return v.buffer < 0 ? 0 : buffers[v.buffer].width; }
    Integers *rounded(const Operation &o) { return o.rounds < 0 ? nullptr : &integers[o.rounds]; }

    int64_t rows(const Operation &o) const { return o.narrow ? selected_rows_ : rows_; }

    // How the rows of an operation are shared: about two tasks a thread
    int64_t share(int64_t rows) const { return (rows + 2 * threads_.count() - 1) / (2 * threads_.count()); }

    int64_t tasks(const Operation &o) {
        if (o.kind == LINEAR) return matrices[o.matrix]->panels();
        if (o.kind == KEEP) return layers_[o.number].kv_heads;
        if (o.kind == ATTEND) {
            AttentionLayer &layer = layers_[o.number];
            int64_t total = 0;
            layer.ends.clear();
            for (const Segment &s : tokens_.segments) layer.ends.push_back(total += Tiles(layer, s).tasks);
            return total;
        }
        return rows(o) ? (rows(o) + share(rows(o)) - 1) / share(rows(o)) : 0;
    }

    void perform(const Operation &o, int64_t task, int thread) {
        if (o.kind == LINEAR) return product(o, task, thread);
        if (o.kind == ATTEND || o.kind == KEEP)
            return keeps_integers_ ? attention<Integers8>(o, task, thread) : attention<Numbers>(o, task, thread);
        int64_t each = share(rows(o)), first = task * each, end = std::min(rows(o), first + each);
        for (int64_t row = first; row < end; row++) {
            if (o.a.buffer >= 0) ask_for<false>(at(o.a, row), o.a.width * sizeof(float));
            if (Integers *to = rounded(o)) to->ask<true>(row, 0, to->k);
        }
        for (int64_t row = first; row < end; row++) {
            float *out = o.out.buffer < 0 ? scratch_[thread].row.data() : at(o.out, row);
            on_row(o, row, out);
            if (Integers *to = rounded(o)) to->round(row, 0, o.kind == QUANTIZE ? at(o.a, row) : out, to->k);
        }
    }

    void on_row(const Operation &o, int64_t row, float *out) {
        const float *a = at(o.a, row), *b = at(o.b, row);
        int64_t width = o.out.width;
        switch (o.kind) {
            case EMBED: return matrices[o.matrix]->row(ids_[row], out);
            case SELECT: return void(std::memcpy(out, at(o.a, selected_[row]), width * sizeof(float)));
            case QUANTIZE: return;  // `perform` does it
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

    // What a thread reads after a panel: the next one of its part, or the first one that it has of the next product
    const uint8_t *following(const Operation &o, int64_t panel, int thread) const {
        const Matrix &w = *matrices[o.matrix];
        if (panel + 1 == threads_.part(w.panels(), thread + 1))
            for (const Operation *next = &o + 1; next != operations.data() + operations.size(); next++)
                if (next->kind == LINEAR) {
                    const Matrix &other = *matrices[next->matrix];
                    return other.panel(threads_.part(other.panels(), thread));
                }
        return w.panel(panel + 1);
    }

    void product(const Operation &o, int64_t panel, int thread) {
        const Matrix &w = *matrices[o.matrix];
        Scratch &own = scratch_[thread];
        int64_t count = rows(o), first = panel * PANEL, width = std::min<int64_t>(PANEL, w.n - first);
        if (int64_t(own.sums.size()) < count * PANEL) own.sums.resize(count * PANEL);
        const uint8_t *next = following(o, panel, thread);
        if (w.bits == 32) {
            panel_product(w, panel, next, count, at(o.a, 0), step(o.a), own.sums.data());
        } else {
            const Integers &x = integers[o.reads];
            if (panel == threads_.part(w.panels(), thread))
                for (int64_t row = 0; row < std::min(count, MOST_ASKED); row++) x.ask<false>(row, 0, x.k);
            auto before = [&](int64_t row, int64_t rows, int64_t lines) {
                ask_for_place(o, row, row + rows, first, width);
                return coming(o, lines, thread);
            };
            panel_product(w, panel, next, count, x, own.sums.data(), before);
        }
        for (int64_t row = 0; row < count; row++) finish(o, own.sums.data() + row * PANEL, row, first, width);
    }

    // Where keys and values lie that the thread reads after this product: of single tokens, whose products leave memory
    // time for more than weights
    const void *coming(const Operation &o, int64_t lines, int thread) {
        int64_t texts = tokens_.segments.size();
        if (!lines || o.attention < 0 || texts < rows_) return nullptr;
        Coming &of_thread = scratch_[thread].coming;
        if (of_thread.layer != o.attention)
            of_thread.begin(o.attention, threads_.part(texts, thread), threads_.part(texts, thread + 1));
        return of_thread.take(layers_[o.attention], tokens_, lines);
    }

    // Where a panel's numbers of some rows go
    void ask_for_place(const Operation &o, int64_t row, int64_t end, int64_t first, int64_t width) {
        for (; row < std::min(end, MOST_ASKED); row++) {
            if (float *out = at(o.out, row)) ask_for<true>(out + first, width * sizeof(float));
            if (Integers *to = rounded(o)) to->ask<true>(row, first, width);
        }
    }

    static void add(float *to, const float *x, int64_t n) {
        int64_t i = 0;
        for (; i + 16 <= n; i += 16) store(to + i, load(to + i) + load(x + i));
        for (; i < n; i++) to[i] += x[i];
    }

    // Bias, function, residual and rounding, while the sums are at hand
    void finish(const Operation &o, float *sums, int64_t row, int64_t first, int64_t width) {
        if (o.vector >= 0) add(sums, vectors[o.vector].data() + first, width);
        if (o.function != IDENTITY) apply(o.function, sums, sums, PANEL, o.value);
        if (const float *residual = at(o.b, row)) add(sums, residual + first, width);
        if (float *out = at(o.out, row)) std::memcpy(out + first, sums, width * sizeof(float));
        if (Integers *to = rounded(o)) to->round(row, first, sums, width);
    }

    template <typename Kept>
    void attention(const Operation &o, int64_t task, int thread) {
        const AttentionLayer &layer = layers_[o.number];
        if (o.kind == ATTEND) return attend<Kept>(o, layer, task, scratch_[thread].room);
        for (const Segment &s : tokens_.segments)
            if (!Tiles(layer, s).alone()) keep_rows<Kept>(o, layer, s, task);
    }

    template <typename Kept>
    void keep_rows(const Operation &o, const AttentionLayer &layer, const Segment &s, int64_t head) const {
        for (int64_t row = s.first; row < s.first + s.count; row++) {
            int64_t position = tokens_.positions[row], from = head * layer.head_dim;
            Kept::keep(tokens_.block(layer, s, position, head), layer.head_dim, layer.padded, position % PAGE,
                       at(o.b, row) + from, at(o.c, row) + from);
        }
    }

    template <typename Kept>
    void attend(const Operation &o, const AttentionLayer &layer, int64_t task, Room &room) {
        size_t i = std::upper_bound(layer.ends.begin(), layer.ends.end(), task) - layer.ends.begin();
        const Segment &s = tokens_.segments[i];
        Tiles tiles(layer, s);
        int64_t rows[TILE], heads[TILE], kv_head;
        int count = tiles.pairs(layer, s, i ? task - layer.ends[i - 1] : task, rows, heads, kv_head);
        if (tiles.alone()) keep_rows<Kept>(o, layer, s, kv_head);
        bool more = kv_head + 1 < layer.kv_heads || &s == &tokens_.segments.back();
        attend_tile<Kept>(layer, tokens_, s, kv_head, count, rows, heads, at(o.a, 0), step(o.a),
                          {at(o.out, 0), step(o.out), rounded(o)},
                          tokens_.block(layer, more ? s : *(&s + 1), 0, (kv_head + 1) % layer.kv_heads), room);
    }

    bool keeps_integers_;
    int64_t rows_ = 0, selected_rows_ = 0;
    std::unique_ptr<Memory> pages_;
    Tokens tokens_{};
    const int64_t *ids_ = nullptr, *selected_ = nullptr;
    std::vector<AttentionLayer> layers_;
    std::vector<Scratch> scratch_;
    Threads threads_;  // the last, so that its threads find all else
};

extern "C" {

void *engine_new(int64_t threads, int64_t context, int64_t integers) { return new Engine(int(threads), context, integers); }

void engine_delete(Engine *engine) { delete engine; }

// values: float (n, k); int8 (n, k) with scales float (n,); int4 uint8 (n, k / 2) with scales half (n, k / 32).
// Returns its number, -1 without memory.
int64_t engine_matrix(Engine *engine, int64_t bits, int64_t n, int64_t k, const void *values, const void *scales,
                      const uint8_t *zeros) {
    auto matrix = std::make_unique<Matrix>(int(bits), n, k, zeros != nullptr);
    if (!matrix->data) return -1;
    if (bits == 32)
        matrix->pack(static_cast<const float *>(values));
    else if (bits == 8)
        matrix->pack(static_cast<const int8_t *>(values), static_cast<const float *>(scales));
    else
        matrix->pack(static_cast<const uint8_t *>(values), static_cast<const Half *>(scales), zeros);
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

int64_t engine_integers(Engine *engine, int64_t width, int64_t bits) {
    engine->integers.emplace_back(width, int(bits));
    return int64_t(engine->integers.size()) - 1;
}

void engine_layer(Engine *engine, int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t window, float scale) {
    int64_t padded = (head_dim + 15) / 16 * 16;
    engine->add_layer({heads, kv_heads, head_dim, padded, window, scale, 0, 0, {}});
}

// fields: kind; buffer, offset, width of out, a, b and c; matrix, vector, second; number, function, narrow; reads, rounds
void engine_operation(Engine *engine, const int64_t *fields, float value) {
    Operation o{};
    o.kind = fields[0];
    View *views[] = {&o.out, &o.a, &o.b, &o.c};
    for (int i = 0; i < 4; i++) *views[i] = {fields[1 + 3 * i], fields[2 + 3 * i], fields[3 + 3 * i]};
    o.matrix = fields[13], o.vector = fields[14], o.second = fields[15];
    o.number = fields[16], o.function = fields[17], o.narrow = fields[18], o.value = value;
    o.reads = fields[19], o.rounds = fields[20], o.attention = -1;
    engine->add(o);
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
