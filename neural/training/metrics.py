"""What a run measured: `metrics.jsonl`, one JSON object a line, and the same for TensorBoard and Weights & Biases.

Lines have a `kind`: "train" (means over the steps since the line before), "validation", or "sample".
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

from neural.diagnostics.diagnostic import fail
from neural.training.durable import write_text
from neural.training.weights_and_biases import WandbLog

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Record = dict[str, Any]


def read_metrics(path: Path) -> list[Record]:
    """The records of a `metrics.jsonl`, in order. A last line that a crash cut short is left out.

    NeuralError N855 for a line that is not a record.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line end is cut short, or nothing
    return [_record(path, number, line) for number, line in enumerate(lines, 1)]


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        what = f"line {number} of {path} is not a record of metrics"
        fail("N855", what, hint="remove that line: it was changed by hand")
    return record


def truncate_metrics(path: Path, step: int | None) -> None:
    """Drop the records after `step` (all of them for None), which the resumed training will write again."""
    kept = [r for r in read_metrics(path) if step is not None and r["step"] <= step]
    write_text(path, "".join(_line(record) for record in kept))


def last_validation(path: Path) -> Record | None:
    """The newest "validation" record of a `metrics.jsonl`."""
    return next((record for record in reversed(read_metrics(path)) if record["kind"] == "validation"), None)


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def _tensorboard(folder: Path, purge: int | None) -> SummaryWriter:
    """A writer of events."""
    return _summary_writer()(str(folder), purge_step=purge)


def _summary_writer() -> type[SummaryWriter]:
    """TensorBoard would load TensorFlow, for seconds, where there is one, and needs none of it."""
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter


class MetricsLog:
    """Appends records to a run's `metrics.jsonl` and `tensorboard/`, and tells Weights & Biases if the run asks for it.

    `resumed`: the step of the checkpoint, or None. `url`: where Weights & Biases shows it, or None.
    """

    def __init__(self, run: Path, resumed: int | None) -> None:
        truncate_metrics(run / "metrics.jsonl", resumed)
        self._file = (run / "metrics.jsonl").open("a", encoding="utf-8")
        purge = None if resumed is None else resumed + 1  # hides the events that will be written again
        self._tensorboard = _tensorboard(run / "tensorboard", purge)
        self._wandb = WandbLog.open(run)
        self.url = self._wandb.url if self._wandb else None

    def write(self, kind: str, step: int, values: Record) -> None:
        """ValueError if a value is not finite: such a step is never measured, it stops the training."""
        self._file.write(_line({"kind": kind, "step": step, **values}))
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, str):
                self._tensorboard.add_text(kind, f"    {value}".replace("\n", "\n    "), step)
            elif value is not None:
                self._tensorboard.add_scalar(f"{name}/{kind}", value, step)
        if self._wandb:
            self._wandb.write(kind, step, values)

    def flush(self) -> None:
        """Everything written so far is on the disk when this returns: called before a checkpoint is marked complete."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._tensorboard.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._file.close()
        self._tensorboard.close()
        if self._wandb:
            self._wandb.close(failed=error is not None)


class NoLog:
    """What a process that does not lead writes."""

    url: str | None = None

    def write(self, kind: str, step: int, values: Record) -> None:
        pass

    def flush(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass
