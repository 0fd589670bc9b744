"""`neural bench train`: the same training by others, and who can be asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from neural.benchmarks.training import worker
from neural.benchmarks.training.comparison import prepare
from neural.benchmarks.training.contenders import contender
from neural.benchmarks.training.worker import batch, timed
from neural.cli.app import app
from neural.compiler import load
from neural.diagnostics.diagnostic import NeuralError
from neural.training import unread

SETS = {"n_layer": 2, "d_model": 32, "n_head": 2, "context": 16, "vocab_size": 50, "dropout": 0.0}
EXAMPLE = Path("examples/shakespeare_char.neural")


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 5e-3)])
def test_the_losses_of_transformers_are_ours(tmp_path: Path, precision: str, tolerance: float) -> None:
    """Twenty steps of the same weights and batches: what is compared is one training."""
    pytest.importorskip("transformers")
    sets = SETS | {"vocab_size": 50257}
    program = load(Path("examples/gpt2.neural"), sets, None)
    task = prepare(program, sets, tmp_path, steps=18, peers=True, precision=precision)
    batches = [batch(ids, task.device) for ids in np.load(tmp_path / "ids.npy")]
    assert len(batches) == 20
    ours, theirs = (timed(contender(name, task, None), batches)[0] for name in ("neural", "transformers"))
    assert ours == pytest.approx(theirs, abs=tolerance)


def test_steps_of_a_device_that_nobody_waits_for_are_read_at_the_end(tmp_path: Path, monkeypatch) -> None:
    """Forced on the CPU: the same losses."""
    task = prepare(load(EXAMPLE, SETS, None), SETS, tmp_path, steps=4, peers=False)
    batches = [batch(ids, task.device) for ids in np.load(tmp_path / "ids.npy")]
    one_by_one, _ = timed(contender("neural", task, None), batches)
    for module in (unread, worker):
        monkeypatch.setattr(module, "APART", {"cpu"})
    monkeypatch.setattr(unread, "MOST", 2)
    losses, seconds = timed(contender("neural", task, None), batches)
    assert losses == one_by_one and len(seconds) == len(losses) == 6


def test_the_command_measures_our_trainer() -> None:
    given = [word for name, value in SETS.items() for word in ("--set", f"{name}={value}")]
    done = CliRunner().invoke(app, ["bench", "train", str(EXAMPLE), *given, "--rounds", "1", "--steps", "2", "--json"])
    assert done.exit_code == 0, done.output
    (ours,) = json.loads(done.stdout)["rounds"]["neural"]
    assert len(ours["losses"]) == 4 and ours["tokens_per_second"] > 0 and ours["peak_bytes"] > 2**20


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--against", "nanogtp"], "N877"),
        (["--against", ","], "N877"),
        (["--against", "nanogpt"], "N874"),
        (["--against", "nanogpt", "--nanogpt", "/nowhere", "--rounds", "1", "--steps", "1"], "N876"),
    ],
)
def test_who_cannot_be_compared_with(options: list[str], code: str) -> None:
    found = CliRunner().invoke(app, ["bench", "train", str(EXAMPLE), *options])
    assert isinstance(found.exception, NeuralError) and found.exception.diagnostics[0].code == code
