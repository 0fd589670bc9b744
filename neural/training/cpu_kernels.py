"""What a CPU does better than torch's own functions: dropout, and causal attention.

PyTorch draws each element of a mask from a serial generator, and leaves its fused attention where weights are dropped:
together more than a third of a small GPT's step. Here 16 random bits decide about an element, so that a rate is met to
1/131072 and what stays is scaled by exactly the inverse of its share; and attention weights never leave the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from neural.planning.sizes import QUERIES  # their weights, (heads, QUERIES, T), stay in a core's cache
from neural.training import cpu_products
from neural.training.loss import Batch

HANDLED = (torch.float32, torch.bfloat16)  # queries, keys and values


class CpuKernels(TorchFunctionMode):
    """While it is entered, F.dropout and F.scaled_dot_product_attention of float tensors on the CPU are done here.

    Generated source stays what it is: it calls torch's functions, and torch hands the calls over. The masks follow
    from `seed` and the order of the calls.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = np.random.Generator(np.random.SFC64(seed))

    def __torch_function__(self, function: Any, types: Any, given: tuple = (), named: dict[str, Any] | None = None):
        named = named or {}
        if function is F.dropout and (call := _dropout_call(*given, **named)):
            x, rate = call
            return x * 0.0 if _kept(rate) == 0 else Dropped.apply(x, self.mask(x.shape, rate), 1 / _kept(rate))
        if function is F.scaled_dot_product_attention and (call := _attention_call(*given, **named)):
            q, k, v, rate, scale = call
            return CausalAttention.apply(q.float() * scale, k, v, rate, self)
        if function is F.linear and cpu_products.takes(*given[:2]):
            return cpu_products.Linear.apply(*given, *[None] * (3 - len(given)))
        return function(*given, **named)

    def mask(self, shape: torch.Size, rate: float) -> torch.Tensor:
        """uint8, 1 where an element stays."""
        count = shape.numel()
        bits = self.random.integers(0, 2**64, -(-count // 4), dtype=np.uint64).view(np.uint16)[:count]
        stays = torch.empty(shape, dtype=torch.uint8)
        np.greater_equal(bits, np.uint16(65536 - round(_kept(rate) * 65536)), out=stays.view(-1).numpy().view(np.bool_))
        return stays


def _kept(rate: float) -> float:
    """The share that stays, in units of what 16 bits can say."""
    return round((1 - rate) * 65536) / 65536


def _dropout_call(
    x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> tuple[torch.Tensor, float] | None:
    """What F.dropout was given, where this module does it."""
    ours = training and not inplace and p > 0 and type(x) is torch.Tensor and x.device.type == "cpu"
    return (x, p) if ours and x.is_floating_point() else None


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
    """What F.scaled_dot_product_attention was given, where this module does it: queries, keys and values of as many
    heads, rate and scale."""
    plain = all(type(x) is torch.Tensor and x.dtype in HANDLED and x.device.type == "cpu" for x in (q, k, v))
    if not plain or not is_causal or attn_mask is not None or q.dim() != 4:
        return None
    if q.shape[2:] != k.shape[2:] or k.shape != v.shape:
        return None
    if not 0 < dropout_p < 1:
        return None
    if enable_gqa:
        k, v = (x.repeat_interleave(q.size(1) // x.size(1), dim=1) for x in (k, v))
    return q, k, v, dropout_p, q.size(-1) ** -0.5 if scale is None else scale


class Dropped(torch.autograd.Function):
    """x · mask · scale."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return torch.mul(x, mask).mul_(scale)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return torch.mul(slope, mask).mul_(ctx.scale), None, None


class CausalAttention(torch.autograd.Function):
    """softmax(q · kᵀ) · v of the keys up to each query, with dropout on the weights; q is scaled already.

    q, k, v (B, H, T, head_dim) → (B, H, T, head_dim). The queries go in groups of 64 of one sequence, whose weights for
    the keys up to them stay in the cache and are made again for the backward pass (Dao et al. 2022). Under autocast all
    of it is float32, as softmax is.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rate: float, kernels: CpuKernels
    ) -> torch.Tensor:
        B, H, T, width = q.shape
        y = q.new_empty(B, T, H, width).transpose(1, 2)  # as the caller will want it: heads side by side
        hidden = _hidden(q)
        masks = []
        for b in range(B):
            for first, last in _groups(T):
                weights = _weights(q[b], k[b], first, last, hidden)
                if rate:
                    masks.append(kernels.mask(weights.shape, rate))
                    weights.mul_(masks[-1])
                y[b, :, first:last] = weights @ v[b, :, :last]
        ctx.scale = 1 / _kept(rate)
        ctx.save_for_backward(q, k, v, *masks)
        return y.mul_(ctx.scale) if rate else y

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, *masks = ctx.saved_tensors
        B, H, T, width = q.shape
        slope = slope * ctx.scale if masks else slope
        for_q, for_k, for_v = q.new_zeros(3, B, T, H, width).transpose(2, 3)
        hidden, coming = _hidden(q), iter(masks)
        for b in range(B):
            of_k, of_v = q.new_zeros(2, H, T, width)
            for first, last in _groups(T):
                weights = _weights(q[b], k[b], first, last, hidden)
                of_weights = slope[b, :, first:last] @ v[b, :, :last].mT
                dropped = weights
                if masks:
                    mask = next(coming)
                    of_weights.mul_(mask)
                    dropped = weights * mask
                of_v[:, :last].baddbmm_(dropped.mT, slope[b, :, first:last])
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
                for_q[b, :, first:last] = of_scores @ k[b, :, :last]
                of_k[:, :last].baddbmm_(of_scores.mT, q[b, :, first:last])
            for_k[b], for_v[b] = of_k, of_v
        return for_q, for_k, for_v, None, None


def _groups(length: int) -> list[tuple[int, int]]:
    return [(first, min(first + QUERIES, length)) for first in range(0, length, QUERIES)]


def _hidden(q: torch.Tensor) -> torch.Tensor:
    """What to add to the scores of a group of queries and the last keys of its length, which stand beside them."""
    size = min(QUERIES, q.size(2))
    return q.new_full((size, size), -torch.inf).triu_(1)


def _weights(q: torch.Tensor, k: torch.Tensor, first: int, last: int, hidden: torch.Tensor) -> torch.Tensor:
    """Of the queries from `first` to `last` of one sequence: (H, last - first, last)."""
    scores = q[:, first:last] @ k[:, :last].mT
    scores[:, :, first:] += hidden[: last - first, : last - first]
    return scores.softmax(-1)


def cpu_kernels(model: nn.Module, batch: Batch, threads: int = 1) -> list[CpuKernels | None]:
    """For each thread that takes a part of the batch; None where torch does as well or must do it.

    Seeded by torch's own generator, whose state a checkpoint holds. What is computed again in the backward pass must be
    dropped as before, which torch sees to for its own generator only.
    """
    inputs, _ = batch
    ours = inputs.device.type == "cpu" and not recomputes(model) and (has_dropout(model) or has_wide_products(model))
    return [CpuKernels(int(torch.randint(2**63 - 1, ()))) if ours else None for _ in range(threads)]


def recomputes(model: nn.Module) -> bool:
    """Whether the model's source has blocks that keep no activations."""
    return "checkpointed" in getattr(type(model).forward, "__globals__", {})


def has_wide_products(model: nn.Module) -> bool:
    """Whether any of its products is one for `cpu_products`."""
    return cpu_products.onednn_is_faster() and any(
        isinstance(m, nn.Linear) and m.weight.numel() >= cpu_products.WEIGHTS for m in model.modules()
    )


def has_dropout(model: nn.Module) -> bool:
    """Whether anything is dropped while the model trains."""
    rates = (getattr(m, name, 0.0) for m in model.modules() for name in ("p", "attention_dropout"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)
