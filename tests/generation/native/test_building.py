"""The C++ on machines that have less, and where it cannot be compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neural.cpp import building
from tests.generation.native.models import (
    PROGRAMS,
    VOCAB_SIZE,
    Reader,
    compiled,
    expected,
    named_weights,
    rounded,
    tokens,
)

INSTRUCTIONS = {
    "AVX2": ("-mno-avx512f", "-mavx2", "-mfma", "-mf16c"),
    "none": ("-mno-avx512f", "-mno-avx2", "-mno-avx"),
}


@pytest.fixture
def other_machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A library for a machine of fewer instructions, in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(building, "FLAGS", (*building.FLAGS, *INSTRUCTIONS[request.param]))
    building.load.cache_clear()
    yield
    building.load.cache_clear()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the instructions are those of x86")
@pytest.mark.parametrize("other_machine", INSTRUCTIONS, indirect=True)
def test_other_machines_give_the_same_numbers(other_machine: None) -> None:
    """But for a text's odd token whose sums, another in the last bit, lie between two integers and go the other way."""
    program, model = compiled(PROGRAMS["rope, grouped"])
    weights, ids = named_weights(program, model), tokens(100)
    theirs = expected(model, ids)
    np.testing.assert_allclose(Reader(program, weights).read(ids), theirs, atol=2e-5 * np.abs(theirs).max())
    there = [Reader(program, rounded(weights, bits, zeros=zeros)).read(ids) for bits, zeros in FORMS]
    building.load.cache_clear()
    here = subprocess.run(
        [sys.executable, "-c", HERE], capture_output=True, check=True, env={**os.environ, "XDG_CACHE_HOME": CACHE}
    )
    apart = np.abs(np.frombuffer(here.stdout, np.float32) - np.ravel(there)).reshape(-1, VOCAB_SIZE).max(axis=1)
    assert np.mean(apart > 1e-4) < 0.03
    assert apart.max() < 0.1 * np.abs(theirs).max()


FORMS = (8, False), (4, False), (4, True)
CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
HERE = """
import sys, numpy as np
from tests.generation.native.models import PROGRAMS, Reader, compiled, named_weights, rounded, tokens
program, model = compiled(PROGRAMS["rope, grouped"])
weights = named_weights(program, model)
forms = (8, False), (4, False), (4, True)
read = [Reader(program, rounded(weights, bits, zeros=zeros)).read(tokens(100)) for bits, zeros in forms]
sys.stdout.buffer.write(np.ravel(read).tobytes())
"""


def failed(**environment: str) -> str:
    """What `neural` says where the engine cannot be made."""
    code = "from neural.cpp.building import prepare; from neural.generation.native.library import ENGINE; prepare(ENGINE, print)"
    run = "from neural.diagnostics.diagnostic import NeuralError\ntry:\n    {}\nexcept NeuralError as e: print(e)"
    done = subprocess.run(
        [sys.executable, "-c", run.format(code.replace("; ", "\n    "))],
        capture_output=True, text=True, check=True, env={**os.environ, **environment},
    )  # fmt: skip
    return done.stdout


def test_no_compiler(tmp_path: Path) -> None:
    assert "N970" in failed(PATH=str(tmp_path), CXX="")


def test_a_compiler_that_fails(tmp_path: Path) -> None:
    assert "N971" in failed(CXX="false", XDG_CACHE_HOME=str(tmp_path))
    assert list((tmp_path / "neural").iterdir()) == []


def test_no_place_for_the_library(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "N971" in failed(XDG_CACHE_HOME=str(tmp_path / "file"))
