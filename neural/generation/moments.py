"""What a model's matrices read, as far as quantisation needs to know it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import torch
from torch import Tensor, nn


def products(model: nn.Module) -> dict[str, list[nn.Linear]]:
    """The modules that multiply by each parameter, by its name; of tied ones its first name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, list[nn.Linear]] = {}
    for module in model.modules():
        if isinstance(module, nn.Linear):
            found.setdefault(names[id(module.weight)], []).append(module)
    return found


@torch.inference_mode()
def second_moments(
    model: nn.Module,
    modules: Mapping[str, Collection[nn.Linear]],
    batches: Iterable[Tensor],
    done: Callable[[int], None] = lambda _: None,
) -> dict[str, Tensor]:
    """For each name the mean of x xᵀ, float32 (K, K), over all vectors x that its modules read while the model reads
    the batches, int64 (B, T). `done` is told of the tokens of each batch.
    """
    device = next(model.parameters()).device
    sums = {
        name: torch.zeros(uses[0].in_features, uses[0].in_features, device=device) for name, uses in modules.items()
    }
    counts = dict.fromkeys(modules, 0)

    def add(name: str, x: Tensor) -> None:
        vectors = x.flatten(0, -2).float()
        sums[name].addmm_(vectors.T, vectors)
        counts[name] += len(vectors)

    hooks = [
        module.register_forward_pre_hook(lambda _, given, name=name: add(name, given[0]))
        for name, uses in modules.items()
        for module in uses
    ]
    try:
        for batch in batches:
            model(batch.to(device))
            done(batch.numel())
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / max(1, counts[name]) for name, total in sums.items()}
