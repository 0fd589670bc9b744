"""A network as one line of primitive steps, blocks and copies written out, and who reads what."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from neural.diagnostics.source import Span
from neural.graph.graph import Block
from neural.layers.activation import Activation
from neural.layers.dense import Dense
from neural.layers.layer import Layer
from neural.layers.reshaping import Dropout
from neural.layers.values import Arg


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A primitive in its place. Values have names that are unique in the network."""

    layer: Layer
    path: str  # prefix of its weights: "blocks.3.attn.qkv"
    span: Span | None  # its own, or that of the statement that it is part of
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    widths: tuple[int, ...]  # the last axis of each input
    weights: dict[str, tuple[int, ...]]  # its own names and shapes

    @property
    def kind(self) -> str:
        return type(self.layer).__name__


class Flat:
    """The steps of a block in order. Dropout and linear activations, which change no number, are seen through;
    a Dense with an activation is a Dense and an Activation.

    input: the value that enters; output: the one that leaves.
    """

    def __init__(self, block: Block) -> None:
        self.steps: list[Step] = []
        self.dropouts: list[float] = []  # the rates that were seen through
        self.input = "input"
        self.output = self._run(block, ("input",) * len(block.inputs), "", None)
        self.readers: dict[str, list[Step]] = defaultdict(list)
        self.maker: dict[str, Step] = {}
        for step in self.steps:
            for value in dict.fromkeys(step.inputs):
                self.readers[value].append(step)
            self.maker.update(dict.fromkeys(step.outputs, step))

    def _run(self, block: Block, inputs: tuple[str, ...], prefix: str, span: Span | None) -> str:
        known = dict(zip((v.name for v in block.inputs), inputs, strict=True))
        values = block.values()
        for node in block.nodes:
            given = tuple(known[i] for i in node.inputs)
            place = node.span or span
            for i in range(node.copies):
                path = f"{prefix}{node.name}" + (f".{i}" if node.repeat is not None else "")
                if isinstance(node.layer, Block):
                    given = (self._run(node.layer, given, f"{path}.", place),)
                    continue
                shapes = tuple(values[i] for i in node.inputs)
                owned = {w.name: w.shape for w in node.layer.weights(*shapes)}
                made = tuple(f"{path}:{v.name}" for v in node.outputs)
                widths = tuple(v.shape[-1].value for v in shapes)
                given = self._step(Step(node.layer, path, place, given, made, widths, owned))
            known.update(zip((v.name for v in node.outputs), given, strict=True))
        return known[block.outputs[0]]

    def _step(self, step: Step) -> tuple[str, ...]:
        """Append it; returns the values that it gives."""
        if isinstance(step.layer, Dropout):
            self.dropouts.append(float(step.layer.rate.value))
            return step.inputs
        if isinstance(step.layer, Activation) and step.layer.activation.value == "linear":
            return step.inputs
        self.steps.append(step)
        function = step.layer.activation if isinstance(step.layer, Dense) else Arg.of("linear")
        if function.value == "linear":
            return step.outputs
        made = (f"{step.path}:activated",)
        widths = (step.layer.units.value,)
        self.steps.append(Step(Activation(function), step.path, step.span, step.outputs, made, widths, {}))
        return made
