"""Text to tree: the declarations of a file. The grammar is docs/grammar.lark, which the tests hold this parser to."""

from __future__ import annotations

from neural.diagnostics.diagnostic import Diagnostic, Edit, Fix, Label
from neural.diagnostics.near import nearest
from neural.diagnostics.source import Source, Span
from neural.syntax.brackets import SECTIONS, capital
from neural.syntax.cursor import ITEMS, VALUE_STARTS, Recover, RecoverItem, Stop
from neural.syntax.lexer import MAX_PROBLEMS, Token
from neural.syntax.statements import Statements
from neural.syntax.tree import Define, Expr, File, Import, Literal, Name, Network, Param, Parameter, Section

MAX_PATH = 200

_ITEM = "`import`, `param`, `define` or `network`"


def parse(source: Source) -> tuple[File, list[Diagnostic]]:
    """The tree of a program and everything wrong with its syntax, in the order of the file.

    Never raises, whatever the text. Where there are errors the tree holds what could be read.
    """
    nul = source.text.find("\0")
    if nul >= 0:
        return File(source, (), (), False), [_not_text(source, nul)]
    parser = Parser(source)
    items = parser.file()
    messages = parser.messages()
    if len(messages) >= MAX_PROBLEMS:
        more = Diagnostic("N100", f"{MAX_PROBLEMS} mistakes or more: the rest of the file was not read")
        messages = [*messages[:MAX_PROBLEMS], more]
    complete = not (parser.lost or parser.lexer.lost)
    return File(source, items, tuple(parser.lexer.comments), complete), messages


