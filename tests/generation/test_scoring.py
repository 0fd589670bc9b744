"""`neural eval` against one whole pass over each window, in float64, and against the trainer's own evaluation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from neural.data.corpus import open_corpus
from neural.data.tokenizers import Tokenizer, load_tokenizer
from neural.diagnostics.diagnostic import NeuralError
from neural.generation import scoring
from neural.generation.scoring import Report, score
from neural.generation.torch_executor import TorchExecutor
from neural.training.distributed.parallel import Parallel
from neural.training.evaluate import evaluate
from tests.forked.command import neural
from tests.generation.test_cli import run  # noqa: F401

TEXT = "".join(chr(97 + (i * i) % 26) for i in range(500))


def scored(model: nn.Module, context: int, tokenizer: Tokenizer, documents: list[str]) -> Report:
    return score(TorchExecutor(model, context=context, vocab_size=tokenizer.vocab_size), tokenizer, documents)


def reference(model: nn.Module, ids: list[int], context: int) -> list[float]:
    """Each token from the window in which it is to be predicted, a pass of the model for each."""
    first, known, nats = 0, 1, []
    for place in range(1, len(ids)):
        if place - first > context:
            first = place - 1 - context // 2
        with torch.no_grad():
            logits = model(torch.tensor([ids[first:place]]))[0, -1].double()
        nats.append(-logits.log_softmax(-1)[ids[place]].item())
        known += 1
    return nats


@pytest.mark.parametrize("length", [0, 1, 47, 48, 49, 72, 73, 200])
@pytest.mark.parametrize("chunk", [256, 7])
def test_each_token_is_predicted_once_from_its_window(
    model: nn.Module, context: int, length: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    tokenizer = load_tokenizer("byte")
    report = scored(model, context, tokenizer, [TEXT[:length], "x"])
    expected = reference(model, [tokenizer.eot_id, *tokenizer.encode(TEXT[:length])], context)
    assert report.documents[0].tokens == length
    assert report.documents[0].nats == pytest.approx(math.fsum(expected), rel=1e-5)


def test_the_parts_sum_to_the_whole(model: nn.Module, context: int) -> None:
    documents = [TEXT[:n] for n in (1, 3, 4, 15, 16, 63, 64, 300)]
    report = scored(model, context, load_tokenizer("byte"), documents)
    for parts in (report.documents, report.by_length.values(), report.by_position.values()):
        assert sum(part.tokens for part in parts) == report.whole.tokens == 466
        assert sum(part.bytes for part in parts) == report.whole.bytes == 466
        assert math.fsum(part.nats for part in parts) == pytest.approx(report.whole.nats, rel=1e-9)
    assert list(report.by_length) == [1, 4, 16, 64, 256]
    assert sorted(report.by_position) == [1, 4, 16]
    assert report.whole.bits_per_byte == pytest.approx(report.whole.loss / math.log(2))


def test_one_window_is_what_the_trainer_measures(model: nn.Module, context: int) -> None:
    tokenizer = load_tokenizer("byte")
    report = scored(model, context, tokenizer, [TEXT[:context]])
    ids = torch.tensor([[tokenizer.eot_id, *tokenizer.encode(TEXT[:context])]])
    expected = evaluate(Parallel(model), [(ids[:, :-1], ids[:, 1:])], np.array(tokenizer.byte_lengths))
    assert report.whole.loss == pytest.approx(expected.loss, rel=1e-5)
    assert report.whole.bits_per_byte == pytest.approx(expected.bits_per_byte, rel=1e-5)


def test_without_an_end_of_text_the_first_token_is_not_counted(model: nn.Module, context: int, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("to be or not")
    characters = load_tokenizer("char", corpus=open_corpus(str(tmp_path / "corpus.txt")))
    assert scored(model, context, characters, ["to be"]).whole.tokens == 4
    with pytest.raises(NeuralError, match="N963"):
        scored(model, context, characters, ["t", ""])


def test_the_command(run: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "text.jsonl").write_text('{"text": "to be, or not to be"}\n{"text": "that is the question"}\n')
    command = ("eval", run, "--data", "text.jsonl")
    shown = neural(*command, cwd=tmp_path, check=True).stdout
    told = json.loads(neural(*command, "--json", cwd=tmp_path, check=True).stdout)
    assert told["tokens"] == told["bytes"] == 39
    assert [document["tokens"] for document in told["documents"]] == [19, 20]
    assert told["loss"] < math.log(257) - 1  # it has learned something of this text
    assert told["perplexity"] == pytest.approx(math.exp(told["loss"]))
    assert f"loss {told['loss']:.4f}, perplexity {told['perplexity']:.2f}" in shown
    assert "document 2" in shown


@pytest.mark.parametrize(("code", "data"), [("N701", "none.txt"), ("N702", "empty.txt"), ("N703", "binary.txt")])
def test_mistakes(run: Path, tmp_path: Path, code: str, data: str) -> None:  # noqa: F811
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    ended = neural("eval", run, "--data", data, cwd=tmp_path)
    assert ended.returncode == 2
    assert f"error[{code}]" in ended.stderr
