"""`neural generate`: text from a trained run."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neural.cli.options import CheckpointName, EngineName, Json, Quantize, Trained
from neural.cli.show import note
from neural.diagnostics.diagnostic import fail

if TYPE_CHECKING:
    import signal

    from neural.generation.generate import Generation
    from neural.training import trained

DRAFTED = 4  # tokens that a smaller model guesses ahead, unless --draft says how many
ESCAPES = {"\\n": "\n", "\\t": "\t", "\\r": "\r", "\\\\": "\\"}
# A terminal obeys control characters, and a model that writes bytes may write any: they are shown as their pictures.
CONTROL_PICTURES = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    0x7F: 0x2421,
}


class Truncate(StrEnum):
    LEFT = "left"


def generate(
    run: Trained,
    prompt: Annotated[str, typer.Option(help="Text to continue. `-` reads it from stdin, as it is.")] = "",
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to write at most, a sample.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy; below 1 is safer, above 1 bolder.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k most probable tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the fewest tokens that have probability p.")] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Draw from tokens at least this fraction as probable as the best.")
    ] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 makes tokens of the text so far rarer.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text. Without it: a random one, printed.")] = None,
    num_samples: Annotated[int, typer.Option(help="Samples to write, as one batch.")] = 1,
    stop: Annotated[
        list[str] | None,
        typer.Option(help=r"Text to stop before; \n, \t, \r and \\ are escapes. Repeatable.", metavar="TEXT"),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is a message, in the form that the model was taught.")
    ] = False,
    truncate: Annotated[
        Truncate | None, typer.Option(help="Use the newest tokens of a prompt that is longer than the context.")
    ] = None,
    logprobs: Annotated[
        int | None, typer.Option(help="With --json: log probabilities of the tokens, and of the n best.", metavar="N")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help='JSON lines, {"prompt": …} each, instead of --prompt.', show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where the answers to --prompts go; resumed where it is.", show_default=False)
    ] = None,
    beams: Annotated[
        int | None,
        typer.Option(help="Search with so many beams; write the --num-samples best.", show_default=False),
    ] = None,
    length_penalty: Annotated[float, typer.Option(help="Of beams: 0 compares sums, 1 means, more favours long.")] = 1.0,
    draft: Annotated[int, typer.Option(min=0, max=64, help="Tokens to guess ahead: the same text, sooner.")] = 0,
    draft_model: Annotated[
        Path | None,
        typer.Option(help="A smaller run of the same tokenizer that guesses ahead.", metavar="RUN", show_default=False),
    ] = None,
    json_schema: Annotated[Path | None, typer.Option(help="A file: write JSON of this schema.", metavar="FILE")] = None,
    regex: Annotated[str | None, typer.Option(help="Write what this expression matches from end to end.")] = None,
    choices: Annotated[str | None, typer.Option(help="Write one of these.", metavar="A,B,…")] = None,
    engine: EngineName = "auto",
    quantize: Quantize = None,
    checkpoint: CheckpointName = "latest",
    as_json: Json = False,
) -> None:
    """Write text with a trained model: the prompt and its continuation go to stdout, messages to stderr.

    One sample is written as it comes; Ctrl-C ends it. Text may be longer than the model's context: when that is
    full, the newest three quarters of it stay. Filters apply in the order repetition penalty, constraint (--choices,
    --regex, --json-schema), temperature, top-k, top-p, min-p.

    --prompts writes many at once: each line of the file may have options of its own beside its `prompt`, such as
    "temperature", "stop", "num_samples" or "seed"; without that, line n has the seed --seed + n - 1 (--seed is 0 then).
    A line that is wrong is told with its number, the others are done, and the exit code is 1.

    \b
    Examples:
      neural generate runs/first --prompt "ROMEO:" --max-new-tokens 200 --temperature 0.8 --top-k 40
      neural generate runs/first --prompt "ROMEO:" --temperature 0 --stop "\\n\\n"
      neural generate runs/first --prompt - --seed 1 --num-samples 3 --json < prompt.txt
      neural generate imported/model.neural --prompt "The capital of France is" --max-new-tokens 8
      neural generate runs/first --prompts prompts.jsonl --output out.jsonl --max-new-tokens 64
      neural generate runs/large --draft-model runs/small --prompt "ROMEO:"
      neural generate runs/first --prompt "Is it? Answer:" --choices " yes, no"
      neural generate imported/model.neural --chat --prompt "What is the capital of France?" --temperature 0
    """
    from neural.cli.batch import write_batch
    from neural.cli.beams import search
    from neural.generation.constraint import constrain
    from neural.generation.executors import choose_drafter, choose_executor
    from neural.generation.generate import Generation
    from neural.generation.options import SamplingOptions
    from neural.training.trained import open_trained

    seeded = seed is not None
    asked = {
        "max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "seed": seed or 0, "num_samples": num_samples,
        "stop": [_unescaped(string) for string in stop or ()], "logprobs": logprobs,
    }  # fmt: skip
    limits = {"choices": choices and choices.split(","), "regex": regex, "json_schema": _schema(json_schema)}
    draft = draft or (DRAFTED if draft_model is not None else 0)
    if prompts is not None or output is not None:
        if prompts is None or output is None or prompt or chat or as_json or beams is not None:
            title = "--prompts and --output go together, without --prompt, --chat, --beams and --json"
            fail("N958", title, hint="neural generate RUN --prompts prompts.jsonl --output out.jsonl")
        found = open_trained(run, checkpoint)
        chosen = choose_executor(found, engine, quantize, note)
        drafter = draft_model and choose_drafter(found, open_trained(draft_model), engine, note)
        asked |= {name: value for name, value in limits.items() if value is not None}
        return write_batch(found, chosen, prompts, output, asked, truncate and truncate.value, draft, drafter)
    if logprobs is not None and not as_json:
        fail("N959", "--logprobs needs --json, or --prompts: a text has no place for them", hint="add --json")
    if beams is not None:
        drawing = {"--temperature": temperature != 1.0, "--top-k": top_k, "--top-p": top_p, "--min-p": min_p}
        drawing |= {"--repetition-penalty": repetition_penalty != 1.0, "--seed": seeded, "--stop": stop}
        drawing |= {"--truncate": truncate, "--draft": draft, "--logprobs": logprobs is not None}
        _refuse_with_beams({**drawing, **_options(limits)})
    seed = seed if seeded else secrets.randbelow(2**32)
    options = SamplingOptions(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    text = _prompt_text(prompt)
    found = open_trained(run, checkpoint)
    chosen = choose_executor(found, engine, quantize, note)
    drafter = draft_model and choose_drafter(found, open_trained(draft_model), engine, note)
    start, ends = _prompted(found, text) if chat else (text, ())
    if beams is not None:
        best = search(found, chosen, text, start, ends, asked, beams, length_penalty)
        return _emit(json.dumps(best) + "\n" if as_json else titled(text, best["samples"]))
    generation = Generation(
        chosen.open, found.tokenizer, start, options, context=found.program.context,
        max_new_tokens=max_new_tokens, num_samples=num_samples, stop=asked["stop"], ends=ends,
        truncate=truncate and truncate.value, logprobs=logprobs, draft_tokens=draft,
        constraint=constrain(found.tokenizer, **limits), open_drafter=drafter,
    )  # fmt: skip
    said = [] if seeded or temperature == 0 else [f"seed {seed}"]
    try:
        _write(generation, "" if chat and not as_json else text, seed, said, as_json, chosen.name)
    except BrokenPipeError:  # said here, since Click would make it exit code 1: whoever read this has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered goes nowhere at exit


def _schema(path: Path | None) -> str | None:
    try:
        return path and path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        fail("N982", f"{path} is not UTF-8 text: byte {error.start} is not", hint="write the schema as JSON in UTF-8")


def _options(given: dict[str, object]) -> dict[str, object]:
    """Fields as they are written on the command line."""
    return {f"--{name.replace('_', '-')}": value for name, value in given.items()}


def _unescaped(stop: str) -> str:
    return re.sub(r"\\[ntr\\]", lambda escape: ESCAPES[escape.group()], stop)


def _prompt_text(prompt: str) -> str:
    data = sys.stdin.buffer.read() if prompt == "-" else os.fsencode(prompt)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        fail(
            "N916",
            f"the prompt is not UTF-8 text: its byte {error.start} is 0x{data[error.start]:02x}",
            hint="convert it first: iconv -f latin1 -t utf-8 prompt.txt | neural generate RUN --prompt -",
        )


def _prompted(found: trained.Trained, message: str) -> tuple[list[int], tuple[int, ...]]:
    """What the model is to continue after a message, and the ids that end its answer."""
    from neural.generation.chat import converse
    from neural.interop.decoder import Vocabulary

    return converse(found.tokenizer, found.vocabulary or Vocabulary(""), message)


def _refuse_with_beams(given: dict[str, object]) -> None:
    """NeuralError N965 for options that a search has no use for."""
    useless = [option for option, value in given.items() if value]
    if useless:
        title = f"{' and '.join(useless)} {'has' if len(useless) == 1 else 'have'} no part in a search with --beams"
        fail("N965", title, hint="leave it out, or leave out --beams")


def _write(generation: Generation, prompt: str, seed: int, said: list[str], as_json: bool, engine: str) -> None:
    """Run the generation and print it, after the notes in `said`. Ctrl-C ends it after the token that it is at."""
    sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character shows another, and the text goes on
    streamed = not as_json and len(generation.samples) == 1
    stopped_by = _run(generation, prompt if streamed else None, said)
    speed = generation.n_tokens / (time.perf_counter() - generation.began)
    if as_json:
        print(_json(generation, prompt, seed, speed, engine), flush=True)
    elif not streamed:
        _emit(titled(prompt, [sample.to_json() for sample in generation.samples]))
    note(f"{generation.n_tokens} tokens, {speed:.1f} tokens/s, engine {engine}")
    if stopped_by is not None:
        raise typer.Exit(128 + stopped_by)


def _run(generation: Generation, streamed: str | None, said: list[str]) -> signal.Signals | None:
    """Generate to the end, or to a signal, which it gives; print the text on the way if there is a prompt to stream."""
    from neural.training.signals import StopRequest

    with StopRequest() as stop:
        for line in said:
            note(line)
        end = ""
        try:
            for pieces in generation:
                if streamed is not None:
                    _emit(streamed + pieces[0])
                    streamed, end = "", "\n"
                if stop.signal is not None:
                    break
        finally:
            _emit(end)
    return stop.signal


def titled(prompt: str, samples: list[dict[str, Any]]) -> str:
    """Several samples, one under the other."""
    return "".join(f"--- sample {i} of {len(samples)}\n{prompt}{s['text']}\n" for i, s in enumerate(samples, 1))


def _json(generation: Generation, prompt: str, seed: int, speed: float, engine: str) -> str:
    samples = [sample.to_json() for sample in generation.samples]
    how = {"seed": seed, "tokens_per_second": speed, "engine": engine}
    return json.dumps({"prompt": prompt, "samples": samples, **how})


def _emit(text: str) -> None:
    print(text.translate(CONTROL_PICTURES) if sys.stdout.isatty() else text, end="", flush=True)
