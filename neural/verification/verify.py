"""One set of weights in every back end: how far the answers lie from PyTorch's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from neural.compiler import Program
from neural.verification.job import answer_file, make_job
from neural.verification.peer import BACKENDS, EXACT

REFERENCE = "pytorch"
# The largest difference that passes. Logits: over the largest logit where that is above 1. Gradients: norm of the
# difference over the norm, weight by weight. Steps: relative, of each loss.
TOLERANCES = {"logits": 2e-5, "padded": 2e-5, "cached": 2e-5, "gradients": 1e-4, "steps": 1e-4, "tokens": 0.0}
CHECKS = tuple(TOLERANCES)
ROUNDED = ("logits", "padded", "cached", "gradients")  # which are looked at in float64 where they are beyond
# A deep, trained model loses more than the tolerances to float32's rounding, in PyTorch as elsewhere: so far from the
# answer in float64, in units of PyTorch's own distance, others may be.
AS_FAR = 2.0
# What is free goes back to the machine, and XLA orders a step's operations for the least memory: a model whose state
# takes three quarters of the machine can be checked.
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "JAX_PLATFORMS": "cpu",
    "MALLOC_MMAP_THRESHOLD_": "1048576",
}
LEAST_MEMORY = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


@dataclass(frozen=True)
class Row:
    """A back end in the table. differences: by check; a check that it does not have is absent. rounding: of checks that
    were looked at in float64, its distance from that, and PyTorch's.

    state: "ok", "differs", "failed" or "not checked".
    """

    name: str
    state: str
    differences: dict[str, float]
    why: str = ""  # it failed or was not checked
    worst: str = ""  # the weight whose gradient is furthest off
    rounding: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def beyond(self) -> tuple[str, ...]:
        """The checks over tolerance, and over what rounding explains."""
        far = (c for c, d in self.differences.items() if not d <= TOLERANCES[c])
        return tuple(c for c in far if c not in self.rounding or not self._is_rounding(c))

    def _is_rounding(self, check: str) -> bool:
        own, pytorch = self.rounding[check]
        return own <= max(TOLERANCES[check], AS_FAR * pytorch)


def verify(
    program: Program,
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    seed: int = 0,
    backends: Iterable[str] = tuple(BACKENDS),
    tell: Callable[[str, str], object] = lambda name, check: None,
) -> list[Row]:
    """Compare back ends, each in a process of its own. weights: by our names; None draws some from the seed.

    Without PyTorch the NumPy oracle is the reference, and logits are all that is compared. What is beyond tolerance is
    held against PyTorch in float64. tell: is given each back end and check before it runs; the check is "" while the
    back end loads the model.
    """
    wanted = [name for name in BACKENDS if name in {REFERENCE, "numpy", *backends}]
    with tempfile.TemporaryDirectory(prefix="neural-verify-") as made:
        folder = Path(made)
        (folder / "program.neural").write_text(program.text(), encoding="utf-8")
        make_job(program, weights, seed).save(folder)
        for name in wanted:
            if BACKENDS[name].missing is None:
                _run(name, folder, tell)
        reference = REFERENCE if answer_file(folder, REFERENCE, "logits").exists() else "numpy"
        rows = [_row(name, folder, reference) for name in wanted]
        if reference == REFERENCE and any(check in ROUNDED for row in rows for check in row.beyond):
            _run(EXACT, folder, tell)
            rows = [_in_float64(row, folder) for row in rows]
        return rows


def _run(name: str, folder: Path, tell: Callable[[str, str], object] = lambda name, check: None) -> None:
    """A worker, which prints each check. What ends it without a word is told in its place."""
    environment = os.environ | ENVIRONMENT | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {LEAST_MEMORY}".strip()}
    command = [sys.executable, "-m", "neural.verification.worker", name, str(folder)]
    tell(name, "")
    with (
        (folder / f"{name}.log").open("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as worker,
    ):
        for line in worker.stdout:
            if line.strip() in CHECKS:
                tell(name, line.strip())
        if code := worker.wait():
            reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            log.seek(0)
            told = {"error": f"its process ended by {reason}{_of_memory(code)}", "traceback": log.read()[-4000:]}
            (folder / f"{name}.json").write_text(json.dumps(told))


def _of_memory(code: int) -> str:
    """What a kill from outside most often means."""
    return ": most likely no memory was left for it" if code == -signal.SIGKILL else ""


def _row(name: str, folder: Path, reference: str) -> Row:
    backend = BACKENDS[name]
    if backend.missing is not None:
        why = f"{backend.missing} is not installed: pip install 'neural-dsl[{backend.extra}]'"
        return Row(name, "not checked", {}, why)
    with _answers(folder, name) as ours, _answers(folder, reference) as theirs:
        differences, worst = _compare(ours, theirs) if theirs else ({}, "")
    told = folder / f"{name}.json"
    if told.exists():  # what it did before that is shown
        return Row(name, "failed", differences, json.loads(told.read_text())["error"], worst)
    if not differences:
        return Row(name, "failed", {}, "there is nothing to compare with: the reference failed")
    row = Row(name, "ok", differences, worst=worst)
    return Row(name, "differs", differences, worst=worst) if row.beyond else row


def _in_float64(row: Row, folder: Path) -> Row:
    """The row with what rounding explains of its differences; as it was where float64 gave no answer."""
    with _answers(folder, row.name) as ours, _answers(folder, REFERENCE) as pytorch, _answers(folder, EXACT) as exact:
        if not row.beyond or (folder / f"{EXACT}.json").exists():
            return row
        (own, worst), (others, _) = _compare(ours, exact), _compare(pytorch, exact)
    # PyTorch's own cache is no measure of what a cache may lose: its whole answer is
    rounding = {c: (own[c], others["logits" if c == "cached" else c]) for c in row.beyond if c in ROUNDED}
    row = replace(row, rounding=rounding)
    state = "ok" if row.state == "differs" and not row.beyond else row.state
    return replace(row, state=state, worst=worst if "gradients" in row.rounding else row.worst)


@contextmanager
def _answers(folder: Path, name: str) -> Iterator[Mapping[str, np.ndarray]]:
    """All that a back end has answered; each array is read when it is asked for."""
    files = (path for check in CHECKS if (path := answer_file(folder, name, check)).exists())
    with ExitStack() as stack:
        yield ChainMap(*(stack.enter_context(np.load(path)) for path in files))


def _compare(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> tuple[dict[str, float], str]:
    differences = {}
    for check in ("logits", "padded", "cached"):
        if check in ours:
            # what the cache gives is held against the whole, not against another cache
            differences[check] = _largest(ours[check], theirs["logits" if check == "cached" else check])
    gradients, worst = max(_gradients(ours, theirs), default=(None, ""))
    if gradients is not None:
        differences["gradients"] = gradients
    if "steps" in ours and "steps" in theirs:
        differences["steps"] = float(np.abs(ours["steps"] / theirs["steps"] - 1).max())
    if "tokens" in ours and "tokens" in theirs:
        differences["tokens"] = float((ours["tokens"] != theirs["tokens"]).sum())
    return {c: differences[c] for c in CHECKS if c in differences}, worst


def _largest(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


def _gradients(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> Iterator[tuple[float, str]]:
    """The difference of each weight's gradient. One that is all but zero counts against the norm of the whole."""
    names = [n for n in theirs if n.startswith("gradients/")]
    if not any(n.startswith("gradients/") for n in ours):
        return
    whole = float(np.sqrt(sum(np.square(theirs[n], dtype=np.float64).sum() for n in names)))
    for name in names:
        expected = theirs[name]
        if name not in ours or ours[name].shape != expected.shape:
            yield float("inf"), name.removeprefix("gradients/")
            continue
        norm = max(float(np.linalg.norm(expected)), 1e-3 * whole)
        yield float(np.linalg.norm(ours[name] - expected)) / norm, name.removeprefix("gradients/")
