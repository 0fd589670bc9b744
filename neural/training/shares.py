"""A batch among the threads of a CPU: each takes some of its sequences through the model.

Small products, norms and activations do not fill several cores, and each of them ends with a wait for the slowest.
Where a thread has sequences of its own, there is one wait a batch: that of adding the gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from neural.planning.memory import PARAMETERS, THREADS
from neural.training.cpu_kernels import CpuKernels
from neural.training.distributed.parallel import Parallel
from neural.training.loss import Batch

FEW = 2**22  # parameters that one core updates sooner than several have met


class Shares(Parallel):
    """One process whose `count` threads have their own sequences. The same bits every time."""

    def __init__(self, model: nn.Module, count: int) -> None:
        super().__init__(model)
        self.count, self.cores = count, torch.get_num_threads()
        self.threads = ThreadPoolExecutor(count, thread_name_prefix="share")
        few = sum(p.numel() for p in self._parameters()) <= FEW
        self.updating = 1 if few else self.cores  # cores that work on the norm and the update

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """A small model's update is some hundred small operations. After each of them OpenMP's threads would wait for
        each other, and after the last they would still spin on the cores where the next step's shares begin.
        """
        self._set_cores(self.updating)
        try:
            yield
        finally:
            self._set_cores(self.cores)

    def gradient(self, batch: Batch, share: float) -> torch.Tensor:
        kernels = self.kernels(batch, self.count)
        parts = list(zip(*(tensor.tensor_split(self.count) for tensor in batch), kernels, strict=True))
        before = torch.get_num_threads()
        self._set_cores(self.cores // self.count)
        try:
            found = list(self.threads.map(lambda part: self._gradients(*part, share / len(batch[0])), parts))
        finally:
            self._set_cores(before)
        parts = list(zip(self._parameters(), *(gradients for _, gradients in found), strict=True))
        list(self.threads.map(_add, (parts[i :: self.count] for i in range(self.count))))
        return torch.stack([loss for loss, _ in found]).sum() / share

    def _gradients(
        self, inputs: torch.Tensor, targets: torch.Tensor, kernels: CpuKernels | None, each: float
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Of some sequences, each of which counts `each`: their part of the loss, and its gradient."""
        self._set_cores(self.cores // self.count)
        loss = self.forward(inputs, targets, each * len(inputs), kernels)
        return loss.detach(), torch.autograd.grad(loss, self._parameters())

    def _set_cores(self, cores: int) -> None:
        """How many cores an operation takes: OpenMP has a number for each thread, MKL one for all."""
        torch.set_num_threads(max(1, cores))

    def _parameters(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]


def _add(parts: list[tuple[torch.Tensor, ...]]) -> None:
    """The sums of some parameters' gradients, to what they have."""
    for parameter, whole, *others in parts:
        for other in others:
            whole += other
        parameter.grad = whole if parameter.grad is None else parameter.grad.add_(whole)


def alone(model: nn.Module, batch_size: int) -> Parallel:
    """How one process trains a model best on its device."""
    small = sum(p.numel() for p in model.parameters()) <= PARAMETERS
    independent = not any(isinstance(m, _BatchNorm) for m in model.modules())
    count = min(torch.get_num_threads(), THREADS, batch_size)
    on_cpu = next(model.parameters()).device.type == "cpu"
    return Shares(model, count) if on_cpu and small and independent and count > 1 else Parallel(model)
