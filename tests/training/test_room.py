"""A training that does not fit is refused before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neural.compiler import Program, load
from neural.diagnostics.diagnostic import NeuralError
from neural.planning.plan import plan
from neural.training import room
from neural.training.distributed.launch import LAUNCHED
from tests.training.conftest import TINY
from tests.training.test_commands import neural  # noqa: F401

CPU = torch.device("cpu")


def free(monkeypatch: pytest.MonkeyPatch, count: int | None) -> None:
    monkeypatch.setattr(room, "available_memory", lambda: count)


@pytest.fixture
def gpt2() -> Program:
    """In one precision on every processor."""
    return load("examples/gpt2.neural").executed(precision="float32")


@pytest.mark.parametrize(("processes", "fits"), [(1, True), (2, False)])
def test_the_processes_of_a_cpu_share_its_memory(
    gpt2: Program, monkeypatch: pytest.MonkeyPatch, processes: int, fits: bool
) -> None:
    free(monkeypatch, int(1.4 * plan(gpt2, device="cpu").training.total))
    if fits:
        assert room.made_to_fit(gpt2, CPU, processes) is gpt2
        return
    with pytest.raises(NeuralError) as caught:
        room.made_to_fit(gpt2, CPU, processes, fixed=True)
    (told,) = caught.value.diagnostics
    assert told.code == "N733" and "2 × " in told.title
    assert told.notes[0].startswith("a batch of 12 × 1,024: activations ")
    assert any("activation_checkpointing" in note for note in told.notes) and told.hint == "change one of these"


def test_blocks_are_computed_again_where_only_that_fits(gpt2: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, int(0.65 * plan(gpt2, device="cpu").training.total))
    said = []
    made = room.made_to_fit(gpt2, CPU, 1, say=said.append)
    assert made.settings.execution["activation_checkpointing"] and "checkpointed(" in made.source()
    assert "activation_checkpointing: true" in made.text() and "activations are not kept" in said[0]
    assert room.made_to_fit(made, CPU, 1) is made


def test_where_nothing_helps_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 10_000_000)
    with pytest.raises(NeuralError) as caught:
        room.made_to_fit(load("examples/gpt2.neural"), CPU, 1)
    assert "--force" in caught.value.diagnostics[0].hint


@pytest.mark.parametrize("unknown", ["memory", "layout", "worker"])
def test_what_is_not_known_is_no_mistake(monkeypatch: pytest.MonkeyPatch, unknown: str) -> None:
    free(monkeypatch, None if unknown == "memory" else 1000)
    if unknown == "worker":
        monkeypatch.setenv(LAUNCHED, "1")
    room.made_to_fit(load("examples/gpt2.neural"), CPU, 4, tensor=3 if unknown == "layout" else None)


@pytest.mark.parametrize("command", ["train", "run"])
def test_a_command_refuses(neural, corpus: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:  # noqa: F811
    free(monkeypatch, 50_000)
    code, _, err = neural(command, TINY, "--data", corpus, "--out", "made")
    assert code == 2 and "error[N733]: training Tiny needs " in err and "Traceback" not in err
    assert not Path("made").exists()


def test_force_goes_on(neural, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    free(monkeypatch, 50_000)
    assert neural("train", TINY, "--data", corpus, "--out", "made", "--stop-at", 1, "--force")[0] == 0
    assert neural("train", "--resume", "made", "--stop-at", 2)[0] == 2
