"""Dropout and attention as the trainer does them on a CPU, beside torch's own."""

from __future__ import annotations

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neural.cpp import building
from neural.training import cpu_library
from neural.training.cpu_kernels import CpuKernels
from tests.forked.context import CONTEXT

pytestmark = pytest.mark.skipif(building.compiler() is None, reason="no C++ compiler")
SHAPES = {  # batch, length, heads, heads of keys and values, width of a head
    "one group": (2, 64, 2, 2, 8),
    "a group that is not full": (2, 100, 3, 3, 16),
    "shorter than a group": (3, 5, 2, 2, 4),
    "shared keys": (2, 130, 4, 2, 8),
}


def heads(batch: int, length: int, of_q: int, of_k: int, width: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(length)
    sizes = [(batch, length, n, width) for n in (of_q, of_k, of_k)]
    return [torch.randn(s, generator=draw).transpose(1, 2).requires_grad_() for s in sizes]


def attend(qkv: list[torch.Tensor], rate: float = 0.0, seed: int | None = None) -> list[torch.Tensor]:
    """The output and the gradients of q, k and v; with a seed, by our kernels."""
    grouped = qkv[0].size(1) != qkv[1].size(1)

    def call() -> torch.Tensor:
        return F.scaled_dot_product_attention(*qkv, is_causal=True, dropout_p=rate, scale=0.3, enable_gqa=grouped)

    if seed is None:
        y = call()
    else:
        with CpuKernels(seed):
            y = call()
    slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return [y, *torch.autograd.grad(y, qkv, slope)]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_dropped_attention_is_its_definition(shape: tuple[int, ...]) -> None:
    """With values that are the unit vectors, the output is the weights: what was dropped can be read from it."""
    batch, length, of_q, of_k, _ = shape
    q, k, _ = heads(batch, length, of_q, of_k, length)
    unit = torch.eye(length).expand(batch, of_k, length, length).clone().requires_grad_()
    repeated = k.repeat_interleave(of_q // of_k, dim=1)
    scores = (q @ repeated.mT * 0.3).masked_fill(torch.ones(length, length).triu(1) > 0, -torch.inf)
    weights, found = scores.softmax(-1), attend([q, k, unit], 0.25, seed=7)
    stays = found[0].detach() != 0
    expected = weights * stays / 0.75
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-6)
    slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(found[1:3], torch.autograd.grad(expected, [q, k], slope), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_dropout_keeps_its_rate_and_the_mean(rate: float) -> None:
    x = torch.ones(1000, 1000)
    with CpuKernels(3):
        y = F.dropout(x, rate)
    dropped = y == 0
    deviation = (rate * (1 - rate) / x.numel()) ** 0.5
    assert dropped.double().mean().item() == pytest.approx(rate, abs=5 * deviation)
    assert y.double().mean().item() == pytest.approx(1.0, abs=5 * deviation / (1 - rate))
    assert y[~dropped].unique().tolist() == pytest.approx([1 / (1 - rate)], rel=2e-4)


def test_elements_and_calls_are_dropped_independently() -> None:
    """The share that two neighbours, or the same element of two calls, are both dropped is the square of the rate."""
    x, rate = torch.ones(1000, 1000), 0.2
    with CpuKernels(5):
        first, second = ((F.dropout(x, rate) == 0).double() for _ in range(2))
    deviation = (rate**2 * (1 - rate**2) / x.numel()) ** 0.5
    pairs = {
        "calls": first * second,
        "columns": first[:, 1:] * first[:, :-1],
        "rows": first[1:] * first[:-1],
        "words": first[:, 4:] * first[:, :-4],
        "draws": first[:, 32:] * first[:, :-32],
        "pieces": first.flatten()[4096:] * first.flatten()[:-4096],
    }
    for name, both in pairs.items():
        assert both.mean().item() == pytest.approx(rate**2, abs=5 * deviation), name
    assert first.mean(0).std().item() == pytest.approx((rate * (1 - rate) / 1000) ** 0.5, rel=0.1)


def test_weights_of_attention_are_dropped_independently() -> None:
    """Those of two texts, heads, queries or keys: both as often as the square of the rate."""
    length, rate = 256, 0.2
    q, k, _ = heads(2, length, 2, 2, length)
    unit = torch.eye(length).expand(2, 2, length, length).clone().requires_grad_()
    dropped = (attend([q * 0, k, unit], rate, seed=3)[0] == 0).double()  # (B, H, T, T)
    seen = torch.ones(length, length).tril().bool()
    pairs = {
        "alone": (dropped**0.5, seen),
        "texts": (dropped[0] * dropped[1], seen),
        "heads": (dropped[:, 0] * dropped[:, 1], seen),
        "queries": (dropped[:, :, 1:] * dropped[:, :, :-1], seen[:-1]),
        "keys": (dropped[..., 1:] * dropped[..., :-1], seen[:, 1:]),
        "blocks of queries": (dropped[:, :, 64:] * dropped[:, :, :-64], seen[:-64]),
        "blocks of keys": (dropped[..., 64:] * dropped[..., :-64], seen[:, 64:]),
    }
    for name, (both, there) in pairs.items():
        expected, found = rate if name == "alone" else rate**2, both[..., there]
        assert found.mean().item() == pytest.approx(expected, abs=5 * (expected / found.numel()) ** 0.5), name


def test_the_gradient_is_dropped_as_the_value_was() -> None:
    x = torch.ones(50, 50, requires_grad=True)
    with CpuKernels(1):
        y = nn.Dropout(0.3)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_nothing_and_everything_can_be_dropped() -> None:
    x = torch.ones(10, 10)
    with CpuKernels(1):
        assert torch.equal(F.dropout(x, 0.0), x) and torch.equal(F.dropout(x, 0.4, training=False), x)
        assert F.dropout(x, 1.0).count_nonzero() == 0


def test_the_same_seed_drops_the_same() -> None:
    qkv = heads(2, 70, 2, 2, 4)
    for one, same, other in zip(attend(qkv, 0.3, 5), attend(qkv, 0.3, 5), attend(qkv, 0.3, 6), strict=True):
        assert torch.equal(one, same) and not torch.equal(one, other)


def test_beside_products_in_half_precision_it_is_the_same_in_float32() -> None:
    qkv = heads(2, 70, 4, 2, 8)
    half = [x.detach().bfloat16().requires_grad_() for x in qkv]
    whole = [x.detach().float().requires_grad_() for x in half]
    expected = attend(whole, 0.3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(half, 0.3, 5)
        mixed = attend([half[0].float(), *half[1:]], 0.3, 5)
    assert torch.equal(found[0], expected[0].bfloat16()) and torch.equal(found[0], mixed[0])
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.float(), other, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 31, 4096, 4097, 10_000])
def test_values_of_any_number_are_dropped_and_divided(dtype: torch.dtype, length: int) -> None:
    x = torch.randn(length, generator=torch.Generator().manual_seed(3)).to(dtype)
    with CpuKernels(3):
        y = F.dropout(x, 0.5)
    torch.testing.assert_close(y, torch.where(y == 0, 0, 2 * x))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_without_dropout_attention_is_torchs(shape: tuple[int, ...]) -> None:
    qkv = heads(*shape)
    for ours, theirs in zip(attend(qkv, 0.0, seed=1), attend(qkv), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 2, 5, 4), (2, 2, 0, 4), (2, 2, 5, 0)], ids=str)
