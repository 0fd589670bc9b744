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
import torch
from torch import Tensor

from neural.diagnostics.diagnostic import fail
from neural.generation import filters
from neural.generation.options import SamplingOptions

FEW_TOKENS = 1024


class Past(NamedTuple):
    """What penalties and bans know of each row's text so far; None where no option asks.

    seen: bool (B, V), tokens of the prompt and of the text. counts: (B, V), how often the text has each, the prompt
    not counted. banned: tokens that must not come next, a list a row. permitted: bool (B, V), those that a constraint
    lets come next.
    """

    seen: Tensor | None = None
    counts: Tensor | None = None
    banned: Sequence[Sequence[int]] | None = None
    permitted: np.ndarray | None = None


def row_generator(seed: int, index: int) -> np.random.Generator:
    """The source of random numbers of sample `index`, derived from (seed, index) and independent of all others.

    NumPy's, whatever the model's device, so that the numbers are the same on every machine.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, index))))


def filter_logits(logits: Tensor, options: SamplingOptions, past: Past | None = None) -> Tensor:
    """The logits whose softmax is the distribution that `sample` draws from.

    logits (B, V) of any float type, read as float32. Gives (B, V) float32. At temperature 0 nothing from the
    temperature on is applied. Raises N907 for NaN or infinite logits, N908 for a row without a token left.
    """
    logits = logits.float()
    _check_logits(logits)
    changed = _penalised(logits, options, past or Past())
    if changed is not logits:
        _check_logits(changed)
    if options.temperature == 0:
        return changed
    return _narrowed(changed, options)


def _penalised(logits: Tensor, options: SamplingOptions, past: Past) -> Tensor:
    """What changes single tokens, whatever the temperature."""
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
    return logits


def _narrowed(logits: Tensor, options: SamplingOptions) -> Tensor:
    """The temperature and the filters of the tail."""
    if options.temperature != 1:
        logits = filters.apply_temperature(logits, options.temperature)
    if options.top_k is not None:
        logits = filters.keep_top_k(logits, options.top_k)
    if options.top_p is not None:
        logits = filters.keep_top_p(logits, options.top_p)
    if options.min_p is not None:
        logits = filters.keep_min_p(logits, options.min_p)
    if options.typical_p is not None:
        logits = filters.keep_typical(logits, options.typical_p)
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


def draw(logits: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
    """One token id (B,) int64 a row from softmax(logits), logits (B, V), by an exponential race.

    argmax(p / E) with E of independent Exp(1) is a draw from p (the Gumbel-max trick without its logarithms). Row i's
    noise comes from generators[i] alone, V numbers a draw, so that a row's tokens do not depend on its neighbours; and
    rounding in the logits changes a draw only where two tokens tie to that rounding, which drawing by the inverse of
    the cumulative distribution does not give.
    """
    uniform = torch.from_numpy(np.stack([g.random(logits.shape[-1]) for g in generators])).to(logits.device)
    left = int((logits > -math.inf).sum(dim=-1).max())
    if left > FEW_TOKENS:
        return _race(logits, uniform)
    values, ids = logits.topk(left, dim=-1)  # the race among the few that a filter left
    return ids.gather(-1, _race(values, uniform.gather(-1, ids))[:, None])[:, 0]


def _race(logits: Tensor, uniform: Tensor) -> Tensor:
    times = uniform.clamp_(min=2.0**-53).log_().neg_()  # Exp(1), never 0 and never infinite
    return (logits.softmax(dim=-1, dtype=torch.float64) / times).argmax(dim=-1)


def sample(
    logits: Tensor,
    options: SamplingOptions,
    generators: Sequence[np.random.Generator],
    past: Past | None = None,
) -> Tensor:
    """The next token of each row: logits (B, V) to ids (B,) int64.

    generators: one a row, see `row_generator`; greedy search draws nothing from them. `filter_logits` says what is
    refused.
    """
    logits = filter_logits(logits, options, past)
    return logits.argmax(dim=-1) if options.temperature == 0 else draw(logits, generators)
