"""What a statement reads: the values and the layers that its arguments name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from neural.diagnostics.diagnostic import Edit, Fix, Label
from neural.diagnostics.source import Span
from neural.graph.bind import check_quotes, no_value
from neural.graph.builder import BlockBuilder
from neural.graph.evaluate import Scope
from neural.graph.graph import Block, Node, Tie
from neural.graph.messages import Messages, Poisoned
from neural.graph.suggestions import suggestion
from neural.layers import REGISTRY
from neural.layers.arguments import parameters
from neural.layers.values import Value
from neural.syntax.tree import Argument, Call, Literal, Ref, Statement

SPECIAL = ("tied_to", "weights")  # arguments that every layer takes


@dataclass
class Frame:
    """What the statements of one block see."""

    scope: Scope
    builder: BlockBuilder
    values: dict[str, Value | None]  # by the author's names; None after a mistake
    layers: dict[str, Node] = field(default_factory=dict)
    coming: set[str] = field(default_factory=set)  # names that statements give; those below are not values yet


def inputs_of(
    statement: Statement, running: Value | None, frame: Frame, messages: Messages
) -> tuple[tuple[Value | None, ...], tuple[Argument, ...]]:
    """The values that the first positional arguments name, and the arguments that are left."""
    named: list[Value | None] = []
    for argument in statement.arguments:
        ref = argument.value
        if argument.name is not None or not isinstance(ref, Ref) or ref.dollar or ref.name not in frame.values:
            break
        named.append(frame.values[ref.name])
    rest = statement.arguments[len(named) :]
    for argument in rest:
        late = argument.value
        if argument.name is None and isinstance(late, Ref) and not late.dollar and late.name in frame.values:
            if isinstance(rest[0].value, Call):
                raise no_value(rest[0].value, messages)
            first = Label(rest[0].span, "an argument")
            hint = f"values come first: `{statement.layer.text}({late.name}, …)`"
            title = f"the value `{late.name}` stands behind an argument"
            raise messages.error("N208", title, argument.span, secondary=(first,), hint=hint)
        if argument.name is None and isinstance(late, Ref) and not late.dollar and late.name not in frame.scope.names():
            _no_value(late, statement, frame, messages)
    return tuple(named) or (running,), rest


def _no_value(ref: Ref, statement: Statement, frame: Frame, messages: Messages) -> None:
    choices = [c for p in parameters(REGISTRY.get(statement.layer.text, Frame)) for c in p.kind.choices]
    check_quotes(ref, choices, frame.scope, messages)
    title = f"no value and no parameter is called `{ref.name}`"
    if ref.name in frame.coming:
        hint = "move its statement above this one"
        raise messages.error("N209", title, ref.span, "it is made further down", hint=hint)
    known = [*frame.values, *frame.scope.names()]
    parameter = f"`param {ref.name} = 2` or `--set {ref.name}=2`"
    otherwise = f"name a value above, `{ref.name} = Layer(…)`, or bind a parameter, {parameter}"
    help_ = suggestion(ref.name, known, ref.span, otherwise)
    raise messages.error("N209", title, ref.span, **help_)


def known(inputs: tuple[Value | None, ...]) -> tuple[Value, ...]:
    """The values, none of which is the place of a mistake."""
    if any(v is None for v in inputs):
        raise Poisoned
    return inputs


def check_arity(
    cls: type, name: str, inputs: tuple[Value | None, ...], statement: Statement, messages: Messages
) -> None:
    """Tell of too few or too many values."""
    low, high = cls.arity
    if not low <= len(inputs) <= high:
        wanted = (
            f"{low} or more values"
            if high > 9
            else f"{low} to {high} values"
            if high > low
            else f"{low} value{'s' * (low != 1)}"
        )
        joined = "join them first: `Concatenate(a, b)` or `Add(a, b)`"
        hint = f"name them: `a = …`, `b = …`, then `{name}(a, b)`" if low > 1 else joined
        raise messages.error("N403", f"{name} takes {wanted}, and has {len(inputs)}", statement.layer.span, hint=hint)


def readable(
    cls: type, inputs: tuple[Value | None, ...], statement: Statement, messages: Messages
) -> tuple[Value, ...]:
    """The inputs, when they are known and none is ids that this layer would take for numbers."""
    found = known(inputs)
    if any(v.dtype == "int64" for v in found) and not cls.takes_ids:
        title = f"{statement.layer.text} takes numbers, and this input is token ids"
        raise messages.error(
            "N405", title, statement.layer.span, hint="put an Embedding between the input and this layer"
        )
    return found


def special(statement: Statement, frame: Frame, messages: Messages) -> tuple[str | None, Node | None, Argument | None]:
    """`weights="…"` and `tied_to=name`: the file, the layer, and where it is named."""
    weights = tied = place = None
    for argument in statement.arguments:
        if argument.name is None or argument.name.text not in SPECIAL:
            continue
        if argument.name.text == "weights":
            if not isinstance(argument.value, Literal) or not isinstance(argument.value.value, str):
                hint = 'write it in quotes: `weights="model.safetensors"`'
                raise messages.error("N312", "`weights` takes the name of a file", argument.value.span, hint=hint)
            weights = argument.value.value
            check_weights(weights, argument.value.span, messages)
            continue
        ref = argument.value
        place = argument
        tied = frame.layers.get(ref.name) if isinstance(ref, Ref) else None
        if tied is None and isinstance(ref, Ref) and ref.name in frame.values and frame.values[ref.name] is None:
            raise Poisoned  # the layer of that name has a mistake of its own
        if tied is None:
            name = ref.name if isinstance(ref, Ref) else ref.value if isinstance(ref, Literal) else None
            otherwise = "name a layer above, in the same block: `tokens = Embedding(…)`, then `tied_to=tokens`"
            help_ = {"hint": otherwise}
            if isinstance(name, str):
                help_ = suggestion(name, frame.layers, ref.span, otherwise)
            if name in frame.layers:
                help_ = {"label": "without quotes", "fix": Fix(f"write `{name}`", (Edit(ref.span, name),))}
            raise messages.error("N210", "`tied_to` takes the name of a layer", ref.span, **help_)
    return weights, tied, place


def check_weights(file: str, span: Span, messages: Messages) -> None:
    """Warn of weights that are not there yet."""
    try:
        there = file.startswith("hf:") or (Path(span.source.name).parent / file).exists()
    except OSError:  # a name that no file can have
        there = False
    if not there:
        messages.warning("N211", f"there is no file {file} yet", span, "needed when the program runs")


def tie(node: Node, source: Node, place: Argument, frame: Frame, messages: Messages) -> None:
    """Share the weight of `source` with `node`."""
    values = {v.name: v for v in (*frame.builder.inputs, *(v for n in frame.builder.nodes for v in n.outputs))}
    shapes = []
    for n in (source, node):
        own = (
            {}
            if isinstance(n.layer, Block)
            else {w.name: w.shape for w in n.layer.weights(*(values[i] for i in n.inputs))}
        )
        shapes.append(own.get("weight") if n.repeat is None else None)
    if None in shapes or any(len(s) != 2 for s in shapes):
        title = "only layers with one matrix share it: Dense, Output and Embedding"
        raise messages.error(
            "N210", title, place.value.span, secondary=_seen(source, "this has none") if shapes[0] is None else ()
        )
    if shapes[0] != shapes[1] and shapes[0] != shapes[1][::-1]:
        title = f"a weight of {shapes[1]} cannot be one of {shapes[0]}"
        raise messages.error(
            "N413", title, place.value.span, "the other layer's", secondary=_seen(source, f"this is {shapes[0]}")
        )
    transposed = shapes[0] != shapes[1]
    if transposed and not hasattr(node.layer, "use_bias"):
        raise messages.error("N413", f"a table of {shapes[1]} cannot be a weight of {shapes[0]}", place.value.span)
    frame.builder.ties.append(Tie(node.name, source.name, transposed))


def _seen(node: Node, text: str) -> tuple[Label, ...]:
    return (Label(node.span, text),) if node.span else ()


def warn_of_unread(block: Block, messages: Messages) -> None:
    """Tell of statements whose value goes nowhere; after a mistake their reader may be what is missing."""
    if messages.errors:
        return
    read = {name for node in block.nodes for name in node.inputs} | set(block.outputs)
    for node in block.nodes:
        if node.span and not any(v.name in read for v in node.outputs):
            hint = "remove it, or name it and read it below"
            messages.warning(
                "N214", "nothing reads the value of this statement", node.span, "computed in vain", hint=hint
            )
