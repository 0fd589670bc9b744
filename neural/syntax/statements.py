"""Statements: `[name =] Layer(arguments) [{ body }] [* count]`."""

from __future__ import annotations

from neural.diagnostics.diagnostic import Edit, Fix, Label
from neural.syntax.cursor import ITEMS, VALUE_STARTS, Recover
from neural.syntax.expressions import PRODUCT, Expressions
from neural.syntax.lexer import Token
from neural.syntax.literals import WORDS
from neural.syntax.tree import Argument, Expr, Name, Statement

SECTIONS = frozenset(
    ("input", "layers", "loss", "optimizer", "lr_schedule", "metrics", "tokenizer", "data", "train", "execution")
)
"""Only to word messages well: any name may stand before a colon, and which are sections is decided later."""

_NEVER_NAMES = frozenset(("loss", "optimizer", "lr_schedule", "metrics"))
RESERVED = frozenset((*ITEMS, *WORDS))


class Statements(Expressions):
    """The grammar of what stands in a `define`, in `layers:` and in a `Residual`."""

    def statements(self, *, sections: bool = False) -> tuple[Statement, ...]:
        """Statements up to a `}`, the end, a declaration or, where `sections`, the next section."""
        body: list[Statement] = []
        while not (self.at("}", "end") or self.at_item() or (sections and self._at_section())):
            mark, start = self.mark(), self.token
            try:
                if self.at(","):
                    self.comma()
                elif not sections and self.at("name") and self.peek().kind == ":":
                    self._section_in_body()
                else:
                    body.append(self.statement())
            except Recover:
                self.skip_statement(mark, start)
        return tuple(body)

    def body(self) -> tuple[Statement, ...]:
        """`{ statements }`, the braces included."""
        self.open()
        body = self.statements()
        self.close()
        return body

    def starts_section(self, token: Token) -> bool:
        return token.value in SECTIONS

    def _at_section(self) -> bool:
        """In `layers:`, at the key of the next section (or at what was meant as one)."""
        if not self.at("name"):
            return False
        following, known = self.peek().kind, self.token.value in SECTIONS
        if following == "{":
            return self.token.value != "Residual"
        if following == "=":
            return self.token.value in _NEVER_NAMES or (known and self.peek(2).kind not in ("name", "("))
        return following == ":" or (known and following in VALUE_STARTS - {"("} and not self.peek().first)

    def comma(self) -> None:
        """Report a comma between statements or sections, and take it."""
        fix = Fix("remove `,`", (Edit(self.span(self.token), ""),), safe=True)
        self.problem("N128", "nothing separates statements and sections", self.token, "no comma belongs here", fix=fix)
        self.advance()

    def _section_in_body(self) -> None:
        key = self.advance()
        self.advance()
        hint = "a `define` and a `Residual` hold statements only; sections stand in a `network`"
        if key.value == "layers":
            self.problem(
                "N127",
                "`layers:` does not stand here",
                self.span(key),
                "not needed here",
                hint="write the statements directly between the braces",
            )
            return
        self.problem("N127", f"the section `{key.value}` stands outside a network", self.span(key), hint=hint)
        self.value()

    def statement(self) -> Statement:
        first = self.token
        name = self._statement_name() if self.at("name") and self.peek().kind == "=" else None
        if not name and self._misses_equals():
            name = self.declared(self.advance(), "value")
            self.problem(
                "N107",
                f"`=` is missing after `{name.text}`",
                self.after(),
                "expected `=` here",
                fix=self.insertion(" ="),
            )
        layer = self._layer(named=name)
        arguments: tuple[Argument, ...] = ()
        body: tuple[Statement, ...] | None = None
        if self.at("("):
            arguments = self.arguments()
        elif not self.at("{"):
            self._no_parentheses(layer)
        if self.at("{"):
            body = self.body()
        return Statement(name, self.name(layer), arguments, body, self._repeat(), self.since(first))

    def _statement_name(self) -> Name:
        name = self.declared(self.advance(), "value")
        self.advance()
        return name

    def declared(self, token: Token, what: str) -> Name:
        """The name that a declaration gives, which a word of the language cannot be."""
        if token.value in RESERVED:
            self.problem(
                "N120",
                f"`{token.value}` is a word of the language and cannot name a {what}",
                token,
                hint="choose another name",
            )
        return self.name(token)

    def _misses_equals(self) -> bool:
        """`q Dense(…)` on one line."""
        following = self.peek()
        return (
            self.at("name")
            and following.kind == "name"
            and not following.first
            and self.peek(2).kind in ("(", "{")
            and not (self.token.value in SECTIONS or following.value in SECTIONS)
        )

    def _layer(self, named: Name | None) -> Token:
        """Take the name of a layer, or say what stands in its place."""
        plain = self.at("name") and self.token.value not in WORDS
        if plain and (not named or self.peek().kind in ("(", "{") or str(self.token.value)[0].isupper()):
            return self.advance()
        if self.token.kind in VALUE_STARTS and (named or not self.at("-", "+", "{", "[", "(")):
            self._value_for_layer(named)
        raise self.unexpected("a layer such as `Dense(units=10)`")

    def _value_for_layer(self, named: Name | None) -> None:
        place = self.token
        if named:
            title = f"`{named.text}` is given a value, not a layer"
            hint = f"a number or a text is named by `param {named.text} = …` outside the network"
        elif self.at("number") and self.peek().kind == "*":
            title, hint = "the count stands before the layer", "write it behind: `Layer(…) * 3`"
        elif self.peek().kind == "=":
            title, hint = f"{self.found()} cannot name a value", "a name stands without quotes: `tokens = Embedding(…)`"
        else:
            title, hint = f"{self.found()} is not a layer", "a statement is a layer with its arguments in parentheses"
        self.problem("N124", title, place, "expected a layer such as `Dense(units=10)`", hint=hint)
        raise Recover

    def _no_parentheses(self, layer: Token) -> None:
        """Report a layer without parentheses, and read on as if they stood there."""
        name = layer.value
        argument = self.at("string", "number", "ref") and not self.token.first
        if argument:
            last = self.token
            fix = Fix(
                f"write `{name}({self.span(last).text})`",
                (Edit(self.span(layer, layer).to(self.span(last)), f"{name}({self.span(last).text})"),),
                safe=True,
            )
            self.problem("N109", f"the argument of `{name}` stands without parentheses", last, fix=fix)
            self.advance()
            return
        ends = self.at("name", "}", "end", "*", ",", "number", "string", "ref") or self.token.first
        if not ends:
            raise self.unexpected(f"`(` after `{name}`")
        self.problem(
            "N109",
            f"`{name}` has no parentheses",
            self.span(layer),
            "a layer is called",
            fix=self.insertion("()", f"write `{name}()`"),
        )

    def _repeat(self) -> Expr | None:
        if self.at("**"):
            fix = Fix("write `*`", (Edit(self.span(self.token), "*"),), safe=True)
            self.problem("N101", "a statement is repeated with `*`, not `**`", self.token, fix=fix)
        elif not self.at("*"):
            return None
        self.advance()
        count = self.value(PRODUCT)
        if self.at("+", "-"):
            self.problem(
                "N101",
                f"`{self.token.kind}` after a count",
                self.token,
                "does not belong to the count",
                hint="put the whole count in parentheses: `* ($n - 1)`",
                secondary=(Label(count.span, "the count"),),
            )
            self.advance()
            self.value()
        return count
