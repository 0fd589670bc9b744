"""A language model that is ready to be used: of a run, or of a program that says where its weights are."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

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
from neural.training.data import require_fitting_tokenizer
from neural.training.run import Run


class Trained(NamedTuple):
    """model: on the CPU, in evaluation mode. vocabulary: what an imported model's tokenizer says beside its ids."""

    program: Program
    model: nn.Module
    tokenizer: Tokenizer
    vocabulary: Vocabulary | None = None


def open_trained(path: Path, checkpoint: str = "latest") -> Trained:
    """Of a run directory, or of a .neural file with `weights:` and `tokenizer:`, such as `neural import` writes.

    checkpoint: of a run, "latest", "best" or a name. NeuralError: those of `Run`, of the program and of its weights;
    N809 where a program names no tokenizer, N915 where it is no language model.
    """
    if not path.is_file():
        run = Run.open(path)
        require_language_model(run.program, path)
        return Trained(run.program, run.load_model(checkpoint), run.tokenizer)
    program = load(path)
    require_language_model(program, path)
    if program.settings.tokenizer is None:
        fail("N809", f"{path} names no tokenizer", hint='add `tokenizer: "tokenizer.json"` to the network')
    tokenizer = load_tokenizer(program.settings.tokenizer, base=program.base)
    require_fitting_tokenizer(program, tokenizer)
    beside = (program.base / program.settings.tokenizer).parent
    said = read_vocabulary(beside, Fields({}, beside / CONFIG)) if (beside / CONFIG).is_file() else None
    if said is not None and said.eos_id is not None:
        tokenizer = tokenizer.ending_also(said.eos_id)
    return Trained(program, _with_weights(program), tokenizer, said)


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
