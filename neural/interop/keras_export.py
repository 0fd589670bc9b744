"""A model for Keras: its source and a .keras file, which is loaded again and compared before it is believed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neural.backends.module import load_module
from neural.compiler import Program
from neural.diagnostics.diagnostic import fail
from neural.graph.graph import weights as weights_of
from neural.graph.ids import embedding
from neural.graph.passes import optimize
from neural.interop.keras_files import read_keras
from neural.interop.keras_weights import load

SOURCE, MODEL = "model.py", "model.keras"


def write_keras(program: Program, weights: Mapping[str, np.ndarray], folder: Path) -> Path:
    """Write model.py and model.keras into an empty folder. Returns the .keras file.

    NeuralError N940 (the weights are not the program's), N941 (what was written is not what was given).
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # read when keras is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    source, path = program.source("tensorflow"), folder / MODEL
    (folder / SOURCE).write_text(source, encoding="utf-8")
    model = getattr(load_module(source, SOURCE.removesuffix(".py")), program.name)()
    load(model, weights)
    model.save(path)
    expected = weights_of(optimize(program.graph).block)
    found = read_keras(path, expected)
    for name in expected:
        if not np.array_equal(found[name], weights[name], equal_nan=True):
            _refuse(f"`{name}` differs")
    batch = _batch(program)
    outputs = (keras.ops.convert_to_numpy(m(batch)) for m in (model, keras.models.load_model(path)))
    if not np.array_equal(*outputs, equal_nan=True):
        _refuse("its outputs differ")
    return path


def _refuse(difference: str) -> None:
    fail(
        "N941",
        f"the export for Keras is not the model that was given: {difference}",
        hint="nothing was kept; this is a fault of neural: please report it",
    )


def _batch(program: Program) -> Any:
    """Inputs to compare outputs on."""
    rng, inputs = np.random.default_rng(0), {}
    for value in program.graph.block.inputs:
        shape = (2, *(min(a.value, 16) if a.axis == "T" else a.value for a in value.shape[1:]))
        table = embedding(program.graph.block, value.name)
        ids = value.dtype == "int64"
        inputs[value.name] = rng.integers(0, table.input_dim.value, shape) if ids else rng.normal(size=shape)
    return inputs if len(inputs) > 1 else next(iter(inputs.values()))
