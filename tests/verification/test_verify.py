"""`neural verify`: every back end is one model, and what is not says so."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from neural.cli.app import app
from neural.compiler import Program, compile_source
from neural.diagnostics.diagnostic import NeuralError
from neural.diagnostics.source import Source
from neural.verification import verify as module
from neural.verification import worker
from neural.verification.job import answer_file, make_job, seeded_weights
from neural.verification.peer import BACKENDS, Backend
from neural.verification.verify import CHECKS, verify
from tests.parity.test_models import SMALL, example

CLASSIFIER = """
network Classifier {
  input: (24,)
  layers:
    Embedding(50, 16)
    PositionalEmbedding(kind="sinusoidal")
    Residual { LayerNormalization() MultiHeadAttention(num_heads=2, num_kv_heads=1) } * 2
    GlobalAveragePooling1D()
    BatchNormalization()
    Output(3, activation="softmax")
  loss: "sparse_categorical_crossentropy"
  optimizer: SGD(learning_rate=0.1, momentum=0.9, nesterov=true)
  train { gradient_clip: 0.5 }
}
"""

QUESTIONS = """
network Questions {
  input: (12,)
  layers: Dense(16, activation="mish") Dense(3)
  loss: "binary_crossentropy"
  optimizer: Adam(learning_rate=0.05)
}
"""
OWN = {"classifier": CLASSIFIER, "questions": QUESTIONS}


def program(name: str) -> Program:
    if name in OWN:
        return compile_source(Source(f"{name}.neural", OWN[name]))
    return example(name, {**SMALL[name], "context": 80})


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back ends answer in this process, where their frameworks are loaded, and not in workers that load them first."""

    def run(name: str, folder: Path, tell: object) -> None:
        with redirect_stdout(io.StringIO()):
            worker.main(name, folder)

    monkeypatch.setattr(module, "_run", run)


@pytest.mark.parametrize("name", ["gpt2", "llama", "classifier", "questions"])
def test_all_back_ends_are_one_model(name: str, request: pytest.FixtureRequest, monkeypatch) -> None:
    if name == "gpt2":  # as the command does it
        for sparing in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"):
            monkeypatch.delenv(sparing)
    else:
        request.getfixturevalue("here")
    rows = verify(program(name))
    assert {row.name: (row.state, row.why, row.beyond) for row in rows} == dict.fromkeys(BACKENDS, ("ok", "", ()))
    checks = {row.name: set(row.differences) for row in rows}
    cached = {"cached", "tokens"} if name not in OWN else set()
    padded = {"logits", "padded"} if name != "questions" else {"logits"}
    assert checks["pytorch"] == checks["tensorflow"] == checks["jax"] == padded | cached | {"gradients", "steps"}
    assert checks["onnx"] == padded | cached
    assert checks["numpy"] == padded


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory):
    """What PyTorch says of a small model, as its worker leaves it."""
    folder, made = tmp_path_factory.mktemp("answers"), program("gpt2")
    (folder / "program.neural").write_text(made.text())
    make_job(made, None, 0).save(folder)
    module._run("pytorch", folder)
    with module._answers(folder, "pytorch") as found:
        yield folder, dict(found)


@pytest.mark.parametrize(
    ("check", "array", "change"),
    [
        ("logits", "logits", lambda x: x + 1e-4),
        ("padded", "padded", lambda x: x[:, :-1]),
        ("cached", "cached", lambda x: np.roll(x, 1, axis=1)),
        ("tokens", "tokens", lambda x: x + (np.arange(x.size).reshape(x.shape) == 7)),
        ("steps", "steps", lambda x: x * (1 + 1e-3)),
        ("gradients", "gradients/blocks.0.attn.c_proj.weight", lambda x: x.T),
        ("gradients", "gradients/wte.weight", lambda x: x * 1.001),
        ("gradients", "gradients/ln_f.bias", None),
        ("logits", "logits", lambda x: x * np.nan),
    ],
)
def test_each_difference_is_found(answers, check: str, array: str, change) -> None:
    folder, found = answers
    wrong = {n: a for n, a in found.items() if n != array} | ({array: change(found[array])} if change else {})
    for given, state, beyond in ((wrong, "differs", (check,)), (found, "ok", ())):
        for each in CHECKS:
            np.savez(
                answer_file(folder, "jax", each), **{n: a for n, a in given.items() if n.partition("/")[0] == each}
            )
        row = module._row("jax", folder, "pytorch")
        assert (row.state, row.beyond) == (state, beyond)


