"""Models whose weights the processes hold in parts, as DTensors over a mesh of processes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from neural.interop.tensor_files import box
from neural.training.distributed.parallel import Parallel
from neural.training.distributed.world import World
from neural.training.loss import plain_head
from neural.training.tensor_file import Piece

# It warns that a weight cut along two axes is gathered in two steps, which is so, and seldom done.
logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
# And that what a model gives may not be changed in place, which nobody does.
warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")

DATA, SHARD, TENSOR = "data", "shard", "tensor"  # a mesh's axes, in this order


class Placed(Parallel):
    """One process of a mesh. Along its axes processes

    - "data": hold the same and take different sequences,
    - "shard": hold slices of each weight, gradient and moment, and take different sequences (FSDP),
    - "tensor": compute parts of each product of the same sequences.

    orders: of weights whose rows do not stand as in the file, the place in the file of each row.
    own_dice: whether processes along "tensor" draw different random numbers.
    """

    in_parts = True

    def __init__(
        self,
        model: nn.Module,
        world: World,
        mesh: DeviceMesh,
        orders: Mapping[str, torch.Tensor] | None = None,
        *,
        own_dice: bool = False,
    ) -> None:
        super().__init__(model, world)
        self.mesh, self.orders, self.own_dice = mesh, orders or {}, own_dice
        self.data_axes = [axis for axis in mesh.mesh_dim_names if axis != TENSOR]

    @property
    def data_rank(self) -> int:
        return self.world.rank // (self.world.size // self.data_size)

    @property
    def data_size(self) -> int:
        return self.world.size // (self.mesh[TENSOR].size() if TENSOR in self.mesh.mesh_dim_names else 1)

    @property
    def stream(self) -> int:
        return self.world.rank if self.own_dice else self.data_rank

    @property
    def streams(self) -> int:
        return self.world.size if self.own_dice else self.data_size

    @contextmanager
    def talking(self, now: bool) -> Iterator[None]:
        if self.data_axes:
            self.model.set_requires_gradient_sync(now)
        yield
        for parameter in self.model.parameters() if now else ():
            grad = parameter.grad
            if isinstance(grad, DTensor) and grad.placements != parameter.placements:  # sums over parts of a sequence
                parameter.grad = grad.redistribute(placements=parameter.placements)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        for axis in self.data_axes:
            dist.all_reduce(tensor, group=self.mesh.get_group(axis))
        return tensor

    def norm(self) -> torch.Tensor:
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        squares = [_local(grad).square().sum() / self._copies(grad) for grad in grads]
        return self.world.sum(torch.stack(squares).sum()).sqrt()

    def clip(self, limit: float, norm: torch.Tensor) -> None:
        factor = (limit / (norm + 1e-6)).clamp(max=1.0)
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                _local(parameter.grad).mul_(factor)

    def whole(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, DTensor):
            return tensor
        whole, order = tensor.full_tensor(), self._order_of(name)
        return whole if order is None else whole[order.argsort()]

    def part(self, name: str, whole: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
        if not isinstance(parameter, DTensor) or whole.shape != parameter.shape:
            return whole
        order = self._order_of(name)
        whole = whole if order is None else whole[order]
        own = whole[_box(parameter)].to(parameter.device, copy=True)
        mesh, placements = parameter.device_mesh, parameter.placements
        return DTensor.from_local(own, mesh, placements, shape=whole.shape, stride=whole.stride())

    @property
    def writers(self) -> World:
        return self.world

    def pieces(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, Piece]:
        found = {name: self._piece(name, tensor) for name, tensor in tensors.items()}
        return {name: piece for name, piece in found.items() if piece is not None}

    def _piece(self, name: str, tensor: torch.Tensor) -> Piece | None:
        """None where another process writes it."""
        if isinstance(tensor, DTensor) and self._order_of(name) is not None:
            rank, size = self.world.rank, self.world.size
            first, end = rank * len(tensor) // size, (rank + 1) * len(tensor) // size
            rows = self.whole(name, tensor)[first:end].clone()  # as in the file; no process holds such rows
            return Piece(rows, (first, *[0] * (tensor.ndim - 1))) if len(rows) else None
        where = zip(self.mesh.mesh_dim_names, self.mesh.get_coordinate(), strict=True)
        if any(at and axis not in _cut_along(tensor) for axis, at in where):
            return None
        if not isinstance(tensor, DTensor):
            return Piece(tensor)
        own = tensor.to_local()
        return Piece(own, tuple(part.start for part in _box(tensor))) if own.numel() else None

    def _copies(self, tensor: torch.Tensor) -> int:
        """How many processes hold the same part."""
        shape = dict(zip(self.mesh.mesh_dim_names, self.mesh.shape, strict=True))
        cut = _cut_along(tensor)
        return torch.Size(n for axis, n in shape.items() if axis not in cut).numel()

    def _order_of(self, name: str) -> torch.Tensor | None:
        """Of a weight, or of a moment that is called "<weight>/<moment>"."""
        return self.orders.get(name.partition("/")[0])


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """A block's weights come together for its pass and go again: `fully_shard` by block (FSDP2, Zhao et al. 2023).

    A mesh of two axes: copies along the first, slices along the second.
    """
    for blocks in (m for m in model.children() if isinstance(m, nn.ModuleList)):
        for block in blocks:
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    if plain_head(model) is not None:  # it is in no block, so it stays gathered after `hidden_states`, for the loss
        register_fsdp_forward_method(model, "hidden_states")


def _cut_along(tensor: torch.Tensor) -> set[str]:
    """The axes along which the processes hold different parts of it."""
    if not isinstance(tensor, DTensor):
        return set()
    places = zip(tensor.device_mesh.mesh_dim_names, tensor.placements, strict=True)
    return {axis for axis, placement in places if not placement.is_replicate()}


def _box(tensor: DTensor) -> tuple[slice, ...]:
    """What this process holds of it, by what a DTensor tells torch.distributed.checkpoint."""
    (chunk,) = tensor.__create_chunk_list__()
    return box(tuple(chunk.offsets), tuple(chunk.sizes))


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
