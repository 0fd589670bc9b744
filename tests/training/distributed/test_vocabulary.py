"""The head and its loss where processes hold slices of the weights, or parts of the vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from neural.training import loss
from neural.training.distributed.strategy import Layout
from neural.training.distributed.vocabulary import SplitEmbedding, Vocabulary
from neural.training.distributed.world import joined
from neural.training.logits_memory import LogitsMemory
from neural.training.loss import HeadLoss
from neural.training.run import Run
from neural.training.session import start
from tests.training.distributed.workers import enter, together

HERE = Path(__file__).parent
CPU = torch.device("cpu")


def compare(rank: int, size: int, port: int) -> None:
    enter(rank, size, port)
    with joined(CPU):
        mesh = init_device_mesh("cpu", (size,), mesh_dim_names=("tensor",))
        for vocabulary, limit, biased in [(40, 10**6, True), (41, 100, False), (7, 1, True)]:
            loss.LOGITS["cpu"] = limit
            compare_losses(mesh, vocabulary, biased)
        compare_tables(mesh)
        compare_ranks(mesh)


def compare_losses(mesh, vocabulary: int, biased: bool) -> None:
    draw = torch.Generator().manual_seed(vocabulary)
    shapes = [(30, 12), (vocabulary, 12), (vocabulary,)]
    hidden, weight, bias = (torch.randn(s, generator=draw, dtype=torch.float64).requires_grad_() for s in shapes)
    targets = torch.randint(vocabulary, (30,), generator=draw)
    expected = 0.25 * F.cross_entropy(F.linear(hidden, weight, bias if biased else None), targets)
    (3 * expected).backward()
    x = hidden.detach().float().requires_grad_()
    parts = [distribute_tensor(w.detach().float(), mesh, [Shard(0)]).requires_grad_() for w in (weight, bias)]
    own = [parts[0].to_local(), parts[1].to_local() if biased else None]
    found = HeadLoss.apply(x, *own, Vocabulary.of(parts[0]), targets, 0.25, None, LogitsMemory())
    (3 * found).backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(x.grad.double(), hidden.grad, rtol=1e-5, atol=1e-7)
    for part, whole in zip(parts[: 1 + biased], (weight, bias), strict=False):
        torch.testing.assert_close(part.grad.full_tensor().double(), whole.grad, rtol=1e-5, atol=1e-7)


def compare_tables(mesh) -> None:
    table = torch.randn(9, 4, requires_grad=True)
    torch.distributed.broadcast(table.detach(), 0)
    part = SplitEmbedding(torch.nn.Parameter(distribute_tensor(table.detach(), mesh, [Shard(0)])))
    ids, slopes = torch.tensor([[0, 8, 4], [4, 5, 3]]), torch.arange(24.0).view(2, 3, 4)
    (F.embedding(ids, table) * slopes).sum().backward()
    found = part(ids)
    (found * slopes).sum().backward()
    assert torch.equal(found, table[ids]) and torch.equal(part.weight.grad.full_tensor(), table.grad)


def compare_ranks(mesh) -> None:
    """The first of several, as torch.argmax."""
    logits = torch.tensor([[1.0, 5, 2, 5, 0], [0, 0, 0, 0, 0], [1, 2, 3, 4, 5]])
    part = distribute_tensor(logits.T.contiguous(), mesh, [Shard(0)])
    assert Vocabulary.of(part).first_of_largest(part.to_local().T).tolist() == [1, 0, 4]


def test_a_split_vocabulary_has_the_loss_and_the_gradients_of_a_whole_one() -> None:
    together(compare, 2)


class Largest(TorchDispatchMode):
    """Of the tensors that are made, in numbers."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else [made]:
            if isinstance(tensor, torch.Tensor):
                local = tensor._local_tensor if isinstance(tensor, DTensor) else tensor
                self.count = max(self.count, local.numel())
        return made


TOKENS, WIDE = 8 * 8, 400  # of a process in a forward pass; ids


def measure(rank: int, size: int, port: int, run: Path, strategy: str, tensor: int | None) -> None:
    """Fails if a step or an evaluation makes as much as all logits."""
    enter(rank, size, port)
    loss.LOGITS["cpu"] = TOKENS * WIDE // 8
    with joined(CPU) as world:
        opened = Run.open(run)
        session = start(opened, CPU, world, Layout.chosen(opened.program, CPU, size, strategy, tensor))
        with Largest() as largest:
            session.advance()
            session.evaluate()
        assert largest.count < TOKENS * WIDE / 2, largest.count


@pytest.mark.parametrize(
    ("shape", "size", "strategy", "tensor"), [("gpt", 2, "fsdp", None), ("llama", 2, "tp", None), ("gpt", 4, "fsdp", 2)]
)
def test_logits_never_stand_in_memory_whole(make_run, shape: str, size: int, strategy: str, tensor: int | None) -> None:
    batch = 8 * size // (tensor or (size if strategy == "tp" else 1))
    run = make_run(file=HERE / f"{shape}.neural", vocab_size=WIDE, batch_size=batch, accumulation=1)
    together(measure, size, run.path, strategy, tensor)
