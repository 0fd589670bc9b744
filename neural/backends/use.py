"""How a model is used, in every source: what it says of itself, its probabilities, and what its module does alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from neural.backends.writer import drawn
from neural.graph.graph import Network
from neural.graph.ids import embedding

if TYPE_CHECKING:
    from neural.backends.writer import ClassWriter


def outcome(network: Network) -> str:
    """What the model gives, in a sentence."""
    return "the logits" if network.activation else "the output"


def docstring(writer: ClassWriter, takes: list[str]) -> list[str]:
    """Of the forward pass. takes: the lines that say what its arguments are."""
    block = writer.block
    out = drawn(writer.values[block.outputs[0]].shape)
    sources = ", ".join(f"{v.name} {drawn(v.shape)}" for v in block.inputs)
    what = "Logits" if writer.module.network.activation else "The output"
    first = f'"""{what} {out} of {sources}.'
    lines = [first, "", *takes, '"""'] if takes else [f'{first}"""']
    return [f"        {line}".rstrip() for line in lines]


def padding(network: Network) -> str:
    """What an attention mask is."""
    length = "past + T" if network.cached else "T"
    return f"attention_mask: (B, {length}), 1 for tokens and 0 for padding on the right."


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
