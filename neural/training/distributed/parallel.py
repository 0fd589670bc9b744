"""How several processes train one model: what each of them holds, and when they talk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from neural.training.distributed.world import ALONE, World

T = TypeVar("T")


class Parallel:
    """One process with the whole model: what the others differ from.

    model: holds the parameters. forward: what is called in a training step.
    """

    in_parts = False  # whether a process holds parts of the weights

    def __init__(self, model: nn.Module, world: World = ALONE) -> None:
        self.model, self.world = model, world
        self.forward = model

    @property
    def data_rank(self) -> int:
        """Which share of each step's sequences this process takes, of `data_size`."""
        return self.world.rank

    @property
    def data_size(self) -> int:
        return self.world.size

    def talking(self, now: bool) -> AbstractContextManager:
        """Around a forward and backward pass: whether gradients are exchanged in it. Once a step suffices."""
        return nullcontext()

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean over the shares of the data: scalar."""
        return value

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over the shares of the data, in place."""
        return tensor

    def dealt(self, items: Iterable[T]) -> Iterator[tuple[T, bool]]:
        """This share's items, as many as every other's, and whether each counts: some come twice to make it even."""
        items = iter(items)
        while group := tuple(islice(items, self.data_size)):
            counts = self.data_rank < len(group)
            yield group[self.data_rank if counts else 0], counts

    def norm(self) -> torch.Tensor:
        """The 2-norm of the whole gradient: scalar."""
        return torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])

    def clip(self, limit: float, norm: torch.Tensor) -> None:
        torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), limit, norm)

    def whole(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The whole of a weight, or of an optimizer's moment, that is called `name`. All processes call it together."""
        return tensor

    def part(self, name: str, whole: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
        """What this process holds of a moment of `parameter`."""
        return whole

    def gathered(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
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
        self.forward = DistributedDataParallel(model)

    def talking(self, now: bool) -> AbstractContextManager:
        return nullcontext() if now else self.forward.no_sync()

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        return self.world.sum(value.clone()) / self.world.size

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.world.sum(tensor)


class Placed(Parallel):
    """Weights in parts, as DTensors."""

    in_parts = True

    def norm(self) -> torch.Tensor:
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        sharded = [g for g in grads if _is_sharded(g)]
        zero = torch.zeros((), device=grads[0].device)
        parts = sum((_local(g).square().sum() for g in sharded), zero)
        rest = sum((_local(g).square().sum() for g in grads if not _is_sharded(g)), zero)
        return (self.world.sum(parts.clone()) + rest).sqrt()

    def clip(self, limit: float, norm: torch.Tensor) -> None:
        factor = (limit / (norm + 1e-6)).clamp(max=1.0)
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                _local(parameter.grad).mul_(factor)

    def whole(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def part(self, name: str, whole: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
        if not isinstance(parameter, DTensor) or whole.shape != parameter.shape:
            return whole
        whole = whole.to(parameter.device)
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)


class Sharded(Placed):
    """Every process holds a slice of each weight, gradient and moment, and takes a share of the data (FSDP2).

    A block's weights come together for its pass and go again: `fully_shard` by block (Zhao et al. 2023).
    """

    def __init__(self, model: nn.Module, world: World) -> None:
        super().__init__(model, world)
        mesh = device_mesh(model, world)
        for blocks in (m for m in model.children() if isinstance(m, nn.ModuleList)):
            for block in blocks:
                fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)

    def talking(self, now: bool) -> AbstractContextManager:
        self.model.set_requires_gradient_sync(now)
        return nullcontext()

    mean = Replicated.mean
    sum = Replicated.sum


def device_mesh(model: nn.Module, world: World) -> DeviceMesh:
    """All processes in a row, on the model's kind of device."""
    return init_device_mesh(next(model.parameters()).device.type, (world.size,))


def _is_sharded(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, DTensor) and any(p.is_shard() for p in tensor.placements)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
