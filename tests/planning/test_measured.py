"""Plans against trainings: memory at its peak, and operations, as torch counts them in steps of our own trainer."""

from __future__ import annotations

import re
from itertools import product
from math import prod
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from neural.planning.layout import Layout
from neural.planning.plan import plan
from neural.training import cpu_library
from neural.training.run import Run
from neural.training.session import start
from tests.planning.measured import peak_of_training, peak_together
from tests.training.conftest import corpus, make_run, one_thread  # noqa: F401

SIZES = {
    "small": {"n_layer": 4, "d_model": 128, "n_head": 4, "context": 128, "vocab_size": 2048},
    "large": {"n_layer": 6, "d_model": 192, "n_head": 6, "context": 128, "vocab_size": 6000},
    "short": {"n_layer": 4, "d_model": 128, "n_head": 4, "context": 64, "vocab_size": 2048},
    "words": {"n_layer": 2, "d_model": 32, "n_head": 2, "context": 64, "vocab_size": 12000},
    "narrow": {"n_layer": 6, "d_model": 192, "n_head": 6, "context": 128, "vocab_size": 64},
}
LLAMA = {
    "small": {"n_kv_head": 2, "d_ff": 344},
    "short": {"n_kv_head": 2, "d_ff": 344},
    "narrow": {"n_kv_head": 3, "d_ff": 512},
    "large": {"n_kv_head": 3, "d_ff": 512},
}
CONFIGURATIONS = [
    *(("gpt2", size, again, precision, 1) for size, again, precision in product(("small", "large"), (False, True), ("float32", "bfloat16"))),
    ("gpt2", "narrow", True, "float32", 1),
    *(("gpt2", "words", False, "float32", passes) for passes in (1, 2)),
    ("llama", "narrow", False, "bfloat16", 2),
    ("llama", "small", False, "float32", 2),
    ("llama", "large", True, "bfloat16", 1),
]  # fmt: skip


@pytest.fixture
def make(make_run, tmp_path: Path):  # noqa: F811
    """A run of an example, small, and as this file's tables say."""

    def made(name: str, size: str, again: bool, accumulation: int, precision: str = "float32") -> Run:
        train = f"train {{ steps: 600 batch_size: 4 gradient_accumulation: {accumulation} gradient_clip: 1.0 }}"
        asked = f'precision: "{precision}" activation_checkpointing: {str(again).lower()}'
        execution = f'execution {{ device: "cpu" {asked} }} tokenizer: "char"'
        text = Path(f"examples/{name}.neural").read_text().replace('tokenizer: "gpt2"', "")
        (tmp_path / "example.neural").write_text(re.sub(r"train \{.*\}", f"{train}\n{execution}", text))
        more = {"dropout": 0.0} if name == "gpt2" else LLAMA[size]
        return make_run(file=tmp_path / "example.neural", **SIZES[size], **more)

    return made


@pytest.mark.parametrize(("name", "size", "again", "precision", "accumulation"), CONFIGURATIONS)
def test_the_peak_of_memory_is_the_planned_one(
    make, name: str, size: str, again: bool, precision: str, accumulation: int
) -> None:
    """To a tenth, where the issue asks for it; it is nearer a hundredth."""
    run = make(name, size, again, accumulation, precision)
    assert plan(run.program).training.allocated == pytest.approx(peak_of_training(run), rel=0.05)


@pytest.mark.parametrize(
    ("name", "size", "precision", "accumulation", "layout"),
    [
        ("gpt2", "small", "float32", 1, Layout.of(2, "fsdp")),
        ("gpt2", "small", "float32", 4, Layout.of(2, "fsdp")),  # gradients are whole between two exchanges
        ("llama", "large", "bfloat16", 1, Layout.of(2, "tp")),
        ("llama", "narrow", "float32", 4, Layout.of(4, "fsdp", 2)),
    ],
)
def test_the_peak_of_each_of_several_processes_is_the_planned_one(
    make, name: str, size: str, precision: str, accumulation: int, layout: Layout
) -> None:
    run = make(name, size, False, accumulation, precision)
    measured = peak_together(run, layout.devices, "fsdp" if layout.sliced else "tp", layout.tensor)
    assert plan(run.program, layout=layout).training.allocated == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_step_is_the_planned_number_of_operations(
    make, name: str, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a hundredth. The counter knows attention that is made of products, not fused kernels of a CPU; the trainer's
    own leaves out what a causal mask hides, which the convention counts.
    """
    monkeypatch.setattr(cpu_library, "library", lambda: None)
    run = make(name, "short", again, 2)
    session, made = start(run, torch.device("cpu")), plan(run.program)
    onednn = {torch.ops.mkldnn._linear_pointwise: lambda x, weight, *_, **__: 2 * prod(x) * weight[0]}  # of shapes
    counting = FlopCounterMode(display=False, custom_mapping=onednn)
    with sdpa_kernel(SDPBackend.MATH), counting as counter:
        session.advance()
    planned = made.flops_per_token_training * made.tokens_per_step
    assert planned == pytest.approx(counter.get_total_flops(), rel=0.01)
