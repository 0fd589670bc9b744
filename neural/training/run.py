"""The run directory: one folder that is the whole truth about a training.

run.json            versions, network, parameters, data, tokenizer, seed, state
program.neural      the program, whole, with its parameters as they were set
model.py            the source that it compiles to, for the reader: models are built from program.neural
tokenizer.json
data/               token shards, if the data was text
metrics.jsonl       a JSON object a line
tensorboard/        the same as events
lr_schedule.png, loss.png
report.html         all of it on one page
wandb.json          if Weights & Biases is told
checkpoints/        step-000500, …

A quantised run has other things in it: see neural.training.quantized.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, Self

import torch
from torch import nn

from neural.backends.module import load_module
from neural.compiler import Program, load
from neural.data.corpus import Corpus
from neural.data.durable import check_folder, fresh_folder
from neural.data.shards import TokenStore, open_shards, write_shards
from neural.data.tokenizers import Tokenizer, load_tokenizer
from neural.diagnostics.diagnostic import Diagnostic, fail
from neural.diagnostics.render import render
from neural.interop.tensor_files import TensorFiles
from neural.training.checkpoint import Checkpoint
from neural.training.checkpoint_manager import CheckpointManager, Warn
from neural.training.data import TrainingData, require_fitting_tokenizer, require_trainable, training_data
from neural.training.durable import write_json, write_text
from neural.training.quantized import QuantizationRecord, open_quantized, require_only_weights
from neural.training.weights import load_arrays

FORMAT = 1


@dataclass(frozen=True, slots=True)
class DataRecord:
    """Where a run's tokens come from."""

    source: str  # as the user named it
    shards: str  # folder, relative to the run if the run made it
    fingerprint: str  # TokenStore.fingerprint
    tokens: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """`run.json`."""

    format: int
    neural: str  # versions
    torch: str
    network: str
    parameters: dict[str, Any]  # the program's, by name
    parameter_count: int
    seed: int
    steps: int
    tokenizer_hash: str
    vocab_size: int  # of the tokenizer
    data: DataRecord | None  # None in a quantised run
    state: str  # "created", "training" (after a crash, too), "stopped", "finished", "failed" or "quantized"
    quantization: QuantizationRecord | None = None
    execution: dict[str, Any] | None = None  # how it was last trained; see `neural.training.execution`

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        data, made = value["data"], value.get("quantization")
        records = {
            "data": data and DataRecord(**data),
            "quantization": made and QuantizationRecord.from_json(made),
        }
        return cls(**{**value, **records})


def show_warning(warning: Diagnostic) -> None:
    """Draw a message on stderr."""
    sys.stderr.write(render([warning], color=sys.stderr.isatty()))


