"""The loss of the next token, without logits of all tokens in memory: head and cross-entropy, some tokens at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Shard
from torch.nn import functional as F

from neural.planning.memory import LOGITS
from neural.planning.precision import FULL
from neural.training.cpu_products import add_product, linear, takes
from neural.training.distributed.vocabulary import Vocabulary
from neural.training.logits_memory import LogitsMemory
from neural.training.precision import autocast

Batch = tuple[torch.Tensor, torch.Tensor]  # inputs and targets, int64 (B, T)
Slopes = Callable[[torch.Tensor, torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]  # as `softmax_slopes`

TILES = {"cuda": 64}  # of which a row of logits is a multiple: tensor cores read no others at full speed
WIDE = "dtype_out" in torch.ops.aten.addmm.overloads()  # sums in float32 of products of halves, of GPUs alone


class TrainingLoss(nn.Module):
    """Mean cross-entropy of the next token in nats, of a model that gives logits: what a training step calls.

    It adds no weights. The head's product is part of the loss where the model says what its head reads
    (`hidden_states`) and the head is a plain Linear, the last of its modules. precision: in which products are
    computed. compiled: what is called in place of the model, or of its `hidden_states`. slopes: `softmax_slopes`
    compiled, where it is. memory: of logits.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.precision = FULL
        self.compiled: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.slopes: Slopes | None = None
        self.memory = LogitsMemory()

    def forward(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        share: float = 1.0,
        kernels: AbstractContextManager | None = None,
    ) -> torch.Tensor:
        """inputs and targets int64 (B, T); `share` of the mean, scalar float32. kernels: functions in torch's place."""
        head = plain_head(self.model)
        with autocast(inputs.device, self.precision):
            with kernels or nullcontext():
                read = (self.compiled or (self.model if head is None else self.model.hidden_states))(inputs)
            if head is None:
                return F.cross_entropy(read.flatten(0, 1).float(), targets.flatten()) * share
            how = (share, self.slopes, self.memory)
            return HeadLoss.apply(read.flatten(0, 1), *Head.of(head), targets.flatten(), *how)


def plain_head(model: nn.Module) -> nn.Linear | None:
    """The product that makes logits of `hidden_states`; None without one, or where processes split its input."""
    head = list(model.children())[-1] if hasattr(model, "hidden_states") else None
    if type(head) is not nn.Linear:
        return None
    return None if Shard(1) in getattr(head.weight, "placements", ()) else head


class Head(NamedTuple):
    """A head as this process has it between `hidden_states` and the backward pass: weight (v, D), bias (v,) or None.

    vocabulary: which of the rows these are, where processes split them.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    vocabulary: Vocabulary | None

    @classmethod
    def of(cls, head: nn.Linear) -> Head:
        if not isinstance(head.weight, DTensor):
            return cls(head.weight, head.bias, None)
        bias = None if head.bias is None else head.bias.to_local()
        return cls(head.weight.to_local(), bias, Vocabulary.of(head.weight))

    @property
    def most(self) -> int:
        """Rows of the process that has the most."""
        return self.vocabulary.most if self.vocabulary else len(self.weight)


def score(loss: TrainingLoss, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of int64 (B, T): the sum of the cross-entropies in nats, scalar float64, and the number of targets that the model
    ranks first, scalar int64. Without gradients.
    """
    nats = torch.zeros((), dtype=torch.float64, device=inputs.device)
    right = torch.zeros((), dtype=torch.int64, device=inputs.device)
    product, expected = plain_head(loss.model), targets.flatten()
    with autocast(inputs.device, loss.precision):
        read = (loss.model if product is None else loss.model.hidden_states)(inputs).flatten(0, 1)
    head = None if product is None else Head.of(product)
    chunks = [slice(0, len(read))] if head is None else list(row_chunks(len(read), head.most, read.device.type))
    with loss.memory.piece(largest(chunks), None if head is None else head.weight) as piece:
        for rows in chunks:
            with autocast(inputs.device, loss.precision):
                logits = read[rows] if head is None else linear(read[rows], head.weight, head.bias, piece)
            wanted, logits = expected[rows, None], _in_float32(logits, piece)
            if head is None or head.vocabulary is None:
                right += (logits.argmax(-1, keepdim=True) == wanted).sum()
                nats -= _log_softmax(logits).gather(1, wanted).sum().double()
            else:
                right += (head.vocabulary.first_of_largest(logits) == wanted[:, 0]).sum()
                nats += head.vocabulary.exponentials(logits, wanted)[1].sum().double()
            del logits  # of which there is one set at a time
    return nats, right


