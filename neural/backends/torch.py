"""Graphs to PyTorch source."""

from __future__ import annotations

import re
from typing import ClassVar

from neural.backends import torch_network
from neural.backends.source import write_module
from neural.backends.writer import ClassWriter
from neural.graph.graph import Block, Network, Node, Param, Tie
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
        if self.root and self.module.network.cached and node is self._tail():
            x = self.variables[node.inputs[0]]
            self.forward.append(f"{x} = {x}[:, -logits_to_keep:]")
        super()._node(node)

    def _tail(self) -> Node | None:
        """The first of the last nodes that see each token by itself: from there on, tokens can be left out."""
        first, value = None, self.block.outputs[0]
        for node in reversed(self.block.nodes):
            if isinstance(node.layer, Block) or node.repeat is not None or len(node.inputs) != 1:
                break
            inputs = [self.values[i] for i in node.inputs]
            if node.outputs[0].name != value or node.layer.effects(*inputs) or inputs[0].dtype == "int64":
                break
            first, value = node, node.inputs[0]
            if sum(n.inputs.count(value) for n in self.block.nodes) > 1:
                break
        return first

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
