from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from neural.training import loss
from neural.training.logits_memory import LogitsMemory
from neural.training.loss import HeadLoss, Slopes, TrainingLoss, plain_head, row_chunks, score, softmax_slopes


def case(vocabulary: int, tokens: int = 40, width: int = 12, *, bias: bool = True) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(vocabulary)
    hidden, weight, offsets = (
        torch.randn(s, generator=draw) for s in ((tokens, width), (vocabulary, width), (vocabulary,))
    )
    targets = torch.randint(vocabulary, (tokens,), generator=draw)
    return hidden, weight, offsets if bias else None, targets


@pytest.mark.parametrize("vocabulary", [2, 7, 64, 65, 500])
@pytest.mark.parametrize("limit", [1, 1000, 2**25])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("tile", "slopes"), [(1, None), (64, None), (64, softmax_slopes)])
def test_loss_and_gradients_are_those_of_whole_logits(
    vocabulary: int, limit: int, bias: bool, tile: int, slopes: Slopes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU rows of logits have a length that is a multiple of a tile, and their slopes are compiled."""
    monkeypatch.setitem(loss.LOGITS, "cpu", limit)
    monkeypatch.setitem(loss.TILES, "cpu", tile)
    *given, targets = case(vocabulary, bias=bias)
    expected_of = [x.double().requires_grad_() if x is not None else None for x in given]
    expected = 0.25 * F.cross_entropy(F.linear(*expected_of), targets)
    (3 * expected).backward()
    found_of = [x.clone().requires_grad_() if x is not None else None for x in given]
    found = HeadLoss.apply(*found_of, None, targets, 0.25, slopes, LogitsMemory())
    (3 * found).backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-7)
    for one, other in zip(found_of, expected_of, strict=True):
        if one is not None:
            torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-5, atol=1e-7)


def test_a_frozen_head_has_no_gradient() -> None:
    hidden, weight, _, targets = case(9, bias=False)
    HeadLoss.apply(hidden.requires_grad_(), weight, None, None, targets, 1.0, None, LogitsMemory()).backward()
    assert hidden.grad is not None and weight.grad is None


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (7, 10), (100, 3), (5, 10**9), (4096, 50257)])
def test_chunks_are_all_rows_once_and_small(rows: int, width: int) -> None:
    slices = list(row_chunks(rows, width, "cpu"))
    assert [i for s in slices for i in range(rows)[s]] == list(range(rows))
    assert all((s.stop - s.start) * width <= max(loss.LOGITS["cpu"], width) for s in slices)


@pytest.fixture
def model(make_run) -> nn.Module:
    torch.manual_seed(1)
    return make_run(dropout=0.0).new_model()


def test_a_model_is_trained_to_the_same_whatever_its_head(model: nn.Module) -> None:
    """A head that is not a plain product, here wrapped, is called as it is."""
    ids = torch.randint(20, (3, 9), generator=torch.Generator().manual_seed(2))
    other = copy.deepcopy(model)
    name, head = list(other.named_children())[-1]
    setattr(other, name, nn.Sequential(head))
    assert plain_head(model) is not None and plain_head(other) is None
    losses = [TrainingLoss(m)(ids[:, :-1], ids[:, 1:]) for m in (model, other)]
    for found in losses:
        found.backward()
    torch.testing.assert_close(*losses)
    for one, same in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, same.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("tokens", [1, 5, 1000])
def test_scores_are_those_of_whole_logits(model: nn.Module, monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """At so many tokens at a time."""
    inputs, targets = torch.randint(20, (3, 8)), torch.randint(20, (3, 8))
    logits = model(inputs).detach().flatten(0, 1)
    targets[0] = logits.argmax(-1)[:8]
    monkeypatch.setitem(loss.LOGITS, "cpu", tokens * logits.size(-1))
    with torch.no_grad():
        nats, right = score(TrainingLoss(model), inputs, targets)
    expected = F.cross_entropy(logits.double(), targets.flatten(), reduction="sum")
    torch.testing.assert_close(nats, expected, rtol=1e-6, atol=0)
    assert right == (logits.argmax(-1) == targets.flatten()).sum() >= 8


def test_logits_have_the_memory_of_those_before() -> None:
    """As much as the largest set had; threads have pieces of their own. Others make it: a GPU, a deep head's product."""
    memory, weight = LogitsMemory(), torch.empty(2, 5)
    with memory.piece(5, weight) as first, memory.piece(3, weight) as second:
        assert first.numel() == 10 and second.numel() == 6
        places = {first.data_ptr(), second.data_ptr()}
    assert len(places) == 2
    with memory.piece(3, weight) as again:
        assert again.data_ptr() in places
    for other in (None, weight.to("meta"), torch.empty(2, 500)):
        with memory.piece(5, other) as none:
            assert none is None


def test_logits_are_made_in_that_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else takes as much while gradients are made."""
    monkeypatch.setitem(loss.LOGITS, "cpu", 500 * 20)
    hidden, weight, _, targets = case(500, tokens=100, bias=False)
    memory, given = LogitsMemory(), (hidden.requires_grad_(), weight.requires_grad_(), None, None, targets, 1.0, None)
    HeadLoss.apply(*given, memory).backward()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        HeadLoss.apply(*given, memory).backward()
    taken = [event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert 0 < max(taken) < 4 * 500 * 20


@pytest.mark.parametrize("width", [24, 200])
def test_one_set_of_logits_at_a_time(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a deep head's, too, which have memory of their own."""
    size = 4 * 500 * 20
    monkeypatch.setitem(loss.LOGITS, "cpu", 500 * 20)
    hidden, weight, targets = torch.randn(100, width), torch.randn(500, width), torch.randint(500, (100,))
    memory = LogitsMemory()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        HeadLoss.apply(hidden.requires_grad_(), weight.requires_grad_(), None, None, targets, 1.0, None, memory)
    changes = [event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    at_a_time = [sum((n > 0) - (n < 0) for n in changes[: i + 1] if abs(n) == size) for i in range(len(changes))]
    assert max(at_a_time) == 1
