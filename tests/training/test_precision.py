"""Half precision: where it is taken, and that float16 loses no gradient to overflow."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from neural.compiler import load
from neural.training.checkpoint import Checkpoint
from neural.training.distributed.parallel import Parallel
from neural.training.loop import train
from neural.training.metrics import read_metrics
from neural.training.precision import LossScale, chosen_precision
from neural.training.run import Run
from neural.training.step import NonFiniteStep, optimizer_step
from tests.training.test_loop import assert_same_bits, measured
from tests.training.test_step import Steep, sequences

GPT2, TINY = "examples/gpt2.neural", "tests/training/tiny.neural"
SLOW = "is emulated on this"


@pytest.mark.parametrize(
    ("file", "asked", "device", "taken", "warned"),
    [
        (GPT2, "auto", (9, 0), "bfloat16", False),
        (GPT2, "auto", (8, 0), "bfloat16", False),
        (GPT2, "auto", (7, 5), "float16", False),
        (GPT2, "auto", (6, 1), "float32", False),
        (TINY, "auto", (8, 0), "bfloat16", False),
        (GPT2, "bfloat16", (7, 5), "bfloat16", True),
        (GPT2, "float16", (8, 0), "float16", False),
        (GPT2, "auto", "avx512_bf16", "bfloat16", False),
        (GPT2, "auto", "amx_tile", "bfloat16", False),
        (GPT2, "auto", "avx2", "float32", False),
        (TINY, "auto", "avx512_bf16", "float32", False),  # casting costs it more
        (TINY, "bfloat16", "avx512_bf16", "bfloat16", False),
        (GPT2, "bfloat16", "avx2", "bfloat16", True),
        (GPT2, "float16", "avx512_bf16", "float16", True),
        (GPT2, "float32", "avx512_bf16", "float32", False),
    ],
)
def test_what_the_hardware_has_is_taken(
    monkeypatch: pytest.MonkeyPatch, file: str, asked: str, device: tuple[int, int] | str, taken: str, warned: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: device)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: device == "avx512_bf16")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: device == "amx_tile")
    where = torch.device("cpu" if isinstance(device, str) else "cuda")
    precision, warning = chosen_precision(load(file).executed(precision=asked), where)
    assert precision == taken and (warning is not None) is warned and SLOW in (warning or SLOW)


@pytest.fixture
def model(make_run) -> nn.Module:
    torch.manual_seed(2)
    return make_run(dropout=0.3).new_model().train()


def stepped(model: nn.Module, precision: str, scale: LossScale | None) -> tuple[float, float, list[torch.Tensor]]:
    """Loss, norm and gradients of a step that changes nothing, always with the same random numbers."""
    torch.manual_seed(5)
    parallel = Parallel(model)
    parallel.loss.precision = precision
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    batches = [sequences(3, seed) for seed in range(2)]
    result = optimizer_step(parallel, optimizer, batches, rate=0.0, clip=None, scale=scale)
    return result.loss, result.gradient_norm, [p.grad.clone() for p in model.parameters()]


def test_an_overflow_is_made_again_with_the_same_random_numbers(model: nn.Module) -> None:
    fitting, large = LossScale(2.0**12), LossScale(2.0**40)
    one, other = stepped(model, "float16", fitting), stepped(model, "float16", large)
    assert large.value < 2.0**24 and fitting.value == 2.0**12 and (fitting.steps, large.steps) == (1, 1)
    assert one[0] == other[0]
    torch.testing.assert_close(other[2], one[2], rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_gradient_is_near_that_of_float32(model: nn.Module, precision: str) -> None:
    for module in model.modules():
        module.p = module.attention_dropout = 0.0
    loss, norm, _ = stepped(model, precision, LossScale.of(precision))
    expected, whole, _ = stepped(model, "float32", None)
    assert loss == pytest.approx(expected, rel=1e-2) and norm == pytest.approx(whole, rel=3e-2)
    assert loss != expected  # it was computed in half precision


def test_a_gradient_without_an_end_is_not_halved_for_ever() -> None:
    model, scale = Steep(), LossScale(8.0)
    parallel, optimizer = Parallel(model), torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(NonFiniteStep):
        optimizer_step(parallel, optimizer, [sequences(2)], rate=1.0, clip=1.0, scale=scale)
    assert scale.value == 1.0


def test_the_scale_grows_again() -> None:
    scale = LossScale(4.0, LossScale.GROWS_AFTER - 1)
    assert not scale.overflowed(torch.tensor(1.0)) and scale == LossScale(8.0, 0)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_run_goes_on_with_the_same_bits(make_run, precision: str) -> None:
    whole, parts = (make_run(name, execution={"precision": precision}, steps=12) for name in ("whole", "parts"))
    train(whole)
    train(parts, stop_at=7)
    train(Run.open(parts.path))
    assert_same_bits(whole, parts, 12)
    assert measured(whole) == measured(parts)
    checkpoint = Checkpoint.open(whole.checkpoints.path(12))
    assert checkpoint.state.scale == (LossScale(65536.0, 12) if precision == "float16" else None)
    assert json.loads((whole.path / "run.json").read_text())["execution"]["precision"] == precision
    losses = [r["loss"] for r in read_metrics(whole.path / "metrics.jsonl") if r["kind"] == "validation"]
    assert losses[-1] < losses[0] and all(map(math.isfinite, losses))
