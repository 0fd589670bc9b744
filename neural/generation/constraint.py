"""Constrained output: one of a list, a regular expression or a JSON schema, as masks of the tokens that may come next.

llguidance follows the grammar; the tokens that it permits are one more step of the sampling pipeline.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from neural.data.tokenizers import Tokenizer
from neural.diagnostics.diagnostic import NeuralError, fail

if TYPE_CHECKING:
    import llguidance

# White space where it means nothing would let a text go on for ever
JSON_FORM = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Constraint:
    """What a text must be, in the tokens of one vocabulary of `vocab_size`; any number of requests may share it.

    start: after no token. After its last id the matcher knows one more, of the end of text.
    """

    def __init__(self, start: llguidance.LLMatcher, vocab_size: int) -> None:
        self._start, self._vocab_size = start, vocab_size

    def begin(self) -> Progress:
        """For a text of no token yet. NeuralError N983 where no token can begin it."""
        return Progress(self._start.deep_copy(), self._vocab_size)


class Progress:
    """A text that is being written under a constraint.

    over: whether it is complete and nothing may follow.
    """

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int) -> None:
        self._matcher, self._vocab_size = matcher, vocab_size
        self._look()

    def permitted(self, ends: Iterable[int]) -> np.ndarray:
        """The tokens that may come next, bool (V,); those of `ends` where the text may end."""
        permitted = self._permitted[: self._vocab_size].copy()
        permitted[list(ends)] = self._permitted[self._vocab_size]
        return permitted

    def push(self, token: int) -> None:
        """Add a token that was permitted. NeuralError N983 where the text is not complete, and cannot go on."""
        self._matcher.consume_token(token)
        self._look()

    def _look(self) -> None:
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

        words = allocate_token_bitmask(1, self._vocab_size + 1)
        fill_next_token_bitmask(self._matcher, words)
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        self._permitted = bits[: self._vocab_size + 1].astype(bool)
        self.over = not self._permitted[:-1].any()
        if self.over and (self._matcher.is_error() or not self._permitted[-1]):
            fail(
                "N983",
                "no token of the vocabulary goes on with the text that the constraint asks for",
                hint="ask for characters that the tokenizer knows",
            )


def constrain(
    tokenizer: Tokenizer, *, choices: Sequence[str] | None = None, regex: str | None = None, json_schema: Any = None
) -> Constraint | None:
    """At most one of: texts of which the answer is one, a regular expression that matches all of it (of Rust's kind,
    without look-around and references), a JSON schema as text or as JSON; None where none is given.

    NeuralError: N981 (a wrong expression), N982 (no schema, or one with words that are not enforced), N983 (characters
    that the tokenizer lacks), N984 (a tokenizer whose tokens are no bytes), N985 (several, or choices of no text).
    """
    given = {"choices": choices, "regex": regex, "json_schema": json_schema}
    named = [name for name, value in given.items() if value is not None]
    if not named:
        return None
    if len(named) > 1:
        fail("N985", f"a text cannot be constrained by {' and by '.join(named)}", hint="give one of them")
    if choices is not None and (not choices or not all(choices)):
        fail("N985", "choices are texts of one character or more", hint="give some, such as yes and no")
    text = given[named[0]] if isinstance(given[named[0]], str) else json.dumps(given[named[0]], ensure_ascii=False)
    return _compiled(tokenizer, named[0], text)


@lru_cache(maxsize=64)
def _compiled(tokenizer: Tokenizer, kind: str, text: str) -> Constraint:
    from llguidance import LLMatcher

    vocabulary = _vocabulary(tokenizer)
    grammar = {"choices": _choices, "regex": LLMatcher.grammar_from_regex, "json_schema": _schema}[kind](text)
    wrong = LLMatcher.validate_grammar(grammar, vocabulary)
    if wrong:
        _refuse(kind, wrong)
    constraint = Constraint(LLMatcher(vocabulary, grammar, log_level=0), tokenizer.vocab_size)
    constraint.begin()
    return constraint


def _choices(text: str) -> str:
    from llguidance import LLMatcher

    written = (json.dumps(choice, ensure_ascii=False) for choice in json.loads(text))
    return LLMatcher.grammar_from_lark(f"start: {' | '.join(written)}")


def _schema(text: str) -> str:
    from llguidance import LLMatcher

    try:
        return LLMatcher.grammar_from_json_schema(text, overrides=JSON_FORM)
    except ValueError as error:
        fail("N982", f"this is no JSON schema: {error}", hint='a schema is an object, such as {"type": "integer"}')


def _refuse(kind: str, wrong: str) -> NoReturn:
    reason = next((line for line in wrong.splitlines() if line.startswith("error:")), wrong.splitlines()[0])
    reason = reason.removeprefix("error: ")
    if kind == "regex":
        fail("N981", f"the regular expression cannot be used: {reason}", hint="it is of Rust's kind: no look-around")
    fail("N982", f"the {kind.replace('_', ' ')} cannot be used: {reason}", hint="leave out what is not enforced")


@lru_cache(maxsize=8)
def _vocabulary(tokenizer: Tokenizer) -> llguidance.LLTokenizer:
    import llguidance

    if not tokenizer.is_bytewise:
        fail(
            "N984",
            f"output cannot be constrained with {tokenizer.source}: its tokens are no bytes of the text",
            hint="use a model with a byte-level, byte or character tokenizer",
        )
    return llguidance.LLTokenizer(
        llguidance.TokenizerWrapper(_Tokens(tokenizer)), n_vocab=tokenizer.vocab_size + 1, slices=[]
    )


class _Tokens:
    """A vocabulary as llguidance asks for it, with one more id, of the end of text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.tokens = [*map(tokenizer.bytes_of, range(tokenizer.vocab_size)), b"<end>"]
        self.eos_token_id, self.bos_token_id = tokenizer.vocab_size, None
        self.special_token_ids = [tokenizer.vocab_size]

    def __call__(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError("text is asked for as str")
        try:
            return self._tokenizer.encode(text)
        except NeuralError:
            return []  # characters that it lacks: their text is never permitted
