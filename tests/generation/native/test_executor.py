"""The engine on the native executor: every text is the very one that it is alone."""

from __future__ import annotations

import os
import random
from dataclasses import replace

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


@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize(
    "limits",
    [
        Limits(slots=8),
        Limits(slots=5, prefill_tokens=7, prefix_bytes=1 << 22),
        Limits(slots=8, cache_tokens=2 * CONTEXT, prefix_bytes=1 << 18, draft_tokens=4),
    ],
    ids=["plain", "chunks and prefixes", "little room and drafts"],
)
def test_every_text_is_as_it_is_alone(bits: int, limits: Limits) -> None:
    requests = some_requests(40, seed=bits)
    alone = [run(Engine(executor(Limits(slots=1), bits)), [request])[0] for request in requests]
    assert run(Engine(executor(limits, bits, threads=2)), requests) == alone


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
    """Joins, leaves and cancels: every answer is its answer alone, and afterwards no page is held."""
    rng = random.Random(3)
    limits = Limits(slots=6, prefill_tokens=16, prefix_bytes=1 << 20)
    shared = executor(limits)
    engine = Engine(shared)
    waiting = [replace(r, max_new_tokens=min(r.max_new_tokens, 40)) for r in some_requests(REQUESTS, seed=7)]
    alone = Engine(executor(Limits(slots=1)))
    open_requests: dict[int, tuple[Request, list[int]]] = {}
    most = 0
    while waiting or engine.busy:
        while waiting and rng.random() < 0.5:
            request = waiting.pop()
            open_requests[engine.submit(request)] = request, []
        if open_requests and rng.random() < 0.05:
            handle = rng.choice(list(open_requests))
            assert engine.cancel(handle)
            del open_requests[handle]
        for event in engine.step():
            if event.token is not None:
                open_requests[event.handle][1].append(event.token)
            if event.last:
                request, written = open_requests.pop(event.handle)
                assert written == run(alone, [request])[0][0]
        most = max(most, shared.nbytes)
    assert not open_requests
    assert not shared._rows
    assert shared.nbytes <= limits.prefix_bytes
    assert most <= limits.prefix_bytes + limits.slots * (CONTEXT // PAGE + 3) * shared._page_bytes


def test_a_model_that_knows_fewer_tokens_is_refused() -> None:
    with pytest.raises(NeuralError, match="N917"):
        NativeExecutor(optimize(PROGRAM.graph), WEIGHTS, vocab_size=VOCAB_SIZE + 1)