class HeadLoss(torch.autograd.Function):
    """`share` of the mean cross-entropy of the logits `hidden @ weight.T + bias`.

    hidden (N, D), weight (V, D), bias (V,) or None, targets int64 (N,). Of a vocabulary that processes split, weight
    and bias are this one's rows, and all of them call it with the same hidden and targets. Gradients are made while the
    logits of some tokens are at hand, in the forward pass, so that no logits are kept or made twice (Hsu et al. 2024,
    Liger Kernel).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        vocabulary: Vocabulary | None,
        targets: torch.Tensor,
        share: float,
        compiled: Slopes | None,
        memory: LogitsMemory,
    ) -> torch.Tensor:
        kind = torch.get_autocast_dtype(hidden.device.type) if torch.is_autocast_enabled(hidden.device.type) else None
        tile = 1 if vocabulary else TILES.get(hidden.device.type, 1)
        kept = (None if x is None else x.to(kind or x.dtype) for x in (weight, bias))
        matrix, offsets = (None if x is None else _padded(x, tile) for x in kept)
        gradients = Gradients.of(ctx.needs_input_grad, hidden, matrix, bias, share / targets.numel())
        total = torch.zeros((), device=hidden.device)
        most = vocabulary.most if vocabulary else weight.size(0)
        chunks = list(row_chunks(targets.numel(), most, hidden.device.type))
        with memory.piece(largest(chunks), matrix) as piece:
            for rows in chunks:
                x, wanted = hidden[rows].to(matrix.dtype), targets[rows, None]
                logits = linear(x, matrix, offsets, piece)
                if compiled:
                    loss, slopes = compiled(logits, wanted, weight.size(0))
                else:
                    logits = _in_float32(logits[:, : weight.size(0)], piece)
                    loss, slopes = _loss_and_slopes(logits, wanted, vocabulary)
                    slopes = _padded(slopes.to(matrix.dtype), tile, axis=1)
                del logits
                total += loss
                gradients.add(rows, x, matrix, slopes)
                del slopes  # there is one set at a time
        if vocabulary and gradients.hidden is not None:
            vocabulary.reduced(gradients.hidden)
        own = (g if g is None or len(g) == weight.size(0) else g[: weight.size(0)] for g in gradients[1:3])
        ctx.gradients = [gradients.hidden, *own]
        return total * gradients.factor

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None  # handed over, so that autograd need not copy them
        if slope.device.type != "cpu" or slope.item() != 1.0:  # on a GPU, a look at it would be a wait for it
            gradients = [None if g is None else g.mul_(slope) for g in gradients]
        return *gradients, None, None, None, None, None


class Gradients(NamedTuple):
    """`factor` times the slopes by hidden states (N, D), weight (v, D) and bias (v,); None of what is not wanted."""

    hidden: torch.Tensor | None
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    factor: float

    @classmethod
    def of(
        cls,
        needed: Sequence[bool],
        hidden: torch.Tensor,
        matrix: torch.Tensor,
        bias: torch.Tensor | None,
        factor: float,
    ) -> Gradients:
        """Of as many rows as the matrix has, and with nothing in them but for the bias. Weights are float32."""
        of_hidden = torch.empty_like(hidden) if needed[0] else None
        of_weight = torch.empty_like(matrix, dtype=torch.float32) if needed[1] else None
        of_bias = bias.new_zeros(len(matrix)) if bias is not None and needed[2] else None
        return cls(of_hidden, of_weight, of_bias, factor)

    def add(self, rows: slice, x: torch.Tensor, matrix: torch.Tensor, slopes: torch.Tensor) -> None:
        """What comes of the logits' slopes (n, v) at these rows of the hidden states, which are x (n, D)."""
        if self.bias is not None:
            self.bias.add_(slopes.sum(0, dtype=self.bias.dtype), alpha=self.factor)
        if self.hidden is not None:
            _add_product(self.hidden[rows], slopes, matrix, self.factor, first=True)
        if self.weight is not None:
            _add_product(self.weight, slopes.T, x, self.factor, first=rows.start == 0)


