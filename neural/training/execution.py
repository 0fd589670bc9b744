"""How a training is carried out on its device: chosen for it, said at the start, and noted in run.json."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from neural.compiler import Program
from neural.graph.graph import primitives
from neural.layers.attention import Attention
from neural.planning.saved import sees_all_before
from neural.training.cpu_kernels import HANDLED
from neural.training.cpu_library import library
from neural.training.distributed.parallel import Parallel
from neural.training.distributed.strategy import Layout, Strategy
from neural.training.shares import Shares


@dataclass(frozen=True, slots=True)
class Execution:
    """`threads`: of each process. `shares`: how many of them have sequences of their own, 1 where they work together.

    attention: None where the network has none. strategy (None of one process), tensor: see `Layout`.
    """

    device: str
    processes: int
    threads: int
    shares: int
    precision: str
    compiled: bool
    attention: str | None
    checkpointing: bool
    strategy: str | None = None
    tensor: int = 1

    @classmethod
    def of(cls, program: Program, parallel: Parallel, layout: Layout, device: torch.device) -> Execution:
        """As the training that was made is carried out."""
        return cls(
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            processes=parallel.world.size,
            threads=torch.get_num_threads(),
            shares=parallel.count if isinstance(parallel, Shares) else 1,
            precision=parallel.loss.precision,
            compiled=parallel.loss.compiled is not None,
            attention=_attention(program, parallel, device),
            checkpointing=bool(program.settings.execution.get("activation_checkpointing")),
            strategy=str(layout.strategy) if parallel.world.size > 1 else None,
            tensor=layout.tensor,
        )

    @property
    def layout(self) -> Layout | None:
        """How the processes shared the work; None of one."""
        return Layout(Strategy(self.strategy), self.tensor) if self.strategy else None

    def text(self) -> str:
        """For people: "cpu, 2 threads, each with sequences of its own · float32 · not compiled · …"."""
        each = f"{self.processes} × {self.device}" if self.processes > 1 else self.device
        each += f", {self.layout}" if self.layout else ""
        if self.device == "cpu":
            own = ", each with sequences of its own" if self.shares > 1 else ""
            each += f", {self.threads} thread{'s' * (self.threads != 1)}{own}"
        compiled = "compiled" if self.compiled else "not compiled"
        attention = [f"{self.attention} attention"] if self.attention else []
        kept = "blocks computed again in the backward pass" if self.checkpointing else "activations kept"
        return " · ".join([each, self.precision, compiled, *attention, kept])


def _attention(program: Program, parallel: Parallel, device: torch.device) -> str | None:
    """Whose it is: that of `cpu_kernels` on a CPU where tokens see all before them, else torch's."""
    nodes = (node.layer for _, node, _, _ in primitives(program.graph.block, once=True))
    layers = [layer for layer in nodes if isinstance(layer, Attention)]
    if not layers:
        return None
    kernels = device.type == "cpu" and parallel.loss.compiled is None
    handled = getattr(torch, parallel.loss.precision) in HANDLED and all(sees_all_before(layer) for layer in layers)
    return "own" if kernels and handled and library() is not None else "torch's"
