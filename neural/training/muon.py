"""Muon for the matrices between layers, and AdamW for all else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The weights of all products but the head, which is the last of them; tables, biases and gains are not among them.

    Muon is for matrices whose input and output are both activations (Jordan et al. 2024).
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    products = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    return [weight for weight in products[:-1] if id(weight) not in tables]


class MuonWithAdamW:
    """Two of torch's optimizers behind the face of one: the groups of Muon, then those of AdamW."""

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW) -> None:
        self.parts = (muon, adamw)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[nn.Parameter, dict[str, torch.Tensor]]:
        return {parameter: state for part in self.parts for parameter, state in part.state.items()}

    def register_step_pre_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Called before a step, as torch does it."""
        return self.parts[0].register_step_pre_hook(hook)

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Parameters are numbered in the order of the groups, as torch does."""
        state, groups, first = {}, [], 0
        for part in self.parts:
            said = part.state_dict()
            state |= {first + index: value for index, value in said["state"].items()}
            groups += [{**group, "params": [first + i for i in group["params"]]} for group in said["param_groups"]]
            first += _count(part.param_groups)
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, said: dict[str, Any]) -> None:
        first = done = 0
        for part in self.parts:
            count, groups = _count(part.param_groups), len(part.param_groups)
            part.load_state_dict(
                {
                    "state": {i - first: value for i, value in said["state"].items() if first <= i < first + count},
                    "param_groups": [
                        {**group, "params": [i - first for i in group["params"]]}
                        for group in said["param_groups"][done : done + groups]
                    ],
                }
            )
            first, done = first + count, done + groups


def _count(groups: Iterable[dict[str, Any]]) -> int:
    return sum(len(group["params"]) for group in groups)
