"""A batch among the threads of a CPU: each takes some of its sequences through the model.

Small products, norms and activations do not fill several cores, and each of them ends with a wait for the slowest.
Where a thread has sequences of its own, there is one wait a batch: that of adding the gradients.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import torch
from torch import nn

from neural.training.loss import Batch, TrainingLoss

THREADS = 4  # at most; more would mostly wait for Python
PARAMETERS = 2**25  # at most, as each thread has a gradient of its own: 128 MiB


class Shares:
    """The gradient of a batch by `count` threads, the same bits every time."""

    def __init__(self, loss: TrainingLoss, count: int) -> None:
        self.loss, self.count = loss, count
        self.cores = torch.get_num_threads()
        self.threads = ThreadPoolExecutor(count, thread_name_prefix="share")

    def gradient(self, batch: Batch, share: float, dropouts: list[AbstractContextManager | None]) -> torch.Tensor:
        """Add to `.grad` the gradient of `share` of the mean loss; that mean: scalar. A dropout for each thread."""
        torch.set_num_threads(max(1, self.cores // self.count))
        try:
            parts = list(zip(*(tensor.tensor_split(self.count) for tensor in batch), dropouts, strict=True))
            found = list(self.threads.map(lambda part: self._gradients(*part, share / len(batch[0])), parts))
        finally:
            torch.set_num_threads(self.cores)
        for parameter, *gradients in zip(self._parameters(), *(g for _, g in found), strict=True):
            whole = gradients[0]
            for other in gradients[1:]:
                whole += other
            parameter.grad = whole if parameter.grad is None else parameter.grad.add_(whole)
        return torch.stack([loss for loss, _ in found]).sum() / share

    def _gradients(
        self, inputs: torch.Tensor, targets: torch.Tensor, dropout: AbstractContextManager | None, each: float
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """The part of the loss of some sequences, which count `each`, and its gradient."""
        torch.set_num_threads(max(1, self.cores // self.count))  # OpenMP has a number for each thread
        loss = self.loss(inputs, targets, each * len(inputs), dropout)
        return loss.detach(), torch.autograd.grad(loss, self._parameters())

    def _parameters(self) -> list[nn.Parameter]:
        return [p for p in self.loss.model.parameters() if p.requires_grad]


def shares_of(model: nn.Module, batch_size: int) -> int:
    """How many threads train a model together best; 1: torch's own way, each operation on all cores."""
    first = next(model.parameters())
    small = sum(p.numel() for p in model.parameters()) <= PARAMETERS
    return min(torch.get_num_threads(), THREADS, batch_size) if first.device.type == "cpu" and small else 1
