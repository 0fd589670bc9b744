"""Bad input through the real command line: one clear message, exit code 2, nothing half-written, never a traceback."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.forked.command import neural

GOOD = "param n = 4\nparam wide = 8\nnetwork Net { input: (16,) layers: Dense(wide) Dense(n) }\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs")
    files = {
        "good.neural": GOOD,
        "good.txt": GOOD,
        "braces.neural": "{" * 10_000_000,
        "recursion.neural": "define A() { A() } network N { input: (3,) layers: A() }",
        "heads.neural": "network N { input: (4, 10) layers: MultiHeadAttention(num_heads=3) }",
        "negative.neural": "network N { input: (3,) layers: Dense(-4) }",
        "huge.neural": "network N { input: (3,) layers: Dense(9223372036854775808) }",
        "total.neural": "network N { input: (4294967296,) layers: Dense(4294967296) }",
        "power.neural": "param x = 2 ** 99999 network N { input: (3,) layers: Dense(4) }",
        "hundreds.neural": "network N { input: (3,) layers: " + "Dense(% 3) " * 500 + "}",
        "empty.neural": "",
    }
    for name, text in files.items():
        (path / name).write_text(text)
    (path / "binary.neural").write_bytes(bytes(range(256)) * 40)
    (path / "folder").mkdir()
    os.mkfifo(path / "pipe.neural")
    return path


ROWS = [
    ("check gone.neural", "N001"),
    ("check folder", "N003"),
    ("check good.txt", "N002"),
    ("check /dev/zero", "N002"),
    ("check pipe.neural", "N004"),
    ("check good.neural/x.neural", "N004"),
    (f"check {'x' * 300}.neural", "N004"),
    ("check binary.neural", "N006"),
    ("check braces.neural", "N101"),
    ("check empty.neural", "N009"),
    ("check recursion.neural", "N213"),
    ("check heads.neural", "N402"),
    ("check negative.neural", "N311"),
    ("check huge.neural", "N306"),
    ("check total.neural", "N412"),
    ("check power.neural", "N306"),
    ("check good.neural --network Nat", "N007"),
    ("check good.neural --set m=3", "N205"),
    ("check good.neural --set n", "N011"),
    ("check good.neural --set =3", "N011"),
    ("check good.neural --set n=", "N011"),
    ("check good.neural --set n=0", "N311"),
    ("check good.neural --set n=-1", "N311"),
    ("check good.neural --set n=1.5", "N311"),
    ("check good.neural --set n=none", "N311"),
    ("check good.neural --set n=some", "N311"),
    ("check good.neural --set n=99999999999999999999", "N306"),
    ("check good.neural --set n=1 --set wide=0", "N311"),
    ("compile gone.neural", "N001"),
    ("compile good.neural --backend tensorflwo", "N012"),
    ("compile negative.neural --output out.py", "N311"),
    ("fmt gone.neural", "N001"),
    ("fmt folder", "N014"),
    ("fmt binary.neural", "N006"),
    ("explain N099", "N013"),
]


@pytest.mark.parametrize(("command", "code"), ROWS)
def test_a_mistake_is_one_clear_message(folder: Path, command: str, code: str) -> None:
    before = {p.name for p in folder.iterdir()}
    run = neural(*command.split(), cwd=folder)
    assert run.returncode == 2, run.stderr
    assert re.findall(r"^(?:error|warning|note)\[(N\d{3})\]", run.stderr, re.MULTILINE) == [code]
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    assert len(run.stderr) < 2000
    assert {p.name for p in folder.iterdir()} == before


def test_hundreds_of_mistakes_are_told_up_to_a_hundred(folder: Path) -> None:
    run = neural("check", "hundreds.neural", cwd=folder)
    assert run.returncode == 2
    assert len(re.findall(r"^error\[", run.stderr, re.MULTILINE)) == 101
    assert "error[N100]" in run.stderr


@pytest.mark.parametrize(
    "command", ["check", "check good.neural --bogus", "chekc good.neural", "compile good.neural --backend"]
)
def test_a_wrong_command_line(folder: Path, command: str) -> None:
    run = neural(*command.split(), cwd=folder)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read(folder: Path) -> None:
    secret = folder / "secret.neural"
    secret.write_text(GOOD)
    secret.chmod(0)
    run = neural("check", "secret.neural", cwd=folder)
    secret.unlink()
    assert run.returncode == 2
    assert "error[N004]: secret.neural cannot be read: permission denied" in run.stderr


def test_json_for_tools(folder: Path) -> None:
    run = neural("check", "negative.neural", "--json", cwd=folder)
    found = json.loads(run.stdout)
    assert (run.returncode, run.stderr, found["sound"]) == (2, "", False)
    (message,) = found["diagnostics"]
    assert (message["code"], message["start"]["line"], message["file"]) == ("N311", 1, "negative.neural")
    run = neural("check", "good.neural", "--set", "n=5", "--json", cwd=folder)
    found = json.loads(run.stdout)
    assert (run.returncode, found["sound"], found["parameters"]) == (0, True, 16 * 8 + 8 + 8 * 5 + 5)


def test_fixes_are_written_and_the_rest_is_told(folder: Path) -> None:
    program = folder / "shorthand.neural"
    program.write_text("network N { input: (16,) layers: Dense(16) Add() Dense(units=-1) }")
    run = neural("check", "shorthand.neural", "--fix", cwd=folder)
    text = program.read_text()
    program.unlink()
    assert run.returncode == 2
    assert "Residual {" in text
    assert "error[N311]" in run.stderr
    assert "N601" not in run.stderr


def test_a_fix_does_not_touch_a_sound_file(folder: Path) -> None:
    before = (folder / "good.neural").read_bytes()
    assert neural("check", "good.neural", "--fix", cwd=folder).returncode == 0
    assert (folder / "good.neural").read_bytes() == before


@pytest.mark.parametrize("output", ["folder", "missing/out.py"])
def test_source_that_cannot_be_written(folder: Path, output: str) -> None:
    run = neural("compile", "good.neural", "--output", output, cwd=folder)
    assert run.returncode == 2
    assert "error[N010]" in run.stderr
    assert not list(folder.glob("*.tmp"))
    assert not list((folder / "folder").iterdir())
