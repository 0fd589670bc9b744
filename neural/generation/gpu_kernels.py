"""Kernels for the next token of each text on a GPU, in Triton, in place of those that torch has for many tokens.

A step of one token reads every weight once: it is as fast as memory if there is always something on its way. So each
kernel asks for its weights before the kernel ahead of it is done (NVIDIA's programmatic dependent launch), and has the
next product's weights fetched into the L2 cache, which fills the time of the small kernels between two products.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

LINE = 128  # bytes that a prefetch brings
AHEAD = 16 * 2**20  # bytes of the next products that are fetched beforehand; the L2 cache of an H100 has 50 MB
WIDEST = 16384  # of vectors that a kernel holds whole
HOPPER = (9, 0)
PLACES = 64  # that attention reads at a time
GELU, GELU_TANH, SILU, ADD, MULTIPLY = range(1, 6)  # kinds of `_pointwise`


@triton.jit
def _fetch(start, lines, PER: tl.constexpr, SIZE: tl.constexpr):
    """Ask for a program's share of so many lines of 128 bytes at `start`, for the L2 cache. SIZE: bytes of a number."""
    per = tl.cdiv(lines, tl.num_programs(0))
    line = tl.minimum(tl.program_id(0) * per + tl.arange(0, PER), lines - 1)
    address = (start + line.to(tl.int64) * (128 // SIZE)).to(tl.int64)
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [address], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def _linear(
    x, weight, bias, out, first, first_lines, second, second_lines, n, k,
    N: tl.constexpr, K: tl.constexpr, BIAS: tl.constexpr, FETCH: tl.constexpr, PER: tl.constexpr, SIZE: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """out (n,) = weight (n, k) · x (k,) + bias (n,); a program has N rows of the weight, whole."""
    rows, columns = tl.program_id(0) * N + tl.arange(0, N), tl.arange(0, K)
    inside = (rows < n)[:, None] & (columns < k)[None, :]
    places = rows.to(tl.int64)[:, None] * k + columns[None, :]
    matrix = tl.load(weight + places, mask=inside, other=0.0, eviction_policy="evict_first")
    if FETCH:
        _fetch(first, first_lines, PER, SIZE)
        _fetch(second, second_lines, PER, SIZE)
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    vector = tl.load(x + columns, mask=columns < k, other=0.0).to(tl.float32)
    sums = tl.sum(matrix.to(tl.float32) * vector[None, :], axis=1)
    if BIAS:
        sums += tl.load(bias + rows, mask=rows < n, other=0.0).to(tl.float32)
    tl.store(out + rows, sums.to(out.dtype.element_ty), mask=rows < n)


@triton.jit
def _attend(
    q, k, v, mask, out, q_row, q_head, k_row, k_head, k_place, v_row, v_head, v_place, mask_row, heads, group, places,
    width, scale, BLOCK: tl.constexpr, WIDTH: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One query of a row and a head over the places that its mask shows (Milakov and Gimelshein 2018)."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    own = tl.arange(0, WIDTH)
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    query = tl.load(q + row * q_row + head * q_head + own, mask=own < width, other=0.0).to(tl.float32) * scale
    keys, values = k + row * k_row + head // group * k_head, v + row * v_row + head // group * v_head
    peak, total, sums = -float("inf"), 0.0, tl.zeros([WIDTH], tl.float32)
    for start in range(0, places, BLOCK):
        at = start + tl.arange(0, BLOCK)
        seen = tl.load(mask + row * mask_row + at, mask=at < places, other=0) != 0
        if tl.max(seen.to(tl.int32), axis=0) > 0:
            inside = seen[:, None] & (own < width)[None, :]
            key = tl.load(keys + at[:, None] * k_place + own[None, :], mask=inside, other=0.0)
            value = tl.load(values + at[:, None] * v_place + own[None, :], mask=inside, other=0.0)
            scores = tl.where(seen, tl.sum(key.to(tl.float32) * query[None, :], axis=1), -float("inf"))
            higher = tl.maximum(peak, tl.max(scores, axis=0))
            parts, shrunk = tl.exp(scores - higher), tl.exp(peak - higher)
            total = total * shrunk + tl.sum(parts, axis=0)
            sums = sums * shrunk + tl.sum(parts[:, None] * value.to(tl.float32), axis=0)
            peak = higher
    result = (sums / total).to(out.dtype.element_ty)
    tl.store(out + (row * heads + head) * width + own, result, mask=own < width)


@triton.jit
def _keep(
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
def _normalize(
    x, weight, bias, out, k, epsilon,
    K: tl.constexpr, CENTRED: tl.constexpr, WEIGHT: tl.constexpr, BIAS: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """A row of x (…, k) with a mean square of 1, around its mean where it is centred."""
    columns = tl.arange(0, K)
    inside = columns < k
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    start = tl.program_id(0).to(tl.int64) * k
    vector = tl.load(x + start + columns, mask=inside, other=0.0).to(tl.float32)
    if CENTRED:
        vector = tl.where(inside, vector - tl.sum(vector, axis=0) / k, 0.0)
    vector *= tl.rsqrt(tl.sum(vector * vector, axis=0) / k + epsilon)
    if WEIGHT:
        vector *= tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    if BIAS:
        vector += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + start + columns, vector.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _pointwise(x, y, out, n, KIND: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    """x + y, x · y, or an activation of x."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    a = tl.load(x + at, mask=at < n, other=0.0).to(tl.float32)
    if KIND == 4:
        a += tl.load(y + at, mask=at < n, other=0.0).to(tl.float32)
    if KIND == 5:
        a *= tl.load(y + at, mask=at < n, other=0.0).to(tl.float32)
    if KIND == 1:
        a = 0.5 * a * (1.0 + tl.erf(a * 0.7071067811865476))
    if KIND == 2:
        a *= tl.sigmoid(1.5957691216057308 * (a + 0.044715 * a * a * a))  # as 1 + tanh(y) is 2 sigmoid(2 y)
    if KIND == 3:
        a *= tl.sigmoid(a)
    tl.store(out + at, a.to(out.dtype.element_ty), mask=at < n)


class GpuKernels(TorchFunctionMode):
    """While it is entered, torch's functions of few vectors are done here; others are as they were.

    The products of a pass are noted in their order, so that those of the next pass know which weights come after
    theirs. overlap: whether the GPU starts kernels before those ahead of them are done, from Hopper on.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.overlap = device.type == "cuda" and torch.cuda.get_device_capability(device) >= HOPPER
        self._launch = {"launch_pdl": True} if self.overlap else {}
        self._order: list[Tensor] = []  # the weights of a pass
        self._next = 0

    def start(self) -> None:
        """Before each pass."""
        self._next = 0

    def __torch_function__(self, function: Any, types: Any, given: tuple = (), named: dict[str, Any] | None = None):
        named = named or {}
        if (own := _FUNCTIONS.get(function)) and (done := own(self, *given, **named)) is not None:
            return done
        return function(*given, **named)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        if x.numel() != x.size(-1) or not _fits(x, weight.size(-1)) or not weight.is_contiguous():
            return None
        n, k = weight.shape
        if self._next == len(self._order):
            self._order.append(weight)
        coming = [*self._order[self._next + 1 : self._next + 3], weight, weight][:2]
        self._next += 1
        lines, left = [], AHEAD if self.overlap else 0
        for one in coming:
            lines.append(min(one.nbytes if one is not weight else 0, left) // LINE)
            left -= lines[-1] * LINE
        width = triton.next_power_of_2(k)
        rows = max(1, 8192 // width)
        programs = triton.cdiv(n, rows)
        out = x.new_empty(*x.shape[:-1], n)
        _linear[(programs,)](
            x, weight, weight if bias is None else bias, out,
            coming[0], max(1, lines[0]), coming[1], max(1, lines[1]), n, k,
            N=rows, K=width, BIAS=bias is not None, FETCH=bool(sum(lines)),
            PER=triton.next_power_of_2(triton.cdiv(max(*lines, 1), programs)), SIZE=weight.element_size(),
            OVERLAP=self.overlap, num_warps=4 if width <= 4096 else 8, **self._launch,
        )  # fmt: skip
        return out

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor | None:  # fmt: skip
        rows, heads, queries, width = q.shape
        shown = attn_mask is not None and attn_mask.dtype == torch.bool and attn_mask.shape == (rows, 1, 1, k.size(2))
        last = all(t.stride(-1) == 1 for t in (q, k, v)) and shown and attn_mask.stride(-1) == 1
        if queries != 1 or not last or dropout_p or is_causal or v.size(-1) != width:
            return None
        out = q.new_empty(rows, 1, heads, width)
        _attend[(rows, heads)](
            q, k, v, attn_mask, out, *q.stride()[:2], *k.stride()[:3], *v.stride()[:3], attn_mask.stride(0),
            heads, heads // k.size(1), k.size(2), width, width**-0.5 if scale is None else scale,
            BLOCK=PLACES, WIDTH=triton.next_power_of_2(width), OVERLAP=self.overlap, num_warps=4, **self._launch,
        )  # fmt: skip
        return out.transpose(1, 2)

    def keep(self, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> None:
        """Store k and v (rows, heads, 1, head_dim) in keys and values (rows, heads, places, head_dim)."""
        rows, heads, _, width = k.shape
        _keep[(rows, heads)](
            k, v, keys, values, positions, *k.stride()[:2], *v.stride()[:2], *keys.stride()[:3], *values.stride()[:3],
            width, WIDTH=triton.next_power_of_2(width), OVERLAP=self.overlap, num_warps=1, **self._launch,
        )  # fmt: skip

    def layer_norm(
        self, x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor | None:
        return self._normalized(x, shape, weight, bias, eps, centred=True)

    def rms_norm(self, x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor | None:
        eps = torch.finfo(x.dtype).eps if eps is None else eps
        return self._normalized(x, shape, weight, None, eps, centred=False)

    def _normalized(
        self, x: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float, *, centred: bool
    ) -> Tensor | None:
        if len(shape) != 1 or not _fits(x, shape[0]):
            return None
        out, width = torch.empty_like(x), triton.next_power_of_2(x.size(-1))
        _normalize[(x.numel() // x.size(-1),)](
            x, x if weight is None else weight, x if bias is None else bias, out, x.size(-1), eps,
            K=width, CENTRED=centred, WEIGHT=weight is not None, BIAS=bias is not None, OVERLAP=self.overlap,
            num_warps=4 if width <= 4096 else 8, **self._launch,
        )  # fmt: skip
        return out

    def gelu(self, x: Tensor, approximate: str = "none") -> Tensor | None:
        return self._pointwise(x, x, GELU_TANH if approximate == "tanh" else GELU)

    def silu(self, x: Tensor, inplace: bool = False) -> Tensor | None:
        return self._pointwise(x, x, SILU)

    def add(self, x: Any, y: Any) -> Tensor | None:
        return self._pointwise(x, y, ADD) if _alike(x, y) else None

    def multiply(self, x: Any, y: Any) -> Tensor | None:
        return self._pointwise(x, y, MULTIPLY) if _alike(x, y) else None

    def _pointwise(self, x: Tensor, y: Tensor, kind: int) -> Tensor | None:
        if not _fits(x, x.size(-1)):
            return None
        out, block = torch.empty_like(x), 512
        _pointwise[(triton.cdiv(x.numel(), block),)](
            x, y, out, x.numel(), KIND=kind, BLOCK=block, OVERLAP=self.overlap, num_warps=2, **self._launch
        )
        return out


def _fits(x: Tensor, width: int) -> bool:
    """Whether these are vectors of one token each, of numbers with a fraction, that a program can hold."""
    few = x.ndim == 3 and x.size(1) == 1 and x.is_contiguous() and x.size(-1) == width
    return few and width <= WIDEST and x.dtype in (torch.bfloat16, torch.float16, torch.float32)


def _alike(x: Any, y: Any) -> bool:
    both = isinstance(x, Tensor) and isinstance(y, Tensor)
    return both and x.shape == y.shape and x.dtype == y.dtype and x.ndim == 3 and y.is_contiguous()


_FUNCTIONS = {
    F.linear: GpuKernels.linear,
    F.scaled_dot_product_attention: GpuKernels.attention,
    F.layer_norm: GpuKernels.layer_norm,
    F.rms_norm: GpuKernels.rms_norm,
    F.gelu: GpuKernels.gelu,
    F.silu: GpuKernels.silu,
    Tensor.add: GpuKernels.add,
    Tensor.mul: GpuKernels.multiply,
}
