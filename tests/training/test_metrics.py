from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from neural.diagnostics.diagnostic import NeuralError
from neural.training.metrics import MetricsLog, last_validation, read_metrics, truncate_metrics


def write(path: Path, steps: range, resumed: int | None = None) -> None:
    with MetricsLog(path, resumed) as log:
        for step in steps:
            log.write("train", step, {"loss": step / 2, "learning_rate": 1e-3})


def test_lines_are_json_and_tensorboard_has_the_same(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, None) as log:
        log.write("train", 1, {"loss": 2.5})
        log.write("validation", 1, {"loss": 2.75, "bits_per_byte": None})
        log.write("sample", 1, {"text": "ROMEO:\nü"})
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert records == [
        {"kind": "train", "step": 1, "loss": 2.5},
        {"kind": "validation", "step": 1, "loss": 2.75, "bits_per_byte": None},
        {"kind": "sample", "step": 1, "text": "ROMEO:\nü"},
    ]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("loss/train")] == [2.5]
    assert [event.value for event in events.Scalars("loss/validation")] == [2.75]
    assert last_validation(tmp_path / "metrics.jsonl")["loss"] == 2.75


def test_resuming_leaves_no_step_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, range(1, 8))
    later = time.time() + 10
    with monkeypatch.context() as patched:  # TensorBoard sorts files by their second
        patched.setattr(time, "time", lambda: later)
        write(tmp_path, range(5, 10), resumed=4)
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 10))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss/train")] == list(range(1, 10))


@pytest.mark.parametrize(
    ("text", "step", "kept"),
    [
        ('{"step": 1}\n{"step": 2}\n{"step": 3}\n', 2, [1, 2]),
        ('{"step": 1}\n{"step": 2}\n', None, []),
        ('{"step": 1}\n{"step": 2, "lo', 5, [1]),
        ("", 5, []),
    ],
    ids=["later", "no checkpoint", "cut short", "empty"],
)
def test_what_is_kept_of_metrics(tmp_path: Path, text: str, step: int | None, kept: list[int]) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    truncate_metrics(path, step)
    assert [record["step"] for record in read_metrics(path)] == kept


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_never_written(tmp_path: Path, value: float) -> None:
    with MetricsLog(tmp_path, None) as log, pytest.raises(ValueError, match="not JSON compliant"):
        log.write("train", 1, {"loss": value})
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize("line", [b"loss 3", b"{}", b"[1]", b'{"step": "x"}', b"\xff"])
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line + b"\n")
    with pytest.raises(NeuralError, match="N855: line 2 of"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_tensorflow_is_not_loaded_for_events(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from neural.training.metrics import MetricsLog\n"
        "with MetricsLog(Path(), None) as log: log.write('train', 1, {'loss': 2.0})\n"
        "assert 'tensorflow' not in sys.modules and list(Path('tensorboard').iterdir())"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
