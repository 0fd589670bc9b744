"""Weights that a program names with `weights="…"`: what a new training starts from."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from neural.compiler import Program
from neural.interop.weights import open_weights


@torch.no_grad()
def load_pretrained(model: nn.Module, program: Program) -> None:
    """Copy the weights that the network and its layers name into the model.

    NeuralError: N820 (nothing there), N821 (no form that is read), N822 (a weight is missing or has another shape), and
    those of the readers.
    """
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    for prefix, source in program.pretrained():
        for name, array in open_weights(source, program, prefix).items():
            own[name].copy_(torch.from_numpy(np.require(array, requirements="W")))
