"""`weights="…"`: whatever is named there, under our names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from neural.compiler import Program
from neural.diagnostics.diagnostic import fail
from neural.graph.graph import weights as weights_of
from neural.graph.passes import optimize
from neural.interop.tensor_files import read_pieces, read_tensors
from neural.layers.layer import Weight
from neural.quantization.matrix import QuantizedMatrix

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray

QUANTIZED = "model.safetensors"  # of a quantised run, which has no checkpoints
KERAS = (".h5", ".keras")


def open_weights(source: str, program: Program, prefix: str = "") -> dict[str, Array]:
    """Weights of the network, or of the layer `prefix`, by our names, in PyTorch's layout, float32.

    source: a run (its newest whole checkpoint), a .safetensors, .gguf, .h5 or .keras file, a Hugging Face folder or
    "hf:name". The names in a .safetensors file are the layer's own (`weight`, `qkv.bias`) or the model's. Each weight
    of the layer, or of the network, must be there.

    NeuralError: N820 (nothing there), N821 (no form that is read), N822 (a weight is missing or has another shape), and
    those of the readers.
    """
    expected = {
        name: weight
        for name, weight in weights_of(optimize(program.graph).block).items()
        if not prefix or name.startswith(f"{prefix}.")
    }
    tensors = _read(source, program, expected, prefix)
    found = {}
    for name, shape in ((n, w.shape) for n, w in expected.items()):
        own = name.removeprefix(f"{prefix}.") if prefix else name
        key = own if own in tensors else name
        array = tensors.get(key)  # read once: it may be unpacked for it
        if array is None or array.shape != shape:
            what = "lacks it" if array is None else f"has the shape {array.shape} for it"
            holds = ", ".join(sorted(tensors)[:8]) or "nothing"
            fail("N822", f"`{name}` has the shape {shape}, and {source} {what}", notes=(f"it holds {holds}",))
        found[name] = array
    return found


def quantized_matrices(run: Path) -> dict[str, QuantizedMatrix]:
    """Of a quantised run the matrices as they are stored; none of another. NeuralError N823, N994 (damaged)."""
    return read_tensors(run / QUANTIZED).quantized() if (run / QUANTIZED).is_file() else {}


def program_weights(program: Program) -> dict[str, Array]:
    """All weights of a program that names where they are. NeuralError N827 where it does not say it of each."""
    found = {}
    for prefix, source in program.pretrained():
        found |= open_weights(source, program, prefix)
    lacking = [name for name in weights_of(optimize(program.graph).block) if name not in found]
    if lacking:
        fail(
            "N827",
            f"{program.path} does not say where the weights of {program.name} are",
            notes=(f"`{lacking[0]}` is one of {len(lacking)} without",) if found else (),
            hint='train it first, or name them: `weights: "model.safetensors"` in the network',
        )
    return found


def _read(source: str, program: Program, expected: Mapping[str, Weight], prefix: str) -> Mapping[str, Array]:
    if source.startswith("hf:"):
        return _decoder_weights(source, program, expected, prefix)
    path = Path(source)
    if not path.exists():
        fail("N820", f"there is no {path} to read weights from", hint="put it there, or name another")
    if path.is_dir() and (path / "run.json").is_file():
        if (path / QUANTIZED).is_file():
            return read_tensors(path / QUANTIZED)
        return read_pieces(sorted(_newest_checkpoint(path).glob("model*.safetensors")))
    if path.is_dir() or path.suffix == ".gguf":
        return _decoder_weights(source, program, expected, prefix)
    if path.suffix in KERAS:
        from neural.interop.keras_files import read_keras

        return read_keras(path, expected)
    if path.suffix != ".safetensors":
        known = "a run, .safetensors, .gguf, .h5, .keras, or a Hugging Face folder"
        fail("N821", f"weights are not read from {path.name}", notes=(f"what is read: {known}",))
    return read_tensors(path)


def _decoder_weights(source: str, program: Program, expected: Mapping[str, Weight], prefix: str) -> Mapping[str, Array]:
    """Of a file that says what model it holds: the program's, or one that is the same as far as a layer."""
    from neural.interop.recognition import recognize, to_layer, to_network
    from neural.interop.sources import read

    tensors = read(source).tensors
    return to_layer(program.graph, expected, tensors) if prefix else to_network(recognize(program.graph), tensors)


def _newest_checkpoint(run: Path) -> Path:
    """The last one that its mark calls complete and whose files have the sizes in the mark."""
    for path in sorted((run / "checkpoints").glob("step-*"), key=lambda p: (len(p.name), p.name), reverse=True):
        try:
            files = json.loads((path / "COMPLETE").read_text())["files"]
            if all((path / name).stat().st_size == record["size"] for name, record in files.items()):
                return path
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return fail("N820", f"the run {run} has no whole checkpoint yet", hint=f"go on: neural train --resume {run}")
