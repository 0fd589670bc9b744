"""`neural compile --backend onnx`: what it writes, and what it says of bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from neural.backends.onnx import emit
from neural.compiler import load
from neural.graph.interpreter import initial_weights
from neural.graph.passes import optimize
from neural.quantization.quantize import round_all
from neural.verification.onnx_peer import Driver
from tests.forked.command import neural
from tests.parity.onnx_runs import session

PROGRAM = """network Net { input: (16,) layers: tokens = Embedding(64, 32)
  Residual { MultiHeadAttention(num_heads=2, causal=true, rope=100.0) } Dense(64, use_bias=false, tied_to=tokens)
  loss: "sparse_categorical_crossentropy" }"""
IDS = np.array([[3, 1, 4, 1, 5, 9, 2, 6]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.neural").write_text(PROGRAM)
    return tmp_path


def logits(path: Path) -> np.ndarray:
    return Driver(session(str(path)), 1).read(IDS)


def test_fresh_weights_follow_the_seed(folder: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        done = neural(
            "compile", "net.neural", "--backend", "onnx", "--output", f"{name}.onnx", "--seed", seed, cwd=folder
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    a, b, c = (logits(folder / f"{name}.onnx") for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert sorted(p.name for p in folder.iterdir()) == ["a.onnx", "b.onnx", "c.onnx", "net.neural"]


@pytest.mark.parametrize("quantize", [(), ("--quantize", "int8"), ("--quantize", "int4")])
@pytest.mark.parametrize("named_by", ["option", "program"])
def test_given_weights(folder: Path, quantize: tuple[str, ...], named_by: str) -> None:
    network = optimize(load(folder / "net.neural").graph)
    own = initial_weights(network, 0, np.float32)
    save_file(own, folder / "net.safetensors")
    given = ("--weights", "net.safetensors") if named_by == "option" else ()
    if named_by == "program":
        (folder / "net.neural").write_text(PROGRAM.replace("loss:", 'weights: "net.safetensors" loss:'))
    done = neural("compile", "net.neural", "--backend", "onnx", "--output", "net.onnx", *given, *quantize, cwd=folder)
    assert done.returncode == 0, done.stderr
    expected = Driver(
        session(emit(network, own, round_all(network.block, own, quantize[1]) if quantize else {})), 1
    ).read(IDS)
    np.testing.assert_array_equal(logits(folder / "net.onnx"), expected)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("--backend onnx", "N921"),
        ("--backend onnx --output x.onnx --quantize int3", "N922"),
        ("--output x.py --quantize int8", "N920"),
        ("--output x.py --weights run", "N920"),
        ("--output x.py --seed 0", "N920"),
        ("--backend onyx --output x.onnx", "N012"),
        ("--backend onnx --output gone/x.onnx", "N010"),
        ("--backend onnx --output net.neural/x.onnx", "N010"),
        ("--backend onnx --output .", "N010"),
        ("--backend onnx --output x.onnx --weights gone.safetensors", "N820"),
        ("--backend onnx --output x.onnx --weights net.neural", "N821"),
    ],
)
def test_mistakes(folder: Path, arguments: str, code: str) -> None:
    done = neural("compile", "net.neural", *arguments.split(), cwd=folder)
    assert done.returncode == 2
    assert f"error[{code}]" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in folder.iterdir()] == ["net.neural"]


def test_a_file_that_may_not_grow_leaves_the_old_one(folder: Path) -> None:
    (folder / "net.onnx").write_text("old")
    limited = f"ulimit -f 8; exec {sys.executable} -m neural compile net.neural --backend onnx --output net.onnx"
    done = subprocess.run(["bash", "-c", limited], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "error[N010]" in done.stderr
    assert (folder / "net.onnx").read_text() == "old"
    assert sorted(p.name for p in folder.iterdir()) == ["net.neural", "net.onnx"]
