"""PyTorch, the reference: the generated source, trained by our trainer's own step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neural.backends.module import load_module
from neural.compiler import Program
from neural.training.optimizers import make_optimizer
from neural.training.schedules import make_schedule
from neural.verification.job import steps_of_training

LOSSES = {
    "sparse_categorical_crossentropy": lambda y, t: F.cross_entropy(y.flatten(0, -2), t.flatten()),
    "categorical_crossentropy": lambda y, t: F.cross_entropy(y.flatten(0, -2), t.flatten(0, -2)),
    "binary_crossentropy": F.binary_cross_entropy_with_logits,
    "mean_squared_error": F.mse_loss,
    "mean_absolute_error": F.l1_loss,
}


class Peer:
    """See neural.verification.peer."""

    def __init__(self, program: Program, weights: Mapping[str, np.ndarray]) -> None:
        self._program = program
        self._module = load_module(program.source("pytorch"), program.name)
        self._model: nn.Module = getattr(self._module, program.name)().eval()
        self._start = weights
        self._reset()

    @torch.no_grad()
    def _reset(self) -> None:
        own = dict(self._model.named_parameters()) | dict(self._model.named_buffers())
        for name, array in self._start.items():
            own[name].detach().numpy()[...] = array

    @torch.inference_mode()
    def logits(self, inputs: list[np.ndarray], attention_mask: np.ndarray | None = None) -> np.ndarray:
        given = {} if attention_mask is None else {"attention_mask": torch.from_numpy(attention_mask)}
        return self._model(*map(torch.from_numpy, inputs), **given).numpy()

    @torch.inference_mode()
    def cached(self, ids: np.ndarray) -> np.ndarray:
        cache = self._module.KVCache()
        parts = [self._model(piece, past_key_values=cache)[0] for piece in torch.from_numpy(ids).split(1, dim=1)]
        return torch.cat(parts, dim=1).numpy()

    @torch.inference_mode()
    def decode(self, ids: np.ndarray, n: int) -> np.ndarray:
        cache, new, found = self._module.KVCache(), torch.from_numpy(ids), []
        for _ in range(n):
            new = self._model(new, past_key_values=cache)[0][:, -1:].argmax(-1)
            found.append(new)
        return torch.cat(found, dim=1).numpy()

    def gradients(self, inputs: list[np.ndarray], targets: np.ndarray) -> dict[str, np.ndarray]:
        self._model.zero_grad()
        self._loss(inputs, targets).backward()
        return {name: p.grad.numpy() for name, p in self._model.named_parameters() if p.grad is not None}

    def steps(self, inputs: list[np.ndarray], targets: np.ndarray, n: int) -> list[float]:
        settings = self._program.settings
        optimizer = make_optimizer(settings.optimizer, self._model)
        rate = settings.optimizer.arguments["learning_rate"]
        schedule = make_schedule(settings.lr_schedule, rate, steps_of_training(settings, n))
        losses = []
        for module in self._model.modules():
            module.train(isinstance(module, nn.BatchNorm1d))
        for step in range(n):
            optimizer.zero_grad()
            loss = self._loss(inputs, targets)
            loss.backward()
            if settings.train.gradient_clip is not None:
                nn.utils.clip_grad_norm_(self._model.parameters(), settings.train.gradient_clip)
            for group in optimizer.param_groups:
                group["lr"] = schedule(step)
            optimizer.step()
            losses.append(loss.item())
        self._model.eval()
        self._reset()
        return losses

    def _loss(self, inputs: list[np.ndarray], targets: np.ndarray) -> Tensor:
        output = self._model(*map(torch.from_numpy, inputs))
        return LOSSES[self._program.settings.loss](output, torch.from_numpy(targets))
