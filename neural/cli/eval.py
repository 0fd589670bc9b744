"""`neural eval`: how well a trained model predicts a text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from neural.cli.options import CheckpointName, EngineName, Json, Quantize, Trained
from neural.cli.show import note

if TYPE_CHECKING:
    from neural.generation.scoring import Report, Score

SHOWN_DOCUMENTS = 20


def eval_(
    run: Trained,
    data: Annotated[str, typer.Option(help="A text file, a folder, JSON lines, or a corpus that has a name.")],
    text_field: Annotated[str, typer.Option(help="Of JSON lines: the field that holds the text.")] = "text",
    checkpoint: CheckpointName = "latest",
    engine: EngineName = "auto",
    quantize: Quantize = None,
    as_json: Json = False,
) -> None:
    """Tell how well a model predicts a text: loss, perplexity and bits per byte.

    Each file is a document, each line of JSON lines is one, and a token is predicted from those before it in its
    document. Bits per byte compares models with different tokenizers.

    \b
    Examples:
      neural eval runs/first --data held_out.txt
      neural eval runs/first --data documents.jsonl --json
    """
    from neural.data.corpus import open_corpus
    from neural.data.progress import byte_progress
    from neural.generation.executors import choose_executor
    from neural.generation.request import Limits
    from neural.generation.scoring import score
    from neural.training.trained import open_trained

    corpus = open_corpus(data, text_field=text_field)
    trained = open_trained(run, checkpoint)
    chosen = choose_executor(trained, engine, quantize, note)
    executor = chosen.open(Limits(slots=1))
    note(f"engine {chosen.name}")
    with byte_progress(data, corpus.n_bytes, enabled=True) as advance:
        documents = corpus.documents(advance=advance)
        report = score(executor, trained.tokenizer, documents)
    print(json.dumps(report.to_json()) if as_json else _table(report))


def _table(report: Report) -> str:
    whole = report.whole
    bits = "" if whole.bits_per_byte is None else f", {whole.bits_per_byte:.4f} bits per byte"
    lines = [f"loss {whole.loss:.4f}, perplexity {whole.perplexity:.2f}{bits}, over {whole.tokens:,} tokens", ""]
    lines.append(f"{'':24}{'tokens':>12}{'loss':>10}{'perplexity':>12}{'bits/byte':>11}")
    shown = report.documents[:SHOWN_DOCUMENTS]
    lines += [_row(f"document {i}", s) for i, s in enumerate(shown, 1)]
    if len(report.documents) > len(shown):
        lines.append(f"… and {len(report.documents) - len(shown):,} more; --json tells of all")
    lines += [_row(f"documents of {_range(low)}", s) for low, s in sorted(report.by_length.items())]
    lines += [_row(f"after {_range(low)} tokens", s) for low, s in sorted(report.by_position.items())]
    return "\n".join(lines)


def _range(low: int) -> str:
    return "0" if low == 0 else f"{low}–{4 * low - 1}"


def _row(name: str, score: Score) -> str:
    bits = "–" if score.bits_per_byte is None else f"{score.bits_per_byte:.4f}"
    if not score.tokens:
        return f"{name:24}{0:>12}"
    return f"{name:24}{score.tokens:>12,}{score.loss:>10.4f}{score.perplexity:>12.2f}{bits:>11}"
