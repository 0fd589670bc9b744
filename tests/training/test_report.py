from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from neural.training.report import PlainReport, Standing, duration

LIVE = """
from neural.training.report import Standing, terminal_report
with terminal_report() as report:
    report.stepped(Standing(1, 20, 3.0, 100.0, 9.0), due=False)
    report.say("step 1 · validation loss 2.5 [bold]")
    report.stepped(Standing(2, 20, 2.875, 1234.5, 61.0), due=False)
"""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (41.6, "0:42"), (59.7, "1:00"), (725, "12:05"), (11045, "3:04:05")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("due", "lines"), [(True, 1), (False, 0)])
def test_plain_lines_come_when_they_are_due(capsys: pytest.CaptureFixture[str], due: bool, lines: int) -> None:
    PlainReport().stepped(Standing(20, 2000, 2.87654, 51234.4, 61.0), due=due)
    expected = "step   20/2000 · loss 2.8765 · 51,234 tokens/s · 1:01 left\n" * lines
    assert capsys.readouterr().err == expected


def test_a_terminal_gets_a_line_that_moves() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([sys.executable, "-c", LIVE], stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # Linux says EIO where the other side has gone
        pass
    assert process.wait() == 0
    text = shown.decode()
    assert "step 2/20" in text and "loss 2.8750 · 1,234 tokens/s · 1:01 left" in text
    assert "validation loss 2.5 [bold]" in text
