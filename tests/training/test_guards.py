"""What stops a training, what is skipped, and what is told before it begins."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from neural.data.shard_file import HEADER_BYTES, read_header
from neural.data.shards import open_shards
from neural.diagnostics.diagnostic import NeuralError
from neural.training import compiling
from neural.training.checkpoint import Checkpoint
from neural.training.leakage import leakage_warning
from neural.training.loop import train
from neural.training.metrics import read_metrics
from neural.training.replay import replay_step
from neural.training.run import Run
from neural.training.session import start
from neural.training.spikes import ENOUGH, WINDOW, Spikes
from neural.training.step import StepResult
from tests.training.conftest import TINY, words
from tests.training.test_commands import neural  # noqa: F401


def history(spikes: Spikes, count: int = ENOUGH) -> Spikes:
    """Losses of 2 and 4 in turn: mean 3, deviation 1."""
    for i in range(count):
        assert not spikes.sees(2.0 + 2 * (i % 2), 1.0 + i % 2)
    return spikes


@pytest.mark.parametrize(
    ("loss", "norm", "spike"),
    [(8.9, 1.5, False), (9.1, 1.5, True), (3.0, 4.4, False), (3.0, 4.6, True), (-9, 0, False)],
)
def test_a_spike_is_six_deviations_above_the_mean(loss: float, norm: float, spike: bool) -> None:
    spikes = history(Spikes())
    assert spikes.sees(loss, norm) is spike and spikes.count == spike


def test_nothing_is_a_spike_before_enough_steps_and_a_new_level_is_not_one_for_ever() -> None:
    assert not history(Spikes(), ENOUGH - 1).sees(1e9, 1.0)
    spikes = history(Spikes())
    seen = [spikes.sees(100.0 + i % 2, 1.5) for i in range(WINDOW)]
    assert seen[0] and not any(seen[5:]) and len(spikes.losses) == WINDOW


@pytest.mark.parametrize("skips", [True, False])
def test_spikes_are_counted_and_skipped_where_the_file_asks(make_run, tmp_path: Path, capsys, skips: bool) -> None:
    file = tmp_path / "spikes.neural"
    file.write_text(TINY.read_text().replace("seed: 7", f"seed: 7 skip_spikes: {str(skips).lower()}"))
    run = make_run(file=file, steps=80, save_every=1000, eval_every=1000)
    train(run, stop_at=70)
    device = torch.device("cpu")
    session = start(run, device)
    with torch.no_grad():  # a step as no other: the logits a hundred times as large
        for weight in session.model.parameters():
            weight.mul_(100.0)
    before = {name: p.detach().clone() for name, p in session.model.named_parameters()}
    session.advance()
    result = session.read()[71]
    assert result.spike and result.applied is not skips and session.spikes.count == 1
    moved = [name for name, p in session.model.named_parameters() if not torch.equal(p, before[name])]
    assert (session.step, session.cursor) == (71, 142) and bool(moved) is not skips
    capsys.readouterr()


def test_spikes_survive_a_stop(make_run) -> None:
    whole, parts = make_run("whole", steps=12), make_run("parts", steps=12)
    train(whole)
    train(parts, stop_at=5)
    train(Run.open(parts.path))
    states = [Checkpoint.open(run.checkpoints.path(12)).state.spikes for run in (whole, parts)]
    assert states[0] == states[1] and len(states[0].losses) == 12
    assert {r["spikes"] for r in read_metrics(whole.path / "metrics.jsonl") if r["kind"] == "train"} == {0}


def test_a_checkpoint_from_before_spikes_were_counted_still_reads(make_run) -> None:
    run = make_run(steps=12)
    train(run, stop_at=5)
    path = run.checkpoints.path(5)
    state = json.loads((path / "state.json").read_text())
    del state["spikes"]
    (path / "state.json").write_text(json.dumps(state))
    mark = json.loads((path / "COMPLETE").read_text())
    data = (path / "state.json").read_bytes()
    mark["files"]["state.json"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "COMPLETE").write_text(json.dumps(mark))
    assert train(Run.open(run.path)).state == "finished"


@pytest.fixture
def broken(make_run) -> Run:
    run = make_run(learning_rate=1e30, clip=1.0)
    with pytest.raises(NeuralError, match="N810") as stopped:
        train(run)
    assert stopped.value.diagnostics[0].notes[-1].endswith(f"neural train --replay-step {run.path}")
    return run


def test_the_step_that_stopped_a_run_is_replayed_to_the_bit(broken: Run) -> None:
    said = json.loads((broken.path / "nonfinite" / "batch.json").read_text())
    found = replay_step(Run.open(broken.path))
    assert found.reproduced and found.step == said["step"]
    assert [batch.index for batch in found.batches] == [batch["index"] for batch in said["batches"]]
    assert [str(batch.loss) for batch in found.batches] == [str(batch["loss"]) for batch in said["batches"]]
    assert all(batch.not_finite for batch in found.batches)
    assert list(found.gradients_not_finite) == said["gradients_not_finite"] != []


@pytest.mark.parametrize("execution", [{"compile": True}, {"precision": "float16"}, {"precision": "bfloat16"}])
def test_a_step_is_replayed_as_it_was_carried_out(make_run, monkeypatch, execution: dict) -> None:
    """To the bit, which a step of finite numbers shows, here stopped all the same: dropout of compiled code draws other
    numbers, and a loss that is scaled rounds otherwise.
    """
    if "compile" in execution and compiling.lacking(torch.device("cpu")):
        pytest.skip(compiling.lacking(torch.device("cpu")))
    run = make_run(execution=execution)
    train(run, stop_at=6)
    with monkeypatch.context() as patched:
        patched.setattr(StepResult, "finite", False)
        with pytest.raises(NeuralError, match="N810"):
            train(run)
    found = replay_step(Run.open(run.path))
    assert found.reproduced and found.step == 7 and not any(batch.not_finite for batch in found.batches)
    said = json.loads((run.path / "nonfinite" / "batch.json").read_text())
    assert (found.loss, found.gradient_norm) == (said["loss"], said["gradient_norm"])


def test_the_command_says_what_broke(neural, broken: Run, make_run) -> None:  # noqa: F811
    code, out, _ = neural("train", "--replay-step", broken.path)
    assert code == 0 and "loss nan" in out and "first not finite after " in out
    assert out.endswith("as it was when the run stopped\n") and "not as it was" not in out
    said = json.loads(neural("train", "--replay-step", broken.path, "--json")[1])
    assert said["reproduced"] is True and said["loss"] == "nan"
    assert "N833" in neural("train", "--replay-step", make_run("good").path)[2]
    for option in (["--seed", 3], ["--devices", 2], ["--parallel", "tp"], ["--no-compile"], ["--force"]):
        code, _, err = neural("train", "--replay-step", broken.path, *option)
        assert code == 2 and f"{option[0].replace('--no-', '--')} would change it" in err


def articles(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.mark.parametrize(("copied", "found"), [((), 0), ((3,), 1), ((3, 5, 5), 2)])
def test_documents_on_both_sides_are_reported(make_run, tmp_path: Path, copied: tuple[int, ...], found: int) -> None:
    texts = [words(30, seed) for seed in range(40)]
    data = articles(tmp_path / "a.jsonl", texts + [texts[i] for i in copied])
    run = make_run(data=data, tokenizer="byte", vocab_size=257)
    warning = leakage_warning(run.data, run.tokenizer)
    if not found:
        assert warning is None
        return
    assert warning.code == "N835" and warning.title.startswith(f"{found} document")
    assert texts[copied[0]].strip()[:20] in warning.notes[0]


def test_the_document_that_the_split_cuts_and_one_document_alone_are_not_reported(make_run, tmp_path: Path) -> None:
    two = make_run(data=articles(tmp_path / "a.jsonl", [words(30, 1), words(300, 2)]), tokenizer="byte", vocab_size=257)
    one = make_run("one")
    assert leakage_warning(two.data, two.tokenizer) is None and leakage_warning(one.data, one.tokenizer) is None


def test_training_tells_of_it(neural, tmp_path: Path) -> None:  # noqa: F811
    texts = [words(30, seed) for seed in range(40)]
    data = articles(tmp_path / "a.jsonl", [*texts, texts[0]])
    sets = ["--set", "vocab_size=257", "--tokenizer", "byte", "--stop-at", 1]
    code, _, err = neural("train", TINY, "--data", data, *sets)
    assert code == 0 and "warning[N835]: 1 document of the " in err


def test_an_id_outside_the_vocabulary_is_refused(make_run) -> None:
    run = make_run()
    file = run.path / "data" / "00000.tokens"
    header = read_header(file)
    ids = np.fromfile(file, header.dtype, offset=HEADER_BYTES)
    ids[5] = header.vocab_size
    forged = replace(header, checksum=hashlib.blake2b(ids.tobytes(), digest_size=32).digest())
    file.write_bytes(forged.pack() + ids.tobytes())
    with pytest.raises(NeuralError, match=f"N834: .* holds the id {header.vocab_size}, and its vocabulary has"):
        open_shards(run.path / "data")
