"""Whether a run's program is still the one that its checkpoint was trained with."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

from neural.compiler import Program, compile_source
from neural.diagnostics.diagnostic import fail
from neural.diagnostics.source import Source
from neural.graph.graph import Network
from neural.training.checkpoint import Checkpoint

SHOWN = 6  # lines that differ
# Of the `train` section, what may change between two parts of one training.
FREE = (
    "steps",
    "epochs",
    "eval_every",
    "eval_batches",
    "sample_every",
    "save_every",
    "keep_checkpoints",
    "log_every",
)


def require_same_program(run: Path, program: Program, checkpoint: Checkpoint) -> None:
    """NeuralError N845, with the lines that differ, where they mean another model or another training."""
    then, now = checkpoint.state.program, program.text()
    if not then or then == now:
        return
    before = compile_source(Source(str(run / "program.neural"), then), network=program.name)
    if _same_training(before.graph, program.graph):
        return
    signs = {"- ": "then", "+ ": "now"}
    lines = difflib.ndiff(then.splitlines(), now.splitlines())
    differing = [f"{signs[line[:2]]}: {line[2:].strip()}" for line in lines if line[:2] in signs and line[2:].strip()]
    more = len(differing) - SHOWN
    fail(
        "N845",
        f"{run}/program.neural is not the program that {checkpoint.path.name} was trained with",
        notes=(*differing[:SHOWN], *([f"and {more} lines more"] if more > 0 else [])),
        hint=f'put it back, or train the new program as a run of its own; `weights: "{run}"` in it begins with these '
        "weights",
    )


def _same_training(before: Network, now: Network) -> bool:
    mine, theirs = before.settings, now.settings
    train = replace(mine.train, **{name: getattr(theirs.train, name) for name in FREE})
    free = {name: getattr(theirs, name) for name in ("metrics", "data", "tokenizer", "weights", "execution")}
    block = replace(before.block, params=now.block.params)  # all of the file's: what they set is in nodes and settings
    return replace(before, block=block, settings=replace(mine, train=train, **free)) == now
