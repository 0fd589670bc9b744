from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from neural.diagnostics.diagnostic import Diagnostic, NeuralError
from neural.training.checkpoint import Checkpoint
from neural.training.lock import RunLock
from neural.training.loop import train
from neural.training.metrics import read_metrics
from neural.training.report import PlainReport
from neural.training.run import Run
from neural.training.signals import StopRequest
from tests.training.conftest import words


def weights_of(run: Run, step: int) -> dict[str, torch.Tensor]:
    checkpoint = Checkpoint.open(run.checkpoints.path(step))
    model = run.new_model()
    checkpoint.load_model(model)
    return dict(model.named_parameters())


def assert_same_bits(one: Run, other: Run, step: int) -> None:
    mine, theirs = weights_of(one, step), weights_of(other, step)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def measured(run: Run) -> list[dict]:
    """The records without what the clock gave."""
    records = read_metrics(run.path / "metrics.jsonl")
    machines = ("tokens_per_second", "peak_share", "memory")
    return [{name: value for name, value in r.items() if name not in machines} for r in records]


def drawn(model, _tokenizer) -> str:
    """A sample that draws from torch's generator, as many do."""
    return str(torch.rand(1).item())


@pytest.mark.parametrize("stops", [(20,), (7, 8, 33), (1, 39)], ids=str)
def test_stopping_and_going_on_changes_no_bit(make_run, stops: tuple[int, ...]) -> None:
    whole, parts = make_run("whole"), make_run("parts")
    train(whole, sample=drawn)
    for stop in stops:
        outcome = train(Run.open(parts.path), stop_at=stop, sample=drawn)
        assert (outcome.state, outcome.step, outcome.stopped_by) == ("stopped", stop, "stop_at")
    train(Run.open(parts.path), sample=drawn)
    assert_same_bits(whole, parts, 40)
    assert measured(whole) == measured(parts)
    assert [Run.open(run.path).record.state for run in (whole, parts)] == ["finished", "finished"]


def test_dropout_and_the_seed_matter(make_run) -> None:
    runs = [make_run("a"), make_run("b", dropout=0.0)]
    for run in runs:
        train(run)
    mine, theirs = (weights_of(run, 40) for run in runs)
    assert not torch.equal(mine["tokens.weight"], theirs["tokens.weight"])


def test_samples_and_their_dice_leave_the_training_alone(make_run) -> None:
    with_samples, without = make_run("with"), make_run("without")
    train(with_samples, sample=drawn)
    train(without)
    assert_same_bits(with_samples, without, 40)


def test_it_learns_and_measures(make_run, pictures: None, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(steps=60)
    outcome = train(run, sample=lambda model, tokenizer: f"{model.training} {tokenizer.vocab_size}")
    records = read_metrics(run.path / "metrics.jsonl")
    validations = [r for r in records if r["kind"] == "validation"]
    assert [r["step"] for r in validations] == [0, 10, 20, 30, 40, 50, 60]
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(5, 61, 5))
    assert [(r["step"], r["text"]) for r in records if r["kind"] == "sample"] == [(s, "False 29") for s in (20, 40, 60)]
    assert validations[-1]["loss"] < 2.9 < 3.3 < validations[0]["loss"]
    assert 0 < validations[-1]["accuracy"] < 1 and outcome.validation == validations[-1]
    assert next(r["tokens"] for r in records if r["kind"] == "train") == 5 * 3 * 8 * 2
    for name in ("lr_schedule.png", "loss.png"):
        assert (run.path / name).read_bytes().startswith(b"\x89PNG")
    lines = capsys.readouterr().err
    assert "step 60/60 · loss" in lines and "tokens/s" in lines and "0:00 left" in lines
    assert "bits per byte · accuracy" in lines


def test_the_mean_of_the_losses_is_over_all_steps_between_two_lines(make_run) -> None:
    every, fifth = make_run("every", log_every=1), make_run("fifth", log_every=5)
    for run in (every, fifth):
        train(run)
    losses = [r["loss"] for r in measured(every) if r["kind"] == "train"]
    means = [sum(losses[i : i + 5]) / 5 for i in range(0, 40, 5)]
    assert [r["loss"] for r in measured(fifth) if r["kind"] == "train"] == pytest.approx(means, rel=1e-12)


def test_a_finished_run_stays_as_it_is(make_run) -> None:
    run = make_run(steps=10)
    train(run)
    before = {path: path.stat().st_mtime_ns for path in run.checkpoints.folder.rglob("*")}
    outcome = train(Run.open(run.path))
    assert (outcome.state, outcome.step) == ("finished", 10) and outcome.validation["step"] == 10
    assert before == {path: path.stat().st_mtime_ns for path in run.checkpoints.folder.rglob("*")}


