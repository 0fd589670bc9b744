"""`neural train`: a program and text to a run directory."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neural.cli.options import Json, NetworkName, Set, parse_sets
from neural.cli.show import note, show
from neural.diagnostics.diagnostic import fail

if TYPE_CHECKING:
    from neural.training.loop import Outcome
    from neural.training.run import Run

SAMPLE_TOKENS = 200
SAMPLE_TEMPERATURE = 0.8


def train(
    file: Annotated[Path | None, typer.Argument(help="A .neural file.", metavar="FILE", show_default=False)] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Text file, folder, pattern, JSON lines, or token shards. Default: the file's `data:`."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run directory to make. Default: runs/NETWORK-1, -2, …", show_default=False)
    ] = None,
    sets: Set = [],  # noqa: B006
    network: NetworkName = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="gpt2, char, byte, or a tokenizer.json. Default: the file's `tokenizer:`.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="For all that is random. Default: the file's.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run, from its latest whole checkpoint.", metavar="RUN")
    ] = None,
    stop_at: Annotated[int | None, typer.Option(help="Save and stop after this step.", metavar="STEP")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda. Default: the file's, or auto.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a language model: writes a run directory, which every other command takes.

    The run holds the program, the tokenizer, the tokens, metrics (metrics.jsonl, TensorBoard events, two plots) and
    checkpoints. Ctrl-C finishes the step, saves and ends; --resume goes on as if nothing had happened.

    \b
    Examples:
      neural train examples/shakespeare_char.neural --data corpus.txt --out runs/first
      neural train examples/gpt2.neural --data shards --set n_layer=4 --stop-at 1000
      neural train --resume runs/first
    """
    if stop_at is not None and stop_at < 1:
        fail("N807", f"--stop-at {stop_at} lies behind: the first step is 1", hint="give a step to save and stop after")
    if resume is not None:
        given = {"FILE": file, "--data": data, "--out": out, "--set": sets, "--network": network}
        _refuse_with_resume({**given, "--tokenizer": tokenizer, "--seed": seed})
        from neural.training.run import Run

        run = Run.open(resume)
    elif file is None:
        fail("N806", "neural train needs a .neural file, or a run to go on with", hint="give FILE, or --resume RUN")
    else:
        if device is not None:
            from neural.training.session import choose_device

            choose_device(device)  # before the text is read
        run = make_run(file, data, out, parse_sets(sets), network, tokenizer, seed)
    outcome = train_run(run, device, stop_at)
    if as_json:
        parameters = run.record.parameter_count
        print(json.dumps({"run": str(run.path), "parameters": parameters, "seed": run.record.seed, **asdict(outcome)}))


def make_run(
    file: Path,
    data: str | None,
    out: Path | None,
    sets: dict[str, object],
    network: str | None,
    tokenizer: str | None = None,
    seed: int | None = None,
) -> Run:
    """A new run directory, and what was decided on stderr."""
    from neural.training.run import Run, require_free
    from neural.training.setup import set_up

    if out is not None:
        require_free(out)
    setup = set_up(file, sets=sets, network=network, data=data, tokenizer=tokenizer)
    show(setup.program.messages)
    for text in setup.notes:
        note(f"note: {text}")
    out = out or _free_name(Path("runs"), setup.program.name)
    return Run.create(out, setup.program, setup.tokenizer, setup.data, seed=seed, progress=True)


def train_run(run: Run, device: str | None, stop_at: int | None) -> Outcome:
    """Train a run with its progress, samples and outcome on stderr."""
    from neural.training.loop import train as train_loop
    from neural.training.session import choose_device

    where = choose_device(device or run.program.settings.execution.get("device", "auto")).type
    prompt = first_word(run)
    for line in _heading(run, where):
        note(line)
    outcome = train_loop(
        run, stop_at=stop_at, device=where, sample=lambda model, _: prompt + write_sample(run, model, prompt)
    )
    for line in _ending(run, outcome, prompt):
        note(line)
    return outcome


def first_word(run: Run) -> str:
    """The first word of the run's text, for samples to begin with: in the vocabulary whatever that is."""
    ids = run.data.store[:64].tolist()
    words = run.tokenizer.decode(ids).split()
    return words[0] if words else run.tokenizer.decode(ids[:1])


def write_sample(run: Run, model, prompt: str, max_new_tokens: int = SAMPLE_TOKENS) -> str:
    """What the model writes after `prompt`, the same for the same weights."""
    from neural.generation.generate import generate
    from neural.generation.options import SamplingOptions

    options = SamplingOptions(temperature=SAMPLE_TEMPERATURE, seed=run.record.seed)
    context = run.program.context
    (sample,) = generate(
        model, run.tokenizer, prompt, options, context=context, max_new_tokens=max_new_tokens, truncate="left"
    )
    return sample.text


def _heading(run: Run, device: str) -> list[str]:
    record, train_settings = run.record, run.program.settings.train
    batch, accumulation, context = train_settings.batch_size, train_settings.gradient_accumulation, run.program.context
    step = f"{batch} × {context}" + (f" × {accumulation}" if accumulation > 1 else "")
    return [
        f"{record.network}: {record.parameter_count:,} parameters, on {device}",
        f"{record.data.source}: {record.data.tokens:,} tokens of a vocabulary of {record.vocab_size:,}",
        f"{record.steps:,} steps of {step} = {batch * context * accumulation:,} tokens",
        f"run: {run.path}",
    ]


def _ending(run: Run, outcome: Outcome, prompt: str) -> list[str]:
    place = f"step {outcome.step} of {outcome.total_steps}"
    if outcome.state == "stopped":
        why = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "stop_at": "--stop-at"}[outcome.stopped_by]
        return [
            f"stopped at {place} ({why}), saved; go on with:",
            f"  neural train --resume {shlex.quote(str(run.path))}",
        ]
    loss = f": validation loss {outcome.validation['loss']:.4f}" if outcome.validation else ""
    command = f"  neural generate {shlex.quote(str(run.path))} --prompt {shlex.quote(prompt)}"
    return [f"finished at {place}{loss}; let it write:", command]


def _refuse_with_resume(given: dict[str, object]) -> None:
    others = [name for name, value in given.items() if value not in (None, [])]
    if others:
        fail(
            "N806",
            f"--resume goes on with a run as it was made, and {', '.join(others)} would change it",
            hint="leave that out, or train a new run without --resume",
        )


def _free_name(folder: Path, network: str) -> Path:
    number = 1
    while (folder / f"{network}-{number}").exists():
        number += 1
    return folder / f"{network}-{number}"
