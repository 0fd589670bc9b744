"""How well a model predicts a text: loss, perplexity and bits per byte, by document and by length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from neural.data.tokenizers import Tokenizer
from neural.diagnostics.diagnostic import fail
from neural.generation.executor import Executor

CHUNK = 256  # tokens a forward pass: bounds the logits, 256 * V * 4 bytes


@dataclass(slots=True)
class Score:
    """Sums over tokens, and what follows from them."""

    tokens: int = 0
    bytes: int = 0
    nats: float = 0.0

    def add(self, tokens: int, bytes_: int, nats: float) -> None:
        self.tokens, self.bytes, self.nats = self.tokens + tokens, self.bytes + bytes_, self.nats + nats

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))  # exp overflows from 710

    @property
    def bits_per_byte(self) -> float | None:
        """The total in bits over the bytes that the tokens stand for; None where they stand for none."""
        return self.nats / math.log(2) / self.bytes if self.bytes else None

    def to_json(self) -> dict[str, float | int | None]:
        """JSON knows no NaN: where no token was predicted, the means are null."""
        means = {"loss": self.loss, "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}
        known = means if self.tokens else dict.fromkeys(means)
        return {"tokens": self.tokens, "bytes": self.bytes, **known}


@dataclass
class Report:
    """whole: of all documents. documents: of each, in order. by_length: of documents whose number of tokens is from a
    power of four to below the next, by that power. by_position: of tokens with so many tokens before them in view, by
    power of four too: how much a longer context helps.
    """

    whole: Score = field(default_factory=Score)
    documents: list[Score] = field(default_factory=list)
    by_length: dict[int, Score] = field(default_factory=dict)
    by_position: dict[int, Score] = field(default_factory=dict)

    def add(self, nats: np.ndarray, byte_lengths: np.ndarray, positions: np.ndarray) -> None:
        """One document's tokens: float64 nats, bytes, and how many tokens each had in view."""
        score = Score(len(nats), int(byte_lengths.sum()), float(nats.sum()))
        self.documents.append(score)
        for total in (self.whole, self.by_length.setdefault(_bucket(max(1, len(nats))), Score())):
            total.add(score.tokens, score.bytes, score.nats)
        buckets = np.array([_bucket(p) for p in range(int(positions.max(initial=0)) + 1)])[positions]
        for bucket in np.unique(buckets):
            of = buckets == bucket
            total = self.by_position.setdefault(int(bucket), Score())
            total.add(int(of.sum()), int(byte_lengths[of].sum()), float(nats[of].sum()))

    def to_json(self) -> dict[str, object]:
        return {
            **self.whole.to_json(),
            "documents": [score.to_json() for score in self.documents],
            "by_length": {str(low): self.by_length[low].to_json() for low in sorted(self.by_length)},
            "by_position": {str(low): self.by_position[low].to_json() for low in sorted(self.by_position)},
        }


def _bucket(n: int) -> int:
    """The largest power of four up to n; 0 for 0."""
    return 4 ** ((n.bit_length() - 1) // 2) if n else 0


@torch.inference_mode()
def score(
    executor: Executor,
    tokenizer: Tokenizer,
    documents: Iterable[str],
    *,
    done: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Every token of every document, predicted from those before it in the same document.

    A document that is longer than the context is read in windows that overlap by half, and each token is predicted
    once, with half a context or more before it. A document begins after what the tokenizer puts before a text, or
    after end-of-text; where there is neither, its first token cannot be predicted and is not counted. `done` is
    called after each document. The executor has one slot or more, and no row.

    Raises NeuralError N963 where there is no token to predict.
    """
    report = Report()
    lengths = tokenizer.byte_lengths.astype(np.int64)
    start = list(tokenizer.opening) or ([] if tokenizer.eot_id is None else [tokenizer.eot_id])
    for text in documents:
        ids = [*start, *tokenizer.encode(text)]
        nats, positions = _predicted(executor, ids)
        targets = np.array(ids[1:], dtype=np.int64)
        skipped = max(0, len(start) - 1)  # an opening of several tokens is not text
        report.add(nats[skipped:], lengths[targets[skipped:]], positions[skipped:])
        done(report)
    if not report.whole.tokens:
        fail("N963", "there is no token to predict: a text needs two at least", hint="give longer text")
    return report


def _predicted(executor: Executor, ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of each token but the first: nats (N - 1,) float64, and how many tokens stood before it in its window."""
    nats, positions = [np.empty(0)], [np.empty(0, dtype=np.int64)]
    first, known = 0, 1  # where the window begins; tokens up to here are predicted
    while known < len(ids):
        window = ids[first : first + executor.context + 1]  # its last token is predicted and not read
        losses = _losses(executor, window)
        new = losses[known - first - 1 :]
        nats.append(new)
        positions.append(np.arange(known - first, known - first + len(new)))
        known += len(new)
        first = max(0, known - 1 - executor.context // 2)
    return np.concatenate(nats), np.concatenate(positions)


def _losses(executor: Executor, window: Sequence[int]) -> np.ndarray:
    """Nats of each token of a window but the first, float64."""
    inputs = window[:-1]
    executor.reserve(1, len(inputs))
    if not executor.begin(inputs[:1]):
        executor.read(inputs[:1])
    logits, losses = executor.join()[None], []  # (1, V)
    targets = torch.tensor(window[1:], device=executor.device)
    losses.append(_nats(logits, targets[:1]))
    for start in range(1, len(inputs), CHUNK):
        chunk = inputs[start : start + CHUNK]
        losses.append(_nats(executor.decode([chunk])[0], targets[start : start + CHUNK]))
        executor.commit([len(chunk)])
    executor.leave(0, inputs)
    return torch.cat(losses).cpu().numpy()


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Of logits (T, V), for the targets (T,); float64."""
    return F.cross_entropy(logits.float(), targets, reduction="none").double()
