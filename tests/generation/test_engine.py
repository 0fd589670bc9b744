"""The engine against recomputing every step without a cache, against itself alone, and against transformers."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import random
from functools import cache

import psutil
import pytest
import torch
from torch import nn

from neural.data.tokenizers import load_tokenizer
from neural.diagnostics.diagnostic import NeuralError
from neural.generation import greedy
from neural.generation.constraint import Constraint, constrain
from neural.generation.drafting import Drafter, DraftModel
from neural.generation.engine import Engine
from neural.generation.options import SamplingOptions
from neural.generation.request import Event, FinishReason, Limits, Request
from neural.generation.row import Row, kept_tokens
from neural.generation.sampling import sample
from neural.generation.torch_executor import TorchExecutor
from tests.generation.huggingface import HuggingFaceGpt2

VOCAB_SIZE, CONTEXT = 257, 48
PROMPT = (3, 1, 4, 1, 5, 9, 2)
GREEDY = SamplingOptions(temperature=0)
SAMPLED = SamplingOptions(temperature=1.3, top_k=30, top_p=0.97, min_p=0.01, repetition_penalty=1.2, seed=4)
REQUESTS = int(os.environ.get("NEURAL_ENGINE_REQUESTS", "100"))  # of the long test; 10000 takes minutes


def engine_of(
    model: nn.Module, limits: Limits | None = None, vocab_size: int = VOCAB_SIZE, drafter: Drafter | None = None
) -> Engine:
    return Engine(TorchExecutor(model, limits, context=CONTEXT, vocab_size=vocab_size), drafter)


def smaller(model: nn.Module, limits: Limits) -> DraftModel:
    """What guesses for a model: itself with other weights, mostly alike, and a shorter context."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.parameters()).mul_(0.8)
    return DraftModel(TorchExecutor(other, limits, context=CONTEXT - 8, vocab_size=VOCAB_SIZE))


def engine(model: nn.Module, **limits: int) -> Engine:
    return engine_of(model, Limits(**limits))


def run(engine: Engine, requests: list[Request]) -> list[list[Event]]:
    """The events of each request, all submitted at once."""
    handles = [engine.submit(request) for request in requests]
    events: dict[int, list[Event]] = {handle: [] for handle in handles}
    while engine.busy:
        for event in engine.step():
            events[event.handle].append(event)
    return [events[handle] for handle in handles]


def ids(events: list[Event]) -> list[int]:
    return [event.token for event in events if event.token is not None]


def write(model: nn.Module, options: SamplingOptions, steps: int, *, prompt=PROMPT, num_samples=1, **limits: int):
    """One list of ids a sample."""
    requests = [Request(prompt, steps, options, sample=i) for i in range(num_samples)]
    return [ids(events) for events in run(engine(model, **limits), requests)]


@torch.no_grad()
def recompute(model: nn.Module, request: Request) -> list[int]:
    """The ids of a request, each from a whole pass over the window, without a cache."""
    row = Row(0, request)
    row.start(VOCAB_SIZE)
    finish = None
    while finish is None:
        window = torch.tensor([row.window])
        token = sample(model(window)[:, -1].numpy(), row.manner, [row.generator], Row.past([row])).item()
        finish = row.push(token)
        if len(row.window) > CONTEXT:
            row.slide(CONTEXT)
    return row.ids[len(request.prompt) :]


