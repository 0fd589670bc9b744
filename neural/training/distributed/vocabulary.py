"""A vocabulary that processes split: each has some rows of the table and the head (Shoeybi et al. 2019, Megatron-LM).

Nobody has the logits of all ids. A cross-entropy takes their maximum, the sum of their exponentials and the target's
logit over the processes: three numbers a token.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.nn import functional as F


class Vocabulary(NamedTuple):
    """The ids from `first` on are this process's; no process of the group has more than `most`."""

    first: int
    most: int
    group: dist.ProcessGroup

    @classmethod
    def of(cls, weight: DTensor) -> Vocabulary:
        """Of a matrix (V, D) whose rows are split over a mesh of one axis."""
        mesh = weight.device_mesh
        most = -(-weight.size(0) // mesh.size())
        return cls(mesh.get_local_rank() * most, most, mesh.get_group())

    def own(self, ids: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of the ids are among this process's `count`, bool; and where, int64, of others 0."""
        at = ids - self.first
        own = (at >= 0) & (at < count)
        return own, at.where(own, 0)

    def reduced(self, values: torch.Tensor, how: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> torch.Tensor:
        """Over the processes, in place."""
        dist.all_reduce(values, how, self.group)
        return values

    def exponentials(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Make exponentials of this process's logits (n, v), in place, after taking off the largest of all.

        targets int64 (n, 1). The sums over the whole vocabulary, (n, 1), and the cross-entropies, (n,).
        """
        logits -= self.reduced(logits.amax(-1, keepdim=True), dist.ReduceOp.MAX)
        own, at = self.own(targets, logits.size(1))
        wanted = logits.gather(1, at).where(own, 0.0)
        sums = self.reduced(torch.cat([logits.exp_().sum(-1, keepdim=True), wanted], 1))
        return sums[:, :1], sums[:, 0].log() - sums[:, 1]

    def first_of_largest(self, logits: torch.Tensor) -> torch.Tensor:
        """The id with the largest logit, the first of several: (n,) of this process's (n, v)."""
        largest, at = logits.max(-1)
        best = self.reduced(largest.clone(), dist.ReduceOp.MAX)
        return self.reduced((at + self.first).where(largest == best, 2**62), dist.ReduceOp.MIN)


class SplitEmbedding(nn.Module):
    """An nn.Embedding of which each process has some rows. Ids int64 (B, T) → (B, T, D), the same everywhere."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight  # (V, D), a DTensor

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = self.weight.to_local()
        own, at = Vocabulary.of(self.weight).own(ids, len(rows))
        parts = DTensor.from_local(
            F.embedding(at, rows).where(own[..., None], 0.0), self.weight.device_mesh, [Partial()]
        )
        return parts.redistribute(placements=[Replicate()]).to_local()


def split_vocabulary(model: nn.Module, mesh: DeviceMesh, paths: tuple[str, ...]) -> None:
    """Keep this process's rows of those modules' weights and biases, which may be one another's."""
    cut: dict[int, nn.Parameter] = {}
    for path in paths:
        module = model.get_submodule(path)
        for name, whole in list(module.named_parameters(recurse=False)):
            if id(whole) not in cut:
                own = distribute_tensor(whole.detach(), mesh, [Shard(0)])
                cut[id(whole)] = nn.Parameter(own, requires_grad=whole.requires_grad)
            setattr(module, name, cut[id(whole)])
        if isinstance(module, nn.Embedding):
            model.set_submodule(path, SplitEmbedding(module.weight))
