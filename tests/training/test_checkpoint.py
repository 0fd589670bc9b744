from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from neural.diagnostics.diagnostic import Diagnostic, NeuralError, Severity
from neural.training.checkpoint import MARK, MODEL, OPTIMIZER, STATE, Checkpoint, TrainingState, tensor_file
from neural.training.checkpoint_manager import CheckpointManager
from neural.training.checkpoint_writing import save
from neural.training.distributed.parallel import Parallel
from neural.training.optimizers import make_optimizer
from neural.training.randomness import RandomState
from neural.training.run import Run
from neural.training.step import optimizer_step

CPU = torch.device("cpu")


def state(step: int, loss: float | None = None) -> TrainingState:
    return TrainingState(step, 2 * step, RandomState.capture(CPU), "ab" * 32, validation_loss=loss, best_loss=loss)


@pytest.fixture
def run(make_run) -> Run:
    return make_run()


@pytest.fixture
def trained(run: Run) -> tuple[Parallel, torch.optim.Optimizer]:
    torch.manual_seed(3)
    model = run.new_model()
    optimizer = make_optimizer(run.program.settings.optimizer, model)
    ids = torch.randint(20, (4, 9))
    parallel = Parallel(model)
    optimizer_step(parallel, optimizer, [(ids[:, :-1], ids[:, 1:])], rate=0.1, clip=1.0)
    return parallel, optimizer


def save_all(run: Run, trained: tuple, steps: range | tuple[int, ...], keep: int = 9) -> None:
    for step in steps:
        run.checkpoints.save(*trained, state(step), keep)


def code(error: pytest.ExceptionInfo[NeuralError]) -> str:
    return error.value.diagnostics[0].code


