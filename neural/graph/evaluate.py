"""Expressions to values that remember how they were written."""

from __future__ import annotations

import keyword
import math
from collections.abc import Callable

from neural.diagnostics.source import Span
from neural.graph.messages import Messages, Poisoned, shown
from neural.graph.suggestions import suggestion
from neural.layers.arguments import LARGEST
from neural.layers.values import Arg
from neural.syntax.tree import Argument, Binary, Call, Expr, Literal, Map, Ref, Sequence, Unary

WAYS = ("choice", "categorical", "range", "log_range")  # of choosing in HPO(…)

PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "**": 4}

# Names that generated source gives to other things.
RESERVED = {
    "B", "F", "T", "Tensor", "attention_mask", "average", "cache", "causal_mask", "device", "greatest", "input_ids",
    "last", "layer", "mask", "math", "nn", "padding", "past", "past_key_values", "position_ids", "positions",
    "rope", "rotary", "rotary_linear", "rotary_llama3", "rotate", "self", "sinusoids", "sliding_mask", "torch",
    "hidden_states", "init_weights", "logits_to_keep", "token_positions",
    "key_mask", "KVCache", "range", "super", "in_features", "Array", "S", "dataclass", "dropout_attention",
    "glorot_init", "is_matrix", "jax", "jnp", "loss_fn", "make_optimizer", "nnx", "normal_init", "np", "optax", "rngs",
    "table_init", "train_step", "add_sinusoids",
    "checkpoint", "checkpointed", "AdamW", "Adam", "SGD", "Perplexity", "attend", "hide_padding",
    "input_shape", "inputs", "keras", "JIT_COMPILE", "kwargs", "layers", "merge_heads", "name", "ops",
    "split_heads", "visible",
}  # fmt: skip


def identifier(name: str) -> str:
    """The name, or the nearest that generated source can use."""
    return f"{name}_" if keyword.iskeyword(name) or name in RESERVED else name


class Scope:
    """The parameters that a define or a network can read."""

    def __init__(
        self,
        parameters: dict[str, Arg | None],
        outer: Callable[[Ref], Arg] | None = None,
        outer_names: tuple[str, ...] = (),
    ) -> None:
        self.parameters = parameters  # None: a mistake was told, or the value is not known
        self.outer = outer
        self.outer_names = outer_names
        self.lifted: dict[str, Arg] = {}  # parameters of the file that were read
        self.places: dict[str, Span] = {}  # where a define's parameters get their values: in its call

    def names(self) -> tuple[str, ...]:
        return (*self.parameters, *self.outer_names)

    def origin(self, expr: Expr) -> Span:
        """The place to change for another value."""
        return self.places.get(expr.name, expr.span) if isinstance(expr, Ref) else expr.span

    def read(self, ref: Ref) -> Arg | None:
        if ref.name in self.parameters:
            if self.parameters[ref.name] is None:
                raise Poisoned
            return self.parameters[ref.name]
        if self.outer is None or ref.name not in self.outer_names:
            return None
        arg = self.outer(ref)
        self.lifted[ref.name] = arg
        return arg


def evaluate(
    expr: Expr, scope: Scope, messages: Messages, values: Callable[[Call, Scope], object] | None = None
) -> Arg:
    """The value of an expression. Raises Poisoned after a message. `values` makes sense of calls such as Rope(…)."""
    match expr:
        case Literal(span=span) if span is not None and span.start == span.end:
            raise Poisoned  # nothing is written here, and the parser has told
        case Literal(value=value, span=span):
            written = span.text if isinstance(value, float) and "e" in span.text else repr(value)
            return Arg(value, written, written)
        case Ref():
            return _read(expr, scope, messages)
        case Unary(operand=operand, span=span):
            arg = evaluate(operand, scope, messages, values)
            if not _number(arg):
                raise messages.error(
                    "N303", f"`-` takes a number, and this is {_kind(arg)}", operand.span, called=reads(operand)
                )
            return Arg(-arg.value, f"-{_bracket(arg.text, 3)}", f"-{_bracket(arg.root, 3)}")
        case Sequence(kind=kind, items=items):
            args = [evaluate(i, scope, messages, values) for i in items]
            close = "()" if kind == "tuple" else "[]"
            comma = "," if kind == "tuple" and len(args) == 1 else ""
            text, root = (
                f"{close[0]}{', '.join(parts)}{comma}{close[1]}"
                for parts in ([a.text for a in args], [a.root for a in args])
            )
            return Arg(tuple(a.value for a in args), text, root)
        case Binary():
            return _binary(expr, scope, messages, values)
        case Call(callee=callee) if callee.text == "HPO":
            return _first_choice(expr, scope, messages)
        case Call(callee=callee, span=span):
            if values is None:
                raise messages.error(
                    "N304", f"`{callee.text}(…)` is not a value", span, "expected a number, a string or the like"
                )
            return Arg(values(expr, scope), f"{callee.text}(…)", f"{callee.text}(…)")
        case Map(span=span):
            raise messages.error("N304", "`{ … }` is not a value here", span, "expected a number, a string or the like")
    raise AssertionError(expr)


def _read(ref: Ref, scope: Scope, messages: Messages) -> Arg:
    arg = scope.read(ref)
    if arg is not None:
        return arg
    otherwise = f"bind it: `param {ref.name} = 2` in the file, or `--set {ref.name}=2` on the command line"
    help_ = suggestion(ref.name, scope.names(), ref.span, otherwise, "$" * ref.dollar)
    if "fix" not in help_:
        help_["label"] = "no parameter has this name"
    raise messages.error("N201", f"`{ref.name}` is bound nowhere", ref.span, **help_)


def _number(arg: Arg) -> bool:
    return isinstance(arg.value, int | float) and not isinstance(arg.value, bool)


