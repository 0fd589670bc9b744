"""How well a model predicts text that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from neural.training.distributed.parallel import Parallel
from neural.training.loss import Batch, score


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Means over all tokens that were looked at."""

    loss: float  # nats a token
    accuracy: float  # share of the tokens that the model ranks first
    bits_per_byte: float | None  # None where the tokens stand for no bytes at all
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss): the number of equally likely tokens that would be as hard to choose among."""
        return math.exp(min(self.loss, 700.0))  # exp overflows from 710

    def to_json(self, metrics: Iterable[str]) -> dict[str, float | None]:
        """For `metrics.jsonl`: the loss and what follows from it, and the accuracy if the program asks for it."""
        values = {"loss": self.loss, "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}
        return {**values, "accuracy": self.accuracy} if "accuracy" in metrics else values


@torch.no_grad()
def evaluate(parallel: Parallel, batches: Iterable[Batch], byte_lengths: np.ndarray) -> Evaluation:
    """The model's `Evaluation` over `batches`, without dropout; the model's mode is as before afterwards.

    Each of several processes looks at its share of the batches; all get the means over all of them.
    `byte_lengths` (V,): the bytes of text that each token stands for. Bits per byte is the total of the losses in bits
    over the total of the bytes, and so compares models with different tokenizers (Gao et al. 2020, "The Pile").
    """
    model = parallel.model
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    nats = torch.zeros((), dtype=torch.float64, device=device)
    right = torch.zeros((), dtype=torch.int64, device=device)
    lengths = torch.from_numpy(byte_lengths.astype(np.int64)).to(device)
    tokens, n_bytes = 0, torch.zeros((), dtype=torch.int64, device=device)
    for (inputs, targets), counts in parallel.dealt(batches):
        found = score(parallel.loss, inputs, targets)
        if counts:
            nats += found[0]
            right += found[1]
            n_bytes += lengths[targets].sum()
            tokens += targets.numel()
    model.train(was_training)
    nats, counts = parallel.sum(nats), parallel.sum(torch.stack([right, n_bytes, torch.tensor(tokens, device=device)]))
    right, n_bytes, tokens = counts.tolist()
    loss = nats.item() / tokens
    bits = nats.item() / math.log(2) / n_bytes if n_bytes else None
    return Evaluation(loss, right / tokens, bits, tokens)
