"""Tensor parallelism: each process has some columns or rows of each product, and some heads (DTensor)."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from neural.backends.module import load_module
from neural.backends.torch import emit
from neural.compiler import Program
from neural.diagnostics.diagnostic import fail
from neural.graph.passes import optimize
from neural.graph.split import SplitNetwork, split_network
from neural.training.distributed.parallel import Placed, device_mesh
from neural.training.distributed.world import World


class Split(Placed):
    """Every process takes the same sequences through the model with its share of the heads and of the wide layers.

    What a process computes is source again, written for its share of the graph; the weights of the products become
    DTensors. All processes draw the same random numbers, so that dropout is one and the same where activations are
    whole. NeuralError N839 if nothing in the program divides.
    """

    def __init__(self, program: Program, model: nn.Module, world: World) -> None:
        plan = split_network(optimize(program.graph), world.size)
        if not plan.rows:
            fail(
                "N839",
                f"nothing in {program.name} divides among {world.size} processes",
                notes=("heads and wide layers are split, where the number of processes divides them",),
                hint="use --parallel fsdp, or another number of devices",
            )
        super().__init__(_share(program, plan, model), world)
        device = next(model.parameters()).device
        self._orders = {
            f"{path}.{kind}": _order(widths, plan.ways).to(device)
            for path, widths in plan.columns.items()
            for kind in ("weight", "bias")
            if len(widths) > 1
        }
        mesh = device_mesh(model, world)
        styles = {path: ColwiseParallel() for path in plan.columns} | {path: RowwiseParallel() for path in plan.rows}
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self._orders:
                    parameter.copy_(parameter[self._orders[name]])
        self.model = self.forward = parallelize_module(self.model, mesh, styles)

    @property
    def data_rank(self) -> int:
        return 0

    @property
    def data_size(self) -> int:
        return 1

    def whole(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        whole = super().whole(name, tensor)
        order = self._order_of(name)
        if order is None or not isinstance(tensor, DTensor):
            return whole
        return whole[order.argsort()]

    def part(self, name: str, whole: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
        order = self._order_of(name)
        if order is not None and whole.shape == parameter.shape:
            whole = whole.to(order.device)[order]
        return super().part(name, whole, parameter)

    def _order_of(self, name: str) -> torch.Tensor | None:
        """Of a weight, or of a moment that is called "<weight>/<moment>"."""
        return self._orders.get(name.partition("/")[0])


def _order(widths: tuple[int, ...], ways: int) -> torch.Tensor:
    """The rows of a fused product so that each process's parts of all outputs stand together: int64 (sum(widths),).

    Queries, keys and values stand one after another in the weight; cut in two, it would give one process the queries.
    """
    starts = [sum(widths[:i]) for i in range(len(widths))]
    parts = [
        torch.arange(start + rank * width // ways, start + (rank + 1) * width // ways)
        for rank in range(ways)
        for start, width in zip(starts, widths, strict=True)
    ]
    return torch.cat(parts)


def _share(program: Program, plan: SplitNetwork, model: nn.Module) -> nn.Module:
    """The model of a process's share of the graph, with the whole weights of `model`, to be cut."""
    module = load_module(emit(plan.network), program.name)
    with torch.device("meta"):
        share = getattr(module, program.name)()
    parameters, buffers = dict(model.named_parameters(remove_duplicate=False)), dict(model.named_buffers())
    for name, _ in list(share.named_parameters(remove_duplicate=False)):
        owner, _, own = name.rpartition(".")
        setattr(share.get_submodule(owner), own, parameters[name])
    for name, buffer in buffers.items():
        owner, _, own = name.rpartition(".")
        share.get_submodule(owner).register_buffer(own, buffer)
    return share.train(model.training)
