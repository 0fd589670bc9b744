"""`report.html`: what stands in it, that nothing in it is fetched or run that was not written by us, and that what it
says to type gives the same training."""

from __future__ import annotations

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from safetensors.torch import load_file

from neural.training.loop import train
from neural.training.metrics import read_metrics
from neural.training.page import page, write_page
from neural.training.page.charts import charts
from neural.training.page.sections import commands
from neural.training.run import Run
from tests.training.test_commands import neural  # noqa: F401

VOID = {"meta", "br", "line", "path", "polyline", "rect"}


class Reader(HTMLParser):
    """Tags in their nesting, attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture
def finished(make_run) -> Run:
    run = make_run(steps=20, sample_every=10)
    train(run, sample=lambda model, tokenizer: "<b>bold</b> & </pre><script>alert(1)</script>")
    return run


def test_a_finished_run_has_a_page_that_needs_nothing_else(finished: Run) -> None:
    text = (finished.path / "report.html").read_text(encoding="utf-8")
    read = Reader(text)
    fetched = [value for _, name, value in read.attributes if name in ("src", "href", "srcset", "data", "action")]
    assert not fetched and "url(" not in text and "@import" not in text
    assert set(re.findall(r"https?://[^\"' <]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert any(name == "content" and value.startswith("default-src 'none'") for _, name, value in read.attributes)
    assert text.count("<script>") == 1 and "&lt;script&gt;alert(1)" in text  # what a model wrote is shown, not run


def test_it_says_what_was_measured_and_decided(finished: Run) -> None:
    read = Reader((finished.path / "report.html").read_text(encoding="utf-8"))
    records = read_metrics(finished.path / "metrics.jsonl")
    best = min(r["loss"] for r in records if r["kind"] == "validation")
    for said in (
        f"{best:.4f}",
        "20 of 20",
        "2,864",
        "finished · on cpu",
        "CosineDecay",
        "words.txt",
        "step 10",
        "step 20",
    ):
        assert said in read.text, said
    assert read.text.count("as a table") == 7  # loss, rate, norm, speed, share, memory, accuracy
    assert "network Tiny {" in read.text and "class Tiny(nn.Module)" in read.text
    (loss, *_) = [json.loads(value) for _, name, value in read.attributes if name == "data-chart"]
    shown = {line["name"]: [(step, value) for step, _, value in line["points"]] for line in loss["lines"]}
    for name, kind in (("training", "train"), ("validation", "validation")):
        assert shown[name] == [(r["step"], r["loss"]) for r in records if r["kind"] == kind]


def test_each_part_can_be_found_without_eyes(finished: Run) -> None:
    read = Reader((finished.path / "report.html").read_text(encoding="utf-8"))
    ids = {value for _, name, value in read.attributes if name == "id"}
    labelled = [value for tag, name, value in read.attributes if tag == "section" and name == "aria-labelledby"]
    assert len(labelled) == 6 and set(labelled) <= ids
    labels = [value for tag, name, value in read.attributes if tag == "div" and name == "aria-label"]
    assert len(labels) == 7 and re.match(r"Loss by step: training from \d\.\d+ to", labels[0])
    assert ("html", "lang", "en") in read.attributes


def test_what_it_says_to_type_gives_the_same_weights(neural, finished: Run) -> None:  # noqa: F811
    install, again = commands(finished)
    assert install.startswith("pip install ")
    assert neural(*shlex.split(again)[1:])[0] == 0
    paths = [
        Path(path) / "checkpoints/step-000020/model.safetensors" for path in (finished.path, f"{finished.path}-again")
    ]
    ours, theirs = map(load_file, paths)
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("processes", "strategy", "tensor", "said"),
    [
        (1, None, 1, ""),
        (2, "ddp", 1, " --devices 2 --parallel ddp"),
        (2, "tp", 2, " --devices 2 --parallel tp"),
        (8, "fsdp", 2, " --devices 8 --parallel fsdp --tensor-parallel 2"),
    ],
)
def test_it_says_how_many_trained_it_and_how(
    finished: Run, processes: int, strategy: str | None, tensor: int, said: str
) -> None:
    how = {"processes": processes, "strategy": strategy, "tensor": tensor}
    finished.set_state("finished", execution={**finished.record.execution, **how})
    assert commands(finished)[1].partition("words.txt")[2].startswith(f"{said} --tokenizer")


def test_a_run_without_a_step_has_a_page(make_run) -> None:
    run = make_run()
    write_page(run, "cpu")
    text = (run.path / "report.html").read_text(encoding="utf-8")
    assert "created · on cpu" in Reader(text).text and "<figure" not in text


def test_a_run_that_was_stopped_has_a_page_and_one_that_failed(make_run) -> None:
    run = make_run()
    train(run, stop_at=5)
    assert "stopped; it can go on" in (run.path / "report.html").read_text(encoding="utf-8")
    run.set_state("failed")
    assert "failed · on cpu" in page(run, read_metrics(run.path / "metrics.jsonl"), "cpu")


def test_a_page_of_a_long_run_stays_small() -> None:
    many = [{"kind": "train", "step": step, "loss": 1 + 1 / step} for step in range(1, 60_001)]
    text = charts(many, 60_000, asks_accuracy=False)
    assert len(text) < 120_000 and "60,000" in text


@pytest.mark.parametrize("value", [0.0, 1e-30, 5.0, -3.0, 1e30])
def test_a_curve_that_is_flat_is_drawn(value: float) -> None:
    text = charts(
        [{"kind": "train", "step": s, "loss": value, "memory": value} for s in (1, 2)], 2, asks_accuracy=False
    )
    assert "nan" not in text and "<polyline" in text
