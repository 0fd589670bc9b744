"""Graphs to Keras 3 source, which runs on TensorFlow, JAX and PyTorch."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import ClassVar

from neural.backends import keras_network
from neural.backends.keras_names import TAKEN, with_free_names
from neural.backends.keras_training import COMPILE_FROM_CONFIG, training_classes
from neural.backends.source import Module, write_module
from neural.backends.wrapping import wrap
from neural.backends.writer import ClassWriter, drawn, effect_names
from neural.graph.graph import Block, Network, Node, Param, Tie, primitives
from neural.layers.activation import keras_activated
from neural.layers.dense import Dense
from neural.layers.effects import Positions
from neural.layers.layer import Effect, Layer, Site
from neural.layers.rotary import Rotary
from neural.layers.values import Shape


def emit(network: Network) -> str:
    """One module that needs Keras 3 with any of its engines, and nothing else."""
    network = replace(network, block=with_free_names(network.block))
    main = keras_network.main_lines(network)
    return write_module(network, KerasWriter, lambda body: _imports(body + main), lambda _: main)


def _imports(body: str) -> str:
    lines = [f"import {name}" for name in ("math", "re") if re.search(rf"(?<![\w.]){name}\.", body)]
    lines += ["", "import keras"] if lines else ["import keras"]
    names = [n for n in ("layers", "ops") if re.search(rf"(?<![\w.]){n}\.", body)]
    lines += [f"from keras import {', '.join(names)}"] if names else []
    return "\n".join(lines) + ("" if body.startswith("#") else "\n")  # one line before a constant, two before a class


class KerasWriter(ClassWriter):
    """A subclass of keras.layers.Layer, or of keras.Model for the network."""

    method, array = "call", ""
    hints: ClassVar[dict[str, str]] = {}
    renamed: ClassVar[dict[str, str]] = {"mask": "visible"}  # an argument `mask` is filled in by Keras
    kv_cache = keras_network.KV_CACHE

    def __init__(self, module: Module, block: Block, root: bool) -> None:
        super().__init__(module, block, root)
        self.base = "keras.Model" if root else "layers.Layer"
        self.builds: list[str] = []  # lines of `build`, in the constructor's terms
        self.node: Node | None = None  # that is being written
        self.site: Site | None = None
        self.made_effects: list[str] = []
        nodes = {n.name for n in block.nodes} | (
            {"context"} if keras_network.own_context(module.network, root) else set()
        )
        self.kept = {p.name: _kept(p, nodes) for p in block.params}  # the attribute that holds a parameter
        self.attributes = {kept: name for name, kept in self.kept.items()}
        if root:
            for source in training_classes(module.network):
                module.helpers[source] = None

    # Layers

    def spell(self, layer: Layer, site: Site) -> str | None:
        self.site = site
        result = layer.keras(site)
        if site.modules:
            self.builds += self._built(
                layer, f"for layer in self.{site.name}:\n    layer", site.module_shape, site.modules[0]
            )
        return result

    def spell_effect(self, effect: Effect, site: Site) -> str:
        return effect.keras(site)

    def _node(self, node: Node) -> None:
        self.node = node
        super()._node(node)

    def submodule(self, name: str, expression: str) -> str:
        name = name.replace(".", "_")
        tie = next((t for t in self.block.ties if t.target == name), None)
        if tie and not isinstance(self.node.layer, Dense) and not self._is_dense(tie.source):
            self.init.append(f"self.{name} = self.{tie.source}")  # one table
            return f"self.{name}"
        if any(t.source == name and self._is_dense(t.target) and not t.transposed for t in self.block.ties):
            expression = expression.replace("layers.Embedding(", "layers.ReversibleEmbedding(")
        self.init.append(f"self.{name} = {_with_argument(expression, f'name={_quoted(name)}')}")
        if not tie:
            self.builds += self._built(self.node.layer, f"self.{name}", self.site.module_shape, expression)
        return f"self.{name}"

    def copies(self, made: str, index: str, count: str) -> str:
        if "name=" not in made:
            made = _with_argument(made, f'name=f"{self.node.name}_{{i}}"')
        return f"[{made} for i in range({count})]"

    def _built(self, layer: Layer, callee: str, shape: Shape, made: str) -> list[str]:
        """The line that builds a module with weights. made: the expression that makes it."""
        inputs = tuple(self.values[i] for i in self.node.inputs)
        stateless = not layer.weights(*inputs) or made.startswith("layers.Dropout(")
        return [] if stateless else [f"{callee}.build({self._shape(shape)})"]

    def _shape(self, shape: Shape) -> str:
        """A shape for `build`, by the shape that the block is built with where they have something in common."""
        if len(self.block.inputs) == 1:
            given = self.block.inputs[0].shape
            if drawn(shape) == drawn(given):
                return "input_shape"
            if len(given) > 1 and drawn(shape[:-1]) == drawn(given[:-1]):
                return f"(*input_shape[:-1], {shape[-1].text})"
        return f"({', '.join('None' if a.axis else a.text for a in shape)}{',' * (len(shape) == 1)})"

    # Blocks

    def _block_node(self, node: Node, block: Block) -> None:
        super()._block_node(node, block)
        if any(p.node.layer.weights(*p.inputs) for p in primitives(block, once=True)):
            shape = self._shape(self.values[node.inputs[0]].shape)
            each = f"for block in self.{node.name}:\n    block" if node.repeat else f"self.{node.name}"
            self.builds.append(f"{each}.build({shape})")

    def made_block(self, name: str, given: list[str]) -> str:
        node = self.node
        own = f'name=f"{node.name}_{{i}}"' if node.repeat is not None else f"name={_quoted(node.name)}"
        return super().made_block(name, [*given, own])

    def block_call(self, callee: str, given: list[str]) -> str:
        if self.root and self.module.network.settings.execution.get("activation_checkpointing"):
            self.module.helpers[keras_network.CHECKPOINTED] = None
            return f"checkpointed({', '.join([callee, given[0], 'training', *given[1:]])})"
        return f"{callee}({', '.join(given)})"

    def passed(self, block: Block) -> list[str]:
        inner = effect_names(block, False, self.renamed)
        given = [f"{name}={self.effects[e]}" for e, name in inner.items() if e in self.effects]
        training = any(p.node.layer.heeds_training for p in primitives(block, once=True))
        return [*given, "training=training"] if training else given

    # Ties

    def _is_dense(self, name: str) -> bool:
        return isinstance(self.block.node(name).layer, Dense)

    def tied_product(self, node: Node, tie: Tie, x: str) -> str | None:
        source = f"self.{tie.source}"
        if not isinstance(node.layer, Dense):
            return f"ops.take(ops.transpose({source}.kernel), {x}, axis=0)" if self._is_dense(tie.source) else None
        if self._is_dense(tie.source):
            matrix = f"ops.transpose({source}.kernel)" if tie.transposed else f"{source}.kernel"
            product = f"ops.matmul({x}, {matrix})"
        else:
            product = f"ops.matmul({x}, {source}.embeddings)" if tie.transposed else f"{source}({x}, reverse=True)"
        if node.layer.use_bias.value:
            name = f"{node.name}_bias"
            weight = f'shape=({node.layer.units.text},), initializer="zeros", name="{name}"'
            self.builds.append(f"self.{name} = self.add_weight({weight})")
            product += f" + self.{name}"
        return keras_activated(node.layer.activation.value, product)

    # The class

    def decorators(self) -> list[str]:
        return [f'@keras.saving.register_keras_serializable(package="{self.module.network.name}")']

    def _effect_lines(self) -> list[str]:
        self.made_effects = super()._effect_lines()
        return self.made_effects

    def _used_params(self, init: str) -> list[Param]:
        """Those that the constructor or `build` reads beside keeping them, or the forward pass."""
        copies = {f"self.{kept} = {name}" for name, kept in self.kept.items()}
        lines = [line for line in init.split("\n") if line not in copies] + self.builds
        forward = "\n".join(
            [*self.forward, *self.made_effects, "self.context" * bool(self.root and self.module.network.context)]
        )
        lines += [n for n, kept in self.kept.items() if re.search(rf"self\.{kept}\b", forward)]
        return super()._used_params("\n".join(lines))

    def constructor(self, params: list[Param], init: list[str]) -> list[str]:
        required, optional, derived = self.parameters(params, init)
        if "layer" in self.signature and "self.layer = layer" not in init:
            init = ["self.layer = layer", *init]
        used = {p.name for p in params}
        unused = {f"self.{kept} = {name}" for name, kept in self.kept.items() if name not in used}
        given = ["self", *(r.partition(":")[0] for r in required), *map(_without_hint, optional)]
        given += [*keras_network.extra_parameters(self), "**kwargs"]
        lines = [*derived, "super().__init__(**kwargs)", *(line for line in init if line not in unused)]
        body = [f"        {piece}" for line in lines for piece in line.split("\n")]
        return [f"    def __init__({', '.join(given)}):", *keras_network.constructor_docstring(self), *body]

    def constructor_end(self) -> list[str]:
        return keras_network.constructor_end(self)

    def forward_of_network(self, effects: list[str]) -> list[str]:
        return [*self._build_method(), *keras_network.forward(self, effects)]

    def _forward_of_block(self) -> list[str]:
        self._return()
        required = [v for e, v in self.effects.items() if isinstance(e, Positions | Rotary)]
        optional = [f"{v}=None" for e, v in self.effects.items() if v not in required]
        given = [*(self.variables[v.name] for v in self.block.inputs), *required, *optional, *self.training()]
        note = f"{drawn(self.block.inputs[0].shape)} → {drawn(self.values[self.block.outputs[0]].shape)}"
        head = f"    def call(self, {', '.join(given)}):"
        return [*self._build_method(), head, f'        """{note}."""', *(f"        {line}" for line in self.forward)]

    def training(self) -> list[str]:
        """The argument of `call`, where it is read. It is handed on: `fit` on JAX tells the outermost call alone."""
        return ["training=False"] if re.search(r"\btraining\b", "\n".join(self.forward)) else []

    def _build_method(self) -> list[str]:
        if not self.builds:
            return []
        lines = [f"        {piece}" for line in self.builds for piece in self._of_self(line).split("\n")]
        return ["    def build(self, input_shape):", *lines, ""]

    def _of_self(self, line: str) -> str:
        """A line in the constructor's terms, in those of another method."""
        for name, kept in self.kept.items():
            line = re.sub(rf"(?<![\w.]){name}(?!\w)(?!\s*=[^=])", f"self.{kept}", line)
        return line

    def rest(self, params: list[Param]) -> list[str]:
        """What saving and loading need beside the weights."""
        loads = COMPILE_FROM_CONFIG if self.root and self.module.network.settings.loss is not None else []
        names = [*(p.name for p in params), *(n for n in self.signature if n not in {p.name for p in params})]
        names += [keras_network.steps_argument(self)] if keras_network.steps_argument(self) else []
        if not names:
            return loads
        entries = [f'"{n}": self.{self.kept.get(n, n)}' for n in names]
        together = f"        return {{**super().get_config(), {', '.join(entries)}}}"
        return ["", "    def get_config(self):", *wrap(together), *loads]


def _kept(param: Param, nodes: set[str]) -> str:
    """The attribute for a constructor's argument: its own name, unless a layer or Keras has that."""
    if param.name not in nodes and param.name not in TAKEN and param.name != "probabilities":
        return param.name
    return f"{param.name}_rate" if isinstance(param.arg.value, float) else f"{param.name}_"


def _with_argument(call: str, argument: str) -> str:
    return f"{call[:-1]}{'' if call.endswith('()') else ', '}{argument})"


def _quoted(name: str) -> str:
    return f'"{name}"'


def _without_hint(argument: str) -> str:
    """`x: int = 3` → `x=3`."""
    name, _, rest = argument.partition(":")
    return f"{name}={rest.rpartition(' = ')[2]}"
