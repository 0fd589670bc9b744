"""Beam search: the most probable continuations that a search of a few at a time finds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from neural.diagnostics.diagnostic import fail
from neural.generation.executor import Executor

MOST_BEAMS = 256


class Beam(NamedTuple):
    """ids: without the prompt, the end included. logprob: of all of them. score: logprob / length ** length_penalty."""

    ids: tuple[int, ...]
    logprob: float
    score: float
    ended: bool


@torch.inference_mode()
def beam_search(
    executor: Executor,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    beams: int,
    n_best: int = 1,
    length_penalty: float = 1.0,
    ends: frozenset[int] = frozenset(),
) -> tuple[Beam, ...]:
    """The `n_best` best texts of a search that follows the `beams` most probable beginnings, best first.

    length_penalty: 0 compares sums of log probabilities, 1 means; more favours long texts (Wu et al. 2016, without
    their constant; as in transformers). A text ends at an id of `ends`, or at `max_new_tokens`; the search ends when
    `beams` texts have ended and none that is being written can score better than the worst of them by its mean so far.

    The executor has a slot or more for each beam, and no row. Raises NeuralError N964 for numbers out of range, N911
    for a prompt and new tokens that the context does not hold together.
    """
    _check(prompt, executor.context, max_new_tokens, beams, n_best, length_penalty)
    executor.reserve(beams, len(prompt) + max_new_tokens)
    known = executor.begin(prompt)
    if known < len(prompt):
        executor.read(prompt[known:])
    logits = executor.join()[None]  # (beams, V)
    texts: list[tuple[int, ...]] = [()]
    totals = torch.zeros(1, dtype=torch.float64, device=executor.device)
    found: list[Beam] = []
    for length in range(1, max_new_tokens + 1):
        sums = totals[:, None] + logits.double().log_softmax(dim=-1)  # (beams, V)
        running: list[tuple[float, int, int]] = []  # total, row, token
        for total, row, token in _best(sums, (1 + len(ends)) * beams):
            if token in ends:
                if len(running) < beams:  # as good as those that go on
                    found.append(_beam((*texts[row], token), total, length_penalty, ended=True))
            elif len(running) < beams:
                running.append((total, row, token))
        found = sorted(found, key=lambda b: -b.score)[:beams]
        texts = [(*texts[row], token) for _, row, token in running]
        totals = torch.tensor([total for total, _, _ in running], dtype=torch.float64, device=executor.device)
        if not running or _settled(found, beams, running[0][0] / length**length_penalty):
            break
        if length < max_new_tokens:
            executor.select([row for _, row, _ in running])
            logits = executor.decode([[token] for _, _, token in running])[:, 0]
            executor.commit([1] * len(running))
    else:  # those that never met an end
        found += [_beam(t, s, length_penalty, ended=False) for t, s in zip(texts, totals.tolist(), strict=True)]
    return tuple(sorted(found, key=lambda b: -b.score)[:n_best])


def _best(sums: Tensor, count: int) -> list[tuple[float, int, int]]:
    """The largest of (beams, V) sums, best first, with their rows and tokens."""
    values, places = sums.flatten().topk(min(count, sums.numel()))
    width = sums.shape[1]
    return [(v, p // width, p % width) for v, p in zip(values.tolist(), places.tolist(), strict=True) if v > -math.inf]


def _beam(ids: tuple[int, ...], logprob: float, length_penalty: float, *, ended: bool) -> Beam:
    return Beam(ids, logprob, logprob / len(ids) ** length_penalty, ended)


def _settled(found: list[Beam], beams: int, attainable: float) -> bool:
    return len(found) == beams and found[-1].score >= attainable


def _check(
    prompt: Sequence[int], context: int, max_new_tokens: int, beams: int, n_best: int, length_penalty: float
) -> None:
    if not 1 <= beams <= MOST_BEAMS:
        fail("N964", f"{beams} beams were asked for", hint=f"ask for 1 to {MOST_BEAMS}")
    if not 1 <= n_best <= beams:
        fail("N964", f"the {n_best} best of {beams} beams were asked for", hint=f"ask for 1 to {beams}")
    if not math.isfinite(length_penalty):
        fail("N964", f"the length penalty is {length_penalty}", hint="use 1 for means, 0 for sums")
    if max_new_tokens < 1:
        fail("N964", f"{max_new_tokens} new tokens were asked for", hint="a search needs 1 or more")
    if len(prompt) + max_new_tokens - 1 > context:
        long = f"the prompt is {len(prompt)} tokens long, with {max_new_tokens} new ones"
        fail(
            "N911",
            f"{long}, and the model's context is {context}",
            hint="a beam search does not go past the context: shorten the prompt, or ask for fewer tokens",
        )
