"""The steps from logits to a distribution: pure functions of whole batches, one row never touching another.

Tokens that a filter removes get the logit -inf. Equal logits are ordered by id, the lowest first, everywhere. A row may
also be what is left of the vocabulary, in the order of ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

GROUPS = 4  # times as many as numbers are looked for: the peaks of groups bound these from below
SHORTLIST = 256  # tokens that mostly hold the mass p, and cost a small part of sorting GPT-2's vocabulary
BINS, BIN = 4096, 1 / 256  # of scores below the largest: those of the bin where the mass reaches p are put in order
UNSURE = 1e-10  # sums of probabilities in two orders differ by less
MANY = 2048  # numbers that are put in order sooner as integers, for which processors have vectors


def apply_repetition_penalty(logits: np.ndarray, seen: Sequence[np.ndarray], penalty: float) -> np.ndarray:
    """Make seen tokens less probable: divide their positive logits, multiply their negative ones (Keskar et al. 2019).

    logits (B, V) float32; seen: of each row bool (V,), true for the tokens of its text so far.
    """
    logits, penalty = logits.copy(), np.float32(penalty)
    for row, tokens in zip(logits, map(np.flatnonzero, seen), strict=True):
        found = row[tokens]
        row[tokens] = np.where(found > 0, found / penalty, found * penalty)
    return logits


def apply_count_penalties(
    logits: np.ndarray, counts: Sequence[np.ndarray], frequency: float, presence: float
) -> np.ndarray:
    """Take `frequency` from a token's logit for each time it was written, and `presence` once if it was.

    logits (B, V) float32; counts: of each row (V,), how often each token stands in its text, without the prompt.
    """
    logits = logits.copy()
    for row, times in zip(logits, counts, strict=True):
        tokens = np.flatnonzero(times)
        row[tokens] = row[tokens] - np.float32(frequency) * times[tokens] - np.float32(presence)
    return logits


def add_bias(logits: np.ndarray, bias: Sequence[tuple[int, float]]) -> np.ndarray:
    """Logits (B, V) with each (token, number) pair's number added to its token; a token named twice gets both."""
    logits = logits.copy()
    with np.errstate(over="ignore"):
        for token, number in bias:
            logits[:, token] += np.float32(number)
    return logits


def ban(logits: np.ndarray, banned: Sequence[Sequence[int]]) -> np.ndarray:
    """Logits (B, V) with the tokens of row i's list at -inf."""
    logits = logits.copy()
    for row, tokens in zip(logits, banned, strict=True):
        row[list(tokens)] = -math.inf
    return logits


def completing(bad_words: Sequence[Sequence[int]], text: Sequence[int]) -> list[int]:
    """The tokens that would complete a bad word after `text`, the ids written so far."""
    return [w[-1] for w in bad_words if len(w) - 1 <= len(text) and list(text[len(text) - len(w) + 1 :]) == [*w[:-1]]]


def allow_only(logits: np.ndarray, allowed: Sequence[int]) -> np.ndarray:
    """Logits (B, V) with all tokens but these at -inf."""
    tokens = list(allowed)
    only = np.full_like(logits, -math.inf)
    only[:, tokens] = logits[:, tokens]
    return only


def permit(logits: np.ndarray, permitted: np.ndarray) -> np.ndarray:
    """Logits (B, V) with the tokens at -inf that are not permitted, bool (B, V)."""
    return np.where(permitted, logits, np.float32(-math.inf))