@pytest.mark.parametrize("options", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("prompt", [PROMPT, (7,), tuple(range(CONTEXT))], ids=["some", "one", "full"])
@pytest.mark.parametrize("steps", [CONTEXT - len(PROMPT) + 1, 100], ids=["within", "sliding"])
def test_the_cache_changes_no_token(model: nn.Module, options: SamplingOptions, prompt: tuple, steps: int) -> None:
    (written,) = write(model, options, steps, prompt=prompt)
    assert written == recompute(model, Request(prompt, steps, options))


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_the_prompt_may_be_read_in_chunks(model: nn.Module, chunk: int) -> None:
    assert write(model, SAMPLED, 60, prefill_tokens=chunk) == write(model, SAMPLED, 60)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_is_transformers_greedy(penalty: float) -> None:
    model = HuggingFaceGpt2(VOCAB_SIZE, CONTEXT)
    steps = CONTEXT - len(PROMPT)
    expected = model.hf.generate(
        torch.tensor([PROMPT]), do_sample=False, max_new_tokens=steps, repetition_penalty=penalty, pad_token_id=0
    )
    (written,) = write(model, SamplingOptions(temperature=0, repetition_penalty=penalty), steps)
    assert written == expected[0, len(PROMPT) :].tolist()
    assert len(set(written)) > 3


def test_each_sample_is_the_same_alone_and_among_others(model: nn.Module) -> None:
    together = write(model, SAMPLED, 60, num_samples=4)
    assert together == [recompute(model, Request(PROMPT, 60, SAMPLED, sample=i)) for i in range(4)]
    assert together[:2] == write(model, SAMPLED, 60, num_samples=2)
    assert len({tuple(ids) for ids in together}) == 4


@torch.no_grad()
def test_the_source_gives_only_the_logits_that_are_asked_for(model: nn.Module) -> None:
    ids = torch.tensor([PROMPT, PROMPT[::-1]])
    for kept in (1, 3, len(PROMPT)):
        torch.testing.assert_close(model(ids, logits_to_keep=kept), model(ids)[:, -kept:], rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_the_source_takes_positions(model: nn.Module) -> None:
    """Row by row, and as other positions than the usual ones would be."""
    ids = torch.tensor([PROMPT, PROMPT])
    usual = torch.arange(len(PROMPT)).expand(2, -1)
    torch.testing.assert_close(model(ids, position_ids=usual), model(ids), rtol=1e-5, atol=1e-4)


@cache
def constraints() -> list[Constraint]:
    byte = load_tokenizer("byte")
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    return [
        constrain(byte, choices=["yes", "no", "a long one indeed"]),
        constrain(byte, regex="[a-z]{2,9}( [0-9]{3})?"),
        constrain(byte, json_schema=schema),
    ]


def random_request(rng: random.Random) -> Request:
    """Any mixture of lengths and options; some prompts begin alike."""
    shared = [(i * 7) % VOCAB_SIZE for i in range(rng.choice([0, 0, 17, 33]))]
    prompt = (*shared, *(rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(1, CONTEXT - len(shared)))))
    most = rng.choice([0, 1, 3, 10, 30, 60])
    options = SamplingOptions(
        temperature=rng.choice([0, 0.7, 1.0, 1.5]),
        top_k=rng.choice([None, None, 5, 40]),
        top_p=rng.choice([None, None, 0.9]),
        min_p=rng.choice([None, None, 0.02]),
        typical_p=rng.choice([None, None, None, 0.9]),
        repetition_penalty=rng.choice([1, 1, 1.3]),
        frequency_penalty=rng.choice([0, 0, 0.5]),
        presence_penalty=rng.choice([0, 0, 0.7]),
        logit_bias=rng.choice([(), (), ((5, 2.5), (9, -100.0))]),
        bad_words=rng.choice([(), (), ((3,), (4, 5))]),
        allowed=rng.choice([None, None, None, tuple(range(40, 90))]),
        seed=rng.randrange(10**9),
    )
    ends = rng.choice([frozenset(), frozenset(range(40, 52))])
    least = rng.choice([0, 0, most // 2])
    logprobs = rng.choice([None, None, 2])
    if options.allowed is None and not options.bad_words and rng.random() < 0.15:
        return Request(prompt, most, options, rng.randrange(4), ends, 0, logprobs, rng.choice(constraints()))
    return Request(prompt, most, options, rng.randrange(4), ends, least, logprobs)


@pytest.mark.parametrize(
    "limits",
    [
        {"slots": 16},
        {"slots": 5, "prefill_tokens": 7},
        {"slots": 16, "prefix_bytes": 1 << 20},
        {"slots": 8, "prefix_bytes": 1 << 16, "cache_tokens": 160},
        {"slots": 8, "draft_tokens": 4},
    ],
    ids=lambda limits: "-".join(limits),
)
def test_two_hundred_requests_together_are_as_each_alone(model: nn.Module, limits: dict[str, int]) -> None:
    rng = random.Random(5)
    requests = [random_request(rng) for _ in range(200)]
    together = [ids(events) for events in run(engine(model, **limits), requests)]
    alone = engine(model, slots=1)
    assert together == [ids(*run(alone, [request])) for request in requests]


@pytest.mark.parametrize("apart", [set(), {"cpu"}], ids=["at hand", "apart"])
def test_greedy_search_where_the_logits_are(model: nn.Module, monkeypatch: pytest.MonkeyPatch, apart: set[str]) -> None:
    """On a GPU tokens alone are copied; ties, and rows that ask for more, are as `sample` has them."""
    rng = random.Random(6)
    requests = [random_request(rng) for _ in range(100)]
    plain = [dataclasses.replace(r, options=GREEDY, logprobs=None, constraint=None) for r in requests]
    with monkeypatch.context() as without:
        without.setattr("neural.generation.engine.greedy", lambda rows, logits: None)
        expected = [ids(events) for events in run(engine(model, slots=4), [*plain, *requests])]
    monkeypatch.setattr(greedy, "APART", apart)
    assert [ids(events) for events in run(engine(model, slots=4), [*plain, *requests])] == expected
    rows = [Row(0, plain[0]), Row(1, dataclasses.replace(plain[0], max_new_tokens=9))]
    ties = torch.tensor([[0.0, 2.0, 2.0, 1.0], [3.0, 3.0, 3.0, -math.inf]])
    assert greedy.greedy(rows, ties) == [1, 0]
    for number in (math.nan, math.inf):
        assert greedy.greedy(rows, torch.tensor([[0.0, number], [0.0, 1.0]])) is None
    assert greedy.greedy(rows[:1], torch.full((1, 2), -math.inf)) is None
    assert greedy.greedy([Row(0, dataclasses.replace(plain[0], logprobs=1))], ties[:1]) is None


def test_prompts_are_read_once(model: nn.Module) -> None:
    """Counted in the tokens that the model reads, with and without what is kept of earlier prompts."""
    read = []
    hook = model.register_forward_pre_hook(lambda _, given: read.append(given[0].numel()))
    try:
        prompts = [(*range(40), i, 1) for i in (100, 200)]
        for limits, expected in (({}, 42 + 42 + 42), ({"prefix_bytes": 1 << 20}, 42 + 42 + 10)):
            kept = engine(model, **limits)
            read.clear()
            for prompt in (prompts[0], tuple(range(60, 102)), prompts[1]):
                run(kept, [Request(prompt, 1)])
            assert sum(read) == expected
        read.clear()
        run(engine(model), [Request(PROMPT, 1, sample=i) for i in range(6)])
        assert sum(read) == len(PROMPT)
    finally:
        hook.remove()


def test_a_long_prompt_does_not_stall_the_others(model: nn.Module) -> None:
    busy = engine(model, prefill_tokens=4)
    first = busy.submit(Request((1,), 20, GREEDY))
    busy.step()
    busy.submit(Request(tuple(range(40)), 5, GREEDY))
    for _ in range(9):
        assert [event.handle for event in busy.step()] == [first]
    assert len(busy.step()) == 2


class Churn:
    """Random requests that come, go, and are called off; every answer is compared with its answer alone."""

    def __init__(self, model: nn.Module, limits: Limits, seed: int, drafter: Drafter | None) -> None:
        self.model, self.rng = model, random.Random(seed)
        self.busy = engine_of(model, limits, drafter=drafter)
        self.alone = engine_of(model, Limits(slots=1))
        self.requests: dict[int, Request] = {}
        self.written: dict[int, list[int]] = {}
        self.counts = {"ended": 0, "cancelled": 0, "refused": 0, "stopped": 0}

    def submit(self) -> None:
        request = random_request(self.rng)
        if self.rng.random() < 0.05:
            request = dataclasses.replace(request, prompt=[1] * (CONTEXT + 1))
        elif self.rng.random() < 0.02:
            request = dataclasses.replace(request, prompt=[VOCAB_SIZE])
        try:
            handle = self.busy.submit(request)
        except NeuralError as error:
            assert error.diagnostics[0].code in ("N911", "N953", "N954")
            self.counts["refused"] += 1
            return
        self.requests[handle], self.written[handle] = request, []

    def step(self) -> None:
        for event in self.busy.step():
            if event.handle not in self.requests:
                continue  # stopped by an earlier event of this step
            assert event.error is None
            if event.token is not None:
                self.written[event.handle].append(event.token)
            if event.last:
                self.end(event.handle, "ended")
            elif self.rng.random() < 0.01:  # as a stop string does
                self.busy.cancel(event.handle)  # False where it ended in this very step
                self.end(event.handle, "stopped")

    def cancel(self) -> None:
        handle = self.rng.choice(list(self.requests))
        assert self.busy.cancel(handle)
        assert not self.busy.cancel(handle)
        self.end(handle, "cancelled")

    def end(self, handle: int, why: str) -> None:
        self.counts[why] += 1
        request, written = self.requests.pop(handle), self.written.pop(handle)
        expected = ids(*run(self.alone, [request]))
        assert written == (expected if why == "ended" else expected[: len(written)]), request


@pytest.mark.parametrize(
    ("limits", "drafted"),
    [
        (Limits(slots=12, queue=30, prefill_tokens=20, cache_tokens=300, prefix_bytes=1 << 18), False),
        (Limits(slots=6, queue=30, prefill_tokens=64, prefix_bytes=1 << 16, draft_tokens=3), False),
        (Limits(slots=6, queue=30, prefill_tokens=64, draft_tokens=3), True),
    ],
    ids=["tight", "guessing", "drafted"],
)
def test_random_requests_leave_nothing_behind(model: nn.Module, limits: Limits, drafted: bool) -> None:
    """In float64: of ten thousand requests in float32 one may meet two tokens that are as near as its rounding."""
    double = model.to(torch.float64)
    try:
        churn = Churn(double, limits, seed=1, drafter=smaller(double, limits) if drafted else None)
        most, settled = 0, 0
        for i in range(REQUESTS):
            if i == REQUESTS // 4:
                settled = psutil.Process().memory_info().rss
            churn.submit()
            while churn.rng.random() < 0.6:
                churn.step()
            if churn.requests and churn.rng.random() < 0.1:
                churn.cancel()
            most = max(most, churn.busy.nbytes)
        while churn.busy.busy:
            churn.step()
    finally:
        model.to(torch.float32)
    assert sum(churn.counts.values()) == REQUESTS
    assert psutil.Process().memory_info().rss - settled < 30 << 20
    assert all(churn.counts.values())
    assert not churn.requests
    assert churn.busy.running == churn.busy.waiting == 0
    token = sum(2 * 8 * k.shape[1] * k.shape[3] for k, _ in churn.busy._executor._prompt.views().values())
    assert most <= (1 + drafted) * (limits.cache_tokens or limits.slots * CONTEXT) * token + limits.prefix_bytes


def test_ids_that_the_tokenizer_does_not_know_are_never_drawn(model: nn.Module) -> None:
    small = engine_of(model, Limits(slots=50), 20)
    options = SamplingOptions(temperature=100)
    events = run(small, [Request(PROMPT, 10, options, sample=i) for i in range(50)])
    assert {token for one in events for token in ids(one)} == set(range(20))


def test_a_model_that_knows_fewer_tokens_is_refused(model: nn.Module) -> None:
    with pytest.raises(NeuralError, match="N917: the model knows 257 tokens, and the tokenizer gives ids up to 257"):
        run(engine_of(model, vocab_size=VOCAB_SIZE + 1), [Request(PROMPT, 1)])


def test_no_end_before_so_many_tokens(model: nn.Module) -> None:
    ends = frozenset(range(1, VOCAB_SIZE))  # all tokens but one
    (events,) = run(engine(model), [Request(PROMPT, 20, SamplingOptions(), ends=ends, min_new_tokens=6)])
    assert ids(events)[:6] == [0] * 6
    assert events[-1].finish_reason is FinishReason.END_OF_TEXT


def test_logprobs_are_the_models_own(model: nn.Module) -> None:
    (events,) = run(engine(model), [Request(PROMPT, 12, SAMPLED, logprobs=3)])
    with torch.no_grad():
        logits = model(torch.tensor([[*PROMPT, *ids(events)]]))[0, len(PROMPT) - 1 : -1]
    for event, row in zip(events, logits.log_softmax(-1), strict=True):
        assert event.logprobs.chosen == pytest.approx(row[event.token].item(), abs=1e-4)
        assert [token for token, _ in event.logprobs.top] == row.topk(3).indices.tolist()


def test_a_request_without_a_token_left_fails_and_the_others_go_on(model: nn.Module) -> None:
    nothing = SamplingOptions(allowed=(5,), bad_words=((5,),), seed=4)
    good = Request(PROMPT, 9, SAMPLED)
    bad, fine = run(engine(model), [Request(PROMPT, 9, nothing), good])
    assert [event.error.diagnostics[0].code for event in bad] == ["N908"]
    assert [ids(fine)] == write(model, SAMPLED, 9)


@pytest.mark.parametrize(
    ("code", "request_"),
    [
        ("N910", Request((), 5)),
        ("N911", Request([1] * (CONTEXT + 1), 5)),
        ("N953", Request((1, VOCAB_SIZE), 5)),
        ("N953", Request((-1,), 5)),
        ("N953", Request((1,), 5, SamplingOptions(logit_bias=((VOCAB_SIZE, 1.0),)))),
        ("N953", Request((1,), 5, SamplingOptions(bad_words=((1, 999),)))),
        ("N953", Request((1,), 5, SamplingOptions(allowed=(999,)))),
        ("N955", Request((1,), 40)),
    ],
    ids=repr,
)
def test_what_is_refused(model: nn.Module, code: str, request_: Request) -> None:
    small = engine(model, slots=2, cache_tokens=30)
    with pytest.raises(NeuralError, match=code):
        small.submit(request_)
    assert not small.busy


def test_a_full_queue_refuses_and_forgets_nothing(model: nn.Module) -> None:
    small = engine(model, slots=1, queue=2)
    handles = [small.submit(Request(PROMPT, 3)) for _ in range(2)]
    with pytest.raises(NeuralError, match="N954: 2 requests wait"):
        small.submit(Request(PROMPT, 3))
    seen = set()
    while small.busy:
        seen |= {event.handle for event in small.step()}
    assert seen == set(handles)


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("N912", {"max_new_tokens": -1}),
        ("N956", {"max_new_tokens": 3, "min_new_tokens": 4}),
        ("N956", {"max_new_tokens": 3, "min_new_tokens": -1}),
        ("N957", {"max_new_tokens": 3, "logprobs": -1}),
        ("N957", {"max_new_tokens": 3, "logprobs": 10**6}),
    ],
    ids=repr,
)
def test_requests_out_of_range_are_refused(code: str, wrong: dict) -> None:
    with pytest.raises(NeuralError, match=code):
        Request(PROMPT, **wrong)


def test_weights_that_are_not_numbers_end_every_request(model: nn.Module) -> None:
    name, weight = next(iter(model.named_parameters()))
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.fill_(math.nan)
        events = run(engine(model), [Request(PROMPT, 3), Request((1,), 3)])
        assert [one[-1].error.diagnostics[0].code for one in events] == ["N907", "N907"]
    finally:
        with torch.no_grad():
            dict(model.named_parameters())[name].copy_(kept)


@pytest.mark.parametrize(("context", "kept"), [(1, 1), (2, 1), (4, 3), (64, 48), (1024, 768)])
def test_three_quarters_of_the_window_stay(context: int, kept: int) -> None:
    assert kept_tokens(context) == kept


def test_sampling_leaves_the_global_random_numbers_alone(model: nn.Module) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    write(model, SAMPLED, 5, num_samples=2)
    assert torch.equal(torch.rand(3), expected)
