"""`neural visualize --schedule`."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.training.test_commands import neural  # noqa: F401

PROGRAM = """
network N {{
  input: (8,)
  layers:
    Embedding(input_dim=50, output_dim=8)
    Dense(units=50)
  loss: "sparse_categorical_crossentropy"
  optimizer: AdamW(learning_rate=1e-2)
  lr_schedule: {}
  train {{ {} }}
}}
"""


@pytest.mark.parametrize(
    "schedule",
    [
        "Constant()",
        "CosineDecay(warmup_steps=10)",
        "LinearDecay(warmup_steps=10, min_learning_rate=1e-4)",
        "InverseSquareRoot(warmup_steps=10)",
        "StepDecay(decay_steps=25)",
        "ExponentialDecay(decay_steps=25, decay_rate=0.5)",
        "WarmupStableDecay(warmup_steps=10, decay_steps=20)",
    ],
)
def test_each_schedule_is_drawn(neural, tmp_path: Path, schedule: str) -> None:  # noqa: F811
    (tmp_path / "n.neural").write_text(PROGRAM.format(schedule, "steps: 100"))
    code, _, err = neural("visualize", "n.neural", "--schedule", "--output", "rates.svg")
    assert (code, err) == (0, "wrote rates.svg: the learning rate over 100 steps\n")
    root = ET.parse(tmp_path / "rates.svg").getroot()
    (line,) = root.findall("{*}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    assert len(points) == 100 and min(y for _, y in points) == 48.0  # the peak touches the top
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    texts = [text.text for text in root.findall("{*}text")]
    assert f"N: {schedule.partition('(')[0]}" in texts and "0.01" in texts


def test_without_steps_there_is_nothing_to_draw(neural, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "n.neural").write_text(PROGRAM.format("Constant()", "epochs: 2"))
    code, _, err = neural("visualize", "n.neural", "--schedule")
    assert code == 2 and "N842" in err and not list(tmp_path.glob("*.svg"))
