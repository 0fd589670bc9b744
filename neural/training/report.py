"""How a training goes, on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a training stands after a step."""

    step: int
    total_steps: int
    loss: float  # nats a token
    tokens_per_second: float
    seconds_left: float

    def text(self) -> str:
        return f"loss {self.loss:.4f} · {self.tokens_per_second:,.0f} tokens/s · {duration(self.seconds_left)} left"


def duration(seconds: float) -> str:
    """Seconds as 0:42, 12:05 or 3:04:05."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Report(Protocol):
    """What the loop tells while it runs. `due`: at this step a line goes into the metrics."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def stepped(self, standing: Standing, *, due: bool) -> None: ...
    def say(self, text: str) -> None: ...


class Silence:
    """For processes that do not lead."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def stepped(self, standing: Standing, *, due: bool) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class PlainReport:
    """Lines, for pipes and logs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def stepped(self, standing: Standing, *, due: bool) -> None:
        if due:
            width = len(str(standing.total_steps))
            self.say(f"step {standing.step:>{width}}/{standing.total_steps} · {standing.text()}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class LiveReport:
    """One line that moves, and above it what is said."""

    def __init__(self) -> None:
        columns = (TextColumn("step {task.completed}/{task.total}"), BarColumn(), TextColumn("{task.fields[text]}"))
        self._progress = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
        self._task = self._progress.add_task("training", total=None, text="", visible=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def stepped(self, standing: Standing, *, due: bool) -> None:
        total, text = standing.total_steps, standing.text()
        self._progress.update(self._task, completed=standing.step, total=total, text=text, visible=True)

    def say(self, text: str) -> None:
        self._progress.console.print(Text(text))


def terminal_report() -> Report:
    """A live line if stderr is a terminal, else plain lines."""
    return LiveReport() if sys.stderr.isatty() else PlainReport()
