"""The edge of a block: what enters it, in the terms of its own parameters."""

from __future__ import annotations

from dataclasses import replace

from neural.graph import shorthand
from neural.graph.builder import BlockBuilder
from neural.graph.evaluate import Scope, evaluate, identifier
from neural.graph.graph import Block, Param
from neural.graph.messages import Messages, Poisoned
from neural.layers.layer import Composite
from neural.layers.values import Arg, Value
from neural.syntax.tree import Define, Ref

# What the axes of a block's input are called where no parameter gives them.
ADDED = ("d_model", "in_features", "length")


def inward(outer: Value, bound: list[tuple[str, Arg, Arg]], scope: Scope, widths: set[str] = frozenset()) -> Value:
    """The input in the terms of the block: its width by a parameter that has the value, else by one that is added."""

    def inside(axis: Arg, last: bool) -> Arg:
        if axis.axis == "B":
            return axis
        equal = [
            (own, passed.text == axis.text, n in widths)
            for n, own, passed in bound
            if type(passed.value) is int and passed.value == axis.value
        ]
        if last and equal:
            return replace(axis, text=max(equal, key=lambda e: e[1:])[0].text)
        features = "d_model" if len(outer.shape) == 3 else "in_features"
        added = features if last and outer.dtype != "int64" else "length"
        return replace(axis, text=added if added not in scope.names() else f"{added}_in")

    return Value("x", tuple(inside(a, i == len(outer.shape) - 1) for i, a in enumerate(outer.shape)), outer.dtype)


def widths_of(define: Define) -> set[str]:
    """Parameters that the body uses as a width. An attention's arguments are none, whether it is written out or not."""
    found = set()
    for statement in shorthand.every(define.body):
        for argument in statement.arguments if statement.layer.text != "Attention" else ():
            keyed = argument.name and (
                argument.name.text in ("units", "output_dim")
                or (isinstance(argument.value, Ref) and argument.value.name == argument.name.text)
            )
            if isinstance(argument.value, Ref) and keyed:
                found.add(argument.value.name)
    return found


def added_axes(inner: Value, outer: Value, params: tuple[Param, ...]) -> tuple[list[Param], list[tuple[str, Arg]]]:
    """Constructor arguments for the axes of the input that no parameter gives, and what is passed for them."""
    own = {p.name for p in params}
    axes = [
        (i, o)
        for i, o in zip(inner.shape, outer.shape, strict=True)
        if i.axis != "B" and i.text.startswith(ADDED) and i.text not in own
    ]
    return [Param(i.text, i) for i, _ in axes], [(i.text, o) for i, o in axes]


def lower_composite(
    layer: Composite, name: str, inputs: tuple[Value, ...], given: dict[str, Arg]
) -> tuple[Block, tuple]:
    """The block of a layer that is made of others, and what is given to its constructor."""
    bound = {
        n: Arg(a.value, n, a.root) for n, a in given.items() if a.value is not None and not isinstance(a.value, bool)
    }
    inner = inward(inputs[0], [(n, bound[n], given[n]) for n in bound], Scope(bound))
    builder = BlockBuilder((inner,))
    inside = replace(layer, **bound)

    def build(cls: type, *values: Value, name: str | None = None, **arguments: Arg) -> Value:
        return builder.add(cls(**arguments), values, name=name, kind=cls.__name__).outputs[0]

    out = inside.body(build, inner)
    params, passed = added_axes(inner, inputs[0], ())
    params += [Param(n, a) for n, a in bound.items()]
    return builder.finish(name, tuple(params), out), (*passed, *((n, given[n]) for n in bound))


def parameters_of(define: Define, given: dict[str, Arg], scope: Scope, messages: Messages) -> tuple[Param, ...]:
    """The constructor's arguments; those that are not given are evaluated into the scope."""
    required, optional = [], []
    for p in define.parameters:
        name = p.name.text
        default = None
        if p.default is not None:
            try:
                value = evaluate(p.default, scope, messages)
                default = value.text
                if name not in given:
                    scope.parameters[name] = Arg(value.value, identifier(name), value.root)
            except Poisoned:
                scope.parameters.setdefault(name, None)
        arg = scope.parameters.get(name) or Arg.of(None)
        (required if default is None else optional).append(Param(identifier(name), arg, default))
    return (*required, *optional)
