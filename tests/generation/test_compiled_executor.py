"""Decoding under torch.compile: a few shapes, each compiled once; a compiler that fails. Its texts: test_executors."""

from __future__ import annotations

import random

import pytest
import torch
from torch._dynamo.utils import counters

from neural.diagnostics.diagnostic import NeuralError
from neural.generation import compiled_executor, executors
from neural.generation.engine import Engine
from neural.generation.executors import choose_executor
from neural.generation.request import Limits, Request
from neural.training.trained import Trained
from tests.generation.test_engine import GREEDY, ids, random_request, run
from tests.generation.test_executors import made


@pytest.fixture(scope="module")
def trained() -> Trained:
    return made("gpt2")


def test_each_shape_is_compiled_once(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts grow, rows join and leave, guesses widen steps: of a shape that was met nothing is compiled again."""
    monkeypatch.setattr(compiled_executor, "FEWEST_PLACES", 32)
    monkeypatch.setattr(
        compiled_executor, "compiled", lambda _, method: torch.compile(method, dynamic=False, backend="eager")
    )
    said: list[str] = []
    executor = choose_executor(trained, "compiled", say=said.append).open(Limits(slots=4, draft_tokens=2))
    assert [line.partition(" in ")[0] for line in said] == ["compiled for 1 text of up to 32 tokens"]
    engine = Engine(executor)
    run(engine, [Request((1, 2, i), 44, GREEDY) for i in range(4)])
    run(engine, [Request((1, 2), 44, GREEDY)])
    assert {line.partition(" in ")[0] for line in said} == {
        f"compiled for {rows} of up to {places} tokens" for rows in ("1 text", "4 texts") for places in (32, 48)
    }
    before, rng = counters["stats"]["unique_graphs"], random.Random(8)
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert all(ids(events) is not None for events in run(engine, [random_request(rng) for _ in range(30)]))
    assert counters["stats"]["unique_graphs"] == before and len(said) == 4


def test_a_compiler_that_fails_is_told_and_steps_are_as_they_were(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_, **__) -> None:
        raise RuntimeError("no linker\nin sight")

    monkeypatch.setattr(compiled_executor, "compiled", lambda model, method: fail)
    said: list[str] = []
    engine = Engine(choose_executor(trained, "compiled", say=said.append).open(Limits(slots=2)))
    request = Request((3, 1, 4), 20, GREEDY)
    plain = Engine(choose_executor(trained, "torch").open(Limits(slots=2)))
    assert [ids(events) for events in run(engine, [request])] == [ids(events) for events in run(plain, [request])]
    assert said == ["not compiled: RuntimeError: no linker"]


def test_a_gpu_runs_pytorch_and_integers_run_on_the_cpu(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [choose_executor(trained, width=width).name for width in (None, "int8")] == ["torch", "native"]


def test_what_cannot_be_compiled_is_refused(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "choose_device", lambda _: torch.device("cpu"))
    monkeypatch.setattr(executors, "lacking", lambda _: "there is no Triton")
    with pytest.raises(NeuralError, match="N974: the engine compiled cannot compile here: there is no Triton"):
        choose_executor(trained, "compiled")
    with pytest.raises(NeuralError, match="N968: the engine compiled does not quantise to int4"):
        choose_executor(trained, "compiled", "int4")
