"""What the engine is asked, what it answers, and how much it may hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from neural.diagnostics.diagnostic import NeuralError, fail
from neural.generation.constraint import Constraint
from neural.generation.options import SamplingOptions

MOST_LOGPROBS = 100


class FinishReason(StrEnum):
    LENGTH = "length"
    STOP = "stop"
    END_OF_TEXT = "end_of_text"


@dataclass(frozen=True, slots=True)
class Request:
    """One continuation of a prompt of token ids.

    sample: which of several samples of the prompt; its random numbers come of (options.seed, sample) alone.
    ends: ids that end the text. min_new_tokens: none of them is drawn before so many others.
    logprobs: None for none; n for the chosen token's and those of the n most probable ones.
    constraint: what the text must be; it ends where that is complete.

    Raises NeuralError N912 (max_new_tokens), N956 (min_new_tokens), N957 (logprobs).
    """

    prompt: Sequence[int]
    max_new_tokens: int
    options: SamplingOptions = field(default_factory=SamplingOptions)
    sample: int = 0
    ends: frozenset[int] = frozenset()
    min_new_tokens: int = 0
    logprobs: int | None = None
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 0:
            fail("N912", f"{self.max_new_tokens} new tokens were asked for", hint="ask for 0 or more")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            fail(
                "N956",
                f"{self.min_new_tokens} new tokens at least were asked for, and {self.max_new_tokens} at most",
                hint=f"ask for 0 to {self.max_new_tokens}",
            )
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            fail(
                "N957",
                f"log probabilities of {self.logprobs} tokens were asked for, at each place",
                hint=f"ask for 0 to {MOST_LOGPROBS}; 0 gives those of the written tokens alone",
            )


class Logprobs(NamedTuple):
    """Natural logarithms of the model's own probabilities, before any penalty, temperature or filter."""

    chosen: float
    top: tuple[tuple[int, float], ...]  # the most probable (id, logarithm) pairs, best first


class Event(NamedTuple):
    """What one step did for one request: a token, its end, or both; or the mistake that ended it."""

    handle: int
    token: int | None
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None
    error: NeuralError | None = None

    @property
    def last(self) -> bool:
        return self.finish_reason is not None or self.error is not None


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine may hold at once.

    slots: requests that are being written. queue: requests that wait. cache_tokens: places for tokens in the batch's
    cache, rows times the longest text that one of them can come to; None for `slots` whole contexts. One more context
    is held for the prompt that is being read. prefix_bytes: for the beginnings of prompts, kept for those to come.
    prefill_tokens: tokens of prompts that are read in one step, between two tokens of those being written.
    draft_tokens: at most so many tokens are guessed ahead; it changes no text.
    """

    slots: int = 16
    queue: int = 4096
    cache_tokens: int | None = None
    prefix_bytes: int = 0
    prefill_tokens: int = 256
    draft_tokens: int = 0

    def __post_init__(self) -> None:
        least = {"slots": 1, "queue": 1, "prefill_tokens": 1, "prefix_bytes": 0, "draft_tokens": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)}, and must be {low} or more")
