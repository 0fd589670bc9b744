from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from neural.data.shards import write_shards
from neural.data.tokenizers import load_tokenizer
from neural.diagnostics.diagnostic import NeuralError
from neural.training.loop import train
from neural.training.run import Run
from tests.training.conftest import words


def refusal(action: Callable[[], object]) -> tuple[str, str]:
    """Code and whole text of the message that stops an action."""
    with pytest.raises(NeuralError) as refused:
        action()
    (diagnostic,) = refused.value.diagnostics
    return diagnostic.code, "\n".join((diagnostic.title, *diagnostic.notes, diagnostic.hint or ""))


def test_it_holds_the_whole_truth(make_run, corpus: Path) -> None:
    run = make_run(d_model=8)
    assert {path.name for path in run.path.iterdir()} == {
        "run.json", "program.neural", "model.py", "tokenizer.json", "data", "checkpoints",
    }  # fmt: skip
    record = json.loads((run.path / "run.json").read_text())
    assert record["network"] == "Tiny" and record["torch"] == str(torch.__version__) and record["seed"] == 7
    assert record["parameters"]["d_model"] == 8 and record["parameters"]["vocab_size"] == 29
    assert record["parameter_count"] == sum(p.numel() for p in run.new_model().parameters())
    assert record["data"]["source"] == str(corpus) and record["data"]["tokens"] == len(corpus.read_text())
    assert (record["steps"], record["state"]) == (40, "created")
    again = Run.open(run.path)
    assert again.record == run.record and again.program.parameter_count == run.program.parameter_count
    assert again.tokenizer.hash == run.record.tokenizer_hash


def test_it_needs_neither_the_program_nor_the_data_that_it_came_from(make_run, tmp_path: Path) -> None:
    file, data = tmp_path / "moved.neural", tmp_path / "moved.txt"
    file.write_text(Path(__file__).with_name("tiny.neural").read_text())
    data.write_text(words(600))
    run = make_run(file=file, data=data, d_model=8)
    file.unlink()
    data.unlink()
    moved = run.path.rename(tmp_path / "elsewhere")
    train(Run.open(moved), stop_at=2)
    assert Run.open(moved).load_model().tokens.weight.shape == (29, 8)


def test_the_model_is_built_from_the_program_and_never_from_model_py(make_run) -> None:
    run = make_run()
    train(run, stop_at=1)
    (run.path / "model.py").write_text("raise SystemExit('executed')")
    before = torch.get_rng_state()
    model = Run.open(run.path).load_model("step-000001")
    assert not model.training and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda path: path.write_text("x"), "is a file"),
        (lambda path: (path.mkdir(), (path / "x").touch()), "is not empty"),
        (lambda path: (path.mkdir(), (path / "run.json").touch()), "is a run already"),
    ],
)
def test_a_path_that_is_taken(make_run, tmp_path: Path, prepare: Callable, said: str) -> None:
    prepare(tmp_path / "taken")
    code, text = refusal(lambda: make_run("taken"))
    assert code == "N851" and said in text
    assert ("--resume" in text) == (said == "is a run already")


def test_an_empty_folder_may_become_a_run(make_run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert Run.open(make_run("empty").path).record.network == "Tiny"


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "is not a folder"),
        (lambda path: path.mkdir(), "is not a run directory"),
    ],
)
def test_what_is_no_run(tmp_path: Path, prepare: Callable, said: str) -> None:
    prepare(tmp_path / "other")
    code, text = refusal(lambda: Run.open(tmp_path / "other"))
    assert code == "N850" and said in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "does not read"),
        ("{}", "KeyError: 'format'"),
        ("[]", "TypeError"),
        ('{"format": 1}', "KeyError: 'data'"),
        ('{"format": 99, "neural": "9.9"}', "use neural 9.9"),
        ('{"format": 1, "data": {}}', "TypeError"),
    ],
)
def test_a_run_json_that_does_not_read(make_run, text: str, said: str) -> None:
    run = make_run()
    (run.path / "run.json").write_text(text)
    code, message = refusal(lambda: Run.open(run.path))
    assert code == "N855" and said in message


def other_tokenizer(run: Run) -> None:
    load_tokenizer("byte").save(run.path / "tokenizer.json")


def other_record(run: Run) -> None:
    """All of run.json, tokenizer.json and checkpoints changed hands, but not the data."""
    other_tokenizer(run)
    file = run.path / "run.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "tokenizer_hash": load_tokenizer("byte").hash, "vocab_size": 257}))


def other_checkpoint(run: Run) -> None:
    """A checkpoint of the same model, trained with another tokenizer, sound in itself."""
    from neural.training.checkpoint import MARK
    from neural.training.tensor_file import FileRecord

    path = run.checkpoints.path(2)
    state = path / "state.json"
    state.write_text(state.read_text().replace(run.record.tokenizer_hash, "f" * 64))
    files = {name: asdict(FileRecord.of(path / name)) for name in json.loads((path / MARK).read_text())["files"]}
    (path / MARK).write_text(json.dumps({"format": 1, "files": files}))


def other_data(run: Run) -> None:
    from shutil import rmtree

    from neural.data.corpus import open_corpus

    text = run.path.with_name("other.txt")
    text.write_text(words(600, seed=1))
    rmtree(run.path / "data")
    write_shards(open_corpus(str(text)), run.tokenizer, run.path / "data", progress=False)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (
            other_tokenizer,
            "N853",
            ("tokenizer.json: 257 tokens", "run.json: 29 tokens", "and for '\\n' then", "as well"),
        ),
        (other_record, "N853", ("has 257 tokens", "of the shards has 29 tokens")),
        (other_checkpoint, "N853", ("step-000002 was trained with another tokenizer", "ffffffffffffffff…")),
        (other_data, "N854", ("then", "now", "fingerprint")),
    ],
)
def test_parts_that_do_not_belong_together(make_run, change: Callable, code: str, said: tuple[str, ...]) -> None:
    run = make_run()
    train(run, stop_at=2)
    change(run)
    found, text = refusal(lambda: train(Run.open(run.path)))
    assert found == code
    assert all(part in text for part in said), text


def test_a_checkpoint_of_another_tokenizer_does_not_generate_either(make_run) -> None:
    run = make_run()
    train(run, stop_at=2)
    other_checkpoint(run)
    assert refusal(lambda: run.load_model("step-000002"))[0] == "N853"


def test_the_checkpoint_of_a_run_with_another_model(make_run) -> None:
    runs = make_run("one"), make_run("two", d_model=8)
    for run in runs:
        train(run, stop_at=2)
    one, two = (run.checkpoints.path(2) for run in runs)
    two.rename(two.with_name("step-000003"))
    one.rename(two)
    code, text = refusal(lambda: runs[1].load_model("step-000002"))
    assert code == "N858" and "`tokens.weight` has the shape (29, 16) there and (29, 8) in the model" in text


def test_shards_are_used_where_they_are(make_run, corpus: Path, tmp_path: Path) -> None:
    from neural.data.corpus import open_corpus

    text = open_corpus(str(corpus))
    write_shards(text, load_tokenizer("char", corpus=text), tmp_path / "shards", progress=False)
    run = make_run(data=tmp_path / "shards")
    assert not (run.path / "data").exists()
    assert train(run, stop_at=1).step == 1
    (tmp_path / "shards" / "00000.tokens").write_bytes(b"")
    assert refusal(lambda: train(Run.open(run.path)))[0].startswith("N72")
