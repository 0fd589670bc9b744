"""`neural generate RUN --prompts FILE --output FILE`: many prompts as one batch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from neural.cli.show import note, show

if TYPE_CHECKING:
    from neural.generation.executor import Opener
    from neural.generation.executors import Chosen
    from neural.training.trained import Trained

SLOTS = 16
PREFIX_BYTES = 256 << 20


def write_batch(
    trained: Trained, chosen: Chosen, prompts: Path, output: Path, asked: dict[str, Any], truncate: str | None,
    draft: int, drafter: Opener | None,
) -> None:  # fmt: skip
    """Answer every line of `prompts` that `output` has no answer to. Exit code 1 where a line failed."""
    from neural.data.durable import check_place
    from neural.data.progress import byte_progress
    from neural.data.text import open_bytes
    from neural.generation.constraint import constrain
    from neural.generation.drafting import DraftModel
    from neural.generation.engine import Engine
    from neural.generation.jobs import Job
    from neural.generation.request import Limits
    from neural.generation.tasks import CONSTRAINTS
    from neural.training.signals import StopRequest

    with open_bytes(prompts):
        check_place(output)
    context, tokenizer = trained.program.context, trained.tokenizer
    constrain(tokenizer, **{name: asked.get(name) for name in CONSTRAINTS})  # a wrong one is told once, and now
    limits = Limits(slots=SLOTS, prefix_bytes=PREFIX_BYTES, draft_tokens=draft)
    engine = Engine(chosen.open(limits), drafter and DraftModel(drafter(limits)))
    job = Job(engine, tokenizer, context, prompts, output, asked, truncate, report=lambda d: show((d,)))
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
    wrote = f"{tally.tokens} tokens, {speed:.1f} tokens/s, engine {chosen.name}"
    note(f"{tally.done} prompts done{before}{failed}; {wrote}")
    if stop.signal is not None:
        raise typer.Exit(128 + stop.signal)
    if tally.failed:
        raise typer.Exit(1)
