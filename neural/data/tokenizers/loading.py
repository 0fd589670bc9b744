"""The tokenizer that a program, a command or a run names."""

from __future__ import annotations

from pathlib import Path

from neural.data.corpus import Corpus
from neural.data.tokenizers import layout
from neural.data.tokenizers.files import read_tokenizer
from neural.data.tokenizers.gpt2 import load_gpt2
from neural.data.tokenizers.tokenizer import Tokenizer
from neural.diagnostics.diagnostic import fail
from neural.diagnostics.near import nearest

NAMES = ("gpt2", "char", "byte")


def load_tokenizer(spec: str, *, corpus: Corpus | None = None, base: Path | str = Path()) -> Tokenizer:
    """The tokenizer that `spec` names.

    "gpt2": GPT-2's. "byte": 256 bytes and end of text. "char": the characters of `corpus`, which is read once; end of
    text is among them only if the corpus has several documents, so that the ids of a single text are nanoGPT's. Else
    the path, below `base`, of a tokenizer.json, or of a folder with one or with vocab.json and merges.txt.
    NeuralError: N750 (an unknown name), N751 to N753 (files), N754 and N761 (GPT-2), N755 ("char" without a corpus),
    N762 (the library is missing), and those of the corpus.
    """
    if spec == "gpt2":
        return load_gpt2(Path(base))
    if spec == "byte":
        return Tokenizer(layout.raw_bytes(), "the 256 bytes")
    if spec == "char":
        if corpus is None:
            fail(
                "N755",
                'the tokenizer "char" is learned from a text, and none is given',
                hint="name the text, or the tokenizer.json that was saved when it was learned",
            )
        return characters_of(corpus)
    path = Path(base) / Path(spec).expanduser()
    if not path.exists() and Path(spec).name == spec and not Path(spec).suffix:
        near = nearest(spec, NAMES)
        fail(
            "N750",
            f'unknown tokenizer "{spec}"',
            notes=(f"known names: {', '.join(NAMES)}; anything else is a path, and there is no {path}",),
            hint=f'did you mean "{near}"?' if near else "give a name, or the path of a tokenizer.json",
        )
    found, file = read_tokenizer(path)
    return Tokenizer(found, str(file))


def characters_of(corpus: Corpus) -> Tokenizer:
    """A token for each character of the corpus; end of text too if it has several documents."""
    alphabet: set[str] = set()
    documents = 0
    for piece in corpus.pieces(size=None):
        alphabet.update(piece.text)
        documents += piece.first
    return Tokenizer(layout.characters(alphabet, eot=documents > 1), f"the characters of {corpus.spec}")
