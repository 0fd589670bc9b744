"""From what a user names to a quantised run: where a model comes from, the text for it, and the folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from neural.data.durable import fresh_folder
from neural.data.tokenizers import load_tokenizer
from neural.diagnostics.diagnostic import fail
from neural.generation.quantize import Quantized
from neural.generation.windows import Windows, choose
from neural.interop.huggingface.tokenizer import FILE, write_vocabulary
from neural.quantization.matrix import GROUP
from neural.training.durable import write_json, write_text
from neural.training.quantized import ERRORS, QuantizationRecord, write_quantized
from neural.training.run import FORMAT, Run, RunRecord
from neural.training.trained import Trained, open_trained


@dataclass(frozen=True, slots=True)
class Origin:
    """What is quantised. run, step: None of a program with weights."""

    path: Path
    trained: Trained
    run: Run | None
    step: int | None


def open_origin(path: Path, checkpoint: str) -> Origin:
    """NeuralError N999 for a run that is quantised already, and those of `open_trained`."""
    if path.is_file():
        return Origin(path, open_trained(path), None, None)
    run = Run.open(path)
    if run.record.quantization is not None:
        made = run.record.quantization
        fail(
            "N999",
            f"{path} is quantised already, to {made.to}",
            hint=f"quantise what it was made from: {made.source}",
        )
    step = run.open_checkpoint(checkpoint).state.step
    return Origin(path, open_trained(path, checkpoint), run, step)


def choose_texts(origin: Origin, calibrate: str | None, data: str | None) -> tuple[Windows | None, Windows]:
    """See `neural.generation.windows.choose`."""
    trained = origin.trained
    return choose(origin.run, trained.tokenizer, trained.program.context, calibrate, data)


def write(
    path: Path, origin: Origin, to: str, made: Quantized, calibration: Windows | None, measured: Windows, budget: float
) -> None:
    """The run directory, whole or not at all. OSError as the system gives it."""
    record = QuantizationRecord(
        source=str(origin.path.absolute()),
        step=origin.step,
        weights_sha256=made.weights_sha256,
        to=to,
        group=GROUP if to == "int4" else None,
        method=made.method,
        calibration=calibration and calibration.record,
        measured_on=measured.record,
        perplexity_before=made.before,
        perplexity=made.after,
        budget=budget,
        size_before=made.size_before,
        size=made.size,
    )
    program, vocabulary = origin.trained.program, origin.trained.vocabulary
    with fresh_folder(path) as folder:
        write_quantized(folder, made.tensors())
        write_json(folder / ERRORS, [asdict(error) for error in made.errors])
        write_text(folder / "program.neural", program.text(weights=False))
        write_text(folder / "model.py", program.source("pytorch"))
        if vocabulary is None:
            origin.trained.tokenizer.save(folder / FILE)
        else:
            write_vocabulary(vocabulary, folder, program.context)
        tokenizer = load_tokenizer(str((folder / FILE).absolute()))
        run = RunRecord(
            format=FORMAT,
            neural=version("neural-dsl"),
            torch=str(torch.__version__),
            network=program.name,
            parameters=program.parameters,
            parameter_count=program.parameter_count,
            seed=origin.run.record.seed if origin.run else program.settings.train.seed,
            steps=origin.step or 0,
            tokenizer_hash=tokenizer.hash,
            vocab_size=tokenizer.vocab_size,
            data=None,
            state="quantized",
            quantization=record,
        )
        write_json(folder / "run.json", asdict(run))