def apply_temperature(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Logits (B, V) divided by a temperature above 0, shifted so that the largest is 0: no temperature overflows."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):  # to -inf
        shifted /= max(np.float32(temperature), np.finfo(np.float32).tiny)
    return shifted


def keep_top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """Logits (B, V) with all but the k largest of each row at -inf; ties keep the lowest ids, so exactly k stay."""
    if k >= logits.shape[-1]:
        return logits
    return _only(logits, _leaders(logits, lambda row: leading(row, k))[:, :k])


def keep_top_p(logits: np.ndarray, p: float) -> np.ndarray:
    """Logits (B, V) with all but each row's nucleus at -inf: the smallest set of most probable tokens whose
    probability reaches p, at least one token (Holtzman et al. 2020). Sums are taken in float64.
    """
    return logits if p >= 1 else _fewest(logits, logits, exponentials(logits), p)


def keep_min_p(logits: np.ndarray, min_p: float) -> np.ndarray:
    """Logits (B, V) with tokens less probable than min_p times the row's most probable at -inf (Nguyen et al. 2024)."""
    if min_p == 0:
        return logits
    threshold = logits.max(axis=-1, keepdims=True) + np.float32(math.log(min_p))
    return np.where(logits < threshold, np.float32(-math.inf), logits)


def keep_typical(logits: np.ndarray, p: float) -> np.ndarray:
    """Logits (B, V) with all but each row's typical set at -inf: the smallest set of tokens, those whose surprise is
    nearest to the entropy first, whose probability reaches p, at least one token (Meister et al. 2023). In float64.
    """
    if p >= 1:
        return logits
    probabilities = exponentials(logits)
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = -np.log(probabilities)
        entropy = np.nan_to_num(probabilities * surprise, copy=False).sum(axis=-1, keepdims=True)  # 0 · inf is none
    return _fewest(logits, -np.abs(surprise - entropy), probabilities, p)


def exponentials(logits: np.ndarray) -> np.ndarray:
    """Of logits (B, V), float64, each row's largest as 1."""
    shifted = np.subtract(logits, logits.max(axis=-1, keepdims=True), dtype=np.float64)
    return np.exp(shifted, out=shifted)


def leading(scores: np.ndarray, count: int) -> np.ndarray:
    """The places, in order, of the `count` largest scores (V,) and of those about as large; of none that is -inf.

    The scores are cut into groups. `count` peaks of groups are scores, so that the count-th peak is no more than the
    count-th score.
    """
    groups = GROUPS * count
    size = len(scores) // groups
    bound = -math.inf
    if size > 1:
        bound = np.partition(scores[: size * groups].reshape(size, groups).max(axis=0), -count)[-count]
    return np.flatnonzero(scores >= bound if bound > -math.inf else scores > -math.inf)


def largest(scores: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` largest of scores (V,), the largest first."""
    return _leaders(scores[None], lambda row: leading(row, count))[0, :count]


def _fewest(logits: np.ndarray, scores: np.ndarray, weights: np.ndarray, p: float) -> np.ndarray:
    """Keep the tokens of the largest scores (B, V), the fewest that have p of all weights (B, V), at least one."""
    if len(scores) == 1 and (places := _fewest_of(scores[0], weights[0], p)) is not None:
        return _only(logits, places[None])
    order = (-scores).argsort(axis=-1, kind="stable")
    mass = np.take_along_axis(weights, order, axis=-1).cumsum(axis=-1) / weights.sum(axis=-1, keepdims=True)
    return _only(logits, order, np.arange(order.shape[-1]) < (mass < p).sum(axis=-1, keepdims=True) + 1)


def _fewest_of(scores: np.ndarray, weights: np.ndarray, p: float) -> np.ndarray | None:
    """The places that `_fewest` keeps of scores and weights (V,), without putting all in order: None where it takes the
    sums in order to tell.
    """
    total = weights.sum()
    sure, places, before = np.empty(0, np.int64), leading(scores, SHORTLIST), 0.0
    if whole := weights[places].sum() <= (p + UNSURE) * total:
        bins = np.minimum((scores.max() - scores) / BIN, BINS - 1).astype(np.int32)
        masses = np.bincount(bins, weights).cumsum()
        reached = min(masses.searchsorted(p * total), len(masses) - 1)
        sure, places = np.flatnonzero(bins < reached), np.flatnonzero(bins == reached)
        before = masses[reached - 1] if reached else 0.0
    order = places[_descending(scores[places])]
    mass = np.append(before, before + weights[order].cumsum()) / total
    if whole and np.abs(mass - p).min() < UNSURE:
        return None
    return np.append(sure, order[: (mass[1:] < p).sum() + 1])


def _leaders(scores: np.ndarray, shorten: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The places of scores (B, V), the largest first. Of one row those alone that `shorten` gives of it, in order."""
    if len(scores) > 1:
        return (-scores).argsort(axis=-1, kind="stable")
    places = shorten(scores[0])
    return places[_descending(scores[0][places])][None]


def _descending(scores: np.ndarray) -> np.ndarray:
    """The places of scores (C,), the largest first, of equals the first."""
    if len(scores) < MANY or scores.dtype != np.float32:
        return (-scores).argsort(kind="stable")
    bits = (-scores + 0).view(np.uint32)  # made to rise with the number, and the place beneath: no two are equal
    bits ^= np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    keys = bits.astype(np.uint64) << 32 | np.arange(len(scores), dtype=np.uint64)
    keys.sort()
    return (keys & 0xFFFFFFFF).astype(np.int64)


def _only(logits: np.ndarray, places: np.ndarray, kept: np.ndarray | bool = True) -> np.ndarray:
    """Logits (B, V) with all at -inf but those at `places` (B, C), and of these those that are kept, bool (B, C)."""
    only = np.full_like(logits, -math.inf)
    values = np.take_along_axis(logits, places, axis=-1)
    np.put_along_axis(only, places, np.where(kept, values, np.float32(-math.inf)), axis=-1)
    return only
