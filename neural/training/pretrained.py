"""Weights that a program names with `weights="…"`: what a new training starts from."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from neural.compiler import Program
from neural.diagnostics.diagnostic import fail


@torch.no_grad()
def load_pretrained(model: nn.Module, program: Program) -> None:
    """Copy the weights that the network and its layers name into the model.

    The names in a file are the layer's own (`weight`, `qkv.bias`) or the model's (`tokens.weight`); each weight of the
    layer, or of the network, must be there.

    NeuralError: N820 (no file), N821 (not safetensors), N822 (a weight is missing or has another shape).
    """
    for prefix, path in program.pretrained():
        tensors = _read(path)
        for name, weight in _weights_of(model, prefix).items():
            own = name.removeprefix(f"{prefix}.")
            found = tensors.get(own, tensors.get(name))
            if found is None or found.shape != weight.shape:
                what = "lacks it" if found is None else f"has the shape {tuple(found.shape)} for it"
                title = f"`{name}` has the shape {tuple(weight.shape)}, and {path} {what}"
                fail("N822", title, notes=(f"it holds {', '.join(sorted(tensors)[:8]) or 'nothing'}",))
            weight.copy_(found)


def _weights_of(model: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in model.state_dict().items() if not prefix or name.startswith(f"{prefix}.")}


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.exists():
        fail(
            "N820",
            f"the program starts from {path}, and there is no such file",
            hint="put it there, or remove `weights=`",
        )
    if path.suffix != ".safetensors":
        hint = "save it as .safetensors, or remove `weights=`"
        fail("N821", f"weights are read from .safetensors files, and this is {path.name}", hint=hint)
    try:
        return load_file(path)
    except SafetensorError as error:
        fail("N821", f"{path} is not a whole safetensors file: {error}")
