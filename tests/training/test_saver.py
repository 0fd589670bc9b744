"""Checkpoints are written beside the training, one at a time, and what goes wrong with one is told."""

from __future__ import annotations

import errno
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from neural.diagnostics.diagnostic import NeuralError
from neural.training import saver as saver_module
from neural.training.checkpoint_writing import Snapshot
from neural.training.loop import train
from neural.training.loss import TrainingLoss
from neural.training.metrics import MetricsLog
from neural.training.randomness import RandomState
from neural.training.run import Run
from neural.training.session import start
from tests.training.conftest import TINY
from tests.training.test_loop import assert_same_bits

Writing = Callable[[Path, object, object], None]
write: Writing = saver_module.write


def test_training_goes_on_while_a_checkpoint_is_written(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is held up until two more steps are done; it has the weights of its own step all the same."""
    run, straight = make_run(save_every=2, log_every=1, keep=9), make_run("straight", save_every=2, keep=9)
    steps_done, at_start = threading.Event(), []

    def slow(folder: Path, snapshot, writers) -> None:
        if not at_start:
            at_start.append(threading.current_thread().name)
            assert steps_done.wait(30)
        write(folder, snapshot, writers)

    def log(self: MetricsLog, kind: str, step: int, values: dict) -> None:
        if kind == "train" and step == 3:
            assert run.checkpoints.steps() == []
            steps_done.set()
        told(self, kind, step, values)

    told = MetricsLog.write
    monkeypatch.setattr(saver_module, "write", slow)
    monkeypatch.setattr(MetricsLog, "write", log)
    train(run, stop_at=6)
    assert at_start == ["checkpoint"] and run.checkpoints.steps() == [2, 4, 6]
    monkeypatch.undo()
    train(straight, stop_at=6)
    for step in (2, 4, 6):
        assert_same_bits(run, straight, step)


def test_one_is_whole_before_the_next_begins(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most = 0, 0
    lock = threading.Lock()

    def counted(folder: Path, snapshot, writers) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        write(folder, snapshot, writers)
        with lock:
            at_once -= 1

    monkeypatch.setattr(saver_module, "write", counted)
    train(make_run(save_every=1), stop_at=9)
    assert (most, at_once) == (1, 0)


@pytest.mark.parametrize("failing", [1, 2], ids=["under way", "the last"])
def test_a_failure_is_told_and_earlier_ones_stay(make_run, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    run = make_run(save_every=2)
    calls = 0

    def fails(folder: Path, snapshot, writers) -> None:
        nonlocal calls
        calls += 1
        if calls > failing:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        write(folder, snapshot, writers)

    monkeypatch.setattr(saver_module, "write", fails)
    with pytest.raises(NeuralError, match="N859") as told:
        train(run, stop_at=2 * failing + 2)
    assert f"step-{2 * failing:06} is whole" in told.value.diagnostics[0].notes[0]
    assert run.checkpoints.latest(pytest.fail).state.step == 2 * failing


@pytest.mark.parametrize("optimizer", ["AdamW", "Muon", "Lion", "Adafactor", "SGD"])
def test_what_is_not_copied_is_written_before_the_update(make_run, monkeypatch, tmp_path: Path, optimizer: str) -> None:
    """The writer sleeps until the next step's forward pass has begun; the checkpoint has the weights before its update."""
    file = tmp_path / "tiny.neural"
    file.write_text(re.sub(r"optimizer: .*", f"optimizer: {optimizer}(learning_rate=$learning_rate)", TINY.read_text()))
    run, straight = (make_run(name, file=file, save_every=2, keep=9) for name in ("lent", "straight"))
    train(straight, stop_at=5)
    passes, read = threading.Event(), []

    def slow(folder: Path, snapshot, writers) -> None:
        if threading.current_thread().name == "checkpoint":
            assert passes.wait(30)
            time.sleep(0.1)  # the update is at hand
            read.append(snapshot.name)
        write(folder, snapshot, writers)

    def forward(self: TrainingLoss, *given) -> torch.Tensor:
        passes.set()
        return loss(self, *given)

    loss = TrainingLoss.forward
    monkeypatch.setattr(saver_module, "write", slow)
    monkeypatch.setattr(saver_module, "SMALL", 0)
    monkeypatch.setattr(Snapshot, "take", lambda *given, take=Snapshot.take: passes.clear() or take(*given))
    monkeypatch.setattr(TrainingLoss, "forward", forward)
    train(run, stop_at=5)
    assert read == ["step-000002", "step-000004"]
    for step in (2, 4, 5):
        assert_same_bits(run, straight, step)


def test_what_a_forward_pass_changes_is_copied(make_run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The means of batch normalization, of weights that are lent."""
    file = tmp_path / "normed.neural"
    file.write_text(TINY.read_text().replace("LayerNormalization(", "BatchNormalization("))
    session = start(Run.open(make_run(file=file).path), torch.device("cpu"))
    session.advance()
    taken = Snapshot.take(session.parallel, session.optimizer, session.state((RandomState.capture(session.device),)))
    lent = taken.copied(everything=False)
    assert taken.buffers
    for name, piece in (taken.model | taken.moments).items():
        same = piece.tensor.data_ptr() == (lent.model | lent.moments)[name].tensor.data_ptr()
        assert same is (name not in taken.buffers)


def test_the_copy_is_of_its_moment(make_run) -> None:
    """A step after the copy was taken changes nothing of it."""
    session = start(Run.open(make_run().path), torch.device("cpu"))
    session.advance()
    state = session.state((RandomState.capture(session.device),))
    snapshot = Snapshot.take(session.parallel, session.optimizer, state).copied(everything=True)
    before = {name: piece.tensor.clone() for name, piece in (snapshot.model | snapshot.moments).items()}
    session.advance()
    assert all(torch.equal(piece.tensor, before[name]) for name, piece in (snapshot.model | snapshot.moments).items())
