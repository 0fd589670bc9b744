"""A model with its matrices as small integers: made, measured, and written only if it is as good as was asked."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neural.diagnostics.diagnostic import fail
from neural.generation.moments import products, second_moments
from neural.generation.windows import Windows
from neural.graph.graph import weights
from neural.graph.passes import optimize
from neural.quantization.choice import Form, Matrix, forms, quantizable
from neural.quantization.matrix import QuantizedMatrix
from neural.quantization.quantize import MatrixError, quantize_matrix
from neural.training.trained import Trained

MOMENT_BYTES = 2**30  # of second moments at a time; where they are more, the text is read several times

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]  # (what is done, of how many)


@dataclass(frozen=True, slots=True)
class Quantized:
    """What became of a model. floats: the weights that stay float32."""

    matrices: Mapping[str, QuantizedMatrix]
    floats: Mapping[str, np.ndarray]
    errors: tuple[MatrixError, ...]
    before: float  # perplexities
    after: float
    weights_sha256: str  # of all weights before

    @property
    def increase(self) -> float:
        """Relative, of the perplexity."""
        return self.after / self.before - 1

    @property
    def method(self) -> str:
        """ "gptq" if any matrix is made by it, else "rounding"."""
        return min(error.method for error in self.errors)

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(held.nbytes for held in (*self.matrices.values(), *self.floats.values()))

    @property
    def size_before(self) -> int:
        numbers = sum(math.prod(held.shape) for held in (*self.matrices.values(), *self.floats.values()))
        return 4 * numbers

    def tensors(self) -> dict[str, np.ndarray]:
        """For a safetensors file."""
        parts = (matrix.to_tensors(name) for name, matrix in self.matrices.items())
        return {**self.floats, **{name: part for tensors in parts for name, part in tensors.items()}}


def quantize(
    trained: Trained, to: str, calibration: Windows | None, measured: Windows, progress: Progress
) -> Quantized:
    """Quantise a language model's matrices and measure what it costs. `trained.model` has the new weights afterwards.

    NeuralError N996 where a weight is not a finite number, or no matrix is there to be quantised.
    """
    model = trained.model
    own = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    block = optimize(trained.program.graph).block
    names, chosen = weights(block), quantizable(block)
    _require_quantizable(own, chosen, trained.program.name)
    digest = _sha256(own[name] for name in sorted(names))
    before = perplexity(model, measured, "perplexity before", progress)
    form = forms(block, {name: own[name].cpu().numpy() for name in chosen}, to)
    matrices, errors = _quantized(model, own, chosen, form, calibration, progress)
    after = perplexity(model, measured, "perplexity after", progress)
    floats = {name: own[name].cpu().numpy() for name in names if name not in matrices}
    return Quantized(matrices, floats, errors, before, after, digest)


@torch.inference_mode()
def perplexity(model: nn.Module, windows: Windows, doing: str, progress: Progress) -> float:
    """exp of the mean loss over each window's tokens but the first."""
    device = next(model.parameters()).device
    nats, tokens = 0.0, 0
    with progress(doing, windows.ids.numel()) as advance:
        for batch in windows.batches():
            ids = batch.to(device)
            logits: Tensor = model(ids)[:, :-1].flatten(0, 1).float()
            nats += F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="sum").item()
            tokens += len(logits)
            advance(batch.numel())
    return math.exp(min(nats / tokens, 700.0))


def _require_quantizable(own: Mapping[str, Tensor], chosen: Mapping[str, Matrix], network: str) -> None:
    if not chosen:
        fail("N996", f"{network} has no matrix to quantise")
    for name, weight in own.items():
        if not weight.isfinite().all():
            hint = "a training that diverged leaves such numbers: take an earlier checkpoint"
            fail("N996", f"`{name}` of {network} has numbers that are not finite", hint=hint)


def _sha256(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _quantized(
    model: nn.Module,
    own: Mapping[str, Tensor],
    chosen: Mapping[str, Matrix],
    form: Mapping[str, Form],
    calibration: Windows | None,
    progress: Progress,
) -> tuple[dict[str, QuantizedMatrix], tuple[MatrixError, ...]]:
    """All matrices, each put into the model when it is done; as many at a time as there are cores."""
    matrices, errors = {}, []
    uses = {name: modules for name, modules in products(model).items() if name in chosen} if calibration else {}
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for names in _in_turn(chosen, uses):
            moments = _moments(model, {n: uses[n] for n in names if n in uses}, calibration, progress)

            def one(name: str, moments=moments) -> tuple[QuantizedMatrix, MatrixError]:
                moment = moments[name].cpu().numpy() if name in moments else None
                return quantize_matrix(name, own[name].cpu().numpy(), form[name], moment, table=chosen[name].table)

            with progress("quantising", sum(math.prod(chosen[n].shape) for n in names)) as advance:
                for name, (matrices[name], error) in zip(names, pool.map(one, names), strict=True):
                    own[name].copy_(torch.from_numpy(matrices[name].dequantized()))
                    errors.append(error)
                    advance(math.prod(chosen[name].shape))
    finally:
        pool.shutdown(cancel_futures=True)
    return matrices, tuple(errors)


def _moments(
    model: nn.Module, uses: Mapping[str, list[nn.Linear]], calibration: Windows | None, progress: Progress
) -> dict[str, Tensor]:
    if not uses:
        return {}
    with progress("calibrating", calibration.ids.numel()) as advance:
        return second_moments(model, uses, calibration.batches(), advance)


def _in_turn(chosen: Mapping[str, Matrix], used: Mapping[str, object]) -> Iterator[list[str]]:
    """Names in the order of their use, as many at a time as there is memory for the second moments of those used."""
    names: list[str] = []
    size = 0
    for name, ((_, width), _) in chosen.items():
        size += 4 * width * width if name in used else 0
        if names and size > MOMENT_BYTES:
            yield names
            names, size = [], 4 * width * width
        names.append(name)
    yield names
