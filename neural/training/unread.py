"""Steps whose numbers the device has and the program has not read: a GPU is not waited for between lines of metrics.

A step may be launched before the ones before it were read only if it does nothing where one of them was not finite.
So a flag on the device guards it: once a loss or a norm is not finite, torch's fused kernel leaves weights, moments and
counters as they are, in that step and in all after it, until the program comes to read what happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from neural.graph.settings import Train
from neural.training.distributed.parallel import Parallel
from neural.training.loss import Batch
from neural.training.precision import FP16
from neural.training.randomness import RandomState
from neural.training.step import apply, make_gradients

APART = frozenset({"cuda"})  # devices that compute while the program goes on
MOST = 100  # steps that are not read
PATIENCE = 1.0  # seconds, where no other process has to read at the same step


def can_wait(parallel: Parallel, optimizer: torch.optim.Optimizer, train: Train, device: torch.device) -> bool:
    """Whether steps can be read later. They are read one by one

    - with an optimizer that does not look at a flag on the device: all but torch's fused AdamW, Adam and SGD,
    - where spikes are skipped, and in float16: what a step does hangs on its own loss and norm,
    - with batch normalization, whose means move with each forward pass,
    - on a CPU, which nobody waits for.
    """
    guarded = getattr(optimizer, "_step_supports_amp_scaling", False)  # torch's mark of those that look at `found_inf`
    moving = any(isinstance(module, _BatchNorm) for module in parallel.model.modules())
    asked = train.skip_spikes or parallel.loss.precision == FP16
    return device.type in APART and guarded and not (asked or moving)


class Launched(NamedTuple):
    """A step: counters and generators before it; loss, gradient norm and each micro-batch's loss, on the device."""

    step: int
    cursor: int
    randomness: RandomState
    numbers: torch.Tensor  # (2 + micro-batches,)


class Unread:
    """The steps of one optimizer that are not read."""

    def __init__(self, parallel: Parallel, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.parallel, self.optimizer = parallel, optimizer
        self.stopped = torch.zeros((), device=device)  # 1 since a step that was not finite
        optimizer.found_inf = self.stopped
        self.steps: list[Launched] = []
        self.read_at = time.monotonic()

    def must_be_read(self) -> bool:
        patience = PATIENCE if self.parallel.world.size == 1 else math.inf
        return len(self.steps) >= MOST or time.monotonic() - self.read_at > patience

    def launch(
        self, batches: Sequence[Batch], counters: tuple[int, int, RandomState], *, rate: float, clip: float | None
    ) -> None:
        """A step as `optimizer_step` does it. counters: what comes first in `Launched`."""
        with self.parallel.stepping():
            losses, norm = make_gradients(self.parallel, batches, None)
            numbers = torch.cat([torch.stack([self.parallel.mean(losses.mean()), norm]), losses])
            self.stopped.masked_fill_(~numbers[:2].isfinite().all(), 1.0)
            apply(self.parallel, self.optimizer, norm, rate, clip)
        self.steps.append(Launched(*counters, numbers))

    def read(self) -> list[tuple[Launched, list[float]]]:
        """The steps since the last time, with their numbers: the one wait for the device."""
        steps, self.steps, self.read_at = self.steps, [], time.monotonic()
        numbers = torch.stack([launched.numbers for launched in steps]).tolist() if steps else []
        return list(zip(steps, numbers, strict=True))
