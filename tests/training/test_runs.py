from __future__ import annotations

import json
from pathlib import Path

import pytest

from neural.diagnostics.diagnostic import NeuralError
from neural.training.lock import RunLock
from neural.training.loop import train
from neural.training.metrics import read_metrics
from neural.training.run import Run
from neural.training.runs import find_runs, overview
from tests.training.test_commands import neural  # noqa: F401


def test_each_state_is_told(make_run) -> None:
    created, stopped, finished, crashed = (make_run(f"group/{n}", steps=12) for n in ("a", "b", "c", "d"))
    train(stopped, stop_at=5)
    train(finished)
    train(crashed, stop_at=7)
    Run.open(crashed.path).set_state("training")
    found = find_runs(created.path.parents[1])
    assert [run.path.name for run in found] == ["a", "b", "c", "d"]
    assert [run.state for run in found] == ["created", "stopped", "finished", "crashed"]
    assert [run.step for run in found] == [0, 5, 12, 7]
    assert [run.resumes_from for run in found] == ["start", "step-000005", None, "step-000007"]
    assert {run.total_steps for run in found} == {12} and {run.network for run in found} == {"Tiny"}


def test_the_numbers_are_those_of_the_run(make_run) -> None:
    run = make_run(steps=12)
    train(run)
    records = read_metrics(run.path / "metrics.jsonl")
    found = overview(run.path)
    assert found.loss == [r["loss"] for r in records if r["kind"] == "train"][-1]
    assert found.validation_loss == min(r["loss"] for r in records if r["kind"] == "validation")
    assert found.size == sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())


def test_a_run_in_use_is_running_and_asking_does_not_disturb_it(make_run) -> None:
    run = make_run()
    with RunLock(run.path):
        assert (overview(run.path).state, overview(run.path).resumes_from) == ("running", None)
        with pytest.raises(NeuralError, match="N852"), RunLock(run.path):
            pass
    assert overview(run.path).state == "created"
    with RunLock(run.path):
        pass


def test_a_damaged_run_is_listed_beside_the_others(make_run) -> None:
    good, bad, worse = make_run("good"), make_run("bad"), make_run("worse")
    (bad.path / "run.json").write_text("{")
    (worse.path / "metrics.jsonl").write_text("no record\n")
    found = {run.path.name: run for run in find_runs(good.path.parent)}
    assert {name: run.state for name, run in found.items()} == {
        "good": "created",
        "bad": "unreadable",
        "worse": "unreadable",
    }
    assert "run.json does not read" in found["bad"].problem and "line 1 of" in found["worse"].problem


def test_the_command(neural, make_run, tmp_path: Path) -> None:  # noqa: F811
    assert neural("runs")[0] == 2 and "N832" in neural("runs", "missing")[2]
    (tmp_path / "runs").mkdir()
    assert neural("runs") == (0, "", "no runs in runs\n")
    train(make_run("runs/first", steps=12), stop_at=5)
    code, out, _ = neural("runs")
    heading, row = out.splitlines()
    assert code == 0 and heading.split()[:3] == ["run", "network", "state"]
    assert row.startswith("runs/first  Tiny     stopped  5 / 12") and row.endswith("step-000005")
    said = json.loads(neural("runs", "runs/first", "--json")[1])["runs"]
    assert [(run["path"], run["step"]) for run in said] == [("runs/first", 5)]
