"""The training loop: steps, evaluations, samples and checkpoints in their turn, until the end or a request to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from signal import Signals

import torch
from torch import nn

from neural.data.tokenizers import Tokenizer
from neural.diagnostics.diagnostic import fail
from neural.planning.plan import plan
from neural.training.allocation import memory_for
from neural.training.distributed.launch import resume_command
from neural.training.distributed.strategy import Layout
from neural.training.distributed.world import ALONE, World
from neural.training.execution import Execution
from neural.training.lock import RunLock
from neural.training.meter import memory_now, memory_peak, peak_flops
from neural.training.metrics import MetricsLog, NoLog, Record, last_validation
from neural.training.nonfinite import stop_on_nonfinite, stop_on_nonfinite_validation
from neural.training.page import write_page
from neural.training.plots import draw_losses, draw_schedule
from neural.training.precision import silicon
from neural.training.randomness import RandomState
from neural.training.report import Report, Silence, Standing, terminal_report
from neural.training.run import Run
from neural.training.saver import Saver
from neural.training.session import Session, choose_device, start
from neural.training.shortage import shortage_is_said
from neural.training.signals import StopRequest
from neural.training.step import NonFiniteStep, StepResult

Sample = Callable[[nn.Module, Tokenizer], str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call of `train` ended."""

    state: str  # "finished" or "stopped"
    step: int
    total_steps: int
    stopped_by: str | None  # "SIGINT", "SIGTERM", "stop_at"
    validation: Record | None  # the newest of the run


def train(
    run: Run,
    *,
    stop_at: int | None = None,
    sample: Sample | None = None,
    device: str = "auto",
    report: Report | None = None,
    world: World = ALONE,
    layout: Layout | None = None,
    stop: StopRequest | None = None,
) -> Outcome:
    """Train a run from where it stands to its end, or to step `stop_at`, or until SIGINT or SIGTERM.

    A run that was stopped and goes on ends with the same bits in every weight as one that was not, on the same
    machine. `sample(model, tokenizer)` writes a text every `sample_every` steps and at the end; what it draws does not
    touch the training. `device`: "auto", "cpu" or "cuda". Of several processes all call it, each with its `world`.
    `stop`: requests that may have come before.
    NeuralError: N807 (`stop_at` lies behind), N808, N810 (the loss is not finite), N852 (another trainer has the run),
    N859 (the disk is full), N812 (memory ran out), N836 to N839 and N841 (several processes), and those of `start`.
    """
    chosen = choose_device(device)
    again = bool(run.program.settings.execution.get("activation_checkpointing"))
    memory = memory_for(chosen.type, checkpointing=again)
    stops = nullcontext(stop) if stop else StopRequest()
    layout = layout or Layout.chosen(run.program, chosen, world.size)
    shortage = shortage_is_said(run, resume_command(run, chosen, world.size, layout))
    with RunLock(run.path) if world.leads else nullcontext(), shortage, memory, stops as stop:
        session = start(run, chosen, world, layout)
        end = _end(session, stop_at)
        place = _place(chosen, world)
        told = report or terminal_report(run, place) if world.leads else Silence()
        saver = Saver(run.checkpoints, session.parallel, session.optimizer, session.train.keep_checkpoints)
        with MetricsLog(run.path, session.resumed) if world.leads else NoLog() as log, told as shown, saver:
            trainer = _Trainer(session, log, shown, sample, place, saver)
            trainer.begin()
            number = 0
            while session.step < end and not (number := world.largest(stop.signal or 0)):
                trainer.step(end)
            state = "finished" if session.step >= session.data.total_steps else "stopped"
            trainer.finish(state)
    by = None if state == "finished" else Signals(number).name if number else "stop_at"
    validation = last_validation(run.path / "metrics.jsonl")
    return Outcome(state, session.step, session.data.total_steps, by, validation)


