"""From logits to the next token: pure functions of whole batches, applied in one documented order.

    repetition penalty -> temperature -> top-k -> top-p -> min-p -> draw

Each filter sees what the one before left: probabilities are those of the softmax over the tokens that remain.
Tokens that a filter removes get the logit -inf. Equal logits are ordered by id, the lowest first, everywhere, so that
`top_k=1` is greedy search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor

from neural.diagnostics.diagnostic import fail

TOP_P_CANDIDATES = 1024  # nearly always hold the mass p, and cost a tenth of sorting GPT-2's vocabulary


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

    Raises NeuralError N901 to N906 for values outside their range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
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


def row_generators(seed: int, count: int) -> list[torch.Generator]:
    """One source of random numbers a sample, each derived from (seed, sample index) and independent of the rest.

    They live on the CPU whatever the model's device, so that the numbers are the same on every machine.
    """
    states = (np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0] for index in range(count))
    return [torch.Generator().manual_seed(int(state)) for state in states]


def apply_repetition_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make seen tokens less probable: divide their positive logits, multiply their negative ones (Keskar et al. 2019).

    logits (B, V) float; seen (B, V) bool, true for the tokens of the row's text so far.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


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
    vocab_size = logits.shape[-1]
    peak = logits.double().amax(dim=-1, keepdim=True)
    total = (logits - peak).exp().sum(dim=-1, keepdim=True)  # (B, 1)
    width = min(TOP_P_CANDIDATES, vocab_size)
    while True:
        largest = logits.topk(width, dim=-1).values  # (B, width), sorted
        mass = (largest - peak).exp().cumsum(dim=-1) / total
        counts = (mass < p).sum(dim=-1, keepdim=True) + 1
        if width == vocab_size or int(counts.max()) <= width:
            return _keep_largest(logits, counts.clamp_max(width), largest)
        width = min(8 * width, vocab_size)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Logits (B, V) with tokens less probable than min_p times the row's most probable at -inf (Nguyen et al. 2024)."""
    if min_p == 0:
        return logits
    threshold = logits.amax(dim=-1, keepdim=True) + math.log(min_p)
    return logits.masked_fill(logits < threshold, -math.inf)


def _keep_largest(logits: Tensor, counts: Tensor, largest: Tensor) -> Tensor:
    """Keep counts (B, 1) tokens a row, given the row's sorted largest logits (B, at least counts)."""
    threshold = largest.gather(-1, counts - 1)
    above, equal = logits > threshold, logits == threshold
    room = counts - above.sum(dim=-1, keepdim=True)
    return logits.masked_fill(~(above | (equal & (equal.cumsum(dim=-1) <= room))), -math.inf)


def filter_logits(logits: Tensor, options: SamplingOptions, seen: Tensor | None = None) -> Tensor:
    """The logits whose softmax is the distribution that `sample` draws from.

    logits (B, V) of any float type, read as float32; seen (B, V) bool, needed for a repetition penalty other than 1.
    Gives (B, V) float32. At temperature 0 only the penalty is applied. Raises N907 for NaN or infinite logits, N908
    for a row of -inf.
    """
    logits = logits.float()
    _check_logits(logits)
    if options.repetition_penalty != 1:
        if seen is None:
            raise ValueError("a repetition penalty needs `seen`, the tokens of the text so far")
        logits = apply_repetition_penalty(logits, seen, options.repetition_penalty)
    if options.temperature == 0:
        return logits
    if options.temperature != 1:
        logits = apply_temperature(logits, options.temperature)
    if options.top_k is not None:
        logits = keep_top_k(logits, options.top_k)
    if options.top_p is not None:
        logits = keep_top_p(logits, options.top_p)
    if options.min_p is not None:
        logits = keep_min_p(logits, options.min_p)
    return logits


def _check_logits(logits: Tensor) -> None:
    peak = logits.amax(dim=-1)  # NaN where the row holds one
    if bool(peak.isfinite().all()):
        return
    row = int((~peak.isfinite()).nonzero()[0])
    if float(peak[row]) == -math.inf:
        fail("N908", f"every token of row {row} is ruled out: all its logits are -inf", hint="leave one token possible")
    token = int((logits[row].isnan() | (logits[row] == math.inf)).nonzero()[0])
    fail(
        "N907",
        f"the model's logits are not finite: {float(logits[row, token])} for token {token} of row {row}",
        hint="use an earlier checkpoint; weights that hold NaN come from training that diverged",
    )


def draw(logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """One token id (B,) int64 a row from softmax(logits), logits (B, V), by an exponential race.

    argmax(p / E) with E of independent Exp(1) is a draw from p (the Gumbel-max trick without its logarithms). Row i's
    noise comes from generators[i] alone, V numbers a draw, so that a row's tokens do not depend on its neighbours; and
    rounding in the logits changes a draw only where two tokens tie to that rounding, which drawing by the inverse of
    the cumulative distribution does not give.
    """
    size = logits.shape[-1]
    uniform = torch.stack([torch.rand(size, generator=g, dtype=torch.float64) for g in generators])
    race = uniform.clamp_min_(2.0**-53).log_().neg_().to(logits.device)  # Exp(1), never 0 and never infinite
    return (logits.softmax(dim=-1, dtype=torch.float64) / race).argmax(dim=-1)


def sample(
    logits: Tensor,
    options: SamplingOptions,
    generators: Sequence[torch.Generator],
    seen: Tensor | None = None,
) -> Tensor:
    """The next token of each row: logits (B, V) to ids (B,) int64.

    generators: one a row, see `row_generators`; greedy search draws nothing from them. seen: see `filter_logits`,
    which also says what is refused.
    """
    logits = filter_logits(logits, options, seen)
    return logits.argmax(dim=-1) if options.temperature == 0 else draw(logits, generators)
