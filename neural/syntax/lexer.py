"""Text to tokens, a few hundred at a time: of a hundred megabytes of nonsense only the first line is looked at."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from neural.diagnostics.diagnostic import Diagnostic, Edit, Fix, Label
from neural.diagnostics.source import Source, Span
from neural.syntax.literals import Trouble, read_number, read_string, shorten, write_string
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
| (?P<ref>     \$\{[ ]*[^\W\d]\w*[ ]*\} | \$\w* )
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
_REMARK = re.compile(r"\s(?:#|//)")
_LOOKALIKES = dict(zip("（）［］｛｝，：＝＋－＊／−–×", "()[]{},:=+-*/--*", strict=True))
_HINTS = {
    "%": "the operators are + - * / **",
    "^": "a power is written **",
    ".": "a name has no dots",
    "`": "a string stands in \" or '",
}
_NAMES = "names are made of the letters a–z and A–Z, digits and `_`"


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
        """The rest is in an unclosed comment or was not read after too many mistakes: nothing is missing at the end."""
        self.lost = False
        """The value of some token is made up."""
        self._troubles: list[tuple[int, int]] = []
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
                end = len(self.source.text)
                self.cut_short |= self._position < end
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

    def explains(self, start: int, end: int) -> bool:
        """Does a passage that a message tells of, dropped or guessed at, lie in these characters?"""
        index = bisect_left(self._troubles, (end,)) - 1
        return index >= 0 and self._troubles[index][1] > start

    def _report(self, match: re.Match[str], code: str, title: str, label: str = "", hint: str | None = None) -> None:
        self.diagnostics.append(Diagnostic(code, title, Label(self._span(*match.span()), label), hint=hint))

    def _mend(self, match: re.Match[str], code: str, title: str, text: str) -> None:
        """Report something in whose place `text` was meant."""
        span = self._span(*match.span())
        fix = Fix(f"write `{text}`" if text.strip() else "remove it", (Edit(span, text),), safe=True)
        self.diagnostics.append(Diagnostic(code, title, Label(span), fix=fix))

    def _lose(self, start: int, end: int) -> None:
        self.lost = True
        self._troubles.append((start, end))

    def _trouble(self, start: int, trouble: Trouble) -> None:
        self._lose(start + trouble.start, start + trouble.end)
        span = self._span(start + trouble.start, start + trouble.end)
        self.diagnostics.append(Diagnostic(trouble.code, trouble.title, Label(span), hint=trouble.hint))

    def _span(self, start: int, end: int) -> Span:
        return Span(self.source, start, end)

    def _token(self, kind: str, match: re.Match[str], value: int | float | str) -> Token:
        return Token(kind, match.start(), match.end(), value, self._first)

    # One method a group of the regular expression

    def _comment(self, match: re.Match[str]) -> None:
        self._first = self._first or "\n" in match[0]
        text = match[0].rstrip()
        self.comments.append(Comment(text, self._span(match.start(), match.start() + len(text))))

    def _open(self, match: re.Match[str]) -> None:
        self.cut_short = True
        self._lose(match.start(), match.end())
        label = Label(self._span(match.start(), match.start() + 2), "begins here and runs to the end of the file")
        self.diagnostics.append(Diagnostic("N105", "a comment is never closed", label, hint="close it with `*/`"))

    def _name(self, match: re.Match[str]) -> Token:
        if not match[0].isascii():
            self._not_a_name(match, match[0])
        return self._token("name", match, match[0])

    def _ref(self, match: re.Match[str]) -> Token:
        name = match[0].strip("${ }")
        if not name or name[0].isdigit():
            self._lose(*match.span())
            title = f"`{shorten(match[0])}` names nothing" if name else "`$` is not followed by a name"
            self._report(match, "N110", title, hint="write `$name` to read the parameter `name`")
        elif not name.isascii():
            self._not_a_name(match, name)
        elif match[0][1] == "{":
            self._mend(match, "N110", "`$` takes a name without braces", f"${name}")
        return self._token("ref", match, name)

    def _not_a_name(self, match: re.Match[str], name: str) -> None:
        odd = next(c for c in name if not c.isascii())
        self._report(match, "N113", f"`{shorten(name)}` is not a name", f"`{odd}` is {_character(odd)}", _NAMES)

    def _number(self, match: re.Match[str]) -> Token:
        value = read_number(match[0])
        if isinstance(value, Trouble):
            self._trouble(match.start(), value)
            value = 1
        return self._token("number", match, value)

    def _string(self, match: re.Match[str]) -> Token:
        text = match[0]
        backslashes = len(text) - 1 - len(text[:-1].rstrip("\\"))
        if len(text) < 2 or text[-1] != text[0] or backslashes % 2:
            return self._unclosed_string(match)
        value, troubles = read_string(text)
        for trouble in troubles:
            self._trouble(match.start(), trouble)
        return self._token("string", match, value)

    def _unclosed_string(self, match: re.Match[str]) -> Token:
        # What looks like the end of the line around the string is read as such: `Dense(activation="relu)` has its `)`.
        text = match[0]
        remark = _REMARK.search(text)
        text = text[: remark.start() if remark else None].rstrip(")]}, \t\r\f") or text[0]
        end = match.start() + len(text)
        label = Label(self._span(match.start(), end), "begins here and is not closed on this line")
        hint = f"close it with `{text[0]}`; a line end inside a string is written \\n"
        self.diagnostics.append(Diagnostic("N104", "a string is never closed", label, hint=hint))
        # What stands behind it on the line may have been meant as a part of it, or the other way round.
        self._lose(*match.span())
        self._start(end)
        return Token("string", match.start(), end, text[1:], self._first)

    def _smart(self, match: re.Match[str]) -> Token:
        text = match[0][1:-1]
        self._mend(match, "N113", f'`{match[0][0]}` is a typographic quote, not `"`', write_string(text))
        return self._token("string", match, text)

    def _other(self, match: re.Match[str]) -> Token | None:
        text = match[0]
        if mark := _LOOKALIKES.get(text):
            self._mend(match, "N113", f"`{text}` is {_character(text)}, not `{mark}`", mark)
            return Token(mark, match.start(), match.end(), None, self._first)
        self._troubles.append(match.span())
        if text.isspace() or text in "\u200b\u200c\u200d\u2060\ufeff":
            self._mend(match, "N113", f"{_character(text[0])} stands where a space belongs", " ")
        elif text == ";":
            self._mend(match, "N128", "nothing separates statements and sections: `;`", "")
        else:
            self.lost = True
            shown = f"`{text[0]}`" if text[0].isprintable() and text[0].isascii() else _character(text[0])
            self._report(match, "N113", f"{shown} has no meaning here", hint=_HINTS.get(text[0]))
        return None


def _character(c: str) -> str:
    name = unicodedata.name(c, "")
    return f"U+{ord(c):04X}" + (f" ({name.lower()})" if name else "")