def test_nothing_is_attended_to(shape: tuple[int, ...]) -> None:
    x = torch.empty(shape)
    with CpuKernels(1):
        assert F.scaled_dot_product_attention(x, x, x, is_causal=True, scale=1.0).shape == shape


def test_large_scores_do_not_overflow() -> None:
    q, k, v = heads(1, 130, 2, 2, 8)
    qkv = [q.detach().mul(200).requires_grad_(), k, v]
    exact = [x.detach().double().requires_grad_() for x in qkv]
    for ours, theirs in zip(attend(qkv, 0.0, seed=1), attend(exact), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-3)


def test_a_number_that_is_none_comes_out() -> None:
    qkv = heads(1, 70, 2, 2, 8)
    with torch.no_grad():
        qkv[0][0, 0, 3, 0] = torch.nan
    found = attend(qkv, 0.0, seed=1)[0]
    assert found[0, 0, 3].isnan().all() and found[0, 1].isfinite().all() and found[0, 0, 4:].isfinite().all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_bits_are_the_same_with_any_number_of_threads(threads: int) -> None:
    qkv, before = heads(2, 130, 4, 2, 8), torch.get_num_threads()
    expected = attend(qkv, 0.2, seed=1)
    torch.set_num_threads(threads)
    try:
        found = attend(qkv, 0.2, seed=1)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (33, 17), (100, 257)], ids=str)