def _place(device: torch.device, world: World) -> str:
    """Where it trains, for people: "cpu", "4 × NVIDIA H100"."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return name if world.size == 1 else f"{world.size} × {name}"


def _end(session: Session, stop_at: int | None) -> int:
    total = session.data.total_steps
    if stop_at is None:
        return total
    if stop_at <= session.step:
        where = f"the training stands at step {session.step} of {total} already"
        fail(
            "N807",
            f"--stop-at {stop_at} lies behind: {where}",
            hint=f"give a step after {session.step}, or leave it out",
        )
    return min(stop_at, total)


class _Trainer:
    """A session with where it tells what it does. Of several processes only the leader's tells anything."""

    def __init__(
        self, session: Session, log: MetricsLog, report: Report, sample: Sample | None, place: str, saver: Saver
    ) -> None:
        self.session, self.log, self.report, self.sample, self.place = session, log, report, sample, place
        self.saver, self.saved = saver, session.resumed  # the step of the newest checkpoint, whole or under way
        self.started, self.first_step = time.perf_counter(), session.step
        self.stepping = 0.0  # seconds in steps since the last line of metrics
        self.steps_timed = 0
        self.validation_loss: float | None = None  # of this step
        precision = session.parallel.loss.precision
        kind = getattr(torch, precision) if precision in silicon(session.device) else torch.float32
        self.peak = peak_flops(session.device, kind) * session.parallel.world.size if session.leads else 1.0
        self.flops_per_token = plan(session.run.program).flops_per_token_training

    def begin(self) -> None:
        session, run = self.session, self.session.run
        execution = session.warm_up(self.report.say)
        self.started = time.perf_counter()
        for line in (*session.notes, execution.text()):
            self.report.say(line)
        before = Execution(**run.record.execution) if run.record.execution else execution
        if session.resumed is not None and before != execution:
            self.report.say(f"note: until step {session.resumed} it was: {before.text()}")
        if session.step < session.data.total_steps and session.leads:
            run.set_state("training", execution=asdict(execution))
        if self.log.url:
            self.report.say(f"Weights & Biases: {self.log.url}")
        if session.resumed is None:
            if session.leads:
                draw_schedule(run.path / "lr_schedule.png", session.schedule, session.data.total_steps)
            self.note_long_warmup()
            self.evaluate()

    def note_long_warmup(self) -> None:
        schedule, total = self.session.run.program.settings.lr_schedule, self.session.data.total_steps
        warmup = schedule.arguments["warmup_steps"] if schedule else 0
        if warmup >= total:
            self.report.say(f"note: the warm-up has {warmup:,} steps and the training {total:,}: the rate only rises")

    def step(self, end: int) -> None:
        """One step, and what is due after it."""
        session, train = self.session, self.session.train
        self.saver.check()
        with self.timed():
            session.advance()
        self.steps_timed += 1
        self.validation_loss = None
        last = session.step >= session.data.total_steps

        def turn(every: int | None) -> bool:
            return bool(every) and (last or session.step % every == 0)

        logs, evaluates, samples = turn(train.log_every), turn(train.eval_every), turn(train.sample_every)
        saves = session.step % train.save_every == 0
        if logs or evaluates or samples or saves or session.must_read():
            self.tell(self.read()[session.step], end, due=logs)
        improved = evaluates and self.evaluate()
        if samples:
            self.write_sample()
        if saves or improved:
            self.save()

    def read(self) -> dict[int, StepResult]:
        """Take in what the steps since the last time gave."""
        with self.timed():
            found = self.session.read()
        for step, result in found.items():
            if result.spike:
                self.note_spike(step, result)
        return found

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around work on steps: its time counts as theirs, and one that is not finite ends the training."""
        began = time.perf_counter()
        try:
            yield
        except NonFiniteStep as error:
            with self.drawn_at_the_end():
                stop_on_nonfinite(self.session, error, self.session.all_randomness(self.session.before))
        self.stepping += time.perf_counter() - began

    def note_spike(self, step: int, result: StepResult) -> None:
        what = f"loss {result.loss:.4f}, gradient norm {result.gradient_norm:.3g}"
        outcome = "applied" if result.applied else "skipped"
        self.report.say(f"step {step} · spike, {outcome}: {what}")

    def tell(self, result: StepResult, end: int, *, due: bool) -> None:
        session = self.session
        tokens = session.data.batch_size * session.data.context * session.train.gradient_accumulation
        speed = self.steps_timed * tokens / self.stepping
        left = (time.perf_counter() - self.started) / (session.step - self.first_step) * (end - session.step)
        loss = session.take_mean_loss() if due else result.loss
        rate, norm = session.schedule(session.step - 1), result.gradient_norm
        share, memory = speed * self.flops_per_token / self.peak, memory_now(session.device)
        standing = Standing(session.step, session.data.total_steps, loss, speed, left, rate, norm, memory, share)
        self.report.stepped(standing, due=due)
        if due:
            values = {
                "loss": loss,
                "learning_rate": rate,
                "gradient_norm": norm,
                "tokens": session.step * tokens,
                "tokens_per_second": round(speed, 1),
                "peak_share": round(share, 4),
                "memory": memory_peak(session.device),
                "spikes": session.spikes.count,
            }
            self.log.write("train", session.step, values)
            self.stepping, self.steps_timed = 0.0, 0

    def evaluate(self) -> bool:
        """Look at the validation loss. True if it is the lowest so far."""
        session = self.session
        if not session.data.held_out:
            return False
        found = session.evaluate()
        if not math.isfinite(found.loss):
            with self.drawn_at_the_end():
                stop_on_nonfinite_validation(session, found.loss)
        self.log.write("validation", session.step, found.to_json(session.run.program.settings.metrics))
        bits = "" if found.bits_per_byte is None else f" · {found.bits_per_byte:.4f} bits per byte"
        accuracy = f" · accuracy {found.accuracy:.2%}" if "accuracy" in session.run.program.settings.metrics else ""
        loss = f"validation loss {found.loss:.4f} · perplexity {found.perplexity:,.2f}"
        self.report.say(f"step {session.step} · {loss}{bits}{accuracy}")
        self.report.validated(session.step, found.loss)
        self.validation_loss = found.loss
        improved = session.best_loss is None or found.loss < session.best_loss
        session.best_loss = found.loss if improved else session.best_loss
        return improved

    def write_sample(self) -> None:
        """A text by the model as it stands. The generators are put back: samples do not change the training."""
        if self.sample is None:
            return
        session = self.session
        devices = [session.device] if session.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            model = session.whole_model()
            if model is None:
                return
            text = self.sample(model.eval(), session.run.tokenizer)
        session.model.train()
        self.report.say(f"step {session.step} · sample\n{text}\n")
        self.log.write("sample", session.step, {"text": text})

    def save(self, *, wait: bool = False) -> None:
        """A checkpoint of this step, unless there is one. It is whole some steps later; with `wait` at once."""
        session = self.session
        if self.saved == session.step:
            return
        self.log.flush()
        randomness = session.all_randomness(RandomState.capture(session.device))
        state = session.state(randomness, self.validation_loss)
        self.saver.save(state, wait=wait)
        self.saved = session.step

    def finish(self, state: str) -> None:
        self.read()
        self.save(wait=True)
        self.saver.wait()
        if self.session.leads:
            self.session.run.set_state(state)
        self.draw()

    @contextmanager
    def drawn_at_the_end(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.draw()

    def draw(self) -> None:
        if not self.session.leads:
            return
        path = self.session.run.path
        draw_losses(path / "loss.png", path / "metrics.jsonl")
        write_page(self.session.run, self.place)
