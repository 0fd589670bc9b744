from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neural.graph.settings import Choice
from neural.training.schedules import cosine_decay, make_schedule


@st.composite
def shapes(draw: st.DrawFn) -> tuple[float, float, int, int]:
    """Peak, minimum, warm-up and total, with room for at least the peak and the minimum after the warm-up."""
    peak = draw(st.floats(1e-6, 1.0))
    warmup = draw(st.integers(0, 200))
    return peak, peak * draw(st.floats(0.0, 1.0)), warmup, warmup + draw(st.integers(2, 500))


@given(shapes())
def test_it_rises_then_falls_between_its_bounds(shape: tuple[float, float, int, int]) -> None:
    peak, low, warmup, total = shape
    rate = cosine_decay(peak, total, warmup_steps=warmup, min_learning_rate=low)
    rates = [rate(step) for step in range(total + 20)]
    rising, falling = rates[: warmup + 1], rates[warmup:]
    assert rates[0] > 0
    assert all(a < b for a, b in pairwise(rising))
    assert all(a >= b - 1e-15 for a, b in pairwise(falling))
    assert rates[warmup] == pytest.approx(peak)
    assert all(low - 1e-15 <= r <= peak + 1e-15 for r in falling)
    assert set(rates[total - 1 :]) == {low}


@given(shapes())
def test_the_cosine_is_torchs(shape: tuple[float, float, int, int]) -> None:
    peak, low, warmup, total = shape
    rate = cosine_decay(peak, total, warmup_steps=warmup, min_learning_rate=low)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=peak)
    last = total - 1 - warmup
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=last, eta_min=low)
    for step in {0, 1, last // 3, last // 2, last - 1, last}:
        closed = reference.__class__._get_closed_form_lr
        reference.last_epoch = step
        assert rate(warmup + step) == pytest.approx(closed(reference)[0], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (Choice("Constant", {"warmup_steps": 3}), [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]),
        (Choice("CosineDecay", {"warmup_steps": 1, "min_learning_rate": 0.2}), [0.5, 1.0, 0.8, 0.4, 0.2, 0.2]),
        (Choice("CosineDecay", {"decay_steps": 2}), [1.0, 0.5, 0.0, 0.0, 0.0, 0.0]),
        (Choice("CosineDecay", {"warmup_steps": 9}), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
        (Choice("LinearDecay", {"warmup_steps": 1, "min_learning_rate": 0.1}), [0.5, 1.0, 0.7, 0.4, 0.1, 0.1]),
        (Choice("LinearDecay", {"decay_steps": 2}), [1.0, 0.5, 0.0, 0.0, 0.0, 0.0]),
        (Choice("InverseSquareRoot", {"warmup_steps": 1}), [0.5, 1.0, 2**-0.5, 3**-0.5, 0.5, 5**-0.5]),
        (Choice("StepDecay", {"decay_steps": 2, "decay_rate": 0.5, "warmup_steps": 1}), [0.5, 1, 1, 0.5, 0.5, 0.25]),
        (Choice("ExponentialDecay", {"decay_steps": 2, "decay_rate": 0.25}), [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125]),
        (Choice("WarmupStableDecay", {"warmup_steps": 1, "decay_steps": 2}), [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]),
        (Choice("WarmupStableDecay", {"min_learning_rate": 0.2}), [1.0, 1.0, 1.0, 1.0, 0.2, 0.2]),
    ],
    ids=[
        *("none", "constant", "cosine", "decay_steps", "warm-up longer than the training"),
        *("linear", "linear to a step", "inverse root", "stairs", "exponential", "stable", "a fifth"),
    ],
)
def test_the_schedule_that_a_program_names(choice: Choice | None, expected: list[float]) -> None:
    rate = make_schedule(choice, learning_rate=1.0, total_steps=5)
    assert [rate(step) for step in range(6)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("choice", "reference"),
    [
        (
            Choice("LinearDecay", {"min_learning_rate": 0.01}),
            lambda o: torch.optim.lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.1, total_iters=49),
        ),
        (
            Choice("StepDecay", {"decay_steps": 7, "decay_rate": 0.3}),
            lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=7, gamma=0.3),
        ),
        (
            Choice("ExponentialDecay", {"decay_steps": 1, "decay_rate": 0.9}),
            lambda o: torch.optim.lr_scheduler.ExponentialLR(o, gamma=0.9),
        ),
    ],
    ids=["linear", "stairs", "exponential"],
)
def test_they_are_torchs(choice: Choice, reference) -> None:
    rate = make_schedule(choice, learning_rate=0.1, total_steps=50)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = reference(optimizer)
    for step in range(50):
        assert rate(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()
