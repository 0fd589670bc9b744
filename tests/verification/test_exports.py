"""An exported folder is checked again: the same model, another one, or none that reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from neural.compiler import Program, compile_source
from neural.diagnostics.diagnostic import NeuralError
from neural.diagnostics.source import Source
from neural.graph.interpreter import initial_weights
from neural.graph.passes import optimize
from neural.verification.exports import FORMATS, PROBE, check, export
from tests.interop.gguf_models import small, vocabulary

TWO_INPUTS = """
network Two {
  input: { a: (5,), b: (7,) }
  layers:
    x = Dense(a, 8, activation="gelu")
    y = Dense(b, 8)
    Multiply(x, y)
    Dense(3)
}
"""


def decoder() -> tuple[Program, dict[str, np.ndarray]]:
    """A model that each format can say."""
    from neural.interop.program import program_text
    from neural.interop.recognition import recognize, to_network

    checkpoint = small("llama")
    program = compile_source(Source("model.neural", program_text(checkpoint.decoder, "Small")))
    return program, to_network(recognize(program.graph), checkpoint.tensors)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {form: tmp_path_factory.mktemp(form) for form in FORMATS}
    for form, folder in folders.items():
        export(*decoder(), vocabulary(), form, folder)
    return folders


@pytest.fixture(params=FORMATS)
def folder(request: pytest.FixtureRequest, exported: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported[request.param], tmp_path / request.param))


def weights_file(folder: Path) -> Path:
    """The largest file beside the probe."""
    return max((f for f in folder.iterdir() if f.name != PROBE), key=lambda f: f.stat().st_size)


def test_the_same_model(folder: Path) -> None:
    found = check(folder)
    assert found.same
    assert (found.form, found.network) == (folder.name, "Small")
    assert (
        found.reader == {"hf": "transformers", "gguf": "neural", "onnx": "onnxruntime", "keras": "keras"}[folder.name]
    )


def test_another_model(folder: Path, tmp_path: Path) -> None:
    program, weights = decoder()
    name = next(n for n in weights if n.endswith("norm.weight"))
    (tmp_path / "other").mkdir()
    export(program, {**weights, name: weights[name] * np.float32(1.01)}, vocabulary(), folder.name, tmp_path / "other")
    shutil.copy(tmp_path / "other" / weights_file(folder).name, weights_file(folder))
    assert not check(folder).same


def test_no_model(folder: Path) -> None:
    file = weights_file(folder)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(NeuralError) as error:
        check(folder)
    (told,) = error.value.diagnostics
    assert told.code == ("N882" if folder.name == "gguf" else "N932"), told.title
    file.unlink()
    with pytest.raises(NeuralError):
        check(folder)


@pytest.mark.parametrize("change", [{"format": "tar"}, {"format": "onnx"}, {}])
def test_a_probe_that_says_too_little(exported: dict[str, Path], tmp_path: Path, change: dict[str, str]) -> None:
    tensors = load_file(exported["onnx"] / PROBE)
    save_file(tensors, tmp_path / PROBE, change)
    with pytest.raises(NeuralError) as error:
        check(tmp_path)
    assert [d.code for d in error.value.diagnostics] == ["N931"]


@pytest.mark.parametrize("form", ["onnx", "keras"])
def test_a_network_of_its_own(form: str, tmp_path: Path) -> None:
    program = compile_source(Source("two.neural", TWO_INPUTS))
    assert export(program, initial_weights(optimize(program.graph), 0, np.float32), None, form, tmp_path).same
    assert not (tmp_path / "tokenizer.json").exists()
