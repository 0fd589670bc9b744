"""A run goes on under its own program alone, but for how long it trains and how often it speaks."""

from __future__ import annotations

import json

import pytest

from neural.diagnostics.diagnostic import NeuralError
from neural.training.loop import train
from neural.training.run import Run
from tests.training.test_loop import assert_same_bits


def edited(make_run, before: str, now: str) -> Run:
    """A run at step 10, whose program says something else by now."""
    run = make_run()
    train(run, stop_at=10)
    file = run.path / "program.neural"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, now))
    return Run.open(run.path)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("param d_model = 16", "param d_model = 32"),
        ("param dropout = 0.1", "param dropout = 0.2"),
        ("param learning_rate = 1e-2", "param learning_rate = 2e-2"),
        ("CosineDecay(warmup_steps=5", "CosineDecay(warmup_steps=6"),
        ("param accumulation = 2", "param accumulation = 4"),
        ("seed: 7", "seed: 8"),
    ],
)
def test_another_program_is_refused_with_what_differs(make_run, before: str, now: str) -> None:
    run = edited(make_run, before, now)
    with pytest.raises(NeuralError, match="N845") as refused:
        train(run)
    then, after = refused.value.diagnostics[0].notes
    assert then.startswith("then: ") and before in then and after.startswith("now: ") and now in after
    assert run.checkpoints.steps() == [10]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("param log_every = 5", "param log_every = 3  # more often"),
        ("param keep = 2", "param keep = 5"),
        ('metrics: ["accuracy", "perplexity"]', "metrics: []"),
    ],
)
def test_what_changes_no_bit_may_change(make_run, before: str, now: str) -> None:
    run, straight = edited(make_run, before, now), make_run("straight")
    train(run)
    train(straight)
    assert_same_bits(run, straight, 40)


def test_a_run_may_go_on_for_longer(make_run) -> None:
    run = edited(make_run, "param steps = 40", "param steps = 44")
    assert train(run).step == 44
    assert json.loads((run.path / "run.json").read_text())["steps"] == 44


def test_checkpoints_that_kept_no_program_are_taken(make_run) -> None:
    """Those of earlier versions."""
    from dataclasses import replace

    from neural.training.checkpoint import Checkpoint
    from neural.training.same_program import require_same_program

    run = edited(make_run, "param d_model = 16", "param d_model = 32")
    checkpoint = Checkpoint.open(run.checkpoints.path(10))
    old = replace(checkpoint, state=replace(checkpoint.state, program=""))
    require_same_program(run.path, run.program, old)
