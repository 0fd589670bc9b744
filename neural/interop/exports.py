"""Writing a model for others: never believed until it is read back and is the same."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np

from neural.diagnostics.diagnostic import fail
from neural.interop.decoder import Checkpoint, Decoder

# A module with `read(path) -> Checkpoint` and `write(checkpoint, path)`, and the file in the exported folder; "" where
# the format is the folder itself.
FORMATS = {"hf": ("neural.interop.huggingface", ""), "gguf": ("neural.interop.gguf", "model.gguf")}

HALF_STEP = 2.0**-24  # of float32 at 1: what a weight stored as weight - 1 may lose


def export(checkpoint: Checkpoint, name: str, folder: Path) -> Path:
    """Write a checkpoint in a format into an empty folder, and read it again. Returns what was written.

    NeuralError N868 if what was read is another model, and those of the writer.
    """
    module, file = FORMATS[name]
    codec = import_module(module)
    path = folder / file if file else folder
    codec.write(checkpoint, path)
    difference = compare(checkpoint, codec.read(path))
    if difference:
        fail(
            "N868",
            f"the export as {name} is not the model that was given: {difference}",
            hint="nothing was kept; this is a fault of neural: please report it",
        )
    return path


def compare(given: Checkpoint, found: Checkpoint) -> str | None:
    """The first difference that changes what a model computes; None for the same model.

    Biases of zeros, which some formats always have, and dropout are no difference.
    """
    mine, its = _bare(given.decoder), _bare(found.decoder)
    for name in Decoder.__dataclass_fields__:
        if getattr(mine, name) != getattr(its, name):
            return f"its {name} is {getattr(its, name)}, and {getattr(mine, name)} was given"
    for name in dict.fromkeys((*given.tensors, *found.tensors)):
        before, after = given.tensors.get(name), found.tensors.get(name)
        if before is None or after is None:
            if not _zero_bias(name, after if before is None else before):
                return f"`{name}` is in one of them alone"
        elif before.shape != after.shape or not _equal(name, before, after):
            return f"`{name}` differs"
    return None


def _bare(decoder: Decoder) -> Decoder:
    return replace(decoder, qkv_bias=False, out_bias=False, mlp_bias=False, head_bias=False, dropout=0.0)


def _zero_bias(name: str, tensor: np.ndarray) -> bool:
    return name.endswith(".bias") and not np.any(tensor)


def _equal(name: str, before: np.ndarray, after: np.ndarray) -> bool:
    if "norm" in name and name.endswith(".weight"):
        return bool(np.all(np.abs(before - after) <= HALF_STEP))
    return np.array_equal(before, after, equal_nan=True)
