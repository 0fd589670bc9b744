"""From logits to the next token, in one documented order.

    repetition penalty -> frequency and presence penalty -> logit bias -> bad and allowed words -> constraint
    -> temperature -> top-k -> top-p -> min-p -> typical-p -> draw

Each filter sees what the one before left: probabilities are those of the softmax over the tokens that remain.
Ties go to the lowest id, so that `top_k=1` is greedy search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neural.diagnostics.diagnostic import fail
from neural.generation import filters
from neural.generation.options import SamplingOptions

FEW_TOKENS = 1024  # of a vocabulary: rows are sampled together; more are worth a look at each row
FEW_NUMBERS = 100  # random numbers that are sooner drawn one by one, and the others passed over


class Past(NamedTuple):
    """What penalties and bans know of each row's text so far; None where no option asks.

    seen: of each row bool (V,), tokens of the prompt and of the text. counts: of each row (V,), how often the text has
    each, the prompt not counted. banned: tokens that must not come next, a list a row. permitted: bool (B, V), those
    that a constraint lets come next.
    """

    seen: Sequence[np.ndarray] | None = None
    counts: Sequence[np.ndarray] | None = None
    banned: Sequence[Sequence[int]] | None = None
    permitted: np.ndarray | None = None


def row_generator(seed: int, index: int) -> np.random.Generator:
    """The source of random numbers of sample `index`, derived from (seed, index) and independent of all others."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, index))))


def sample(
    logits: np.ndarray,
    options: SamplingOptions,
    generators: Sequence[np.random.Generator],
    past: Past | None = None,
) -> np.ndarray:
    """The next token of each row: logits (B, V) float32 to ids (B,) int64.

    generators: one a row, see `row_generator`; greedy search draws nothing from them. Nothing is drawn where a row is
    refused: NeuralError N907 for NaN or infinite logits, N908 for a row without a token left.
    """
    logits = penalised(logits, options, past or Past())
    if options.temperature == 0:
        return logits.argmax(axis=-1)
    if logits.shape[-1] <= FEW_TOKENS:
        return draw(narrowed(logits, options), generators)
    rows = zip(np.split(logits, len(logits)), generators, strict=True)  # each is done while the cache has it
    return np.concatenate([draw(narrowed(row, options), [generator]) for row, generator in rows])


def penalised(logits: np.ndarray, options: SamplingOptions, past: Past) -> np.ndarray:
    """Logits (B, V) after what changes single tokens, whatever the temperature."""
    _check_logits(given := logits)
    if options.repetition_penalty != 1:
        if past.seen is None:
            raise ValueError("a repetition penalty needs `seen`, the tokens of the prompt and the text")
        logits = filters.apply_repetition_penalty(logits, past.seen, options.repetition_penalty)
    if options.frequency_penalty or options.presence_penalty:
        if past.counts is None:
            raise ValueError("frequency and presence penalties need `counts`, of the tokens of the text")
        logits = filters.apply_count_penalties(logits, past.counts, options.frequency_penalty, options.presence_penalty)
    if options.logit_bias:
        logits = filters.add_bias(logits, options.logit_bias)
    if past.banned is not None:
        logits = filters.ban(logits, past.banned)
    if options.allowed is not None:
        logits = filters.allow_only(logits, options.allowed)
    if past.permitted is not None:
        logits = filters.permit(logits, past.permitted)
    if logits is not given:
        _check_logits(logits)
    return logits


class Narrowed(NamedTuple):
    """The distribution that is drawn from: the softmax of logits (B, C), of the tokens `ids` (C,) of `size`."""

    logits: np.ndarray
    ids: np.ndarray | None  # in order; None for all
    size: int


def narrowed(logits: np.ndarray, options: SamplingOptions) -> Narrowed:
    """Logits (B, V) after the temperature, which is not 0, and the filters of the tail. Of one row what they keep."""
    if options.temperature != 1:
        logits = filters.apply_temperature(logits, options.temperature)
    given = (
        (filters.keep_top_k, options.top_k),
        (filters.keep_top_p, options.top_p),
        (filters.keep_min_p, options.min_p),
        (filters.keep_typical, options.typical_p),
    )
    ids, size = None, logits.shape[-1]
    for keep, value in given:
        if value is None or (kept := keep(logits, value)) is logits:
            continue
        logits = kept
        if len(logits) == 1:
            left = np.flatnonzero(logits[0] > -math.inf)
            logits, ids = logits[:, left], left if ids is None else ids[left]
    return Narrowed(logits, ids, size)


def _check_logits(logits: np.ndarray) -> None:
    peaks = logits.max(axis=-1)  # NaN where the row holds one
    strange = np.flatnonzero(~np.isfinite(peaks))
    if not len(strange):
        return
    row = int(strange[0])
    if peaks[row] == -math.inf:
        fail("N908", f"every token of row {row} is ruled out: all its logits are -inf", hint="leave one token possible")
    token = int(np.flatnonzero(np.isnan(logits[row]) | (logits[row] == math.inf))[0])
    fail(
        "N907",
        f"the model's logits are not finite: {logits[row, token]} for token {token} of row {row}",
        hint="use an earlier checkpoint; weights that hold NaN come from training that diverged",
    )


def draw(narrowed: Narrowed, generators: Sequence[np.random.Generator]) -> np.ndarray:
    """One token id (B,) int64 a row from the softmax of its logits, by an exponential race.

    argmax(p / E) with E of independent Exp(1) is a draw from p (the Gumbel-max trick without its logarithms). Row i's
    noise comes from generators[i] alone, a number for each token of the vocabulary, so that a row's tokens do not
    depend on its neighbours; and rounding in the logits changes a draw only where two tokens tie to that rounding,
    which drawing by the inverse of the cumulative distribution does not give.
    """
    logits, ids, size = narrowed
    uniform = np.stack([_uniform(generator, ids, size) for generator in generators])
    if len(logits) == 1 and logits.shape[-1] > FEW_TOKENS:
        front = _front(logits[0], uniform[0])
        winners = front[_race(logits[:, front], uniform[:, front])]
    else:
        winners = _race(logits, uniform)
    return winners if ids is None else ids[winners]


def _uniform(generator: np.random.Generator, ids: np.ndarray | None, size: int) -> np.ndarray:
    """The next `size` random numbers, of which those at `ids` are wanted."""
    if ids is None:
        return generator.random(size)
    if len(ids) > FEW_NUMBERS:
        return generator.random(size)[ids]
    numbers, at = [], 0
    for place in ids.tolist():
        if place > at:
            generator.bit_generator.advance(place - at)
        numbers.append(generator.random())
        at = place + 1
    generator.bit_generator.advance(size - at)
    return np.array(numbers)


def _race(logits: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """The places (B,) of the winners among logits (B, C)."""
    times = -np.log(np.maximum(uniform, 2.0**-53))  # Exp(1), never 0 and never infinite
    return (filters.exponentials(logits) / times).argmax(axis=-1)


def _front(logits: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """The places of those of logits (C,) that can win, by float32 numbers: a time -log(u) is no less than 1 - u."""
    ahead = np.exp(logits - logits.max()) / np.subtract(1, uniform, dtype=np.float64).astype(np.float32)
    first = ahead.argmax()
    sure = ahead[first] * (1 - uniform[first]) / -np.log(max(uniform[first], 2.0**-53))
    return np.flatnonzero(ahead >= sure * (1 - 1e-5))
