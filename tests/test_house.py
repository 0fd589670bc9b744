"""The rules of the house: who imports whom, and what loads when."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "neural"
ORDER = (
    "diagnostics",
    "cpp",
    "syntax",
    "layers",
    "graph",
    "planning",
    "quantization",
    "backends",
    "compiler",
    "interop",
    "data",
    "training",
    "generation",
    "verification",
    "benchmarks",
    "serving",
    "cli",
)
FRAMEWORKS = {
    "torch",
    "numpy",
    "tokenizers",
    "safetensors",
    "matplotlib",
    "tensorboard",
    "transformers",
    "huggingface_hub",
    "tensorflow",
    "keras",
    "jax",
    "flax",
    "optax",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "openvino",
    "gguf",
}
LIGHT = ("diagnostics", "syntax", "layers", "graph", "planning", "cli")
FILES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, *, top_level: bool):
    """Modules that a file imports; those under `if TYPE_CHECKING` are for readers alone."""
    nodes = tree.body if top_level else ast.walk(tree)
    skipped = {
        id(n)
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and ast.unparse(i.test) == "TYPE_CHECKING"
        for n in ast.walk(i)
    }
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "neural")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_folder_imports_only_from_those_above_it(path: Path) -> None:
    own = part(path)
    if own not in ORDER:
        return  # the package's own front door
    for name in imports(ast.parse(path.read_text()), top_level=False):
        if name.startswith("neural."):
            assert ORDER.index(name.split(".")[1]) <= ORDER.index(own), f"{path} imports {name}"


@pytest.mark.parametrize("path", [f for f in FILES if part(f) in LIGHT], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_compiler_loads_no_framework(path: Path) -> None:
    if path.name == "interpreter.py":
        return  # the oracle is NumPy, and no command loads it
    found = {name.split(".")[0] for name in imports(ast.parse(path.read_text()), top_level=True)}
    assert not found & FRAMEWORKS


@pytest.mark.parametrize(
    "command",
    [
        ["check", "examples/gpt2.neural"],
        ["compile", "examples/gpt2.neural"],
        ["compile", "examples/gpt2.neural", "--backend", "tensorflow"],
        ["compile", "examples/gpt2.neural", "--backend", "jax"],
        ["plan", "examples/gpt2.neural"],
        ["fmt", "--check", "examples"],
    ],
)
def test_commands_of_the_compiler_load_no_framework(command: list[str]) -> None:
    code = "import sys, json; from neural.cli import main\ntry: main()\nexcept SystemExit as e: print(json.dumps([e.code, sorted(sys.modules)]))"
    run = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, cwd=ROOT, check=True)
    status, modules = json.loads(run.stdout.splitlines()[-1])
    assert status == 0, run.stderr
    assert not set(modules) & FRAMEWORKS


def test_the_package_itself_loads_nothing() -> None:
    code = "import sys, neural; assert not [m for m in sys.modules if m.startswith('neural.')]; neural.load('examples/gpt2.neural')"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_readme_lists_the_folders_in_order() -> None:
    text = (ROOT / "README.md").read_text()
    there = [name for name in ORDER if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()]
    places = [text.index(f"`{name}.py`" if name == "compiler" else f"`{name}/`") for name in there]
    assert places == sorted(places)