class Run:
    """A run directory. Make one with `Run.create`, read one with `Run.open`."""

    def __init__(self, path: Path, record: RunRecord, warn: Warn = show_warning) -> None:
        self.path = path
        self.record = record
        self.warn = warn

    @classmethod
    def create(
        cls,
        path: Path | str,
        program: Program,
        tokenizer: Tokenizer,
        data: Corpus | Path,
        *,
        seed: int | None = None,
        progress: bool = False,
    ) -> Self:
        """Write a new run directory, which appears whole or not at all, and tokenise the text into it.

        `data`: text, or a folder of token shards, which stays where it is. `seed`: by default the program's.
        NeuralError: N800, N801, N803, N851 (the path is taken), N853 (shards of another tokenizer), and those of the
        data. OSError as the system gives it.
        """
        path = Path(path)
        require_free(path)
        require_trainable(program)
        require_fitting_tokenizer(program, tokenizer)
        seed = program.settings.train.seed if seed is None else seed
        with fresh_folder(path) as folder:
            if isinstance(data, Corpus):
                store, shards, source = (
                    write_shards(data, tokenizer, folder / "data", progress=progress),
                    "data",
                    data.spec,
                )
            else:
                store, shards, source = open_shards(data), str(data.absolute()), str(data)
                require_same_tokenizer("the tokenizer", tokenizer, f"the shards in {data}", store)
            record = RunRecord(
                format=FORMAT,
                neural=version("neural-dsl"),
                torch=str(torch.__version__),
                network=program.name,
                parameters=program.parameters,
                parameter_count=program.parameter_count,
                seed=seed,
                steps=training_data(program, store, seed).total_steps,
                tokenizer_hash=tokenizer.hash,
                vocab_size=tokenizer.vocab_size,
                data=DataRecord(source, shards, store.fingerprint, store.n_tokens),
                state="created",
            )
            write_text(folder / "program.neural", program.text())
            write_text(folder / "model.py", program.source("pytorch"))
            tokenizer.save(folder / "tokenizer.json")
            (folder / "checkpoints").mkdir()
            write_json(folder / "run.json", asdict(record))
        return cls(path, record)

    @classmethod
    def open(cls, path: Path | str, warn: Warn = show_warning) -> Self:
        """Read a run directory. NeuralError N850 if it is none, N855 if it does not read. `warn`: told of warnings."""
        path = Path(path)
        file = path / "run.json"
        if not file.is_file():
            what = "is not a run directory: it has no run.json" if path.is_dir() else "is not a folder"
            if not path.exists():
                what = "does not exist"
            fail("N850", f"{path} {what}", hint="give the folder that `neural train --out` wrote")
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
            if value["format"] != FORMAT:
                fail(
                    "N855",
                    f"{file} is of format {value['format']}, and this neural reads format {FORMAT}",
                    hint=f"use neural {value['neural']}, which wrote it",
                )
            return cls(path, RunRecord.from_json(value), warn)
        except (ValueError, KeyError, TypeError) as error:
            fail(
                "N855",
                f"{file} does not read: {type(error).__name__}: {error}",
                hint="the file was changed or damaged; put back the run from a copy, or train again",
            )

    @cached_property
    def program(self) -> Program:
        """Compiled from the run's program.neural."""
        return load(self.path / "program.neural", network=self.record.network)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer.json. NeuralError N853 if it is not the one that the run was made with."""
        tokenizer = load_tokenizer(str((self.path / "tokenizer.json").absolute()))
        if tokenizer.hash != self.record.tokenizer_hash:
            self._refuse_tokenizer(tokenizer)
        return tokenizer

    def _refuse_tokenizer(self, found: Tokenizer) -> NoReturn:
        """N853. The run's own lies beside its shards, too: with it the message says how they differ."""
        notes = [
            f"tokenizer.json: {found.vocab_size:,} tokens, hash {found.hash[:16]}…",
            f"run.json: {self.record.vocab_size:,} tokens, hash {self.record.tokenizer_hash[:16]}…",
        ]
        hint = "put the run's own tokenizer.json back: another gives the ids other meanings"
        beside = self.path / self.record.data.shards / "tokenizer.json" if self.record.data else None
        own = load_tokenizer(str(beside.absolute())) if beside and beside.is_file() else None
        if own and own.hash == self.record.tokenizer_hash:
            hint += f"; it is in {beside} as well"
            if (differs := own.first_difference(found)) is not None:
                notes.append(
                    f"the id {differs} stands for {found.piece(differs)!r}, and for {own.piece(differs)!r} then"
                )
        title = f"the tokenizer of {self.path} is not the one that the run was made with"
        fail("N853", title, notes=tuple(notes), hint=hint)

    @property
    def checkpoints(self) -> CheckpointManager:
        return CheckpointManager(self.path / "checkpoints")

    def new_model(self) -> nn.Module:
        """The model with new weights, drawn from torch's generator."""
        module = load_module(self.program.source("pytorch"), self.program.name)
        return getattr(module, self.program.name)()

    def load_model(self, checkpoint: str = "latest") -> nn.Module:
        """The model with a checkpoint's weights, on the CPU, in evaluation mode.

        `checkpoint`: "latest", "best", or a name such as "step-000100". A damaged latest one is passed over with a
        warning. NeuralError: N853, N856 (damaged), N857 (no such checkpoint), N858 (of another model); of a quantised
        run N991 for a checkpoint by name, and N994 (damaged).
        """
        with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten: leave no trace of drawing them
            model = self.new_model()
        if self.record.quantization is None:
            self.open_checkpoint(checkpoint).load_model(model)
        else:
            load_arrays(model, self.open_weights(checkpoint))
        return model.eval()

    def open_checkpoint(self, name: str = "latest") -> Checkpoint:
        """A checkpoint of this run. NeuralError N853, N856, N857."""
        found = self.checkpoints.open(name, self.warn)
        self.require_own(found)
        return found

    def open_weights(self, checkpoint: str = "latest") -> TensorFiles:
        """The weights by name, each read when it is asked for. NeuralError: those of `load_model`, but for N858."""
        if self.record.quantization is None:
            return self.open_checkpoint(checkpoint).weights()
        require_only_weights(self.path, checkpoint)
        return open_quantized(self.path)

    def require_own(self, checkpoint: Checkpoint) -> None:
        """NeuralError N853 if the checkpoint was trained with another tokenizer than the run's."""
        if checkpoint.state.tokenizer_hash != self.record.tokenizer_hash:
            fail(
                "N853",
                f"{checkpoint.path} was trained with another tokenizer than that of the run",
                notes=(
                    f"the checkpoint's has the hash {checkpoint.state.tokenizer_hash[:16]}…",
                    f"the run's has the hash {self.record.tokenizer_hash[:16]}…",
                ),
                hint="the checkpoint is from another run: take it out of this one's folder",
            )

    @cached_property
    def data(self) -> TrainingData:
        """The run's tokens, checked. NeuralError N853 or N854 if they are not those that the run was made with; N995
        for a quantised run.
        """
        record = self.record.data
        if record is None:
            fail(
                "N995",
                f"{self.path} is quantised: it has no data, and is not trained",
                hint=f"train the run that it was made from: {self.record.quantization.source}",
            )
        store = open_shards(self.path / record.shards)  # an absolute path stays itself
        require_same_tokenizer(
            f"the tokenizer of {self.path}", self.tokenizer, f"the shards in {store.directory}", store
        )
        if store.fingerprint != record.fingerprint:
            fail(
                "N854",
                f"the data in {store.directory} changed since {self.path} was made",
                notes=(
                    f"then {record.tokens:,} tokens, fingerprint {record.fingerprint[:16]}…",
                    f"now {store.n_tokens:,} tokens, fingerprint {store.fingerprint[:16]}…",
                ),
                hint="put the data back, or train a new run on the new data",
            )
        return training_data(self.program, store, self.record.seed)

    def set_state(self, state: str, **changes: Any) -> None:
        """Write run.json with another state, the steps that the program asks for now, and other `changes`."""
        self.record = replace(self.record, state=state, steps=self.data.total_steps, **changes)
        write_json(self.path / "run.json", asdict(self.record))


