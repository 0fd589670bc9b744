"""What 8 and 4 bits cost a trained model: its perplexity on text that it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from neural.backends.module import load_module
from neural.backends.onnx import emit
from neural.graph.passes import optimize
from neural.quantization.quantize import round_all
from neural.verification.onnx_peer import Driver
from tests.parity.onnx_runs import session
from tests.parity.test_models import example

CONTEXT = 64
SIZES = {"vocab_size": 128, "context": CONTEXT, "d_model": 64, "n_layer": 2, "n_head": 2, "dropout": 0.0}


@pytest.fixture(scope="module")
def trained():
    """A network, its weights after 200 steps on our own pages, and windows of a page that it was not shown."""
    text = "".join(p.read_text() for p in sorted(Path("neural/diagnostics/pages").glob("*.md")))
    ids = torch.tensor([min(b, 127) for b in text.encode()])
    start, held = ids[:-4097], ids[-4097:]
    program = example("shakespeare_char", SIZES)
    torch.manual_seed(0)
    model = load_module(program.source(), "trained").ShakespeareGpt()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(200):
        at = torch.randint(len(start) - CONTEXT - 1, (16,))
        x = torch.stack([start[i : i + CONTEXT + 1] for i in at])
        loss = F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    own = {n: p.detach().numpy() for n, p in model.named_parameters()}
    return optimize(program.graph), own, held.numpy()


def perplexity(network, own: dict[str, np.ndarray], held: np.ndarray, quantize: str | None) -> float:
    x, y = held[:-1].reshape(-1, CONTEXT), held[1:].reshape(-1, CONTEXT)
    quantized = round_all(network.block, own, quantize) if quantize else {}
    logits = Driver(session(emit(network, own, quantized)), len(x)).read(x)
    return float(F.cross_entropy(torch.from_numpy(logits).flatten(0, 1), torch.from_numpy(y).flatten()).exp())


def test_quantising_costs_little(trained) -> None:
    exact, int8, int4 = (perplexity(*trained, q) for q in (None, "int8", "int4"))
    assert 3 < exact < 40  # it has learned something: 128 would be nothing
    assert int8 != exact
    assert int8 <= 1.01 * exact
    assert int4 <= 1.05 * exact
