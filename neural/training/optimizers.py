"""Optimizers: Keras' names and arguments onto torch.optim, with weight decay on matrices only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from neural.diagnostics.diagnostic import fail
from neural.graph.settings import Choice
from neural.training.lion import Lion
from neural.training.muon import MuonWithAdamW, hidden_matrices

Optimizer = torch.optim.Optimizer | MuonWithAdamW
WHOLE_MATRICES = ("Muon", "Adafactor")

# Devices for which torch has one kernel for the whole update (the rest loop over the parameters).
FUSED_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: tensors of two or more axes (matrices, embeddings) decay; biases and norms' gains do not.

    As GPT-3 and nanoGPT do: decay pulls a gain towards 0 where its neutral value is 1, and a bias has nothing to
    overfit with. Weights that are split over processes have groups of their own: no kernel takes both kinds at once.
    """
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {
            "params": [p for p in trained if p.ndim >= 2 and isinstance(p, DTensor) is split],
            "weight_decay": weight_decay,
        }
        for split in (False, True)
    ]
    groups += [
        {"params": [p for p in trained if p.ndim < 2 and isinstance(p, DTensor) is split], "weight_decay": 0.0}
        for split in (False, True)
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(choice: Choice, model: nn.Module) -> Optimizer:
    """The optimizer that a network's `optimizer:` names, over the model's parameters.

    Adam (Kingma & Ba 2015) is AdamW (Loshchilov & Hutter 2019) without decay. SGD is torch's: its velocity does not
    hold the rate, and its decay is part of the gradient. Muon and Adafactor are torch's too.
    NeuralError N840 where they would see only parts of the matrices.
    """
    arguments = choice.arguments
    if choice.name in WHOLE_MATRICES and any(isinstance(p, DTensor) for p in model.parameters()):
        fail(
            "N840",
            f"{choice.name} looks at whole matrices, and each process would hold parts of them",
            hint="use --parallel ddp, or another optimizer",
        )
    groups = parameter_groups(model.parameters(), arguments.get("weight_decay", 0.0))
    rate, fused = arguments["learning_rate"], next(model.parameters()).device.type in FUSED_DEVICES
    match choice.name:
        case "AdamW" | "Adam":
            return _adamw(groups, arguments, fused)
        case "SGD":
            momentum = arguments["momentum"]
            nesterov = arguments["nesterov"] and momentum > 0  # without momentum it changes nothing, and torch refuses
            return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=nesterov, fused=fused)
        case "Lion":
            return Lion(groups, lr=rate, betas=(arguments["beta_1"], arguments["beta_2"]))
        case "Adafactor":
            epsilons = (arguments["epsilon_1"], arguments["epsilon_2"])
            decay, limit = arguments["beta_2_decay"], arguments["clip_threshold"]
            return torch.optim.Adafactor(groups, lr=rate, beta2_decay=decay, eps=epsilons, d=limit)
        case "Muon":
            return _muon(model, arguments, fused)
        case other:
            raise ValueError(f"no optimizer {other!r}")


def _adamw(groups: list[dict[str, Any]], arguments: dict[str, Any], fused: bool) -> torch.optim.AdamW:
    betas = (arguments["beta_1"], arguments["beta_2"])
    return torch.optim.AdamW(groups, lr=arguments["learning_rate"], betas=betas, eps=arguments["epsilon"], fused=fused)


def _muon(model: nn.Module, arguments: dict[str, Any], fused: bool) -> Optimizer:
    """Muon's steps are scaled to the size of AdamW's, so that both go by one rate and one schedule."""
    hidden = hidden_matrices(model)
    taken = {id(p) for p in hidden}
    rest = parameter_groups((p for p in model.parameters() if id(p) not in taken), arguments["weight_decay"])
    if not hidden:
        return _adamw(rest, arguments, fused)
    muon = torch.optim.Muon(
        hidden,
        lr=arguments["learning_rate"],
        weight_decay=arguments["weight_decay"],
        momentum=arguments["momentum"],
        nesterov=arguments["nesterov"],
        ns_steps=arguments["ns_steps"],
        adjust_lr_fn="match_rms_adamw",
    )
    return MuonWithAdamW(muon, _adamw(rest, arguments, fused))
