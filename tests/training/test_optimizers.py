from __future__ import annotations

import pytest
import torch
from torch import nn

from neural.compiler import compile_source
from neural.diagnostics.source import Source
from neural.training.optimizers import make_optimizer

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


def test_only_matrices_decay() -> None:
    choice = compile_source(Source("n.neural", PROGRAM.format("AdamW(weight_decay=0.5)"))).settings.optimizer
    network = model()
    groups = make_optimizer(choice, network).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    found = {name: decays[id(p)] for name, p in network.named_parameters()}
    assert found == {"0.weight": 0.5, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "2.weight": 0.5}
    assert all(group["fused"] for group in groups)
