"""Plans for devices: what they are, whether a training fits, what to change, and what it costs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial

import pytest
import torch
from typer.testing import CliRunner

from neural.compiler import load
from neural.diagnostics.diagnostic import NeuralError
from neural.graph.passes import optimize
from neural.graph.split import split_network
from neural.planning.cost import assumptions, cost
from neural.planning.fit import ways_to_fit
from neural.planning.hardware import CATALOGUE, GIB, available_memory, named, named_like
from neural.planning.layout import Layout
from neural.planning.plan import plan
from tests.planning.programs import CONTEXT, GPT2, LLAMA, batch_of, example, module_of, saved_bytes
from tests.planning.test_commands import APP, run

XL = {"n_layer": 48, "d_model": 1600, "n_head": 25}


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [("8xh100", 8, "h100"), ("rtx4090", 1, "rtx4090"), (" 2 x L4 ", 2, "l4"), ("16×MI300X", 16, "mi300x")],
)
def test_devices_are_named(text: str, count: int, name: str) -> None:
    assert named(text) == (count, CATALOGUE[name])


@pytest.mark.parametrize("text", ["h10", "0xh100", "8x", "", "x", "8*8", "h100x8"])
def test_what_is_no_device_is_told(text: str) -> None:
    with pytest.raises(NeuralError, match="N731"):
        named(text)


def test_this_cpu_has_the_memory_that_is_free() -> None:
    count, device = named("4xcpu")
    assert (count, device.kind) == (4, "cpu")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < available_memory() <= total and device.memory <= total


@pytest.mark.parametrize(
    ("driver", "name"), [("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA GeForce RTX 4090", "rtx4090"), ("NVIDIA L4", "l4")]
)
def test_a_gpu_is_known_by_what_its_driver_calls_it(driver: str, name: str) -> None:
    assert named_like(driver, 7 * GIB) == replace(CATALOGUE[name], name=driver, memory=7 * GIB)
    assert named_like("NVIDIA Unheard 9", 7 * GIB).peak == {}


def test_the_catalogue_has_no_slips() -> None:
    for device in CATALOGUE.values():
        assert 16 * GIB <= device.memory <= 192 * GIB and 70 <= device.watts <= 1000 and 0 < device.price < 10
        assert device.peak["float32"] < device.peak["float16"] == device.peak.get("bfloat16", device.peak["float16"])


@pytest.mark.parametrize(
    ("devices", "strategy", "tensor", "share", "text"),
    [
        (8, "ddp", None, 1, "ddp"),
        (8, "fsdp", None, 8, "fsdp"),
        (4, "tp", None, 1, "tp"),
        (8, "fsdp", 2, 4, "fsdp × tp, 4 × 2"),
        (1, "fsdp", None, 1, "alone"),
    ],
)
def test_layouts(devices: int, strategy: str, tensor: int | None, share: int, text: str) -> None:
    layout = Layout.of(devices, strategy, tensor)
    assert (str(layout), layout.slice_of(1024)) == (text, 1024 // share)


@pytest.mark.parametrize(
    ("batch", "accumulation", "devices", "expected"), [(12, 40, 8, (12, 5)), (8, 1, 4, (2, 1)), (6, 2, 4, (3, 1))]
)
def test_a_step_has_the_same_sequences_on_any_number_of_devices(
    batch: int, accumulation: int, devices: int, expected: tuple[int, int]
) -> None:
    assert Layout.of(devices, "ddp").batch(batch, accumulation) == expected


@pytest.mark.parametrize(("devices", "tensor"), [(3, 2), (4, 8), (4, -1), (4, 0), (7, None)])
def test_what_does_not_divide_is_told(devices: int, tensor: int | None) -> None:
    with pytest.raises(NeuralError, match="N732"):
        Layout.of(devices, "ddp", tensor).batch(8, 1)


@pytest.mark.parametrize("accumulation", [1, 40])
def test_slices_hold_their_part_of_weights_and_moments_and_of_gradients_that_are_exchanged(accumulation: int) -> None:
    program = example("gpt2", **GPT2)
    whole, sliced = (plan(program, 12, accumulation=accumulation, layout=Layout.of(n, "fsdp")).training for n in (1, 4))
    for name in ("weights", "optimizer"):
        assert getattr(sliced, name) == pytest.approx(getattr(whole, name) / 4, rel=0.01)
    assert sliced.gradients == pytest.approx(whole.gradients / (4 if accumulation == 1 else 1), rel=0.01)
    if accumulation > 1:
        assert sliced.activations == whole.activations


@pytest.mark.parametrize(("name", "sets"), [("gpt2", GPT2 | {"dropout": 0.0}), ("llama", LLAMA)])
def test_a_share_of_the_products_is_what_its_source_allocates(name: str, sets: dict) -> None:
    program = example(name, **sets)
    share = split_network(optimize(program.graph), 2).network
    module = module_of(replace(program, graph=share))
    planned = plan(program, 4, accumulation=1, device="cpu", layout=Layout.of(2, "tp")).training
    assert planned.weights == sum(p.nbytes for p in module.parameters())
    x = batch_of(program, 4)
    assert x.shape == (4, CONTEXT)
    assert planned.activations == pytest.approx(saved_bytes(module, lambda: module(x)), rel=0.04)


def make_xl():
    return partial(plan, load("examples/gpt2.neural", XL))


def test_what_does_not_fit_is_told_with_what_does() -> None:
    make, usable = make_xl(), 80 * GIB
    made = make()
    assert made.training.total > usable
    ways = ways_to_fit(made, usable, make)
    assert ways[0].change == "execution { activation_checkpointing: true }"
    assert any(w.change.startswith("train { batch_size:") for w in ways)
    assert any("--parallel fsdp" in w.change for w in ways)
    for way in ways:
        assert way.plan.training.total <= usable
        assert way.plan.tokens_per_step == made.tokens_per_step


def test_the_batch_that_is_offered_is_the_largest_that_fits() -> None:
    make, usable = make_xl(), 60 * GIB
    (way,) = (w for w in ways_to_fit(make(), usable, make) if w.change.startswith("train"))
    larger = [n for n in range(way.plan.batch_size + 1, 12) if 480 % n == 0]
    assert larger and all(make(batch_size=n, accumulation=480 // n).training.total > usable for n in larger)


def test_a_batch_of_any_size_is_reckoned_with_at_once() -> None:
    make, usable = partial(make_xl(), batch_size=3 * 10**20), 80 * GIB
    (way,) = (w for w in ways_to_fit(make(), usable, make) if w.change.startswith("train"))
    assert way.plan.training.total <= usable and way.plan.tokens_per_step == make().tokens_per_step


def test_where_nothing_helps_nothing_is_offered() -> None:
    make = make_xl()
    assert ways_to_fit(make(), GIB, make) == ()


def test_a_cost_is_arithmetic() -> None:
    made = plan(load("examples/gpt2.neural"))
    assumed = assumptions(CATALOGUE["h100"], 8, "bfloat16", 0.5, None, 2.0)
    found = cost(made, 10**10, assumed)
    speed = 8 * 0.5 * 989.4e12 / made.flops_per_token_training
    assert found.tokens_per_second == pytest.approx(speed)
    assert found.step_seconds == pytest.approx(491_520 / speed)
    assert found.seconds == pytest.approx(10**10 / speed)
    assert found.kwh == pytest.approx(8 * found.seconds / 3600 * 0.7)
    assert found.money == pytest.approx(8 * found.seconds / 3600 * 2.0)
    assert assumptions(named("cpu")[1], 1, "float32", 0.5, None, None) is None


def test_the_command_says_what_it_assumes() -> None:
    options = ("--devices", "8xh100", "--precision", "bfloat16", "--tokens", "10e9")
    text = run("plan", "examples/gpt2.neural", *options)
    for said in (
        "8 × NVIDIA H100, ddp, a batch of 12 each",
        "it fits: ",
        "10,000,000,000 tokens, assumed that 40% of 989 TFLOPs/s in bfloat16 are useful",
        "at 700 W a device",
        "at $2.50 an hour a device",
    ):
        assert said in text
    made = json.loads(run("plan", "examples/gpt2.neural", *options, "--json", "--price", "3"))
    assert made["hardware"]["fits"] is True and made["cost"]["assumed"]["price"] == 3
    assert made["cost"]["tokens"] == 10**10


def test_the_command_says_what_to_change() -> None:
    sets = [word for name, value in XL.items() for word in ("--set", f"{name}={value}")]
    text = run("plan", "examples/gpt2.neural", *sets, "--devices", "h100", "--precision", "float32")
    assert "it does not fit; it does with\n    execution { activation_checkpointing: true }" in text
    made = json.loads(
        run("plan", "examples/gpt2.neural", *sets, "--devices", "h100", "--precision", "float32", "--json")
    )
    assert made["hardware"]["fits"] is False
    assert all(way["total"] <= made["hardware"]["usable"] for way in made["hardware"]["ways_to_fit"])


def test_a_cpu_has_a_time_when_its_speed_is_given() -> None:
    text = run("plan", "examples/shakespeare_char.neural", "--devices", "cpu", "--peak", "90e9", "--share", "0.5")
    assert "assumed that 50% of 90.0 GFLOPs/s in float32 are useful" in text and "kWh" not in text


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--devices", "h10"], "N731"),
        (["--devices", ""], "N731"),
        (["--devices", "3xh100", "--tensor-parallel", "2"], "N732"),
        (["--devices", "5xh100", "--parallel", "tp", "--set", "d_model=768"], "N732"),
        (["--devices", "h100", "--share", "40"], "N734"),
        (["--devices", "h100", "--tokens", "-1"], "N734"),
        (["--devices", "h100", "--tokens", "0.5"], "N734"),
        (["--devices", "h100", "--tokens", "1e308"], "N734"),
        (["--devices", "h100", "--price", "nan"], "N734"),
    ],
)
def test_mistakes_are_told(options: list[str], code: str) -> None:
    with pytest.raises(NeuralError) as caught:
        run("plan", "examples/gpt2.neural", *options)
    assert [d.code for d in caught.value.diagnostics] == [code]


def test_half_precision_is_what_autocast_makes_of_it() -> None:
    program = example("gpt2", **GPT2, dropout=0.0)
    module, x = module_of(program), batch_of(program, 8)
    with torch.autocast("cpu", torch.bfloat16):
        kept = saved_bytes(module, lambda: module(x))
    made = plan(program, 8, device="cpu", precision="bfloat16").training
    assert made.activations + made.copies == pytest.approx(kept, rel=0.04)


@pytest.mark.parametrize(
    ("given", "precision"),
    [
        (["--devices", "h100"], "bfloat16"),
        (["--devices", "t4"], "float16"),
        (["--devices", "cpu"], "float32"),
        ([], "float32"),
        (["--devices", "t4", "--precision", "bfloat16"], "bfloat16"),
    ],
)
def test_the_precision_is_what_the_trainer_takes(given: list[str], precision: str) -> None:
    assert json.loads(run("plan", "examples/gpt2.neural", *given, "--json"))["precision"] == precision


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--tokens", "1e9", "--price", "2"],
            "--tokens, --price: time, energy and money are not reckoned without --devices or --peak",
        ),
        (["--tokens", "1e9", "--devices", "cpu"], "are not reckoned without --peak"),
        (["--tokens", "1e9", "--devices", "h100"], ""),
    ],
)
def test_an_option_without_effect_is_told(options: list[str], said: str) -> None:
    told = CliRunner().invoke(APP, ["plan", "examples/gpt2.neural", *options], catch_exceptions=False).stderr
    assert said in told if said else not told
