"""A training as it stands in memory: model, optimizer, data and counters, fresh or from the latest whole checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import nn

from neural.data.loader import prefetch
from neural.diagnostics.diagnostic import fail
from neural.graph.settings import Train
from neural.training.checkpoint import TrainingState
from neural.training.data import TrainingData
from neural.training.evaluate import Evaluation, evaluate
from neural.training.optimizers import make_optimizer
from neural.training.pretrained import load_pretrained
from neural.training.randomness import RandomState
from neural.training.run import Run
from neural.training.schedules import Schedule, make_schedule
from neural.training.spikes import Spikes
from neural.training.step import Batch, StepResult, optimizer_step


@dataclass(slots=True)
class Session:
    """What `start` sets up and the loop moves on."""

    run: Run
    device: torch.device
    data: TrainingData
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    resumed: int | None  # step of the checkpoint that it went on from
    step: int = 0
    cursor: int = 0
    best_loss: float | None = None
    loss_sum: float = 0.0  # of the steps since the last line of metrics
    loss_count: int = 0
    spikes: Spikes = field(default_factory=Spikes)
    batches: Iterator[Batch] = field(init=False)

    def __post_init__(self) -> None:
        self.batches = (to_device(batch, self.device) for batch in prefetch(self.data.training, self.cursor))

    @property
    def train(self) -> Train:
        return self.run.program.settings.train

    def advance(self) -> StepResult:
        """One optimizer step. NonFiniteStep leaves everything but the random generators as before it."""
        batches = list(islice(self.batches, self.train.gradient_accumulation))
        result = optimizer_step(
            self.model,
            self.optimizer,
            batches,
            rate=self.schedule(self.step),
            clip=self.train.gradient_clip,
            is_spike=self.spikes.sees,
            skip_spikes=self.train.skip_spikes,
        )
        self.step += 1
        self.cursor += len(batches)
        self.loss_sum += result.loss
        self.loss_count += 1
        return result

    def take_mean_loss(self) -> float:
        """Mean training loss since the last time it was taken."""
        mean = self.loss_sum / self.loss_count
        self.loss_sum, self.loss_count = 0.0, 0
        return mean

    def evaluate(self) -> Evaluation:
        """On the text that is held out, the same sequences every time."""
        batches = (to_device(batch, self.device) for batch in self.data.evaluation(self.train.eval_batches))
        return evaluate(self.model, batches, self.run.tokenizer.byte_lengths)

    def state(self, randomness: RandomState, validation_loss: float | None = None) -> TrainingState:
        return TrainingState(
            step=self.step,
            cursor=self.cursor,
            randomness=randomness,
            tokenizer_hash=self.run.record.tokenizer_hash,
            validation_loss=validation_loss,
            best_loss=self.best_loss,
            loss_sum=self.loss_sum,
            loss_count=self.loss_count,
            spikes=self.spikes,
        )


def start(run: Run, device: torch.device) -> Session:
    """Build a run's model, optimizer and data, and bring them to its latest whole checkpoint if there is one.

    Also removes what a crash left half-written: only for the holder of the run's lock.
    NeuralError: N853, N854 (tokenizer, data), N856 (all checkpoints damaged), N858.
    """
    data = run.data
    checkpoint = run.checkpoints.latest(run.warn)
    run.checkpoints.clean(checkpoint.state.step if checkpoint else None)
    torch.manual_seed(run.record.seed)
    model = run.new_model().to(device)
    settings = run.program.settings
    optimizer = make_optimizer(settings.optimizer, model)
    schedule = make_schedule(settings.lr_schedule, settings.optimizer.arguments["learning_rate"], data.total_steps)
    counters = {}
    if checkpoint is None:
        load_pretrained(model, run.program)
    else:
        run.require_own(checkpoint)
        checkpoint.load_model(model)
        checkpoint.load_optimizer(model, optimizer)
        state = checkpoint.state
        state.randomness.restore(device)
        names = ("step", "cursor", "best_loss", "loss_sum", "loss_count", "spikes")
        counters = {name: getattr(state, name) for name in names}
    resumed = checkpoint.state.step if checkpoint else None
    return Session(run, device, data, model.train(), optimizer, schedule, resumed, **counters)


def to_device(batch: tuple, device: torch.device) -> Batch:
    """NumPy arrays as tensors on the device; a GPU copies from pinned memory while it computes."""
    tensors = (torch.from_numpy(array) for array in batch)
    if device.type == "cuda":
        return tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors)
    return tuple(tensors)


def choose_device(name: str) -> torch.device:
    """The device that "auto", "cpu" or "cuda" means here. NeuralError N808 if it is not there."""
    if name not in ("auto", "cpu", "cuda"):
        fail("N808", f"there is no device {name!r}", hint="choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        fail("N808", "this machine has no CUDA device that torch can use", hint="use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
