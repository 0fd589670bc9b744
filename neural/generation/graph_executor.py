"""The generated source run by PyTorch on a GPU, each pass of a fixed shape recorded once as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from neural.generation.cache import KVCache
from neural.generation.compiled_executor import CompiledExecutor, FixedCache, Shape, Step, put
from neural.generation.gpu_functions import GpuFunctions
from neural.generation.rows import power

PIECE = 128  # tokens of a prompt that are read at a time
FEWEST_PLACES = 256
WARM_UPS = 2  # before a graph is recorded: libraries choose their kernels and make room


class GraphExecutor(CompiledExecutor):
    """See neural.generation.executor. As CompiledExecutor, on a GPU, where nothing has to be compiled: a pass of the
    source, with GpuFunctions in place of some of torch's, is recorded as a CUDA graph, which the GPU then runs without
    waiting for the program. Steps are of one row, or of all; prompts are read in pieces of one size.
    """

    done = "recorded"

    def _made_fast(self, model: nn.Module) -> Callable[..., tuple[Tensor, object]]:
        self._functions = GpuFunctions(self.device)
        self._pool = torch.cuda.graph_pool_handle()
        self._piece: tuple[Piece, Step] | None = None
        size = min(PIECE, self.context)
        self._prompt = KVCache(self.context + size, first_capacity=self.context + size)
        return model

    @torch.inference_mode()
    def _warm_up(self) -> None:
        super()._warm_up()
        self.begin([0, 0])
        self.read([0])

    def read(self, ids: Sequence[int]) -> None:
        if not self._prompt.buffers or self._forward is None:
            return super().read(ids)
        piece, run = self._piece = self._piece or self._of_prompts()
        for start in range(0, len(ids), piece.size):
            part = ids[start : start + piece.size]
            piece.fill(part, self._prompt.length)
            logits = run()
            self._prompt.extend(len(part))
        self._prompt_ids += ids
        self._prompt_logits = self._known(logits)[0, len(part) - 1].clone()  # the rest of the logits is let go
        return None

    def _shape(self, rows: int, places: int) -> Shape:
        most_rows, most_places = self._rows.shape
        return Shape(1 if rows == 1 else most_rows, min(max(power(2, places), FEWEST_PLACES), most_places))

    def _kept(self) -> str:
        return ""

    def _made(self, shape: Shape) -> tuple[FixedCache, Step]:
        cache = Kept(self._rows.layers, shape, self.device)
        cache.functions = self._functions
        cache.fill([[0]] * len(self._rows.lengths), self._rows.lengths)  # see CompiledExecutor
        return cache, self._recorded(cache)

    def _of_prompts(self) -> tuple[Piece, Step]:
        piece = Piece(self._prompt, self.context, min(PIECE, self.context), self.device)
        piece.fill([0], self._prompt.length)
        return piece, self._recorded(piece)

    def _recorded(self, cache: FixedCache | Piece) -> Step:
        """A pass as a CUDA graph, which one call starts."""

        def run() -> Tensor:
            with self._functions:
                return self._forward(cache.ids, past_key_values=cache, position_ids=cache.positions)[0]

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = run()
        return partial(_replayed, graph, logits)


def _replayed(graph: torch.cuda.CUDAGraph, logits: Tensor) -> Tensor:
    graph.replay()
    return logits.clone()  # the graphs share their memory: another one, replayed, may write over it


class Kept(FixedCache):
    """Whose keys and values a kernel writes."""

    functions: GpuFunctions

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self._held[layer]
        self.functions.keep(k, v, keys, values, self.positions)
        return keys, values


class Piece:
    """Where the next `size` tokens of a prompt go, as a cache for the model: into the buffers of a KVCache.

    Those after the last token are read as well, at places that the next piece, or no one, reads.
    """

    def __init__(self, cache: KVCache, context: int, size: int, device: torch.device) -> None:
        self.size, self.length = size, context - size  # of what the source takes for the past: it sees all places
        self._context, self._held = context, cache.buffers
        self._numbers = torch.zeros(3, 1, size, dtype=torch.int64, device=device)
        self.ids, self.positions, places = self._numbers
        self._places = places[0]

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v (1, n_kv_heads, size, head_dim) at their places; give all of the context."""
        for buffer, new in zip(self._held[layer], (k, v), strict=True):
            buffer.index_copy_(2, self._places, new)
        keys, values = self._held[layer]
        return keys[:, :, : self._context], values[:, :, : self._context]

    def fill(self, ids: Sequence[int], past: int) -> None:
        """The next piece's tokens, `size` or fewer, after so many."""
        numbers = np.zeros((3, 1, self.size), np.int64)
        numbers[0, 0, : len(ids)] = ids
        numbers[2] = np.arange(past, past + self.size)
        numbers[1] = np.minimum(numbers[2], self._context - 1)
        put(numbers, self._numbers)
