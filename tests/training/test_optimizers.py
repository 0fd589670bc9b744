from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from neural.compiler import compile_source
from neural.diagnostics.diagnostic import NeuralError
from neural.diagnostics.source import Source
from neural.graph.optimization import require_portable
from neural.planning.plan import plan
from neural.training.loop import train
from neural.training.optimizers import make_optimizer
from neural.training.run import Run
from tests.training.conftest import TINY
from tests.training.test_loop import assert_same_bits

PROGRAM = """
network N {{
  input: (3,)
  layers: Dense(units=4)
  loss: "mean_squared_error"
  optimizer: {}
}}
"""


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(5, 4))


def gradients(parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def matrices_and_vectors(parameters: list[nn.Parameter], decay: float) -> list[dict]:
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


@pytest.mark.parametrize(
    ("written", "reference"),
    [
        (
            "AdamW(learning_rate=0.01, beta_1=0.8, beta_2=0.95, epsilon=1e-6, weight_decay=0.3)",
            lambda p: torch.optim.AdamW(
                matrices_and_vectors(p, 0.3), lr=0.01, betas=(0.8, 0.95), eps=1e-6, fused=False
            ),
        ),
        ("AdamW()", lambda p: torch.optim.AdamW(matrices_and_vectors(p, 0.004), lr=1e-3, eps=1e-7, fused=False)),
        ("Adam(learning_rate=0.01)", lambda p: torch.optim.Adam(p, lr=0.01, eps=1e-7, fused=False)),
        ("SGD(learning_rate=0.1)", lambda p: torch.optim.SGD(p, lr=0.1, fused=False)),
        (
            "SGD(learning_rate=0.1, momentum=0.9, nesterov=true, weight_decay=0.2)",
            lambda p: torch.optim.SGD(matrices_and_vectors(p, 0.2), lr=0.1, momentum=0.9, nesterov=True, fused=False),
        ),
        ("SGD(learning_rate=0.1, nesterov=true)", lambda p: torch.optim.SGD(p, lr=0.1, fused=False)),
        (
            "Adafactor(learning_rate=0.05, beta_2_decay=-0.7, epsilon_1=1e-20, clip_threshold=1.1, weight_decay=0.1)",
            lambda p: torch.optim.Adafactor(
                matrices_and_vectors(p, 0.1), lr=0.05, beta2_decay=-0.7, eps=(1e-20, 1e-3), d=1.1
            ),
        ),
    ],
)
def test_five_steps_are_torchs(written: str, reference) -> None:
    choice = compile_source(Source("n.neural", PROGRAM.format(written))).settings.optimizer
    ours, theirs = model(), model()
    optimizers = make_optimizer(choice, ours), reference(list(theirs.parameters()))
    for step in range(5):
        for network, optimizer in zip((ours, theirs), optimizers, strict=True):
            gradients(list(network.parameters()), seed=step)
            optimizer.step()
    for mine, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-5, atol=1e-7)


def choice_of(written: str):
    return compile_source(Source("n.neural", PROGRAM.format(written))).settings.optimizer


def test_lion_is_the_papers() -> None:
    """Chen et al. 2023, algorithm 2, in NumPy."""
    network = model()
    optimizer = make_optimizer(
        choice_of("Lion(learning_rate=0.01, beta_1=0.8, beta_2=0.95, weight_decay=0.3)"), network
    )
    weights = [p.detach().double().numpy().copy() for p in network.parameters()]
    averages = [np.zeros_like(w) for w in weights]
    for step in range(5):
        gradients(list(network.parameters()), seed=step)
        for i, parameter in enumerate(network.parameters()):
            gradient, decay = parameter.grad.double().numpy(), 0.3 if parameter.ndim >= 2 else 0.0
            weights[i] -= 0.01 * (np.sign(0.8 * averages[i] + 0.2 * gradient) + decay * weights[i])
            averages[i] = 0.95 * averages[i] + 0.05 * gradient
        optimizer.step()
    for parameter, expected in zip(network.parameters(), weights, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=1e-6)


def language_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 4), nn.Linear(4, 5))


