"""A step that stopped a training, once more: which batch, which layer, which weights."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neural.diagnostics.diagnostic import fail
from neural.training.checkpoint import Checkpoint
from neural.training.compiling import compile_where_it_wins, warm_up
from neural.training.distributed.parallel import Parallel
from neural.training.loss import Batch
from neural.training.precision import chosen_precision
from neural.training.run import Run
from neural.training.session import choose_device, to_device
from neural.training.shares import alone
from neural.training.step import accumulate_gradients

NEAR = 1e-3  # of the numbers of a training that was compiled and is not here, or of several processes


@dataclass(frozen=True, slots=True)
class ReplayedBatch:
    """One forward and backward pass of the step."""

    index: int  # in the training data
    loss: float
    not_finite: str | None  # the first layer whose output is not finite


@dataclass(frozen=True, slots=True)
class Replay:
    """What a step gave the second time."""

    step: int
    batches: tuple[ReplayedBatch, ...]
    loss: float
    gradient_norm: float
    reproduced: bool  # loss and norm are those that stopped the training: to the bit (all NaN being one), or to NEAR
    weights_not_finite: tuple[str, ...]
    gradients_not_finite: tuple[str, ...]


def replay_step(run: Run, device: str = "auto") -> Replay:
    """Do the step that stopped a training again, from its weights, batches and generators; it is not applied.

    NeuralError: N808, N833 (the run keeps no such step), N853, N854, N855, N856, N858.
    """
    folder = run.path / "nonfinite"
    said = _read(folder)
    where = choose_device(device)
    checkpoint = Checkpoint.open(folder / said["checkpoint"])
    run.require_own(checkpoint)
    model = run.new_model().to(where)
    checkpoint.load_model(model)
    indices = [batch["index"] for batch in said["batches"]]
    batches = [to_device(run.data.training.batch(index), where) for index in indices]
    parallel = alone(model.train(), run.program.settings.train.batch_size)
    parallel.loss.precision, _ = chosen_precision(run.program, where)
    state = checkpoint.state
    state.randomness.restore(where)
    layers = [_first_not_finite(parallel, batch) for batch in batches]
    execution = run.record.execution or {}
    if execution.get("compiled"):
        compile_where_it_wins(run.program, parallel, where)
    if parallel.loss.compiled is not None:
        warm_up(parallel, batches[0], say=lambda _: None)
    model.zero_grad(set_to_none=True)
    state.randomness.restore(where)
    factor = state.scale.value if state.scale else 1.0
    with parallel.stepping():
        losses = accumulate_gradients(parallel, batches, factor)
        parallel.multiply(1 / factor)
        norm = parallel.norm().item()
    loss = losses.mean().item()
    otherwise = execution.get("compiled") and parallel.loss.compiled is None
    named = list(model.named_parameters())
    near = NEAR if otherwise or execution.get("processes", 1) > 1 else 0.0
    return Replay(
        said["step"],
        tuple(ReplayedBatch(*found) for found in zip(indices, losses.tolist(), layers, strict=True)),
        loss,
        norm,
        _same(loss, said["loss"], near) and _same(norm, said["gradient_norm"], near),
        tuple(name for name, p in named if not p.isfinite().all()),
        tuple(name for name, p in named if p.grad is not None and not p.grad.isfinite().all()),
    )


def _read(folder: Path) -> dict[str, Any]:
    file = folder / "batch.json"
    if not file.is_file():
        what = f"{folder.parent} keeps no step to replay: none of its losses or gradients was other than finite"
        fail("N833", what, hint="`neural runs` shows as `failed` what was stopped by one")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        fail("N855", f"{file} does not read: {error}", hint="the file was changed or damaged")


def _first_not_finite(parallel: Parallel, batch: Batch) -> str | None:
    """The first layer whose output is not finite. It is called outside of compiled code, which calls no hooks."""
    found: list[str] = []

    def look(name: str):
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and not found and not output.isfinite().all():
                found.append(name)

        return hook

    hooks = [module.register_forward_hook(look(name)) for name, module in parallel.model.named_modules() if name]
    parallel.gradient(batch, 1.0)
    for hook in hooks:
        hook.remove()
    return found[0] if found else None


def _same(value: float, said: float | str, near: float) -> bool:
    """`said` is a number, or how `str` writes one that JSON cannot. near: how far it may be, of the number."""
    if not math.isfinite(value) or isinstance(said, str):
        return str(value) == said
    return math.isclose(value, said, rel_tol=near)