def _not_text(source: Source, nul: int) -> Diagnostic:
    place = Label(Span(source, nul, nul + 1), "a NUL character")
    hint = "a program is text in UTF-8; is this the right file?"
    return Diagnostic("N114", f"`{source.name}` is not a text file", place, hint=hint)


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
            self.lost = True
        return tuple(items)

    def _item(self) -> Import | Param | Define | Network | None:
        ended, self.ended = self.ended, None
        if self.at("name") and self.token.value in ITEMS:
            return self._declaration(str(self.token.value))
        return self._no_item(ended)

    def _declaration(self, word: str) -> Import | Param | Define | Network:
        return {"import": self._import, "param": self._param, "define": self._define, "network": self._network}[word]()

    def _no_item(self, ended: Token | None) -> Import | Param | Define | Network | None:
        """Report what cannot stand at the top of a file; read on where only the word is misspelt."""
        if self.at(","):
            self.comma(_ITEM)
            return None
        if not self.at("name"):
            raise self.unexpected(_ITEM)
        word, following = str(self.token.value), self.peek().kind
        near = nearest(word, ITEMS)
        if near and following in ("name", "string"):
            fix = self.replacement(self.token, near)
            self.problem("N115", f"`{word}` is not a declaration", self.token, f"did you mean `{near}`?", fix=fix)
            return self._declaration(near)
        if following == ":" or (word in SECTIONS and following == "{"):
            closed = (Label(self.span(ended), "the network ends here"),) if ended else ()
            title, hint = (
                f"the section `{word}` stands outside a network",
                "sections stand in the braces of a `network`",
            )
            self.problem("N127", title, self.token, secondary=closed, hint=hint)
        elif following in ("(", "{"):
            hint = "layers stand in a `define` or in the `layers:` of a `network`"
            self.problem("N123", f"the layer `{word}` stands outside a network", self.token, hint=hint)
        else:
            fix = Fix("write `param`", (Edit(self.before(), "param "),)) if following == "=" else None
            self.problem("N115", f"`{word}` is not a declaration", self.token, f"expected {_ITEM}", fix=fix)
        raise Recover

    def _declared_name(self, keyword: Token) -> Name:
        """The name after `param`, `define` or `network`."""
        if self.at("name") and not self.at_item():
            return self.declared(self.advance(), str(keyword.value))
        wrong = self.at("string", "ref", "number") and not self.token.first
        title, place = f"`{keyword.value}` is not followed by a name", self.token if wrong else self.after()
        meant = str(self.token.value)
        fix = self.replacement(self.token, meant) if wrong and meant.isidentifier() else None
        self.problem("N122", title, place, "expected a name", fix=fix)
        self.doubt()
        if wrong:
            return Name(str(self.token.value), self.span(self.advance()))
        if not self.at("(", "{", "="):
            raise Recover
        return Name("", self.after())

    def _import(self) -> Import:
        first = self.advance()
        if path := self.take("string"):
            return Import(Literal(path.value, self.span(path)), self.since(first))
        if not self.at("name") or self.token.first:
            hint = 'write it as in `import "blocks.neural"`'
            self.problem(
                "N126", "`import` is not followed by a path", self.after(), "expected a path in quotes", hint=hint
            )
            raise Recover
        start = self.token.start
        path = self.source.text[start : start + MAX_PATH].split()[0]
        span = Span(self.source, start, start + len(path))
        fix = self.replacement(span, f'"{path}"')
        self.problem("N126", "the path of an `import` stands in quotes", span, fix=fix)
        raise Recover

    def _param(self) -> Param:
        first = self.advance()
        name = self._declared_name(first)
        self._equals(name, "param")
        return Param(name, self._default(name, "param"), self.since(first))

    def _equals(self, name: Name, what: str) -> None:
        if self.take("="):
            return
        if self.at(":"):
            self.instead("N107", f"`{what} {name.text}`", "=")
            self.advance()
        elif self.token.kind in VALUE_STARTS and not self.at_item():
            self.missing("N107", f"`{what} {name.text}`", "=")
        elif not (self.at("end") or self.at_item()):
            raise self.unexpected(f"`=` after `{what} {name.text}`")

    def _default(self, name: Name, what: str) -> Expr:
        if self.at(",", ")", "end") or self.at_item():
            self.problem("N121", f"`{what} {name.text}` has no value", self.after(), "expected a value here")
            raise Recover
        return self.value()

    def _define(self) -> Define:
        first = self.advance()
        name = self._declared_name(first)
        parameters: tuple[Parameter, ...] = ()
        if self.at("("):
            parameters = self._parameters()
        elif self.at("{"):
            fix = self.insertion("()", f"write `define {name.text}()`")
            title = f"`define {name.text}` has no parameter list"
            self.problem("N109", title, name.span, "expected `(` after this", fix=fix)
        if not self.at("{"):
            raise self._no_brace(f"`define {name.text}`")
        return Define(name, parameters, self.body(), self.since(first))

    def _no_brace(self, head: str) -> Recover:
        hint = "a body stands between `{` and `}`, not behind a colon" if self.at(":") else None
        return self.unexpected(f"`{{` after {head}", hint)

    def _parameters(self) -> tuple[Parameter, ...]:
        self.open()
        parameters: list[Parameter] = []
        for _ in self.elements():
            parameters.append(self._parameter())
        self.close(body=True)
        return tuple(parameters)

    def _parameter(self) -> Parameter:
        first = self.token
        if self.at("ref"):
            fix = self.replacement(first, str(first.value))
            self.problem("N101", f"the parameter `{first.value}` is declared without `$`", first, fix=fix)
        elif not self.at("name"):
            raise self.unexpected("the name of a parameter")
        name = self.declared(self.advance(), "parameter")
        default: Expr | None = None
        if self.at("=", ":"):
            self._equals(name, "parameter")
            default = self._default(name, "parameter")
        return Parameter(name, default, self.since(first))

    def _network(self) -> Network:
        first = self.advance()
        name = self._declared_name(first)
        if not self.at("{"):
            raise self._no_brace(f"`network {name.text}`")
        self.open()
        sections: list[Section] = []
        while not (self.at("}", "end") or self.at_item()):
            self.floor = 1
            mark, start = self.mark(), self.token
            try:
                section = self._section()
                if section:
                    sections.append(section)
                    self.trust_since(mark)
            except Recover:
                self.skip_statement(mark, start)
        self.floor = 0
        self.close()
        self.ended = self.previous
        return Network(name, tuple(sections), self.since(first))

    def _section(self) -> Section | None:
        if self.at(","):
            self.comma()
            return None
        if not self.at("name"):
            raise self.unexpected("a section such as `layers:`")
        if self._at_layer():
            self._layer_outside()
            return None
        key = self.advance()
        if key.value == "layers":
            return self._layers(key)
        if self.at("{"):
            return Section(self.name(key), self.map(), self.since(key))
        self.colon(key)
        if self.at("}", "end") or self.at_item() or (self.at("name") and self.peek().kind == ":"):
            title = f"the section `{key.value}` has no value"
            self.problem("N121", title, self.after(), "expected a value here")
            raise Recover
        return Section(self.name(key), self.value(), self.since(key))

    def _at_layer(self) -> bool:
        """At a statement where a section belongs."""
        following = self.peek().kind
        if self.token.value in SECTIONS:
            return False
        if following == "=":
            return capital(self.token) or (self.peek(2).kind == "name" and capital(self.peek(2)))
        if following == "{":
            return self.token.value == "Residual" or self.brace_for_parenthesis()
        return following == "(" or (following == "name" and capital(self.token))

    def _layers(self, key: Token) -> Section:
        """`layers:` and its statements; braces around them are reported and read."""
        colon = self.take(":")
        if self.at("{"):
            hint = "write `layers:` and the statements after it; the next section ends them"
            title = "the statements of `layers:` stand without braces"
            self.problem("N118", title, self.token, "no brace belongs here", hint=hint)
            self.open()
            body = self.statements(sections=True)
            if self.at("}"):
                self.advance()
            self.brackets.pop()
            return Section(self.name(key), body, self.since(key))
        if self.at("="):
            self.instead("N108", "`layers`", ":")
            self.advance()
        elif not colon and self.at("name", "}"):
            self.missing("N108", "`layers`", ":")
        elif not colon:
            raise self.unexpected("`:` after `layers`")
        return Section(self.name(key), self.statements(sections=True), self.since(key))

    def _layer_outside(self) -> None:
        """Report a layer that stands in a network but not in its `layers:`, once for all that follow it."""
        if not self.skipped or self.skipped[-1][1] < self.brackets[0].start:
            # Else `layers:` may have stood in what could not be read.
            hint = "write `layers:` before the first layer"
            self.problem("N123", f"the layer {self.found()} stands outside `layers:`", self.token, hint=hint)
        self.lost = True
        self.statement()
        self.statements(sections=True)
