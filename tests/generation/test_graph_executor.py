"""What runs on GPUs, on the CPU: Triton's interpreter runs the kernels, and what would be recorded is called instead.

Triton comes with PyTorch for GPUs: TRITON_INTERPRET=1 python -m pytest tests/generation/test_graph_executor.py
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from neural.generation.engine import Engine
from neural.generation.executors import choose_executor
from neural.generation.request import Limits
from tests.generation.test_engine import ids, random_request, run
from tests.generation.test_executors import made

pytest.importorskip("triton", reason="Triton comes with PyTorch for GPUs")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("without TRITON_INTERPRET=1 Triton wants a GPU", allow_module_level=True)

from neural.generation import graph_executor
from neural.generation.gpu_kernels import GpuKernels
from neural.generation.graph_executor import GraphExecutor

ROWS, HEADS, OF_KEYS, PLACES, WIDTH, MODEL = 3, 4, 2, 130, 24, 100
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "linear": lambda x, w, b: F.linear(x, w, b),
    "linear without bias": lambda x, w, b: F.linear(x, w),
    "layer_norm": lambda x, w, b: F.layer_norm(x, (MODEL,), w[0], w[1]),
    "rms_norm": lambda x, w, b: F.rms_norm(x, (MODEL,), w[0]),
    "gelu": lambda x, w, b: F.gelu(x),
    "gelu by tanh": lambda x, w, b: F.gelu(x, approximate="tanh"),
    "silu": lambda x, w, b: F.silu(x),
    "add": lambda x, w, b: x + x.neg().exp(),
    "multiply": lambda x, w, b: x * x.neg(),
}
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_torchs(name: str, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(1)
    given = (torch.randn(shape, generator=draw).to(dtype) for shape in ((1, 1, MODEL), (37, MODEL), (37,)))
    compare(lambda given=tuple(given): FUNCTIONS[name](*given), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_attention_is_torchs(dtype: torch.dtype) -> None:
    """Rows that see one place, some, and all, in a corner of a larger cache; fewer heads of keys."""
    draw = torch.Generator().manual_seed(2)
    q = torch.randn(ROWS, 1, HEADS, WIDTH, generator=draw).to(dtype).transpose(1, 2)
    k, v = (torch.randn(ROWS, OF_KEYS, 200, WIDTH, generator=draw).to(dtype)[:, :, :PLACES] for _ in range(2))
    mask = torch.arange(PLACES) <= torch.tensor([0, 70, PLACES - 1])[:, None, None, None]
    compare(lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True), dtype)


def compare(function: Callable[[], Tensor], dtype: torch.dtype) -> None:
    calls: list[object] = []

    class Counted(GpuKernels):
        def __torch_function__(self, function, types, given=(), named=None):
            calls.append(done := super().__torch_function__(function, types, given, named))
            return done

    with Counted(torch.device("cpu")):
        found = function()
    torch.testing.assert_close(found, function(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert calls


def test_new_keys_and_values_stand_at_their_positions() -> None:
    draw = torch.Generator().manual_seed(3)
    keys, values = torch.zeros(ROWS, OF_KEYS, 20, WIDTH), torch.zeros(ROWS, OF_KEYS, 20, WIDTH)
    k, v = (torch.randn(ROWS, 1, OF_KEYS, WIDTH, generator=draw).transpose(1, 2) for _ in range(2))
    at = torch.tensor([[3], [0], [19]])
    GpuKernels(torch.device("cpu")).keep(k, v, keys, values, at)
    for kept, new in ((keys, k), (values, v)):
        expected = torch.zeros_like(kept)
        expected[torch.arange(ROWS)[:, None], :, at] = new.transpose(1, 2)
        assert torch.equal(kept, expected)


@pytest.mark.parametrize("name", ["gpt2", "window"])
def test_texts_are_those_of_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Joins, leaves, guesses; prompts in pieces of 7 tokens, up to the context."""
    trained, rng = made(name), random.Random(4)
    monkeypatch.setattr(graph_executor, "PIECE", 7)
    monkeypatch.setattr(graph_executor, "FEWEST_PLACES", 16)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(GraphExecutor, "_recorded", called)
    requests = [random_request(rng) for _ in range(25)]
    plain = Engine(choose_executor(trained, "torch").open(Limits(slots=4)))
    sizes = {"context": trained.program.context, "vocab_size": trained.tokenizer.vocab_size}
    said: list[str] = []
    executor = GraphExecutor(
        trained.model, Limits(slots=4, draft_tokens=2, prefix_bytes=1 << 16), **sizes, say=said.append
    )
    assert [ids(events) for events in run(Engine(executor), requests)] == [
        ids(events) for events in run(plain, requests)
    ]
    assert (
        said[0].startswith("recorded for 1 text of up to 16 tokens in ") and 4 <= len(said) <= 6
    )  # 1 and 4; 16, 32 and 48


def called(executor: GraphExecutor, cache: object) -> Callable[[], Tensor]:
    """A pass, whose memory is as that of recorded ones: the next pass, of whatever shape, writes over its logits."""

    def step() -> Tensor:
        for old in vars(executor).setdefault("given", []):
            old.fill_(torch.nan)
        executor._kernels.start()
        with executor._kernels:
            logits = executor._forward(cache.ids, past_key_values=cache, position_ids=cache.positions)[0]
        executor.given[:] = [logits]
        return graph_executor._replayed(Replayed(), logits)

    return step


class Replayed:
    def replay(self) -> None:
        """Has been called."""
