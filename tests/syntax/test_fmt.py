"""`neural fmt`: files, folders and standard input."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from neural.cli.fmt import write_formatted
from tests.forked.command import neural

UGLY, CANONICAL = "param a=1 # one\n", "param a = 1  # one\n"
BROKEN = "param a=\n"


def fmt(*arguments: str | Path, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
    data = stdin.encode() if isinstance(stdin, str) else stdin
    run = neural("fmt", *arguments, input=data, text=False)
    return subprocess.CompletedProcess(run.args, run.returncode, run.stdout.decode(), run.stderr.decode())


@pytest.fixture
def ugly(tmp_path: Path) -> Path:
    path = tmp_path / "a.neural"
    path.write_text(UGLY)
    return path


def test_a_file_is_rewritten_in_place_once(ugly: Path) -> None:
    ugly.chmod(0o640)
    run = fmt(ugly)
    assert (run.returncode, run.stdout) == (0, f"formatted {ugly}\n")
    assert ugly.read_text() == CANONICAL
    assert ugly.stat().st_mode & 0o777 == 0o640
    assert list(ugly.parent.iterdir()) == [ugly]
    before = ugly.stat().st_ino
    assert fmt(ugly).stdout == ""
    assert ugly.stat().st_ino == before


def test_check_writes_nothing_and_shows_the_difference(ugly: Path) -> None:
    run = fmt("--check", ugly)
    assert run.returncode == 1
    assert "-param a=1 # one\n+param a = 1  # one" in run.stdout
    assert ugly.read_text() == UGLY
    ugly.write_text(CANONICAL)
    assert fmt("--check", ugly).returncode == 0


def test_folders_are_searched_but_for_hidden_ones(tmp_path: Path) -> None:
    for name in ("a.neural", "deep/er/b.neural", ".hidden/c.neural", "d.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(UGLY)
    assert fmt(tmp_path).returncode == 0
    changed = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file() and p.read_text() != UGLY)
    assert changed == ["a.neural", "deep/er/b.neural"]


def test_a_broken_file_is_left_alone_and_the_others_are_formatted(ugly: Path) -> None:
    broken = ugly.with_name("b.neural")
    broken.write_text(BROKEN)
    run = fmt(broken, ugly)
    assert run.returncode == 2
    assert "error[N121]" in run.stderr and "b.neural:1:9" in run.stderr
    assert broken.read_text() == BROKEN and ugly.read_text() == CANONICAL


def test_standard_input() -> None:
    assert fmt("-", stdin=UGLY).stdout == CANONICAL
    assert fmt("-", "--check", stdin=CANONICAL).returncode == 0
    assert fmt("-", "--check", stdin=UGLY).returncode == 1
    assert fmt("-", stdin=BROKEN).returncode == 2
    assert "N006" in fmt("-", stdin=b"\xff\xfe").stderr


@pytest.mark.parametrize(("argument", "code"), [("gone.neural", "N001"), ("empty", "N014"), ("notes.txt", "N002")])
def test_what_cannot_be_formatted(tmp_path: Path, argument: str, code: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    run = fmt(tmp_path / argument)
    assert run.returncode == 2 and f"error[{code}]" in run.stderr


def test_a_link_stays_a_link(ugly: Path) -> None:
    link = ugly.with_name("link.neural")
    link.symlink_to(ugly.name)
    fmt(link)
    assert link.is_symlink() and ugly.read_text() == CANONICAL


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(ugly: Path) -> None:
    ugly.parent.chmod(0o500)
    run = fmt(ugly)
    ugly.parent.chmod(0o700)
    assert run.returncode == 2 and "permission denied" in run.stderr
    assert ugly.read_text() == UGLY


def test_nothing_is_left_behind_when_writing_fails(ugly: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_formatted(ugly, "param b=2")
    assert ugly.read_text() == UGLY and list(ugly.parent.iterdir()) == [ugly]


def test_fixed_files_are_formatted_if_they_parse(ugly: Path) -> None:
    write_formatted(ugly, "param b=2")
    assert ugly.read_text() == "param b = 2\n"
    write_formatted(ugly, BROKEN)
    assert ugly.read_text() == BROKEN