def require_free(path: Path, option: str = "--out") -> None:
    """NeuralError N851 unless nothing is at `path`, or an empty folder; OSError where the system lets us make none.

    option: what named it.
    """
    above = next((folder for folder in path.absolute().parents if folder.exists()), path)
    if not path.exists() and not above.is_dir():
        fail("N851", f"{above} is a file, so there is no {path} to be made", hint=f"give another folder with {option}")
    check_folder(path.absolute().parent)
    if not path.exists():
        return
    if (path / "run.json").exists():
        fail(
            "N851",
            f"{path} is a run already",
            hint=f"go on with it: neural train --resume {path}; or give another folder with {option}",
        )
    if not path.is_dir() or any(path.iterdir()):
        what = "is not empty" if path.is_dir() else "is a file"
        fail("N851", f"{path} {what}", hint=f"give another folder with {option}, or remove this one")


def require_same_tokenizer(owner: str, tokenizer: Tokenizer, what: str, store: TokenStore) -> None:
    """NeuralError N853 unless the shards were made with the tokenizer."""
    if store.tokenizer_hash != tokenizer.hash:
        fail(
            "N853",
            f"{what} were made with another tokenizer",
            notes=(
                f"{owner} has {tokenizer.vocab_size:,} tokens and the hash {tokenizer.hash[:16]}…",
                f"that of the shards has {store.vocab_size:,} tokens and the hash {store.tokenizer_hash[:16]}…",
            ),
            hint="use the tokenizer.json beside the shards, or give the text itself as --data",
        )
