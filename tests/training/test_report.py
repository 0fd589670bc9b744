from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from neural.diagnostics.amounts import duration, size
from neural.training.braille import draw
from neural.training.loop import train
from neural.training.panel import PanelReport
from neural.training.report import PlainReport, Standing
from neural.training.series import Series, limits
from tests.forked.command import command


def standing(step: int, loss: float = 2.87654) -> Standing:
    return Standing(step, 2000, loss, 51234.4, 61.0, 1e-3, 0.4211, 432 << 20, 0.48)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (41.6, "0:42"), (59.7, "1:00"), (725, "12:05"), (11045, "3:04:05"), (183845, "2 d 3:04:05")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "0.977 KiB"), (432 << 20, "432 MiB"), (5 << 40, "5 TiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(("due", "lines"), [(True, 1), (False, 0)])
def test_plain_lines_come_when_they_are_due(capsys: pytest.CaptureFixture[str], due: bool, lines: int) -> None:
    PlainReport().stepped(standing(20), due=due)
    expected = "step   20/2000 · loss 2.8765 · 51,234 tokens/s · 48% of peak · 432 MiB · 1:01 left\n" * lines
    assert capsys.readouterr().err == expected


def shown(run, width: int, height: int, *, no_color: bool = False, steps: int = 60) -> str:
    """A panel as a terminal of that size has it, its colours as escape codes."""
    console = Console(width=width, height=height, force_terminal=True, color_system="truecolor", no_color=no_color)
    report = PanelReport(run, "cpu", console)
    for step in range(1, steps + 1):
        report.stepped(standing(step, 4.0 / step**0.25), due=False)
        if step % 20 == 0:
            report.validated(step, 4.1 / step**0.25)
    with console.capture() as captured:
        console.print(report)
    return captured.get()


@pytest.mark.parametrize(
    ("width", "height", "curve"), [(120, 40, True), (60, 24, True), (60, 12, False), (30, 40, False)]
)
def test_a_panel_fits_its_terminal(make_run, width: int, height: int, curve: bool) -> None:
    text = shown(make_run(), width, height, no_color=True)
    lines = text.splitlines()
    assert any(0x2801 <= ord(c) <= 0x28FF for c in text) == curve and (text.count("●") > 1) == curve
    assert len(lines) <= height or height < 16
    for said in ("step 60 / 2,000", "1:01 left", "48%", "432 MiB", "51,234"):
        assert said in text


def test_colours_are_left_out_where_they_are_not_wanted(make_run) -> None:
    run = make_run()
    assert "\x1b[36m" in shown(run, 100, 30) and "\x1b[36m" not in shown(run, 100, 30, no_color=True)


def test_a_panel_goes_on_with_the_curve_of_a_run_that_is_resumed(make_run) -> None:
    run = make_run(steps=20, log_every=1)
    train(run, stop_at=10, report=PlainReport())
    with Path(os.devnull).open("w") as nowhere, PanelReport(run, "cpu", Console(file=nowhere)) as report:
        assert [step for step, _ in report._loss.points] == list(range(1, 11))


def on_a_terminal(path: Path, **environment: str) -> str:
    """What the training of a run shows on a terminal of 100 × 30."""
    ours, theirs = pty.openpty()
    size = {"COLUMNS": "100", "LINES": "30", "TERM": "xterm", **environment}
    process = subprocess.Popen(
        [*command(), "train", "--resume", str(path), "--stop-at", "12"], stderr=theirs, env={**os.environ, **size}
    )
    os.close(theirs)
    found = b""
    try:
        while part := os.read(ours, 4096):
            found += part
    except OSError:  # Linux says EIO where the other side has gone
        pass
    assert process.wait() == 0, found.decode()
    return found.decode()


@pytest.mark.parametrize(("term", "panel"), [("xterm", True), ("dumb", False)])
def test_a_terminal_gets_a_panel_if_it_can_draw_one(make_run, term: str, panel: bool) -> None:
    text = on_a_terminal(make_run(log_every=1).path, TERM=term)
    assert ("╭─" in text) == panel and ("step 12/40 · loss" in text) != panel
    assert "validation loss" in text


def test_many_points_become_their_means() -> None:
    series = Series(most=100)
    for step in range(1, 1001):
        series.add(step, float(step % 2))
    assert 50 <= len(series.points) <= 100 and {value for _, value in series.points} == {0.5}
    assert [step for step, _ in series.points] == sorted(step for step, _ in series.points)


def test_the_first_fall_does_not_flatten_what_follows() -> None:
    low, high = limits([(1, 10.0), *((step, 2.0 - step / 200) for step in range(10, 101))])
    assert 1.4 < low < 1.5 and 1.9 < high < 2.1
    assert limits([(5, 3.0)]) == (1.5, 4.5)


def test_a_curve_in_characters() -> None:
    assert draw([(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)], 0, 3, 0.0, 3.0, 2, 1) == ["⣠⠞"]
    assert draw([(0, 1.0)], 0, 0, 1.0, 1.0, 2, 1) == ["⡀⠀"]
