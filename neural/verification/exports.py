"""A model for the programs of others: written, read again by what reads it there, and held against a probe.

The probe is a batch and the logits that the NumPy oracle gives for it. It stays in the exported folder, so that this
can be checked again wherever it has gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import numpy as np

from neural.backends.module import load_module
from neural.compiler import Program, compile_source, load
from neural.diagnostics.diagnostic import NeuralError, fail
from neural.diagnostics.source import Source
from neural.graph.interpreter import interpret
from neural.graph.passes import optimize
from neural.interop import exports as formats
from neural.interop import sources
from neural.interop.decoder import Checkpoint, Vocabulary
from neural.interop.program import program_text
from neural.interop.recognition import from_network, recognize, steps_from_network, to_network
from neural.quantization.matrix import QuantizedMatrix
from neural.verification.job import make_job

PROBE = "neural_probe.safetensors"
PROGRAM = "program.neural"
TOLERANCE = 2e-5  # of the largest logit where that is above 1
PROBED = 16  # tokens


@dataclass(frozen=True, slots=True)
class Checked:
    """reader: the program that read the folder. difference: the largest of the logits, over the largest above 1."""

    form: str
    network: str
    reader: str
    difference: float

    @property
    def same(self) -> bool:
        return self.difference <= TOLERANCE


def require_sayable(program: Program, form: str) -> None:
    """NeuralError N860 for a network that has no equal in a format, before its weights are read."""
    if form in formats.FORMATS:
        recognize(program.graph)


def export(
    program: Program,
    weights: Mapping[str, np.ndarray],
    vocabulary: Vocabulary | None,
    form: str,
    folder: Path,
    quantized: Mapping[str, QuantizedMatrix] = MappingProxyType({}),
) -> Checked:
    """Write a model into an empty folder, and read it again.

    quantized: those of the weights that are integers, which ONNX keeps, and GGUF if it can hold exactly what they stand
    for; other formats get that as float32.

    NeuralError: N860 and N867 (the format cannot say it), N868 (what was read is another model), and those of writers.
    """
    if form in formats.FORMATS:
        recognized = recognize(program.graph)
        tensors, steps = from_network(recognized, weights), steps_from_network(recognized, quantized)
        formats.export(Checkpoint(recognized.decoder, tensors, vocabulary, steps=steps), form, folder)
    else:
        (folder / PROGRAM).write_text(program.text(weights=False), encoding="utf-8")
        if form == "onnx":
            _write_onnx(program, weights, quantized, folder)
        else:
            _write_keras(program, weights, folder)
        if vocabulary:
            (folder / "tokenizer.json").write_text(vocabulary.tokenizer_json, encoding="utf-8")
    _write_probe(program, weights, form, folder)
    checked = check(folder)
    if not checked.same:
        fail(
            "N868",
            f"the export as {form} is not the model that was given: its logits differ by {checked.difference:.1e}",
            notes=(f"read by {checked.reader}",),
            hint="nothing was kept; this is a fault of neural: please report it",
        )
    return checked


def _write_onnx(
    program: Program, weights: Mapping[str, np.ndarray], quantized: Mapping[str, QuantizedMatrix], folder: Path
) -> None:
    from neural.backends.onnx import emit, write

    write(emit(optimize(program.graph), weights, quantized), folder / "model.onnx")


def _write_keras(program: Program, weights: Mapping[str, np.ndarray], folder: Path) -> None:
    _choose_engine()
    from neural.interop.keras_export import write_keras

    write_keras(program, weights, folder)


def _write_probe(program: Program, weights: Mapping[str, np.ndarray], form: str, folder: Path) -> None:
    from safetensors.numpy import save_file

    batch = make_job(program, weights, seed=0).inputs
    if program.context:
        batch = [ids[:, :PROBED] for ids in batch]
    logits = interpret(optimize(program.graph), weights, *batch).astype(np.float32)
    inputs = {f"input{i}": np.ascontiguousarray(array) for i, array in enumerate(batch)}
    save_file({**inputs, "logits": logits}, folder / PROBE, {"format": form, "network": program.name})


def check(folder: Path) -> Checked:
    """Read an exported folder and compare what it computes with what its probe says.

    NeuralError: N931 (no probe: `neural export` did not write it), N932 (it does not read), and those of our readers.
    """
    inputs, expected, form, network = _read_probe(folder)
    try:
        reader, run = READERS[form](folder)
        found = run(inputs)
    except (NeuralError, ImportError):
        raise
    except Exception as error:  # each reader has errors of its own
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        fail(
            "N932",
            f"{folder} does not read as {form}: {type(error).__name__}: {reason}",
            hint="it was changed or cut short since: export the model again",
        )
    difference = np.inf
    if found.shape == expected.shape:
        difference = float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
    return Checked(form, network, reader, difference)


def _read_probe(folder: Path) -> tuple[list[np.ndarray], np.ndarray, str, str]:
    from safetensors import SafetensorError, safe_open

    path = folder / PROBE
    if not path.is_file():
        hint = f"give a folder that `neural export` wrote: {PROBE} in it says what the model must compute"
        fail("N931", f"{folder} has no {PROBE}", hint=hint)
    try:
        with safe_open(path, "np") as file:
            said, arrays = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        inputs = [arrays[f"input{i}"] for i in range(len(arrays) - 1)]
        if said["format"] not in READERS:
            raise KeyError(said["format"])
        return inputs, arrays["logits"], said["format"], said["network"]
    except (SafetensorError, KeyError) as error:
        return fail("N931", f"{path} is not what `neural export` wrote: {error}", hint="export the model again")


Runner = Callable[[list[np.ndarray]], np.ndarray]


def _huggingface(folder: Path) -> tuple[str, Runner]:
    """transformers where it is installed: it is what the folder is for."""
    if find_spec("transformers") is None or find_spec("torch") is None:
        return _ours(folder)
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def run(inputs: list[np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(inputs[0])).logits.numpy()

    return "transformers", run


def _gguf(folder: Path) -> tuple[str, Runner]:
    return _ours(folder / "model.gguf")


def _ours(path: Path) -> tuple[str, Runner]:
    """Our own reader, and the NumPy oracle on the program that it makes of the file."""
    checkpoint = sources.read(str(path))
    program = compile_source(Source("read.neural", program_text(checkpoint.decoder, "Read")))
    weights = to_network(recognize(program.graph), checkpoint.tensors)
    return "neural", lambda inputs: interpret(optimize(program.graph), weights, *inputs)


def _onnx(folder: Path) -> tuple[str, Runner]:
    from neural.verification.onnx_peer import OnnxModel, open_exactly

    return "onnxruntime", OnnxModel(open_exactly(folder / "model.onnx")).logits


def _keras(folder: Path) -> tuple[str, Runner]:
    """Keras finds the classes of the saved model in the module that the program compiles to, not in the folder's."""
    _choose_engine()
    import keras

    program = load(folder / PROGRAM)
    load_module(program.source("tensorflow"), "model")
    model = keras.models.load_model(folder / "model.keras", compile=False)
    names = [v.name for v in program.graph.block.inputs]

    def run(inputs: list[np.ndarray]) -> np.ndarray:
        given = inputs[0] if len(names) == 1 else dict(zip(names, inputs, strict=True))
        return keras.ops.convert_to_numpy(model(given))

    return "keras", run


READERS = {"hf": _huggingface, "gguf": _gguf, "onnx": _onnx, "keras": _keras}
FORMATS = tuple(READERS)


def _choose_engine() -> None:
    """Keras reads its engine's name when it is imported."""
    engine = next((name for name in ("tensorflow", "jax", "torch") if find_spec(name)), "tensorflow")
    os.environ.setdefault("KERAS_BACKEND", engine)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
