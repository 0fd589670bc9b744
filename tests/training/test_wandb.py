"""A run on Weights & Biases, which is offline here: the files that `wandb sync` would send."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from neural.diagnostics.diagnostic import NeuralError
from neural.training.loop import train
from neural.training.metrics import MetricsLog
from neural.training.weights_and_biases import ask_for_wandb
from tests.training.conftest import TINY
from tests.training.test_commands import neural  # noqa: F401


def told(run: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(run.glob("wandb/offline-run-*/*.wandb"))]


def test_a_run_is_told_when_asked_and_goes_on_there(neural, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ("--data", corpus, "--out", "run", "--set", "sample_every=10", "--stop-at", 10, "--wandb", "gpt")
    code, _, err = neural("train", TINY, *words)
    assert code == 0, err
    # in a process of its own: of a run that is begun anew at once in the same one W&B may write nothing
    again = [sys.executable, "-m", "neural", "train", "--resume", "run", "--stop-at", "15"]
    subprocess.run(again, check=True, capture_output=True)
    first, second = told(Path("run"))
    asked = json.loads(Path("run/wandb.json").read_text())
    for log in (first, second):
        assert asked["id"].encode() in log and b"gpt" in log and b"train/loss" in log
    assert b"validation/loss" in first and b"sample" in first


def test_nobody_is_told_otherwise(make_run) -> None:
    run = make_run()
    train(run, stop_at=2)
    assert not (run.path / "wandb").exists()


def test_who_is_not_logged_in_is_told_before_a_run_is_made(
    neural,  # noqa: F811
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pytest.importorskip("wandb").teardown()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    code, _, err = neural("train", TINY, "--data", corpus, "--out", "run", "--wandb", "gpt")
    assert code == 2 and "error[N730]: Weights & Biases: No API key configured\n" in err and "wandb login" in err
    assert not Path("run").exists()


def test_a_run_that_is_not_taken_is_left_whole(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    run = make_run()
    ask_for_wandb(run.path, "gpt")

    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(NeuralError, match="N730"), MetricsLog(run.path, None):
        pass
