"""Who trains: each is a model with the step that its own trainer makes of it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import torch
from safetensors.torch import load_file
from torch import nn

from neural.backends.module import load_module
from neural.compiler import load
from neural.diagnostics.diagnostic import fail
from neural.planning.precision import FULL
from neural.training.compiling import compile_where_it_wins
from neural.training.loss import Batch
from neural.training.optimizers import make_optimizer
from neural.training.randomness import RandomState
from neural.training.shares import alone
from neural.training.step import optimizer_step
from neural.training.unread import Unread, can_wait
from neural.training.weights import load_weights

Step = Callable[[Batch], torch.Tensor]  # one optimizer step on a batch; its loss, a scalar
RATE, CLIP, DECAY, BETAS = 3e-4, 1.0, 0.1, (0.9, 0.95)
CONTENDERS = ("neural", "nanogpt", "nanogpt-compiled", "transformers")


@dataclass(frozen=True, slots=True)
class Task:
    """What all contenders do. The folder holds program, weights and batches; bias: whether the model has biases;
    checkpointing: whether our source computes blocks again.
    """

    folder: Path
    network: str
    sets: dict[str, Any]
    bias: bool
    checkpointing: bool
    precision: str  # of products: "float32", or autocast's
    on: str  # "cpu" or "cuda"
    warm: int  # steps that are not timed: the compilers of contenders work in them

    @classmethod
    def read(cls, folder: Path) -> Self:
        return cls(folder, **json.loads((folder / "task.json").read_text()))

    def write(self) -> None:
        (self.folder / "task.json").write_text(json.dumps({n: v for n, v in asdict(self).items() if n != "folder"}))

    @property
    def device(self) -> torch.device:
        return torch.device(self.on)


def contender(name: str, task: Task, nanogpt: Path | None) -> Step:
    """The step of one of CONTENDERS, for what `comparison.prepare` made ready."""
    if name == "neural":
        return _neural(task)
    if name == "transformers":
        return _transformers(task)
    return _nanogpt(task, nanogpt, compiled=name == "nanogpt-compiled")


def _neural(task: Task) -> Step:
    """As our trainer does: compiled where that wins, and on a GPU no step is waited for."""
    program = load(task.folder / "program.neural", task.sets, task.network)
    model = getattr(load_module(program.source("pytorch"), program.name), program.name)()
    load_weights(model, load_file(task.folder / "ours.safetensors"))
    parallel = alone(model.to(task.device).train(), program.settings.train.batch_size)
    parallel.loss.precision = task.precision
    compile_where_it_wins(program, parallel, task.device)
    choice = program.settings.optimizer
    same = {"learning_rate": RATE, "beta_1": BETAS[0], "beta_2": BETAS[1], "epsilon": 1e-8, "weight_decay": DECAY}
    optimizer = make_optimizer(type(choice)("AdamW", same), model)
    waits = can_wait(parallel, optimizer, program.settings.train, task.device)
    unread = Unread(parallel, optimizer, task.device) if waits else None

    def step(batch: Batch) -> torch.Tensor:
        if unread is None or not optimizer.state:  # the first one makes the moments
            loss = optimizer_step(parallel, optimizer, [batch], rate=RATE, clip=CLIP).loss
            return torch.tensor(loss, device=task.device)
        unread.launch([batch], (0, 0, RandomState.capture(task.device)), rate=RATE, clip=CLIP)
        loss = unread.steps[-1].numbers[0]
        if unread.must_be_read():
            unread.read()
        return loss

    return step


def _transformers(task: Task) -> Step:
    """As its Trainer does: fused AdamW, and no decay of biases and norms."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(task.folder / "hf", dtype=torch.float32).to(task.device).train()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, fused=True)
    return _plain(
        lambda inputs, targets: model(input_ids=inputs, labels=targets, shift_labels=targets, use_cache=False).loss,
        model,
        optimizer,
        task,
    )


def _nanogpt(task: Task, checkout: Path, *, compiled: bool) -> Step:
    module = _module(checkout / "model.py")
    config = json.loads((task.folder / "hf" / "config.json").read_text())
    if config["model_type"] != "gpt2":
        fail("N875", "nanoGPT has GPT-2's architecture alone", hint="compare with --against transformers")
    sizes = {"n_layer": config["n_layer"], "n_head": config["n_head"], "n_embd": config["n_embd"]}
    sizes |= {"block_size": config["n_positions"], "vocab_size": config["vocab_size"]}
    model = module.GPT(module.GPTConfig(dropout=config["resid_pdrop"], bias=task.bias, **sizes))
    stored = load_file(task.folder / "hf" / "model.safetensors")
    theirs = {n if n.startswith("transformer.") else f"transformer.{n}": t for n, t in stored.items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(theirs[name].T if _conv1d(name) else theirs[name])
    model.to(task.device)
    optimizer = model.configure_optimizers(DECAY, RATE, BETAS, task.on)
    forward = torch.compile(model) if compiled else model
    return _plain(lambda inputs, targets: forward(inputs, targets)[1], model, optimizer, task)


def _conv1d(name: str) -> bool:
    """Whether transformers stores that weight transposed."""
    return name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))


def _plain(
    loss_of: Callable[..., torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer, task: Task
) -> Step:
    """The step of most trainers."""
    model.train()
    half = task.precision != FULL

    def step(batch: Batch) -> torch.Tensor:
        with torch.autocast(task.on, getattr(torch, task.precision)) if half else nullcontext():
            loss = loss_of(*batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        fail("N874", f"there is no {path}", hint="give a checkout of github.com/karpathy/nanoGPT with --nanogpt")
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module
