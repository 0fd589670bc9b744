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
    """A mistake was reported: the statement, entry or section it stands in is given up."""


class RecoverItem(Exception):
    """A mistake was reported: the whole declaration is given up."""


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
        self.floor = 0
        """So many brackets are open where a section of the network may begin."""
        self.nesting = 0
        self.lost = False
        """Something could not be read and is not in the tree."""
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

    def before(self) -> Span:
        """The empty place before the current token."""
        return Span(self.source, self.token.start, self.token.start)

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
        elif opener.kind == "{" or self.at("{") or self.token.first or self.at_item():
            self.unclosed()
        else:
            raise self.unexpected(f"`,` or `{wanted}`")
        self.brackets.pop()
        self.nesting -= 1

    def _mismatched(self, opener: Token, wanted: str) -> None:
        found, opened = self.token, (self.opened(opener),)
        if any(CLOSER[b.kind] == found.kind for b in self.brackets[:-1]):
            title, label = f"`{opener.kind}` is not closed before `{found.kind}`", f"`{wanted}` is missing before this"
            self.problem("N102", title, found, label, secondary=opened, fix=self.insertion(wanted, safe=False))
            return
        title, fix = f"`{found.kind}` cannot close `{opener.kind}`", self.replacement(found, wanted, safe=False)
        self.problem("N103", title, found, f"`{wanted}` belongs here", secondary=opened, fix=fix)
        self.advance()

    def unclosed(self) -> None:
        """Report what stands open here. Braces, and what ends at `{`, are taken as closed; else the statement ends."""
        brace = self.brackets[-1].kind == "{"
        begin = 0
        if not (self.at("end") or self.at_item()):
            # Parentheses end with their statement, braces with the section they stand in.
            braces = (i for i, b in enumerate(self.brackets, 1) if b.kind == "{")
            begin = self.floor if brace else max(braces, default=0)
        opened = self.brackets[begin:]
        names = " and ".join(f"`{b.kind}`" for b in opened) if len(opened) < 3 else f"{len(opened)} brackets"
        title = f"{names} {'is' if len(opened) == 1 else 'are'} never closed"
        closers = shorten("".join(CLOSER[b.kind] for b in reversed(opened)))
        places = tuple(self.opened(b) for b in opened[-3:])
        self.problem("N102", title, self.here(), f"expected `{closers}` before {self.found()}", secondary=places)
        if not (brace or self.at("{")):
            raise Recover

    def opened(self, opener: Token) -> Label:
        return Label(self.span(opener), f"this `{opener.kind}` is not closed")

    def deeper(self, token: Token, levels: int = 0) -> None:
        self.nesting += 1
        if self.nesting + levels > MAX_NESTING:
            title = f"more than {MAX_NESTING} levels stand inside one another"
            hint = "name the inner parts: a `define` for layers, a `param` for values"
            self.problem("N119", title, token, "one level too many", hint=hint)
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
        fix: Fix | None = None,
    ) -> None:
        """Keep a message; never two about one place, and none about what the lexer has explained."""
        span = place if isinstance(place, Span) else self.span(place)
        if self.problems and self.problems[-1].primary and self.problems[-1].primary.span.start == span.start:
            return
        if self.lexer.swallowed(self.previous.end, self.token.start) or (self.at("end") and self.lexer.cut_short):
            return
        self.problems.append(Diagnostic(code, title, Label(span, label), secondary, (), hint, fix))
        if len(self.problems) >= MAX_PROBLEMS:
            raise Stop

    def insertion(self, text: str, title: str | None = None, *, safe: bool = True) -> Fix:
        """A fix that inserts text after the last token taken."""
        return Fix(title or f"insert `{text.strip()}`", (Edit(self.after(), text),), safe)

    def replacement(self, place: Token | Span, text: str, *, safe: bool = True) -> Fix:
        """A fix that writes something else in a place, or nothing."""
        span = place if isinstance(place, Span) else self.span(place)
        return Fix(f"write `{text}`" if text else f"remove `{span.text}`", (Edit(span, text),), safe)

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
        if self.closes_nothing():
            title, label = f"`{self.token.kind}` closes nothing", "no bracket is open that this could close"
            self.problem("N103", title, self.token, label)
        else:
            title, label = f"expected {expected}, found {self.found()}", f"expected {expected}"
            self.problem("N101", title, self.here(), label, hint=hint)
        return Recover()

    def closes_nothing(self) -> bool:
        """At a closing bracket of which no opening one stands open."""
        return self.at(")", "]", "}") and not any(CLOSER[b.kind] == self.token.kind for b in self.brackets)

    def here(self) -> Span:
        """The current token; at the end of the file, the place after the last one."""
        return self.after() if self.at("end") else self.span(self.token)

    # Recovery

    def mark(self) -> tuple[int, int]:
        return len(self.brackets), self.nesting

    def skip_statement(self, mark: tuple[int, int], start: Token) -> None:
        """After a mistake in what began at `start`: on to what looks like the next statement, entry or section."""
        brackets = [b.kind for b in self.brackets[mark[0] :]]
        del self.brackets[mark[0] :]
        self.nesting = mark[1]
        self.lost = True
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
        self.lost = True
        begin = self.token.start
        while not (self.at("end") or self.at_item()):
            if self._index + 8 >= len(self._tokens):
                self.lexer.skip_to_item()
            self.advance()
        self.skipped.append((begin, self.token.start))

    def messages(self) -> list[Diagnostic]:
        """What was wrong, in the order of the file; nothing from passages that were skipped for a mistake before."""
        lexical = [d for d in self.lexer.diagnostics if not any(a <= _start(d) < b for a, b in self.skipped)]
        return sorted([*self.problems, *lexical], key=_start)


def _start(diagnostic: Diagnostic) -> int:
    return diagnostic.primary.span.start if diagnostic.primary else 0
