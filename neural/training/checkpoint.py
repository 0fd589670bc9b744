"""Checkpoints: safetensors and JSON in one folder.

step-000100/model.safetensors      the weights, tied ones once
            optimizer.safetensors  the optimizer's moments, "<weight>/<name>"
            state.json             step, place in the data, random states, losses, whose tokenizer and model
            COMPLETE               sizes and SHA-256 of the others; a folder without it is not a checkpoint

Processes that hold parts of the weights write model-00001-of-00004.safetensors and so on, each its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

import torch
from torch import nn

from neural.diagnostics.diagnostic import fail
from neural.interop.tensor_files import TensorFiles, read_pieces
from neural.training.distributed.parallel import Parallel
from neural.training.precision import LossScale
from neural.training.randomness import RandomState
from neural.training.spikes import Spikes
from neural.training.tensor_file import FileRecord, PieceFiles
from neural.training.weights import Signature, load_weights, require_fit, signature

FORMAT = 1
MODEL, OPTIMIZER, STATE = "model", "optimizer", "state.json"
MARK = "COMPLETE"
NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True, slots=True)
class TrainingState:
    """All of a training that is neither a weight nor an optimizer's moment."""

    step: int  # optimizer steps done
    cursor: int  # index of the next batch to draw
    randomness: RandomState  # of the first stream of random numbers
    tokenizer_hash: str
    validation_loss: float | None = None  # nats a token, if this step was evaluated
    best_loss: float | None = None  # the lowest validation loss so far
    loss_sum: float = 0.0  # of the steps since the last line of metrics
    loss_count: int = 0
    spikes: Spikes = field(default_factory=Spikes)
    others: tuple[RandomState, ...] = ()  # of the other streams, where several processes train
    program: str = ""  # its text; earlier versions did not keep it
    scale: LossScale | None = None  # of the loss, in float16

    def to_json(self, model: nn.Module) -> dict[str, Any]:
        """`weights` is the signature of the model that the state belongs to."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {
            "format": FORMAT,
            **fields,
            "randomness": self.randomness.to_json(),
            "spikes": self.spikes.to_json(),
            "others": [other.to_json() for other in self.others],
            "scale": self.scale and self.scale.to_json(),
            "weights": signature(model),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        fields = {name: value[name] for name in cls.__slots__ if name in value}
        made = {"randomness": RandomState.from_json(value["randomness"])}
        if "spikes" in value:  # checkpoints of earlier versions did not count them
            made["spikes"] = Spikes.from_json(value["spikes"])
            made["others"] = tuple(RandomState.from_json(other) for other in value["others"])
        if value.get("scale"):
            made["scale"] = LossScale.from_json(value["scale"])
        return cls(**{**fields, **made})


def tensor_file(kind: str, rank: int = 0, size: int = 1) -> str:
    """The name of the file that writer `rank` of `size` puts its part of the model, or of the optimizer, into."""
    return f"{kind}.safetensors" if size == 1 else f"{kind}-{rank + 1:05}-of-{size:05}.safetensors"


def checkpoint_name(step: int) -> str:
    return f"step-{step:06d}"


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as "<weight>/<moment>" -> tensor."""
    return {
        f"{name}/{key}": tensor.detach()
        for name, parameter in model.named_parameters()
        for key, tensor in optimizer.state.get(parameter, {}).items()
        if tensor is not None
    }


def load_optimizer(parallel: Parallel, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give the optimizer the moments that `optimizer_tensors` wrote; its rates and decays stay as the program says."""
    parameters = dict(parallel.model.named_parameters())
    names = {id(parameter): name for name, parameter in parameters.items()}
    ordered = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    moments: dict[str, dict[str, torch.Tensor]] = {}
    for key in tensors:
        name, _, moment = key.rpartition("/")
        moments.setdefault(name, {})[moment] = parallel.part(key, tensors[key], parameters[name])
    state = {index: moments[name] for index, name in enumerate(ordered) if name in moments}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose mark, sizes and hashes agree with what is on the disk."""

    path: Path
    state: TrainingState
    signature: Signature
    files: tuple[str, ...]  # that the mark names

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read and check a checkpoint. NeuralError N856 says what is damaged."""
        try:
            mark = json.loads((path / MARK).read_text())
            files = mark["files"]
            for name in dict.fromkeys((STATE, *files)):
                _require_intact(path / name, FileRecord(**files[name]))
            value = json.loads((path / STATE).read_text())
            if value["format"] != FORMAT:
                fail(
                    "N855",
                    f"{path} is a checkpoint of format {value['format']}, and this neural reads format {FORMAT}",
                    hint="use the version of neural that run.json names",
                )
            return cls(path, TrainingState.from_json(value), value["weights"], tuple(files))
        except FileNotFoundError as error:
            damaged(path, f"{Path(error.filename).name} is missing")
        except (ValueError, KeyError, TypeError) as error:
            damaged(path, f"its JSON does not read ({type(error).__name__}: {error})")

    def load_model(self, model: nn.Module) -> None:
        """Put the weights into `model`. NeuralError N858 if they are another model's."""
        require_fit(self.signature, model, str(self.path))
        load_weights(model, self._tensors(MODEL))

    def weights(self) -> TensorFiles:
        """By name, each read when it is asked for."""
        return read_pieces(self.path / name for name in self.files if name.startswith(MODEL))

    def load_optimizer(self, parallel: Parallel, optimizer: torch.optim.Optimizer) -> None:
        """Put the moments into `optimizer`, which optimizes what this process holds of the model."""
        load_optimizer(parallel, optimizer, self._tensors(OPTIMIZER))

    def _tensors(self, kind: str) -> PieceFiles:
        return PieceFiles(self.path / name for name in self.files if name.startswith(kind))


def _require_intact(path: Path, record: FileRecord) -> None:
    size = path.stat().st_size
    if size != record.size:
        damaged(path.parent, f"{path.name} has {size:,} bytes of {record.size:,}")
    if FileRecord.of(path) != record:
        damaged(path.parent, f"the contents of {path.name} are not what was written (SHA-256 differs)")


def damaged(path: Path, what: str) -> NoReturn:
    """Raise N856."""
    fail(
        "N856",
        f"the checkpoint {path} is damaged: {what}",
        hint="use another checkpoint of the run: `neural train --resume` takes the last whole one",
    )
