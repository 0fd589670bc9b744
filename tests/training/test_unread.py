"""Steps that are launched before the ones before them were read: a GPU's way, here on a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from neural.diagnostics.diagnostic import NeuralError
from neural.training import step as step_module
from neural.training import unread
from neural.training.checkpoint import Checkpoint
from neural.training.distributed.parallel import Parallel
from neural.training.distributed.strategy import Layout
from neural.training.distributed.world import joined
from neural.training.loop import train
from neural.training.metrics import read_metrics
from neural.training.replay import replay_step
from neural.training.run import Run
from neural.training.session import start
from tests.training.conftest import TINY
from tests.training.distributed.workers import enter, together, train_together
from tests.training.test_loop import assert_same_bits, measured

CPU = torch.device("cpu")
OPTIMIZERS = ("AdamW", "Adam", "SGD", "SGD(momentum=0.9)")


@pytest.fixture
def make(make_run, tmp_path: Path):
    def made(name: str, optimizer: str = "AdamW", **sets) -> Run:
        file = tmp_path / f"{name}.neural"
        choice = optimizer if "(" in optimizer else f"{optimizer}()"
        choice = choice.replace("()", "(learning_rate=0.01)").replace("(momentum", "(learning_rate=0.01, momentum")
        line = next(line for line in TINY.read_text().splitlines() if "optimizer:" in line)
        file.write_text(TINY.read_text().replace(line, f"  optimizer: {choice}"))
        return make_run(name, file=file, **sets)

    return made


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and steps are read later from then on, but for the first of a training."""
    monkeypatch.setattr(unread, "PATIENCE", 1e9)
    return lambda: monkeypatch.setattr(unread, "APART", {"cpu"})


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_same_bits_and_the_same_metrics(make, later, optimizer: str) -> None:
    sizes = {"steps": 23, "log_every": 5, "eval_every": 8, "save_every": 7}
    one, other = make("one", optimizer, **sizes), make("other", optimizer, **sizes)
    train(one)
    later()
    train(other, stop_at=12)
    train(Run.open(other.path))
    assert_same_bits(one, other, 23)
    assert measured(one) == measured(other)
    states = [Checkpoint.open(run.checkpoints.path(23)).state for run in (one, other)]
    assert states[0].spikes == states[1].spikes and len(states[0].spikes.losses) == 23


def poison(monkeypatch: pytest.MonkeyPatch, number: int, kind: str) -> None:
    """Make the loss or the gradient of the `number`th step not finite, whenever it is made from the same batches."""
    real, bad = step_module.accumulate_gradients, []
    steps = 0

    def made(parallel: Parallel, batches: Sequence, factor: float = 1.0) -> torch.Tensor:
        nonlocal steps
        losses, steps = real(parallel, batches, factor), steps + 1
        if steps == number:
            bad.append(batches[0][0])
        if bad and torch.equal(batches[0][0], bad[0]):
            if kind == "loss":
                return losses * float("nan")
            next(parallel.model.parameters()).grad[0] = float("inf")
        return losses

    monkeypatch.setattr(step_module, "accumulate_gradients", made)


def kept(run: Run) -> tuple[dict, dict[str, bytes]]:
    """What is said of the step that stopped it, and the state before it."""
    folder = run.path / "nonfinite"
    said = json.loads((folder / "batch.json").read_text())
    checkpoint = folder / said["checkpoint"]
    files = {file.name: file.read_bytes() for file in checkpoint.iterdir() if file.suffix == ".safetensors"}
    state = json.loads((checkpoint / "state.json").read_text())
    return said | {"state": {name: value for name, value in state.items() if name != "program"}}, files


