from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from neural.training import loop
from neural.training.run import Run
from neural.training.setup import set_up

TINY = Path(__file__).with_name("tiny.neural")
TEXT = "the quick brown fox jumps over a lazy dog and sings of liquor, jugs and zephyrs while we box"


def words(count: int, seed: int = 0) -> str:
    """Text that a model can learn something of: words in a random order."""
    rng = random.Random(seed)
    return " ".join(rng.choice(TEXT.split()) for _ in range(count)) + "\n"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Models this small lose more by sharing the work than they win."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "words.txt"
    path.write_text(words(600))
    return path


@pytest.fixture
def pictures() -> None:
    """Asked for, the pictures of a run are drawn."""


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than most of these trainings, and are all alike."""
    if "pictures" not in request.fixturenames:
        for name in ("draw_schedule", "draw_losses"):
            monkeypatch.setattr(loop, name, lambda *_: None)


RunMaker = Callable[..., Run]


@pytest.fixture
def make_run(tmp_path: Path, corpus: Path) -> RunMaker:
    def make(
        name: str = "run",
        *,
        file: Path = TINY,
        data: Path = corpus,
        tokenizer: str | None = None,
        execution: dict[str, object] | None = None,
        **sets,
    ) -> Run:
        setup = set_up(file, sets=sets, data=str(data), tokenizer=tokenizer)
        program = setup.program.executed(**execution or {})
        return Run.create(tmp_path / name, program, setup.tokenizer, setup.data)

    return make
