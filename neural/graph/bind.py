"""Arguments as written to arguments as declared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import MISSING

from neural.diagnostics.diagnostic import Edit, Fix, Label
from neural.diagnostics.near import nearest
from neural.diagnostics.source import Span
from neural.graph.evaluate import Scope, evaluate
from neural.graph.messages import Messages, Poisoned
from neural.layers.arguments import Parameter, parameters
from neural.layers.attention import Rope
from neural.layers.values import Arg
from neural.syntax.tree import Argument, Call, Expr

CALLS = {"Rope": Rope}  # what may stand as the value of an argument


def bind(
    owner: str,
    declared: Iterable[Parameter],
    written: Iterable[Argument],
    scope: Scope,
    messages: Messages,
    place: Span,
    skip: Callable[[str], bool] = lambda _: False,
) -> tuple[dict[str, Arg], dict[str, Span]]:
    """The value and the place of each argument that is written. Raises Poisoned after the messages."""
    by_name = {p.name: p for p in declared}
    values: dict[str, Arg] = {}
    places: dict[str, Span] = {}
    broken = False
    open_names = [n for n in by_name]
    for argument in written:
        if argument.name is not None and skip(argument.name.text):
            continue
        try:
            name = _name_of(owner, argument, by_name, open_names, places, messages)
            places[name] = argument.value.span
            values[name] = _accepted(by_name[name], owner, argument.value, scope, messages)
        except Poisoned:
            broken = True
    missing = [p for p in by_name.values() if p.required and p.name not in places]
    if missing and not broken:
        names = ", ".join(f"`{p.name}`" for p in missing)
        docs = tuple(f"{p.name}: {p.doc}" for p in missing if p.doc)
        hint = f"write {owner}({', '.join(f'{p.name}=…' for p in missing)})"
        messages.error("N302", f"{owner} needs {names}", place, "missing here", notes=docs, hint=hint)
    if broken or missing:
        raise Poisoned
    return values, places


def _name_of(owner: str, argument: Argument, by_name, open_names: list[str], places: dict[str, Span], messages: Messages) -> str:
    if argument.name is None:
        free = [n for n in open_names if n not in places]
        if not free:
            many = len(by_name)
            raise messages.error("N309", f"{owner} takes {many} argument{'s' * (many != 1)}", argument.span, "one too many")
        return free[0]
    name = argument.name.text
    if name not in by_name:
        near = nearest(name, by_name)
        fix = near and Fix(f"rename it to `{near}`", (Edit(argument.name.span, near),))
        hint = f"did you mean `{near}`?" if near else f"{owner} takes {', '.join(by_name) or 'no arguments'}"
        raise messages.error("N301", f"{owner} has no argument `{name}`", argument.name.span, "unknown", hint=hint, fix=fix)
    if name in places:
        second = (Label(places[name], "given here already"),)
        raise messages.error("N310", f"`{name}` is given twice", argument.span, secondary=second)
    return name


def _accepted(parameter: Parameter, owner: str, expr: Expr, scope: Scope, messages: Messages) -> Arg:
    arg = evaluate(expr, scope, messages, lambda call, s: _call(call, s, messages))
    kind = parameter.kind
    if kind.accepts(arg.value):
        return arg
    shown = f"{arg.root} = {arg.value!r}" if arg.root != repr(arg.value) else repr(arg.value)
    near = nearest(arg.value, kind.choices) if kind.choices and isinstance(arg.value, str) else None
    fix = near and expr.span.text[:1] in "\"'" and Fix(f'write "{near}"', (Edit(expr.span, f'"{near}"'),)) or None
    hint = f'did you mean "{near}"?' if near else None
    raise messages.error("N311", f"{owner}'s `{parameter.name}` takes {kind.expected}", expr.span, f"this is {shown}", hint=hint, fix=fix)


def _call(call: Call, scope: Scope, messages: Messages) -> object:
    cls = CALLS.get(call.callee.text)
    if cls is None:
        near = nearest(call.callee.text, CALLS)
        raise messages.error("N304", f"`{call.callee.text}(…)` is not a value here", call.span, hint=f"did you mean `{near}`?" if near else None)
    values, _ = bind(call.callee.text, parameters(cls), call.arguments, scope, messages, call.span)
    return cls(**values)


def with_defaults(declared: Iterable[Parameter], values: dict[str, Arg]) -> dict[str, Arg]:
    """All arguments, those that are not written by their defaults."""
    return {p.name: values.get(p.name, p.default) for p in declared if p.name in values or p.default is not MISSING}
