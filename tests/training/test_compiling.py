"""torch.compile in the trainer: the same training, cached, and told where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from neural.cpp.building import compiler
from neural.training import compiling
from neural.training.distributed.parallel import Parallel
from neural.training.loop import train
from neural.training.metrics import read_metrics
from neural.training.report import PlainReport
from neural.training.run import Run
from tests.training.test_loop import assert_same_bits
from tests.training.test_step import sequences

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ATTENTION = "own attention" if compiler() else "torch's attention"


def test_a_compiled_training_is_the_same_and_goes_on(
    make_run, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    if compiling.lacking(CPU):
        pytest.skip(compiling.lacking(CPU))
    cache = tmp_path_factory.mktemp("inductor")
    monkeypatch.setenv(compiling.CACHE, str(cache))
    sets = {"steps": 8, "dropout": 0.0, "eval_every": 4}
    plain, whole, parts = (
        make_run(n, execution={"compile": n != "plain"}, **sets) for n in ("plain", "whole", "parts")
    )
    train(plain)
    train(whole, report=PlainReport())
    train(parts, stop_at=5)
    train(Run.open(parts.path))
    assert_same_bits(whole, parts, 8)
    said = capsys.readouterr().err
    assert "compiling the model" in said and f"kept for the next time in {cache}" in said and " · compiled · " in said
    assert any(cache.iterdir())
    losses = [[r["loss"] for r in read_metrics(run.path / "metrics.jsonl")] for run in (plain, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert [Run.open(run.path).record.execution["compiled"] for run in (plain, whole)] == [False, True]


@pytest.mark.parametrize(
    ("asked", "device", "in_parts", "lacking", "compiled", "said"),
    [
        (None, CUDA, False, None, True, None),
        (None, CUDA, False, "no Triton", False, "not compiled: no Triton"),
        (None, CUDA, True, None, False, None),
        (None, CPU, False, None, False, None),
        (False, CUDA, False, None, False, None),
        (True, CPU, False, None, True, None),
        (True, CPU, False, "no compiler", False, "not compiled: no compiler"),
        (True, CPU, True, None, False, "not compiled: the processes hold parts of the weights"),
    ],
)
def test_where_it_wins(make_run, monkeypatch, asked, device, in_parts, lacking, compiled, said) -> None:
    run = make_run()
    monkeypatch.setenv(compiling.CACHE, "unused")
    monkeypatch.setattr(compiling, "lacking", lambda _: lacking)
    parallel = Parallel(run.new_model())
    parallel.in_parts = in_parts
    program = run.program if asked is None else run.program.executed(compile=asked)
    assert compiling.compile_where_it_wins(program, parallel, device) == said
    assert (parallel.loss.compiled is not None) is compiled


def test_a_compiler_that_fails_is_told_and_the_training_goes_on(make_run) -> None:
    parallel = Parallel(make_run().new_model())
    parallel.loss.compiled = lambda _: 1 / 0
    before, said = torch.get_rng_state(), []
    compiling.warm_up(parallel, sequences(2), said.append)
    assert parallel.loss.compiled is None and said[-1] == "note: not compiled: ZeroDivisionError: division by zero"
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in parallel.model.parameters())


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiling._cache_folder() == tmp_path / "neural" / "inductor"


def test_the_command_says_how_it_trains(make_run, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(steps=1)
    train(run, report=PlainReport())
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("cpu, "))
    assert line == f"cpu, 1 thread · float32 · not compiled · {ATTENTION} · activations kept"
    record = json.loads((run.path / "run.json").read_text())["execution"]
    assert (record["device"], record["shares"], record["precision"]) == ("cpu", 1, "float32")


def test_a_run_that_goes_on_in_another_way_says_so(make_run, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(steps=3)
    train(run, stop_at=1, report=PlainReport())
    train(Run.open(run.path), stop_at=2, report=PlainReport())
    assert "note: until step" not in capsys.readouterr().err
    record = json.loads((run.path / "run.json").read_text())
    record["execution"] |= {"device": "NVIDIA H100", "precision": "bfloat16", "compiled": True}
    (run.path / "run.json").write_text(json.dumps(record))
    train(Run.open(run.path), report=PlainReport())
    before = f"NVIDIA H100 · bfloat16 · compiled · {ATTENTION} · activations kept"
    assert f"note: until step 2 it was: {before}" in capsys.readouterr().err
