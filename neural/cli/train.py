"""`neural train`: a program and text to a run directory."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neural.cli.options import Json, NetworkName, Set, parse_sets
from neural.cli.show import note, show
from neural.diagnostics.diagnostic import fail

if TYPE_CHECKING:
    from neural.training.distributed.strategy import Layout
    from neural.training.distributed.world import World
    from neural.training.loop import Outcome
    from neural.training.run import Run
    from neural.training.signals import StopRequest


class Precision(StrEnum):
    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Parallel(StrEnum):
    """The values of `neural.training.distributed.strategy.Strategy`, which loads torch."""

    DDP = "ddp"
    FSDP = "fsdp"
    TP = "tp"


RUNS = Path("runs")  # where a run goes that is given no folder
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
    replay: Annotated[
        Path | None,
        typer.Option(
            "--replay-step", help="Do the step again that stopped this run, and say what broke.", metavar="RUN"
        ),
    ] = None,
    stop_at: Annotated[int | None, typer.Option(help="Save and stop after this step.", metavar="STEP")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda. Default: the file's, or auto.", show_default=False)
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="How many GPUs, or processes on a CPU, train it together.", show_default=False)
    ] = None,
    parallel: Annotated[
        Parallel | None,
        typer.Option(
            help="How they share the work. Default: ddp, or fsdp where the model needs it.", show_default=False
        ),
    ] = None,
    tensor_parallel: Annotated[
        int | None,
        typer.Option(help="So many of them split each product, and the groups share the data.", metavar="N"),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(help="In which products are computed. Default: what the device does best.", show_default=False),
    ] = None,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Compile the model. Default: where it wins.", show_default=False),
    ] = None,
    wandb: Annotated[
        str | None, typer.Option(help="Tell Weights & Biases, too.", metavar="PROJECT", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Train even what does not seem to fit into memory.")] = False,
    as_json: Json = False,
) -> None:
    """Train a language model: writes a run directory, which every other command takes.

    The run holds the program, the tokenizer, the tokens, metrics (metrics.jsonl, TensorBoard events, two plots, and
    report.html, all of it on one page) and checkpoints. Ctrl-C finishes the step, saves and ends; --resume goes on as
    if nothing had happened.

    \b
    Examples:
      neural train examples/shakespeare_char.neural --data corpus.txt --out runs/first
      neural train examples/gpt2.neural --data shards --set n_layer=4 --stop-at 1000
      neural train examples/gpt2.neural --data shards --precision bfloat16 --compile
      neural train --resume runs/first
      neural train examples/gpt2.neural --data shards --devices 8
      neural train examples/gpt2.neural --data shards --devices 8 --parallel fsdp --tensor-parallel 2
      neural train --replay-step runs/first
    """
    if replay is not None:
        given = {"FILE": file, "--data": data, "--out": out, "--set": sets, "--network": network, "--resume": resume}
        given |= {"--tokenizer": tokenizer, "--seed": seed, "--stop-at": stop_at, "--devices": devices}
        given |= {"--parallel": parallel, "--tensor-parallel": tensor_parallel, "--precision": precision}
        _refuse_beside("--replay-step", {**given, "--compile": compiled, "--wandb": wandb, "--force": force or None})
        show_replay(replay, device, as_json)
        return
    if stop_at is not None and stop_at < 1:
        fail("N807", f"--stop-at {stop_at} lies behind: the first step is 1", hint="give a step to save and stop after")
    if resume is not None:
        given = {"FILE": file, "--data": data, "--out": out, "--set": sets, "--network": network}
        given |= {"--tokenizer": tokenizer, "--seed": seed, "--precision": precision, "--compile": compiled}
        _refuse_beside("--resume", given)
    elif file is None:
        fail("N806", "neural train needs a .neural file, or a run to go on with", hint="give FILE, or --resume RUN")
    from neural.compiler import load
    from neural.training.distributed.launch import launch, require_devices
    from neural.training.distributed.slurm import name_processes
    from neural.training.distributed.strategy import Layout, require_division
    from neural.training.distributed.worker import working
    from neural.training.distributed.world import processes
    from neural.training.room import made_to_fit
    from neural.training.run import Run
    from neural.training.session import choose_device
    from neural.training.signals import StopRequest
    from neural.training.weights_and_biases import ask_for_wandb, require_login

    if wandb is not None:
        require_login()
    program = Run.open(resume).program if resume else load(file, parse_sets(sets), network)  # before the text is read
    asked = {"precision": precision and precision.value, "compile": compiled}
    program = program.executed(**{name: value for name, value in asked.items() if value is not None})
    where = choose_device(device or program.settings.execution.get("device", "auto"))
    name_processes(os.environ)
    require_devices(devices, where, say=note)
    count = devices or processes()
    layout = Layout.chosen(program, where, count, parallel, tensor_parallel)
    require_division(program, layout, count)
    if not force:
        sharing = (count, parallel, tensor_parallel)
        program = made_to_fit(program, where, *sharing, fixed=bool(resume), say=note)

    def ready() -> Run:
        given = (file, data, out, parse_sets(sets), network, tokenizer, seed)
        run = Run.open(resume) if resume else make_run(*given, execution=program.execution)
        if wandb is not None:
            ask_for_wandb(run.path, wandb)
        return run

    if devices is not None and devices > 1:
        options = {"--stop-at": stop_at, "--parallel": parallel, "--tensor-parallel": tensor_parallel}
        options["--device"] = device
        given = [str(word) for name, value in options.items() if value is not None for word in (name, value)]
        raise typer.Exit(launch(ready().path, [*given, *["--json"] * as_json], devices))
    with working(where) as world:
        path = world.leaders(str(ready().path) if world.leads else "")
        with StopRequest() as stop:  # the run is there: from now on Ctrl-C saves
            run = Run.open(path)
            outcome = train_run(run, where.type, stop_at, world, layout, stop)
    if as_json and world.leads:
        record = run.record
        said = {"run": str(run.path), "parameters": record.parameter_count, "seed": record.seed}
        print(json.dumps({**said, **asdict(outcome), "execution": record.execution}))


def make_run(
    file: Path,
    data: str | None,
    out: Path | None,
    sets: dict[str, object],
    network: str | None,
    tokenizer: str | None = None,
    seed: int | None = None,
    execution: Mapping[str, object] | None = None,
) -> Run:
    """A new run directory, and what was decided on stderr. execution: for that section of the program."""
    from neural.data.durable import check_folder
    from neural.training.leakage import leakage_warning
    from neural.training.run import Run, require_free
    from neural.training.setup import set_up

    if out is not None:
        require_free(out)
    else:
        check_folder(RUNS)
    setup = set_up(file, sets=sets, network=network, data=data, tokenizer=tokenizer)
    show(setup.program.messages)
    for text in setup.notes:
        note(f"note: {text}")
    out = out or _free_name(RUNS, setup.program.name)
    program = setup.program.executed(**execution or {})
    run = Run.create(out, program, setup.tokenizer, setup.data, seed=seed, progress=True)
    if (warning := leakage_warning(run.data, run.tokenizer)) is not None:
        show([warning])
    return run


def train_run(
    run: Run,
    device: str | None,
    stop_at: int | None,
    world: World | None = None,
    layout: Layout | None = None,
    stop: StopRequest | None = None,
) -> Outcome:
    """Train a run with its progress, samples and outcome on stderr. Of several processes the leader speaks."""
    from neural.training.distributed.launch import resume_command
    from neural.training.distributed.strategy import Layout
    from neural.training.distributed.world import ALONE
    from neural.training.loop import train as train_loop
    from neural.training.session import choose_device

    world = world or ALONE
    chosen = choose_device(device or run.program.settings.execution.get("device", "auto"))
    layout = layout or Layout.chosen(run.program, chosen, world.size)
    where = chosen.type if world.size == 1 else f"{world.size} × {chosen.type}, {layout}"
    prompt = first_word(run)
    say = note if world.leads else lambda _: None
    for line in _heading(run, where):
        say(line)
    outcome = train_loop(
        run,
        stop_at=stop_at,
        device=chosen.type,
        sample=lambda model, _: prompt + write_sample(run, model, prompt),
        world=world,
        layout=layout,
        stop=stop,
    )
    again = resume_command(run, chosen, world.size, layout)
    for line in _ending(run, outcome, prompt, again):
        say(line)
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


def _ending(run: Run, outcome: Outcome, prompt: str, again: str) -> list[str]:
    place = f"step {outcome.step} of {outcome.total_steps}"
    if outcome.state == "stopped":
        why = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "stop_at": "--stop-at"}[outcome.stopped_by]
        return [f"stopped at {place} ({why}), saved; go on with:", f"  {again}"]
    loss = f": validation loss {outcome.validation['loss']:.4f}" if outcome.validation else ""
    command = f"  neural generate {shlex.quote(str(run.path))} --prompt {shlex.quote(prompt)}"
    return [f"finished at {place}{loss}; let it write:", command]


def show_replay(path: Path, device: str | None, as_json: bool) -> None:
    """Replay the step that stopped a run, and tell what it gave."""
    from neural.training.replay import replay_step
    from neural.training.run import Run

    found = replay_step(Run.open(path), device or "auto")
    if as_json:
        said = asdict(found)
        said["batches"] = [{**batch, "loss": _finite(batch["loss"])} for batch in said["batches"]]
        print(json.dumps({**said, **{name: _finite(said[name]) for name in ("loss", "gradient_norm")}}))
        return
    print(f"step {found.step}: loss {found.loss:.6g}, gradient norm {found.gradient_norm:.6g}")
    for batch in found.batches:
        layer = f", first not finite after {batch.not_finite}" if batch.not_finite else ""
        print(f"  batch {batch.index}: loss {batch.loss:.6g}{layer}")
    for what, names in (("weights", found.weights_not_finite), ("gradients", found.gradients_not_finite)):
        print(f"  {what} that are not finite: {', '.join(names[:8]) or 'none'}{', …' * (len(names) > 8)}")
    print("as it was when the run stopped" if found.reproduced else "not as it was when the run stopped")


def _finite(value: float) -> float | str:
    """JSON has no NaN: "nan", "inf"."""
    from math import isfinite

    return value if isfinite(value) else str(value)


def _refuse_beside(option: str, given: dict[str, object]) -> None:
    others = [name for name, value in given.items() if value not in (None, [])]
    if others:
        fail(
            "N806",
            f"{option} takes a run as it was made, and {', '.join(others)} would change it",
            hint=f"leave that out, or train a new run without {option}",
        )


def _free_name(folder: Path, network: str) -> Path:
    number = 1
    while (folder / f"{network}-{number}").exists():
        number += 1
    return folder / f"{network}-{number}"
