"""Optimizers: Keras' names and arguments onto torch.optim, with weight decay on matrices only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from neural.graph.settings import Choice

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


def make_optimizer(choice: Choice, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that a network's `optimizer:` names, over the model's parameters.

    Adam (Kingma & Ba 2015) is AdamW (Loshchilov & Hutter 2019) without decay. SGD is torch's: its velocity does not
    hold the rate, and its decay is part of the gradient.
    """
    arguments = choice.arguments
    groups = parameter_groups(model.parameters(), arguments.get("weight_decay", 0.0))
    rate, fused = arguments["learning_rate"], next(model.parameters()).device.type in FUSED_DEVICES
    match choice.name:
        case "AdamW" | "Adam":
            betas = (arguments["beta_1"], arguments["beta_2"])
            return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=arguments["epsilon"], fused=fused)
        case "SGD":
            momentum = arguments["momentum"]
            nesterov = arguments["nesterov"] and momentum > 0  # without momentum it changes nothing, and torch refuses
            return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=nesterov, fused=fused)
        case other:
            raise ValueError(f"no optimizer {other!r}")
