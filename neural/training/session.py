"""A training as it stands in memory: model, optimizer, data and counters, fresh or from the latest whole checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import nn

from neural.data.loader import Share, prefetch
from neural.diagnostics.diagnostic import fail
from neural.graph.settings import Train
from neural.training.checkpoint import Checkpoint, TrainingState
from neural.training.compiling import compile_where_it_wins, warm_up
from neural.training.cpu_library import compile_kernels
from neural.training.data import TrainingData
from neural.training.distributed.parallel import Parallel
from neural.training.distributed.strategy import Layout, distribute
from neural.training.distributed.world import ALONE, World
from neural.training.evaluate import Evaluation, evaluate
from neural.training.execution import Execution
from neural.training.optimizers import make_optimizer
from neural.training.precision import LossScale, chosen_precision
from neural.training.pretrained import load_pretrained
from neural.training.randomness import RandomState
from neural.training.run import Run
from neural.training.same_program import require_same_program
from neural.training.schedules import Schedule, make_schedule
from neural.training.spikes import Spikes
from neural.training.step import Batch, NonFiniteStep, StepResult, make_gradients, optimizer_step
from neural.training.unread import Launched, Unread, can_wait
from neural.training.weights import load_weights, weights


@dataclass(slots=True)
class Session:
    """What `start` sets up and the loop moves on."""

    run: Run
    device: torch.device
    data: TrainingData
    parallel: Parallel
    layout: Layout
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    resumed: int | None  # step of the checkpoint that it went on from
    step: int = 0
    cursor: int = 0
    best_loss: float | None = None
    loss_sum: float = 0.0  # of the steps since the last line of metrics
    loss_count: int = 0
    spikes: Spikes = field(default_factory=Spikes)
    scale: LossScale | None = None  # in float16
    notes: tuple[str, ...] = ()  # for the user, about how it is carried out
    unread: Unread | None = None  # where steps are not read one by one
    known: dict[int, StepResult] = field(default_factory=dict)  # of steps that `read` has not given
    before: RandomState | None = None  # the generators before the newest step
    share: Share = field(init=False)  # of the data, of this process
    batches: Iterator[Batch] = field(init=False)
    first: int = field(init=False)  # steps before this session

    def __post_init__(self) -> None:
        self.first = self.step
        self.share = self.data.training.share(
            self.parallel.data_rank, self.parallel.data_size, self.train.gradient_accumulation
        )
        coming = prefetch(self.share, self.step * self.share.per_step)
        self.batches = map(partial(to_device, device=self.device), coming)

    @property
    def model(self) -> nn.Module:
        return self.parallel.model

    @property
    def leads(self) -> bool:
        return self.parallel.world.leads

    @property
    def train(self) -> Train:
        return self.run.program.settings.train

    def warm_up(self, say: Callable[[str], None]) -> Execution:
        """Compile what is to be compiled, and how the training is then carried out. All processes call it."""
        if self.parallel.loss.compiled is not None:
            warm_up(self.parallel, to_device(self.share.batch(0), self.device), say)
        elif self.device.type == "cpu":
            compile_kernels(say)
        return Execution.of(self.run.program, self.parallel, self.layout, self.device)

    def advance(self) -> None:
        """One optimizer step; `read` says what it gave. NonFiniteStep as there, unless that is known later."""
        batches = list(islice(self.batches, self.share.per_step))
        self.before = RandomState.capture(self.device)
        how = {"rate": self.schedule(self.step), "clip": self.train.gradient_clip}
        if self.unread and self.step > self.first:  # the first one makes the moments, which it may not if it is bad
            self.unread.launch(batches, (self.step, self.cursor, self.before), **how)
        else:
            spikes = {"is_spike": self.spikes.sees, "skip_spikes": self.train.skip_spikes}
            result = optimizer_step(self.parallel, self.optimizer, batches, **how, **spikes, scale=self.scale)
            self.known[self.step + 1] = result
        self.step += 1
        self.cursor += self.train.gradient_accumulation

    def must_read(self) -> bool:
        """Whether no more steps shall be done before these are read. All processes say the same."""
        return self.unread is None or self.unread.must_be_read()

    def read(self) -> dict[int, StepResult]:
        """What the steps since the last time gave, by their numbers.

        NonFiniteStep at one that is not finite: everything is then as before it, but for gradients, which are those of
        the step, and generators, which were `before`.
        """
        found, self.known = self.known, {}
        for result in found.values():
            self._count(result)
        for launched, (loss, norm, *losses) in self.unread.read() if self.unread else ():
            result = StepResult(loss, norm)
            if not result.finite:
                self._go_back(launched)
                raise NonFiniteStep(result, losses)
            found[launched.step + 1] = result = replace(result, spike=self.spikes.sees(loss, norm))
            self._count(result)
        return found

    def _count(self, result: StepResult) -> None:
        self.loss_sum += result.loss
        self.loss_count += 1

    def _go_back(self, launched: Launched) -> None:
        """To before a step that was not applied, nor any after it; with its gradient."""
        self.step, self.cursor, self.before = launched.step, launched.cursor, launched.randomness
        self.before.restore(self.device)
        first = self.step * self.share.per_step
        batches = [to_device(self.share.batch(first + i), self.device) for i in range(self.share.per_step)]
        with self.parallel.stepping():
            make_gradients(self.parallel, batches, None)

    def all_randomness(self, own: RandomState) -> tuple[RandomState, ...]:
        """The states of all streams of random numbers. All processes call it with their own."""
        states = own.gathered(self.parallel.world)
        return states[:: len(states) // self.parallel.streams]

    def whole_model(self) -> nn.Module | None:
        """The model as one process has it, for the leader; None for the others. All of them call it."""
        if not self.parallel.in_parts:
            return self.model if self.leads else None
        gathered = self.parallel.gathered(weights(self.model))
        if not self.leads:
            return None
        model = self.run.new_model().to(self.device)
        load_weights(model, gathered)
        return model

    def take_mean_loss(self) -> float:
        """Mean training loss since the last time it was taken."""
        mean = self.loss_sum / self.loss_count
        self.loss_sum, self.loss_count = 0.0, 0
        return mean

    def evaluate(self) -> Evaluation:
        """On the text that is held out, the same sequences every time."""
        batches = (to_device(batch, self.device) for batch in self.data.evaluation(self.train.eval_batches))
        return evaluate(self.parallel, batches, self.run.tokenizer.byte_lengths)

    def state(self, randomness: tuple[RandomState, ...], validation_loss: float | None = None) -> TrainingState:
        return TrainingState(
            step=self.step,
            cursor=self.cursor,
            randomness=randomness[0],
            others=randomness[1:],
            tokenizer_hash=self.run.record.tokenizer_hash,
            validation_loss=validation_loss,
            best_loss=self.best_loss,
            loss_sum=self.loss_sum,
            loss_count=self.loss_count,
            spikes=self.spikes,
            scale=self.scale,
            program=self.run.program.text(),
        )


def start(run: Run, device: torch.device, world: World = ALONE, layout: Layout | None = None) -> Session:
    """Build model, optimizer and data, and go on from the latest whole checkpoint if there is one.

    Of several processes all call it, and all get the checkpoint that the leader finds.
    NeuralError: N836 and N839 (the work does not divide), N845 (the program changed), N853 to N856 and N858 (data or
    checkpoint of another run, or damaged), and those of the weights that the program names.
    """
    data = run.data
    checkpoint = _latest(run, world)
    if world.leads:
        run.checkpoints.clean(checkpoint.state.step if checkpoint else None)
    torch.manual_seed(run.record.seed)
    model = run.new_model().to(device)
    settings = run.program.settings
    if checkpoint is None:
        load_pretrained(model, run.program)
    else:
        run.require_own(checkpoint)
        require_same_program(run.path, run.program, checkpoint)
        checkpoint.load_model(model)
    layout = layout or Layout.chosen(run.program, device, world.size)
    parallel = distribute(run.program, model.train(), world, layout)
    parallel.loss.precision, slow = chosen_precision(run.program, device)
    lacking = compile_where_it_wins(run.program, parallel, device)
    optimizer = make_optimizer(settings.optimizer, parallel.model)
    schedule = make_schedule(settings.lr_schedule, settings.optimizer.arguments["learning_rate"], data.total_steps)
    counters = {}
    if checkpoint is None:
        _seed(run, parallel, 0)
    else:
        checkpoint.load_optimizer(parallel, optimizer)
        state = checkpoint.state
        _restore(run, parallel, state, device)
        names = ("step", "cursor", "best_loss", "loss_sum", "loss_count", "spikes")
        counters = {name: getattr(state, name) for name in names}
    resumed = checkpoint.state.step if checkpoint else None
    scale = LossScale.of(parallel.loss.precision)
    if scale and checkpoint:
        scale = checkpoint.state.scale or scale
    notes = tuple(f"note: {text}" for text in (slow, lacking) if text)
    unread = Unread(parallel, optimizer, device) if can_wait(parallel, optimizer, settings.train, device) else None
    how = {"scale": scale, "notes": notes, "unread": unread}
    return Session(run, device, data, parallel, layout, optimizer, schedule, resumed, **how, **counters)


def _latest(run: Run, world: World) -> Checkpoint | None:
    found = run.checkpoints.latest(run.warn) if world.leads else None
    name = world.leaders(found.path.name if found else "")
    return found if world.leads or not name else Checkpoint.open(run.checkpoints.folder / name)


def _seed(run: Run, parallel: Parallel, step: int) -> None:
    """The first stream of random numbers goes on as a process alone would."""
    if parallel.stream:
        drawn = np.random.SeedSequence([run.record.seed, step, parallel.stream]).generate_state(1, np.uint64)
        torch.manual_seed(int(drawn[0] >> np.uint64(1)))


def _restore(run: Run, parallel: Parallel, state: TrainingState, device: torch.device) -> None:
    """The generators' states, one a stream; new ones but for the first where there were fewer or more."""
    states = (state.randomness, *state.others)
    if parallel.stream == 0 or len(states) == parallel.streams:
        states[parallel.stream].restore(device)
    else:
        _seed(run, parallel, state.step)


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
