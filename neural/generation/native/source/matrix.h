// A weight (N, K) in panels of 64 outputs, so that a product reads it once, from the first byte to the last.
//
//   float32  [K][64]
//   int8     groups of 32 inputs: [8][64][4] bytes, the value + 128; a scale an output
//   int4     groups of 32 inputs: [4][4][64] bytes, the value + 8, then 64 scales in half precision. A byte has the
//            inputs of step 2i in its low half and those of step 2i + 1 in its high half, of four inputs a step. With
//            zero points [16][4] bytes more, of the outputs 16 j + i: what is 0, in sixteenths of a step; without 8 is 0
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "vectors.h"

constexpr int PANEL = 64;
constexpr int INPUTS = 32;  // that are rounded together

// Zeros for what is read at full speed: pages of 2 MiB where the system gives them, taken when they are first written
class Memory {
public:
    explicit Memory(size_t bytes) : bytes_(bytes + LARGE_PAGE) {
        base_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#if defined(MADV_HUGEPAGE)
        if (base_ != MAP_FAILED) madvise(data(), bytes, MADV_HUGEPAGE);
#endif
    }
    ~Memory() {
        if (base_ != MAP_FAILED) munmap(base_, bytes_);
    }
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;

    // nullptr where the system has no more
    void *data() const {
        if (base_ == MAP_FAILED) return nullptr;
        return reinterpret_cast<void *>((reinterpret_cast<uintptr_t>(base_) + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE);
    }

private:
    static constexpr size_t LARGE_PAGE = 2 << 20;
    size_t bytes_;
    void *base_;
};

struct Matrix {
    int bits;
    int64_t n, k;
    bool zeros;            // of int4
    int64_t groups, group_bytes, panel_bytes;
    std::unique_ptr<Memory> memory;
    uint8_t *data;
    std::vector<float> scales;  // int8: one an output

    int64_t panels() const { return (n + PANEL - 1) / PANEL; }
    const uint8_t *panel(int64_t i) const { return data + i * panel_bytes; }

    Matrix(int bits, int64_t n, int64_t k, bool zeros) : bits(bits), n(n), k(k), zeros(zeros) {
        groups = (k + INPUTS - 1) / INPUTS;
        group_bytes = bits == 8 ? INPUTS * PANEL : (zeros ? 19 : 18) * PANEL;
        panel_bytes = bits == 32 ? k * PANEL * 4 : groups * group_bytes;
        memory = std::make_unique<Memory>(panels() * panel_bytes);
        data = static_cast<uint8_t *>(memory->data());
    }

    // values (n, k)
    void pack(const float *values) {
        for (int64_t row = 0; row < n; row++) {
            float *to = reinterpret_cast<float *>(data + row / PANEL * panel_bytes) + row % PANEL;
            for (int64_t i = 0; i < k; i++) to[i * PANEL] = values[row * k + i];
        }
    }

    // values (n, k), scales (n,)
    void pack(const int8_t *values, const float *row_scales) {
        scales.assign(panels() * PANEL, 0.0f);
        std::copy(row_scales, row_scales + n, scales.begin());
        std::memset(data, 128, panels() * panel_bytes);
        for (int64_t row = 0; row < n; row++)
            for (int64_t i = 0; i < k; i++) *byte8(row, i) = uint8_t(values[row * k + i] + 128);
    }

    // values (n, k / 2), the even input in the low half; scales (n, k / 32) in half precision; zero points of that shape, if any
    void pack(const uint8_t *values, const Half *group_scales, const uint8_t *group_zeros) {
        std::memset(data, 0, panels() * panel_bytes);
        for (int64_t row = 0; row < n; row++) {
            for (int64_t i = 0; i < k; i++) {
                uint8_t value = values[(row * k + i) / 2] >> (i % 2 * 4) & 15;
                *byte4(row, i) |= value << (i / 4 % 2 * 4);
            }
            for (int64_t g = 0; g < groups; g++) {
                *scale4(row, g) = group_scales[row * groups + g];
                if (zeros) *zero4(row, g) = group_zeros[row * groups + g];
            }
        }
    }

    // One row, as floats: what an embedding reads
    void row(int64_t index, float *out) const {
        if (bits == 32) {
            const float *from = reinterpret_cast<const float *>(panel(index / PANEL)) + index % PANEL;
            for (int64_t i = 0; i < k; i++) out[i] = from[i * PANEL];
        } else if (bits == 8) {
            for (int64_t i = 0; i < k; i++) out[i] = (int(*byte8(index, i)) - 128) * scales[index];
        } else {
            for (int64_t g = 0; g < groups; g++) {
                Half sixteen[16] = {*scale4(index, g)};
                float scale = load(sixteen)[0], zero = zeros ? *zero4(index, g) / 16.0f : 8.0f;
                for (int64_t i = g * INPUTS; i < std::min(k, (g + 1) * INPUTS); i++)
                    out[i] = ((*byte4(index, i) >> (i / 4 % 2 * 4) & 15) - zero) * scale;
            }
        }
    }

private:
    uint8_t *byte8(int64_t row, int64_t i) const {
        return data + row / PANEL * panel_bytes + i / 4 * 256 + row % PANEL * 4 + i % 4;
    }
    uint8_t *block4(int64_t row, int64_t g) const { return data + row / PANEL * panel_bytes + g * group_bytes; }
    uint8_t *byte4(int64_t row, int64_t i) const {
        return block4(row, i / 32) + i % 32 / 8 * 256 + row % PANEL * 4 + i % 4;
    }
    Half *scale4(int64_t row, int64_t g) const {
        return reinterpret_cast<Half *>(block4(row, g) + 16 * PANEL) + row % PANEL;
    }
    uint8_t *zero4(int64_t row, int64_t g) const { return block4(row, g) + 18 * PANEL + row % 16 * 4 + row % PANEL / 16; }
};
