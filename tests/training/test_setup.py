from __future__ import annotations

from pathlib import Path

import pytest

from neural.data.corpus import Corpus, open_corpus
from neural.data.shards import write_shards
from neural.data.tokenizers import load_tokenizer
from neural.diagnostics.diagnostic import NeuralError
from neural.training.run import Run
from neural.training.setup import set_up
from tests.training.conftest import TINY

SOURCE = TINY.read_text()
WITHOUT_TOKENIZER = SOURCE.replace('  tokenizer: "char"\n', "")
WITHOUT_PARAM = SOURCE.replace("param vocab_size = 40  # the tokenizer's size takes its place\n", "").replace(
    "$vocab_size", "40"
)
CLASSIFIER = """
network Classifier {
  input: (8,)
  layers:
    Embedding(input_dim=40, output_dim=4)
    GlobalAveragePooling1D()
    Dense(units=3)
  loss: "sparse_categorical_crossentropy"
  train { steps: 3 }
}
"""


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "program.neural"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "sets", "vocabulary", "note"),
    [
        (SOURCE, {}, 29, "vocab_size is 29, the size of the tokenizer learned from the data; the file has 40"),
        (SOURCE, {"vocab_size": 29}, 29, None),
        (SOURCE, {"vocab_size": 64}, 64, "the tokenizer has 29 tokens and the model 64: 35 stay unused"),
        (SOURCE.replace("vocab_size = 40", "vocab_size = 29"), {}, 29, None),
        (WITHOUT_PARAM, {}, 40, "the tokenizer has 29 tokens and the model 40: 11 stay unused"),
    ],
)
def test_the_vocabulary_follows_the_text(written, corpus: Path, text, sets, vocabulary, note) -> None:
    setup = set_up(written(text), sets=sets, data=str(corpus))
    assert setup.program.vocab_size == vocabulary and setup.tokenizer.vocab_size == 29
    assert setup.notes == ((note,) if note else ())


@pytest.mark.parametrize(("size", "kind"), [(256, "bytes"), (257, "bytes"), (50257, "byte-level BPE")])
def test_a_vocabularys_size_names_the_tokenizer(written, corpus: Path, size: int, kind: str) -> None:
    if size == 256:
        with pytest.raises(NeuralError, match="N803: the tokenizer has 257 tokens, and Tiny knows 256"):
            set_up(written(WITHOUT_TOKENIZER), sets={"vocab_size": size}, data=str(corpus))
        return
    setup = set_up(written(WITHOUT_TOKENIZER), sets={"vocab_size": size}, data=str(corpus))
    assert setup.tokenizer.vocab_size == size


@pytest.mark.parametrize(
    ("text", "sets", "data", "tokenizer", "expected"),
    [
        (CLASSIFIER, {}, True, None, "N800: Classifier is not a language model"),
        (SOURCE.replace("    steps: $steps\n", "").replace("param steps = 40\n", ""), {}, True, None, "N801"),
        (SOURCE, {"vocab_size": 12}, True, None, "N803: the tokenizer has 29 tokens, and Tiny knows 12"),
        (SOURCE, {}, True, "byte", "N803: the tokenizer has 257 tokens, and Tiny knows 40"),
        (WITHOUT_TOKENIZER, {}, True, None, "N804: .* a vocabulary of 40 does not say which"),
        (SOURCE, {}, False, None, "N805: .* names no data, and none was given"),
    ],
)
def test_what_cannot_be_trained(written, corpus: Path, text, sets, data, tokenizer, expected: str) -> None:
    with pytest.raises(NeuralError, match=expected):
        set_up(written(text), sets=sets, data=str(corpus) if data else None, tokenizer=tokenizer)


def test_names_in_the_file_are_relative_to_it(written, corpus: Path) -> None:
    file = written(SOURCE.replace('tokenizer: "char"', 'tokenizer: "char"\n  data: "words.txt"'))
    file.with_name("words.txt").write_text(corpus.read_text())
    setup = set_up(file, sets={})
    assert isinstance(setup.data, Corpus) and setup.data.files == (file.with_name("words.txt"),)


@pytest.mark.parametrize("text", [SOURCE, WITHOUT_TOKENIZER])
def test_shards_bring_their_tokenizer(written, corpus: Path, tmp_path: Path, text: str) -> None:
    made_of = open_corpus(str(corpus))
    write_shards(made_of, load_tokenizer("char", corpus=made_of), tmp_path / "shards", progress=False)
    setup = set_up(written(text), sets={}, data=str(tmp_path / "shards"))
    assert setup.data == tmp_path / "shards" and setup.program.vocab_size == setup.tokenizer.vocab_size == 29


def test_shards_of_another_tokenizer(written, corpus: Path, tmp_path: Path) -> None:
    made_of = open_corpus(str(corpus))
    write_shards(made_of, load_tokenizer("char", corpus=made_of), tmp_path / "shards", progress=False)
    setup = set_up(written(SOURCE), sets={"vocab_size": 257}, data=str(tmp_path / "shards"), tokenizer="byte")
    with pytest.raises(NeuralError, match=r"N853: the shards in .* were made with another tokenizer"):
        Run.create(tmp_path / "run", setup.program, setup.tokenizer, setup.data)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "sets", "expected"),
    [
        (SOURCE, {}, "N853: the tokenizer is to be characters, and the shards in .* were made with another"),
        (WITHOUT_TOKENIZER, {}, "N803: the tokenizer has 257 tokens, and Tiny knows 40"),
        (WITHOUT_TOKENIZER, {"vocab_size": 512}, None),
    ],
)
def test_shards_of_a_tokenizer_that_no_text_taught_leave_the_vocabulary_alone(
    written, corpus: Path, tmp_path: Path, text: str, sets: dict, expected: str | None
) -> None:
    write_shards(open_corpus(str(corpus)), load_tokenizer("byte"), tmp_path / "shards", progress=False)
    if expected is None:
        assert set_up(written(text), sets=sets, data=str(tmp_path / "shards")).program.vocab_size == 512
        return
    with pytest.raises(NeuralError, match=expected):
        set_up(written(text), sets=sets, data=str(tmp_path / "shards"))
