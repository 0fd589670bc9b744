"""How several processes train one model: what each of them holds, and when they talk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from neural.training.cpu_kernels import CpuKernels, cpu_kernels
from neural.training.distributed.world import ALONE, World
from neural.training.loss import Batch, TrainingLoss
from neural.training.tensor_file import Piece

T = TypeVar("T")


class Parallel:
    """One process with the whole model: what the others differ from.

    model: holds the parameters. loss: what a training step computes. forward: what it calls, `loss` or around it.
    """

    in_parts = False  # whether a process holds parts of the weights

    def __init__(self, model: nn.Module, world: World = ALONE) -> None:
        self.model, self.world = model, world
        self.loss = TrainingLoss(model)
        self.forward: nn.Module = self.loss

    @property
    def data_rank(self) -> int:
        """Which share of each step's sequences this process takes, of `data_size`."""
        return self.world.rank

    @property
    def data_size(self) -> int:
        return self.world.size

    @property
    def stream(self) -> int:
        """Which stream of random numbers this process draws from, of `streams`."""
        return self.data_rank

    @property
    def streams(self) -> int:
        return self.data_size

    def gradient(self, batch: Batch, share: float) -> torch.Tensor:
        """Add to `.grad` the gradient of `share` of the batch's mean loss; that mean: scalar."""
        (kernels,) = self.kernels(batch)
        loss = self.forward(*batch, share, kernels)
        loss.backward()
        return loss.detach() / share

    def kernels(self, batch: Batch, threads: int = 1) -> Sequence[CpuKernels | None]:
        """What each thread that takes a part of the batch has in place of torch's functions."""
        return [None] * threads if self.loss.compiled else cpu_kernels(self.model, batch, threads)

    def stepping(self) -> AbstractContextManager:
        """Around all of an optimizer step."""
        return nullcontext()

    def talking(self, now: bool) -> AbstractContextManager:
        """Around a forward and backward pass: whether gradients are exchanged in it. Once a step suffices."""
        return nullcontext()

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean over the shares of the data: scalar."""
        return self.sum(value.clone()) / self.data_size

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over the shares of the data, in place."""
        return tensor

    def dealt(self, items: Iterable[T]) -> Iterator[tuple[T, bool]]:
        """This share's items, as many as every other's, and whether each counts: some come twice to make it even."""
        items = iter(items)
        while group := tuple(islice(items, self.data_size)):
            counts = self.data_rank < len(group)
            yield group[self.data_rank if counts else 0], counts

    def multiply(self, factor: float) -> None:
        """The gradient by a factor, in place."""
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def norm(self) -> torch.Tensor:
        """The 2-norm of the whole gradient: scalar."""
        return torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])

    def clip(self, limit: float, norm: torch.Tensor) -> None:
        if norm.device.type == "cpu" and limit >= norm + 1e-6:  # a GPU would have to be waited for, to know
            return
        torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), limit, norm)

    def whole(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The whole of a weight, or of an optimizer's moment, that is called `name`. All processes call it together."""
        return tensor

    def part(self, name: str, whole: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
        """What this process holds of a moment of `parameter`."""
        return whole

    @property
    def writers(self) -> World | None:
        """The processes that write a checkpoint together, for those who are among them."""
        return ALONE if self.world.leads else None

    def pieces(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, Piece]:
        """What this writer writes of weights or moments. All writers call it; together they have all, nothing twice."""
        return {name: Piece(tensor) for name, tensor in tensors.items()}

    def gathered(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """All of them whole, for the leader; nothing for the others, who must call it too."""
        found = {}
        for name, tensor in tensors.items():
            whole = self.whole(name, tensor)
            if self.world.leads:
                found[name] = whole
        return found


class Replicated(Parallel):
    """Every process holds the model and takes a share of the data (PyTorch's DistributedDataParallel)."""

    def __init__(self, model: nn.Module, world: World) -> None:
        super().__init__(model, world)
        self.forward = DistributedDataParallel(self.forward)

    def talking(self, now: bool) -> AbstractContextManager:
        return nullcontext() if now else self.forward.no_sync()

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.world.sum(tensor)
