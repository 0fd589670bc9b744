"""What a CPU does better than torch's own functions: dropout, causal attention, and products of matrices.

PyTorch draws each element of a mask from a serial generator, leaves its fused attention where weights are dropped, and
is slow with it where none are: 3 times what the same products take by themselves. Here 16 random bits decide about an
element, so that a rate is met to 1/131072 and what stays is scaled by exactly the inverse of its share; no mask is
stored; and attention weights never leave the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, _get_current_function_mode
from torch.utils.checkpoint import checkpoint

from neural.training import cpu_library, cpu_products
from neural.training.allocation import give_back
from neural.training.cpu_library import Dropping
from neural.training.loss import Batch

HANDLED = (torch.float32, torch.bfloat16)
ONE_AT_A_TIME = Lock()


class CpuKernels(TorchFunctionMode):
    """While it is entered, F.dropout, F.scaled_dot_product_attention and F.linear on the CPU are done here.

    Generated source stays what it is: it calls torch's functions, and torch hands the calls over. What is dropped
    follows from `seed` and the order of the calls.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = np.random.Generator(np.random.SFC64(seed))

    def __torch_function__(self, function: Any, types: Any, given: tuple = (), named: dict[str, Any] | None = None):
        named = named or {}
        if function is F.dropout and (call := _dropout_call(*given, **named)):
            x, rate = call
            return Dropped.apply(x, self.dropping(rate))
        if function is F.scaled_dot_product_attention and (call := _attention_call(*given, **named)):
            q, k, v, rate, scale = call
            return CausalAttention.apply(q, k, v, scale, self.dropping(rate))
        if function is F.linear and cpu_products.takes(*given[:2]):
            return cpu_products.Linear.apply(*given, *[None] * (3 - len(given)))
        if _drops(function, given, named):
            return self.drawn_by_torch(function, given, named)
        return function(*given, **named)

    def drawn_by_torch(self, function: Any, given: tuple, named: dict[str, Any]) -> torch.Tensor:
        """Threads would take torch's one generator in any order: each draw has a seed from its own thread's."""
        with ONE_AT_A_TIME:
            before = torch.get_rng_state()
            torch.default_generator.manual_seed(int(self.random.integers(2**63)))
            try:
                return function(*given, **named)
            finally:
                torch.set_rng_state(before)

    def dropping(self, rate: float) -> Dropping:
        return Dropping(int(self.random.integers(2**64, dtype=np.uint64)) if rate else 0, _threshold(rate))


def _drops(function: Any, given: tuple, named: dict[str, Any]) -> bool:
    """Whether it is one that may drop something, and is to."""
    place = {F.dropout: ("p", 1, 0.5), F.scaled_dot_product_attention: ("dropout_p", 4, 0.0)}.get(function)
    if place is None:
        return False
    name, position, default = place
    return named.get(name, given[position] if len(given) > position else default) > 0


def _threshold(rate: float) -> int:
    """The share that is dropped, in units of what 16 bits can say."""
    return round(rate * 65536)


def _is_ours(*tensors: torch.Tensor, rate: float) -> bool:
    """Whether what is dropped at that rate of such tensors is said by 16 bits, on a CPU with the library."""
    plain = all(type(x) is torch.Tensor and x.dtype in HANDLED and x.device.type == "cpu" for x in tensors)
    return plain and _threshold(rate) < 65536 and cpu_library.library() is not None


def _dropout_call(
    x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> tuple[torch.Tensor, float] | None:
    """What F.dropout was given, where this module does it."""
    return (x, p) if training and not inplace and p > 0 and _is_ours(x, rate=p) else None


def _attention_call(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float, float] | None:
    """What F.scaled_dot_product_attention was given, where this module does it: queries, keys and values in the
    precision of products, rate and scale."""
    if not is_causal or attn_mask is not None or q.dim() != 4 or not _is_ours(q, k, v, rate=dropout_p):
        return None
    if not q.numel() or q.shape[2:] != k.shape[2:] or k.shape != v.shape or not (enable_gqa or q.size(1) == k.size(1)):
        return None
    if torch.is_autocast_enabled("cpu"):
        q, k, v = (x.to(torch.get_autocast_dtype("cpu")) for x in (q, k, v))
    return q, k, v, dropout_p, q.size(-1) ** -0.5 if scale is None else scale


class Dropped(torch.autograd.Function):
    """x with dropout."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dropping: Dropping) -> torch.Tensor:
        ctx.dropping = dropping
        return cpu_library.drop(x, dropping)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None]:
        return cpu_library.drop(slope, ctx.dropping), None


class CausalAttention(torch.autograd.Function):
    """softmax(scale · q · kᵀ) · v of the keys up to each query, with dropout on the weights; computed in float32.

    q (B, H, T, head_dim), k and v (B, kv heads, T, head_dim) → (B, H, T, head_dim).
    """

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, dropping: Dropping
    ) -> torch.Tensor:
        out, logs = cpu_library.attend(*_rows(q, k, v), scale, dropping)
        out = out.to(q.dtype)
        ctx.how = scale, dropping
        ctx.save_for_backward(q, k, v, out, logs)
        return out

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *given, out, logs = ctx.saved_tensors
        *floats, out_float, slope = _rows(*given, out, slope)
        slopes = cpu_library.attend_backward(tuple(floats), out_float, logs, slope, *ctx.how)
        return *(s.to(out.dtype) for s in slopes), None, None


def _rows(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """In float32, the numbers of a row side by side."""
    floats = (x.float() for x in tensors)
    return [x if x.stride(-1) == 1 else x.contiguous() for x in floats]


def cpu_kernels(model: nn.Module, batch: Batch, threads: int = 1) -> list[CpuKernels | None]:
    """For each thread that takes a part of the batch; None where torch must do it.

    Seeded by torch's own generator, whose state a checkpoint holds.
    """
    inputs, _ = batch
    if inputs.device.type != "cpu":
        return [None] * threads
    source = type(model).forward.__globals__
    if source.get(checkpoint.__name__) is checkpoint:
        source[checkpoint.__name__] = checkpoint_by_kernels
    return [CpuKernels(int(torch.randint(2**63 - 1, ()))) for _ in range(threads)]


@contextmanager
def _again(kernels: CpuKernels) -> Iterator[None]:
    """What a block is computed again in. What the passes before have left free goes first: it would come on top."""
    give_back()
    with kernels:
        yield


def checkpoint_by_kernels(block: nn.Module, *given: object, use_reentrant: bool) -> torch.Tensor:
    """torch's `checkpoint` for generated source: kernels compute again what they computed, and drop as before.

    torch leaves function modes before it computes again, and sees to its own generator only, one for all threads.
    """
    kernels = _get_current_function_mode()
    how: dict[str, Any] = {"use_reentrant": use_reentrant}
    if isinstance(kernels, CpuKernels):
        both = nullcontext(), _again(deepcopy(kernels))
        how |= {"preserve_rng_state": False, "context_fn": lambda: both}
    return checkpoint(block, *given, **how)
