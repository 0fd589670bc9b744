"""`neural generate RUN --prompts FILE --output FILE`: many prompts as one batch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from neural.cli.show import note, show

if TYPE_CHECKING:
    from neural.generation.executors import Chosen
    from neural.training.trained import Trained

SLOTS = 16
PREFIX_BYTES = 256 << 20


def write_batch(
    trained: Trained, chosen: Chosen, prompts: Path, output: Path, asked: dict[str, Any], truncate: str | None,
    draft: int,
) -> None:  # fmt: skip
    """Answer every line of `prompts` that `output` has no answer to. Exit code 1 where a line failed."""
    from neural.data.durable import check_place
    from neural.data.progress import byte_progress
    from neural.data.text import open_bytes
    from neural.generation.engine import Engine
    from neural.generation.jobs import Job
    from neural.generation.request import Limits
    from neural.training.signals import StopRequest

    with open_bytes(prompts):
        check_place(output)
    engine = Engine(chosen.open(Limits(slots=SLOTS, prefix_bytes=PREFIX_BYTES, draft_tokens=draft)))
    job = Job(
        engine,
        trained.tokenizer,
        trained.program.context,
        prompts,
        output,
        asked,
        truncate,
        report=lambda d: show((d,)),
    )
    started = time.perf_counter()
    with (
        StopRequest() as stop,
        byte_progress(str(prompts), prompts.stat().st_size, enabled=True) as job.advance,
    ):
        job.stopped = lambda: stop.signal is not None
        tally = job.run()
    speed = tally.tokens / (time.perf_counter() - started)
    before = f", {tally.before} were done before" if tally.before else ""
    failed = f", {tally.failed} failed" if tally.failed else ""
    note(
        f"{tally.done} prompts done{before}{failed}; {tally.tokens} tokens, {speed:.1f} tokens/s, engine {chosen.name}"
    )
    if stop.signal is not None:
        raise typer.Exit(128 + stop.signal)
    if tally.failed:
        raise typer.Exit(1)
