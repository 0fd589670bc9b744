"""Generated source: golden files, and what ruff says of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from neural.backends.module import load_module
from neural.compiler import Program, compile_source, load
from neural.diagnostics.source import Source
from neural.layers import REGISTRY
from tests.parity.programs import sample_program

GOLDEN = {  # by back end
    "pytorch": Path("tests/golden/source"),
    "tensorflow": Path("tests/golden/source/keras"),
    "jax": Path("tests/golden/source/jax"),
}

EVERYTHING = """
param w = 32
param n = 3
define Body(units) {
  a = Dense($units, activation="relu")
  b = Dense(input, $units)
  Concatenate(a, b)
  Dense($w)
}
network Net {
  input: (20,)
  layers:
    Dense($w)
    hidden = Dense($w, activation="relu") * $n
    Body(16) * 2
    Residual(shortcut=Dense(8)) { Dense(16) Dense(8) }
    Residual { LayerNormalization() Dense(8) } * 3
    LayerNormalization(epsilon=0.5) * 2
    Activation("tanh") * 2
    Output(4, activation="softmax")
  loss: "sparse_categorical_crossentropy"
}
"""


def programs() -> dict[str, Program]:
    found = {path.stem: load(path) for path in sorted(Path("examples").glob("*.neural"))}
    tutorial = Path("tests/fixtures/tutorial")
    found["tutorial_gpt_decoder"] = load(tutorial / "gpt_decoder.neural")
    classifier = 'import "gpt_decoder.neural"\n' + (tutorial / "gpt_classifier.neural").read_text()
    found["tutorial_gpt_classifier"] = compile_source(
        Source(str(tutorial / "classifier.neural"), classifier), {"num_classes": 2}
    )
    found["everything"] = compile_source(Source("everything.neural", EVERYTHING))
    return found


PROGRAMS = programs()


def golden() -> dict[Path, str]:
    """The golden files as they should be."""
    return {
        folder / f"{name}.py": program.source(backend)
        for backend, folder in GOLDEN.items()
        for name, program in PROGRAMS.items()
    }


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("backend", GOLDEN)
def test_golden(backend: str, name: str) -> None:
    expected = (GOLDEN[backend] / f"{name}.py").read_text()
    assert PROGRAMS[name].source(backend) == expected, "`make golden` writes it anew; look at what it changes"


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("backend", GOLDEN)
def test_runs_alone_without_neural(backend: str, name: str, tmp_path: Path) -> None:
    if PROGRAMS[name].parameter_count > (3e8 if backend == "pytorch" else 1e7):
        return  # its size is the example's point; it takes more memory or time than a test should
    path = tmp_path / "model.py"
    path.write_text(PROGRAMS[name].source(backend))
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE, *sys.path, str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert f"{PROGRAMS[name].parameter_count:,} parameters" in run.stdout
    assert "→" in run.stdout


ALONE = """
import runpy, sys
class Guard:
    def find_spec(self, name, *_):
        if name.split('.')[0] == 'neural': raise ImportError('generated source must not need neural')
sys.meta_path.insert(0, Guard())
sys.path[:] = [p for p in sys.argv[1:-1] if p]
runpy.run_path(sys.argv[-1], run_name='__main__')
"""


@pytest.mark.parametrize("backend", GOLDEN)
def test_ruff(backend: str, tmp_path: Path) -> None:
    """All golden programs and all samples of all layers, linted and formatted by ruff's own defaults and more."""
    for name, program in PROGRAMS.items():
        (tmp_path / f"{name}.py").write_text(program.source(backend))
    for name, cls in REGISTRY.items():
        for i, sample in enumerate(cls.samples):
            (tmp_path / f"{name}_{i}.py").write_text(sample_program(sample).source(backend))
    lint = [
        "check",
        "--isolated",
        "--select",
        "E,F,W,I,UP,B,SIM,RET,C4,PIE,RUF",
        "--ignore",
        "E501,RUF002,RUF001",
        str(tmp_path),
    ]
    for command in (lint, ["format", "--isolated", "--diff", str(tmp_path)]):
        run = subprocess.run([sys.executable, "-m", "ruff", *command], capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr


def test_two_shapes_of_one_define_are_two_classes() -> None:
    text = "define D(causal) { Attention(num_heads=2, causal=$causal) } network N { input: (4, 8) layers: D(true) D(false) }"
    source = compile_source(Source("x.neural", text)).source()
    assert "class D(" in source and "class D2(" in source


@pytest.mark.parametrize(
    "name",
    [
        "forward",
        "training",
        "self",
        "torch",
        "T",
        "mask",
        "class",
        "lambda",
        "x",
        "h",
        "q",
        "_",
        "input_ids",
        "nn",
        "F",
        "print",
    ],
)
def test_names_that_mean_something_to_python_or_torch(name: str) -> None:
    text = f"param {name} = 8\nnetwork N {{ input: (8,) layers: {name}_ = Dense(${name}) Dense(${name}) Add({name}_, input) }}"
    if name in ("class", "lambda", "self", "T", "F"):
        text = text.replace(f"{name}_", "a")
    module = load_module(compile_source(Source("x.neural", text)).source(), "n")
    import torch

    assert module.N()(torch.randn(2, 8)).shape == (2, 8)
    text = f"define {name}(a) {{ Dense($a) }} network N {{ input: (8,) layers: {name} = {name}(8) Dense(8) Add({name}, input) }}"
    module = load_module(compile_source(Source("x.neural", text)).source(), "n")
    assert module.N()(torch.randn(2, 8)).shape == (2, 8)


@pytest.mark.parametrize(
    "layers",
    [
        "q = Dense(8) k = Dense(input, 8) v = Dense(input, 8) a = Attention(q, k, v, num_heads=2) Add(a, q, k, v)",
        "q = Dense(8) k = Dense(input, 8) v = Dense(input, 8) a = Attention(v, q, k, num_heads=2) b = Attention(k, v, q, num_heads=4) Add(a, b)",
        "k = Dense(8) a = Attention(k, k, k, num_heads=2) Add(a, k)",
        "h = Dense(8) x = Dense(input, 8) a = Attention(x, h, x, num_heads=2) Add(a, h, x, input)",
    ],
)
def test_attention_overwrites_nothing_that_is_read_later(layers: str) -> None:
    import numpy as np
    import torch

    from neural.graph.interpreter import initial_weights, interpret
    from neural.graph.passes import optimize

    program = compile_source(Source("x.neural", f"network N {{ input: (4, 8) layers: {layers} }}"))
    graph = optimize(program.graph)
    own = initial_weights(graph, 1)
    model = load_module(program.source(), "n").N().double()
    model.load_state_dict({n: torch.from_numpy(w) for n, w in own.items()})
    x = np.random.default_rng(0).normal(size=(2, 4, 8))
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.from_numpy(x)).numpy(), interpret(graph, own, x), rtol=1e-9, atol=1e-9)
