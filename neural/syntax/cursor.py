"""Where the parser stands in its tokens, what it complains about, and how it finds its feet after a mistake."""

from __future__ import annotations

from neural.diagnostics.diagnostic import Diagnostic, Edit, Fix, Label
from neural.diagnostics.source import Source, Span
from neural.syntax.lexer import MAX_PROBLEMS, Lexer, Token
from neural.syntax.literals import shorten

MAX_NESTING = 100
MAX_SKIPPED = 10_000
"""So many tokens of nonsense are looked at one by one; a file that has more is skipped to its next declaration."""

ITEMS = ("import", "param", "define", "network")
CLOSER = {"(": ")", "[": "]", "{": "}"}
VALUE_STARTS = frozenset({"name", "number", "string", "ref", "(", "[", "{", "-", "+"})


class Recover(Exception):
    """A mistake was reported; the statement, entry or section it stands in is given up."""


class RecoverItem(Exception):
    """A mistake was reported; the whole declaration is given up."""


class Stop(Exception):
    """Enough mistakes: the rest is not looked at."""


class Cursor:
    """The tokens of a source, with look-ahead; the brackets that stand open; the messages so far."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.lexer = Lexer(source)
        self.problems: list[Diagnostic] = []
        self.skipped: list[tuple[int, int]] = []
        self.brackets: list[Token] = []
        self.nesting = 0
        self._tokens = self.lexer.batch()
        self._index = 0
        self.token = self._tokens[0]
        self.previous = Token("start", 0, 0, None, True)

    # Tokens

    def advance(self) -> Token:
        """Take the current token."""
        taken = self.previous = self.token
        self._index += 1
        if self._index + 4 > len(self._tokens):
            self._tokens = [*self._tokens[self._index :], *self.lexer.batch()]
            self._index = 0
        self.token = self._tokens[self._index]
        return taken

    def peek(self, distance: int = 1) -> Token:
        """A token after the current one, at most three on."""
        return self._tokens[self._index + distance]

    def at(self, *kinds: str) -> bool:
        return self.token.kind in kinds

    def at_word(self, *words: str) -> bool:
        return self.token.kind == "name" and self.token.value in words

    def at_item(self) -> bool:
        """At the first word of a declaration, as far as two tokens can tell."""
        return self.is_item(self.token, self.peek())

    @staticmethod
    def is_item(token: Token, following: Token) -> bool:
        if token.kind != "name" or token.value not in ITEMS:
            return False
        return following.kind == ("string" if token.value == "import" else "name")

    def take(self, kind: str) -> Token | None:
        return self.advance() if self.token.kind == kind else None

    def span(self, first: Token, last: Token | None = None) -> Span:
        return Span(self.source, first.start, (last or first).end)

    def since(self, first: Token) -> Span:
        """From a token to the end of the last one taken."""
        return Span(self.source, first.start, max(first.end, self.previous.end))

    def after(self) -> Span:
        """The empty place after the last token taken."""
        return Span(self.source, self.previous.end, self.previous.end)

    # Brackets

    def open(self) -> Token:
        """Take an opening bracket."""
        self.brackets.append(self.token)
        self.deeper(self.token)
        return self.advance()

    def close(self) -> None:
        """Take the closing bracket of the innermost open one, or say that it is missing."""
        opener = self.brackets[-1]
        wanted = CLOSER[opener.kind]
        if self.token.kind == wanted:
            self.advance()
        elif self.at(")", "]", "}"):
            self._mismatched(opener, wanted)
        elif self.token.first or self.at_item():
            self.unclosed()
        else:
            raise self.unexpected(f"`{wanted}`" if opener.kind == "{" else f"`,` or `{wanted}`")
        self.brackets.pop()
        self.nesting -= 1

    def _mismatched(self, opener: Token, wanted: str) -> None:
        found = self.token
        outer = [CLOSER[b.kind] for b in self.brackets[:-1]]
        if found.kind in outer and (found.kind != "}" or wanted != "}"):
            edit = Fix(f"insert `{wanted}`", (Edit(self.after(), wanted),))
            self.problem(
                "N102",
                f"`{opener.kind}` is not closed before `{found.kind}`",
                found,
                f"`{wanted}` is missing before this",
                secondary=(self.opened(opener),),
                fix=edit,
            )
            return
        self.problem(
            "N103",
            f"`{found.kind}` cannot close `{opener.kind}`",
            found,
            f"`{wanted}` belongs here",
            secondary=(self.opened(opener),),
            fix=Fix(f"write `{wanted}`", (Edit(self.span(found), wanted),)),
        )
        self.advance()

    def unclosed(self, base: int | None = None) -> None:
        """Report what stands open at the current token and give up: the statement for parentheses, else the declaration."""
        base = len(self.brackets) - 1 if base is None else base
        open_brackets = self.brackets[base:]
        whole = self.at("end") or self.at_item()
        if whole:
            open_brackets = self.brackets
        closers = "".join(CLOSER[b.kind] for b in reversed(open_brackets))
        plural = "are" if len(open_brackets) > 1 else "is"
        names = (
            " and ".join(f"`{b.kind}`" for b in open_brackets[-2:])
            if len(open_brackets) < 3
            else f"{len(open_brackets)} brackets"
        )
        if not (self.at("end") and self.lexer.cut_short):
            place = self.after() if self.at("end") else self.span(self.token)
            self.problem(
                "N102",
                f"{names} {plural} never closed",
                place,
                f"expected `{closers}` before {self.found()}",
                secondary=tuple(self.opened(b) for b in open_brackets[-3:]),
            )
        raise RecoverItem if whole else Recover

    def opened(self, opener: Token) -> Label:
        return Label(self.span(opener), f"this `{opener.kind}` is not closed")

    def deeper(self, token: Token, levels: int = 0) -> None:
        self.nesting += 1
        if self.nesting + levels > MAX_NESTING:
            self.problem(
                "N119",
                f"more than {MAX_NESTING} levels stand inside one another",
                token,
                "one level too many",
                hint="name the inner parts: a `define` for layers, a `param` for values",
            )
            raise RecoverItem

    # Messages

    def problem(
        self,
        code: str,
        title: str,
        place: Token | Span,
        label: str = "",
        *,
        secondary: tuple[Label, ...] = (),
        hint: str | None = None,
        notes: tuple[str, ...] = (),
        fix: Fix | None = None,
    ) -> None:
        """Keep a message; never two about one place."""
        span = place if isinstance(place, Span) else self.span(place)
        if self.problems and self.problems[-1].primary and self.problems[-1].primary.span.start == span.start:
            return
        self.problems.append(Diagnostic(code, title, Label(span, label), secondary, notes, hint, fix))
        if len(self.problems) + len(self.lexer.diagnostics) >= MAX_PROBLEMS:
            raise Stop

    def insertion(self, text: str, title: str | None = None, *, safe: bool = True) -> Fix:
        """A fix that inserts text after the last token taken."""
        return Fix(title or f"insert `{text.strip()}`", (Edit(self.after(), text),), safe)

    def found(self, token: Token | None = None) -> str:
        """The token as a reader would call it."""
        token = token or self.token
        text = shorten(self.source.text[token.start : token.end])
        match token.kind:
            case "end":
                return "the end of the file"
            case "string":
                return f"the string {text}"
            case "number":
                return f"the number {text}"
        return f"`{text}`"

    def unexpected(self, expected: str, hint: str | None = None) -> Recover:
        """Report the current token as one that cannot stand here."""
        if self.at(")", "]", "}") and not any(CLOSER[b.kind] == self.token.kind for b in self.brackets):
            self.problem(
                "N103", f"`{self.token.kind}` closes nothing", self.token, "no bracket is open that this could close"
            )
        elif not (self.at("end") and self.lexer.cut_short):
            place = self.after() if self.at("end") else self.token
            self.problem("N101", f"expected {expected}, found {self.found()}", place, f"expected {expected}", hint=hint)
        return Recover()

    # Recovery

    def mark(self) -> tuple[int, int]:
        return len(self.brackets), self.nesting

    def skip_statement(self, mark: tuple[int, int], start: Token) -> None:
        """After a mistake in what began at `start`: on to what looks like the next statement, entry or section."""
        brackets = [b.kind for b in self.brackets[mark[0] :]]
        del self.brackets[mark[0] :]
        self.nesting = mark[1]
        begin = self.token.start
        if self.token is start:
            self._skip_token(brackets)
        for _ in range(MAX_SKIPPED):
            if self._at_landing(brackets):
                break
            self._skip_token(brackets)
        else:
            raise RecoverItem
        self.skipped.append((begin, self.token.start))

    def _at_landing(self, brackets: list[str]) -> bool:
        if self.at("end") or self.at_item():
            return True
        if "{" not in brackets and self.at("}"):
            return True
        return not brackets and self.at("name") and (self.token.first or self.peek().kind in ("(", "=", "{", ":"))

    def _skip_token(self, brackets: list[str]) -> None:
        kind = self.advance().kind
        if kind in CLOSER:
            brackets.append(kind)
        elif kind in (")", "]", "}"):
            while brackets and CLOSER[brackets[-1]] != kind and kind == "}":
                brackets.pop()
            if brackets and CLOSER[brackets[-1]] == kind:
                brackets.pop()

    def skip_item(self) -> None:
        """On to the next declaration, however far."""
        self.brackets.clear()
        self.nesting = 0
        begin = self.token.start
        while not (self.at("end") or self.at_item()):
            if self._index + 8 >= len(self._tokens):
                self.lexer.skip_to_item()
            self.advance()
        self.skipped.append((begin, self.token.start))

    def messages(self) -> list[Diagnostic]:
        """What was wrong, in the order of the file; nothing from passages that were skipped because of something before."""
        found = [d for d in self.lexer.diagnostics if not any(a <= d.primary.span.start < b for a, b in self.skipped)]
        return sorted([*self.problems, *found], key=lambda d: d.primary.span.start if d.primary else 0)
