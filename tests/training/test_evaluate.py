from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from neural.training.distributed.parallel import Parallel
from neural.training.evaluate import Evaluation, evaluate


class Fixed(nn.Module):
    """Logits that depend on the input id alone, from a table, and dropout that must not act."""

    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.from_numpy(table).float())
        self.dropout = nn.Dropout(0.5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.table)[ids]


def test_against_numpy_over_batches_of_different_sizes() -> None:
    rng = np.random.default_rng(0)
    table, lengths = rng.normal(size=(11, 11)).astype(np.float32), rng.integers(0, 4, 11).astype(np.int32)
    ids = [rng.integers(0, 11, (rows, 7)) for rows in (3, 3, 1)]
    batches = [(torch.from_numpy(i[:, :-1]), torch.from_numpy(i[:, 1:])) for i in ids]
    model = Fixed(table).train()
    found = evaluate(Parallel(model), batches, lengths)

    inputs = np.concatenate([i[:, :-1].ravel() for i in ids])
    targets = np.concatenate([i[:, 1:].ravel() for i in ids])
    logits = table[inputs].astype(np.float64)
    nats = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(targets)), targets]
    assert found.tokens == len(targets) == 42
    assert found.loss == pytest.approx(nats.mean(), rel=1e-6)
    assert found.perplexity == pytest.approx(np.exp(nats.mean()), rel=1e-6)
    assert found.accuracy == pytest.approx((logits.argmax(-1) == targets).mean())
    assert found.bits_per_byte == pytest.approx(np.log2(np.exp(nats)).sum() / lengths[targets].sum(), rel=1e-6)
    assert model.training


def test_a_model_that_knows_nothing_needs_log2_of_the_vocabulary_a_byte() -> None:
    batch = (torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.int64))
    found = evaluate(Parallel(Fixed(np.zeros((256, 256)))), [batch], np.ones(256, np.int32))
    assert found.bits_per_byte == pytest.approx(8.0)
    assert found.perplexity == pytest.approx(256.0)


@pytest.mark.parametrize(
    ("metrics", "names"),
    [
        ((), {"loss", "perplexity", "bits_per_byte"}),
        (("accuracy",), {"loss", "perplexity", "bits_per_byte", "accuracy"}),
    ],
)
def test_the_program_asks_for_the_accuracy(metrics: tuple[str, ...], names: set[str]) -> None:
    assert set(Evaluation(1.0, 0.5, 2.0, 10).to_json(metrics)) == names


def test_tokens_of_no_bytes_have_no_bits_per_byte() -> None:
    batch = (torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 2, dtype=torch.int64))
    assert evaluate(Parallel(Fixed(np.zeros((2, 2)))), [batch], np.zeros(2, np.int32)).bits_per_byte is None


def test_a_huge_loss_has_a_perplexity() -> None:
    assert math.isfinite(Evaluation(5000.0, 0.0, None, 1).perplexity)