@pytest.mark.parametrize(("split", "evaluated"), [("0.2", True), ("0.0", False)], ids=["held out", "nothing held out"])
def test_without_held_out_text_there_is_no_validation(make_run, tmp_path: Path, split: str, evaluated: bool) -> None:
    source = Path(__file__).with_name("tiny.neural").read_text()
    file = tmp_path / "split.neural"
    file.write_text(source.replace("validation_split: 0.2", f"validation_split: {split}"))
    outcome = train(make_run(file=file, steps=4))
    assert (outcome.validation is not None) == evaluated


@pytest.mark.parametrize(("epochs", "steps"), [("1", 45), ("0.1", 5), ("2", 90), ("1e-9", 1)])
def test_epochs_are_windows_over_the_sequences_of_a_step(make_run, tmp_path: Path, epochs: str, steps: int) -> None:
    source = Path(__file__).with_name("tiny.neural").read_text()
    file, data = tmp_path / "epochs.neural", tmp_path / "text.txt"
    file.write_text(source.replace("steps: $steps", f"epochs: {epochs}").replace("param steps = 40\n", ""))
    text = words(600)[:2720]  # 2176 to train on: 271 windows of 8, of which an epoch takes 270; 6 a step
    data.write_text(text)
    assert make_run(file=file, data=data).record.steps == steps


def test_the_best_checkpoint_is_the_best_evaluation(make_run) -> None:
    run = make_run(save_every=1000, eval_every=5, keep=1)
    train(run)
    validations = [r for r in measured(run) if r["kind"] == "validation" and r["step"]]
    best = min(validations, key=lambda r: r["loss"])
    assert run.checkpoints.open("best", pytest.fail).state.step == best["step"]


def test_the_best_loss_is_remembered_over_a_stop(make_run) -> None:
    run = make_run()
    for stop in (15, 16):
        train(Run.open(run.path), stop_at=stop)
    lowest = min(r["loss"] for r in measured(run) if r["kind"] == "validation")
    assert Checkpoint.open(run.checkpoints.path(16)).state.best_loss == lowest


@pytest.mark.parametrize(("stop_at", "stands"), [(5, 10), (10, 10), (0, 0), (-1, 0)])
def test_stop_at_must_lie_ahead(make_run, stop_at: int, stands: int) -> None:
    run = make_run()
    if stands:
        train(run, stop_at=stands)
    with pytest.raises(NeuralError, match=f"N807: --stop-at {stop_at} lies behind.*at step {stands} of 40"):
        train(Run.open(run.path), stop_at=stop_at)


def test_stop_at_past_the_end_is_the_end(make_run) -> None:
    assert train(make_run(steps=4), stop_at=99).state == "finished"


def test_two_trainers_cannot_have_one_run(make_run) -> None:
    run = make_run()
    with RunLock(run.path), pytest.raises(NeuralError, match=r"N852: .* is in use by another process \(\d+\)"):
        train(run)
    assert train(run, stop_at=1).step == 1


@pytest.mark.parametrize("device", ["tpu", "cuda"])
def test_a_device_that_is_not_there(make_run, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(NeuralError, match="N808"):
        train(make_run(), device=device)


def test_a_damaged_latest_checkpoint_is_trained_anew_to_the_same_bits(make_run) -> None:
    whole, harmed = make_run("whole"), make_run("harmed")
    train(whole)
    train(harmed, stop_at=20)
    weights = harmed.checkpoints.path(20) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    warnings: list[Diagnostic] = []
    train(Run.open(harmed.path, warnings.append))
    assert [warning.code for warning in warnings] == ["N856"]
    assert_same_bits(whole, harmed, 40)
    assert measured(whole) == measured(harmed)


class Interrupting(PlainReport):
    """Asks the process to stop at a step, as Ctrl-C does."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step

    def stepped(self, standing, *, due: bool) -> None:
        if standing.step == self.step:
            signal.raise_signal(self.number)


def test_a_signal_before_the_first_step_is_answered(make_run) -> None:
    stop = StopRequest()
    stop.signal = signal.SIGTERM
    run = make_run()
    outcome = train(run, stop=stop)
    assert (outcome.state, outcome.step, outcome.stopped_by) == ("stopped", 0, "SIGTERM")
    assert run.checkpoints.steps() == [0]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_after_the_step(make_run, name: str) -> None:
    whole, run = make_run("whole"), make_run("signalled")
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    outcome = train(run, report=Interrupting(signal.Signals[name], 13))
    assert (outcome.state, outcome.step, outcome.stopped_by) == ("stopped", 13, name)
    assert run.checkpoints.steps()[-1] == 13
    assert json.loads((run.path / "run.json").read_text())["state"] == "stopped"
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    train(Run.open(run.path))
    train(whole)
    assert_same_bits(whole, run, 40)
