"""A model's weights as a flat dict of tensors, each stored once, and whether a file's weights fit a model."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np
import torch
from torch import nn

from neural.diagnostics.diagnostic import fail

Signature = dict[str, list[int]]  # name -> shape


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers by their PyTorch names; tied weights under their first name only."""
    stored = model.state_dict().keys()
    named = chain(model.named_parameters(), model.named_buffers())
    return {name: tensor.detach() for name, tensor in named if name in stored}


def signature(model: nn.Module) -> Signature:
    """Names and shapes of `weights(model)`: what a checkpoint must have to fit."""
    return {name: list(tensor.shape) for name, tensor in weights(model).items()}


def require_fit(found: Signature, model: nn.Module, origin: str) -> None:
    """NeuralError N858 that names the first weight that does not fit, with both shapes."""
    expected = signature(model)
    for name in [*expected, *(n for n in found if n not in expected)]:
        if found.get(name) != expected.get(name):
            fail(
                "N858",
                f"{origin} belongs to another model: {_difference(name, found.get(name), expected.get(name))}",
                notes=(f"it holds {len(found)} weights, the model has {len(expected)}",),
                hint="load it with the run that wrote it",
            )


def _difference(name: str, found: list[int] | None, expected: list[int] | None) -> str:
    if found is None:
        return f"it lacks `{name}`, which has the shape {_shape(expected)} in the model"
    if expected is None:
        return f"its `{name}` of the shape {_shape(found)} is not in the model"
    return f"`{name}` has the shape {_shape(found)} there and {_shape(expected)} in the model"


def _shape(sizes: list[int] | None) -> str:
    return f"({', '.join(map(str, sizes or []))}{',' if sizes and len(sizes) == 1 else ''})"


@torch.no_grad()
def load_weights(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy `tensors` into the model's weights, in place, onto the model's device."""
    for name, tensor in weights(model).items():
        tensor.copy_(tensors[name])


@torch.no_grad()
def load_arrays(model: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy NumPy's arrays, asked for one by one, into the model's weights of these names."""
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    for name in arrays:
        own[name].copy_(torch.from_numpy(np.require(arrays[name], requirements="W")))