def test_what_is_saved_comes_back_bit_for_bit(run: Run, trained: tuple, tmp_path: Path) -> None:
    parallel, optimizer = trained
    before = state(17, loss=2.5)
    expected = torch.rand(3)  # what the generator gives after the state that was saved
    checkpoint = Checkpoint.open(save(tmp_path / "checkpoints", parallel, optimizer, before))
    again = run.new_model()
    fresh = make_optimizer(run.program.settings.optimizer, again)
    checkpoint.load_model(again)
    checkpoint.load_optimizer(Parallel(again), fresh)
    for (name, mine), (_, theirs) in zip(parallel.model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name
        assert optimizer.state[mine].keys() == fresh.state[theirs].keys()
        for moment, value in optimizer.state[mine].items():
            assert torch.equal(value, fresh.state[theirs][moment]), (name, moment)
    assert [checkpoint.state.step, checkpoint.state.cursor, checkpoint.state.validation_loss] == [17, 34, 2.5]
    checkpoint.state.randomness.restore(CPU)
    assert torch.equal(torch.rand(3), expected)


def test_it_is_safetensors_and_json_and_ties_are_stored_once(run: Run, trained: tuple, tmp_path: Path) -> None:
    path = save(tmp_path, *trained, state(1))
    assert {file.name for file in path.iterdir()} == {tensor_file(MODEL), tensor_file(OPTIMIZER), STATE, MARK}
    with safe_open(path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert "tokens.weight" in names and "dense.weight" not in names
    assert json.loads((path / "state.json").read_text())["weights"].keys() == names
    json.loads((path / MARK).read_text())


@pytest.mark.parametrize(
    ("kind", "arguments"), [("SGD", {"learning_rate": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0})]
)
def test_an_optimizer_without_moments_is_saved_too(run: Run, tmp_path: Path, kind: str, arguments: dict) -> None:
    from neural.graph.settings import Choice

    model = run.new_model()
    optimizer = make_optimizer(Choice(kind, arguments), model)
    checkpoint = Checkpoint.open(save(tmp_path, Parallel(model), optimizer, state(1)))
    checkpoint.load_optimizer(Parallel(model), optimizer)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "weights cut short": ("model.safetensors", cut, "bytes of"),
    "a bit of the weights": ("model.safetensors", flip, "SHA-256"),
    "a bit of the moments": ("optimizer.safetensors", flip, "SHA-256"),
    "state cut short": ("state.json", cut, "bytes of"),
    "weights missing": ("model.safetensors", Path.unlink, "model.safetensors is missing"),
    "state missing": ("state.json", Path.unlink, "state.json is missing"),
    "mark empty": (MARK, lambda path: path.write_bytes(b""), "JSON"),
    "mark without a file": (MARK, lambda path: path.write_text('{"files": {}}'), "JSON"),
}


@pytest.mark.parametrize(("file", "harm", "said"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_one_is_passed_over_with_a_warning_and_refused_by_name(
    run: Run, trained: tuple, file: str, harm: Callable[[Path], None], said: str
) -> None:
    save_all(run, trained, (1, 2, 3))
    harm(run.checkpoints.path(3) / file)
    warnings: list[Diagnostic] = []
    found = run.checkpoints.open("latest", warnings.append)
    assert found.state.step == 2
    (warning,) = warnings
    assert (warning.code, warning.severity) == ("N856", Severity.WARNING)
    assert said in warning.title and "step-000003" in warning.title and "step-000002" in warning.hint
    with pytest.raises(NeuralError) as refused:
        run.checkpoints.open("step-000003", warnings.append)
    assert code(refused) == "N856" and said in str(refused.value)


def test_without_its_mark_it_is_no_checkpoint(run: Run, trained: tuple) -> None:
    save_all(run, trained, (1, 2))
    (run.checkpoints.path(2) / MARK).unlink()
    assert run.checkpoints.open("latest", pytest.fail).state.step == 1
    with pytest.raises(NeuralError) as refused:
        run.checkpoints.open("step-000002", pytest.fail)
    assert code(refused) == "N857"


def test_nothing_is_trained_anew_when_all_are_damaged(run: Run, trained: tuple) -> None:
    save_all(run, trained, (1, 2))
    for step in (1, 2):
        cut(run.checkpoints.path(step) / "model.safetensors")
    with pytest.raises(NeuralError) as refused:
        run.checkpoints.latest(pytest.fail)
    assert [d.code for d in refused.value.diagnostics] == ["N856", "N856"]


@pytest.mark.parametrize(
    ("losses", "keep", "kept"),
    [
        ({1: None, 2: None, 3: None, 4: None}, 2, [3, 4]),
        ({1: None, 2: 1.5, 3: None, 4: 1.7, 5: 1.9}, 2, [2, 4, 5]),
        ({1: 3.0, 2: 2.0, 3: 1.0}, 2, [2, 3]),
        ({1: 1.0, 2: 1.0, 3: 1.0}, 1, [1, 3]),
        ({1: None}, 3, [1]),
    ],
)
def test_the_newest_and_the_best_are_kept(
    run: Run, trained: tuple, losses: dict[int, float | None], keep: int, kept: list[int]
) -> None:
    for step, loss in losses.items():
        run.checkpoints.save(*trained, state(step, loss), keep)
    assert run.checkpoints.steps() == kept
    assert {path.name for path in run.checkpoints.folder.iterdir()} == {f"step-{step:06}" for step in kept}


def test_best_is_the_lowest_validation_loss(run: Run, trained: tuple) -> None:
    for step, loss in {1: 3.0, 2: 1.5, 3: 2.0}.items():
        run.checkpoints.save(*trained, state(step, loss), keep=9)
    assert run.checkpoints.open("best", pytest.fail).state.step == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("latest", "no checkpoint yet"),
        ("best", "no checkpoint with a validation loss"),
        ("step-000009", "no checkpoint 'step-000009'"),
    ],
)
def test_a_run_without_that_checkpoint_says_so(run: Run, name: str, said: str) -> None:
    with pytest.raises(NeuralError) as refused:
        run.load_model(name)
    assert code(refused) == "N857" and said in str(refused.value)


def test_a_near_name_is_suggested(run: Run, trained: tuple) -> None:
    save_all(run, trained, (100,))
    with pytest.raises(NeuralError) as refused:
        run.load_model("step-000101")
    assert "step-000100" in refused.value.diagnostics[0].hint


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ({"d_model": 32}, "`tokens.weight` has the shape (29, 16) there and (29, 32) in the model"),
        ({"context": 12}, "`positional_embedding.weight` has the shape (8, 16) there and (12, 16) in the model"),
    ],
)
def test_another_models_names_the_first_weight_that_does_not_fit(
    make_run, trained: tuple, tmp_path: Path, sets: dict, said: str
) -> None:
    checkpoint = Checkpoint.open(save(tmp_path / "elsewhere", *trained, state(1)))
    with pytest.raises(NeuralError) as refused:
        checkpoint.load_model(make_run("other", **sets).new_model())
    assert code(refused) == "N858" and said in str(refused.value)


@pytest.mark.parametrize(("extra", "lacking"), [("ours", True), ("theirs", False)])
def test_a_weight_too_many_or_too_few_is_named(
    run: Run, trained: tuple, tmp_path: Path, extra: str, lacking: bool
) -> None:
    parallel, optimizer = trained
    other = run.new_model()
    (other if lacking else parallel.model).register_parameter(extra, nn.Parameter(torch.zeros(3)))
    checkpoint = Checkpoint.open(save(tmp_path / "elsewhere", parallel, optimizer, state(1)))
    with pytest.raises(NeuralError) as refused:
        checkpoint.load_model(other)
    assert code(refused) == "N858" and f"`{extra}`" in str(refused.value) and "(3,)" in str(refused.value)


def test_what_a_crash_left_is_cleaned_and_damaged_ones_are_set_aside(run: Run, trained: tuple) -> None:
    manager: CheckpointManager = run.checkpoints
    save_all(run, trained, (1, 2, 3))
    for left in (".tmp-step-000004", ".tmp-removed-step-000001"):
        (manager.folder / left).mkdir()
        (manager.folder / left / "model.safetensors").write_bytes(b"half")
    (manager.path(2) / MARK).unlink()  # killed between the rename and the mark
    cut(manager.path(3) / "model.safetensors")
    manager.clean(resumed=1)
    assert {path.name for path in manager.folder.iterdir()} == {"step-000001", "damaged-step-000003"}
