"""Brackets: what stands open, what was not closed, and how to find the way back after a mistake between them."""

from __future__ import annotations

from neural.diagnostics.diagnostic import Diagnostic, Label
from neural.diagnostics.source import Source
from neural.syntax.cursor import CLOSER, Cursor, Recover, RecoverItem
from neural.syntax.lexer import Token
from neural.syntax.literals import shorten

MAX_NESTING = 100
MAX_SKIPPED = 10_000
"""So many tokens of nonsense are looked at one by one; a file that has more is skipped to its next declaration."""

SECTIONS = frozenset(
    ("input", "layers", "loss", "optimizer", "lr_schedule", "metrics", "tokenizer", "data", "train", "execution")
)
"""Only to find the way back and to word messages: which sections there are is decided later."""

_LIST_GOES_ON = frozenset({",", "=", ":", ")", "]", "number", "string", "ref"})


class Brackets(Cursor):
    """Opening and closing brackets, and recovery."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.floor = 0
        """So many brackets are open where a section of the network may begin."""
        self.nesting = 0
        self.skipped: list[tuple[int, int]] = []

    def open(self) -> Token:
        """Take an opening bracket."""
        self.brackets.append(self.token)
        return self.advance()

    def close(self, *, body: bool = False) -> None:
        """Take the closing bracket of the innermost open one, or report that it is missing; `body`: `{` may follow."""
        opener = self.brackets[-1]
        wanted = CLOSER[opener.kind]
        if self.token.kind == wanted:
            self.advance()
        elif self.at_closer():
            self._wrong_closer(opener, wanted)
        elif opener.kind == "{" or self.token.first or self.at_item() or (body and self.at("{")):
            self.unclosed()
        else:
            raise self.unexpected(f"`,` or `{wanted}`")
        self.brackets.pop()

    def _wrong_closer(self, opener: Token, wanted: str) -> None:
        found, opened = self.token, (self._opened(opener),)
        if any(CLOSER[b.kind] == found.kind for b in self.brackets[:-1]) and not self._ends_network_early():
            title, label = f"`{opener.kind}` is not closed before `{found.kind}`", f"`{wanted}` is missing before this"
            self.problem("N102", title, found, label, secondary=opened, fix=self.insertion(wanted, safe=False))
            return
        title, fix = f"`{found.kind}` cannot close `{opener.kind}`", self.replacement(found, wanted, safe=False)
        self.problem("N103", title, found, f"`{wanted}` belongs here", secondary=opened, fix=fix)
        self.advance()
        self.doubt()

    def _ends_network_early(self) -> bool:
        """At a `}` that would end the declaration, though none follows: it was meant as another bracket."""
        outermost = self.at("}") and sum(b.kind == "{" for b in self.brackets) == 1
        return outermost and not (self.at_item(1) or self.peek().kind == "end")

    def extra_closer(self) -> bool:
        """`Dense(units=10], …)`: report and take a closing bracket after which the list goes on."""
        if not (self.closes_nothing() or self.at("}")) or self.peek().first:
            return False
        kind = self.peek().kind
        more = self.peek(2).kind in ("=", ",") if kind == "name" else kind in _LIST_GOES_ON
        if not more:
            return False
        title, fix = f"`{self.token.kind}` closes nothing", self.replacement(self.token, "", safe=False)
        self.problem("N103", title, self.token, "no such bracket is open in this list", fix=fix)
        self.advance()
        self.doubt()
        return True

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
        places = tuple(self._opened(b) for b in opened[-3:])
        self.problem("N102", title, self.here(), f"expected `{closers}` before {self.found()}", secondary=places)
        if not (brace or self.at("{")):
            raise Recover

    def _opened(self, opener: Token) -> Label:
        return Label(self.span(opener), f"this `{opener.kind}` is not closed")

    def deeper(self, token: Token, levels: int = 0) -> None:
        """Go one level down; with the `levels` below it there may not be too many."""
        self.nesting += 1
        if self.nesting + levels > MAX_NESTING:
            title = f"more than {MAX_NESTING} levels stand inside one another"
            hint = "name the inner parts: a `define` for layers, a `param` for values"
            self.problem("N119", title, token, "one level too many", hint=hint)
            raise RecoverItem

    # Recovery

    def mark(self) -> tuple[int, int, int]:
        """What to come back to: brackets, levels and mistakes so far."""
        return len(self.brackets), self.nesting, self.incidents

    def trust_since(self, mark: tuple[int, int, int]) -> None:
        """Where nothing went wrong since the mark, doubt ends."""
        if self.incidents == mark[2]:
            self.trust()

    def skip_statement(self, mark: tuple[int, int, int], start: Token) -> None:
        """After a mistake in what began at `start`: on to what looks like the next statement, entry or section."""
        open_brackets = [(CLOSER[b.kind], False) for b in self.brackets[mark[0] :]]
        del self.brackets[mark[0] :]
        self.nesting = mark[1]
        begin = self.token.start
        if self.token is start or (open_brackets and self.at("{")):
            self._skip_token(open_brackets, block=not open_brackets)
        for _ in range(MAX_SKIPPED):
            if self._at_landing(open_brackets):
                break
            self._skip_token(open_brackets)
        else:
            raise RecoverItem
        self._skipped(begin)
        if not self.token.first:
            self.doubt()

    def _at_landing(self, open_brackets: list[tuple[str, bool]]) -> bool:
        """`open_brackets`: the closers awaited, and for each whether it is that of a block of lines."""
        if self.at("end") or self.at_item():
            return True
        if self.at("}"):
            closers = [closer for closer, block in open_brackets if block or not self.token.first]
            return "}" not in closers
        if not self.at("name") or any(block for _, block in open_brackets):
            return False
        if open_brackets:
            return self.token.first and self.looks_like_statement()
        return self.token.first or self.peek().kind in ("(", "=", "{", ":")

    def looks_like_statement(self) -> bool:
        """At a name with which a statement or a section begins, and no argument, entry or item of a list."""
        following, last = self.peek(), self.peek(2)
        if following.kind == ":":
            return self.token.value in SECTIONS
        if following.kind == "=":
            return last.kind == "name" and capital(last) and self.peek(3).kind in ("(", "{")
        return following.kind == "{" or (following.kind == "(" and capital(self.token))

    def _skip_token(self, open_brackets: list[tuple[str, bool]], *, block: bool = True) -> None:
        kind = self.advance().kind
        if kind in CLOSER:
            open_brackets.append((CLOSER[kind], block and kind == "{" and self.token.first))
        elif kind == "}":
            while open_brackets and open_brackets.pop()[0] != "}":
                continue
        elif open_brackets and open_brackets[-1][0] == kind:
            open_brackets.pop()

    def skip_item(self) -> None:
        """On to the next declaration, however far."""
        self.brackets.clear()
        self.nesting = self.floor = 0
        begin = self.token.start
        self.skip_to_item()
        self._skipped(begin)
        self.trust()

    def _skipped(self, begin: int) -> None:
        self.lost = True
        if not self.lexer_explains:
            self.skipped.append((begin, self.token.start))

    def messages(self) -> list[Diagnostic]:
        """Nothing from passages that were skipped, or misread, because of something else."""
        strings = [d for d in self.lexer.diagnostics if d.code == "N104"]
        misread = {id(d): self._misread(d) for d in strings}
        # Where a quote too few made the parser stumble earlier on the line, the quote is what to tell of.
        told = {id(d) for d in self.problems}
        told |= {i for i, passage in misread.items() if any(_in(d, [passage]) for d in self.problems)}
        told |= {id(d) for d in self.lexer.diagnostics if not _in(d, self.skipped)}
        passages = [passage for i, passage in misread.items() if i in told]
        return [d for d in super().messages() if id(d) in told and (id(d) in misread or not _in(d, passages))]

    def _misread(self, unclosed: Diagnostic) -> tuple[int, int]:
        """The line around an unclosed string from its first quote on: which of the quotes was the slip is unknown."""
        line, column = self.source.line_column(_start(unclosed))
        text, begin = self.source.line(line), _start(unclosed) - column + 1
        return begin + min(i for i, c in enumerate(text) if c in "\"'"), begin + len(text)


def _start(diagnostic: Diagnostic) -> int:
    return diagnostic.primary.span.start if diagnostic.primary else 0


def _in(diagnostic: Diagnostic, passages: list[tuple[int, int]]) -> bool:
    return any(begin <= _start(diagnostic) < end for begin, end in passages)


def capital(token: Token) -> bool:
    """Layers are written with a capital, names of values and sections without."""
    return str(token.value)[0].isupper()
