"""The generated source run by PyTorch, its decoding compiled for steps of a few fixed shapes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch._dynamo
from torch import Tensor, nn

from neural.generation.request import Limits
from neural.generation.rows import power
from neural.generation.torch_executor import TorchExecutor
from neural.training.compiling import CACHE, compiled, failed

FEWEST_PLACES = 128
MOST_SHAPES = 256  # that Dynamo may compile of one function; by itself it gives up after eight

Say = Callable[[str], None]
Step = Callable[[], Tensor]


class Shape(NamedTuple):
    """Of a step: one token for each of `rows`, which attend to `places`."""

    rows: int
    places: int


class FixedCache:
    """The corner of a rectangle of keys and values that one shape reads, as a cache for the model.

    Nothing of it changes from step to step but what is in its tensors, so that compiled code and a recorded graph hold
    for all of them: `positions` (rows, 1) say where each row's token is written, and what stands after it is masked.
    `length` is what the source takes for the past, which makes it see all places.
    """

    def __init__(self, held: Mapping[int, tuple[Tensor, Tensor]], shape: Shape, device: torch.device) -> None:
        self.length = shape.places - 1
        self._numbers = torch.zeros(2, shape.rows, 1, dtype=torch.int64, device=device)
        self.ids, self.positions = self._numbers
        corner = slice(shape.rows), slice(None), slice(shape.places)
        self._held = {layer: (keys[corner], values[corner]) for layer, (keys, values) in held.items()}
        self._rows = torch.arange(shape.rows, device=device)[:, None]

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v (rows, n_kv_heads, 1, head_dim) at the positions; give all places of the rows."""
        keys, values = self._held[layer]
        keys[self._rows, :, self.positions] = k.transpose(1, 2)
        values[self._rows, :, self.positions] = v.transpose(1, 2)
        return keys, values

    def fill(self, ids: Sequence[Sequence[int]], positions: Sequence[int]) -> None:
        """The next step's tokens. Rows that are no one's read a token of their own, at place 0."""
        given = np.zeros((2, len(self.ids), 1), np.int64)
        given[0, : len(ids)] = ids
        given[1, : len(ids), 0] = positions
        put(given, self._numbers)


def put(numbers: np.ndarray, into: Tensor) -> None:
    """Numbers to a device, which a GPU copies when it comes to it."""
    given = torch.from_numpy(numbers)
    into.copy_(given.pin_memory() if into.is_cuda else given, non_blocking=True)


class CompiledExecutor(TorchExecutor):
    """See neural.generation.executor. Prompts, and steps of several tokens, are read as TorchExecutor reads them.

    The batch's rectangle is made at once, as large as it may become, and a step reads the least of its corners that
    holds all rows: a power of four of them, and a power of two of places. Each is compiled when it is first needed,
    the smallest one now, and `say` is told. Where the compiler fails that is said, and steps are as TorchExecutor's.
    """

    done = "compiled"

    def __init__(
        self,
        model: nn.Module,
        limits: Limits | None = None,
        *,
        context: int,
        vocab_size: int,
        say: Say = lambda _: None,
    ) -> None:
        super().__init__(model, limits, context=context, vocab_size=vocab_size)
        self._say = say
        self._forward: Callable[..., tuple[Tensor, object]] | None = self._made_fast(model)
        self._steps: dict[Shape, tuple[FixedCache, Step]] = {}
        self._warm_up()

    def _made_fast(self, model: nn.Module) -> Callable[..., tuple[Tensor, object]]:
        return compiled(model, model.forward)

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """One token through prompt and batch, which also makes the rectangle."""
        if self.limits.slots * self.context <= self.most_tokens:
            self.reserve(self.limits.slots, self.context)
        else:
            self.reserve(1, 1)
        self.begin([0])
        self.read([0])
        self.join()
        self.decode([[0]])
        self.commit([0])
        self.leave(0, [0])

    def reserve(self, rows: int, tokens: int) -> None:
        if self._rows.reserve(rows, min(tokens, self.context)):
            self._steps.clear()  # they hold the rectangle's tensors

    def decode(self, ids: Sequence[Sequence[int]]) -> Tensor:
        step = self._step(len(ids)) if len(ids[0]) == 1 and self._forward is not None else None
        if step is None:
            return super().decode(ids)
        cache, run = step
        cache.fill(ids, self._rows.lengths)
        return self._known(run()[: len(ids)])

    def _shape(self, rows: int, places: int) -> Shape:
        """The one for so many rows of up to so many tokens."""
        most_rows, most_places = self._rows.shape
        return Shape(min(power(4, rows), most_rows), min(max(power(2, places), FEWEST_PLACES), most_places))

    def _step(self, rows: int) -> tuple[FixedCache, Step] | None:
        """For so many rows, and the longest of them; None where the compiler fails."""
        shape = self._shape(rows, self._rows.length + 1)
        if shape not in self._steps:
            began = time.perf_counter()
            try:
                self._steps[shape] = self._made(shape)
            except Exception as error:  # of Dynamo, Inductor, Triton, a C++ compiler or the linker: each has its own
                self._forward = None
                self._say(failed(error))
                return None
            texts, seconds = f"{shape.rows} text{'s' * (shape.rows > 1)}", time.perf_counter() - began
            self._say(f"{self.done} for {texts} of up to {shape.places} tokens in {seconds:.1f} s{self._kept()}")
        return self._steps[shape]

    def _kept(self) -> str:
        return f"; kept for the next time in {os.environ[CACHE]}"

    def _made(self, shape: Shape) -> tuple[FixedCache, Step]:
        cache = FixedCache(self._rows.layers, shape, self.device)
        # row by row its next place, which the step that follows writes anew; those that are no one's have none
        cache.fill([[0]] * len(self._rows.lengths), self._rows.lengths)

        def run() -> Tensor:
            return self._forward(cache.ids, past_key_values=cache, position_ids=cache.positions)[0]

        with torch._dynamo.config.patch(cache_size_limit=MOST_SHAPES):
            run()
        return cache, run
