"""`neural tokenizer`: learn a tokenizer, look at one, try it out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from neural.data.tokenizers import Tokenizer

app = typer.Typer(
    name="tokenizer",
    help="Learn a tokenizer from text, look at one, try it out.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Spec = Annotated[
    str, typer.Option("--tokenizer", "-t", help='"gpt2", "byte", or the path of a tokenizer.json or its folder.')
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]


@app.command()
def train(
    corpus: Annotated[str, typer.Argument(help="A text file, a folder, a pattern, JSON lines, or shakespeare.")],
    vocab_size: Annotated[int, typer.Option(help="Tokens to learn, the 256 bytes and end of text among them.")] = 4096,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it.")] = Path("tokenizer.json"),
    text_field: Annotated[str, typer.Option(help="The field that holds the text, in JSON lines.")] = "text",
    as_json: AsJson = False,
) -> None:
    """Learn a byte-level BPE, GPT-2's kind, from text. The same text gives the same tokenizer.

    \b
    Examples:
      neural tokenizer train corpus.txt --vocab-size 4096 --output tok.json
      neural tokenizer train "texts/*.txt" --vocab-size 32000
    """
    from neural.data.corpus import open_corpus
    from neural.data.durable import check_place
    from neural.data.tokenizers import train_bpe

    check_place(output)
    tokenizer = train_bpe(open_corpus(corpus, text_field=text_field), vocab_size, progress=True)
    tokenizer.save(output)
    if tokenizer.vocab_size < vocab_size:
        print(f"the text has no more pairs that occur twice: {tokenizer.vocab_size:,} tokens", file=sys.stderr)
    if as_json:
        print(json.dumps({"output": str(output), **_facts(tokenizer)}))
    else:
        print(f"{output}: {tokenizer.vocab_size:,} tokens, hash {tokenizer.hash[:16]}")


@app.command()
def encode(
    text: Annotated[str, typer.Argument(help="The text. `-` reads it from stdin, as it is.")],
    tokenizer: Spec = "gpt2",
    as_json: AsJson = False,
) -> None:
    """Print the ids of a text, and on stderr the piece that each stands for.

    \b
    Examples:
      neural tokenizer encode "Neural DSL makes language models easy!"
      neural tokenizer encode - --tokenizer tok.json < chapter.txt
    """
    from neural.data.tokenizers import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    ids = loaded.encode(_stdin() if text == "-" else text)
    pieces = [loaded.piece(i) for i in ids]
    if as_json:
        print(json.dumps({"ids": ids, "pieces": pieces}))
    else:
        print(*ids)
        print(f"{len(ids):,} tokens:", *(repr(piece) for piece in pieces), file=sys.stderr)


@app.command()
def decode(
    ids: Annotated[list[int] | None, typer.Argument(help="The ids. None: from stdin.", show_default=False)] = None,
    tokenizer: Spec = "gpt2",
) -> None:
    """Print the text of ids. Special tokens stand for none.

    \b
    Examples:
      neural tokenizer decode 8199 1523 32643 1838 3303 4981 2562 0
      neural tokenizer encode - < a.txt | neural tokenizer decode
    """
    from neural.data.tokenizers import load_tokenizer
    from neural.diagnostics.diagnostic import fail

    if not ids:
        words = _stdin().split()
        wrong = next((word for word in words if not (word.isascii() and word.isdigit() and len(word) < 10)), None)
        if wrong is not None:
            fail("N758", f"{wrong[:40]!r} is not a token id", hint="give whole numbers with spaces between them")
        ids = [int(word) for word in words]
    print(load_tokenizer(tokenizer).decode(ids))


@app.command()
def show(
    tokenizer: Annotated[str, typer.Argument(help='"gpt2", "byte", or the path of a tokenizer.json or its folder.')],
    as_json: AsJson = False,
) -> None:
    """Say what a tokenizer is: its kind, its size, its hash, and where it came from.

    \b
    Examples:
      neural tokenizer show gpt2
      neural tokenizer show tok.json --json
    """
    from neural.data.tokenizers import load_tokenizer

    facts = _facts(load_tokenizer(tokenizer))
    if as_json:
        print(json.dumps(facts))
    else:
        for name, value in facts.items():
            print(f"{name.replace('_', ' '):12} {'none' if value is None else value}")


def _facts(tokenizer: Tokenizer) -> dict[str, str | int | None]:
    return {
        "kind": str(tokenizer.kind),
        "vocab_size": tokenizer.vocab_size,
        "eot_id": tokenizer.eot_id,
        "hash": tokenizer.hash,
        "source": tokenizer.source,
    }


def _stdin() -> str:
    from neural.diagnostics.diagnostic import fail

    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        fail("N704", f"stdin is not UTF-8: byte {data[error.start]:02x} at offset {error.start:,}")