def test_muon_takes_the_matrices_between_layers_and_adamw_the_rest() -> None:
    ours, theirs = language_model(), language_model()
    written = "Muon(learning_rate=0.01, weight_decay=0.1, momentum=0.9, nesterov=false, ns_steps=4, beta_2=0.95)"
    optimizer = make_optimizer(choice_of(written), ours)
    hidden = [theirs[1].weight, theirs[3].weight]
    rest = [p for p in theirs.parameters() if all(p is not h for h in hidden)]
    references = (
        torch.optim.Muon(
            hidden, lr=0.01, weight_decay=0.1, momentum=0.9, nesterov=False, ns_steps=4, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(matrices_and_vectors(rest, 0.1), lr=0.01, betas=(0.9, 0.95), eps=1e-7, fused=True),
    )
    for step in range(5):
        for network in (ours, theirs):
            gradients(list(network.parameters()), seed=step)
        for each in (optimizer, *references):
            each.step()
    for mine, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, their, rtol=0, atol=0)


@pytest.mark.parametrize(
    "written", ["AdamW()", "Lion()", "Adafactor()", "Muon()", "SGD(momentum=0.9)", "Muon(momentum=0.5)"]
)
def test_a_stop_changes_no_bit(make_run, tmp_path: Path, written: str) -> None:
    file = tmp_path / "chosen.neural"
    text = TINY.read_text().replace("AdamW(learning_rate=$learning_rate, weight_decay=0.1)", written)
    file.write_text(text.replace("CosineDecay(warmup_steps=5, min_learning_rate=1e-4)", "WarmupStableDecay()"))
    assert written in file.read_text()
    whole, parts = make_run("whole", file=file, steps=12), make_run("parts", file=file, steps=12)
    train(whole)
    for stop in (5, None):
        train(Run.open(parts.path), stop_at=stop)
    assert_same_bits(whole, parts, 12)
    before = load_file(whole.checkpoints.path(12) / "optimizer.safetensors")
    planned = plan(whole.program).training.optimizer
    kept = sum(t.numel() * t.element_size() for name, t in before.items() if not name.endswith("/step"))
    assert planned == kept > 0


@pytest.mark.parametrize("written", ["Muon()", "Adafactor()"])
def test_what_looks_at_whole_matrices_refuses_parts_of_them(written: str) -> None:
    network = language_model()
    with dist_of_one() as mesh:
        network[1].weight = nn.Parameter(distribute_tensor(network[1].weight.detach(), mesh, [Shard(0)]))
        with pytest.raises(NeuralError, match="N840"):
            make_optimizer(choice_of(written), network)
        make_optimizer(choice_of("Lion()"), network)


@contextmanager
def dist_of_one() -> Iterator[DeviceMesh]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_only_matrices_decay() -> None:
    choice = compile_source(Source("n.neural", PROGRAM.format("AdamW(weight_decay=0.5)"))).settings.optimizer
    network = model()
    groups = make_optimizer(choice, network).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    found = {name: decays[id(p)] for name, p in network.named_parameters()}
    assert found == {"0.weight": 0.5, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "2.weight": 0.5}
    assert all(group["fused"] for group in groups)


@pytest.mark.parametrize(
    ("optimizer", "schedule", "said"),
    [
        ("Muon()", "Constant()", "the optimizer Muon"),
        ("Lion()", "Constant()", "the optimizer Lion"),
        ("Adafactor()", "Constant()", "the optimizer Adafactor"),
        ("AdamW()", "LinearDecay()", "the schedule LinearDecay"),
        ("SGD()", "StepDecay(decay_steps=3)", "the schedule StepDecay"),
    ],
)
def test_other_back_ends_refuse_what_they_have_not(optimizer: str, schedule: str, said: str) -> None:
    text = PROGRAM.format(f"{optimizer}\n  lr_schedule: {schedule}")
    with pytest.raises(NeuralError, match=f"N843: keras source cannot be written with {said}"):
        compile_source(Source("n.neural", text)).source("keras")


@pytest.mark.parametrize("schedule", ["", "lr_schedule: Constant()", "lr_schedule: CosineDecay()"])
@pytest.mark.parametrize("optimizer", ["AdamW()", "Adam()", "SGD()"])
def test_what_all_back_ends_have_is_not_refused(optimizer: str, schedule: str) -> None:
    program = compile_source(Source("n.neural", PROGRAM.format(f"{optimizer}\n  {schedule}")))
    require_portable(program.settings, "jax")
