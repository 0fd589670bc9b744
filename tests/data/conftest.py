"""What the tests of data share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from neural.data.tokenizers import Tokenizer, load_tokenizer
from neural.diagnostics.diagnostic import NeuralError

ROOT = Path(__file__).parents[2]
TINY_SHAKESPEARE = ROOT.parent / "shared" / "data" / "tinyshakespeare.txt"

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


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in an interpreter of its own."""

    def run(program: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)

    return run
