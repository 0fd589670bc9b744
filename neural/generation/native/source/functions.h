// What is done to numbers one by one; recording.py has the same names in the same order.
#pragma once

#include <algorithm>

#include "vectors.h"

enum Function { IDENTITY, RELU, GELU, GELU_TANH, SILU, TANH, SIGMOID, LEAKY_RELU, ELU, SOFTPLUS, MISH, RELU_SQUARED };

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
