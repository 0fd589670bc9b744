"""Text to tokens, a few hundred at a time: a file of a hundred megabytes of nonsense is refused after its first line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from neural.diagnostics.diagnostic import Diagnostic, Edit, Fix, Label
from neural.diagnostics.source import Source, Span
from neural.syntax.literals import Trouble, read_number, read_string, shorten
from neural.syntax.tree import Comment

BATCH = 256
MAX_PROBLEMS = 100

_TOKEN = re.compile(
    r"""
  (?P<space>   [ \t\r\n\f]+ )
| (?P<comment> \#[^\n]* | //[^\n]* | /\*(?s:.*?)\*/ )
| (?P<open>    /\*(?s:.*) )
| (?P<name>    [^\W\d]\w* )
| (?P<number>  \.?[0-9][\w.]*(?:(?<=[eE])[+-][\w.]*)* )
| (?P<string>  "[^"\\\n]*(?:\\.[^"\\\n]*)*\\?"? | '[^'\\\n]*(?:\\.[^'\\\n]*)*\\?'? )
| (?P<ref>     \$\{[ ]*[^\W\d]\w*[ ]*\} | \$(?:[^\W\d]\w*)? )
| (?P<mark>    \*\* | [(){}\[\]:,=+*/-] )
| (?P<smart>   [“”„‟‘’‚‛«»][^\n"'“”„‟‘’‚‛«»]*["'“”„‟‘’‚‛«»] )
| (?P<other>   [^\w\s\#/"'$(){}\[\]:,=+*“”„‟‘’‚‛«»-]+ | (?s:.) )
""",
    re.VERBOSE,
)
_NOT_ITEM = re.compile(
    r"""
  (?: \#[^\n]* | //[^\n]* | /\*(?s:.*?)(?:\*/|\Z)
    | "[^"\\\n]*(?:\\.[^"\\\n]*)*\\?"? | '[^'\\\n]*(?:\\.[^'\\\n]*)*\\?'?
    | [^\w\#/"']+ | /
    | (?!(?:param|define|network)\s+[A-Za-z_]|import\s*["'])\w+
  )++
""",
    re.VERBOSE,
)
_LINE_REST = re.compile(r"[)\]},\s]*(?:(?:#|//)[^\n]*)?$")
_LOOKALIKES = {
    "（": "(",
    "）": ")",
    "，": ",",
    "：": ":",
    "＝": "=",
    "｛": "{",
    "｝": "}",
    "×": "*",
    "−": "-",
    "–": "-",
}


class Token(NamedTuple):
    """`kind` is "name", "number", "string", "ref", "end" or the mark itself: "(" … "**"."""

    kind: str
    start: int
    end: int
    value: int | float | str | None
    first: bool
    """Nothing but white space and comments stands before it on its line."""


class Lexer:
    """Hands out tokens in batches; keeps the comments and what it finds wrong."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.comments: list[Comment] = []
        self.diagnostics: list[Diagnostic] = []
        self.cut_short = False
        """The rest was not read, for an unclosed comment or too many mistakes: what seems to be missing may stand there."""
        self._first = True
        self._start(1 if source.text.startswith("\ufeff") else 0)

    def _start(self, offset: int) -> None:
        self._position = offset
        self._matches: Iterator[re.Match[str]] = _TOKEN.finditer(self.source.text, offset)

    def batch(self) -> list[Token]:
        """The next tokens; "end" tokens only, for ever, when there are no more."""
        tokens: list[Token] = []
        while len(tokens) < BATCH:
            match = next(self._matches, None) if len(self.diagnostics) < MAX_PROBLEMS else None
            if match is None:
                self.cut_short |= self._position < len(self.source.text)
                end = len(self.source.text)
                return [*tokens, *[Token("end", end, end, None, True)] * 8]
            self._position = match.end()
            kind = match.lastgroup
            if kind == "mark":
                tokens.append(Token(match[0], match.start(), match.end(), None, self._first))
            elif kind == "space":
                self._first = self._first or "\n" in match[0]
                continue
            elif kind == "comment":
                self._comment(match)
                continue
            else:
                token = getattr(self, f"_{kind}")(match)
                if token is None:
                    continue
                tokens.append(token)
            self._first = False
        return tokens

    def skip_to_item(self) -> None:
        """Jump, at the speed of one regular expression, to the next `import`, `param`, `define` or `network`."""
        match = _NOT_ITEM.match(self.source.text, self._position)
        if match:
            self._first = True
            self._start(match.end())

    def report(
        self, code: str, title: str, span: Span, label: str = "", hint: str | None = None, fix: Fix | None = None
    ) -> None:
        self.diagnostics.append(Diagnostic(code, title, Label(span, label), hint=hint, fix=fix))

    def _span(self, start: int, end: int) -> Span:
        return Span(self.source, start, end)

    def _token(self, kind: str, match: re.Match[str], value: int | float | str) -> Token:
        return Token(kind, match.start(), match.end(), value, self._first)

    def _comment(self, match: re.Match[str]) -> None:
        self._first = self._first or "\n" in match[0]
        text = match[0].rstrip()
        self.comments.append(Comment(text, self._span(match.start(), match.start() + len(text))))

    def _open(self, match: re.Match[str]) -> None:
        self.cut_short = True
        span = self._span(match.start(), match.start() + 2)
        self.report(
            "N105",
            "a comment is never closed",
            span,
            "begins here and runs to the end of the file",
            "close it with `*/`",
        )

    def _name(self, match: re.Match[str]) -> Token:
        if not match[0].isascii():
            odd = next(c for c in match[0] if not c.isascii())
            self.report(
                "N113",
                f"`{shorten(match[0])}` is not a name: `{odd}` is {_character(odd)}",
                self._span(*match.span()),
                hint="names are made of the letters a–z and A–Z, digits and `_`",
            )
        return self._token("name", match, match[0])

    def _number(self, match: re.Match[str]) -> Token:
        value = read_number(match[0])
        if isinstance(value, Trouble):
            self._trouble(match.start(), value)
            value = 1
        return self._token("number", match, value)

    def _string(self, match: re.Match[str]) -> Token:
        text = match[0]
        if len(text) < 2 or text[-1] != text[0] or (len(text) - len(text[:-1].rstrip("\\"))) % 2 == 0:
            return self._unclosed_string(match)
        value, troubles = read_string(text)
        for trouble in troubles:
            self._trouble(match.start(), trouble)
        return self._token("string", match, value)

    def _unclosed_string(self, match: re.Match[str]) -> Token:
        # What looks like the end of the line around the string is read as such: `Dense(activation="relu)` has its `)`.
        rest = _LINE_REST.search(match[0], 1)
        end = match.start() + (rest.start() if rest and rest.start() > 1 else len(match[0]))
        self.report(
            "N104",
            "a string is never closed",
            self._span(match.start(), end),
            "begins here and is not closed on this line",
            f"close it with `{match[0][0]}`; a line end inside a string is written \\n",
        )
        self._start(end)
        return Token("string", match.start(), end, self.source.text[match.start() + 1 : end], self._first)

    def _ref(self, match: re.Match[str]) -> Token:
        name = match[0][1:]
        if name.startswith("{"):
            name = name[1:-1].strip()
            fix = Fix(f"write `${name}`", (Edit(self._span(*match.span()), f"${name}"),), safe=True)
            self.report("N110", "`$` takes a name without braces", self._span(*match.span()), fix=fix)
        elif not name:
            hint = "write `$name` to read a parameter of that name"
            self.report("N110", "`$` is not followed by a name", self._span(*match.span()), hint=hint)
        elif not name.isascii():
            self.report(
                "N113",
                f"`{shorten(name)}` is not a name",
                self._span(*match.span()),
                hint="names are made of the letters a–z and A–Z, digits and `_`",
            )
        return self._token("ref", match, name)

    def _smart(self, match: re.Match[str]) -> Token:
        span = self._span(*match.span())
        fix = Fix("write straight quotes", (Edit(span, f'"{match[0][1:-1]}"'),), safe=True)
        self.report(
            "N113", f"`{match[0][0]}` is a typographic quote", span, "strings stand in straight quotes", fix=fix
        )
        return self._token("string", match, match[0][1:-1])

    def _other(self, match: re.Match[str]) -> Token | None:
        text, span = match[0], self._span(*match.span())
        mark = _LOOKALIKES.get(text)
        if mark:
            fix = Fix(f"write `{mark}`", (Edit(span, mark),), safe=True)
            self.report("N113", f"`{text}` is {_character(text)}, not `{mark}`", span, fix=fix)
            return Token(mark, match.start(), match.end(), None, self._first)
        if text.isspace() or text in "\u200b\u200c\u200d\ufeff":
            fix = Fix("write a space", (Edit(span, " "),), safe=True)
            self.report("N113", f"{_character(text[0])} stands where a space belongs", span, fix=fix)
        elif text == ";":
            fix = Fix("remove `;`", (Edit(span, ""),), safe=True)
            self.report("N128", "statements are not separated by `;`", span, fix=fix)
        else:
            shown = text if text.isprintable() and len(text) == 1 else ""
            title = (
                f"`{shown}` has no meaning here"
                if shown.isascii() and shown
                else f"{_character(text[0])} has no meaning here"
            )
            self.report("N113", title, span, hint=_OTHER_HINTS.get(text[0]))
        return None

    def _trouble(self, start: int, trouble: Trouble) -> None:
        self.report(
            trouble.code, trouble.title, self._span(start + trouble.start, start + trouble.end), hint=trouble.hint
        )


_OTHER_HINTS = {
    "%": "the operators are + - * / **",
    "^": "a power is written **",
    ".": "a name has no dots; a fraction begins with a digit or is written .5",
    "`": "a string stands in \" or '",
    "@": "the operators are + - * / **",
}


def _character(c: str) -> str:
    name = unicodedata.name(c, "")
    return f"U+{ord(c):04X}" + (f" ({name.lower()})" if name else "")
