from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from neural.backends.module import load_module
from neural.compiler import compile_source
from neural.diagnostics.source import Source

CONTEXT = 48
EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {
    "gpt2": {"d_model": 32, "n_layer": 3, "n_head": 4},
    "llama": {"d_model": 32, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "d_ff": 64},
}


@pytest.fixture(scope="session")
def context() -> int:
    return CONTEXT


@pytest.fixture(scope="session", params=SIZES)
def model(request: pytest.FixtureRequest, context: int) -> nn.Module:
    """A compiled model for byte tokens, its weights random and large: small ones give a text of one token."""
    sets = {"vocab_size": 257, "context": context, **SIZES[request.param]}
    path = EXAMPLES / f"{request.param}.neural"
    text = path.read_text().replace('tokenizer: "gpt2"', 'tokenizer: "byte"')
    program = compile_source(Source(str(path), text), sets)
    compiled = getattr(load_module(program.source("pytorch"), program.name), program.name)()
    rng = torch.Generator().manual_seed(0)
    for weight in compiled.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.3, generator=rng)
    return compiled.eval()
