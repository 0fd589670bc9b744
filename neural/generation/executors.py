"""Which executors there are, and which one is taken. Adding one is a file, and a row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from neural.diagnostics.diagnostic import Diagnostic, NeuralError
from neural.generation.executor import Executor, Opener
from neural.generation.request import Limits
from neural.training.session import choose_device
from neural.training.trained import Trained


@dataclass(frozen=True, slots=True)
class Kind:
    """open: gives one for a model and limits. obstacle: why it cannot be here or for this model, None where it can."""

    open: Callable[[Trained, Limits], Executor]
    obstacle: Callable[[Trained], Diagnostic | None] = lambda found: None


def _open_torch(found: Trained, limits: Limits) -> Executor:
    from neural.generation.torch_executor import TorchExecutor

    model = found.model.to(choose_device("auto"))
    return TorchExecutor(model, limits, context=found.program.context, vocab_size=found.tokenizer.vocab_size)


KINDS = {  # `auto` takes the first without an obstacle
    "torch": Kind(_open_torch),
}


class Chosen(NamedTuple):
    """The executor's name, and what opens it within limits."""

    name: str
    open: Opener


def choose_executor(found: Trained, name: str = "auto") -> Chosen:
    """name: of KINDS, or "auto". NeuralError N966 (no such), N967 (not installed), N968 (not for this model)."""
    if name != "auto" and name not in KINDS:
        known = f"choose auto, {', '.join(KINDS)}"
        raise NeuralError(Diagnostic("N966", f"there is no engine {name!r}", hint=known))
    if name == "auto":
        name = _best(found)
    elif obstacle := KINDS[name].obstacle(found):
        raise NeuralError(obstacle)
    return Chosen(name, partial(KINDS[name].open, found))


def _best(found: Trained) -> str:
    """On a GPU that is PyTorch; on a CPU the first that can."""
    if torch.cuda.is_available():
        return "torch"
    return next(name for name, kind in KINDS.items() if kind.obstacle(found) is None)
