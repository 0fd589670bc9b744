"""How the next token is chosen, as a user says it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real

from neural.diagnostics.diagnostic import fail


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How the next token is chosen.

    temperature: divides the logits; 0 is greedy search, and the filters then change nothing.
    top_k: keep the k most probable tokens; more than the vocabulary has means all of them.
    top_p: keep the fewest tokens, most probable first, whose probabilities sum to p or more (Holtzman et al. 2020).
    min_p: keep the tokens at least min_p times as probable as the most probable one (Nguyen et al. 2024).
    repetition_penalty: 1 is none; more makes tokens of the prompt and of the text so far less probable (Keskar et al.
    2019, CTRL).
    seed: the text is a function of the model, the prompt and these options.
    frequency_penalty, presence_penalty: taken from a token's logit for each time that it stands in the text so far,
    and once if it does; the prompt does not count. Negative values invite repeats.
    logit_bias: (token, number) pairs, each number added to its token's logit.
    bad_words: sequences of tokens that are never written. allowed: the only tokens that may be.
    typical_p: keep the fewest tokens of probability p or more whose surprise is nearest to the expected one (Meister
    et al. 2023, locally typical sampling).

    Raises NeuralError N901 to N906, N950 to N952 for values outside their range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    allowed: tuple[int, ...] | None = None
    typical_p: float | None = None

    def __post_init__(self) -> None:
        self._check_filters()
        self._check_penalties()
        self._check_tokens()

    def _check_filters(self) -> None:
        if not _is_number(self.temperature) or self.temperature < 0:
            fail(
                "N901",
                f"the temperature is {self.temperature!r}, and must be a finite number of 0 or more",
                hint="use 0 for greedy search, about 0.8 for text that is bold but sound",
            )
        if self.top_k is not None and (not _is_whole(self.top_k) or self.top_k < 1):
            fail(
                "N902",
                f"top-k is {self.top_k!r}, and must be a whole number of 1 or more",
                hint="leave top-k out to keep every token",
            )
        if self.top_p is not None and (not _is_number(self.top_p) or not 0 < self.top_p <= 1):
            fail(
                "N903",
                f"top-p is {self.top_p!r}, and must be above 0 and at most 1",
                hint="use 0.95 to cut the improbable tail, 1 to keep every token",
            )
        if self.min_p is not None and (not _is_number(self.min_p) or not 0 <= self.min_p <= 1):
            fail(
                "N904",
                f"min-p is {self.min_p!r}, and must be from 0 to 1",
                hint="use 0.05 to drop tokens that are 20 times less probable than the best, 0 to keep every token",
            )
        if self.typical_p is not None and (not _is_number(self.typical_p) or not 0 < self.typical_p <= 1):
            fail(
                "N951",
                f"typical-p is {self.typical_p!r}, and must be above 0 and at most 1",
                hint="use 0.9 to 0.95, or leave it out",
            )

    def _check_penalties(self) -> None:
        if not _is_number(self.repetition_penalty) or self.repetition_penalty <= 0:
            fail(
                "N905",
                f"the repetition penalty is {self.repetition_penalty!r}, and must be a finite number above 0",
                hint="use 1 for none, 1.1 to 1.3 against repeats",
            )
        if not _is_whole(self.seed) or not 0 <= self.seed < 2**64:
            fail(
                "N906",
                f"the seed is {self.seed!r}, and must be a whole number from 0 to 2**64 - 1",
                hint="use a small number such as 1, or leave the seed out",
            )
        for name in ("frequency", "presence"):
            value = getattr(self, f"{name}_penalty")
            if not _is_number(value):
                fail(
                    "N950",
                    f"the {name} penalty is {value!r}, and must be a finite number",
                    hint="use 0 for none, 0.1 to 1 against repeats",
                )

    def _check_tokens(self) -> None:
        for token, bias in self.logit_bias:
            if not _is_whole(token) or not _is_number(bias):
                fail("N952", f"the logit bias of token {token!r} is {bias!r}", hint="give pairs of an id and a number")
        if any(not word for word in self.bad_words):
            fail("N952", "a bad word has no tokens: it would rule out every text", hint="leave it out")
        if self.allowed is not None and not self.allowed:
            fail("N952", "no token is allowed", hint="name one at least, or leave `allowed` out")

    @property
    def named_tokens(self) -> tuple[int, ...]:
        """Every token that a bias or a list of words names: a model must know them."""
        words = (token for word in self.bad_words for token in word)
        return (*(token for token, _ in self.logit_bias), *words, *(self.allowed or ()))
