"""What the tests of data share."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from neural.data.corpus import open_corpus
from neural.data.tokenizers import Tokenizer, load_tokenizer, train_bpe
from neural.diagnostics.diagnostic import NeuralError

ROOT = Path(__file__).parents[2]
TINY_SHAKESPEARE = ROOT.parent / "shared" / "data" / "tinyshakespeare.txt"

FRENCH = "Où est l'été ?  Là-bas…\n\n\tÇa « marche » 😀\r\n"

Refused = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def refused() -> Refused:
    """`with refused("N701", "corpus.txt"):` the block raises one message of that code, with these words in it."""

    @contextmanager
    def expect(code: str, *words: str) -> Iterator[None]:
        with pytest.raises(NeuralError) as raised:
            yield
        (message,) = raised.value.diagnostics
        assert message.code == code, message
        said = "\n".join([message.title, *message.notes, message.hint or ""])
        for word in words:
            assert word in said
        assert not message.title.endswith(".") and "\n" not in message.title
        assert (ROOT / "neural" / "diagnostics" / "pages" / f"{code}.md").is_file()

    return expect


@pytest.fixture(scope="session")
def tiny_shakespeare() -> str:
    if not TINY_SHAKESPEARE.exists():
        pytest.skip(f"{TINY_SHAKESPEARE} is not beside this checkout")
    return TINY_SHAKESPEARE.read_text()


@pytest.fixture(scope="session")
def gpt2() -> Tokenizer:
    return load_tokenizer("gpt2")


@pytest.fixture(scope="session")
def byte() -> Tokenizer:
    return load_tokenizer("byte")


@pytest.fixture(scope="session")
def speech() -> str:
    """Some 40 kB of English in which no paragraph is like another."""
    kings = ("Henry", "Richard", "John", "Lear", "Duncan", "Claudius", "Priam")
    doings = ("went to", "spoke of", "saw", "forgot", "loved", "lost")
    things = ("the sea", "a crown", "3 daughters", "his horse", "a dream", "the 2nd battle", "Scotland")
    lines = [
        f"{king} {doing} {thing}{end}"
        for i, king in enumerate(kings)
        for doing in doings
        for thing in things
        for end in (f", and {i} more.", "!\n", "  --so it's said;\n\n", "\n")
    ]
    return " ".join(lines)


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory, speech: str) -> Tokenizer:
    path = tmp_path_factory.mktemp("corpus") / "speech.txt"
    path.write_text(speech)
    return train_bpe(open_corpus(path), 350)


@pytest.fixture(scope="session")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("corpus") / "french.txt"
    path.write_bytes(FRENCH.encode())
    return load_tokenizer("char", corpus=open_corpus(path))


@pytest.fixture(scope="session")
def metaspace() -> Tokenizer:
    """As Llama 2 has them: a mark for the beginning of a text, bytes for what it does not know."""
    from tokenizers import Tokenizer as Engine
    from tokenizers import decoders, models, normalizers

    words = ["<unk>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "▁the", "▁king", "s", "t", "h", "e", "k", "i"]
    vocabulary = {word: i for i, word in enumerate([*words, "n", "g", "th", "ki", "ng", "▁th", "▁ki", "the", "king"])}
    merges = [("t", "h"), ("k", "i"), ("n", "g"), ("▁", "th"), ("▁", "ki"), ("▁th", "e"), ("▁ki", "ng")]
    engine = Engine(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    engine.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    engine.decoder = decoders.Sequence(parts)
    engine.add_special_tokens(["<unk>", "</s>"])
    return Tokenizer(json.loads(engine.to_str()), "a test")


@pytest.fixture(params=["gpt2", "byte", "learned", "characters"])
def any_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in an interpreter of its own."""

    def run(program: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)

    return run


def random_texts(count: int) -> list[str]:
    rng = random.Random(0)
    alphabets = (
        [chr(i) for i in range(128)],
        [chr(i) for i in range(0x20, 0x3000)],
        [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000],
        list(" \n\t\r\u00a0\u3000\x1c'sdtmlrveLS19aé\u0301²字。😀-_"),
        ["the", " king", " is", "n't", " <|endoftext|>", "\n\n", "  ", "1999", " 字", "…"],
    )
    return ["".join(rng.choices(alphabets[i % len(alphabets)], k=rng.randrange(60))) for i in range(count)]
