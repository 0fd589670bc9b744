"""Functions of torch, called on the next token of each text on a GPU, done by the kernels of `gpu_kernels`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from neural.generation import gpu_kernels as kernels
from neural.generation.gpu_kernels import ADD, GELU, GELU_TANH, LAYER, MULTIPLY, RMS, SILU

WIDEST = 16384  # of vectors that a kernel holds whole
HOPPER = (9, 0)
HELD = 8192  # numbers of a weight that a program holds
RESIDENT = 4  # programs of a product that a processor of the GPU has at a time
MOST_TIMES = 4
KEYS = 16384  # numbers of keys, and of values, that a program of attention holds


@dataclass(frozen=True, slots=True)
class Norm:
    """Of x (…, k), by kind: RMS or LAYER."""

    x: Tensor
    gain: Tensor | None
    offset: Tensor | None
    epsilon: float
    kind: int


@dataclass(frozen=True, slots=True)
class Product:
    """weight (n, k) · x (1, 1, k) + bias, where x may be what a norm gives."""

    x: Tensor
    norm: Norm | None
    weight: Tensor
    bias: Tensor | None


@dataclass(slots=True)
class Pending:
    """What is still to be computed into tensors that the program has, each as long as it has it."""

    works: dict[int, tuple[weakref.ref[Tensor], Norm | Product]] = field(default_factory=dict)

    def add(self, out: Tensor, work: Norm | Product) -> Tensor:
        key = id(out)
        self.works[key] = weakref.ref(out, lambda _: self.works.pop(key, None)), work
        return out

    def of(self, x: Any) -> Norm | Product | None:
        return self.works[id(x)][1] if id(x) in self.works else None

    def taken(self, x: Tensor) -> Norm | Product | None:
        return self.works.pop(id(x))[1] if id(x) in self.works else None

    def tensors(self) -> list[Tensor]:
        return [x for out, _ in list(self.works.values()) if (x := out()) is not None]


class GpuFunctions(TorchFunctionMode):
    """While it is entered, torch's functions of few vectors are done by kernels; others are as they were.

    A norm, or a product of one vector, waits for the function that reads it: a product computes the norm of its input
    itself, and an activation or a sum of a product is computed with it. Any other reader, and the end, has it computed
    as it stands. overlap: whether the GPU starts kernels before those ahead of them are done, from Hopper on.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.overlap = device.type == "cuda" and torch.cuda.get_device_capability(device) >= HOPPER
        self._launch = {"launch_pdl": True} if self.overlap else {}
        gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
        self._processors = gpu.multi_processor_count if gpu else 1
        self._pending = Pending()
        self._kept: tuple[Tensor, ...] | None = None  # k, v, keys, values, positions: to be stored

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._settle(self._pending.tensors())

    def __torch_function__(self, function: Any, types: Any, given: tuple = (), named: dict[str, Any] | None = None):
        named = named or {}
        if (own := _FUNCTIONS.get(function)) and (done := own(self, *given, **named)) is not None:
            return done
        if function in _OF_SHAPE:
            return function(*given, **named)
        writes = "out" in named or function.__name__.endswith("_") or function.__name__.startswith("__i")
        self._settle(self._pending.tensors() if writes else _tensors((given, named)))
        return function(*given, **named)

    def _settle(self, tensors: Any) -> None:
        """Compute those of them that wait, and store what is to be kept."""
        for x in tensors:
            work = self._pending.taken(x)
            if isinstance(work, Norm):
                self._normalized(work, x)
            elif work:
                self._multiplied(work, x)
        if self._kept:
            self._store()

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        if x.numel() != x.size(-1) or not _fits(x, weight.size(-1)) or not weight.is_contiguous():
            return None
        norm = work if isinstance(work := self._pending.of(x), Norm) else None
        if norm is None:
            self._settle([x])
        out = x.new_empty(*x.shape[:-1], len(weight))
        return self._pending.add(out, Product(norm.x if norm else x, norm, weight, bias))

    def _multiplied(self, work: Product, out: Tensor, kind: int = 0, other: Tensor | None = None) -> Tensor:
        """Into out: after(the product), by kind."""
        x, norm, (n, k) = work.x, work.norm, work.weight.shape
        gain, offset = (norm.gain, norm.offset) if norm else (None, None)
        width = triton.next_power_of_2(k)
        rows, times, warps = self._tile(n, width)
        kernels.linear[(triton.cdiv(n, rows * times),)](
            x, _or(gain, x), _or(offset, x), norm.epsilon if norm else 0.0, work.weight, _or(work.bias, x),
            _or(other, x), out, n, k,
            N=rows, K=width, TIMES=times, NORM=norm.kind if norm else 0, GAIN=gain is not None,
            OFFSET=offset is not None, BIAS=work.bias is not None, KIND=kind, OVERLAP=self.overlap, num_warps=warps,
            **self._launch,
        )  # fmt: skip
        return out

    def _tile(self, n: int, width: int) -> tuple[int, int, int]:
        """Of a weight of n rows of so many numbers: how many rows a program holds, how often, and in how many warps."""
        rows = max(1, HELD // width)
        times = min(max(1, triton.cdiv(n, rows) // (self._processors * RESIDENT)), MOST_TIMES)
        return rows, times, 4 if width <= 4096 else 8

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor | None:  # fmt: skip
        rows, heads, queries, width = q.shape
        shown = attn_mask is not None and attn_mask.dtype == torch.bool and attn_mask.shape == (rows, 1, 1, k.size(2))
        last = all(t.stride(-1) == 1 for t in (q, k, v)) and shown and attn_mask.stride(-1) == 1
        kept = self._kept and self._kept[2] is k and self._kept[3] is v
        if not kept or queries != 1 or not last or dropout_p or is_causal or v.size(-1) != width:
            return None
        (new_k, new_v, _, _, positions), self._kept = self._kept, None
        self._settle([q, attn_mask])
        out = q.new_empty(rows, 1, heads, width)
        kernels.attend[(rows, heads)](
            q, k, v, attn_mask, new_k, new_v, positions, out, *q.stride()[:2], *k.stride()[:3], *v.stride()[:3],
            attn_mask.stride(0), *new_k.stride()[:2], *new_v.stride()[:2], heads, heads // k.size(1), k.size(2),
            width, width**-0.5 if scale is None else scale,
            BLOCK=KEYS // (held := triton.next_power_of_2(width)), WIDTH=held, OVERLAP=self.overlap, num_warps=8,
            **self._launch,
        )  # fmt: skip
        return out.transpose(1, 2)

    def keep(self, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> None:
        """Store k and v (rows, heads, 1, head_dim) in keys and values (rows, heads, places, head_dim): by the attention
        that reads these, or before the next function that is not done here.
        """
        self._settle([k, v])
        self._kept = k, v, keys, values, positions

    def _store(self) -> None:
        (k, v, keys, values, positions), self._kept = self._kept, None
        rows, heads, _, width = k.shape
        kernels.keep[(rows, heads)](
            k, v, keys, values, positions, *k.stride()[:2], *v.stride()[:2], *keys.stride()[:3], *values.stride()[:3],
            width, WIDTH=triton.next_power_of_2(width), OVERLAP=self.overlap, num_warps=1, **self._launch,
        )  # fmt: skip

    def layer_norm(
        self, x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor | None:
        return self._norm(shape, Norm(x, weight, bias, eps, LAYER))

    def rms_norm(self, x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor | None:
        eps = torch.finfo(x.dtype).eps if eps is None else eps
        return self._norm(shape, Norm(x, weight, None, eps, RMS))

    def _norm(self, shape: Any, norm: Norm) -> Tensor | None:
        if len(shape) != 1 or not _fits(norm.x, shape[0]):
            return None
        self._settle([norm.x])
        return self._pending.add(torch.empty_like(norm.x), norm)

    def _normalized(self, norm: Norm, out: Tensor) -> None:
        x, gain, offset, width = norm.x, norm.gain, norm.offset, triton.next_power_of_2(norm.x.size(-1))
        kernels.normalize[(x.numel() // x.size(-1),)](
            x, _or(gain, x), _or(offset, x), out, x.size(-1), norm.epsilon,
            K=width, NORM=norm.kind, GAIN=gain is not None, OFFSET=offset is not None, OVERLAP=self.overlap,
            num_warps=4 if width <= 4096 else 8, **self._launch,
        )  # fmt: skip

    def gelu(self, x: Tensor, approximate: str = "none") -> Tensor | None:
        return self._pointwise(x, None, GELU_TANH if approximate == "tanh" else GELU)

    def silu(self, x: Tensor, inplace: bool = False) -> Tensor | None:
        return self._pointwise(x, None, SILU)

    def add(self, x: Any, y: Any) -> Tensor | None:
        return self._pointwise(x, y, ADD) if _alike(x, y) else None

    def multiply(self, x: Any, y: Any) -> Tensor | None:
        return self._pointwise(x, y, MULTIPLY) if _alike(x, y) else None

    def _pointwise(self, x: Tensor, y: Tensor | None, kind: int) -> Tensor | None:
        if not _fits(x, x.size(-1)):
            return None
        if y is not None and isinstance(self._pending.of(y), Product):
            x, y = y, x
        self._settle([] if y is None else [y])
        out, work = torch.empty_like(x), self._pending.of(x)
        if isinstance(work, Product):
            return self._multiplied(work, out, kind, y)
        self._settle([x])
        kernels.pointwise[(triton.cdiv(x.numel(), 512),)](
            x, _or(y, x), out, x.numel(), KIND=kind, BLOCK=512, OVERLAP=self.overlap, num_warps=2, **self._launch
        )
        return out

    def dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor | None:
        return None if training else x


def _or(x: Tensor | None, other: Tensor) -> Tensor:
    """For a kernel's argument that it does not read."""
    return other if x is None else x


def _tensors(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, list | tuple | dict):
        for one in given.values() if isinstance(given, dict) else given:
            yield from _tensors(one)


def _fits(x: Tensor, width: int) -> bool:
    """Whether these are vectors of one token each, of numbers with a fraction, that a kernel can hold."""
    few = x.ndim == 3 and x.size(1) == 1 and x.is_contiguous() and x.size(-1) == width
    return few and width <= WIDEST and x.dtype in (torch.bfloat16, torch.float16, torch.float32)


def _alike(x: Any, y: Any) -> bool:
    both = isinstance(x, Tensor) and isinstance(y, Tensor)
    return both and x.shape == y.shape and x.dtype == y.dtype and x.ndim == 3 and y.is_contiguous()


_OF_SHAPE = {Tensor.size, Tensor.dim, Tensor.shape.__get__, Tensor.dtype.__get__, Tensor.device.__get__}
_FUNCTIONS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {
    F.linear: GpuFunctions.linear,
    F.scaled_dot_product_attention: GpuFunctions.attention,
    F.layer_norm: GpuFunctions.layer_norm,
    F.rms_norm: GpuFunctions.rms_norm,
    F.gelu: GpuFunctions.gelu,
    F.silu: GpuFunctions.silu,
    F.dropout: GpuFunctions.dropout,
    Tensor.add: GpuFunctions.add,
    Tensor.mul: GpuFunctions.multiply,
}
