"""How well a model predicts text that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from neural.training.step import Batch


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
def evaluate(model: nn.Module, batches: Iterable[Batch], byte_lengths: np.ndarray) -> Evaluation:
    """The model's `Evaluation` over `batches`, without dropout; the model's mode is as before afterwards.

    `byte_lengths` (V,): the bytes of text that each token stands for. Bits per byte is the total of the losses in bits
    over the total of the bytes, and so compares models with different tokenizers (Gao et al. 2020, "The Pile").
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    nats = torch.zeros((), dtype=torch.float64, device=device)
    right = torch.zeros((), dtype=torch.int64, device=device)
    lengths = torch.from_numpy(byte_lengths.astype(np.int64)).to(device)
    tokens, n_bytes = 0, torch.zeros((), dtype=torch.int64, device=device)
    for inputs, targets in batches:
        logits, expected = model(inputs).flatten(0, 1), targets.flatten()
        nats += F.cross_entropy(logits, expected, reduction="sum").double()
        right += (logits.argmax(-1) == expected).sum()
        n_bytes += lengths[expected].sum()
        tokens += expected.numel()
    model.train(was_training)
    loss = nats.item() / tokens
    bits = nats.item() / math.log(2) / n_bytes.item() if n_bytes.item() else None
    return Evaluation(loss, right.item() / tokens, bits, tokens)
