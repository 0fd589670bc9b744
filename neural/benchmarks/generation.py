"""Generation, side by side: each peer in a process of its own, and all of them in turn, round after round.

Every call has a prompt that no call had before. Of a call that writes one token the time is the time to the first
token; of one that writes more, what is over is the time of the others, and so the speed of decoding.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from neural.benchmarks.peers import KINDS, bytes_read
from neural.diagnostics.diagnostic import fail

Say = Callable[[str], None]


class Shape(NamedTuple):
    """What is measured: `batch` prompts of `prompt` tokens together, `new` tokens each."""

    batch: int
    prompt: int
    new: int

    def __str__(self) -> str:
        return f"{self.batch} x {self.prompt} + {self.new}"


@dataclass(slots=True)
class Measured:
    """Of one peer and shape: seconds to the first token, tokens a second after it, all rounds; the text's tokens."""

    first: list[float] = field(default_factory=list)
    speed: list[float] = field(default_factory=list)
    tokens: list[list[list[int]]] = field(default_factory=list)

    @property
    def median_first(self) -> float:
        return statistics.median(self.first)

    @property
    def median_speed(self) -> float:
        return statistics.median(self.speed)

    def to_json(self) -> dict[str, Any]:
        return {
            "first_token_seconds": round(self.median_first, 4),
            "tokens_per_second": round(self.median_speed, 2),
            "rounds": [round(speed, 2) for speed in self.speed],
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of each width the peers' times and peak memory (bytes). bandwidth: bytes a second that this machine read, the
    median of the same rounds. read: bytes of weights that a token takes.
    """

    measured: dict[str, dict[tuple[str, Shape], Measured]]
    peaks: dict[str, dict[str, int]]
    bandwidth: dict[str, float]
    read: dict[str, int]

    def share(self, width: str, tokens_per_second: float) -> float:
        """Of the bandwidth, at which the weights are read by a batch of one."""
        return tokens_per_second * self.read[width] / self.bandwidth[width]

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for width, measured in self.measured.items():
            for (name, shape), one in measured.items():
                found.setdefault(width, {}).setdefault(name, {"peak_bytes": self.peaks[width][name]})[str(shape)] = {
                    **one.to_json(),
                    **({"bandwidth_share": round(self.share(width, one.median_speed), 3)} if shape.batch == 1 else {}),
                }
        speeds = {width: round(speed) for width, speed in self.bandwidth.items()}
        return {"bandwidth_bytes_per_second": speeds, "bytes_per_token": self.read, **found}


def compare(
    source: Path,
    widths: list[str],
    names: list[str],
    shapes: list[Shape],
    *,
    rounds: int,
    threads: int | None,
    say: Say,
) -> Comparison:
    """Measure the peers of these names on a run, or on a program with weights.

    Raises NeuralError for what cannot be opened, N973 for prompts that the context does not hold.
    """
    from neural.training.trained import open_trained

    found = open_trained(source)
    longest = max(shape.prompt + shape.new for shape in shapes)
    if longest > found.program.context:
        title = f"a prompt and its text are {longest} tokens, and the model's context is {found.program.context}"
        fail("N973", title, hint="give shorter --prompts, or less --new")
    read, vocab_size, threads = bytes_read(found.program), found.tokenizer.vocab_size, threads or os.cpu_count() or 1
    del found
    measured, peaks, speeds = {}, {}, {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "source").write_text(str(source.absolute()))
        (folder / "slots").write_text(str(max(shape.batch for shape in shapes)))
        names = [name for name in names if _exported(name, source, folder, say)]
        memory = Bandwidth(threads)
        for width in widths:
            with workers([n for n in names if width in KINDS[n].widths], width, folder, threads, say) as running:
                say(width)
                measured[width] = measure(
                    running, shapes, rounds=rounds, vocab_size=vocab_size, seed=0, say=say, memory=memory
                )
                peaks[width] = {worker.name: worker.peak for worker in running}
                speeds[width] = memory.take_median()
    return Comparison(measured, peaks, speeds, read)


def _exported(name: str, source: Path, folder: Path, say: Say) -> bool:
    """The model in the form that a peer reads; False where it has no equal there."""
    form = KINDS[name].form
    if form is None or (folder / form).exists():
        return True
    command = [sys.executable, "-m", "neural", "export", str(source), "--format", form, "--output", str(folder / form)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if line.startswith("error")), "it could not be exported")
        say(f"{name} is left out: {said}")
    return done.returncode == 0


class Worker:
    """A peer in its process."""

    def __init__(self, name: str, width: str, folder: Path, threads: int) -> None:
        self.name, self.width = name, width
        command = [sys.executable, "-m", "neural.benchmarks.worker", name, width, str(folder), str(threads)]
        self._log = (folder / f"{name}-{width}.log").open("w+")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self.peak = 0

    def wait_until_ready(self) -> None:
        """ChildProcessError where the peer does not start."""
        self._answer()

    def generate(self, prompts: list[list[int]], new: int) -> tuple[float, list[list[int]]]:
        self._process.stdin.write(json.dumps({"prompts": prompts, "new": new}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.peak = answer["peak"] or 0
        return answer["seconds"], answer["tokens"]

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            said = [text for text in self._log.read().splitlines() if text.strip()]
            raise ChildProcessError(f"{self.name} ({self.width}) ended: {said[-1] if said else 'it said nothing'}")
        return json.loads(line)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


@contextmanager
def workers(names: list[str], width: str, folder: Path, threads: int, say: Say) -> Iterator[list[Worker]]:
    """All that start. One that does not is told of and left out."""
    with ExitStack() as stack:
        started = []
        for name in names:
            worker = Worker(name, width, folder, threads)
            stack.callback(worker.close)
            try:
                worker.wait_until_ready()
            except ChildProcessError as error:
                say(f"left out: {error}")
                continue
            started.append(worker)
        yield started


def measure(
    running: list[Worker], shapes: list[Shape], *, rounds: int, vocab_size: int, seed: int, say: Say, memory: Bandwidth
) -> dict[tuple[str, Shape], Measured]:
    """By the peer's name and shape, and `memory` beside them. A first round, in which compilers and caches get warm, is
    not counted.
    """
    rng = random.Random(seed)
    found: dict[tuple[str, Shape], Measured] = {}

    def prompts(shape: Shape) -> list[list[int]]:
        return [[rng.randrange(vocab_size) for _ in range(shape.prompt)] for _ in range(shape.batch)]

    for shape in shapes:
        for round_ in range(rounds + 1):
            asked = prompts(shape), prompts(shape), prompts(shape)
            memory.read()
            for worker in running:
                worker.generate(asked[0], 2)  # it slept while the others had their turns
                first, _ = worker.generate(asked[1], 1)
                whole, tokens = worker.generate(asked[2], shape.new)
                if round_:
                    one = found.setdefault((worker.name, shape), Measured())
                    one.first.append(first)
                    one.speed.append(shape.batch * (shape.new - 1) / max(whole - first, 1e-9))
                    one.tokens.append(tokens)
        say(f"{shape}: " + ", ".join(f"{w.name} {found[w.name, shape].median_speed:.1f}" for w in running))
    return found


class Bandwidth:
    """What this machine reads from memory, by so many threads: it differs from minute to minute where machines share
    it, so that it is measured beside what it is compared with.
    """

    def __init__(self, threads: int, size: int = 2 << 30) -> None:
        self._threads, self._size, self._speeds = threads, size, []
        self._numbers = torch.ones(size // 4)

    def read(self) -> None:
        """The best of three tries, noted."""
        torch.set_num_threads(self._threads)
        best = 0.0
        for _ in range(3):
            began = time.perf_counter()
            self._numbers.sum()
            best = max(best, self._size / (time.perf_counter() - began))
        self._speeds.append(best)

    def take_median(self) -> float:
        """Bytes a second, of what was noted since the last call."""
        speeds, self._speeds = self._speeds, []
        return statistics.median(speeds)
