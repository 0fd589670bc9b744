"""`neural train` and `neural run` as people type them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from neural.cli import main
from neural.training.run import Run
from tests.training.conftest import TINY


@pytest.fixture
def neural(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run a command in an empty folder: its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["neural", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


def test_train_stop_and_resume(neural, corpus: Path) -> None:
    code, out, err = neural("train", TINY, "--data", corpus, "--out", "runs/first", "--stop-at", 10)
    assert (code, out) == (0, "")
    assert "note: vocab_size is 29" in err and "Tiny: " in err and "40 steps of 3 × 8 × 2 = 48 tokens" in err
    assert "stopped at step 10 of 40 (--stop-at), saved; go on with:\n  neural train --resume runs/first" in err
    code, out, err = neural("train", "--resume", "runs/first", "--json")
    said = json.loads(out)
    assert (code, said["state"], said["step"], said["run"]) == (0, "finished", 40, "runs/first")
    assert said["validation"]["step"] == 40
    assert "finished at step 40 of 40: validation loss" in err and "neural generate runs/first --prompt " in err
    assert "sample" in err


def test_runs_get_numbers_and_the_seed_is_kept(neural, corpus: Path) -> None:
    for seed in (3, 4):
        neural("train", TINY, "--data", corpus, "--stop-at", 1, "--seed", seed, "--set", "d_model=8")
    assert [Run.open(f"runs/Tiny-{n}").record.seed for n in (1, 2)] == [3, 4]
    assert Run.open("runs/Tiny-1").record.parameters["d_model"] == 8


@pytest.mark.parametrize("out", [["--out", "first"], []])
def test_a_folder_that_takes_nothing_is_told_before_the_text_is_read(
    neural, corpus: Path, monkeypatch: pytest.MonkeyPatch, out: list[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode, **__: not mode & os.W_OK)
    code, _, err = neural("train", TINY, "--data", corpus, *out)
    assert code == 2 and "permission denied" in err and "vocab_size" not in err


def test_run_trains_and_writes(neural, corpus: Path) -> None:
    code, out, _ = neural("run", TINY, "--data", corpus, "--set", "steps=2")
    assert code == 0 and len(out) > 300 and out.startswith(corpus.read_text().split()[0])
    assert Run.open("runs/Tiny-1").record.state == "finished"


def test_ctrl_c_saves_and_says_how_to_go_on(corpus: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "neural", "train", TINY, "--data", corpus, "--out", "run", "--set", "steps=100000"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("step") and "tokens/s" in line:
            process.send_signal(signal.SIGINT)
            break
    text = "".join(lines) + process.stderr.read()
    assert process.wait() == 0, text
    run = Run.open(tmp_path / "run")
    assert f"stopped at step {run.checkpoints.steps()[-1]} of 100000 (Ctrl-C), saved; go on with:" in text
    assert "neural train --resume run" in text and run.record.state == "stopped"


def test_a_long_warm_up_is_noted(neural, corpus: Path) -> None:
    _, _, err = neural("train", TINY, "--data", corpus, "--set", "steps=4")
    assert "note: the warm-up has 5 steps and the training 4: the rate only rises" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train"], "N806"),
        (["train", "--resume", "nowhere"], "N850"),
        (["train", "--resume", "."], "N850"),
        (["train", TINY, "--resume", "."], "N806"),
        (["train", "--resume", ".", "--set", "steps=3", "--seed", "0"], "--set, --seed would change it"),
        (["train", "missing.neural"], "missing.neural"),
        (["train", TINY], "N805"),
        (["train", TINY, "--data", "missing.txt"], "N701"),
        (["train", TINY, "--data", "{corpus}", "--out", "taken"], "N851"),
        (["train", TINY, "--data", "{corpus}", "--out", "file/below"], "N851"),
        (["train", TINY, "--data", "{corpus}", "--stop-at", "-3"], "N807"),
        (["train", TINY, "--data", "{corpus}", "--set", "stepz=3"], "stepz"),
        (["train", TINY, "--data", "{corpus}", "--tokenizer", "bite"], "N750"),
        (["train", TINY, "--data", "{corpus}", "--set", "context=5000"], "N713"),
        (["train", TINY, "--data", "{corpus}", "--device", "tpu"], "N808"),
        (["run", TINY], "N805"),
    ],
)
def test_mistakes_are_one_message_and_leave_nothing(neural, corpus: Path, tmp_path: Path, arguments, said: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    code, out, err = neural(*(str(a).replace("{corpus}", str(corpus)) for a in arguments))
    assert (code, out) == (2, "") and said in err and "Traceback" not in err
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != "runs"] == before
