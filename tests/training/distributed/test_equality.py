"""Two processes and four give the losses of one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageReader

from neural.diagnostics.diagnostic import NeuralError
from neural.interop.tensor_files import read_pieces
from neural.training.checkpoint import Checkpoint
from neural.training.distributed.strategy import Layout
from neural.training.loop import train
from neural.training.run import Run
from neural.training.weights import weights
from tests.training.distributed.workers import losses, train_together
from tests.training.test_loop import assert_same_bits, measured

HERE = Path(__file__).parent
STRATEGIES = ("ddp", "fsdp", "tp")


def assert_same_losses(one: Path, other: Path) -> None:
    for kind in ("train", "validation"):
        mine, theirs = losses(one, kind), losses(other, kind)
        assert mine.keys() == theirs.keys()
        assert max(abs(mine[step] - theirs[step]) for step in mine) < 1e-5


@pytest.mark.parametrize("shape", ["gpt", "llama"])
def test_two_processes_give_the_losses_of_one(make_run, shape: str) -> None:
    file = HERE / f"{shape}.neural"
    alone = make_run("alone", file=file)
    train(alone, sample=lambda model, _: "")
    assert len(losses(alone.path)) == 50 and losses(alone.path)[50] < 2.8 < losses(alone.path)[1]
    for strategy in STRATEGIES:
        run = make_run(strategy, file=file)
        assert train_together(run.path, 2, strategy) == {"state": "finished", "step": 50}
        assert_same_losses(alone.path, run.path)
        theirs = dict(run.load_model().named_parameters())
        for name, weight in alone.load_model().named_parameters():
            torch.testing.assert_close(theirs[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("shape", "strategy"), [("gpt", "ddp"), ("llama", "fsdp")])
def test_a_mesh_of_four_gives_the_losses_of_one_which_goes_on_with_it(make_run, shape: str, strategy: str) -> None:
    file = HERE / f"{shape}.neural"
    alone, mesh = make_run("alone", file=file, steps=16), make_run("mesh", file=file, steps=16)
    train(alone)
    assert train_together(mesh.path, 4, strategy, tensor=2, stop_at=9) == {"state": "stopped", "step": 9}
    assert_torch_reads(mesh, 9)
    train(Run.open(mesh.path))
    assert_same_losses(alone.path, mesh.path)


def assert_torch_reads(run: Run, step: int) -> None:
    """torch.distributed.checkpoint reads what the processes wrote, each its own; and so does `weights:`."""
    checkpoint = Checkpoint.open(run.checkpoints.path(step))
    assert len(checkpoint.files) == 2 * 4 + 1
    model = run.load_model()
    found = {name: torch.empty_like(tensor) for name, tensor in weights(model).items()}
    dcp.load(found, storage_reader=HuggingFaceStorageReader(str(checkpoint.path)), no_dist=True)
    joined = read_pieces(sorted(checkpoint.path.glob("model-*.safetensors")))
    for name, tensor in weights(model).items():
        assert torch.equal(found[name], tensor), name
        assert np.array_equal(joined[name], tensor.numpy()), name


@pytest.mark.parametrize("shape", ["gpt", "llama"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_saved_by_two_and_resumed_by_one_and_by_four(make_run, shape: str, strategy: str) -> None:
    file = HERE / f"{shape}.neural"
    alone, two = make_run("alone", file=file), make_run("two", file=file)
    train(alone)
    assert train_together(two.path, 2, strategy, stop_at=19) == {"state": "stopped", "step": 19}
    four = two.path.with_name("four")
    shutil.copytree(two.path, four)
    train(Run.open(two.path))
    assert train_together(four, 4, strategy) == {"state": "finished", "step": 50}
    assert_same_losses(alone.path, two.path)
    assert_same_losses(alone.path, four)


@pytest.mark.parametrize("strategy", ["ddp", "tp"])
def test_stopping_changes_no_bit_of_two_processes_with_dropout(make_run, strategy: str) -> None:
    """Each draws its own dropout: of other sequences (ddp), or of other tokens and heads (tp)."""
    file = HERE / "gpt.neural"
    whole, parts = (make_run(name, file=file, steps=8, dropout=0.2) for name in ("whole", "parts"))
    train_together(whole.path, 2, strategy)
    train_together(parts.path, 2, strategy, stop_at=5)
    train_together(parts.path, 2, strategy)
    assert_same_bits(whole, parts, 8)
    assert measured(whole) == measured(parts)
    state = Checkpoint.open(whole.checkpoints.path(8)).state
    assert len(state.others) == 1 and not torch.equal(state.others[0].cpu, state.randomness.cpu)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_blocks_that_are_computed_again(make_run, strategy: str, dropout: float) -> None:
    """The same bits as of as many processes that keep activations."""
    runs = [
        make_run(
            f"{again}",
            file=HERE / "gpt.neural",
            steps=6,
            dropout=dropout,
            execution={"activation_checkpointing": again},
        )
        for again in (False, True)
    ]
    for run in runs:
        assert train_together(run.path, 2, strategy) == {"state": "finished", "step": 6}
    assert_same_bits(*runs, 6)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize(("size", "strategy", "tensor"), [(2, "fsdp", None), (2, "tp", None), (4, "fsdp", 2)])
def test_half_precision(make_run, precision: str, size: int, strategy: str, tensor: int | None) -> None:
    """The losses of one process, but for sums in another order and products of other shapes."""
    alone, run = (
        make_run(name, file=HERE / "gpt.neural", steps=6, execution={"precision": precision}) for name in ("one", "all")
    )
    train(alone)
    assert train_together(run.path, size, strategy, tensor=tensor) == {"state": "finished", "step": 6}
    for kind in ("train", "validation"):
        assert losses(run.path, kind) == pytest.approx(losses(alone.path, kind), rel=2e-4)


@pytest.mark.parametrize("precision", ["float32", "float16"])  # in which it is tried again at a smaller scale
def test_a_step_that_is_not_finite_stops_all_of_them(make_run, precision: str) -> None:
    run = make_run(file=HERE / "gpt.neural", learning_rate=1e30, execution={"precision": precision})
    assert train_together(run.path, 2, "fsdp")["code"] == "N810"
    assert Run.open(run.path).record.state == "failed" and (run.path / "nonfinite" / "batch.json").exists()


@pytest.mark.parametrize(
    ("size", "strategy", "sets", "code"),
    [(2, "ddp", {"batch_size": 3, "accumulation": 1}, "N836"), (3, "tp", {"batch_size": 3}, "N839")],
)
def test_what_does_not_divide_is_refused(make_run, size: int, strategy: str, sets: dict, code: str) -> None:
    run = make_run(file=HERE / "gpt.neural", **sets)
    assert train_together(run.path, size, strategy)["code"] == code


@pytest.mark.parametrize(
    ("size", "strategy", "tensor", "said"),
    [
        (8, None, 3, "8 processes cannot be divided into groups of 3"),
        (1, "ddp", 2, "1 process cannot be divided into groups of 2"),
        (4, None, -1, "groups of -1"),
        (2, "fsdp", 0, "groups of 0"),
        (4, "tp", 2, "among all processes, which are 4, not 2"),
    ],
)
def test_groups_that_do_not_divide_are_refused(size: int, strategy: str | None, tensor: int, said: str) -> None:
    with pytest.raises(NeuralError, match="N844") as refused:
        Layout.chosen(None, torch.device("cpu"), size, strategy, tensor)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("size", "strategy", "tensor", "axes", "name"),
    [
        (4, None, None, {"data": 4, "shard": 1}, "ddp"),
        (4, None, 4, {"tensor": 4}, "tp"),
        (4, "tp", None, {"tensor": 4}, "tp"),
        (8, None, 2, {"data": 4, "shard": 1, "tensor": 2}, "ddp × tp"),
        (8, "fsdp", 4, {"shard": 2, "tensor": 4}, "fsdp × tp"),
        (8, "fsdp", 1, {"shard": 8}, "fsdp"),
    ],
)
def test_the_mesh(size: int, strategy: str | None, tensor: int | None, axes: dict[str, int], name: str) -> None:
    layout = Layout.chosen(None, torch.device("cpu"), size, strategy, tensor)
    assert (layout.axes(size), str(layout)) == (axes, name)
