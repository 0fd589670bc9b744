"""What verification asks of every peer: a program, weights, a batch, and the answers, as files between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from neural.compiler import Program
from neural.graph.graph import weights as weights_of
from neural.graph.ids import embedding
from neural.graph.passes import optimize
from neural.graph.settings import Settings
from neural.layers.effects import RealTokens
from neural.layers.masks import CausalMask, PaddingMask
from neural.layers.values import Value

BATCH = 2
LENGTH = 48  # tokens of the batch, where the network takes so many
DECODED = 64  # tokens written greedily
PROMPT = 8
STEPS = 5


@dataclass(frozen=True)
class Job:
    """inputs: one array for each input of the network. targets: of the loss, None where the file has none.

    mask: for a second look at the same inputs with padding on the right; None where no layer heeds it.
    """

    weights: Mapping[str, np.ndarray]
    inputs: list[np.ndarray]
    targets: np.ndarray | None
    mask: np.ndarray | None

    def save(self, folder: Path) -> None:
        (folder / "weights").mkdir()
        for name, array in self.weights.items():
            np.save(folder / "weights" / name, array)
        batch = {f"input{i}": array for i, array in enumerate(self.inputs)}
        given = {"targets": self.targets, "mask": self.mask}
        np.savez(folder / "batch.npz", **batch, **{n: a for n, a in given.items() if a is not None})

    @classmethod
    def open(cls, folder: Path) -> Job:
        """The weights stay in their files, from which they are read as they are asked for."""
        weights = {path.stem: np.load(path, mmap_mode="r") for path in sorted((folder / "weights").iterdir())}
        with np.load(folder / "batch.npz") as batch:
            inputs = [batch[f"input{i}"] for i in range(sum(n.startswith("input") for n in batch.files))]
            targets, mask = (batch[n] if n in batch.files else None for n in ("targets", "mask"))
            return cls(weights, inputs, targets, mask)


def answer_file(folder: Path, name: str, check: str) -> Path:
    """Where a back end's answers to a check are kept."""
    return folder / f"{name}.{check}.npz"


def make_job(program: Program, weights: Mapping[str, np.ndarray] | None, seed: int) -> Job:
    """The batch, drawn from a seed, and weights from the same seed where none are given."""
    rng = np.random.default_rng(seed)
    weights = seeded_weights(program, rng) if weights is None else dict(weights)
    inputs = [_input(program, value, rng) for value in program.graph.block.inputs]
    sequence = program.graph.sequence
    mask = None
    if sequence and _heeds_padding(program):
        names = [v.name for v in program.graph.block.inputs]
        length = inputs[names.index(sequence)].shape[1]
        kept = [length, *(max(1, length * 2 // 3) for _ in range(BATCH - 1))]
        mask = np.array([[1] * n + [0] * (length - n) for n in kept], dtype=np.int64)
    return Job(weights, inputs, _targets(program, inputs, rng), mask)


def tokens_to_decode(program: Program) -> int:
    """As many as the context leaves beside the prompt, and no more than DECODED."""
    return min(DECODED, program.context - PROMPT)


def without_accumulation(program: Program) -> Program:
    """A batch that is accumulated with itself is the same batch."""
    train = replace(program.settings.train, gradient_accumulation=1)
    return replace(program, graph=replace(program.graph, settings=replace(program.settings, train=train)))


def steps_of_training(settings: Settings, n: int) -> int:
    """How long a training is whose first n steps are done: the file's steps, or enough for its warm-up."""
    warmup = settings.lr_schedule.arguments.get("warmup_steps", 0) if settings.lr_schedule else 0
    return settings.train.steps or max(n, warmup + 2)


def seeded_weights(program: Program, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random weights of a trained model's size, none 0 or 1, so that a swapped or forgotten one shows."""
    made = {}
    for name, weight in weights_of(optimize(program.graph).block).items():
        spread = 0.5 * weight.shape[-1] ** -0.5 if len(weight.shape) > 1 else 0.1
        values = spread * rng.standard_normal(weight.shape, dtype=np.float32)
        values = values + np.float32(1.0) if weight.init == "ones" else values
        made[name] = np.abs(values) + np.float32(0.1) if name.endswith("running_var") else values
    return made


def _input(program: Program, value: Value, rng: np.random.Generator) -> np.ndarray:
    shape = tuple(min(a.value, LENGTH) if a.axis == "T" else a.value for a in value.shape[1:])
    if value.dtype == "int64":
        return rng.integers(0, embedding(program.graph.block, value.name).input_dim.value, (BATCH, *shape))
    return rng.standard_normal((BATCH, *shape), dtype=np.float32)


def _heeds_padding(program: Program) -> bool:
    return any(isinstance(e, CausalMask | PaddingMask | RealTokens) for e in program.graph.block.effects())


def _targets(program: Program, inputs: list[np.ndarray], rng: np.random.Generator) -> np.ndarray | None:
    loss = program.settings.loss
    if loss is None:
        return None
    block = program.graph.block
    axes = block.value(block.outputs[0]).shape[1:]
    length = next((x.shape[1] for x, v in zip(inputs, block.inputs, strict=True) if v.shape[1].axis), None)
    shape = (BATCH, *(length if a.axis == "T" else a.value for a in axes))
    if loss == "sparse_categorical_crossentropy":
        return rng.integers(0, shape[-1], shape[:-1])
    if loss == "categorical_crossentropy":
        return np.eye(shape[-1], dtype=np.float32)[rng.integers(0, shape[-1], shape[:-1])]
    if loss == "binary_crossentropy":
        return rng.integers(0, 2, shape).astype(np.float32)
    return rng.standard_normal(shape, dtype=np.float32)
