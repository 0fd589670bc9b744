"""A loss or a gradient that is not a number: keep what reproduces it, and say what to do."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import NoReturn

from neural.diagnostics.diagnostic import fail
from neural.training.checkpoint import checkpoint_name
from neural.training.checkpoint_writing import save
from neural.training.durable import remove_tree, write_json
from neural.training.randomness import RandomState
from neural.training.session import Session
from neural.training.step import NonFiniteStep


def stop_on_nonfinite(session: Session, error: NonFiniteStep, randomness: tuple[RandomState, ...]) -> NoReturn:
    """Keep a checkpoint of the moment before the step, and the batch, in `nonfinite/`; raise N810.

    The folder is apart from `checkpoints/`: the weights may be broken already, and resuming must not begin with them.
    """
    run = session.run
    path = _keep(session, error, randomness)
    what = "loss" if not math.isfinite(error.result.loss) else "gradient's norm"
    value = error.result.loss if what == "loss" else error.result.gradient_norm
    step, rate = session.step + 1, session.schedule(session.step)
    last = session.cursor + session.train.gradient_accumulation - 1
    batch = f"batch {session.cursor}" if last == session.cursor else f"batches {session.cursor} to {last}"
    starts = session.data.training.starts(session.cursor).tolist()
    offsets = ", ".join(f"{start:,}" for start in starts[:4]) + (", …" if len(starts) > 4 else "")
    if session.leads:
        run.set_state("failed")
    fail(
        "N810",
        f"the {what} is {value} at step {step}; the step was not applied",
        notes=(
            f"{batch} of the training data, whose sequences begin at the tokens {offsets}; learning rate {rate:.3g}",
            f"the state before the step and the batch are in {path}",
            f"after which layer it came: neural train --replay-step {shlex.quote(str(run.path))}",
        ),
        hint=_advice(session),
    )


def stop_on_nonfinite_validation(session: Session, loss: float) -> NoReturn:
    """The weights of the step just done give no finite loss: no checkpoint of them is written; raise N811."""
    if session.leads:
        session.run.set_state("failed")
    broken = [name for name, weight in session.model.named_parameters() if not weight.isfinite().all()]
    fail(
        "N811",
        f"the validation loss is {loss} after step {session.step}",
        notes=(f"weights that are not finite: {', '.join(broken[:4]) or 'none, so the sums overflow'}",),
        hint=_advice(session),
    )


def _advice(session: Session) -> str:
    clip = "" if session.train.gradient_clip else "set gradient_clip: 1.0, "
    return f"{clip}lower the learning rate or lengthen warmup_steps, and train a new run"


def _keep(session: Session, error: NonFiniteStep, randomness: tuple[RandomState, ...]) -> Path:
    folder = session.run.path / "nonfinite"
    if session.leads and folder.exists():
        remove_tree(folder)
    save(folder, session.parallel, session.optimizer, session.state(randomness))
    if not session.leads:
        return folder
    indices = range(session.cursor, session.cursor + session.train.gradient_accumulation)
    losses = [_said(loss) for loss in error.losses]
    if session.parallel.data_size > 1:  # a process's losses are those of its share, not of whole batches
        losses = [None] * len(indices)
    batches = [
        {"index": index, "loss": loss, "token_offsets": session.data.training.starts(index).tolist()}
        for index, loss in zip(indices, losses, strict=True)
    ]
    value = {
        "step": session.step + 1,
        "checkpoint": checkpoint_name(session.step),
        "loss": _said(error.result.loss),
        "gradient_norm": _said(error.result.gradient_norm),
        "weights_not_finite": [n for n, p in session.model.named_parameters() if not p.isfinite().all()],
        "gradients_not_finite": [
            n for n, p in session.model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()
        ],
        "batches": batches,
    }
    write_json(folder / "batch.json", value)
    return folder


def _said(value: float) -> float | str:
    """JSON has no NaN: "nan", "inf"."""
    return value if math.isfinite(value) else str(value)
