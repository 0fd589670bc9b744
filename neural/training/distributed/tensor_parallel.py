"""Tensor parallelism: each process has some columns or rows of each product, and some heads (DTensor).

What a process computes is source again, written for its share of the graph; the weights of the products become
DTensors. Between the products each process takes some of the tokens (sequence parallelism) where the graph allows it:
tokens are gathered before products by column, and scattered where the results of those by row are summed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from neural.backends.module import load_module
from neural.backends.torch import emit
from neural.compiler import Program
from neural.diagnostics.diagnostic import fail
from neural.graph.passes import optimize
from neural.graph.split import SplitNetwork, split_network
from neural.graph.tokens import TokenChain, token_chain, within_any
from neural.training.distributed.vocabulary import split_vocabulary

WHOLE, TOKENS = Replicate(), Shard(1)  # of activations (B, T, C)


class Split(NamedTuple):
    """What a process computes; see `Placed` for the others."""

    model: nn.Module
    orders: dict[str, torch.Tensor]
    own_dice: bool


def split(program: Program, model: nn.Module, mesh: DeviceMesh) -> Split:
    """The share of this process, one of the mesh, in `model`, whose whole weights are cut.

    Where all that draws random numbers works on parts, each process draws its own; else all draw the same, so that
    dropout is one and the same where activations are whole. NeuralError N839.
    """
    graph, ways = optimize(program.graph), mesh.size()
    plan = divided(program, ways)
    share = _share(program, plan, model)
    device = next(share.parameters()).device
    orders = {
        f"{path}.{kind}": _order(widths, ways).to(device)
        for path, widths in plan.columns.items()
        for kind in ("weight", "bias")
        if len(widths) > 1
    }
    with torch.no_grad():
        for name, parameter in share.named_parameters():
            if name in orders:
                parameter.copy_(parameter[orders[name]])
    chain = token_chain(graph, plan)
    parallelize_module(share, mesh, _styles(plan, chain))
    split_vocabulary(share, mesh, plan.vocabulary)
    if chain is not None:
        _split_tokens(share, mesh, chain)
    return Split(share, orders, chain is not None and chain.alone)


def divided(program: Program, ways: int) -> SplitNetwork:
    """What each of so many processes computes. NeuralError N839 if nothing in the program divides."""
    plan = split_network(optimize(program.graph), ways)
    if not plan.rows:
        fail(
            "N839",
            f"nothing in {program.name} divides among {ways} processes",
            notes=("heads and wide layers are split, where the number of processes divides them",),
            hint="use --parallel fsdp, or another number of devices",
        )
    return plan


def _styles(plan: SplitNetwork, chain: TokenChain | None) -> dict[str, ParallelStyle]:
    """How each module is cut, and how its input and output lie over the processes."""
    if chain is None:
        return {path: ColwiseParallel() for path in plan.columns} | {path: RowwiseParallel() for path in plan.rows}
    columns = {
        path: ColwiseParallel(input_layouts=TOKENS if within_any(path, chain.modules) else WHOLE)
        for path in plan.columns
    }
    columns |= {path: ColwiseParallel() for path in plan.columns if path.rpartition(".")[0] in chain.once}
    rows = {
        path: RowwiseParallel(output_layouts=TOKENS if within_any(path, chain.modules) else WHOLE) for path in plan.rows
    }
    return columns | rows | {path: SequenceParallel(use_local_output=True) for path in chain.norms}


def _split_tokens(model: nn.Module, mesh: DeviceMesh, chain: TokenChain) -> None:
    """Give the chain its part of the tokens, and gather them again behind it."""
    own = dict(model.named_modules())
    there = [own[path] for path in chain.modules if path in own]  # a dropout of 0 is no module
    there[0].register_forward_pre_hook(_relaid(mesh, WHOLE, TOKENS, lambda x: x.to_local()))
    there[-1].register_forward_hook(lambda _module, _inputs, x: _relay(x, mesh, TOKENS, WHOLE).to_local())
    for path in chain.once:
        own[path].register_forward_pre_hook(_relaid(mesh, TOKENS, WHOLE))


def _relaid(
    mesh: DeviceMesh, now: Placement, then: Placement, given: Callable[[DTensor], torch.Tensor] = lambda x: x
) -> Callable:
    """A hook that lays a module's first argument over the processes in another way."""
    return lambda _module, inputs: (given(_relay(inputs[0], mesh, now, then)), *inputs[1:])


def _relay(x: torch.Tensor, mesh: DeviceMesh, now: Placement, then: Placement) -> DTensor:
    return DTensor.from_local(x, mesh, [now]).redistribute(placements=[then])


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
