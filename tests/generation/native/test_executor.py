"""The engine on the native executor: every text is the very one that it is alone."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace
from functools import cache

import psutil
import pytest
import torch

from neural.diagnostics.diagnostic import NeuralError
from neural.generation.beams import beam_search
from neural.generation.engine import Engine
from neural.generation.native.executor import NativeExecutor
from neural.generation.native.pages import PAGE
from neural.generation.options import SamplingOptions
from neural.generation.request import FinishReason, Limits, Request
from neural.generation.torch_executor import TorchExecutor
from neural.graph.passes import optimize
from tests.generation.native.models import CONTEXT, PROGRAMS, VOCAB_SIZE, compiled, named_weights, rounded, tokens

REQUESTS = int(os.environ.get("NEURAL_ENGINE_REQUESTS", "300"))
GREEDY = SamplingOptions(temperature=0)
PROGRAM, MODEL = compiled(PROGRAMS["rope, grouped"])
WEIGHTS = named_weights(PROGRAM, MODEL)


def executor(limits: Limits | None = None, bits: int = 32, threads: int = 1) -> NativeExecutor:
    numbers = WEIGHTS if bits == 32 else rounded(WEIGHTS, bits)
    return NativeExecutor(optimize(PROGRAM.graph), numbers, limits, vocab_size=VOCAB_SIZE, threads=threads)


def run(engine: Engine, requests: list[Request]) -> list[tuple[list[int], FinishReason]]:
    handles = [engine.submit(request) for request in requests]
    written = {handle: [] for handle in handles}
    ended = {}
    while engine.busy:
        for event in engine.step():
            if event.token is not None:
                written[event.handle].append(event.token)
            if event.last:
                ended[event.handle] = event.finish_reason
    return [(written[handle], ended[handle]) for handle in handles]


def some_requests(count: int, seed: int) -> list[Request]:
    """Prompts with common beginnings, some of whole pages; texts that slide past the context."""
    rng = random.Random(seed)
    beginnings = [tokens(n, seed=n) for n in (0, 10, PAGE, PAGE + 1, 2 * PAGE + 7)]
    made = []
    for i in range(count):
        prompt = [*rng.choice(beginnings), *tokens(rng.randint(1, 20), seed=1000 + i)]
        options = SamplingOptions(temperature=rng.choice([0, 1.0]), top_k=rng.choice([None, 8]), seed=i)
        ends = frozenset(rng.sample(range(VOCAB_SIZE), 2))
        most = rng.choice([0, 1, 5, 30, CONTEXT])
        made.append(Request(prompt, most, options, ends=ends if i % 3 else frozenset()))
    return made


@cache
def each_alone(bits: int) -> list[tuple[list[int], FinishReason]]:
    """Of two hundred requests, one after another, each read whole, and nothing kept."""
    engine = Engine(executor(Limits(slots=1, prefill_tokens=CONTEXT), bits))
    return [run(engine, [request])[0] for request in some_requests(200, seed=bits)]


@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize(
    "limits",
    [
        Limits(slots=16, prefill_tokens=CONTEXT),
        Limits(slots=16, prefill_tokens=7),
        Limits(slots=16, prefill_tokens=CONTEXT, prefix_bytes=1 << 22),
        Limits(slots=5, prefill_tokens=7, prefix_bytes=1 << 22),
        Limits(slots=8, cache_tokens=2 * CONTEXT, prefix_bytes=1 << 18, draft_tokens=4),
    ],
    ids=["whole", "chunks", "prefixes", "chunks and prefixes", "little room and drafts"],
)
def test_two_hundred_requests_together_are_as_each_alone(bits: int, limits: Limits) -> None:
    engine = Engine(executor(limits, bits, threads=2))
    assert run(engine, some_requests(200, seed=bits)) == each_alone(bits)


def test_greedy_is_pytorchs_greedy() -> None:
    requests = [Request(tokens(n, seed=n), 60, GREEDY) for n in (1, 30, 64, 120)]
    theirs = run(Engine(TorchExecutor(MODEL, context=CONTEXT, vocab_size=VOCAB_SIZE)), requests)
    assert run(Engine(executor()), requests) == theirs


def test_beams_are_pytorchs_beams() -> None:
    search = {"max_new_tokens": 70, "beams": 4, "n_best": 3}
    theirs = beam_search(
        TorchExecutor(MODEL, Limits(slots=4), context=CONTEXT, vocab_size=VOCAB_SIZE), [5, 6], **search
    )
    ours = beam_search(executor(Limits(slots=4)), [5, 6], **search)
    assert [beam.ids for beam in ours] == [beam.ids for beam in theirs]


def test_a_prefix_is_read_once() -> None:
    one = executor(Limits(prefix_bytes=1 << 22))
    first = tokens(PAGE * 2 + 5)
    assert one.begin(first) == 0
    one.read(first)
    one.join()
    one.leave(0, first)
    assert one.begin([*tokens(30, seed=9)]) == 0
    one.read(tokens(30, seed=9))
    assert one.begin([*first[: PAGE * 2], 1, 2]) == PAGE * 2
    one.read([1, 2])
    again = one.join()
    fresh = executor()
    fresh.begin([*first[: PAGE * 2], 1, 2])
    fresh.read([*first[: PAGE * 2], 1, 2])
    assert torch.equal(again, fresh.join())


def test_random_requests_leave_nothing_behind() -> None:
    """Joins, leaves, cancels, stops and refusals: every answer is its answer alone, what was called off is the start of
    it, memory does not grow, and afterwards no page is held.
    """
    rng = random.Random(3)
    limits = Limits(slots=6, prefill_tokens=16, prefix_bytes=1 << 20)
    shared = executor(limits)
    engine = Engine(shared)
    waiting = [replace(r, max_new_tokens=min(r.max_new_tokens, 40)) for r in some_requests(REQUESTS, seed=7)]
    alone = Engine(executor(Limits(slots=1)))
    open_requests: dict[int, tuple[Request, list[int]]] = {}
    counts, most, settled = Counter(), 0, 0

    def end(handle: int, why: str) -> None:
        counts[why] += 1
        request, written = open_requests.pop(handle)
        expected = run(alone, [request])[0][0]
        assert written == (expected if why == "ended" else expected[: len(written)])

    while waiting or engine.busy:
        if len(waiting) == REQUESTS * 3 // 4:
            settled = psutil.Process().memory_info().rss
        while waiting and rng.random() < 0.5:
            request = waiting.pop()
            if rng.random() < 0.03:
                with pytest.raises(NeuralError, match="N911"):
                    engine.submit(replace(request, prompt=[1] * (CONTEXT + 1)))
                counts["refused"] += 1
            open_requests[engine.submit(request)] = request, []
        if open_requests and rng.random() < 0.05:
            handle = rng.choice(list(open_requests))
            assert engine.cancel(handle)
            end(handle, "cancelled")
        for event in engine.step():
            if event.handle not in open_requests:
                continue  # stopped by an earlier event of this step
            if event.token is not None:
                open_requests[event.handle][1].append(event.token)
            if event.last:
                end(event.handle, "ended")
            elif rng.random() < 0.01:  # as a stop string does
                engine.cancel(event.handle)
                end(event.handle, "stopped")
        most = max(most, shared.nbytes)
    assert all(counts[why] for why in ("ended", "cancelled", "stopped", "refused"))
    assert counts.total() - counts["refused"] == REQUESTS
    assert psutil.Process().memory_info().rss - settled < 20 << 20
    assert not open_requests
    assert not shared._rows
    assert shared.nbytes <= limits.prefix_bytes
    assert most <= limits.prefix_bytes + limits.slots * (CONTEXT // PAGE + 3) * shared._page_bytes


def test_a_model_that_knows_fewer_tokens_is_refused() -> None:
    with pytest.raises(NeuralError, match="N917"):
        NativeExecutor(optimize(PROGRAM.graph), WEIGHTS, vocab_size=VOCAB_SIZE + 1)
