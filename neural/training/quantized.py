"""Quantised runs: what `neural quantize` writes. A run, with other things in it than a trained one's:

run.json             as of other runs, with state "quantized", no data, and what was made of what
program.neural, model.py, tokenizer.json (and tokenizer_config.json, if the source had one)
model.safetensors    the weights: matrices as `QuantizedMatrix.to_tensors` gives them, the rest float32
quantization.json    the error that was made, matrix by matrix
COMPLETE             size and SHA-256 of model.safetensors
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from neural.diagnostics.diagnostic import fail
from neural.interop.tensor_files import TensorFiles, read_tensors, write_file
from neural.training.checkpoint import FORMAT, MARK
from neural.training.durable import write_json
from neural.training.tensor_file import FileRecord

WEIGHTS = "model.safetensors"
ERRORS = "quantization.json"


@dataclass(frozen=True, slots=True)
class TextRecord:
    """Text that was looked at. sha256: of the tokens."""

    source: str
    tokens: int
    sha256: str


@dataclass(frozen=True, slots=True)
class QuantizationRecord:
    """Of `run.json`: what was made of what, and what it costs."""

    source: str  # the run or the program
    step: int | None  # of the run's checkpoint
    weights_sha256: str  # of the weights before
    to: str  # "int8" or "int4"
    method: str  # "gptq", or "rounding" where there was no text to calibrate on
    group: int | None  # of int4
    calibration: TextRecord | None
    measured_on: TextRecord
    perplexity_before: float
    perplexity: float
    budget: float  # largest relative increase that was allowed
    size: int  # bytes of the weights
    size_before: int

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        texts = {name: value[name] and TextRecord(**value[name]) for name in ("calibration", "measured_on")}
        return cls(**{**value, **texts})


def write_quantized(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """The weights and their mark. OSError as the system gives it."""
    write_file(tensors, folder / WEIGHTS)
    write_json(folder / MARK, {"format": FORMAT, "files": {WEIGHTS: asdict(FileRecord.of(folder / WEIGHTS))}})


def open_quantized(run: Path) -> TensorFiles:
    """The weights of a quantised run. NeuralError N994 where they are not what was written."""
    try:
        mark = FileRecord(**json.loads((run / MARK).read_text(encoding="utf-8"))["files"][WEIGHTS])
        if FileRecord.of(run / WEIGHTS) == mark:
            return read_tensors(run / WEIGHTS)
        what = f"the contents of {WEIGHTS} are not what was written"
    except FileNotFoundError as error:
        what = f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError) as error:
        what = f"{MARK} does not read ({type(error).__name__}: {error})"
    return fail("N994", f"the quantised run {run} is damaged: {what}", hint="quantise its source again")


def require_only_weights(run: Path, checkpoint: str) -> None:
    """NeuralError N991 for another checkpoint of a quantised run than its only weights."""
    if checkpoint != "latest":
        title = f"{run} is quantised: it has one set of weights, and no checkpoint {checkpoint!r}"
        fail("N991", title, hint="leave out --checkpoint, or quantise that checkpoint of its source")
