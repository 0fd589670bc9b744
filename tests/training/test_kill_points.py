"""Killed at a chosen place in a step or in a checkpoint, a training goes on to the same bits."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from pkgutil import resolve_name

import pytest

from neural.data.corpus import open_corpus
from neural.data.shards import write_shards
from neural.data.tokenizers import load_tokenizer
from neural.training.loop import train
from neural.training.run import Run
from neural.training.setup import set_up
from tests.forked.context import CONTEXT
from tests.training.conftest import TINY, words
from tests.training.test_loop import assert_same_bits, measured

POINTS = {
    # what is killed at its call of that number: of these small runs, 14 batches are an epoch and 2 a step
    "middle of an epoch": ("neural.training.session.optimizer_step", 11),
    "where epochs meet": ("neural.training.session.optimizer_step", 15),
    "middle of an accumulation": ("neural.training.distributed.parallel.Parallel.talking", 24),
    "before a checkpoint": ("neural.training.saver.write", 3),
    "between its files": ("neural.training.checkpoint_writing.write_pieces", 6),
    "before its state": ("neural.training.checkpoint_writing._complete", 3),
    "before its name": ("pathlib.Path.rename", 3),
    "before its mark": ("neural.training.checkpoint_writing.sync", 3),
    "before the old ones go": ("neural.training.checkpoint_manager.CheckpointManager.prune", 3),
    "among the old ones": ("neural.training.checkpoint_manager.remove_tree", 2),
}
SIZES = {"steps": 24, "save_every": 4, "eval_every": 8, "log_every": 1, "batch_size": 4}


def die(point: str, number: int, run: Path) -> None:
    """Train until the `number`th call of the function at `point`, and end there as `kill -9` would."""
    where, _, name = point.rpartition(".")
    owner, calls = resolve_name(where), 0
    function = getattr(owner, name)

    def dies(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)

    setattr(owner, name, dies)
    train(Run.open(run))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """620 tokens in shards of 100: sequences reach from one into the next."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "words.txt").write_text(words(120))
    corpus = open_corpus(folder / "words.txt")
    write_shards(corpus, load_tokenizer("char", corpus=corpus), folder / "shards", progress=False, shard_tokens=100)
    return folder / "shards"


@pytest.fixture(scope="module")
def straight(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make(tmp_path_factory.mktemp("straight") / "run", shards)
    train(run)
    return run


def make(path: Path, shards: Path) -> Run:
    setup = set_up(TINY, sets=SIZES, data=str(shards), tokenizer=str(shards))
    return Run.create(path, setup.program, setup.tokenizer, setup.data)


@pytest.mark.parametrize(("point", "number"), POINTS.values(), ids=POINTS)
def test_the_bits_are_those_of_a_run_that_was_not_killed(
    shards: Path, straight: Run, tmp_path: Path, point: str, number: int
) -> None:
    run = make(tmp_path / "run", shards)
    process = CONTEXT.Process(target=die, args=(point, number, run.path), daemon=True)
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    reached = run.checkpoints.latest(pytest.fail)  # none is damaged
    assert reached is not None and 4 <= reached.state.step < 24
    train(Run.open(run.path))
    assert_same_bits(run, straight, 24)
    assert measured(run) == measured(straight)
    assert {path.name for path in run.checkpoints.folder.iterdir()} == {
        path.name for path in straight.checkpoints.folder.iterdir()
    }
