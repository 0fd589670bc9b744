"""A slow sampler, one row and one token at a time, in plain Python and NumPy scalars."""

from __future__ import annotations

import math

import numpy as np

from neural.generation.options import SamplingOptions


def probabilities(
    logits: np.ndarray,
    options: SamplingOptions,
    seen: set[int],
    counts: dict[int, int] | None = None,
    banned: set[int] = frozenset(),
) -> list[float]:
    """The distribution of one row's next token; logits (V,) float32."""
    scores = [_penalised(score, token in seen, options.repetition_penalty) for token, score in enumerate(logits)]
    for token, times in (counts or {}).items():
        scores[token] = np.float32(scores[token] - np.float32(options.frequency_penalty) * np.float32(times))
        scores[token] = np.float32(scores[token] - np.float32(options.presence_penalty))
    for token, bias in options.logit_bias:
        scores[token] = np.float32(scores[token] + np.float32(bias))
    for token in range(len(scores)):
        if token in banned or (options.allowed is not None and token not in options.allowed):
            scores[token] = np.float32(-math.inf)
    if options.temperature == 0:
        best = max(range(len(scores)), key=lambda token: (scores[token], -token))
        return [float(token == best) for token in range(len(scores))]
    if options.temperature != 1:
        peak = max(scores)
        scores = [np.float32((score - peak) / np.float32(options.temperature)) for score in scores]
    ranked = [t for t in sorted(range(len(scores)), key=lambda t: (-scores[t], t)) if scores[t] > -math.inf]
    if options.top_k is not None:
        ranked = ranked[: options.top_k]
    if options.top_p is not None:
        mass = _softmax(scores, ranked)
        total, nucleus = 0.0, []
        for token in ranked:
            nucleus.append(token)
            total += mass[token]
            if total >= options.top_p:
                break
        ranked = nucleus
    if options.min_p:
        limit = scores[ranked[0]] + np.float32(math.log(options.min_p))
        ranked = [token for token in ranked if scores[token] >= limit]
    if options.typical_p is not None and options.typical_p < 1:
        ranked = _typical(_softmax(scores, ranked), ranked, options.typical_p)
    return _softmax(scores, ranked)


def _typical(mass: list[float], tokens: list[int], p: float) -> list[int]:
    entropy = -math.fsum(mass[t] * math.log(mass[t]) for t in tokens if mass[t])
    total, kept = 0.0, []
    for token in sorted(tokens, key=lambda t: (abs(-math.log(mass[t]) - entropy) if mass[t] else math.inf, t)):
        kept.append(token)
        total += mass[token]
        if total >= p:
            break
    return sorted(kept, key=lambda t: (-mass[t], t))


def _penalised(score: np.float32, seen: bool, penalty: float) -> np.float32:
    if not seen:
        return score
    return score / np.float32(penalty) if score > 0 else score * np.float32(penalty)


def _softmax(scores: list[np.float32], tokens: list[int]) -> list[float]:
    exponents = {token: math.exp(float(scores[token]) - float(scores[tokens[0]])) for token in tokens}
    total = math.fsum(exponents.values())
    return [exponents.get(token, 0.0) / total for token in range(len(scores))]
