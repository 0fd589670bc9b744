"""Text to tree: the declarations of a file. The grammar is docs/grammar.lark, which the tests hold this parser to."""

from __future__ import annotations

from neural.diagnostics.diagnostic import Diagnostic, Edit, Fix, Label
from neural.diagnostics.near import nearest
from neural.diagnostics.source import Source, Span
from neural.syntax.cursor import ITEMS, VALUE_STARTS, Recover, RecoverItem, Stop
from neural.syntax.lexer import MAX_PROBLEMS, Token
from neural.syntax.statements import SECTIONS, Statements
from neural.syntax.tree import Define, Expr, File, Import, Literal, Name, Network, Param, Parameter, Section


def parse(source: Source) -> tuple[File, list[Diagnostic]]:
    """The tree of a program and everything wrong with its syntax, in the order of the file.

    Never raises, whatever the text. Where there are errors the tree holds what could be read.
    """
    nul = source.text.find("\0")
    if nul >= 0:
        place = Label(Span(source, nul, nul + 1), "a NUL character")
        hint = "a program is text in UTF-8; is this the right file?"
        return File(source, (), ()), [Diagnostic("N114", f"`{source.name}` is not a text file", place, hint=hint)]
    parser = Parser(source)
    items = parser.file()
    messages = parser.messages()
    if len(messages) >= MAX_PROBLEMS:
        messages = [
            *messages[:MAX_PROBLEMS],
            Diagnostic("N100", f"more than {MAX_PROBLEMS} mistakes: the rest of the file was not read"),
        ]
    return File(source, items, tuple(parser.lexer.comments)), messages


