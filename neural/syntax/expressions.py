"""Values: literals, names, arithmetic, tuples, lists, maps and calls, by precedence climbing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from neural.diagnostics.diagnostic import Label
from neural.syntax.brackets import SECTIONS, Brackets
from neural.syntax.cursor import ITEMS, VALUE_STARTS, Recover
from neural.syntax.lexer import Token
from neural.syntax.literals import WORDS
from neural.syntax.tree import Argument, Binary, Call, Entry, Expr, Literal, Map, Name, Ref, Sequence, Unary

SUM, PRODUCT, SIGN, POWER = 1, 2, 3, 4
POWERS = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "**": POWER}


class Expressions(Brackets):
    """The grammar of values."""

    height = 0
    """How many levels the value parsed last has: a long sum nests as deeply as brackets do."""

    def value(self, lowest: int = SUM) -> Expr:
        """A value whose operators bind at least as tightly as `lowest`."""
        first = self.token
        self.deeper(first)
        left = self._sign() if first.kind == "-" else self._primary()
        height = self.height
        while (power := POWERS.get(self.token.kind, 0)) >= lowest:
            operator = self.advance()
            # `**` binds to the right, and tighter than a sign on its left only: -2 ** 2 is -4, 2 ** -1 is 0.5.
            right = self.value(SIGN if operator.kind == "**" else power + 1)
            left = Binary(operator.kind, left, right, self.since(first))
            height = max(height, self.height) + 1
            self.deeper(operator, height)
            self.nesting -= 1
        self.height = height
        self.nesting -= 1
        return left

    def _sign(self) -> Expr:
        first = self.advance()
        operand = self.value(SIGN)
        self.height += 1
        return Unary("-", operand, self.since(first))

    def _primary(self) -> Expr:
        token = self.token
        self.height = 0
        match token.kind:
            case "number" | "string":
                self.advance()
                return Literal(token.value, self.span(token))
            case "ref":
                self.advance()
                return Ref(str(token.value), True, self.span(token))
            case "name" if token.value not in ITEMS:
                return self._name_value()
            case "(":
                return self._parenthesis()
            case "[":
                items = self._items("list")
                return Sequence("list", items, self.since(token))
            case "{":
                return self.map()
        raise self._no_value()

    def _name_value(self) -> Expr:
        token = self.advance()
        if token.value in WORDS:
            return Literal(WORDS[token.value], self.span(token))
        if self.at("("):
            return Call(self.name(token), self.arguments(), self.since(token))
        return Ref(str(token.value), False, self.span(token))

    def _no_value(self) -> Recover:
        """Report that no value stands where one must."""
        if self.at("+"):
            self.problem("N101", "a value does not begin with `+`", self.token, fix=self.replacement(self.token, ""))
            return Recover()
        if self.at("end") and self.brackets and self.previous.kind not in POWERS:
            self.unclosed()
        if self.closes_nothing() or not (self.at_closer() or self.at(",", "end") or self.at_item()):
            return self.unexpected("a value")
        self.problem("N121", f"a value is missing before {self.found()}", self.here(), "expected a value")
        return Recover()

    def name(self, token: Token) -> Name:
        return Name(str(token.value), self.span(token))

    def _parenthesis(self) -> Expr:
        """`(x)` groups and keeps its parentheses in its span; `(x,)` and `()` are tuples."""
        first = self.token
        items = self._items("tuple")
        if isinstance(items, tuple):
            return Sequence("tuple", items, self.since(first))
        return replace(items, span=self.since(first))

    def _items(self, kind: str) -> tuple[Expr, ...] | Expr:
        """The values between brackets, both included; in parentheses a single one without a comma is itself."""
        self.open()
        items: list[Expr] = []
        height = 0
        for _ in self.elements():
            items.append(self.value())
            height = max(height, self.height)
        grouping = kind == "tuple" and len(items) == 1 and self.previous.kind != ","
        self.close()
        self.height = height + (not grouping)
        return items[0] if grouping else tuple(items)

    def arguments(self, *, body: bool = False) -> tuple[Argument, ...]:
        """`(value, name=value)`, the parentheses included; `body`: a `{` may follow."""
        incidents, opener = self.incidents, self.open()
        arguments: list[Argument] = []
        height = 0
        for _ in self.elements():
            arguments.append(self._argument(named=bool(arguments and arguments[-1].name)))
            height = max(height, self.height)
        self.close(body=body)
        self.height = height + 1
        if self.incidents == incidents and not self.lexer.explains(opener.start, self.previous.end):
            self._check_order(arguments)
        return tuple(arguments)

    def _argument(self, *, named: bool) -> Argument:
        first, following = self.token, self.peek()
        if not self.at("name"):
            return Argument(None, self.value(), self.since(first))
        if following.kind == "=":
            name = self.name(self.advance())
        elif following.kind == ":":
            name = self.name(self.advance())
            self.instead("N107", f"the argument `{name.text}`", "=")
        elif following.kind in ("number", "string") or (following.kind == "ref" and named):
            name = self.name(self.advance())
            self.missing("N107", f"the argument `{name.text}`", "=")
            return Argument(name, self.value(), self.since(first))
        else:
            return Argument(None, self.value(), self.since(first))
        self.advance()
        return Argument(name, self._argument_value(name), self.since(first))

    def _argument_value(self, name: Name) -> Expr:
        if not self.at(",", ")"):
            return self.value()
        self.problem("N121", f"the argument `{name.text}` has no value", self.token, "expected a value")
        self.height = 0
        self.doubt()
        return Literal(None, self.after())

    def elements(self) -> Iterator[None]:
        """Once for each element before the closing bracket, which the caller reads; takes the commas."""
        while self.extra_closer():
            self.take(",")
        while not self.at_closer():
            if self._section_begins():
                self.unclosed()
            yield
            if not self._separator():
                if not self.extra_closer():
                    return
                self.take(",")

    def _separator(self) -> bool:
        """Take the comma between two values, or report that it is missing; False where no value follows."""
        if self.take(","):
            return True
        if self.token.kind not in VALUE_STARTS or self.token.kind == "{":
            return False
        statement = self.token.first and self.at("name") and (self.peek().kind == ":" or self.looks_like_statement())
        if self.at_item() or statement or self._section_begins():
            self.unclosed()
        if self.at("(", "[") and (self.previous.kind not in (")", "]") or self.previous.end == self.token.start):
            raise self.unexpected("`,` or a closing bracket")
        self.no_comma()
        return True

    def _section_begins(self) -> bool:
        """At the key of a section, where an element of a list would stand."""
        following = self.peek().kind
        if not self.at("name") or following not in (":", "{"):
            return False
        return self.token.value in SECTIONS or (self.token.first and following == "{")

    def no_comma(self) -> None:
        title = f"a comma is missing before {self.found()}"
        self.problem("N106", title, self.token, "expected `,` before this", fix=self.insertion(","))

    def _check_order(self, arguments: list[Argument]) -> None:
        named: dict[str, Argument] = {}
        for argument in arguments:
            if argument.name and (first := named.setdefault(argument.name.text, argument)) is not argument:
                title = f"the argument `{argument.name.text}` is given twice"
                before = (Label(first.span, "first here"),)
                self.problem("N117", title, argument.span, "again", secondary=before, hint="keep one of them")
        for last, argument in pairwise(arguments):
            if last.name and not argument.name:
                title, before = "a positional argument stands after a named one", (Label(last.span, "named"),)
                hint = "put it first, or name it"
                self.problem("N116", title, argument.span, "has no name", secondary=before, hint=hint)

    def map(self) -> Map:
        """`{ key: value … }`, the braces included."""
        incidents = self.incidents
        first = self.open()
        entries: list[Entry] = []
        height = 0
        while not self._map_ends():
            mark, start = self.mark(), self.token
            try:
                entries.append(self._entry())
                height = max(height, self.height)
                self.trust_since(mark)
            except Recover:
                self.skip_statement(mark, start)
            self.take(",")
        in_list = len(self.brackets) > 1 and self.brackets[-2].kind != "{"
        if in_list and self.incidents > incidents and not self.at_closer():
            # A map that went wrong and does not end: its brace was the slip.
            raise Recover
        self.close()
        self.height = height + 1
        return Map(tuple(entries), self.since(first))

    def _map_ends(self) -> bool:
        if self.at("}", "end") or self.at_item():
            return True
        if self.at_closer():
            # `)` for `}`, rather than one too many
            one_line = "\n" not in self.source.text[self.brackets[-1].start : self.token.start]
            return not self.closes_nothing() or (one_line and (self.peek().first or self.peek().kind in ("}", "end")))
        return self.at("name") and self.token.first and self.peek().kind != ":" and self.looks_like_statement()

    def _entry(self) -> Entry:
        if not self.at("name"):
            raise self.unexpected("a key")
        first = self.advance()
        self.colon(first)
        return Entry(self.name(first), self.value(), self.since(first))

    def colon(self, key: Token) -> None:
        """Take the colon after a key, or report what stands in its place."""
        if self.take(":"):
            return
        if self.at("="):
            self.instead("N108", f"`{key.value}`", ":")
            self.advance()
            self.take(":")
            if len(self.brackets) == self.floor and key.value not in SECTIONS:
                self.doubt()
        elif self.token.kind in VALUE_STARTS and self.peek().kind not in (":", "="):
            self.missing("N108", f"`{key.value}`", ":")
        else:
            raise self.unexpected(f"`:` after `{key.value}`")

    def instead(self, code: str, what: str, mark: str) -> None:
        """Report `:` where `=` belongs, or the other way round; the caller takes it."""
        title, fix = f"{what} takes `{mark}`, not `{self.token.kind}`", self.replacement(self.token, mark)
        self.problem(code, title, self.token, f"expected `{mark}`", fix=fix)

    def missing(self, code: str, what: str, mark: str) -> None:
        """Report that `=` or `:` is missing after the last token."""
        fix = self.insertion(" =" if mark == "=" else mark)
        self.problem(code, f"`{mark}` is missing after {what}", self.after(), f"expected `{mark}` here", fix=fix)
