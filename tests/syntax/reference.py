"""docs/grammar.lark as a parser: the same shapes as tests/syntax/shapes.py, by another road."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lark import Lark, Token, Transformer, Tree
from lark.exceptions import LarkError

from neural.syntax.literals import read_string

GRAMMAR = Path(__file__).parents[2] / "docs" / "grammar.lark"
WORDS = {"true": True, "false": False, "none": None}


@cache
def grammar() -> Lark:
    return Lark(GRAMMAR.read_text(), parser="lalr", maybe_placeholders=False)


def accepts(text: str) -> bool:
    try:
        grammar().parse(text.removeprefix("\ufeff"))
    except LarkError:
        return False
    return True


def reference_shape(text: str) -> object:
    return _Shape().transform(grammar().parse(text.removeprefix("\ufeff")))


def _literal(value: object) -> tuple:
    return ("Literal", type(value).__name__, repr(value))


def _number(token: Token) -> int | float:
    digits = str(token).replace("_", "")
    return int(digits) if digits.isdigit() else float(digits)


def _operation(op: str):
    return lambda self, children: ("Binary", op, *children)


class _Shape(Transformer):
    def start(self, items):
        return tuple(items)

    def import_(self, children):
        return ("Import", _literal(read_string(children[0])[0]))

    def param(self, children):
        return ("Param", str(children[0]), children[1])

    def define(self, children):
        name, *parameters, body = children
        return ("Define", str(name), parameters[0] if parameters else (), body)

    def network(self, children):
        return ("Network", str(children[0]), tuple(children[1:]))

    def parameters(self, children):
        return tuple(children)

    def parameter(self, children):
        return ("Parameter", str(children[0]), children[1] if len(children) > 1 else None)

    def section(self, children):
        return ("Section", str(children[0]), children[1])

    def layers(self, children):
        return ("Section", "layers", tuple(children[1:]))

    def body(self, children):
        return tuple(children)

    def call(self, children):
        parts = {c.data: c.children for c in children[1:] if isinstance(c, Tree)}
        count = parts["count"][0] if "count" in parts else None
        body = parts["block"][0] if "block" in parts else None
        arguments = tuple(parts.get("arguments", ()))
        return ("Statement", None, str(children[0]), arguments, body, count)

    def named(self, children):
        return ("Statement", str(children[0]), *children[1][2:])

    def argument(self, children):
        return ("Argument", None, children[0])

    def named_argument(self, children):
        return ("Argument", str(children[0]), children[1])

    plus, minus, times, divided, power = map(_operation, ("+", "-", "*", "/", "**"))

    def negative(self, children):
        return ("Unary", "-", children[0])

    def literal(self, children):
        (token,) = children
        match token.type:
            case "NUMBER":
                return _literal(_number(token))
            case "STRING":
                return _literal(read_string(token)[0])
        return _literal(WORDS[token.lower()])

    def reference(self, children):
        return ("Ref", str(children[0])[1:], True)

    def name(self, children):
        return ("Ref", str(children[0]), False)

    def value_call(self, children):
        callee, arguments = children
        return ("Call", str(callee), tuple(arguments.children))

    def tuple(self, children):
        return ("Sequence", "tuple", tuple(children))

    def list(self, children):
        return ("Sequence", "list", tuple(children))

    def map(self, children):
        return ("Map", tuple(children))

    def entry(self, children):
        return ("Entry", str(children[0]), children[1])
