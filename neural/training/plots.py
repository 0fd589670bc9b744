"""Two pictures for the run directory: the learning rate over the steps, and the losses."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neural.training.durable import TEMPORARY
from neural.training.metrics import read_metrics
from neural.training.schedules import Schedule

INK, TRAINING, VALIDATION = "#1f2937", "#93b4e8", "#c2410c"
POINTS = 1000


def draw_schedule(path: Path, schedule: Schedule, total_steps: int) -> None:
    """The rate of each step, as a PNG."""
    figure, axes = _axes("Learning rate", "learning rate")
    stride = max(1, total_steps // POINTS)
    steps = sorted({*range(0, total_steps, stride), total_steps - 1})
    axes.plot(steps, [schedule(step) for step in steps], color=VALIDATION, linewidth=1.8)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
    _save(figure, path)


def draw_losses(path: Path, metrics: Path) -> None:
    """Training and validation loss of a `metrics.jsonl`, as a PNG."""
    figure, axes = _axes("Loss", "nats per token")
    records = read_metrics(metrics)
    for kind, color, width, marker in (("train", TRAINING, 1.2, None), ("validation", VALIDATION, 1.8, "o")):
        points = [(r["step"], r["loss"]) for r in records if r["kind"] == kind]
        if points:
            steps, losses = zip(*points, strict=True)
            label = "training" if kind == "train" else f"validation (last {losses[-1]:.4f})"
            axes.plot(steps, losses, color=color, linewidth=width, marker=marker, markersize=3.5, label=label)
    if axes.lines:
        axes.legend(frameon=False)
    _save(figure, path)


def _axes(title: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.5), dpi=140, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", color=INK, fontweight="bold")
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel(y, color=INK)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9ca3af")
    axes.tick_params(colors=INK)
    axes.margins(x=0.01)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    beside = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        figure.savefig(beside, format="png")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
