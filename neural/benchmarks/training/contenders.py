"""Who trains: each is a model with the step that its own trainer makes of it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file
from torch import nn

from neural.backends.module import load_module
from neural.compiler import load
from neural.diagnostics.diagnostic import fail
from neural.training.loss import Batch
from neural.training.optimizers import make_optimizer
from neural.training.shares import alone
from neural.training.step import optimizer_step
from neural.training.weights import load_weights

Step = Callable[[Batch], float]  # one optimizer step on a batch; its loss
RATE, CLIP, DECAY, BETAS = 3e-4, 1.0, 0.1, (0.9, 0.95)
CONTENDERS = ("neural", "nanogpt", "nanogpt-compiled", "transformers")


def contender(name: str, folder: Path, nanogpt: Path | None) -> Step:
    """The step of one of CONTENDERS, for what `comparison.prepare` put into the folder."""
    if name == "neural":
        return _neural(folder)
    if name == "transformers":
        return _transformers(folder)
    return _nanogpt(folder, nanogpt, compiled=name == "nanogpt-compiled")


def _neural(folder: Path) -> Step:
    said = json.loads((folder / "bench.json").read_text())
    program = load(folder / "program.neural", said["sets"], said["network"])
    model = getattr(load_module(program.source("pytorch"), program.name), program.name)()
    load_weights(model, load_file(folder / "ours.safetensors"))
    parallel = alone(model.train(), program.settings.train.batch_size)
    choice = program.settings.optimizer
    same = {"learning_rate": RATE, "beta_1": BETAS[0], "beta_2": BETAS[1], "epsilon": 1e-8, "weight_decay": DECAY}
    optimizer = make_optimizer(type(choice)("AdamW", same), model)
    return lambda batch: optimizer_step(parallel, optimizer, [batch], rate=RATE, clip=CLIP).loss


def _transformers(folder: Path) -> Step:
    """As its Trainer does: fused AdamW, and no decay of biases and norms."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32).train()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, fused=True)
    return _plain(
        lambda inputs, targets: model(input_ids=inputs, labels=targets, shift_labels=targets, use_cache=False).loss,
        model,
        optimizer,
    )


def _nanogpt(folder: Path, checkout: Path, *, compiled: bool) -> Step:
    module = _module(checkout / "model.py")
    config = json.loads((folder / "hf" / "config.json").read_text())
    if config["model_type"] != "gpt2":
        fail("N875", "nanoGPT has GPT-2's architecture alone", hint="compare with --against transformers")
    bias = json.loads((folder / "bench.json").read_text())["bias"]
    sizes = {"n_layer": config["n_layer"], "n_head": config["n_head"], "n_embd": config["n_embd"]}
    sizes |= {"block_size": config["n_positions"], "vocab_size": config["vocab_size"]}
    model = module.GPT(module.GPTConfig(dropout=config["resid_pdrop"], bias=bias, **sizes))
    stored = load_file(folder / "hf" / "model.safetensors")
    theirs = {n if n.startswith("transformer.") else f"transformer.{n}": t for n, t in stored.items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(theirs[name].T if _conv1d(name) else theirs[name])
    optimizer = model.configure_optimizers(DECAY, RATE, BETAS, "cpu")
    forward = torch.compile(model) if compiled else model
    return _plain(lambda inputs, targets: forward(inputs, targets)[1], model, optimizer)


def _conv1d(name: str) -> bool:
    """Whether transformers stores that weight transposed."""
    return name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))


def _plain(loss_of: Callable[..., torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    """The step of most trainers."""
    model.train()

    def step(batch: Batch) -> float:
        loss = loss_of(*batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        fail("N874", f"there is no {path}", hint="give a checkout of github.com/karpathy/nanoGPT with --nanogpt")
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module