def _kind(arg: Arg) -> str:
    names = {str: "the string ", tuple: "the tuple "}
    return names.get(type(arg.value), "") + shown(arg.value)


def reads(expr: Expr) -> bool:
    """Whether an expression reads a parameter."""
    queue = [expr]
    while queue:
        match queue.pop():
            case Ref():
                return True
            case Unary(operand=operand):
                queue.append(operand)
            case Binary(left=left, right=right):
                queue += (left, right)
            case Sequence(items=items):
                queue += items
            case Call(arguments=arguments):
                queue += (a.value for a in arguments)
    return False


def _bracket(text: str, precedence: int) -> str:
    """Text in brackets where it binds more loosely than `precedence`."""
    depth, lowest = 0, 9
    previous = ""
    for i, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        if depth == 0 and c in "+-*/" and i:
            operand_before = previous not in "+-*/" or previous == ""
            exponent = c in "+-" and text[i - 1] in "eE" and text[max(0, i - 2)].isdigit()
            if operand_before and not exponent:
                double = text[i : i + 2] in ("**", "//")
                lowest = min(lowest, PRECEDENCE[text[i : i + 2] if double else c])
        if c != " ":
            previous = c
    if text.startswith("-"):
        lowest = min(lowest, 3)
    return f"({text})" if lowest < precedence else text


def _binary(expr: Binary, scope: Scope, messages: Messages, values) -> Arg:
    chain = []
    while isinstance(expr, Binary):  # a long sum is a left-deep tree: walk it without recursion
        chain.append(expr)
        expr = expr.left
    result = evaluate(expr, scope, messages, values)
    for node in reversed(chain):
        result = _apply(node, result, evaluate(node.right, scope, messages, values), messages)
    return result


def _apply(node: Binary, left: Arg, right: Arg, messages: Messages) -> Arg:
    for side, arg in ((node.left, left), (node.right, right)):
        if not _number(arg):
            title = f"`{node.op}` takes numbers, and this is {_kind(arg)}"
            raise messages.error("N303", title, side.span, called=reads(side))
    op, value = node.op, _compute(node, left.value, right.value, messages)
    if op == "/" and isinstance(value, int):
        op = "//"
    p = PRECEDENCE[op]
    pair = [
        (_bracket(a, p + (op == "**")), _bracket(b, p + (op in ("-", "/", "//", "*"))))
        for a, b in ((left.text, right.text), (left.root, right.root))
    ]
    return Arg(value, *(f"{a} {op} {b}" for a, b in pair))


def _compute(node: Binary, a, b, messages: Messages):
    try:
        match node.op:
            case "+":
                value = a + b
            case "-":
                value = a - b
            case "*":
                value = a * b
            case "/":
                value = a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else a / b
            case _:
                value = _power(a, b)
    except ZeroDivisionError:
        raise messages.error("N305", "a division by zero", node.right.span, "this is 0", called=reads(node)) from None
    except (OverflowError, ValueError):
        value = math.inf
    if isinstance(value, complex):
        label = f"{shown(a)} is below zero"
        raise messages.error("N306", "the result is not a real number", node.span, label, called=reads(node))
    if (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, int) and abs(value) > LARGEST):
        raise messages.error("N306", "the result is too large", node.span, "beyond 64 bits", called=reads(node))
    return value


def _power(a, b):
    if isinstance(a, int) and isinstance(b, int) and abs(a) > 1 and b * abs(a).bit_length() > 256:
        raise OverflowError
    return a**b


def _first_choice(call: Call, scope: Scope, messages: Messages) -> Arg:
    """HPO(…) outside a search: its first or lowest value."""
    forms = "HPO(choice(a, b, …)), HPO(range(low, high, step=…)) or HPO(log_range(low, high))"
    inner = call.arguments[0].value if len(call.arguments) == 1 else None
    if not isinstance(inner, Call) or inner.callee.text not in WAYS:
        place = inner.callee if isinstance(inner, Call) else None
        help_ = suggestion(place.text, WAYS, place.span, f"write {forms}") if place else {"hint": f"write {forms}"}
        raise messages.error("N307", "HPO takes one way of choosing", place.span if place else call.span, **help_)
    positional = [a for a in inner.arguments if a.name is None]
    named = {a.name.text: a for a in inner.arguments if a.name}
    values = [evaluate(a.value, scope, messages) for a in positional]
    if inner.callee.text in ("choice", "categorical"):
        if not values or named:
            hint = f"write HPO({inner.callee.text}(a, b, …))"
            raise messages.error("N307", f"{inner.callee.text} takes one or more values", inner.span, hint=hint)
    else:
        _check_range(inner, values, named, scope, messages)
    first = values[0]
    messages.note("N308", f"outside a search this is {shown(first.value)}", call.span, "the first or lowest value")
    return Arg.of(first.value)


def _check_range(inner: Call, values: list[Arg], named: dict[str, Argument], scope: Scope, messages: Messages) -> None:
    unknown = set(named) - ({"step"} if inner.callee.text == "range" else set())
    numbers = all(_number(v) for v in values)
    if (
        len(values) != 2
        or unknown
        or not numbers
        or values[0].value > values[1].value
        or (inner.callee.text == "log_range" and values[0].value <= 0)
    ):
        expected = "low and high, low not above high" + (" and above 0" if inner.callee.text == "log_range" else "")
        form = "HPO(range(low, high, step=…))" if inner.callee.text == "range" else "HPO(log_range(low, high))"
        raise messages.error("N307", f"{inner.callee.text} takes {expected}", inner.span, hint=f"write {form}")
    if "step" in named:
        step = evaluate(named["step"].value, scope, messages)
        if not _number(step) or step.value <= 0:
            raise messages.error("N307", "a step is a number above 0", named["step"].span)
