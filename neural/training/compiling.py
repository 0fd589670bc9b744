"""torch.compile of generated source: what it needs, and the trainer's use of it, where it wins: on GPUs.

A training is compiled before its first step, and kept. On CPUs it is not: products and attention are most of a step
there, and a compiled model goes without the kernels of `cpu_kernels` and `cpu_products`. GPT-2 124M on two cores of an
AMD EPYC, seen once: 279 tokens a second compiled and 461 not, in bfloat16 616 and 678.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from neural.compiler import Program
from neural.training.distributed.parallel import Parallel
from neural.training.loss import TILES, Batch, plain_head, softmax_slopes
from neural.training.randomness import RandomState

CACHE = "TORCHINDUCTOR_CACHE_DIR"


def lacking(device: torch.device) -> str | None:
    """What Inductor needs for the device and does not find."""
    os.environ.setdefault(CACHE, str(_cache_folder()))  # before Inductor is loaded, which looks for it
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "there is no Triton that can use this GPU (pip install triton)"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "there is no C++ compiler on the path (apt install g++, or xcode-select --install)"
    return None


def compiled(model: nn.Module, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a model of generated source, compiled when it is called, for each shape of tensors by itself."""
    os.environ.setdefault(CACHE, str(_cache_folder()))
    _make_importable(model)
    return torch.compile(method, dynamic=False)


def failed(error: Exception) -> str:
    """What a compiler said that failed, in a line."""
    return f"not compiled: {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def compile_where_it_wins(program: Program, parallel: Parallel, device: torch.device) -> str | None:
    """Have the model compiled at its next pass if the file's `execution` asks for it, or the device is a GPU.

    What was asked for and cannot be is said.
    """
    asked = program.settings.execution.get("compile")
    if asked is False or (asked is None and (device.type != "cuda" or parallel.in_parts)):
        return None
    missing = "the processes hold parts of the weights" if parallel.in_parts else lacking(device)
    if missing:
        return f"not compiled: {missing}"
    model = parallel.model
    parallel.loss.compiled = compiled(model, model.forward if plain_head(model) is None else model.hidden_states)
    if device.type in TILES:
        parallel.loss.slopes = torch.compile(softmax_slopes)
    return None


def warm_up(parallel: Parallel, batch: Batch, say: Callable[[str], None]) -> None:
    """Compile, by a pass that changes nothing. Where the compiler fails that is said, and the model is as it was."""
    device = batch[0].device
    randomness, began = RandomState.capture(device), time.perf_counter()
    say("compiling the model…")
    try:
        parallel.gradient(batch, 1.0)
        say(f"compiled in {time.perf_counter() - began:.1f} s; kept for the next time in {os.environ[CACHE]}")
    except Exception as error:  # of Dynamo, Inductor, Triton, a C++ compiler or the linker: each has its own
        parallel.loss.compiled = parallel.loss.slopes = None
        say(f"note: {failed(error)}")
    parallel.model.zero_grad(set_to_none=True)
    randomness.restore(device)


def _make_importable(model: nn.Module) -> None:
    """Dynamo imports the module of each function that it meets by name, and generated source is in no file."""
    namespace = type(model).forward.__globals__
    name = f"neural_generated_{type(model).__name__}"
    namespace["__name__"] = name
    sys.modules[name] = module = ModuleType(name)
    module.__dict__.update(namespace)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neural" / "inductor"