def test_what_rounding_explains_is_no_difference(answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tolerances of 0 all that a framework says differs, and float64 tells rounding from a mistake."""
    folder, found = answers
    for check in module.ROUNDED:
        monkeypatch.setitem(module.TOLERANCES, check, 0.0)
    for left in folder.glob("jax.*"):
        left.unlink()
    module._run("exact", folder)
    with module._answers(folder, "exact") as exact:
        made = {name: array + (exact[name] - array) * 1.5 for name, array in found.items() if name in exact}
    wrong = made | {"gradients/wte.weight": made["gradients/wte.weight"] * (1 + 1e-5)}
    for given, state, beyond in ((made, "ok", ()), (wrong, "differs", ("gradients",))):
        for check in ("logits", "padded", "gradients"):
            np.savez(answer_file(folder, "jax", check), **{n: a for n, a in given.items() if n.startswith(check)})
        row = module._row("jax", folder, "pytorch")
        assert row.state == "differs" and set(row.beyond) == {"logits", "padded", "gradients"}
        row = module._in_float64(row, folder)
        assert (row.state, row.beyond) == (state, beyond)
        assert all(own <= 0.6 * pytorch for check, (own, pytorch) in row.rounding.items() if check not in row.beyond)


def test_a_wrong_cache_of_pytorch_is_not_taken_for_rounding(answers, tmp_path: Path) -> None:
    folder, found = answers
    shutil.copytree(folder, tmp_path / "wrong")
    np.savez(answer_file(tmp_path / "wrong", "pytorch", "cached"), cached=np.roll(found["cached"], 1, axis=1))
    module._run("exact", tmp_path / "wrong")
    row = module._in_float64(module._row("pytorch", tmp_path / "wrong", "pytorch"), tmp_path / "wrong")
    assert (row.state, row.beyond) == ("differs", ("cached",))


def test_a_worker_that_is_killed_has_failed_and_what_it_did_before_is_shown(answers, monkeypatch) -> None:
    started = []

    class Kept(subprocess.Popen):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(module.subprocess, "Popen", Kept)
    # it goes on until the signal comes: there are two checks to do, and one is done for sure
    module._run("onnx", answers[0], tell=lambda name, check: started[0].kill() if check == "padded" else None)
    row = module._row("onnx", answers[0], "pytorch")
    assert (row.state, row.beyond) == ("failed", ())
    assert {"logits"} <= set(row.differences) < {"logits", "padded", "cached"}
    assert row.why == "its process ended by SIGKILL: most likely no memory was left for it"


def test_what_is_not_installed_is_not_checked_and_what_crashes_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = BACKENDS | {
        "jax": BACKENDS["jax"]._replace(needs=("no_such_framework",)),
        "broken": Backend("Broken", "neural.verification.no_such_peer", (), "torch"),
    }
    for place in ("neural.verification.peer.BACKENDS", "neural.verification.verify.BACKENDS"):
        monkeypatch.setattr(place, peers)
    rows = {row.name: row for row in verify(program("gpt2"), backends=("jax", "broken"))}
    assert rows["pytorch"].state == rows["numpy"].state == "ok"
    assert rows["jax"].state == "not checked"
    assert rows["jax"].why == "no_such_framework is not installed: pip install 'neural-dsl[jax]'"
    assert rows["broken"].state == "failed"
    assert "tensorflow" not in rows


def test_without_pytorch_the_oracle_is_the_reference(monkeypatch: pytest.MonkeyPatch, here: None) -> None:
    peers = BACKENDS | {"pytorch": BACKENDS["pytorch"]._replace(needs=("no_such_framework",))}
    monkeypatch.setattr("neural.verification.verify.BACKENDS", peers)
    rows = {row.name: row for row in verify(program("gpt2"), backends=("onnx",))}
    assert rows["pytorch"].state == "not checked"
    assert (rows["onnx"].state, set(rows["onnx"].differences)) == ("ok", {"logits", "padded", "cached"})


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "c.neural"
    path.write_text(CLASSIFIER)
    app(["verify", str(path), "-b", "onnx"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert printed.startswith("Classifier: largest differences from the reference")
    assert "TensorFlow" not in printed
    request.getfixturevalue("here")
    app(["verify", str(path), "-b", "onnx", "--json"], standalone_mode=False)
    said = json.loads(capsys.readouterr().out)
    assert [row["backend"] for row in said["backends"]] == ["pytorch", "onnx", "numpy"]
    assert all(row["state"] == "ok" for row in said["backends"])


def test_a_difference_is_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, here: None) -> None:
    path = tmp_path / "c.neural"
    path.write_text(CLASSIFIER)
    monkeypatch.setitem(module.TOLERANCES, "logits", -1.0)
    monkeypatch.setattr(module, "AS_FAR", -1.0)
    assert app(["verify", str(path), "-b", "onnx"], standalone_mode=False) == 1
    assert "differs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code"), [((), "N930"), (("c.neural", "--export", "."), "N930"), (("--export", "."), "N931"), (("c.neural", "-b", "jux"), "N012")]
)  # fmt: skip
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.neural").write_text(CLASSIFIER)
    with pytest.raises(NeuralError) as error:
        app(["verify", *arguments], standalone_mode=False)
    assert [d.code for d in error.value.diagnostics] == [code]


def test_seeded_weights_hide_nothing() -> None:
    made = program("gpt2")
    weights = seeded_weights(made, np.random.default_rng(0))
    assert all(np.unique(w).size == w.size for w in weights.values())
    again = seeded_weights(load_again(made), np.random.default_rng(0))
    assert all(np.array_equal(w, again[n]) for n, w in weights.items())


def load_again(made: Program) -> Program:
    return compile_source(Source("again.neural", made.text()))
