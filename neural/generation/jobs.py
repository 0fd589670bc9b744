"""A file of prompts, written as one batch: line by line into another file, and resumed where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from neural.data.durable import check_place
from neural.data.text import open_bytes
from neural.data.tokenizers import Tokenizer
from neural.diagnostics.diagnostic import Diagnostic, NeuralError, fail
from neural.generation.engine import Engine
from neural.generation.request import Event, FinishReason
from neural.generation.tasks import Task, parse_task

LONGEST_LINE = 1 << 26  # bytes


@dataclass(slots=True)
class Tally:
    """What a job came to: lines done now, done before, and failed; and the tokens written now."""

    done: int = 0
    before: int = 0
    failed: int = 0
    tokens: int = 0


@dataclass
class Job:
    """Run it once.

    prompts: JSON lines, see `parse_task`. output: JSON lines, one for each prompt in the order in which they end, with
    the prompt's `line`. Where it is there already, its lines are kept and those prompts passed over; a line that a
    crash cut short is dropped.
    report: told of each line that failed, with its number; the others are done nevertheless.
    advance: told of the bytes of each line that is over. stopped: asked between two steps.
    """

    engine: Engine
    tokenizer: Tokenizer
    context: int
    prompts: Path
    output: Path
    defaults: Mapping[str, Any]
    truncate: Literal["left"] | None = None
    report: Callable[[Diagnostic], None] = lambda _: None
    advance: Callable[[int], None] = lambda _: None
    stopped: Callable[[], bool] = lambda: False
    tally: Tally = field(default_factory=Tally)

    def run(self) -> Tally:
        """NeuralError N961 where the output is not of these prompts; OSError where a file cannot be used."""
        check_place(self.output)
        with open_bytes(self.prompts) as source, self.output.open("ab+") as sink:
            known = _done_lines(sink, self.output)
            tasks = self._tasks(source, known)
            running: dict[int, tuple[Task, int]] = {}  # handle -> its task, and which sample
            more = True
            while (more or running) and not self.stopped():
                while more and len(running) < 4 * self.engine.limits.slots:
                    task = next(tasks, None)
                    more = task is not None
                    if more:
                        self._submit(task, running)
                        self._write(task, sink)  # one that asks for no tokens is done
                for event in self.engine.step() if running else ():
                    self._take(event, running, sink)
            os.fsync(sink.fileno())
        return self.tally

    def _tasks(self, source: BinaryIO, known: dict[int, str]) -> Iterator[Task]:
        number = 0
        while line := source.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE:
                fail("N960", f"{self.prompts}:{number}: a line of more than {LONGEST_LINE >> 20} MiB", hint="split it")
            if not line.strip():
                continue
            try:
                task = parse_task(number, line, self.defaults, self.tokenizer, self.context, self.truncate)
            except NeuralError as error:
                self._fail(number, len(line), error)
                continue
            if number not in known:
                yield task
            elif known[number] == task.prompt:
                self.tally.before += 1
                self.advance(len(line))
            else:
                fail(
                    "N961",
                    f"{self.output} has an answer to line {number} of other prompts than {self.prompts}",
                    hint="write to a new file, or remove that one",
                )

    def _submit(self, task: Task, running: dict[int, tuple[Task, int]]) -> None:
        handles = []
        try:
            for i, request in enumerate(task.requests):
                if request.max_new_tokens:
                    handles.append(self.engine.submit(request))
                    running[handles[-1]] = task, i
        except NeuralError as error:
            for handle in handles:
                self.engine.cancel(handle)
                del running[handle]
            task.requests.clear()
            self._fail(task.number, task.size, error)

    def _take(self, event: Event, running: dict[int, tuple[Task, int]], sink: BinaryIO) -> None:
        if event.handle not in running:
            return  # of a sample that a stop string ended in this step, or of a line that failed
        task, index = running[event.handle]
        if event.error is not None:
            for handle in [h for h, (other, _) in running.items() if other is task]:
                self.engine.cancel(handle)
                del running[handle]
            self._fail(task.number, task.size, event.error)
            return
        continuation = task.continuations[index]
        continuation.push(event.token, event.logprobs, over=event.finish_reason is FinishReason.STOP)
        self.tally.tokens += 1
        if continuation.finish_reason is not None:
            self.engine.cancel(event.handle)
            del running[event.handle]
            self._write(task, sink)

    def _write(self, task: Task, sink: BinaryIO) -> None:
        if task.done and task.requests:
            sink.write(json.dumps(task.to_json(), ensure_ascii=False).encode() + b"\n")
            sink.flush()
            self.tally.done += 1
            self.advance(task.size)

    def _fail(self, number: int, size: int, error: NeuralError) -> None:
        (first, *_) = error.diagnostics
        self.tally.failed += 1
        self.report(replace(first, title=f"{self.prompts}:{number}: {first.title}"))
        self.advance(size)


def _done_lines(sink: BinaryIO, path: Path) -> dict[int, str]:
    """The prompts that the output answers, by their lines. Cuts off a last line that was not written wholly."""
    sink.seek(0)
    known, end = {}, 0
    for line in sink:
        if not line.endswith(b"\n"):
            break
        end += len(line)
        try:
            record = json.loads(line)
            known[record["line"]] = record["prompt"]
        except (ValueError, KeyError, TypeError, RecursionError):
            fail("N961", f"{path} is there, and is not what this command writes", hint="write to a new file")
    sink.truncate(end)
    sink.seek(end)
    return known
