"""Weights that a program names with `weights="…"`: what a new training starts from."""

from __future__ import annotations

from torch import nn

from neural.compiler import Program
from neural.interop.weights import open_weights
from neural.training.weights import load_arrays


def load_pretrained(model: nn.Module, program: Program) -> None:
    """Copy the weights that the network and its layers name into the model.

    NeuralError: N820 (nothing there), N821 (no form that is read), N822 (a weight is missing or has another shape), and
    those of the readers.
    """
    for prefix, source in program.pretrained():
        load_arrays(model, open_weights(source, program, prefix))
