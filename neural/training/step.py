"""One optimizer step: gradients accumulated over micro-batches, clipped, checked, applied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from neural.training.distributed.parallel import Parallel
from neural.training.loss import Batch


@dataclass(frozen=True, slots=True)
class StepResult:
    """Loss in nats a token, before the step; the gradient's global 2-norm, before clipping."""

    loss: float
    gradient_norm: float
    spike: bool = False  # far above the steps before it
    applied: bool = True


class NonFiniteStep(Exception):
    """The loss or the gradient is not a number; the step was not applied."""

    def __init__(self, result: StepResult, losses: list[float]) -> None:
        super().__init__(str(result))
        self.result = result
        self.losses = losses  # of each micro-batch


def accumulate_gradients(parallel: Parallel, batches: Sequence[Batch]) -> torch.Tensor:
    """Add to `.grad` the gradient of the mean loss over all batches, which are of one size. Losses (len(batches),)."""
    losses = []
    for i, batch in enumerate(batches, 1):
        with parallel.talking(i == len(batches)):
            losses.append(parallel.gradient(batch, 1 / len(batches)))
    return torch.stack(losses)


def optimizer_step(
    parallel: Parallel,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    *,
    rate: float,
    clip: float | None,
    is_spike: Callable[[float, float], bool] = lambda _loss, _norm: False,
    skip_spikes: bool = False,
) -> StepResult:
    """One step at learning rate `rate` over this process's `batches`, the gradient's norm clipped to `clip`.

    `is_spike(loss, gradient_norm)` is asked before the step is applied; with `skip_spikes` it then is not.
    NonFiniteStep, with weights and moments untouched, if the loss or the norm is infinite or not a number.
    Clipping: Pascanu et al. 2013.
    """
    with parallel.stepping():
        optimizer.zero_grad(set_to_none=True)
        losses = accumulate_gradients(parallel, batches)
        norm = parallel.norm()
        if clip is not None:
            parallel.clip(clip, norm)
        loss, gradient_norm = torch.stack(
            [parallel.mean(losses.mean()), norm]
        ).tolist()  # the step's one wait for the device
        result = StepResult(loss, gradient_norm)
        if not (torch.tensor([loss, gradient_norm]).isfinite().all()):
            raise NonFiniteStep(result, losses.tolist())
        spike = is_spike(loss, gradient_norm)
        if not (spike and skip_spikes):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
    return replace(result, spike=spike, applied=not (spike and skip_spikes))
