"""Whether the native engine can run a model, and the model in it."""

from __future__ import annotations

import numpy as np

from neural.cpp.building import compiler
from neural.diagnostics.diagnostic import Diagnostic
from neural.generation.native.executor import NativeExecutor
from neural.generation.native.library import ENGINE
from neural.generation.native.recording import Unsupported, record
from neural.generation.request import Limits
from neural.graph.graph import weights
from neural.graph.passes import optimize
from neural.quantization.matrix import QuantizedMatrix
from neural.quantization.quantize import round_all
from neural.training.trained import Trained


def open_native(found: Trained, width: str | None, limits: Limits) -> NativeExecutor:
    """width: "int8" or "int4" rounds the matrices of products and embeddings; None leaves them as they are."""
    network, numbers = optimize(found.program.graph), model_weights(found)
    if width is not None:
        numbers |= round_all(network.block, numbers, width)
    return NativeExecutor(network, numbers, limits, vocab_size=found.tokenizer.vocab_size)


def obstacle(found: Trained, width: str | None) -> Diagnostic | None:
    """Why it cannot be here, or for this model; None where it can. That is seen without its weights."""
    if compiler() is None:
        title = f"{ENGINE.what} needs a C++ compiler, and none is on the path"
        return Diagnostic("N970", title, hint=ENGINE.install)
    network = optimize(found.program.graph)
    try:
        record(network, {n: np.broadcast_to(np.float32(0), w.shape) for n, w in weights(network.block).items()})
    except Unsupported as what:
        title = f"the native engine cannot run {found.program.name}: it has {what}"
        return Diagnostic("N968", title, hint="use --engine torch")
    return None


def model_weights(found: Trained) -> dict[str, np.ndarray | QuantizedMatrix]:
    """The model's numbers by their names in the graph: the integers of a quantised run, float32 else; no copies."""
    names = weights(optimize(found.program.graph).block)
    floats = (name for name in names if name not in found.quantized)
    return {**found.quantized, **{name: np.asarray(found.weights[name], np.float32) for name in floats}}