class Parser(Statements):
    """The grammar of a file."""

    ended: Token | None = None
    """The brace that closed the network read last."""

    def file(self) -> tuple[Import | Param | Define | Network, ...]:
        items: list[Import | Param | Define | Network] = []
        try:
            while not self.at("end"):
                try:
                    item = self._item()
                    if item:
                        items.append(item)
                except (Recover, RecoverItem):
                    self.skip_item()
        except Stop:
            pass
        return tuple(items)

    def _item(self) -> Import | Param | Define | Network | None:
        ended, self.ended = self.ended, None
        word = self.token.value if self.at("name") else None
        match word:
            case "import":
                return self._import()
            case "param":
                return self._param()
            case "define":
                return self._define()
            case "network":
                return self._network()
        return self._no_item(ended)

    def _no_item(self, ended: Token | None) -> Import | Param | Define | Network | None:
        """Report what cannot stand at the top of a file; read on where only the word is misspelt."""
        if self.at(","):
            self.comma()
            return None
        if not self.at("name"):
            raise self.unexpected("`import`, `param`, `define` or `network`")
        word, following = str(self.token.value), self.peek().kind
        near = nearest(word, ITEMS)
        if near and following in ("name", "string"):
            fix = Fix(f"write `{near}`", (Edit(self.span(self.token), near),), safe=True)
            self.problem("N115", f"`{word}` is not a declaration", self.token, f"did you mean `{near}`?", fix=fix)
            return {"import": self._import, "param": self._param, "define": self._define, "network": self._network}[
                near
            ]()
        if following == ":" or (word in SECTIONS and following == "{"):
            closed = (Label(self.span(ended), "the network ends here"),) if ended else ()
            self.problem(
                "N127",
                f"the section `{word}` stands outside a network",
                self.token,
                secondary=closed,
                hint="sections stand between the braces of a `network`",
            )
        elif following in ("(", "{"):
            self.problem(
                "N123",
                f"the layer `{word}` stands outside a network",
                self.token,
                hint="layers stand in a `define` or in the `layers:` of a `network`",
            )
        elif following == "=":
            fix = Fix("write `param`", (Edit(Span(self.source, self.token.start, self.token.start), "param "),))
            self.problem("N115", f"`{word}` is not declared", self.token, "expected a declaration", fix=fix)
        else:
            self.problem(
                "N115",
                f"`{word}` is not a declaration",
                self.token,
                "expected `import`, `param`, `define` or `network`",
            )
        raise Recover

    def _declared_name(self, keyword: Token) -> Name:
        """The name after `param`, `define` or `network`."""
        if self.at("name") and not self.at_item():
            return self.declared(self.advance(), str(keyword.value))
        place = self.token if self.at("string", "ref", "number") else self.after()
        self.problem("N122", f"`{keyword.value}` is not followed by a name", place, "expected a name")
        if self.at("string", "ref", "number"):
            return Name(str(self.token.value), self.span(self.advance()))
        if self.at_item() or self.at("end"):
            raise RecoverItem
        return Name("", self.after())

    def _import(self) -> Import:
        first = self.advance()
        if self.at("string"):
            path = self.advance()
            return Import(Literal(path.value, self.span(path)), self.since(first))
        if not self.at("name"):
            self.problem(
                "N126",
                "`import` is not followed by a path",
                self.after(),
                "expected a path in quotes",
                hint='write it as in `import "blocks.neural"`',
            )
            raise Recover
        start = self.token.start
        line = self.source.text[start : self.source.text.find("\n", start) + 1 or None].split()[0]
        span = Span(self.source, start, start + len(line))
        fix = Fix(f'write `"{line}"`', (Edit(span, f'"{line}"'),), safe=True)
        self.problem("N126", "the path of an `import` stands in quotes", span, fix=fix)
        raise Recover

    def _param(self) -> Param:
        first = self.advance()
        name = self._declared_name(first)
        self._equals(name, "param")
        if self.at("end") or self.at_item():
            self.problem("N121", f"`param {name.text}` has no value", self.after(), "expected a value here")
            raise Recover
        return Param(name, self.value(), self.since(first))

    def _equals(self, name: Name, what: str) -> None:
        if self.take("="):
            return
        if self.at(":"):
            fix = Fix("write `=`", (Edit(self.span(self.token), "="),), safe=True)
            self.problem("N107", f"`{what} {name.text}` takes `=`, not `:`", self.token, "expected `=`", fix=fix)
            self.advance()
            return
        if self.token.kind in VALUE_STARTS and not self.at_item():
            self.problem(
                "N107",
                f"`=` is missing after `{what} {name.text}`",
                self.after(),
                "expected `=` here",
                fix=self.insertion(" ="),
            )
            return
        if self.at("end") or self.at_item():
            self.problem("N121", f"`{what} {name.text}` has no value", self.after(), "expected `=` and a value here")
            raise Recover
        raise self.unexpected(f"`=` after `{what} {name.text}`")

    def _define(self) -> Define:
        first = self.advance()
        name = self._declared_name(first)
        parameters: tuple[Parameter, ...] = ()
        if self.at("("):
            parameters = self._parameters()
        elif self.at("{"):
            self.problem(
                "N109",
                f"`define {name.text}` has no parameter list",
                name.span,
                "expected `(` after this",
                fix=self.insertion("()", f"write `define {name.text}()`"),
            )
        if not self.at("{"):
            raise self._no_brace(f"`define {name.text}`")
        return Define(name, parameters, self.body(), self.since(first))

    def _no_brace(self, head: str) -> Recover:
        hint = "a body stands between `{` and `}`, not behind a colon" if self.at(":") else None
        return self.unexpected(f"`{{` after {head}", hint)

    def _parameters(self) -> tuple[Parameter, ...]:
        self.open()
        parameters: list[Parameter] = []
        while not self.at(")", "]", "}"):
            parameters.append(self._parameter())
            if self.take(","):
                continue
            if not self.at("name", "ref") or self.at_item():
                break
            self.problem(
                "N106",
                f"a comma is missing before {self.found()}",
                self.token,
                "expected `,` before this",
                fix=self.insertion(","),
            )
        if self.at("{"):
            self.brackets_unclosed_before_body()
        else:
            self.close()
        return tuple(parameters)

    def brackets_unclosed_before_body(self) -> None:
        """`define X(a, b {`: the parenthesis is missing, the body is there."""
        opener = self.brackets.pop()
        self.nesting -= 1
        self.problem(
            "N102",
            "`(` is never closed",
            self.token,
            "expected `)` before `{`",
            secondary=(self.opened(opener),),
            fix=self.insertion(")"),
        )

    def _parameter(self) -> Parameter:
        first = self.token
        if self.at("ref"):
            fix = Fix(f"write `{first.value}`", (Edit(self.span(first), str(first.value)),), safe=True)
            self.problem("N101", f"a parameter is declared without `$`: `{first.value}`", first, fix=fix)
        elif not self.at("name"):
            raise self.unexpected("the name of a parameter")
        name = self.declared(self.advance(), "parameter")
        default: Expr | None = None
        if self.at("=", ":"):
            self._equals(name, "parameter")
            default = self.value()
        return Parameter(name, default, self.since(first))

    def _network(self) -> Network:
        first = self.advance()
        name = self._declared_name(first)
        if not self.at("{"):
            raise self._no_brace(f"`network {name.text}`")
        self.open()
        sections: list[Section] = []
        while not (self.at("}", "end") or self.at_item()):
            mark, start = self.mark(), self.token
            try:
                section = self._section()
                if section:
                    sections.append(section)
            except Recover:
                self.skip_statement(mark, start)
        self.close()
        self.ended = self.previous
        return Network(name, tuple(sections), self.since(first))

    def _section(self) -> Section | None:
        if self.at(","):
            self.comma()
            return None
        if not self.at("name"):
            raise self.unexpected("a section such as `layers:`")
        key, following = self.token, self.peek()
        known = key.value in SECTIONS
        if (
            following.kind == "("
            or (following.kind in ("{", "=", "name") and not known and str(key.value)[0].isupper())
            or (
                following.kind == "="
                and not known
                and self.peek(2).kind == "name"
                and str(self.peek(2).value)[0].isupper()
            )
        ):
            self._layer_outside()
            return None
        self.advance()
        if self.at("{") and key.value != "layers":
            return Section(self.name(key), self.map(), self.since(key))
        return self._layers(key) if key.value == "layers" else self._plain_section(key)

    def _plain_section(self, key: Token) -> Section:
        self.colon(key)
        if self.at("}", "end") or self.at_item() or (self.at("name") and self.peek().kind == ":"):
            self.problem("N121", f"the section `{key.value}` has no value", self.after(), "expected a value here")
            raise Recover
        value = self.value()
        return Section(self.name(key), value, self.since(key))

    def _layers(self, key: Token) -> Section:
        """`layers:` and its statements; braces around them are reported and read."""
        colon = self.take(":")
        if self.at("{"):
            self.problem(
                "N118",
                "the statements of `layers:` stand without braces",
                self.token,
                "no brace belongs here",
                secondary=() if colon else (Label(self.span(key), "write `layers:`"),),
                hint="write `layers:` and the statements after it; the next section ends them",
            )
            body = self.body()
        else:
            if not colon:
                if not self.at("name", "=", "}"):
                    raise self.unexpected("`:` after `layers`")
                self.problem(
                    "N108",
                    "`:` is missing after `layers`",
                    Span(self.source, key.end, key.end),
                    "expected `:` here",
                    fix=self.insertion(":"),
                )
                self.take("=")
            body = self.statements(sections=True)
        return Section(self.name(key), body, self.since(key))

    def _layer_outside(self) -> None:
        """Report a layer that stands in a network but not in its `layers:`, once for all that follow it."""
        self.problem(
            "N123",
            f"the layer {self.found()} stands outside `layers:`",
            self.token,
            hint="write `layers:` before the first layer",
        )
        self.statement()
        self.statements(sections=True)
