"""How far a long reading is: a bar on a terminal, a line now and then elsewhere. Both on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def byte_progress(doing: str, total: int, *, enabled: bool) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with each number of bytes that are done. Ends with a line of size, time and speed."""
    if not enabled:
        yield lambda _: None
        return
    start = time.monotonic()
    with _bar(doing, total) if sys.stderr.isatty() else _lines(doing, total, start) as advance:
        yield advance
    seconds = max(time.monotonic() - start, 1e-9)
    print(f"{doing}: {_size(total)} in {seconds:.1f} s ({_size(total / seconds)}/s)", file=sys.stderr)


@contextmanager
def _bar(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda n: progress.advance(task, n)


@contextmanager
def _lines(doing: str, total: int, start: float) -> Iterator[Callable[[int], None]]:
    done, told = 0, start

    def advance(n: int) -> None:
        nonlocal done, told
        done += n
        now = time.monotonic()
        if now - told >= SECONDS_BETWEEN_LINES and done:
            told = now
            left = (now - start) * max(total - done, 0) / done
            speed = _size(done / (now - start))
            print(f"{doing}: {_size(done)} of {_size(total)}, {speed}/s, {left:.0f} s left", file=sys.stderr)

    yield advance


def _size(n: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.2f} GB"
