"""Values: literals, names, arithmetic, tuples, lists, maps and calls, by precedence climbing."""

from __future__ import annotations

from dataclasses import replace

from neural.diagnostics.diagnostic import Label
from neural.syntax.cursor import VALUE_STARTS, Cursor, Recover
from neural.syntax.lexer import Token
from neural.syntax.literals import WORDS
from neural.syntax.tree import Argument, Binary, Call, Entry, Expr, Literal, Map, Name, Ref, Sequence, Unary

SUM, PRODUCT, SIGN, POWER = 1, 2, 3, 4
POWERS = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "**": POWER}


class Expressions(Cursor):
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
            case "name":
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
        if self.at("("):
            return Call(self.name(token), self.arguments(), self.since(token))
        if token.value in WORDS:
            return Literal(WORDS[token.value], self.span(token))
        return Ref(str(token.value), False, self.span(token))

    def _no_value(self) -> Recover:
        """Report that no value stands where one must."""
        if self.at("+"):
            self.problem("N101", "a value does not begin with `+`", self.token, fix=self.replacement(self.token, ""))
            return Recover()
        if self.at("end") and self.brackets:
            self.unclosed()
        if self.closes_nothing() or not self.at(")", "]", "}", ",", "end"):
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
        while not self.at(")", "]", "}"):
            items.append(self.value())
            height = max(height, self.height)
            if not self._separator():
                break
        grouping = kind == "tuple" and len(items) == 1 and self.previous.kind != ","
        self.close()
        self.height = height + (not grouping)
        return items[0] if grouping else tuple(items)

    def arguments(self) -> tuple[Argument, ...]:
        """`(value, name=value)`, the parentheses included."""
        self.open()
        arguments: list[Argument] = []
        height = 0
        while not self.at(")", "]", "}"):
            arguments.append(self._argument())
            height = max(height, self.height)
            if not self._separator():
                break
        self.close()
        self.height = height + 1
        self._check_order(arguments)
        return tuple(arguments)

    def _argument(self) -> Argument:
        first = self.token
        if not (self.at("name") and self.peek().kind in ("=", ":")):
            return Argument(None, self.value(), self.since(first))
        name = self.name(self.advance())
        if self.at(":"):
            if first.first and (self.peek().first or self.starts_section(first)):
                self.unclosed()
            self.instead("N107", f"the argument `{name.text}`", "=")
        self.advance()
        return Argument(name, self._argument_value(name), self.since(first))

    def _argument_value(self, name: Name) -> Expr:
        if not self.at(",", ")"):
            return self.value()
        self.problem("N121", f"the argument `{name.text}` has no value", self.token, "expected a value")
        self.height = 0
        self.lost = True
        return Literal(None, self.after())

    def starts_section(self, token: Token) -> bool:
        """Is the name before a colon one that only a section has? Statements say."""
        raise NotImplementedError

    def _separator(self) -> bool:
        """Take the comma between two values, or report that it is missing; False where no value follows."""
        if self.take(","):
            return True
        if self.token.kind not in VALUE_STARTS or self.token.kind == "{":
            return False
        if self.token.first and self._looks_like_statement():
            self.unclosed()
        if self.at_item():
            self.unclosed()
        self.no_comma()
        return True

    def no_comma(self) -> None:
        title = f"a comma is missing before {self.found()}"
        self.problem("N106", title, self.token, "expected `,` before this", fix=self.insertion(","))

    def _looks_like_statement(self) -> bool:
        """A new line after a value that begins as statements and sections do: the bracket before was not closed."""
        following = self.peek()
        if not self.at("name") or following.kind in (":", "{"):
            return self.at("name")
        capital = self.token if following.kind == "(" else self.peek(2)
        if following.kind not in ("(", "=") or capital.kind != "name" or not str(capital.value)[0].isupper():
            return False
        return following.kind == "(" or self.peek(3).kind in ("(", "{")

    def _check_order(self, arguments: list[Argument]) -> None:
        named: dict[str, Argument] = {}
        last: Argument | None = None
        for argument in arguments:
            if argument.name and (first := named.setdefault(argument.name.text, argument)) is not argument:
                title = f"the argument `{argument.name.text}` is given twice"
                before = (Label(first.span, "first here"),)
                self.problem("N117", title, argument.span, "again", secondary=before, hint="keep one of them")
            if last and not argument.name:
                title, before = "a positional argument stands after a named one", (Label(last.span, "named"),)
                hint = "put it first, or name it"
                self.problem("N116", title, argument.span, "has no name", secondary=before, hint=hint)
            last = argument if argument.name else last

    def map(self) -> Map:
        """`{ key: value … }`, the braces included."""
        first = self.open()
        entries: list[Entry] = []
        height = 0
        while not (self.at("}", "end") or self.at_item() or (self.at(")", "]") and not self.closes_nothing())):
            mark, start = self.mark(), self.token
            try:
                entries.append(self._entry())
                height = max(height, self.height)
            except Recover:
                self.skip_statement(mark, start)
            self.take(",")
        self.close()
        self.height = height + 1
        return Map(tuple(entries), self.since(first))

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
        elif self.token.kind in VALUE_STARTS:
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
