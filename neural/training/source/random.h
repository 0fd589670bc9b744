// Which elements dropout keeps: 16 random bits decide about each, so that a rate is met to 1/131072. The bits follow from a
// seed and the number of a block, so that the backward pass makes them again and no mask is stored.
#pragma once

#include "vectors.h"

typedef uint64_t u64x8 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));

// Eight generators side by side: sfc64 (Chris Doty-Humphrey, PractRand), seeded with three words each
class Random {
public:
    Random(uint64_t seed, uint64_t block) : a_(u64x8{} + seed), b_(u64x8{} + block), c_(u64x8{0, 1, 2, 3, 4, 5, 6, 7}) {
        for (int i = 0; i < 18; i++) next();
    }

    u64x8 next() {
        u64x8 found = a_ + b_ + counter_;
        counter_ += 1;
        a_ = b_ ^ (b_ >> 11);
        b_ = c_ + (c_ << 3);
        c_ = ((c_ << 24) | (c_ >> 40)) + found;
        return found;
    }

    // `count` numbers of 16 bits, a multiple of 32
    void fill(uint16_t *to, int64_t count) {
        for (int64_t i = 0; i < count; i += 32) {
            u64x8 bits = next();
            std::memcpy(to + i, &bits, sizeof bits);
        }
    }

private:
    u64x8 a_, b_, c_, counter_ = u64x8{} + 1;
};

// x where the bits are at least the threshold, else 0
static inline f32x16 kept(f32x16 x, const uint16_t *bits, int32_t threshold) {
    u16x16 words;
    std::memcpy(&words, bits, sizeof words);
    return __builtin_convertvector(words, i32x16) >= threshold ? x : f32x16{};
}
