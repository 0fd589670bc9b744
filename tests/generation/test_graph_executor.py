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

from neural.generation import gpu_functions, graph_executor
from neural.generation.gpu_functions import GpuFunctions
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
    "product of a norm": lambda x, w, b: F.linear(F.layer_norm(x, (MODEL,), w[0], w[1]), w, b),
    "product of a norm without weights": lambda x, w, b: F.linear(F.rms_norm(x, (MODEL,)), w),
    "activation of a product": lambda x, w, b: F.gelu(F.linear(x, w, b), approximate="tanh"),
    "sum with a product": lambda x, w, b: F.linear(x, w, b) + F.linear(F.silu(x), w),
    "product of products": lambda x, w, b: F.silu(F.linear(x, w, b)) * F.linear(x, w.flip(0)),
    "residual": lambda x, w, b: x + F.linear(F.linear(x, w, b), w.T.contiguous()),
    "norm read twice": lambda x, w, b: F.linear(y := F.rms_norm(x, (MODEL,)), w).sum(-1) + y.square().mean(-1),
    "product read twice": lambda x, w, b: F.gelu(y := F.linear(x, w, b)) - y.tanh(),
    "view of a product": lambda x, w, b: F.linear(x, w, b).view(1, 37, 1).chunk(37, dim=1)[5],
    "norm of what is written later": lambda x, w, b: written(x.clone(), F.rms_norm, (MODEL,)),
    "product of what is written later": lambda x, w, b: written(x.clone(), F.linear, w, b),
    "product by itself": lambda x, w, b: (y := F.linear(x, w, b)) * y,
}
FUSED = {"product of a norm": 1, "activation of a product": 1, "sum with a product": 3, "product of products": 2}
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def written(x: Tensor, function: Callable[..., Tensor], *given: object) -> Tensor:
    y = function(x, *given)
    x.zero_()
    return y


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_torchs(name: str, dtype: torch.dtype, launches: list[str]) -> None:
    draw = torch.Generator().manual_seed(1)
    shapes = {(1, 1, MODEL): 1.0, (37, MODEL): MODEL**-0.5, (37,): 1.0}
    given = [torch.randn(shape, generator=draw).mul(scale).to(dtype) for shape, scale in shapes.items()]
    with GpuFunctions(torch.device("cpu")):
        found = FUNCTIONS[name](*given)
    expected = FUNCTIONS[name](*(x.double() for x in given)).to(dtype)
    torch.testing.assert_close(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert len(launches) == FUSED.get(name, len(launches)) > 0


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that have been started."""
    names: list[str] = []
    for name in ("linear", "attend", "keep", "normalize", "pointwise"):
        monkeypatch.setattr(gpu_functions.kernels, name, Noted(name, getattr(gpu_functions.kernels, name), names))
    return names


class Noted:
    def __init__(self, name: str, kernel: object, names: list[str]) -> None:
        self.name, self.kernel, self.names = name, kernel, names

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., object]:
        self.names.append(self.name)
        return self.kernel[grid]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("between", [False, True])
def test_attention_is_torchs(dtype: torch.dtype, between: bool, launches: list[str]) -> None:
    """Rows that see one place, some, and all, in a corner of a larger cache; fewer heads of keys. Whether the new keys
    and values are stored by the attention, or by themselves, since something else may read them.
    """
    draw = torch.Generator().manual_seed(2)
    q, new_k, new_v = (
        torch.randn(ROWS, 1, n, WIDTH, generator=draw).to(dtype).transpose(1, 2) for n in (HEADS, OF_KEYS, OF_KEYS)
    )
    k, v = (torch.randn(ROWS, OF_KEYS, 200, WIDTH, generator=draw).to(dtype)[:, :, :PLACES] for _ in range(2))
    positions = torch.tensor([[0], [70], [PLACES - 1]])
    mask = torch.arange(PLACES) <= positions[..., None, None]
    expected_k, expected_v = k.clone(), v.clone()
    for expected, new in ((expected_k, new_k), (expected_v, new_v)):
        expected[torch.arange(ROWS)[:, None], :, positions] = new.transpose(1, 2)
    functions = GpuFunctions(torch.device("cpu"))
    with functions:
        functions.keep(new_k, new_v, k, v, positions)
        read = k.sum() if between else None
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    assert torch.equal(k, expected_k) and torch.equal(v, expected_v)
    assert read is None or read == k.sum()
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert launches == (["keep"] if between else ["attend"])


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
        with executor._functions:
            logits = executor._forward(cache.ids, past_key_values=cache, position_ids=cache.positions)[0]
        executor.given[:] = [logits]
        return graph_executor._replayed(Replayed(), logits)

    return step


class Replayed:
    def replay(self) -> None:
        """Has been called."""
