"""Every block of code in README.md and docs/ is run, in the order of its page, by the shell and the Python it names."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from neural.compiler import compile_source
from neural.diagnostics.source import Source
from tests.forked.command import command

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = ("make ", "git ", "cd ", "pip ")  # what sets the project up, which the test has done

EXACT = ("neural check ", "neural compile ", "neural explain ", "neural fmt ", "neural plan ")  # what measures nothing


def blocks(kind: str):
    for page in PAGES:
        for i, (language, text) in enumerate(BLOCK.findall(page.read_text())):
            if language == kind:
                yield pytest.param(page, text, id=f"{page.stem}-{i}")


@pytest.mark.parametrize(("page", "text"), list(blocks("neural")))
def test_programs_compile(page: Path, text: str) -> None:
    compile_source(Source(str(ROOT / "examples" / "block.neural"), text))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_languages_are_known(page: Path) -> None:
    kinds = {language for language, _ in BLOCK.findall(page.read_text())}
    assert kinds <= {"neural", "console", "python", "text"}
    assert page.read_text().count("```") == 2 * len(BLOCK.findall(page.read_text()))


@pytest.mark.parametrize(
    "page", [p for p in PAGES if re.search("^```(console|python)", p.read_text(), re.MULTILINE)], ids=lambda p: p.stem
)
def test_commands_and_python_run(page: Path, tmp_path: Path) -> None:
    """`$ ` lines must end with 0, or with the code that a line `(exit code n)` below them says; each line that is shown
    without `…` must be in what they print, and without numbers where those are measured."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    if page.stem != "README":  # which has the command as it is installed
        script = tmp_path / "bin" / "neural"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
        script.chmod(0o755)
        path = f"{script.parent}:{path}"
    environment = {
        **os.environ,
        "PATH": path,
        "COLUMNS": "100",
        "PYTHONPATH": str(tmp_path),
    }
    for language, text in BLOCK.findall(page.read_text()):
        if language == "python":
            run = subprocess.run(
                [sys.executable, "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert run.returncode == 0, f"{text}\n{run.stderr}"
        elif language == "console":
            _console(text, tmp_path, environment)


def _console(text: str, folder: Path, environment: dict[str, str]) -> None:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        while command.endswith("\\"):
            more, _, shown = shown.partition("\n")
            command = command[:-1] + more
        if heredoc := re.search(r"<<'(\w+)'", command):
            body, _, shown = shown.partition(f"\n{heredoc[1]}\n")
            command = f"{command}\n{body}\n{heredoc[1]}\n"
        command = command.split("  #")[0]
        if command.startswith(NOT_RUN):
            continue
        run = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
        expected = re.search(r"\(exit code (\d+)\)", shown)
        assert run.returncode == (int(expected[1]) if expected else 0), f"{command}\n{run.stdout}{run.stderr}"
        printed = run.stdout + run.stderr
        measured = "…|exit code" if command.startswith(EXACT) else r"\d|…|exit code"
        for line in shown.splitlines():
            if line.strip() and not re.search(measured, line):
                assert line.strip() in printed, f"{command}: {line!r} is not in\n{printed}"
