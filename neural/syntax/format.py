"""Tree to text in the one canonical style. Of the old layout only comments and single empty lines stay."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from neural.syntax.comments import Group, Placement
from neural.syntax.expressions import POWER, POWERS, PRODUCT, SIGN
from neural.syntax.literals import read_number, read_string, write_string
from neural.syntax.tree import (
    Argument,
    Binary,
    Call,
    Comment,
    Define,
    Entry,
    Expr,
    File,
    Import,
    Literal,
    Map,
    Network,
    Param,
    Parameter,
    Ref,
    Section,
    Sequence,
    Statement,
    Unary,
)

WIDTH = 100
STEP = "  "


def format_file(file: File) -> str:
    """The program in canonical style: parsing it gives an equal tree, formatting it again gives the same text."""
    printer = _Printer(Placement(file))
    lines = printer.block(printer.comments.top, "", printer.item)
    return "\n".join(lines) + "\n" if lines else ""


class _Flat:
    """Values on one line. A line end in the result says that one line cannot hold it."""

    def __init__(self, comments: Placement) -> None:
        self.comments = comments

    def flat(self, expr: Expr, lowest: int = 0) -> str:
        text = self._flat(expr)
        return f"({text})" if _power(expr) < lowest else text

    def _flat(self, expr: Expr) -> str:
        match expr:
            case Literal():
                return _literal(expr)
            case Ref():
                return "$" * expr.dollar + expr.name
            case Unary():
                return "-" + self.flat(expr.operand, SIGN)
            case Binary():
                left, right = _sides(expr.op)
                return f"{self.flat(expr.left, left)} {expr.op} {self.flat(expr.right, right)}"
            case Call():
                return expr.callee.text + self.list("(", expr, "arguments", expr.arguments, ")")
            case Sequence(kind="list"):
                return self.list("[", expr, "items", expr.items, "]")
            case Sequence():
                return self.list("(", expr, "items", expr.items, ",)" if len(expr.items) == 1 else ")")
            case Map():
                return self.map(expr)

    def list(self, opener: str, node: object, kind: str, elements: tuple, closer: str) -> str:
        if self.busy(node, kind):
            return "\n"
        return opener + ", ".join(self.element(e) for e in elements) + closer

    def map(self, expr: Map, separator: str = ", ") -> str:
        """On one line only where the author wrote it on one."""
        if self.busy(expr, "entries") or (expr.entries and "\n" in expr.span.text):
            return "\n"
        return "{ " + separator.join(self.element(e) for e in expr.entries) + " }" if expr.entries else "{}"

    def busy(self, node: object, kind: str) -> bool:
        return self.comments.group(node, kind, ()).busy

    def element(self, node: Any) -> str:
        match node:
            case Argument(name=None):
                return self.flat(node.value)
            case Argument():
                return f"{node.name.text}={self.flat(node.value)}"
            case Entry():
                return f"{node.key.text}: {self.flat(node.value)}"
            case Parameter():
                return node.name.text + (f" = {self.flat(node.default)}" if node.default else "")
        return self.flat(node)


def _power(expr: Expr) -> int:
    match expr:
        case Binary():
            return POWERS[expr.op]
        case Unary():
            return SIGN
        case Literal(value=int() | float()) if expr.value < 0:
            return SIGN
    return POWER + 1


def _sides(op: str) -> tuple[int, int]:
    """How tightly the operands must bind to stand without parentheses."""
    return (POWER + 1, SIGN) if op == "**" else (POWERS[op], POWERS[op] + 1)


def _literal(expr: Literal) -> str:
    """As the author spelt it, where that is known; strings in double quotes where they hold none."""
    value, written = expr.value, expr.span.text.strip("() \t\r\n") if expr.span else ""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, str):
        quoted = len(written) > 1 and written[0] in "\"'" and read_string(written) == (value, [])
        if quoted and written[0] == "'" and not re.search(r'["\\]', written):
            return f'"{value}"'
        return written if quoted else write_string(value)
    read = read_number(written)
    if type(read) is type(value) and read == value:
        return written
    return re.sub(r"e([+-]?)0*(\d)", r"e\1\2", repr(value)).replace("e+", "e")


class _Printer(_Flat):
    """Everything that may need several lines. `pad` is the indentation of the line that a text begins on."""

    def block(self, group: Group, pad: str, draw: Callable[[Any, str], str], separator: str = "") -> list[str]:
        """The lines of elements one under the other, with their comments and the author's empty lines."""
        lines: list[str] = []
        previous = None
        for element in group.elements:
            apart = previous is not None and _apart(previous, element)
            for comment in self.comments.leading.get(id(element), ()):
                self._own_line(lines, comment, pad, apart)
                apart = False
            if lines and (apart or _blank_before(element.span)):
                lines.append("")
            behind = _joined(self.comments.trailing.get(id(element), ()))
            lines.append(pad + draw(element, pad) + separator + behind)
            previous = element
        for comment in group.dangling:
            self._own_line(lines, comment, pad, False)
        return lines

    def _own_line(self, lines: list[str], comment: Comment, pad: str, apart: bool) -> None:
        if lines and (apart or _blank_before(comment.span)):
            lines.append("")
        lines.append(pad + _text(comment))

    def enclosed(self, opener: str, group: Group, closer: str, pad: str, draw: Callable, separator: str = "") -> str:
        """Brackets with each element on a line of its own."""
        lines = self.block(group, pad + STEP, draw, separator)
        if not lines and not group.header:
            return opener + closer
        return "\n".join([opener + _joined(group.header), *lines, pad + closer])

    # Declarations

    def item(self, item: Import | Param | Define | Network, pad: str) -> str:
        match item:
            case Import():
                return f"import {_literal(item.path)}"
            case Param():
                head = f"param {item.name.text} = "
                return head + self.layout(item.value, pad, len(head))
            case Define():
                head = f"define {item.name.text}"
                head += self.broken_list("(", item, "parameters", item.parameters, ")", pad, len(head), tail=2)
                return head + " " + self.body(item, item.body, pad)
            case Network():
                group = self.comments.group(item, "sections", item.sections)
                return f"network {item.name.text} " + self.enclosed("{", group, "}", pad, self.section)

    def body(self, node: Define | Statement, statements: tuple[Statement, ...], pad: str) -> str:
        return self.enclosed("{", self.comments.group(node, "body", statements), "}", pad, self.statement)

    def section(self, section: Section, pad: str) -> str:
        key, value = section.key.text, section.value
        if isinstance(value, tuple):
            group = self.comments.group(section, "layers", value)
            return "\n".join([f"{key}:{_joined(group.header)}", *self.block(group, pad + STEP, self.statement)])
        if isinstance(value, Map) and key != "input":
            flat = self.map(value, "  ")
            fits = "\n" not in flat and len(pad) + len(key) + 1 + len(flat) <= WIDTH
            return f"{key} " + (flat if fits else self.broken(value, pad))
        return f"{key}: " + self.layout(value, pad, len(pad) + len(key) + 2)

    def statement(self, statement: Statement, pad: str) -> str:
        text = (f"{statement.name.text} = " if statement.name else "") + statement.layer.text
        repeat = f" * {self.flat(statement.repeat, PRODUCT)}" if statement.repeat else ""
        if "\n" in repeat:
            repeat = " * " + self.layout(statement.repeat, pad, WIDTH, lowest=PRODUCT)
        body = statement.body is not None
        if statement.arguments or statement.layer.text != "Residual" or not body or self.busy(statement, "arguments"):
            tail = 2 if body else len(repeat.split("\n")[0])
            used = len(pad) + len(text)
            text += self.broken_list("(", statement, "arguments", statement.arguments, ")", pad, used, tail)
        if body:
            text += " " + self.body(statement, statement.body, pad)
        return text + repeat

    # Values

    def broken_list(
        self, opener: str, node: object, kind: str, elements: tuple, closer: str, pad: str, used: int, tail: int
    ) -> str:
        """A list on one line where it fits, else one element a line."""
        flat = self.list(opener, node, kind, elements, closer)
        if "\n" not in flat and used + len(flat) + tail <= WIDTH:
            return flat
        return self.enclosed(opener, self.comments.group(node, kind, elements), closer, pad, self.placed, ",")

    def placed(self, node: Any, pad: str) -> str:
        """An element of a list on lines of its own."""
        match node:
            case Argument(name=None):
                return self.layout(node.value, pad, len(pad), 1)
            case Argument():
                return f"{node.name.text}=" + self.layout(node.value, pad, len(pad) + len(node.name.text) + 1, 1)
            case Entry():
                return f"{node.key.text}: " + self.layout(node.value, pad, len(pad) + len(node.key.text) + 2)
            case Parameter(default=None):
                return node.name.text
            case Parameter():
                return f"{node.name.text} = " + self.layout(node.default, pad, len(pad) + len(node.name.text) + 3, 1)
        return self.layout(node, pad, len(pad), 1)

    def layout(self, expr: Expr, pad: str, used: int, tail: int = 0, lowest: int = 0) -> str:
        """A value that begins `used` columns into its line and is followed by `tail` characters."""
        flat = self.flat(expr, lowest)
        if "\n" not in flat and used + len(flat) + tail <= WIDTH:
            return flat
        text = self.broken(expr, pad, used)
        return f"({text})" if _power(expr) < lowest else text

    def broken(self, expr: Expr, pad: str, used: int = 0) -> str:
        match expr:
            case Call():
                group = self.comments.group(expr, "arguments", expr.arguments)
                return expr.callee.text + self.enclosed("(", group, ")", pad, self.placed, ",")
            case Sequence():
                opener, closer = "()" if expr.kind == "tuple" else "[]"
                group = self.comments.group(expr, "items", expr.items)
                return self.enclosed(opener, group, closer, pad, self.placed, ",")
            case Map():
                return self.enclosed("{", self.comments.group(expr, "entries", expr.entries), "}", pad, self.placed)
            case Unary():
                return "-" + self.layout(expr.operand, pad, used + 1, lowest=SIGN)
            case Binary():
                low, high = _sides(expr.op)
                left = self.layout(expr.left, pad, used, lowest=low) + f" {expr.op} "
                reached = len(left.split("\n")[-1]) + used * ("\n" not in left)
                return left + self.layout(expr.right, pad, reached, lowest=high)
        return self._flat(expr)


def _apart(previous: object, item: object) -> bool:
    """Declarations of several lines stand apart."""
    return isinstance(previous, Define | Network) or isinstance(item, Define | Network)


def _blank_before(span) -> bool:
    """Did the author leave an empty line before this place?"""
    text, at = span.source.text, span.start
    while at and text[at - 1].isspace():
        at -= 1
    return text.count("\n", at, span.start) > 1


def _joined(comments) -> str:
    return "".join(f"  {_text(comment)}" for comment in comments)


def _text(comment: Comment) -> str:
    return comment.text.replace("\r\n", "\n")
