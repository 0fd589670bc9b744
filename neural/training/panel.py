"""A training on a terminal: a panel that moves, with the curve of the loss, and above it what is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from neural.diagnostics.amounts import duration, size
from neural.training.braille import draw, place
from neural.training.metrics import read_metrics
from neural.training.report import Standing
from neural.training.run import Run
from neural.training.series import Series, limits

REFRESH = 4  # times a second
LABEL, TILE, WIDEST_TILE = 8, 15, 22  # characters: before the curve, and for a number with its name
CHART_LINES, OTHER_LINES = (4, 10), 13  # of the curve; of a terminal without it
NARROW = 48
FEWEST = 5  # points of a curve
CURVE, MARK = "cyan", "yellow"


class PanelReport:
    """A panel at the foot of the terminal. It begins with what an earlier part of the run measured."""

    def __init__(self, run: Run, device: str, console: Console) -> None:
        self._run, self._device = run, device
        self._console = console
        self._live = Live(self, console=console, refresh_per_second=REFRESH)
        self._loss = Series()
        self._validations: list[tuple[int, float]] = []
        self._standing: Standing | None = None

    def __enter__(self) -> Self:
        for record in read_metrics(self._run.path / "metrics.jsonl"):
            if record["kind"] == "train":
                self._loss.add(record["step"], record["loss"])
            elif record["kind"] == "validation":
                self.validated(record["step"], record["loss"])
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def stepped(self, standing: Standing, *, due: bool) -> None:
        self._loss.add(standing.step, standing.loss)
        self._standing = standing

    def validated(self, step: int, loss: float) -> None:
        self._validations.append((step, loss))

    def say(self, text: str) -> None:
        self._console.print(Text(text))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        standing = self._standing
        if standing is None:
            yield Text("")
            return
        inner = options.max_width - 4
        lines = min(console.size.height - OTHER_LINES, CHART_LINES[1])
        parts: list[RenderableType] = []
        if inner >= NARROW and lines >= CHART_LINES[0] and len(self._loss.points) >= FEWEST:
            parts += [*self._chart(inner - LABEL, lines), Text()]
        parts += [_progress(standing, inner), Text(), *_tiles(self._numbers(standing), inner)]
        record = self._run.record
        title = f"[bold]{record.network}[/] · {record.parameter_count:,} parameters · {self._device}"
        yield Panel(Group(*parts), title=title, title_align="left", border_style="dim", padding=(0, 1))

    def _chart(self, width: int, height: int) -> list[Text]:
        """The curve of the training loss, marks of the validation losses, and both axes."""
        points = self._loss.points
        first, last = points[0][0], points[-1][0]
        shown = [(step, loss) for step, loss in self._validations if step >= first]
        low, high = limits(sorted([*points, *shown]))
        area = (first, last, low, high, width, height)
        lines = [Text(line, style=CURVE) for line in draw(points, *area)]
        for column, row in (place(step, loss, *area) for step, loss in shown):
            lines[row] = lines[row][:column] + Text("●", style=MARK) + lines[row][column + 1 :]
        labels = {0: f"{high:.3g}", height - 1: f"{low:.3g}"}
        foot = f"{first:,}" + f"step {last:,}".rjust(width - len(f"{first:,}"))
        edges = [labels[i].rjust(LABEL - 2) + " ┤" if i in labels else " " * (LABEL - 1) + "│" for i in range(height)]
        drawn = [Text(edge, style="dim") + line for edge, line in zip(edges, lines, strict=True)]
        return [*drawn, Text(" " * LABEL + foot, style="dim")]

    def _numbers(self, standing: Standing) -> Iterator[tuple[str, str, str]]:
        """Each number's name, text and colour."""
        yield "loss", f"{standing.loss:.4f}", CURVE
        if self._validations:
            yield "● validation", f"{self._validations[-1][1]:.4f}", MARK
            step, best = min(self._validations, key=lambda found: found[1])
            yield "its lowest", f"{best:.4f} at {step:,}", ""
        yield "tokens/s", f"{standing.tokens_per_second:,.0f}", ""
        yield "of peak", f"{standing.peak_share:.0%}", ""
        yield "memory", size(standing.memory), ""
        yield "learning rate", f"{standing.learning_rate:.2e}", ""
        yield "gradient norm", f"{standing.gradient_norm:.3g}", ""


def _progress(standing: Standing, width: int) -> RenderableType:
    """Steps, a bar, and the time left."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    done = f"step {standing.step:,} / {standing.total_steps:,}"
    bar = ProgressBar(standing.total_steps, standing.step, complete_style=CURVE, finished_style="green")
    grid.add_row(Text(done, style="bold"), bar if width >= NARROW else "", f"{duration(standing.seconds_left)} left")
    return grid


def _tiles(numbers: Iterator[tuple[str, str, str]], width: int) -> Iterator[Text]:
    """Numbers with their names above them, as many beside each other as there is room for."""
    found = list(numbers)
    across = max(1, width // TILE)
    across = -(-len(found) // -(-len(found) // across))  # as even as they go
    tile = min(width // across, WIDEST_TILE)
    for row in (found[i : i + across] for i in range(0, len(found), across)):
        yield Text("".join(name[: tile - 1].ljust(tile) for name, _, _ in row).rstrip(), style="dim")
        values = Text()
        for _, value, color in row:
            values.append(value[: tile - 1].ljust(tile), style=f"bold {color}".strip())
        yield values
