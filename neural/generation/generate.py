"""Text: from a prompt to samples, whole or as they are written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from neural.data.tokenizers import StreamDecoder, Tokenizer
from neural.diagnostics.diagnostic import fail
from neural.generation.constraint import Constraint
from neural.generation.drafting import DraftModel
from neural.generation.engine import Engine
from neural.generation.executor import Opener
from neural.generation.options import SamplingOptions
from neural.generation.request import Event, FinishReason, Limits, Logprobs, Request
from neural.generation.stopping import StopStrings
from neural.generation.torch_executor import TorchExecutor


@dataclass(frozen=True, slots=True)
class Sample:
    """One continuation of a prompt.

    text: without the prompt, the stop string and the end-of-text token. ids: every token drawn, theirs included.
    finish_reason: None for a sample that was interrupted. logprobs: of each of `ids`, where they were asked for.
    """

    text: str
    ids: tuple[int, ...]
    finish_reason: FinishReason | None
    logprobs: tuple[Logprobs, ...] | None = None

    def to_json(self) -> dict[str, object]:
        """What `neural generate` tells of it."""
        told = {"text": self.text, "ids": self.ids, "finish_reason": self.finish_reason}
        if self.logprobs is None:
            return told
        return {**told, "logprobs": [{"chosen": p.chosen, "top": p.top} for p in self.logprobs]}


class Continuation:
    """A sample that is being written: tokens in, text out as soon as it is certain."""

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str], max_new_tokens: int, ends: Sequence[int] = ()
    ) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._stops = StopStrings(stop)
        self._ends, self._max_new_tokens = tokenizer.ends | {*ends}, max_new_tokens
        self._pieces: list[str] = []
        self.ids: list[int] = []
        self.logprobs: list[Logprobs] = []
        self.finish_reason = FinishReason.LENGTH if max_new_tokens == 0 else None

    def push(self, token: int, logprobs: Logprobs | None = None, *, over: bool = False) -> str:
        """Add a token, with which the text may be over; the text that is new and certain, whole characters only. Sets
        `finish_reason` at the end.
        """
        self.ids.append(token)
        if logprobs is not None:
            self.logprobs.append(logprobs)
        ended = token in self._ends
        piece = "" if ended else self._stops.push(self._decoder.push(token))
        if not self._stops.found and (ended or over or len(self.ids) == self._max_new_tokens):
            reason = FinishReason.STOP if over else FinishReason.LENGTH
            self.finish_reason = FinishReason.END_OF_TEXT if ended else reason
            piece += self._stops.push(self._decoder.flush())
            piece += self._stops.flush()
        if self._stops.found:
            self.finish_reason = FinishReason.STOP
        self._pieces.append(piece)
        return piece

    @property
    def sample(self) -> Sample:
        logprobs = tuple(self.logprobs) if self.logprobs else None
        return Sample("".join(self._pieces), tuple(self.ids), self.finish_reason, logprobs)


class Generation:
    """Continuations of one prompt, written step by step as one batch: iterate it once.

    Each step gives the new text of every sample, a list of `num_samples` strings: whole characters, held back while
    they may be the start of a stop string; the first step gives empty ones, when the model is ready, at `began` of
    `time.perf_counter`. `samples` is what is written so far.

    open_executor: of `executors.opener`, or what makes another one within given limits.
    context: the model's longest input, `program.context`. When it is full the newest 3/4 of it stay
        (`row.kept_tokens`), so that any number of tokens can be asked for.
    prompt: text, or ids that stand for it.
    max_new_tokens: drawn at most, a sample. A sample ends sooner at the tokenizer's end-of-text, or at a string of
        `stop`, which is looked for in the new text only, or at an id of `ends`.
    options.seed: sample i is a function of (seed, i), whatever num_samples is.
    truncate: "left" uses the newest `context` tokens of a prompt that is longer; None refuses it.
    logprobs: n gives `samples` the log probability of each token, and of the n most probable ones in its place.
    constraint: what each sample must be; it ends where that is complete.
    draft_tokens: how many tokens to guess ahead; changes no text. open_drafter: gives the executor of a smaller model
        of the same vocabulary, which guesses; without it what followed earlier is looked up.

    An empty prompt starts from the tokenizer's end-of-text.

    Raises NeuralError: N910 an empty prompt where there is no end-of-text; N911 a prompt longer than the context; N912
    max_new_tokens below 0; N913 num_samples below 1; N914 an empty stop string; N907, N908 and N917 as the engine.
    """

    def __init__(
        self,
        open_executor: Opener,
        tokenizer: Tokenizer,
        prompt: str | Sequence[int],
        options: SamplingOptions | None = None,
        *,
        context: int,
        max_new_tokens: int,
        num_samples: int = 1,
        stop: Sequence[str] = (),
        ends: Sequence[int] = (),
        truncate: Literal["left"] | None = None,
        logprobs: int | None = None,
        constraint: Constraint | None = None,
        draft_tokens: int = 0,
        open_drafter: Opener | None = None,
    ) -> None:
        if num_samples < 1:
            fail("N913", f"{num_samples} samples were asked for", hint="ask for 1 or more")
        self._continuations = [Continuation(tokenizer, stop, max_new_tokens, ends) for _ in range(num_samples)]
        ids = encode_prompt(tokenizer, prompt, context, truncate)
        options = options or SamplingOptions()
        known_ends = tokenizer.ends | {*ends}
        self._requests = [
            Request(ids, max_new_tokens, options, sample=i, ends=known_ends, logprobs=logprobs, constraint=constraint)
            for i in range(num_samples)
        ]
        self.began = time.perf_counter()  # anew when the model is ready
        self._open_executor, self._open_drafter, self._draft_tokens = open_executor, open_drafter, draft_tokens

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(continuation.sample for continuation in self._continuations)

    @property
    def n_tokens(self) -> int:
        """Tokens drawn so far, of all samples together."""
        return sum(len(continuation.ids) for continuation in self._continuations)

    def __iter__(self) -> Iterator[list[str]]:
        count = len(self._requests)
        limits = Limits(slots=count, queue=count, draft_tokens=self._draft_tokens)
        drafter = self._open_drafter and DraftModel(self._open_drafter(limits))
        engine = Engine(self._open_executor(limits), drafter)
        self.began = time.perf_counter()
        yield [""] * count
        if self._requests[0].max_new_tokens == 0:
            return
        running = {engine.submit(r): i for i, r in enumerate(self._requests)}
        while engine.busy:
            new = [""] * count
            events = engine.step()
            for event in events:
                if event.handle in running:
                    new[running[event.handle]] += self._push(running, event, engine)
            if events:
                yield new

    def _push(self, running: dict[int, int], event: Event, engine: Engine) -> str:
        """Add an event's token to its sample; the text that is new and certain."""
        if event.error is not None:
            raise event.error
        continuation = self._continuations[running[event.handle]]
        piece = continuation.push(event.token, event.logprobs, over=event.finish_reason is FinishReason.STOP)
        if continuation.finish_reason is not None:
            del running[event.handle]
            engine.cancel(event.handle)  # after a stop string, of which the engine knows nothing
        return piece


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model without dropout, and afterwards as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def encode_prompt(
    tokenizer: Tokenizer, prompt: str | Sequence[int], context: int, truncate: Literal["left"] | None
) -> list[int]:
    """The prompt's tokens, 1 to `context` of them, after those that the model expects before each text.

    Raises NeuralError N910 and N911, see `Generation`.
    """
    ids = [*tokenizer.opening, *tokenizer.encode(prompt)] if isinstance(prompt, str) else list(prompt)
    if not ids:
        if tokenizer.eot_id is None:
            fail(
                "N910",
                "the prompt is empty, and this tokenizer has no end-of-text token to start from",
                hint="give the first characters of the text, such as --prompt 'A'",
            )
        return [tokenizer.eot_id]
    if len(ids) > context and truncate is None:
        fail(
            "N911",
            f"the prompt is {len(ids)} tokens long, and the model's context is {context}",
            hint=f"shorten it, or use its newest {context} tokens with --truncate left",
        )
    return ids[-context:]


def generate(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str,
    options: SamplingOptions | None = None,
    *,
    context: int,
    max_new_tokens: int,
    num_samples: int = 1,
    stop: Sequence[str] = (),
    truncate: Literal["left"] | None = None,
    constraint: Constraint | None = None,
) -> tuple[Sample, ...]:
    """Write `num_samples` continuations of a prompt to their ends with PyTorch.

    model: follows the protocol of the generated source, and is put into evaluation mode while it is used. The other
    arguments and errors: see `Generation`, which gives the text as it is written.
    """
    generation = Generation(
        partial(TorchExecutor, model, context=context, vocab_size=tokenizer.vocab_size),
        tokenizer,
        prompt,
        options,
        context=context,
        max_new_tokens=max_new_tokens,
        num_samples=num_samples,
        stop=stop,
        truncate=truncate,
        constraint=constraint,
    )
    with evaluating(model):
        for _ in generation:
            pass
    return generation.samples
