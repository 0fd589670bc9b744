"""What is left of a run whose trainer is killed, or whose disk is full."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest
import torch

from neural.diagnostics.diagnostic import NeuralError
from neural.training.checkpoint import Checkpoint
from neural.training.durable import TEMPORARY
from neural.training.loop import train
from neural.training.loss import TrainingLoss
from neural.training.metrics import read_metrics
from neural.training.run import Run
from tests.training.processes import outcome_file, start_training
from tests.training.test_loop import assert_same_bits, measured

KILLS = int(os.environ.get("NEURAL_KILLS", "6"))  # for the whole proof: NEURAL_KILLS=200 pytest this file


def test_kill_9_at_random_moments_loses_no_whole_checkpoint(make_run) -> None:
    sizes = {"steps": 100_000, "save_every": 1, "eval_every": 7, "log_every": 1, "keep": 3}
    run, rng = make_run(**sizes), random.Random(4)
    reached = 0
    for kill in range(KILLS):
        process = start_training(run.path)
        while kill % 3 and max(run.checkpoints.steps(), default=0) <= reached:  # two in three: once it is under way
            process.join(timeout=0.01)
            assert process.is_alive(), outcome_file(run.path).read_text()
        process.join(timeout=rng.uniform(0.0, 0.5))
        process.kill()
        process.join()
        checkpoint = Run.open(run.path).checkpoints.latest(pytest.fail)  # warns of none: none is damaged
        step = checkpoint.state.step if checkpoint else 0
        assert step >= reached
        reached = step
    assert reached > KILLS // 2
    train(Run.open(run.path), stop_at=reached + 3)
    straight = make_run("straight", **{**sizes, "save_every": 1000})
    train(straight, stop_at=reached + 3)
    assert_same_bits(run, straight, reached + 3)
    assert measured(run) == measured(straight)
    assert not list(run.path.rglob(f"{TEMPORARY}*"))


def test_a_file_limit_during_a_save_is_one_message_and_leaves_whole_checkpoints(make_run) -> None:
    run = make_run(save_every=5)
    train(run, stop_at=10)
    before = {path.relative_to(run.path) for path in run.checkpoints.folder.rglob("*")}
    weights = run.checkpoints.path(10) / "model.safetensors"
    process = start_training(run.path, largest_file=weights.stat().st_size // 2)
    process.join()
    said = json.loads(outcome_file(run.path).read_text())
    assert said["code"] == "N859" and "File too large" in said["title"]
    assert any("step-000010 is whole" in note for note in said["notes"])
    assert before == {path.relative_to(run.path) for path in run.checkpoints.folder.rglob("*")}
    straight = make_run("straight", save_every=5)
    train(Run.open(run.path))
    train(straight)
    assert_same_bits(run, straight, 40)


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 400 kB; skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_that_is_enlarged_a_little_each_time(make_run, small_disk: Path) -> None:
    """Full at each place of a save, and of what is written between saves."""
    run, rng = make_run("disk/run", save_every=1, keep=50), random.Random(4)
    size, full, steps = 400, 0, []
    while Run.open(run.path).record.state != "finished":
        before = steps
        try:
            train(Run.open(run.path))
        except NeuralError as stopped:
            diagnostic = stopped.diagnostics[0]
            assert diagnostic.code == "N859" and "No space left" in diagnostic.title
            full += 1
            size += 4 * rng.randint(1, 16)
            subprocess.run(["mount", "-o", f"remount,size={size}k", small_disk], check=True)
        steps = run.checkpoints.steps()
        assert steps[: len(before)] == before
        assert {path.name for path in run.checkpoints.folder.iterdir()} == {f"step-{step:06}" for step in steps}
        for step in steps:
            assert Checkpoint.open(run.checkpoints.path(step)).state.step == step
    assert full > 10 and steps == list(range(1, 41))
    straight = make_run("straight")
    train(straight)
    assert_same_bits(run, straight, 40)
    assert measured(run) == measured(straight)


def test_a_full_disk_while_a_run_is_made_leaves_nothing(make_run, small_disk: Path, tmp_path: Path) -> None:
    data = tmp_path / "long.txt"
    data.write_text("ab" * 200_000)
    with pytest.raises(NeuralError, match="N728"):
        make_run("disk/run", data=data)
    assert list(small_disk.iterdir()) == []


def test_memory_that_runs_out_is_one_message_and_leaves_whole_checkpoints(make_run, monkeypatch) -> None:
    run = make_run(save_every=2)

    def forward(self: TrainingLoss, *given) -> torch.Tensor:
        return loss(self, *given) if len(run.checkpoints.steps()) < 2 else torch.empty(2**60)

    loss = TrainingLoss.forward
    monkeypatch.setattr(TrainingLoss, "forward", forward)
    with pytest.raises(NeuralError) as stopped:
        train(run)
    diagnostic = stopped.value.diagnostics[0]
    assert diagnostic.code == "N812" and "4 EiB more were asked for" in diagnostic.title
    assert f"step-{run.checkpoints.steps()[-1]:06} is whole" in diagnostic.notes[0]
    assert diagnostic.hint == f"free some, then go on: neural train --resume {run.path}"
    monkeypatch.undo()
    straight = make_run("straight")
    for one in (run, straight):
        train(Run.open(one.path))
    assert_same_bits(run, straight, 40)


def test_a_loss_that_is_not_finite_stops_before_the_step(make_run) -> None:
    run = make_run(learning_rate=1e30, clip=1e38, eval_every=1000)
    with pytest.raises(NeuralError) as stopped:
        train(run)
    diagnostic = stopped.value.diagnostics[0]
    assert diagnostic.code == "N810" and "the step was not applied" in diagnostic.title
    assert "lower the learning rate" in diagnostic.hint and "batches" in diagnostic.notes[0]
    assert Run.open(run.path).record.state == "failed"
    said = json.loads((run.path / "nonfinite" / "batch.json").read_text())
    assert f"step {said['step']};" in diagnostic.title
    assert all(r["loss"] < 1e30 for r in read_metrics(run.path / "metrics.jsonl"))

    # The same again, from what was kept: the weights before the step, the dice, and the sequences.
    from neural.training.checkpoint import Checkpoint
    from neural.training.distributed.parallel import Parallel
    from neural.training.step import accumulate_gradients

    checkpoint = Checkpoint.open(run.path / "nonfinite" / said["checkpoint"])
    assert checkpoint.state.step == said["step"] - 1
    model, store = run.new_model(), run.data.store
    checkpoint.load_model(model)
    checkpoint.state.randomness.restore(torch.device("cpu"))
    batches = []
    for batch in said["batches"]:
        ids = torch.stack([torch.from_numpy(store[at : at + 9].astype("int64")) for at in batch["token_offsets"]])
        batches.append((ids[:, :-1], ids[:, 1:]))
    again = accumulate_gradients(Parallel(model.train()), batches).tolist()
    assert [str(loss) for loss in again] == [str(float(batch["loss"])) for batch in said["batches"]]


def test_a_validation_loss_that_is_not_finite_is_never_saved(make_run) -> None:
    run = make_run(learning_rate=1e30, clip=1e38, eval_every=1, save_every=1)
    with pytest.raises(NeuralError, match=r"N81[01]"):
        train(run)
    assert Run.open(run.path).record.state == "failed"
    for step in run.checkpoints.steps():
        assert all(w.isfinite().all() for w in run.load_model(f"step-{step:06}").parameters())
