from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from neural.training.distributed.parallel import Parallel
from neural.training.loss import TrainingLoss
from neural.training.step import NonFiniteStep, accumulate_gradients, optimizer_step


@pytest.fixture
def model(make_run) -> nn.Module:
    torch.manual_seed(1)
    return make_run(dropout=0.0).new_model()


def sequences(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(20, (count, 9), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]


def gradients(model: nn.Module, batches: list) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    accumulate_gradients(Parallel(model), batches)
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 6, 12])
def test_accumulation_has_the_gradient_of_the_full_batch(model: nn.Module, parts: int) -> None:
    inputs, targets = sequences(12)
    whole = gradients(model, [(inputs, targets)])
    accumulated = gradients(model, list(zip(inputs.chunk(parts), targets.chunk(parts), strict=True)))
    for name, gradient in whole.items():
        torch.testing.assert_close(accumulated[name], gradient, rtol=0, atol=1e-6)


def test_the_loss_is_the_cross_entropy_by_its_definition(model: nn.Module) -> None:
    inputs, targets = sequences(4)
    logits = model(inputs).detach().double().numpy()
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(logs, targets.numpy()[..., None], axis=-1).mean()
    assert TrainingLoss(model)(inputs, targets).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("clip", [None, 0.05, 1e9])
def test_the_gradient_is_clipped_to_its_norm(model: nn.Module, clip: float | None) -> None:
    batches = [sequences(3, seed) for seed in range(2)]
    expected = gradients(model, batches)
    norm = math.sqrt(sum(g.double().square().sum().item() for g in expected.values()))
    scale = 1.0 if clip is None else min(1.0, clip / norm)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    result = optimizer_step(Parallel(model), torch.optim.SGD(model.parameters(), lr=9.0), batches, rate=0.5, clip=clip)
    assert result.gradient_norm == pytest.approx(norm, rel=1e-5)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] - 0.5 * scale * expected[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_not_applied(model: nn.Module, poison: float) -> None:
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer_step(Parallel(model), optimizer, [sequences(2)], rate=1e-3, clip=1.0)
    with torch.no_grad():
        next(model.parameters())[0, 0] = poison
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    moments = {name: optimizer.state[p]["exp_avg"].clone() for name, p in model.named_parameters()}
    batch = (torch.zeros(1, 8, dtype=torch.int64), torch.zeros(1, 8, dtype=torch.int64))
    with pytest.raises(NonFiniteStep) as stopped:
        optimizer_step(Parallel(model), optimizer, [sequences(1), batch], rate=1e-3, clip=1.0)
    assert not math.isfinite(stopped.value.result.loss) and len(stopped.value.losses) == 2
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name], rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(optimizer.state[p]["exp_avg"], moments[name], rtol=0, atol=0)


class Steep(nn.Module):
    """The logits are finite, and their gradient is not: the slope of a square root at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(20))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.weight.sqrt().expand(*ids.shape, 20)


def test_a_gradient_that_is_not_finite_stops_under_a_finite_loss() -> None:
    model = Steep()
    with pytest.raises(NonFiniteStep) as stopped:
        optimizer_step(Parallel(model), torch.optim.SGD(model.parameters(), lr=1.0), [sequences(2)], rate=1.0, clip=1.0)
    assert math.isfinite(stopped.value.result.loss) and not math.isfinite(stopped.value.result.gradient_norm)
    assert not model.weight.any()
