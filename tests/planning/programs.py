"""Small programs, and what PyTorch says of the modules that they compile to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from neural.backends.module import load_module
from neural.compiler import Program, compile_source
from neural.diagnostics.source import Source
from neural.training.cpu_kernels import CpuKernels

VOCABULARY, CONTEXT, BATCH = 96, 64, 3
GPT2 = {"n_layer": 2, "d_model": 48, "n_head": 4, "context": CONTEXT, "vocab_size": VOCABULARY}
LLAMA = {**GPT2, "n_kv_head": 2, "d_ff": 112}


def example(name: str, **sets: object) -> Program:
    """An example without its tokenizer, whose vocabulary would have to fit."""
    path = Path(f"examples/{name}.neural")
    return compile_source(Source(str(path), path.read_text().replace('tokenizer: "gpt2"', "")), sets)


def tokens(layers: str, more: str = "", embed: str = "Embedding(96, 48)") -> Program:
    """A network that reads tokens."""
    return compile_source(
        Source("test.neural", f"network Net {{ input: ({CONTEXT},) layers: {embed} {layers} {more} }}")
    )


def features(layers: str, shape: str = "(48,)", more: str = "") -> Program:
    """A network that reads numbers."""
    return compile_source(Source("test.neural", f"network Net {{ input: {shape} layers: {layers} {more} }}"))


def classifier() -> Program:
    """The tutorial's classifier, made small, with the define that it lacks in its file."""
    folder = Path("tests/fixtures/tutorial")
    decoder = (folder / "gpt_decoder.neural").read_text().partition("network")[0]
    text = decoder + (folder / "gpt_classifier.neural").read_text()
    for old, new in (("50257", "96"), ("3072", "96"), ("768", "48"), ("(512,)", "(64,)"), ("0.1", "0.0")):
        text = text.replace(old, new)
    return compile_source(Source(str(folder / "both.neural"), text), {"num_classes": 2})


def module_of(program: Program) -> nn.Module:
    return getattr(load_module(program.source(), "planned"), program.name)().train()


def batch_of(program: Program, batch: int = BATCH, length: int | None = None) -> torch.Tensor:
    """An input for the network, (B, T) int64 or (B, …) float32."""
    value = program.graph.block.inputs[0]
    shape = [(length or a.value) if a.axis == "T" else a.value for a in value.shape[1:]]
    return torch.randint(10, (batch, *shape)) if value.dtype == "int64" else torch.randn(batch, *shape)


def saved_bytes(module: nn.Module, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes of all storages that a forward pass of the trainer keeps for the backward pass, weights and the output aside."""
    weights = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    found: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)  # so that no address is used twice
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), CpuKernels(1):
        output = forward()
    aside = weights | {output.untyped_storage().data_ptr()}
    return sum(n for address, n in found.items() if address not in aside)
