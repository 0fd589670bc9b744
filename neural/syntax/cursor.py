"""Where the parser stands in its tokens, and what it has to say."""

from __future__ import annotations

from neural.diagnostics.diagnostic import Diagnostic, Edit, Fix, Label
from neural.diagnostics.source import Source, Span
from neural.syntax.lexer import MAX_PROBLEMS, Lexer, Token
from neural.syntax.literals import shorten

MAX_INCIDENTS = 1000

ITEMS = ("import", "param", "define", "network")
CLOSER = {"(": ")", "[": "]", "{": "}"}
VALUE_STARTS = frozenset({"name", "number", "string", "ref", "(", "[", "{", "-", "+"})


class Recover(Exception):
    """A mistake was reported: the statement, entry or section it stands in is given up."""


class RecoverItem(Exception):
    """A mistake was reported: the whole declaration is given up."""


class Stop(Exception):
    """Enough mistakes: the rest is not looked at."""


class Cursor:
    """The tokens of a source with look-ahead, and the messages so far."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.lexer = Lexer(source)
        self.problems: list[Diagnostic] = []
        self.incidents = 0
        """Mistakes, those included that may follow from one before and are not told."""
        self.lost = False
        """Something could not be read and is not in the tree, or something stands in for it."""
        self.lexer_explains = False
        """The last mistake was not told because the lexer tells of it."""
        self.brackets: list[Token] = []
        self._doubtful = -1
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

    def at_closer(self) -> bool:
        return self.token.kind in (")", "]", "}")

    def at_item(self, distance: int = 0) -> bool:
        """At the first word of a declaration, as far as two tokens can tell."""
        token, following = self.peek(distance), self.peek(distance + 1)
        if token.kind != "name" or token.value not in ITEMS:
            return False
        return following.kind == ("string" if token.value == "import" else "name")

    def take(self, kind: str) -> Token | None:
        return self.advance() if self.token.kind == kind else None

    def skip_to_item(self) -> None:
        """On to the next declaration, however far."""
        while not (self.at("end") or self.at_item()):
            if self._index + 8 >= len(self._tokens):
                self.lexer.skip_to_item()
            self.advance()

    # Places

    def span(self, token: Token) -> Span:
        return Span(self.source, token.start, token.end)

    def since(self, first: Token) -> Span:
        """From a token to the end of the last one taken."""
        return Span(self.source, first.start, max(first.end, self.previous.end))

    def before(self) -> Span:
        """The empty place before the current token."""
        return Span(self.source, self.token.start, self.token.start)

    def after(self) -> Span:
        """The empty place after the last token taken."""
        return Span(self.source, self.previous.end, self.previous.end)

    def here(self) -> Span:
        """The current token; at the end of the file, the place after the last one."""
        return self.after() if self.at("end") else self.span(self.token)

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
        fix: Fix | None = None,
    ) -> None:
        """Keep a message, unless what it says may follow from a mistake that has been told."""
        self.incidents += 1
        if self.incidents >= MAX_INCIDENTS:
            raise Stop
        span = place if isinstance(place, Span) else self.span(place)
        if self._follows(span):
            return
        self.problems.append(Diagnostic(code, title, Label(span, label), secondary, (), hint, fix))
        if len(self.problems) >= MAX_PROBLEMS:
            raise Stop

    def _follows(self, span: Span) -> bool:
        """Is a mistake here explained by one before, on the same line or by the lexer?"""
        told = self.problems[-1].primary if self.problems else None
        cut = self.at("end") and self.lexer.cut_short
        self.lexer_explains = cut or self.lexer.explains(self.previous.start, self.token.end)
        return self.lexer_explains or span.start <= self._doubtful or bool(told and told.span.start == span.start)

    def doubt(self) -> None:
        """After a guess: what seems wrong up to the end of this line may come from it."""
        self.lost = True
        if self.previous.end >= self._doubtful:
            end = self.source.text.find("\n", self.previous.end)
            self._doubtful = end if end >= 0 else len(self.source.text)

    def trust(self) -> None:
        """Something was read whole: what comes after it is not in doubt."""
        self._doubtful = -1

    def insertion(self, text: str, title: str | None = None, *, safe: bool = True) -> Fix:
        """A fix that inserts text after the last token taken."""
        return Fix(title or f"insert `{text.strip()}`", (Edit(self.after(), text),), safe)

    def replacement(self, place: Token | Span, text: str, *, safe: bool = True) -> Fix:
        """A fix that writes something else in a place, or nothing."""
        span = place if isinstance(place, Span) else self.span(place)
        return Fix(f"write `{text}`" if text else f"remove `{span.text}`", (Edit(span, text),), safe)

    def found(self) -> str:
        """The current token as a reader would call it."""
        text = shorten(self.span(self.token).text)
        return {"end": "the end of the file", "string": f"the string {text}", "number": f"the number {text}"}.get(
            self.token.kind, f"`{text}`"
        )

    def unexpected(self, expected: str, hint: str | None = None) -> Recover:
        """Report the current token as one that cannot stand here."""
        if self.closes_nothing():
            title, label = f"`{self.token.kind}` closes nothing", "no bracket is open that this could close"
            self.problem("N103", title, self.token, label)
        else:
            title, label = f"expected {expected}, found {self.found()}", f"expected {expected}"
            self.problem("N101", title, self.here(), label, hint=hint)
        return Recover()

    def closes_nothing(self) -> bool:
        """At a closing bracket of which no opening one stands open."""
        return self.at_closer() and not any(CLOSER[b.kind] == self.token.kind for b in self.brackets)

    def messages(self) -> list[Diagnostic]:
        """What was wrong, in the order of the file."""
        return sorted([*self.problems, *self.lexer.diagnostics], key=_start)


def _start(diagnostic: Diagnostic) -> int:
    return diagnostic.primary.span.start if diagnostic.primary else 0
