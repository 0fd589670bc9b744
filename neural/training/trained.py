"""A language model that is ready to be used: of a run, or of a program that says where its weights are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from neural.backends.module import load_module
from neural.compiler import Program, load
from neural.data.tokenizers import Tokenizer, load_tokenizer
from neural.diagnostics.diagnostic import fail
from neural.interop.decoder import Vocabulary
from neural.interop.fields import Fields
from neural.interop.huggingface.tokenizer import CONFIG, read_vocabulary
from neural.interop.weights import program_weights
from neural.quantization.matrix import QuantizedMatrix
from neural.training.data import require_fitting_tokenizer
from neural.training.run import Run


@dataclass(frozen=True)
class Trained:
    """vocabulary: what an imported model's tokenizer says beside its ids. quantized: the matrices that a quantised run
    stores as integers, as they are, by the names of their weights.
    """

    program: Program
    tokenizer: Tokenizer
    vocabulary: Vocabulary | None
    quantized: Mapping[str, QuantizedMatrix]
    load: Callable[[], nn.Module]
    read: Callable[[], Mapping[str, np.ndarray]]

    @cached_property
    def model(self) -> nn.Module:
        """On the CPU, in evaluation mode, made when it is first asked for. Matrices that are stored as integers are
        float32 in it: it takes the memory, and has the speed, of the model that was quantised.
        """
        return self.load()

    @cached_property
    def weights(self) -> Mapping[str, np.ndarray]:
        """By name, in float32, for whoever computes without PyTorch: of a run each is read when it is asked for."""
        return self.read()


def open_trained(path: Path, checkpoint: str = "latest") -> Trained:
    """Of a run directory, or of a .neural file with `weights:` and `tokenizer:`, such as `neural import` writes.

    checkpoint: of a run, "latest", "best" or a name. NeuralError: those of `Run` and of the program; N809 where a
    program names no tokenizer, N915 where it is no language model. What is wrong with the weights is told when they or
    the model are asked for.
    """
    if not path.is_file():
        return _of_run(Run.open(path), checkpoint)
    program = load(path)
    require_language_model(program, path)
    if program.settings.tokenizer is None:
        fail("N809", f"{path} names no tokenizer", hint='add `tokenizer: "tokenizer.json"` to the network')
    tokenizer = load_tokenizer(program.settings.tokenizer, base=program.base)
    require_fitting_tokenizer(program, tokenizer)
    said = _vocabulary((program.base / program.settings.tokenizer).parent)
    read = partial(program_weights, program)
    return Trained(program, _ending(tokenizer, said), said, {}, partial(_with_weights, program), read)


def _of_run(run: Run, checkpoint: str) -> Trained:
    require_language_model(run.program, run.path)
    said = _vocabulary(run.path)
    read = partial(run.open_weights, checkpoint)
    quantized = read().quantized() if run.record.quantization else {}
    load_model = partial(run.load_model, checkpoint)
    return Trained(run.program, _ending(run.tokenizer, said), said, quantized, load_model, read)


def _vocabulary(folder: Path) -> Vocabulary | None:
    return read_vocabulary(folder, Fields({}, folder / CONFIG)) if (folder / CONFIG).is_file() else None


def _ending(tokenizer: Tokenizer, said: Vocabulary | None) -> Tokenizer:
    return tokenizer if said is None or said.eos_id is None else tokenizer.ending_also(said.eos_id)


def require_language_model(program: Program, path: Path) -> None:
    """NeuralError N915 for a network that gives no logits over the vocabulary that it reads."""
    if program.context is None or program.vocab_size is None:
        fail(
            "N915",
            f"{path} holds {program.name}, which is not a language model: it gives no logits over a vocabulary",
            hint="generate from the run of a program whose output is as wide as its embedding's vocabulary",
        )


@torch.no_grad()
def _with_weights(program: Program) -> nn.Module:
    module = load_module(program.source("pytorch"), program.name)
    weights = program_weights(program)
    with torch.random.fork_rng(devices=[]):
        model = getattr(module, program.name)()
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    for name in list(weights):
        own[name].copy_(torch.from_numpy(weights.pop(name).copy()))
    return model.eval()
