"""Graphs to PyTorch source."""

from __future__ import annotations

import re
from typing import ClassVar

from neural.backends import torch_network
from neural.backends.source import write_module
from neural.backends.writer import ClassWriter
from neural.graph.graph import Network, Node, Param, Tie
from neural.graph.head import head
from neural.layers.layer import Effect, Layer, Site


def emit(network: Network) -> str:
    """One module that needs PyTorch and nothing else."""
    return write_module(network, TorchWriter, _imports, torch_network.main_lines)


def _imports(body: str) -> str:
    lines = [f"import {name}" for name in ("math", "re") if f" {name}." in body or f"({name}." in body]
    lines += [""] if lines else []
    lines.append("import torch\nfrom torch import Tensor, nn")
    if re.search(r"\bF\.", body):
        lines.append("from torch.nn import functional as F")
    if "def checkpointed(" in body:
        lines.append("from torch.utils.checkpoint import checkpoint")
    return "\n".join(lines) + "\n"


class TorchWriter(ClassWriter):
    """A subclass of nn.Module."""

    base, method, array = "nn.Module", "forward", "Tensor"
    hints: ClassVar[dict[str, str]] = {
        "mask": "Tensor | None", "padding": "Tensor | None", "attention_mask": "Tensor | None", "positions": "Tensor",
        "rope": "tuple[Tensor, Tensor]", "cache": "KVCache | None",
    }  # fmt: skip
    kv_cache = torch_network.KV_CACHE
    checkpointed = torch_network.CHECKPOINTED
    hidden: list[str] | None = None  # the lines before the head, where the network has one

    def spell(self, layer: Layer, site: Site) -> str | None:
        return layer.torch(site)

    def spell_effect(self, effect: Effect, site: Site) -> str:
        return effect.torch(site)

    def constructor(self, params: list[Param], init: list[str]) -> list[str]:
        required, optional, derived = self.parameters(params, init)
        head = f"    def __init__({', '.join(['self', *required, *optional])}) -> None:"
        return [head, "        super().__init__()", *(f"        {line}" for line in (*derived, *init))]

    def constructor_end(self) -> list[str]:
        return torch_network.constructor_end(self)

    def forward_of_network(self, effects: list[str]) -> list[str]:
        return torch_network.forward(self, effects)

    def copies(self, made: str, index: str, count: str) -> str:
        return f"nn.ModuleList({made} for {index} in range({count}))"

    def submodule(self, name: str, expression: str) -> str:
        owner, _, part = name.partition(".")
        if not part:
            self.init.append(f"self.{name} = {expression}")
            return f"self.{name}"
        container = f"self.{owner} = nn.ModuleDict()"
        if container not in self.init:
            self.init.append(container)
        self.init.append(f'self.{owner}["{part}"] = {expression}')
        return f'self.{owner}["{part}"]'

    def _node(self, node: Node) -> None:
        if self.root and node is head(self.module.network):
            self.hidden, self.forward = self.forward, []
        super()._node(node)

    def ties(self) -> list[str]:
        return [f"self.{t.target}.weight = self.{t.source}.weight" for t in self.block.ties if not t.transposed]

    def tied_product(self, node: Node, tie: Tie, x: str) -> str | None:
        if not tie.transposed:
            return None
        bias = ""
        if node.layer.use_bias.value:
            parameter = f"nn.Parameter(torch.zeros({node.layer.units.text}))"
            self.init.append(f"self.{node.name} = nn.ParameterDict({{'bias': {parameter}}})")
            bias = f", self.{node.name}['bias']"
        return f"F.linear({x}, self.{tie.source}.weight.T{bias})"
