"""Weights of Keras' files: our own source's by name, another model's layer by shape, and files that are none."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from neural.backends.module import load_module
from neural.compiler import Program, compile_source
from neural.diagnostics.diagnostic import NeuralError
from neural.diagnostics.source import Source
from neural.graph.graph import weights as weights_of
from neural.graph.interpreter import initial_weights
from neural.graph.passes import optimize
from neural.interop.keras_export import write_keras
from neural.interop.keras_files import read_keras
from neural.interop.keras_weights import load
from neural.layers.layer import Weight

# A repeated block, a tied head with a bias of its own, parts of an attention, names that Keras has given away, squares.
TEXT = """
param n = 11
define Body(d) {
  Residual { LayerNormalization(use_bias=false) Attention(num_heads=2, causal=true, qk_norm=true) }
  weights = Dense($d, activation="gelu_tanh")
  RMSNormalization()
}
network Net {
  input: (20,)
  layers:
    tokens = Embedding(8, 8)
    PositionalEmbedding()
    zeta = Body(8) * $n
    losses = Dense(8, use_bias=false)
    BatchNormalization()
    Dense(8, tied_to=tokens)
  loss: "sparse_categorical_crossentropy"
}
"""


@pytest.fixture(scope="module")
def program() -> Program:
    return compile_source(Source("net.neural", TEXT))


@pytest.fixture(scope="module")
def own(program: Program) -> dict[str, np.ndarray]:
    return initial_weights(optimize(program.graph), 3, np.float32)


@pytest.fixture(scope="module")
def folder(program: Program, own: dict[str, np.ndarray], tmp_path_factory) -> Path:
    """model.keras, model.weights.h5 and half.weights.h5, which is in bfloat16."""
    folder = tmp_path_factory.mktemp("keras")
    write_keras(program, own, folder)
    module = load_module(program.source("tensorflow"), "net")
    model = module.Net()
    load(model, own)
    model.save_weights(folder / "model.weights.h5")
    half = module.Net(dtype="bfloat16")
    load(half, own)
    half.save_weights(folder / "half.weights.h5")
    return folder


def expected(program: Program) -> dict[str, Weight]:
    return weights_of(optimize(program.graph).block)


def code(path: Path, wanted: dict[str, Weight]) -> str:
    with pytest.raises(NeuralError) as caught:
        read_keras(path, wanted)
    return caught.value.diagnostics[0].code


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_reads_our_own_source_by_name(name: str, folder: Path, program: Program, own: dict[str, np.ndarray]) -> None:
    found = read_keras(folder / name, expected(program))
    assert found.keys() == own.keys()
    for weight, array in own.items():
        assert np.array_equal(found[weight], array), weight
        assert found[weight].dtype == np.float32


def test_the_export_is_a_module_and_a_model(folder: Path, own: dict[str, np.ndarray]) -> None:
    source = (folder / "model.py").read_text()
    module = load_module(source, "model")
    model = keras.models.load_model(folder / "model.keras")
    assert type(model) is module.Net
    assert np.array_equal(model.tokens.embeddings, own["tokens.weight"])
    assert np.array_equal(model.zeta[10].weights_.kernel, own["zeta.10.weights.weight"].T)


def test_refuses_to_export_other_weights(program: Program, own: dict[str, np.ndarray], tmp_path: Path) -> None:
    for given in ({n: w for n, w in own.items() if n != "losses.weight"}, {**own, "losses.bias": own["dense.bias"]}):
        with pytest.raises(NeuralError) as caught:
            write_keras(program, given, tmp_path)
        assert caught.value.diagnostics[0].code == "N940"


def test_an_export_that_differs_is_refused(program, own, tmp_path: Path, monkeypatch) -> None:
    def changed(path: Path, wanted: dict[str, Weight]) -> dict[str, np.ndarray]:
        found = read_keras(path, wanted)
        found["tokens.weight"] = found["tokens.weight"] + 1e-6
        return found

    monkeypatch.setattr("neural.interop.keras_export.read_keras", changed)
    with pytest.raises(NeuralError) as caught:
        write_keras(program, own, tmp_path)
    assert caught.value.diagnostics[0].code == "N941"


# Other people's models


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    x = given = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(50, 8, name="words")(x)
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = keras.layers.Dense(8, name="square")(x)
    model = keras.Model(given, keras.layers.Dense(3, name="out")(x))
    keras.utils.set_random_seed(1)
    for weight in model.weights:
        weight.assign(keras.random.normal(weight.shape))
    model.save(folder / "whole.h5")
    model.save(folder / "whole.keras")
    model.save_weights(folder / "model.weights.h5")
    np.savez(folder / "truth.npz", **{w.path.replace("/", "."): w.numpy() for w in model.weights})
    return folder


FILES = ["whole.h5", "whole.keras", "model.weights.h5"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", ["words", "table"])
def test_an_embedding_is_found_by_name_or_by_its_shape(file: str, name: str, foreign: Path) -> None:
    found = read_keras(foreign / file, {f"{name}.weight": Weight("weight", (50, 8), "embedding")})
    assert np.array_equal(found[f"{name}.weight"], np.load(foreign / "truth.npz")["words.embeddings"])


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", ["square", "hidden"])
def test_a_dense_is_turned(file: str, name: str, foreign: Path) -> None:
    wanted = {f"{name}.weight": Weight("weight", (8, 8), "matrix"), f"{name}.bias": Weight("bias", (8,), "zeros")}
    found, truth = read_keras(foreign / file, wanted), np.load(foreign / "truth.npz")
    assert np.array_equal(found[f"{name}.weight"], truth["square.kernel"].T)
    assert np.array_equal(found[f"{name}.bias"], truth["square.bias"])


@pytest.mark.parametrize("file", FILES)
def test_a_norm(file: str, foreign: Path) -> None:
    wanted = {"ln.weight": Weight("weight", (8,), "ones"), "ln.bias": Weight("bias", (8,), "zeros")}
    found, truth = read_keras(foreign / file, wanted), np.load(foreign / "truth.npz")
    assert np.array_equal(found["ln.weight"], truth["norm.gamma"])
    assert np.array_equal(found["ln.bias"], truth["norm.beta"])


@pytest.mark.parametrize("file", FILES)
def test_a_shape_that_does_not_fit_is_told_with_both(file: str, foreign: Path) -> None:
    with pytest.raises(NeuralError) as caught:
        read_keras(foreign / file, {"words.weight": Weight("weight", (99, 8), "embedding")})
    told = caught.value.diagnostics[0]
    assert (told.code, "(99, 8)" in told.title, "(50, 8)" in told.title) == ("N822", True, True)
    assert code(foreign / file, {"a.weight": Weight("weight", (7, 7), "matrix")}) == "N822"


def test_two_layers_of_one_shape_are_not_guessed_between(tmp_path: Path) -> None:
    layers = [keras.Input((8,)), keras.layers.Dense(8, name="first"), keras.layers.Dense(8, name="second")]
    keras.Sequential(layers).save(tmp_path / "two.h5")
    wanted = {"x.weight": Weight("weight", (8, 8), "matrix"), "x.bias": Weight("bias", (8,), "zeros")}
    with pytest.raises(NeuralError) as caught:
        read_keras(tmp_path / "two.h5", wanted)
    assert "first, second" in caught.value.diagnostics[0].notes[0]


# Files that are none

TABLE = {"words.weight": Weight("weight", (50, 8), "embedding")}


def test_bfloat16(folder: Path, program: Program, own: dict[str, np.ndarray]) -> None:
    found = read_keras(folder / "half.weights.h5", expected(program))
    wanted = own["tokens.weight"]
    assert np.abs(found["tokens.weight"] - wanted).max() <= 2**-8 * np.abs(wanted).max()


@pytest.mark.parametrize(
    "content", [b"", b"not a file of weights", b"\x89HDF\r\n\x1a\n" + bytes(100), b"PK\x03\x04" + bytes(50)]
)
def test_not_a_file_of_keras(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(content)
    assert code(tmp_path / "x.h5", TABLE) == "N828"


@pytest.mark.parametrize("file", FILES)
def test_cut_short(file: str, foreign: Path, tmp_path: Path) -> None:
    whole = (foreign / file).read_bytes()
    for share in (0.1, 0.5, 0.9):
        (tmp_path / file).write_bytes(whole[: int(len(whole) * share)])
        assert code(tmp_path / file, TABLE) == "N828"


def test_an_archive_without_weights_and_one_that_grows(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    assert code(tmp_path / "empty.keras", TABLE) == "N828"
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(20 << 20))
    assert code(tmp_path / "bomb.keras", TABLE) == "N829"


def written(path: Path, make) -> Path:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        make(file)
    path.write_bytes(buffer.getvalue())
    return path


def test_lying_files(tmp_path: Path) -> None:
    def huge(file: h5py.File) -> None:
        file.create_dataset("words/vars/0", (1 << 40, 8), "f4", chunks=(1024, 8))

    def integers(file: h5py.File) -> None:
        file["words/vars/0"] = np.zeros((50, 8), np.int64)

    def outside(file: h5py.File) -> None:
        file["words"] = h5py.ExternalLink("/etc/passwd", "/")

    def circle(file: h5py.File) -> None:
        group = file.create_group("words/a")
        group["b"] = group

    def elsewhere(file: h5py.File) -> None:
        file.create_group("words/vars").create_dataset("0", (50, 8), "f4", external=[("/etc/passwd", 0, 1600)])

    for make, wanted in ((huge, "N822"), (integers, "N824"), (outside, "N822"), (circle, "N828"), (elsewhere, "N828")):
        assert code(written(tmp_path / f"{make.__name__}.h5", make), TABLE) == wanted, make.__name__
