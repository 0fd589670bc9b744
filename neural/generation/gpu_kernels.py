"""Kernels in Triton for the next token of each text on a GPU: products of one vector, attention of one query, norms.

A step of one token reads every weight once: it is as fast as memory if there is always something on its way. So a
product's kernel does what stands before and after it too (a norm of its input, an activation or a sum of its output),
and kernels ask for what no kernel of this step writes, weights and past keys and values, before the kernel ahead of
them is done (NVIDIA's programmatic dependent launch).
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

GELU, GELU_TANH, SILU, ADD, MULTIPLY = range(1, 6)  # what `after` does
RMS, LAYER = 1, 2  # kinds of norm


@triton.jit
def _after(a, other, at, inside, KIND: tl.constexpr):
    """An activation of a, or a with `other` at the same places: a + other, a · other."""
    if KIND == 1:
        a = 0.5 * a * (1.0 + tl.erf(a * 0.7071067811865476))
    if KIND == 2:
        a *= tl.sigmoid(1.5957691216057308 * (a + 0.044715 * a * a * a))  # as 1 + tanh(y) is 2 sigmoid(2 y)
    if KIND == 3:
        a *= tl.sigmoid(a)
    if KIND == 4:
        a += tl.load(other + at, mask=inside, other=0.0).to(tl.float32)
    if KIND == 5:
        a *= tl.load(other + at, mask=inside, other=0.0).to(tl.float32)
    return a


@triton.jit
def _normed(vector, inside, gain, offset, k, epsilon, NORM: tl.constexpr, GAIN: tl.constexpr, OFFSET: tl.constexpr):
    """The vector (k,) with a mean square of 1, around its mean if NORM is 2; gain and offset (k,), where there are."""
    if NORM == 2:
        vector = tl.where(inside, vector - tl.sum(vector, axis=0) / k, 0.0)
    vector *= tl.rsqrt(tl.sum(vector * vector, axis=0) / k + epsilon)
    if GAIN:
        vector *= gain.to(tl.float32)
    if OFFSET:
        vector += offset.to(tl.float32)
    return vector


@triton.jit
def _matrix(weight, rows, columns, n, k):
    """weight (n, k) at these rows and columns, which will not be read again before all of the others."""
    inside = (rows < n)[:, None] & (columns < k)[None, :]
    places = weight + rows.to(tl.int64)[:, None] * k + columns[None, :]
    return tl.load(places, mask=inside, other=0.0, eviction_policy="evict_first")


@triton.jit
def linear(
    x, gain, offset, epsilon, weight, bias, other, out, n, k,
    N: tl.constexpr, K: tl.constexpr, TIMES: tl.constexpr, NORM: tl.constexpr, GAIN: tl.constexpr,
    OFFSET: tl.constexpr, BIAS: tl.constexpr, KIND: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """out (n,) = after(weight (n, k) · norm(x (k,)) + bias (n,)); a program has N rows of the weight, whole, TIMES."""
    rows, columns = tl.program_id(0) * TIMES * N + tl.arange(0, N), tl.arange(0, K)
    held = columns < k
    matrix = _matrix(weight, rows, columns, n, k)
    gains = tl.load(gain + columns, mask=held, other=0.0) if GAIN else 0.0
    offsets = tl.load(offset + columns, mask=held, other=0.0) if OFFSET else 0.0
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    vector = tl.load(x + columns, mask=held, other=0.0).to(tl.float32)
    if NORM:
        vector = _normed(vector, held, gains, offsets, k, epsilon, NORM, GAIN, OFFSET)
    for time in tl.static_range(TIMES):
        following = _matrix(weight, rows + N, columns, n, k) if time + 1 < TIMES else matrix
        sums = tl.sum(matrix.to(tl.float32) * vector[None, :], axis=1)
        if BIAS:
            sums += tl.load(bias + rows, mask=rows < n, other=0.0).to(tl.float32)
        tl.store(out + rows, _after(sums, other, rows, rows < n, KIND).to(out.dtype.element_ty), mask=rows < n)
        matrix, rows = following, rows + N


@triton.jit
def _attended(keys, values, seen, query, peak, total, sums):
    """Some places more: their largest score, the sum of the exponentials, and that of the values times these."""
    scores = tl.where(seen, tl.sum(keys.to(tl.float32) * query[None, :], axis=1), -float("inf"))
    higher = tl.maximum(peak, tl.max(scores, axis=0))
    parts, shrunk = tl.exp(scores - higher), tl.exp(peak - higher)
    sums = sums * shrunk + tl.sum(parts[:, None] * values.to(tl.float32), axis=0)
    return higher, total * shrunk + tl.sum(parts, axis=0), sums


@triton.jit
def attend(
    q, k, v, mask, new_k, new_v, positions, out, q_row, q_head, k_row, k_head, k_place, v_row, v_head, v_place,
    mask_row, new_k_row, new_k_head, new_v_row, new_v_head, heads, group, places, width, scale,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One query of a row and a head over the places that its mask shows (Milakov and Gimelshein 2018), of which that
    of the new key and value, which this stores, is one.
    """
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    own, at = tl.arange(0, WIDTH), tl.arange(0, BLOCK)
    held = own < width
    keys, values = k + row * k_row + head // group * k_head, v + row * v_row + head // group * v_head
    position = tl.load(positions + row)
    seen = (tl.load(mask + row * mask_row + at, mask=at < places, other=0) != 0) & (at != position)
    inside = seen[:, None] & held[None, :]
    first_keys = tl.load(keys + at[:, None] * k_place + own[None, :], mask=inside, other=0.0)
    first_values = tl.load(values + at[:, None] * v_place + own[None, :], mask=inside, other=0.0)
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    query = tl.load(q + row * q_row + head * q_head + own, mask=held, other=0.0).to(tl.float32) * scale
    key = tl.load(new_k + row * new_k_row + head // group * new_k_head + own, mask=held, other=0.0)
    value = tl.load(new_v + row * new_v_row + head // group * new_v_head + own, mask=held, other=0.0)
    if head % group == 0:
        tl.store(keys + position * k_place + own, key, mask=held)
        tl.store(values + position * v_place + own, value, mask=held)
    peak, total, sums = tl.sum(key.to(tl.float32) * query, axis=0), 1.0, value.to(tl.float32)
    peak, total, sums = _attended(first_keys, first_values, seen, query, peak, total, sums)
    for _ in range(BLOCK, places, BLOCK):
        at += BLOCK
        seen = (tl.load(mask + row * mask_row + at, mask=at < places, other=0) != 0) & (at != position)
        if tl.max(seen.to(tl.int32), axis=0) > 0:
            inside = seen[:, None] & held[None, :]
            more_keys = tl.load(keys + at[:, None] * k_place + own[None, :], mask=inside, other=0.0)
            more_values = tl.load(values + at[:, None] * v_place + own[None, :], mask=inside, other=0.0)
            peak, total, sums = _attended(more_keys, more_values, seen, query, peak, total, sums)
    result = (sums / total).to(out.dtype.element_ty)
    tl.store(out + (row * heads + head) * width + own, result, mask=held)


@triton.jit
def keep(
    k, v, keys, values, positions, k_row, k_head, v_row, v_head, keys_row, keys_head, keys_place, values_row,
    values_head, values_place, width, WIDTH: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """A row's new key and value of a head, to where its position is."""
    row, head, own = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, WIDTH)
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    at = tl.load(positions + row)
    key = tl.load(k + row * k_row + head * k_head + own, mask=own < width)
    value = tl.load(v + row * v_row + head * v_head + own, mask=own < width)
    tl.store(keys + row * keys_row + head * keys_head + at * keys_place + own, key, mask=own < width)
    tl.store(values + row * values_row + head * values_head + at * values_place + own, value, mask=own < width)


@triton.jit
def normalize(
    x, gain, offset, out, k, epsilon,
    K: tl.constexpr, NORM: tl.constexpr, GAIN: tl.constexpr, OFFSET: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """The norm of a row of x (…, k)."""
    columns = tl.arange(0, K)
    held = columns < k
    gains = tl.load(gain + columns, mask=held, other=0.0) if GAIN else 0.0
    offsets = tl.load(offset + columns, mask=held, other=0.0) if OFFSET else 0.0
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    start = tl.program_id(0).to(tl.int64) * k
    vector = tl.load(x + start + columns, mask=held, other=0.0).to(tl.float32)
    vector = _normed(vector, held, gains, offsets, k, epsilon, NORM, GAIN, OFFSET)
    tl.store(out + start + columns, vector.to(out.dtype.element_ty), mask=held)


@triton.jit
def pointwise(x, y, out, n, KIND: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    """x + y, x · y, or an activation of x."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    a = tl.load(x + at, mask=at < n, other=0.0).to(tl.float32)
    tl.store(out + at, _after(a, y, at, at < n, KIND).to(out.dtype.element_ty), mask=at < n)
