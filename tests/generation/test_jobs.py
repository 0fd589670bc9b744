"""A file of prompts as one batch: what is written, what is told of bad lines, and how a job goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch import nn

from neural.data.tokenizers import load_tokenizer
from neural.diagnostics.diagnostic import NeuralError
from neural.generation.constraint import constrain
from neural.generation.engine import Engine
from neural.generation.generate import generate
from neural.generation.jobs import Job
from neural.generation.options import SamplingOptions
from neural.generation.request import Limits
from neural.generation.torch_executor import TorchExecutor
from tests.forked.command import neural
from tests.generation.test_cli import run  # noqa: F401

DEFAULTS = {"max_new_tokens": 12, "temperature": 1.0, "seed": 7, "num_samples": 1}


def job(model: nn.Module, context: int, folder: Path, defaults: dict = DEFAULTS, **given) -> Job:
    tokenizer = load_tokenizer("byte")
    engine = Engine(TorchExecutor(model, Limits(slots=4), context=context, vocab_size=tokenizer.vocab_size))
    return Job(engine, tokenizer, context, folder / "in.jsonl", folder / "out.jsonl", defaults, **given)


def lines(path: Path) -> dict[int, dict]:
    return {record["line"]: record for record in map(json.loads, path.read_text().splitlines())}


def test_each_line_is_as_by_itself(model: nn.Module, context: int, tmp_path: Path) -> None:
    asked = [
        {"prompt": "To be"},
        {"prompt": "ROMEO:", "temperature": 0, "id": {"any": "thing"}},
        {"prompt": "", "max_new_tokens": 30, "stop": ["e", "zz"]},
        {"prompt": "x" * context, "num_samples": 3, "top_k": 9, "seed": 99, "max_new_tokens": 20},
        {"prompt": "nothing", "max_new_tokens": 0},
        {"prompt": "sure", "logprobs": 2, "typical_p": 0.9, "frequency_penalty": 0.2},
        {"prompt": "sure", "choices": ["yes", "no"]},
    ]
    (tmp_path / "in.jsonl").write_text("\n\n".join(map(json.dumps, asked)))  # blank lines count, and say nothing
    tally = job(model, context, tmp_path).run()
    assert (tally.done, tally.failed) == (7, 0)
    for place, line in enumerate(asked):
        record = lines(tmp_path / "out.jsonl")[2 * place + 1]
        names = ("temperature", "top_k", "typical_p", "frequency_penalty")
        options = SamplingOptions(**{n: line[n] for n in names if n in line}, seed=line.get("seed", 7 + 2 * place))
        expected = generate(
            model,
            load_tokenizer("byte"),
            line["prompt"],
            options,
            context=context,
            max_new_tokens=line.get("max_new_tokens", 12),
            num_samples=line.get("num_samples", 1),
            stop=line.get("stop", ()),
            constraint=constrain(load_tokenizer("byte"), choices=line.get("choices")),
        )
        assert [(s["text"], s["ids"]) for s in record["samples"]] == [(s.text, list(s.ids)) for s in expected]
        assert [s["finish_reason"] for s in record["samples"]] == [s.finish_reason for s in expected]
        assert record["prompt"] == line["prompt"]
        assert record.get("id") == line.get("id")
        if "logprobs" in line:
            assert [len(p["top"]) for p in record["samples"][0]["logprobs"]] == [2] * 12


def test_a_line_replaces_the_constraint_of_all(model: nn.Module, context: int, tmp_path: Path) -> None:
    asked = [{"prompt": "a"}, {"prompt": "a", "json_schema": {"type": "boolean"}}, {"prompt": "a", "regex": "[0-9]{3}"}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, asked)))
    job(model, context, tmp_path, defaults={**DEFAULTS, "choices": ["yes", "no"]}).run()
    texts = [record["samples"][0]["text"] for _, record in sorted(lines(tmp_path / "out.jsonl").items())]
    assert texts[0] in ("yes", "no")
    assert texts[1] in ("true", "false")
    assert texts[2].isdigit() and len(texts[2]) == 3


BAD = {
    b"{": ("N960", "not JSON"),
    b"[1]": ("N960", "no object with a field `prompt`"),
    b'{"promt": "x"}': ("N960", "no object with a field `prompt`"),
    b'{"prompt": 5}': ("N960", "not a text"),
    b'{"prompt": "\\ud800"}': ("N960", "not a text"),
    b'{"prompt": "x", "temprature": 1}': ("N960", "no field `temprature`"),
    b'{"prompt": "\xff"}': ("N960", "not UTF-8"),
    b"[" * 100_000: ("N960", ""),
    b'{"prompt": "' + b"x" * 500 + b'"}': ("N911", "the prompt is 500 tokens long, and the model's context is 48"),
    b'{"prompt": "x", "temperature": -1}': ("N901", "temperature"),
    b'{"prompt": "x", "top_k": 0}': ("N902", "top-k is 0"),
    b'{"prompt": "x", "top_p": 1.5}': ("N903", "top-p"),
    b'{"prompt": "x", "typical_p": 1.5}': ("N951", "typical-p"),
    b'{"prompt": "x", "presence_penalty": "high"}': ("N950", "presence penalty"),
    b'{"prompt": "x", "seed": -1}': ("N906", "seed"),
    b'{"prompt": "x", "stop": "abc"}': ("N960", "`stop` is not a list of texts"),
    b'{"prompt": "x", "stop": [""]}': ("N914", "empty"),
    b'{"prompt": "x", "num_samples": 0}': ("N960", "0 samples"),
    b'{"prompt": "x", "max_new_tokens": "5"}': ("N960", "max_new_tokens"),
    b'{"prompt": "x", "max_new_tokens": null}': ("N960", "max_new_tokens"),
    b'{"prompt": "x", "max_new_tokens": -5}': ("N912", "-5 new tokens"),
    b'{"prompt": "x", "min_new_tokens": 50}': ("N956", "50 new tokens at least"),
    b'{"prompt": "x", "logprobs": 999}': ("N957", "999"),
    b'{"prompt": "x", "logit_bias": {"70000": 1}}': ("N953", "no token 70000"),
    b'{"prompt": "x", "logit_bias": {"a": 1}}': ("N960", "logit_bias"),
    b'{"prompt": "x", "logit_bias": {"1": "a"}}': ("N952", "logit bias of token 1"),
    b'{"prompt": "x", "regex": 5}': ("N960", "`regex` is not a text"),
    b'{"prompt": "x", "regex": "a(("}': ("N981", "unclosed group"),
    b'{"prompt": "x", "json_schema": 5}': ("N982", "no JSON schema"),
    b'{"prompt": "x", "choices": "yes"}': ("N960", "`choices` is not a list of texts"),
    b'{"prompt": "x", "choices": ["a"], "regex": "a"}': ("N985", "choices and by regex"),
    b'{"prompt": "x", "bad_words": [""]}': ("N952", "bad word"),
    b'{"prompt": "x", "allowed_words": []}': ("N952", "no token is allowed"),
    b'{"prompt": "x", "allowed_words": ["a"], "bad_words": ["a", " "], "logit_bias": {"256": -1e39}}': (
        "N908",
        "ruled out",
    ),
}


def test_bad_lines_are_told_with_their_numbers_and_the_rest_is_done(
    model: nn.Module, context: int, tmp_path: Path
) -> None:
    text = b"".join(line + b'\n{"prompt": "good"}\n' for line in BAD)
    (tmp_path / "in.jsonl").write_bytes(text)
    told, read = [], []
    tally = job(model, context, tmp_path, report=told.append, advance=read.append).run()
    assert (tally.done, tally.failed) == (len(BAD), len(BAD))
    assert sum(read) == len(text)
    found = {d.title.removeprefix(str(tmp_path)): d.code for d in told}
    for number, (code, shown) in enumerate(BAD.values()):
        (title,) = [title for title in found if title.startswith(f"/in.jsonl:{2 * number + 1}: ")]
        assert found[title] == code
        assert shown in title
    assert set(lines(tmp_path / "out.jsonl")) == {2 * number + 2 for number in range(len(BAD))}


def test_words_that_are_bad_or_allowed(model: nn.Module, context: int, tmp_path: Path) -> None:
    asked = [
        {"prompt": "a", "bad_words": ["e", "th"], "max_new_tokens": 300},
        {"prompt": "a", "allowed_words": ["abc"], "max_new_tokens": 300, "min_new_tokens": 250},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, asked)))
    job(model, context, tmp_path).run()
    bad, allowed = (lines(tmp_path / "out.jsonl")[n]["samples"][0] for n in (1, 2))
    assert "e" not in bad["text"]
    assert "th" not in bad["text"]
    assert set(allowed["text"]) == set("abc ")
    assert len(allowed["ids"]) >= 250


@pytest.mark.parametrize("cut", [0, 1, 40, 10**6])
def test_a_job_goes_on_where_it_was_cut(model: nn.Module, context: int, tmp_path: Path, cut: int) -> None:
    (tmp_path / "in.jsonl").write_text("".join(f'{{"prompt": "line {i}"}}\n' for i in range(20)))
    job(model, context, tmp_path).run()
    whole = lines(tmp_path / "out.jsonl")
    output = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.jsonl").write_bytes(output[: max(0, len(output) // 2 - cut)])
    before = (tmp_path / "out.jsonl").read_bytes().count(b"\n")
    tally = job(model, context, tmp_path).run()
    assert (tally.before, tally.done) == (before, 20 - before)
    assert lines(tmp_path / "out.jsonl") == whole


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ('{"line": 1, "prompt": "another"}\n', "an answer to line 1 of other prompts"),
        ("my precious notes\n", "is not what this command writes"),
        ('{"line": 1}\n', "is not what this command writes"),
    ],
)
def test_an_output_of_something_else_stays_as_it_is(
    model: nn.Module, context: int, tmp_path: Path, output: str, shown: str
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "one"}\n')
    (tmp_path / "out.jsonl").write_text(output)
    with pytest.raises(NeuralError, match=f"N961: .*{shown}"):
        job(model, context, tmp_path).run()
    assert (tmp_path / "out.jsonl").read_text() == output


def test_the_command(run: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "in.jsonl").write_text('{"prompt": "to be"}\n{"prompt": 5}\n{"prompt": "or", "num_samples": 2}\n')
    arguments = [run, "--prompts", "in.jsonl", "--output", "out.jsonl", "--max-new-tokens", "9"]
    for done, before in ((2, ""), (0, ", 2 were done before")):
        ended = neural("generate", *arguments, cwd=tmp_path)
        assert ended.returncode == 1
        assert "error[N960]: in.jsonl:2: `prompt` is not a text" in ended.stderr
        assert f"{done} prompts done{before}, 1 failed; " in ended.stderr
        assert ended.stdout == ""
        assert [len(r["samples"]) for _, r in sorted(lines(tmp_path / "out.jsonl").items())] == [1, 2]


def test_a_killed_command_loses_nothing(run: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "in.jsonl").write_text("".join(f'{{"prompt": "to {i}"}}\n' for i in range(400)))
    arguments = [run, "--prompts", "in.jsonl", "--output", "out.jsonl", "--max-new-tokens", "40"]
    for number in (signal.SIGKILL, signal.SIGINT):
        process = subprocess.Popen(
            [sys.executable, "-m", "neural", "generate", *arguments], cwd=tmp_path, stderr=subprocess.PIPE
        )
        size = (tmp_path / "out.jsonl").stat().st_size if (tmp_path / "out.jsonl").exists() else 0
        deadline = time.monotonic() + 60
        while not (tmp_path / "out.jsonl").exists() or (tmp_path / "out.jsonl").stat().st_size <= size:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, number)
        process.communicate()
        assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    neural("generate", *arguments, cwd=tmp_path, check=True)
    assert sorted(lines(tmp_path / "out.jsonl")) == list(range(1, 401))
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 400


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("N958", ["--prompts", "in.jsonl"]),
        ("N958", ["--output", "out.jsonl"]),
        ("N958", ["--prompts", "in.jsonl", "--output", "out.jsonl", "--prompt", "x"]),
        ("N958", ["--prompts", "in.jsonl", "--output", "out.jsonl", "--beams", "2"]),
        ("N959", ["--prompt", "to", "--logprobs", "1"]),
        ("N965", ["--prompt", "to", "--beams", "2", "--temperature", "0.5"]),
        ("N965", ["--prompt", "to", "--beams", "2", "--stop", "x", "--draft", "4"]),
        ("N957", ["--prompt", "to", "--logprobs", "101", "--json"]),
        ("N964", ["--prompt", "to", "--beams", "500"]),
        ("N911", ["--prompt", "to", "--beams", "2", "--max-new-tokens", "400"]),
        ("N705", ["--prompts", ".", "--output", "out.jsonl"]),
        ("N010", ["--prompts", "in.jsonl", "--output", "no/such/folder.jsonl"]),
    ],
)
def test_mistakes(run: Path, tmp_path: Path, code: str, arguments: list[str]) -> None:  # noqa: F811
    (tmp_path / "in.jsonl").write_text('{"prompt": "x"}\n')
    ended = neural("generate", run, *arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert f"error[{code}]" in ended.stderr


def test_beams(run: Path) -> None:  # noqa: F811
    arguments = [run, "--prompt", "to", "--beams", "4", "--num-samples", "3", "--max-new-tokens", "8"]
    told = neural("generate", *arguments, "--json", check=True)
    samples = json.loads(told.stdout)["samples"]
    assert [sample["score"] for sample in samples] == sorted((s["score"] for s in samples), reverse=True)
    assert len({tuple(sample["ids"]) for sample in samples}) == 3
    shown = neural("generate", *arguments, check=True).stdout
    assert all(f"to{sample['text']}\n" in shown for sample in samples)


def test_logprobs_in_json(run: Path) -> None:  # noqa: F811
    arguments = [run, "--prompt", "to", "--logprobs", "2", "--json", "--seed", "1", "--max-new-tokens", "5"]
    ended = neural("generate", *arguments, check=True)
    plain = neural("generate", *arguments, "--draft", "4", check=True)
    (sample,) = json.loads(ended.stdout)["samples"]
    assert [len(entry["top"]) for entry in sample["logprobs"]] == [2] * len(sample["ids"])
    assert all(entry["chosen"] <= entry["top"][0][1] <= 0 for entry in sample["logprobs"])
    assert json.loads(plain.stdout)["samples"][0]["ids"] == sample["ids"]
