"""The steps from logits to a distribution: pure functions of whole batches, one row never touching another.

Tokens that a filter removes get the logit -inf. Equal logits are ordered by id, the lowest first, everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

TOP_P_CANDIDATES = 1024  # nearly always hold the mass p, and cost a tenth of sorting GPT-2's vocabulary


def apply_repetition_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make seen tokens less probable: divide their positive logits, multiply their negative ones (Keskar et al. 2019).

    logits (B, V) float; seen (B, V) bool, true for the tokens of the row's text so far.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def apply_count_penalties(logits: Tensor, counts: Tensor, frequency: float, presence: float) -> Tensor:
    """Take `frequency` from a token's logit for each time it was written, and `presence` once if it was.

    logits (B, V) float; counts (B, V), how often each token stands in the row's text, without the prompt.
    """
    return logits - frequency * counts - presence * (counts > 0)


def add_bias(logits: Tensor, bias: Sequence[tuple[int, float]]) -> Tensor:
    """Logits (B, V) with each (token, number) pair's number added to its token; a token named twice gets both."""
    tokens = torch.tensor([token for token, _ in bias], device=logits.device)
    numbers = logits.new_tensor([number for _, number in bias])
    return logits.index_add(1, tokens, numbers.expand(len(logits), -1))


def ban(logits: Tensor, banned: Sequence[Sequence[int]]) -> Tensor:
    """Logits (B, V) with the tokens of row i's list at -inf."""
    rows = [row for row, tokens in enumerate(banned) for _ in tokens]
    if not rows:
        return logits
    tokens = [token for row in banned for token in row]
    return logits.index_put((torch.tensor(rows), torch.tensor(tokens)), logits.new_tensor(-math.inf))


def completing(bad_words: Sequence[Sequence[int]], text: Sequence[int]) -> list[int]:
    """The tokens that would complete a bad word after `text`, the ids written so far."""
    return [w[-1] for w in bad_words if len(w) - 1 <= len(text) and list(text[len(text) - len(w) + 1 :]) == [*w[:-1]]]


def allow_only(logits: Tensor, allowed: Sequence[int]) -> Tensor:
    """Logits (B, V) with all tokens but these at -inf."""
    tokens = torch.tensor(allowed, device=logits.device)
    return torch.full_like(logits, -math.inf).index_copy(1, tokens, logits[:, tokens])


def permit(logits: Tensor, permitted: np.ndarray) -> Tensor:
    """Logits (B, V) with the tokens at -inf that are not permitted, bool (B, V)."""
    return logits.masked_fill(torch.from_numpy(~permitted).to(logits.device), -math.inf)


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Logits (B, V) divided by a temperature above 0, shifted so that the largest is 0: no temperature overflows."""
    shifted = logits - logits.amax(dim=-1, keepdim=True)
    return shifted / max(temperature, torch.finfo(logits.dtype).tiny)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (B, V) with all but the k largest of each row at -inf; ties keep the lowest ids, so exactly k stay."""
    if k >= logits.shape[-1]:
        return logits
    counts = logits.new_full((logits.shape[0], 1), k, dtype=torch.int64)
    return _keep_largest(logits, counts, logits.topk(k, dim=-1).values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Logits (B, V) with all but each row's nucleus at -inf: the smallest set of most probable tokens whose
    probability reaches p, at least one token (Holtzman et al. 2020). Sums are taken in float64.
    """
    if p >= 1:
        return logits
    left = int((logits > -math.inf).sum(dim=-1).max())  # few after top-k
    width = min(TOP_P_CANDIDATES, left)
    largest = logits.topk(width, dim=-1).values  # (B, width), sorted
    peak = largest[:, :1].double()
    total = ((largest if width == left else logits) - peak).exp().sum(dim=-1, keepdim=True)  # (B, 1)
    while True:
        mass = (largest - peak).exp().cumsum(dim=-1) / total
        counts = (mass < p).sum(dim=-1, keepdim=True) + 1
        if width == left or int(counts.max()) <= width:
            return _keep_largest(logits, counts.clamp_max(width), largest)
        width = min(8 * width, left)
        largest = logits.topk(width, dim=-1).values


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Logits (B, V) with tokens less probable than min_p times the row's most probable at -inf (Nguyen et al. 2024)."""
    if min_p == 0:
        return logits
    threshold = logits.amax(dim=-1, keepdim=True) + math.log(min_p)
    return logits.masked_fill(logits < threshold, -math.inf)


def keep_typical(logits: Tensor, p: float) -> Tensor:
    """Logits (B, V) with all but each row's typical set at -inf: the smallest set of tokens, those whose surprise is
    nearest to the entropy first, whose probability reaches p, at least one token (Meister et al. 2023). In float64.
    """
    if p >= 1:
        return logits
    surprise = -logits.double().log_softmax(dim=-1)
    probabilities = (-surprise).exp()
    entropy = (probabilities * surprise).nan_to_num(0.0).sum(dim=-1, keepdim=True)  # 0 * inf is none
    order = (surprise - entropy).abs().sort(dim=-1, stable=True).indices
    mass = probabilities.gather(-1, order).cumsum(dim=-1)
    dropped = torch.zeros_like(order, dtype=torch.bool)
    dropped[:, 1:] = mass[:, :-1] >= p
    return logits.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -math.inf)


def _keep_largest(logits: Tensor, counts: Tensor, largest: Tensor) -> Tensor:
    """Keep counts (B, 1) tokens a row, given the row's sorted largest logits (B, at least counts)."""
    threshold = largest.gather(-1, counts - 1)
    below = logits < threshold
    if bool(((~below).sum(dim=-1, keepdim=True) == counts).all()):  # no ties at the threshold
        return logits.masked_fill(below, -math.inf)
    above, equal = logits > threshold, logits == threshold
    room = counts - above.sum(dim=-1, keepdim=True)
    return logits.masked_fill(~(above | (equal & (equal.cumsum(dim=-1) <= room))), -math.inf)
