"""`neural bench train`: the same training by others, and who can be asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from neural.benchmarks.training.comparison import prepare
from neural.benchmarks.training.contenders import contender
from neural.benchmarks.training.worker import batch
from neural.cli.app import app
from neural.compiler import load
from neural.diagnostics.diagnostic import NeuralError

SETS = {"n_layer": 2, "d_model": 32, "n_head": 2, "context": 16, "vocab_size": 50, "dropout": 0.0}
EXAMPLE = Path("examples/shakespeare_char.neural")


def test_the_losses_of_transformers_are_ours(tmp_path: Path) -> None:
    """Twenty steps of the same weights and batches: what is compared is one training."""
    pytest.importorskip("transformers")
    sets = SETS | {"vocab_size": 50257}
    prepare(load(Path("examples/gpt2.neural"), sets, None), sets, tmp_path, steps=18, peers=True)
    batches = [batch(ids) for ids in np.load(tmp_path / "ids.npy")]
    assert len(batches) == 20
    ours, theirs = (
        [step(b) for b in batches] for step in (contender(n, tmp_path, None) for n in ("neural", "transformers"))
    )
    assert ours == pytest.approx(theirs, abs=1e-4)


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
        (["--against", "nanogpt"], "N874"),
        (["--against", "nanogpt", "--nanogpt", "/nowhere", "--rounds", "1", "--steps", "1"], "N876"),
    ],
)
def test_who_cannot_be_compared_with(options: list[str], code: str) -> None:
    found = CliRunner().invoke(app, ["bench", "train", str(EXAMPLE), *options])
    assert isinstance(found.exception, NeuralError) and found.exception.diagnostics[0].code == code