def test_a_copy_is_transposed(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape[0], shape[1] + 5)[:, : shape[1]]
    assert torch.equal(cpu_library.transposed(matrix), matrix.t())


def test_without_a_compiler_all_of_it_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_library, "library", lambda: None)
    qkv = heads(2, 70, 4, 2, 8)
    assert all(torch.equal(a, b) for a, b in zip(attend(qkv, seed=1), attend(qkv), strict=True))
    before = torch.get_rng_state()
    with CpuKernels(1):
        dropped = F.dropout(torch.ones(100), 0.5)
    assert set(dropped.tolist()) == {0.0, 2.0} and torch.equal(torch.get_rng_state(), before)
    assert torch.equal(cpu_library.transposed(torch.eye(3)), torch.eye(3))


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the instructions are those of x86")
@pytest.mark.parametrize("without", [("avx512f",), ("avx512f", "avx2", "avx")], ids=str)
def test_a_machine_of_fewer_instructions_gives_the_same_numbers(
    without: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qkv = heads(2, 130, 4, 2, 24)
    here = attend(qkv, 0.3, seed=1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(building, "FLAGS", (*building.FLAGS, *(f"-mno-{name}" for name in without)))
    there = building.load.__wrapped__(cpu_library.KERNELS)
    monkeypatch.setattr(cpu_library, "library", lambda: there)
    for one, other in zip(attend(qkv, 0.3, seed=1), here, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("call", ["dropout", "attention"])
def test_what_torch_drops_follows_from_the_seed_in_any_thread(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_library, "library", lambda: None)
    q, k, v = (x.detach() for x in heads(2, 70, 2, 2, 8))

    def drawn(seed: int) -> torch.Tensor:
        with CpuKernels(seed):
            if call == "dropout":
                return torch.cat([F.dropout(torch.ones(1000), 0.5) for _ in range(20)])
            return torch.stack([F.scaled_dot_product_attention(q, k, v, dropout_p=0.5) for _ in range(20)])

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(drawn, (1, 2, 1, 2) * 3))
    assert not torch.equal(found[0], found[1])
    assert all(torch.equal(x, found[i % 2]) for i, x in enumerate(found))


def test_what_is_said_where_it_is_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    said: list[str] = []
    cpu_library.compile_kernels(said.append)
    assert "some seconds, once" in said[0] and "false could not compile" in said[1] and "torch's" in said[1]


def test_what_is_not_ours_is_torchs() -> None:
    q, k, v = (x.detach() for x in heads(1, 70, 2, 2, 4))
    mask = torch.ones(70, 70, dtype=torch.bool).tril()
    for given in ({"attn_mask": mask}, {}):
        with CpuKernels(1):
            found = F.scaled_dot_product_attention(q[:, :, :60], k[:, :, :60], v[:, :, :60], **_cut(given))
        assert torch.equal(
            found, F.scaled_dot_product_attention(q[:, :, :60], k[:, :, :60], v[:, :, :60], **_cut(given))
        )


def _cut(given: dict) -> dict:
    return {name: value[:60, :60] if name == "attn_mask" else value for name, value in given.items()}


def attend_without_memory() -> None:
    """Memory of the process for what comes out, and not for a head's keys and values."""
    torch.set_num_threads(1)
    q = torch.zeros(1, 1, 2**15, 512)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + q.nbytes + 2**24,) * 2)
    try:
        cpu_library.attend(q, q, q, 1.0, cpu_library.Dropping(0, 0))
    except MemoryError:
        os._exit(3)


def test_no_memory_is_an_error() -> None:
    cpu_library.library()
    process = CONTEXT.Process(target=attend_without_memory)
    process.start()
    process.join()
    assert process.exitcode == 3