def _padded(tensor: torch.Tensor, tile: int, axis: int = 0) -> torch.Tensor:
    """With 0 behind it, up to a multiple of `tile`."""
    more = -tensor.size(axis) % tile
    return F.pad(tensor, [0, 0] * (tensor.ndim - 1 - axis) + [0, more]) if more else tensor


def softmax_slopes(logits: torch.Tensor, wanted: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of the cross-entropies of the first `size` of each row's logits (n, v), and its slopes by all of them, in
    their dtype: softmax less one-hot, and 0 after the first `size`. wanted int64 (n, 1).
    """
    places = torch.arange(logits.size(1), device=logits.device)
    # whole rows, which are aligned, are read, and not their first `size`
    logs = logits.float().masked_fill(places >= size, -torch.inf).log_softmax(-1)
    loss = -logs.gather(1, wanted).sum()
    return loss, (logs.exp() - (places == wanted).float()).to(logits.dtype)


def _in_float32(logits: torch.Tensor, piece: torch.Tensor | None) -> torch.Tensor:
    """In that piece of memory where they are not there, and of half precision."""
    if piece is None or logits.dtype == torch.float32:
        return logits.float()
    return piece[: logits.numel()].view(logits.shape).copy_(logits)


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Over the last axis, on a CPU in place of logits."""
    return torch.log_softmax(logits, -1, out=logits if logits.device.type == "cpu" else None)


def _loss_and_slopes(
    logits: torch.Tensor, wanted: torch.Tensor, vocabulary: Vocabulary | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of the cross-entropies, and its slopes by the logits, which are softmax less one-hot: in place of logits
    (n, v). wanted int64 (n, 1).
    """
    if vocabulary is None:
        logs = _log_softmax(logits)
        loss = -logs.gather(1, wanted).sum()
        slopes, hit = logs.exp_(), logits.new_ones(()).expand_as(wanted)
    else:
        sums, losses = vocabulary.exponentials(logits, wanted)
        loss, slopes = losses.sum(), logits.div_(sums)
        own, wanted = vocabulary.own(wanted, logits.size(1))
        hit = own.to(slopes.dtype)
    return loss, slopes.scatter_add_(1, wanted, -hit)


def _add_product(into: torch.Tensor, a: torch.Tensor, b: torch.Tensor, factor: float, *, first: bool) -> None:
    """into += factor · (a @ b), in the precision of `into`; `first` forgets what is there."""
    beta, precise = 0 if first else 1, a.dtype == into.dtype
    if precise and not takes(a, b.t()):
        torch.addmm(into, a, b, beta=beta, alpha=factor, out=into)
    elif WIDE and a.device.type == "cuda":
        torch.ops.aten.addmm.dtype_out(into, a, b, into.dtype, beta=beta, alpha=factor, out=into)
    else:
        add_product(into, a, b, factor, first=first)


def largest(chunks: Sequence[slice]) -> int:
    """Rows of the largest of them."""
    return max((rows.stop - rows.start for rows in chunks), default=0)


def row_chunks(rows: int, width: int, device: str) -> Iterator[slice]:
    """Slices of so many rows that `width` numbers for each of them are at most LOGITS, evenly cut."""
    chunks = -(-rows * width // LOGITS[device])
    for i in range(chunks):
        yield slice(i * rows // chunks, (i + 1) * rows // chunks)
