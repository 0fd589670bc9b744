"""How a training goes, on stderr: a panel on a terminal (`neural.training.panel`), plain lines elsewhere."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console

from neural.diagnostics.amounts import duration, size

if TYPE_CHECKING:
    from neural.training.run import Run


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a training stands after a step."""

    step: int
    total_steps: int
    loss: float  # nats a token
    tokens_per_second: float
    seconds_left: float
    learning_rate: float
    gradient_norm: float
    memory: int  # bytes that the device holds for it now
    peak_share: float  # of the operations a second that a product of matrices reaches on this device

    def text(self) -> str:
        return (
            f"loss {self.loss:.4f} · {self.tokens_per_second:,.0f} tokens/s · {self.peak_share:.0%} of peak"
            f" · {size(self.memory)} · {duration(self.seconds_left)} left"
        )


class Report(Protocol):
    """What the loop tells while it runs. `due`: at this step a line goes into the metrics."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def stepped(self, standing: Standing, *, due: bool) -> None: ...
    def validated(self, step: int, loss: float) -> None: ...
    def say(self, text: str) -> None: ...


class Silence:
    """For processes that do not lead."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def stepped(self, standing: Standing, *, due: bool) -> None:
        pass

    def validated(self, step: int, loss: float) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class PlainReport(Silence):
    """Lines, for pipes and logs."""

    def stepped(self, standing: Standing, *, due: bool) -> None:
        if due:
            width = len(str(standing.total_steps))
            self.say(f"step {standing.step:>{width}}/{standing.total_steps} · {standing.text()}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def terminal_report(run: Run, device: str) -> Report:
    """A panel if stderr is a terminal that can draw one, else plain lines."""
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal or console.options.ascii_only:
        return PlainReport()
    from neural.training.panel import PanelReport

    return PanelReport(run, device, console)
