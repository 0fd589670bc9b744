"""One optimizer step: gradients accumulated over micro-batches, clipped, checked, applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from neural.training.distributed.parallel import Parallel
from neural.training.loss import Batch
from neural.training.precision import LossScale
from neural.training.randomness import RandomState


@dataclass(frozen=True, slots=True)
class StepResult:
    """Loss in nats a token, before the step; the gradient's global 2-norm, before clipping."""

    loss: float
    gradient_norm: float
    spike: bool = False  # far above the steps before it
    applied: bool = True

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


class NonFiniteStep(Exception):
    """The loss or the gradient is not a number; the step was not applied."""

    def __init__(self, result: StepResult, losses: list[float]) -> None:
        super().__init__(str(result))
        self.result = result
        self.losses = losses  # of each micro-batch


def accumulate_gradients(parallel: Parallel, batches: Sequence[Batch], factor: float = 1.0) -> torch.Tensor:
    """Add to `.grad` `factor` times the gradient of the mean loss over all batches, which are of one size.

    Losses (len(batches),), without the factor.
    """
    losses = []
    for i, batch in enumerate(batches, 1):
        with parallel.talking(i == len(batches)):
            losses.append(parallel.gradient(batch, factor / len(batches)))
    return torch.stack(losses)


def make_gradients(
    parallel: Parallel, batches: Sequence[Batch], scale: LossScale | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the gradient of the mean loss into `.grad`: losses (len(batches),), and its norm.

    Where it overflows in float16 it is made again, with the same random numbers, at half the scale.
    """
    device = batches[0][0].device
    randomness = RandomState.capture(device) if scale else None
    while True:
        parallel.model.zero_grad(set_to_none=True)
        losses = accumulate_gradients(parallel, batches, scale.value if scale else 1.0)
        if scale:
            parallel.multiply(1 / scale.value)
        norm = parallel.norm()
        if scale is None or not scale.overflowed(norm):
            return losses, norm
        randomness.restore(device)


def optimizer_step(
    parallel: Parallel,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    *,
    rate: float,
    clip: float | None,
    is_spike: Callable[[float, float], bool] = lambda _loss, _norm: False,
    skip_spikes: bool = False,
    scale: LossScale | None = None,
) -> StepResult:
    """One step at learning rate `rate` over this process's `batches`, the gradient's norm clipped to `clip`.

    `is_spike(loss, gradient_norm)` is asked before the step is applied; with `skip_spikes` it then is not.
    NonFiniteStep, with weights and moments untouched, if the loss or the norm is infinite or not a number.
    Clipping: Pascanu et al. 2013.
    """
    with parallel.stepping():
        losses, norm = make_gradients(parallel, batches, scale)
        numbers = torch.stack([parallel.mean(losses.mean()), norm]).tolist()  # the step's one wait for the device
        result = StepResult(*numbers)
        if not result.finite:
            raise NonFiniteStep(result, losses.tolist())
        spike = is_spike(*numbers)
        applied = not (spike and skip_spikes)
        if applied:
            apply(parallel, optimizer, norm, rate, clip)
    return replace(result, spike=spike, applied=applied)


def apply(
    parallel: Parallel, optimizer: torch.optim.Optimizer, norm: torch.Tensor, rate: float, clip: float | None
) -> None:
    """Clip the gradient, whose norm is given, and move the weights."""
    if clip is not None:
        parallel.clip(clip, norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
