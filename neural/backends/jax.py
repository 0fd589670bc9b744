"""Graphs to JAX: source for Flax NNX and Optax."""

from __future__ import annotations

import re
from typing import ClassVar

from neural.backends import jax_network
from neural.backends.jax_training import training_lines
from neural.backends.source import Module, write_module
from neural.backends.writer import ClassWriter
from neural.graph.graph import Block, Network, Node, Param, Tie
from neural.layers.dense import Dense
from neural.layers.effects import Cache
from neural.layers.layer import Effect, Layer, Site

SCOPE = r"(?<![\w.])"


def emit(network: Network) -> str:
    """One module that needs JAX, Flax and (where the file has a loss) Optax, and nothing else."""
    training = training_lines(network)

    def main(network: Network) -> str:
        return "\n\n".join(filter(None, (training, jax_network.main_lines(network))))

    source = write_module(network, JaxWriter, lambda body: _imports(body + training), main)
    return source.replace("import Array\n\n\n#", "import Array\n\n#")  # two lines are for functions and classes


def _imports(text: str) -> str:
    standard = ["import math"] if re.search(rf"{SCOPE}math\.", text) else []
    standard += ["from dataclasses import dataclass"] if "@dataclass" in text else []
    lines = ["import jax"]
    lines += ["import jax.numpy as jnp"] if re.search(rf"{SCOPE}jnp\.", text) else []
    lines += ["import numpy as np"] if re.search(rf"{SCOPE}np\.", text) else []
    lines += ["import optax"] if re.search(rf"{SCOPE}optax\.", text) else []
    lines += ["from flax import nnx", "from jax import Array"]
    return "\n".join([*standard, *([""] if standard else []), *lines]) + "\n"


class JaxWriter(ClassWriter):
    """A subclass of nnx.Module."""

    base, array = "nnx.Module", "Array"
    hints: ClassVar[dict[str, str]] = {
        "mask": "Array", "padding": "Array | None", "attention_mask": "Array | None", "positions": "Array",
        "rope": "tuple[Array, Array]", "cache": "KVCache | None",
    }  # fmt: skip
    kv_cache = jax_network.KV_CACHE

    def __init__(self, module: Module, block: Block, root: bool) -> None:
        super().__init__(module, block, root)
        if root:  # the forward pass writes into a copy of the caller's
            self.effects = {e: "cache" if isinstance(e, Cache) else v for e, v in self.effects.items()}

    @property
    def checkpointed(self) -> str:
        cached = self.module.network.cached
        return jax_network.CHECKPOINTED_UNLESS_CACHED if cached else jax_network.CHECKPOINTED

    def spell(self, layer: Layer, site: Site) -> str | None:
        return layer.jax(site)

    def spell_effect(self, effect: Effect, site: Site) -> str:
        return effect.jax(site)

    def constructor(self, params: list[Param], init: list[str]) -> list[str]:
        if not init and not self.root:
            return []
        required, optional, derived = self.parameters(params, init)
        given = ["self", *required, *optional]
        if self.root or re.search(rf"{SCOPE}rngs\b", "\n".join(init)):
            given += ["*", "rngs: nnx.Rngs"]
            self.signature += ("rngs",)
        head = f"    def __init__({', '.join(given)}) -> None:"
        nothing = [] if init else ['"""Nothing is drawn: the network has no weights."""']
        return [head, *(f"        {line}" for line in (*nothing, *derived, *init))]

    def made_block(self, name: str, given: list[str]) -> str:
        rngs = ["rngs=rngs"] if "rngs" in self.module.signatures[name] else []
        return super().made_block(name, [*given, *rngs])

    def constructor_end(self) -> list[str]:
        return jax_network.constructor_end(self)

    def forward_of_network(self, effects: list[str]) -> list[str]:
        return jax_network.forward(self, effects)

    def initializer(self, kind: str) -> str:
        name, source = jax_network.INITIALIZERS[self.module.network.init, kind]
        self.module.helpers[source] = None
        return name

    def copies(self, made: str, index: str, count: str) -> str:
        return f"nnx.List({made} for {index} in range({count}))"

    def submodule(self, name: str, expression: str) -> str:
        owner, _, part = name.partition(".")
        container = f"self.{owner} = nnx.Dict()"
        if part and container not in self.init:
            self.init.append(container)
        self.init.append(f"self.{name} = {expression}")
        return f"self.{name}"

    def ties(self) -> list[str]:
        found = []
        for tie in self.block.ties:
            dense = [isinstance(self.block.node(n).layer, Dense) for n in (tie.target, tie.source)]
            if dense[0] == dense[1] and not tie.transposed:
                variable = "kernel" if dense[0] else "embedding"
                found.append(f"self.{tie.target}.{variable} = self.{tie.source}.{variable}")
        return found

    def tied_product(self, node: Node, tie: Tie, x: str) -> str | None:
        source = f"self.{tie.source}"
        if not isinstance(node.layer, Dense):
            lookup = f"jnp.take({source}.kernel.T, {x}, axis=0)"
            return lookup if isinstance(self.block.node(tie.source).layer, Dense) else None
        if isinstance(self.block.node(tie.source).layer, Dense):
            product = f"{x} @ {source}.kernel.T" if tie.transposed else None
        else:
            product = f"{x} @ {source}.embedding" if tie.transposed else f"{source}.attend({x})"
        if product and node.layer.use_bias.value:
            self.init.append(f"self.{node.name} = nnx.Dict(bias=nnx.Param(jnp.zeros({node.layer.units.text})))")
            product += f" + self.{node.name}.bias"
        return product