@pytest.mark.parametrize(
    ("optimizer", "kind", "number"),
    [
        *(("AdamW", "loss", number) for number in (1, 2, 9, 10)),
        ("AdamW", "gradient", 9),
        ("Adam", "loss", 9),
        ("SGD", "loss", 9),
        ("SGD(momentum=0.9)", "gradient", 1),
        ("SGD(momentum=0.9)", "loss", 9),
    ],
)
def test_what_is_not_finite_is_found_with_the_state_before_it(
    make, later, monkeypatch: pytest.MonkeyPatch, optimizer: str, kind: str, number: int
) -> None:
    """Between lines of metrics, which come every fifth step; at one; and at the first step of all."""
    found = []
    for name in ("one", "other"):
        run = make(name, optimizer, steps=20, log_every=5, eval_every=1000, save_every=1000)
        with monkeypatch.context() as patched:
            poison(patched, number, kind)
            with pytest.raises(NeuralError, match=f"N810: the (loss|gradient's norm) is (nan|inf) at step {number};"):
                train(run)
        found.append((kept(run), [(r["step"], r["loss"]) for r in read_metrics(run.path / "metrics.jsonl")]))
        later()
    assert found[0] == found[1]
    assert found[1][0][0]["step"] == number


def test_a_step_that_was_read_later_is_replayed(make_run, later) -> None:
    later()
    run = make_run(steps=40, log_every=10, learning_rate=1e30, clip=1.0)
    with pytest.raises(NeuralError, match="N810"):
        train(run)
    assert replay_step(Run.open(run.path)).reproduced


def test_a_stop_between_two_lines_of_metrics_reads_them(make, later) -> None:
    later()
    run = make("run", steps=20, log_every=10)
    train(run, stop_at=7)
    state = Checkpoint.open(run.checkpoints.path(7)).state
    assert state.loss_count == 7 and len(state.spikes.losses) == 7


def train_later(rank: int, size: int, port: int, path: Path, strategy: str) -> None:
    """As one of several processes, which read at the same steps."""
    unread.APART, outcome, run = {"cpu"}, path / f"outcome.{rank}", Run.open(path)
    enter(rank, size, port)
    with joined(CPU) as world:
        layout = Layout.chosen(run.program, CPU, size, strategy)
        try:
            outcome.write_text(train(run, device="cpu", world=world, layout=layout).state)
        except NeuralError as error:
            outcome.write_text(error.diagnostics[0].code)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "tp"])
def test_several_processes_give_the_same_bits_and_stop_together(make_run, strategy: str) -> None:
    sizes = {"steps": 12, "batch_size": 4, "log_every": 5, "sample_every": 0}
    one, other = (make_run(name, **sizes) for name in ("one", "other"))
    train_together(one.path, 2, strategy)
    together(train_later, 2, other.path, strategy)
    assert_same_bits(one, other, 12)
    assert measured(one) == measured(other)
    bad = [make_run(name, **sizes, learning_rate=1e30) for name in ("bad", "worse")]
    assert train_together(bad[0].path, 2, strategy)["code"] == "N810"
    together(train_later, 2, bad[1].path, strategy)
    assert [(bad[1].path / f"outcome.{rank}").read_text() for rank in (0, 1)] == ["N810"] * 2
    assert kept(bad[0]) == kept(bad[1])


@pytest.mark.parametrize("limit", [("MOST", 3), ("PATIENCE", 0.0)])
def test_they_are_read_before_they_are_many_or_old(make, later, monkeypatch, limit: tuple[str, float]) -> None:
    later()
    monkeypatch.setattr(unread, *limit)
    session, waited = start(make("run", steps=20), CPU), []
    for _ in range(9):
        session.advance()
        if session.must_read():
            waited.append(len(session.read()))
    assert waited == ([4, 3] if limit[0] == "MOST" else [1] * 9)


@pytest.mark.parametrize(
    ("optimizer", "execution", "skips"),
    [("Lion", {}, False), ("Muon", {}, False), ("Adafactor", {}, False), ("AdamW", {"precision": "float16"}, False), ("AdamW", {}, True)],
)  # fmt: skip
def test_what_cannot_wait_is_read_at_each_step(make, later, optimizer: str, execution: dict, skips: bool) -> None:
    later()
    run = make("run", optimizer, execution=execution)
    if skips:
        file = run.path / "program.neural"
        file.write_text(file.read_text().replace("seed: 7", "seed: 7 skip_spikes: true"))
    session = start(Run.open(run.path), CPU)
    session.advance()
    session.advance()
    assert session.must_read() and list(session.read()) == [1, 2]
