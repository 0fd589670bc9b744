"""How a model is used, in every source: its probabilities, and what its module does when it is run by itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from neural.backends.writer import drawn
from neural.graph.graph import Network
from neural.graph.ids import embedding

if TYPE_CHECKING:
    from neural.backends.writer import ClassWriter


def probabilities(writer: ClassWriter, signature: str, expression: str) -> list[str]:
    """The method that makes probabilities of logits. expression: of them, where {} stands for softmax or sigmoid."""
    activation = writer.module.network.activation
    shape = drawn(writer.values[writer.block.outputs[0]].shape)
    return [
        "",
        f"    def probabilities(self, {signature}:",
        f'        """The {activation} of the logits, {shape}."""',
        f"        return {expression.format(activation)}",
    ]


def example_inputs(network: Network, ids: str, numbers: str) -> dict[str, str]:
    """An expression for each input. ids: with the {length} and how many {rows} there are; numbers: with {sizes}."""
    found = {}
    for value in network.block.inputs:
        if value.dtype == "int64":
            rows = embedding(network.block, value.name).input_dim.value
            found[value.name] = ids.format(length=min(value.shape[1].value, 64), rows=rows)
        else:
            found[value.name] = numbers.format(sizes=", ".join(str(a.value) for a in value.shape[1:]))
    return found


def main_block(network: Network, lines: list[str], inputs: Iterable[str], shape: str) -> str:
    """What the module does when it is run by itself: one forward pass, and its size. shape: of {}, in an f-string."""
    shows = ", ".join(f"{name} {shape.format(name)}" for name in inputs)
    lines = [
        *lines,
        f'print(f"{network.name}: {{size:,}} parameters")',
        f'print(f"{shows} → {shape.format("output")}")',
    ]
    return "\n".join(['if __name__ == "__main__":', *(f"    {line}" for line in lines)]) + "\n"
