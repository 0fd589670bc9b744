"""From what a user names to what a run is made of: the program, its data and its tokenizer, fitted to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from neural.compiler import Program, load
from neural.data.corpus import Corpus, open_corpus
from neural.data.shards import is_store
from neural.data.tokenizers import Tokenizer, load_tokenizer
from neural.data.tokenizers.layout import Kind
from neural.diagnostics.diagnostic import fail
from neural.training.data import require_fitting_tokenizer, require_trainable

# Vocabulary sizes that say which tokenizer is meant: with and without end of text for bytes.
TOKENIZER_OF_SIZE = {50257: "gpt2", 256: "byte", 257: "byte"}


@dataclass(frozen=True, slots=True)
class Setup:
    """`data`: text, or a folder of token shards. `notes`: lines for the user about what was decided."""

    program: Program
    tokenizer: Tokenizer
    data: Corpus | Path
    notes: tuple[str, ...]


def set_up(
    file: Path,
    *,
    sets: Mapping[str, object],
    network: str | None = None,
    data: str | None = None,
    tokenizer: str | None = None,
) -> Setup:
    """Compile `file`, and find its data and its tokenizer: those given here, else those that the file names.

    Where the tokenizer was learned from the data and the file leaves its `param vocab_size` open (not in `sets`), that
    becomes the tokenizer's size. NeuralError: N800, N801, N803 to N805, and those of the program, data and tokenizer.
    """
    program = load(file, sets, network)
    require_trainable(program)
    found = _open_data(program, data)
    chosen, learned = _tokenizer(program, tokenizer, found)
    notes = []
    size = chosen.vocab_size
    if (
        learned
        and "vocab_size" in program.definitions.params
        and "vocab_size" not in sets
        and size != program.vocab_size
    ):
        before = program.parameters["vocab_size"]
        program = load(file, {**sets, "vocab_size": size}, network)
        notes.append(f"vocab_size is {size}, the size of the tokenizer learned from the data; the file has {before}")
    require_fitting_tokenizer(program, chosen)
    if size < program.vocab_size:
        unused = program.vocab_size - size
        notes.append(f"the tokenizer has {size:,} tokens and the model {program.vocab_size:,}: {unused:,} stay unused")
    return Setup(program, chosen, found, tuple(notes))


def _open_data(program: Program, given: str | None) -> Corpus | Path:
    spec = given or program.settings.data
    if spec is None:
        fail(
            "N805",
            f"{program.path} names no data, and none was given",
            hint='give text or token shards with --data, or write into the network: data: "corpus.txt"',
        )
    base = Path() if given else program.base
    folder = base / Path(spec).expanduser()
    return folder if is_store(folder) else open_corpus(spec, base=base)


def _tokenizer(program: Program, given: str | None, data: Corpus | Path) -> tuple[Tokenizer, bool]:
    """The tokenizer, and whether it was learned from the data."""
    spec = given or program.settings.tokenizer
    if isinstance(data, Path) and spec in (None, "char"):
        return _beside_shards(data, spec)
    if spec is None:
        spec = TOKENIZER_OF_SIZE.get(program.vocab_size)
    if spec is None:
        fail(
            "N804",
            f"{program.path} names no tokenizer, and a vocabulary of {program.vocab_size:,} does not say which",
            notes=("50,257 would mean gpt2, 256 and 257 bytes",),
            hint='give one with --tokenizer, or write into the network: tokenizer: "char" (or "gpt2", "byte", a path)',
        )
    corpus = data if isinstance(data, Corpus) else None
    return load_tokenizer(spec, corpus=corpus, base=Path() if given else program.base), spec == "char"


def _beside_shards(folder: Path, wanted: str | None) -> tuple[Tokenizer, bool]:
    """The tokenizer that made the shards: it lies beside them."""
    tokenizer = load_tokenizer(str(folder.absolute()))
    characters = tokenizer.kind is Kind.CHARACTERS
    if wanted == "char" and not characters:
        fail(
            "N853",
            f"the tokenizer is to be characters, and the shards in {folder} were made with another",
            notes=(f"theirs is {tokenizer!r}",),
            hint=f"use theirs, --tokenizer {folder}, or give the text itself as --data",
        )
    return tokenizer, characters
