"""Arguments as written to arguments as declared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import MISSING

from neural.diagnostics.diagnostic import Edit, Fix, Label
from neural.diagnostics.source import Span
from neural.graph.evaluate import Scope, evaluate, reads
from neural.graph.messages import Messages, Poisoned, shown
from neural.graph.suggestions import meant, suggestion
from neural.layers.arguments import LARGEST, Kind, Parameter, parameters
from neural.layers.rotary import Rope
from neural.layers.values import Arg
from neural.syntax.tree import Argument, Binary, Call, Expr, Ref

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
    arguments = [a for a in written if a.name is None or not skip(a.name.text)]
    _check_number(owner, arguments, by_name, messages)
    values: dict[str, Arg] = {}
    places: dict[str, Span] = {}
    broken = False
    for argument in arguments:
        name = None
        try:
            name = _name_of(owner, argument, by_name, places, messages)
            places[name] = scope.origin(argument.value)
            values[name] = _accepted(by_name[name], owner, argument.value, scope, messages)
        except Poisoned:
            name = name or (argument.name and meant(argument.name.text, by_name))
            if name is None or by_name[name].stand_in is None:
                broken = True
            else:
                values.setdefault(name, by_name[name].stand_in)
                places.setdefault(name, argument.value.span)
    missing = [p for p in by_name.values() if p.required and p.name not in places]
    if missing and not broken:
        names = [f"`{p.name}`" for p in missing]
        title = f"{owner} needs {', '.join(names[:-1])}{' and ' * (len(names) > 1)}{names[-1]}"
        docs = tuple(f"{p.name}: {p.doc}" for p in missing if p.doc)
        hint = f"add {', '.join(f'`{p.name}=…`' for p in missing)}"
        messages.error("N302", title, place, "missing here", notes=docs, hint=hint)
    if broken or missing:
        raise Poisoned
    return values, places


def _check_number(owner: str, written: list[Argument], by_name: dict[str, Parameter], messages: Messages) -> None:
    positional = [a for a in written if a.name is None]
    if len(positional) > len(by_name):
        first = positional[len(by_name)]
        hint = f"it takes {', '.join(by_name)}" if by_name else f"write `{owner}()`"
        title = f"{owner} takes {len(by_name) or 'no'} argument{'s' * (len(by_name) != 1)}, and has {len(positional)}"
        raise messages.error("N309", title, first.span, "one too many", hint=hint)


def _name_of(
    owner: str, argument: Argument, by_name: dict[str, Parameter], places: dict[str, Span], messages: Messages
) -> str:
    if argument.name is None:
        free = next((n for n in by_name if n not in places), None)
        if free is None:  # it stands behind named ones, and the parser has told
            raise Poisoned
        return free
    name = argument.name.text
    if name not in by_name:
        hint = f"{owner} takes {', '.join(by_name) or 'no arguments'}"
        help_ = suggestion(name, by_name, argument.name.span, hint)
        raise messages.error("N301", f"{owner} has no argument `{name}`", argument.name.span, **help_)
    if name in places:
        second = (Label(places[name], "given here already"),)
        raise messages.error(
            "N310", f"`{name}` is given twice", argument.span, "again here", secondary=second, hint="keep one"
        )
    return name


def _accepted(parameter: Parameter, owner: str, expr: Expr, scope: Scope, messages: Messages) -> Arg:
    kind = parameter.kind
    check_quotes(expr, kind.choices, scope, messages)
    arg = evaluate(expr, scope, messages, lambda call, s: _call(call, s, messages))
    if kind.accepts(arg.value):
        return arg
    place = scope.origin(expr)
    called = reads(expr) and place is expr.span
    used = () if place is expr.span else (Label(expr.span, "used here"),)
    if isinstance(arg.value, int) and abs(arg.value) > LARGEST:
        raise messages.error("N306", "the number is too large", place, "beyond 64 bits", secondary=used, called=called)
    if kind.choices and isinstance(arg.value, str):
        help_ = suggestion(arg.value, kind.choices, place, f"it takes {kind.expected}", '"')
        if called:
            help_.pop("fix", None)
        title = f"{owner}'s `{parameter.name}` cannot be {shown(arg.value)}"
        raise messages.error("N311", title, place, secondary=used, called=called, **help_)
    written = f"{arg.root} = " if reads(expr) and arg.root != repr(arg.value) else ""
    title = f"{owner}'s `{parameter.name}` takes {kind.expected}"
    hint = _whole_hint(arg.value, expr, kind)
    label = f"this is {written}{shown(arg.value)}"
    raise messages.error("N311", title, place, label, secondary=used, hint=hint, called=called)


def check_quotes(expr: Expr, choices: Iterable[str], scope: Scope, messages: Messages) -> None:
    """Tell of a bare word that is one of the strings that may stand here."""
    if not isinstance(expr, Ref) or expr.dollar or expr.name in scope.names():
        return
    strings = tuple(choices)
    chosen = expr.name if expr.name in strings else meant(expr.name, strings)
    if chosen:
        fix = Fix(f'write "{chosen}"', (Edit(expr.span, f'"{chosen}"'),))
        label = f'did you mean the string "{chosen}"?'
        raise messages.error("N201", f"`{expr.name}` is bound nowhere", expr.span, label, fix=fix)


def _whole_hint(value: object, expr: Expr, kind: Kind) -> str | None:
    """What to do where a whole number was needed and a fraction came."""
    if not isinstance(value, float) or not kind.accepts(1) or kind.accepts(1.5):
        return None
    if value.is_integer() and kind.accepts(int(value)):
        return f"write {int(value)}, without a fraction"
    if isinstance(expr, Binary) and expr.op == "/":
        return "the division leaves a rest: choose numbers that divide evenly"
    return None


def _call(call: Call, scope: Scope, messages: Messages) -> object:
    name = call.callee.text
    if name not in CALLS:
        raise no_value(call, messages)
    values, _ = bind(name, parameters(CALLS[name]), call.arguments, scope, messages, call.span)
    return CALLS[name](**values)


def no_value(call: Call, messages: Messages) -> Poisoned:
    """Tell of a call where only values stand."""
    name = call.callee.text
    layer = f"give it a line of its own, `a = {name}(…)`, and name `a` first in this statement"
    title, hint = f"`{name}(…)` is not a value", layer if name[:1].isupper() else None
    return messages.error("N304", title, call.span, "expected a number, a string or the like", hint=hint)


def with_defaults(declared: Iterable[Parameter], values: dict[str, Arg]) -> dict[str, Arg]:
    """All arguments, those that are not written by their defaults."""
    return {p.name: values.get(p.name, p.default) for p in declared if p.name in values or p.default is not MISSING}
