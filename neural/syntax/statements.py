"""Statements: `[name =] Layer(arguments) [{ body }] [* count]`."""

from __future__ import annotations

from neural.diagnostics.diagnostic import Label
from neural.syntax.brackets import SECTIONS, capital
from neural.syntax.cursor import ITEMS, VALUE_STARTS, Recover
from neural.syntax.expressions import PRODUCT, Expressions
from neural.syntax.lexer import Token
from neural.syntax.literals import WORDS
from neural.syntax.tree import Argument, Expr, Name, Statement

_NEVER_NAMES = frozenset(("loss", "optimizer", "lr_schedule", "metrics"))
RESERVED = frozenset((*ITEMS, *WORDS))


class Statements(Expressions):
    """The grammar of what stands in a `define`, in `layers:` and in a `Residual`."""

    def statements(self, *, sections: bool = False) -> tuple[Statement, ...]:
        """Statements up to a `}`, the end, a declaration or the next section; `sections`: one may follow here."""
        body: list[Statement] = []
        while not (self.at("}", "end") or self.at_item() or self._at_section(sections)):
            mark, start = self.mark(), self.token
            try:
                if self.at(","):
                    self.comma()
                elif not sections and self.at("name") and self.peek().kind == ":":
                    self._section_in_body()
                else:
                    body.append(self.statement())
                    self.trust_since(mark)
            except Recover:
                self.skip_statement(mark, start)
        return tuple(body)

    def body(self) -> tuple[Statement, ...]:
        """`{ statements }`, the braces included."""
        self.deeper(self.open())
        body = self.statements()
        self.close()
        self.nesting -= 1
        return body

    def _at_section(self, sections: bool) -> bool:
        """At the key of the next section, or at what was meant as one."""
        if not self.at("name"):
            return False
        following, known = self.peek().kind, self.token.value in SECTIONS
        if not sections:
            # In a `Residual` of a network: its brace is missing, and `close` will say so.
            section = following == ":" or (following == "{" and self.peek(3).kind == ":")
            return bool(self.floor and known and section and self.token.value != "layers")
        if following == "{":
            return self.token.value != "Residual" and not self.brace_for_parenthesis()
        if following == "=":
            return self.token.value in _NEVER_NAMES or (known and self.peek(2).kind not in ("name", "("))
        if following == ":":
            # Not `GptBlock: num_heads=12`
            return not (capital(self.token) and self.peek(2).kind == "name" and self.peek(3).kind == "=")
        return known and following in VALUE_STARTS - {"("} and not self.peek().first

    def brace_for_parenthesis(self) -> bool:
        """At `Dense{units=10)`."""
        return capital(self.token) and self.peek(2).kind == "name" and self.peek(3).kind == "="

    def comma(self, expected: str = "a layer or a section") -> None:
        """Report a comma between statements or sections, and take it."""
        if self.peek().kind not in ("name", "}", "end", ","):
            raise self.unexpected(expected)
        title, fix = "nothing separates statements and sections: `,`", self.replacement(self.token, "")
        self.problem("N128", title, self.token, "no comma belongs here", fix=fix)
        self.advance()
        self.doubt()

    def _section_in_body(self) -> None:
        key = self.advance()
        self.advance()
        if key.value == "layers":
            hint = "write the statements directly between the braces"
            self.problem("N127", "`layers:` does not stand here", key, "not needed here", hint=hint)
            return
        hint = "a `define` and a `Residual` hold statements only; sections stand in a `network`"
        self.problem("N127", f"the section `{key.value}` stands outside a network", key, hint=hint)
        self.doubt()
        self.value()

    def statement(self) -> Statement:
        """`[name =] Layer(arguments) [{ body }] [* count]`."""
        first = self.token
        name: Name | None = None
        if self.at("name") and self.peek().kind == "=":
            name = self.declared(self.advance(), "value")
            self.advance()
        elif self._misses_equals():
            name = self.declared(self.advance(), "value")
            self.missing("N107", f"`{name.text}`", "=")
        layer = self._layer(name)
        arguments: tuple[Argument, ...] = ()
        if layer.value == "Residual" and not self.at("(", "{"):
            return self._residual_without_brace(first, name, layer)
        if self.at("("):
            arguments = self.arguments(body=layer.value == "Residual")
        elif self.at("{") and self.peek(2).kind == "=" and self.peek(3).kind != "name":
            raise self.unexpected(f"`(` after `{layer.value}`")
        elif not self.at("{"):
            arguments = self._no_parentheses(layer)
        body = self.body() if self.at("{") else None
        return Statement(name, self.name(layer), arguments, body, self._count(), self.since(first))

    def declared(self, token: Token, what: str) -> Name:
        """The name that a declaration gives, which a word of the language cannot be."""
        if token.value in RESERVED:
            title = f"`{token.value}` is a word of the language and cannot name a {what}"
            self.problem("N120", title, token, hint="choose another name")
        return self.name(token)

    def _misses_equals(self) -> bool:
        """`q Dense(…)` on one line."""
        following = self.peek()
        if not self.at("name") or following.kind != "name" or following.first or capital(self.token):
            return False
        return self.peek(2).kind in ("(", "{") and not {self.token.value, following.value} & SECTIONS

    def _layer(self, named: Name | None) -> Token:
        """Take the name of a layer, or say what stands in its place."""
        called = self.peek().kind in ("(", "{")
        if self.at("name") and self.token.value not in RESERVED and (called or not named or capital(self.token)):
            return self.advance()
        if self.token.kind in VALUE_STARTS and (named or self.at("name", "number", "string", "ref")):
            raise self._value_for_layer(named)
        raise self.unexpected("a layer such as `Dense(units=10)`")

    def _value_for_layer(self, named: Name | None) -> Recover:
        if named:
            title = f"`{named.text}` is given a value, not a layer"
            hint = f"a number or a text is named by `param {named.text} = …` at the top of the file"
        elif self.at("number") and self.peek().kind == "*":
            title, hint = "the count stands before the layer", "write it behind: `Layer(…) * 3`"
        elif self.peek().kind == "=":
            title, hint = f"{self.found()} cannot name a value", "write a plain name: `tokens = Embedding(…)`"
        else:
            title, hint = f"{self.found()} is not a layer", "a statement is a layer with its arguments in parentheses"
        self.problem("N124", title, self.token, "expected a layer such as `Dense(units=10)`", hint=hint)
        return Recover()

    def _residual_without_brace(self, first: Token, name: Name | None, layer: Token) -> Statement:
        """Report it, and read what follows as its body."""
        title, fix = "`Residual` is not followed by `{`", self.insertion(" {", safe=False)
        self.problem("N101", title, layer, "expected `{` after this", fix=fix)
        self.brackets.append(layer._replace(kind="{"))
        self.deeper(layer)
        body = self.statements()
        self.close()
        self.nesting -= 1
        return Statement(name, self.name(layer), (), body, self._count(), self.since(first))

    def _no_parentheses(self, layer: Token) -> tuple[Argument, ...]:
        """Report a layer without parentheses, and read on as if they stood there."""
        name = layer.value
        if self.at("string", "number", "ref") and not self.token.first:
            value = self.value(PRODUCT + 1)
            fix = self.replacement(self.since(layer), f"{name}({value.span.text})")
            self.problem("N109", f"the argument of `{name}` stands without parentheses", value.span, fix=fix)
            return (Argument(None, value, value.span),)
        if not (self.token.first or self.at("name", "}", "end", "*")):
            raise self.unexpected(f"`(` after `{name}`")
        fix = self.insertion("()", f"write `{name}()`")
        self.problem("N109", f"`{name}` has no parentheses", layer, "expected `()` after this", fix=fix)
        return ()

    def _count(self) -> Expr | None:
        """`* count`, where it stands."""
        if self.at("**"):
            fix = self.replacement(self.token, "*")
            self.problem("N101", "a statement is repeated with `*`, not `**`", self.token, fix=fix)
        elif not self.at("*"):
            return None
        self.advance()
        count = self.value(PRODUCT)
        if self.at("+", "-"):
            title, hint = f"`{self.token.kind}` after a count", "put the whole count in parentheses: `* ($n - 1)`"
            counted = (Label(count.span, "the count"),)
            self.problem("N101", title, self.token, "does not belong to the count", secondary=counted, hint=hint)
            self.doubt()
            self.advance()
            self.value()
        return count
