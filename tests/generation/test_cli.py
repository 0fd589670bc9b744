"""`neural generate` on a run that `neural train` wrote: what it prints, where, and how it ends."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from neural import diagnostics
from neural.cli import main
from neural.data.corpus import open_corpus
from neural.data.tokenizers import load_tokenizer
from neural.training.loop import train
from neural.training.run import Run
from tests.forked.command import neural as in_a_process

COMMAND = [sys.executable, "-c", "from neural.cli import main; main()", "generate"]
PAGES = Path(diagnostics.__file__).parent / "pages"
PROGRAM = """
network Tiny {
  input: (32,)
  layers:
    tokens = Embedding(input_dim=257, output_dim=32)
    PositionalEmbedding(max_length=32)
    Residual { LayerNormalization() MultiHeadAttention(num_heads=4, causal=true) }
    Dense(units=257, use_bias=false, tied_to=tokens)
  loss: "sparse_categorical_crossentropy"
  optimizer: AdamW(learning_rate=1e-2)
  tokenizer: "byte"
  train { steps: 30 batch_size: 8 save_every: 15 }
}
"""
CLASSIFIER = """
network Tiny {
  input: (32,)
  layers:
    Embedding(input_dim=257, output_dim=8)
    GlobalAveragePooling1D()
    Dense(units=2)
  loss: "sparse_categorical_crossentropy"
}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from neural.compiler import load

    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.neural").write_text(PROGRAM)
    (folder / "corpus.txt").write_text("to be, or not to be: that is the question.\n\n" * 40)
    made = Run.create(
        folder / "first", load(folder / "tiny.neural"), load_tokenizer("byte"), open_corpus(str(folder / "corpus.txt"))
    )
    train(made)
    return made.path


class Printed:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def neural(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    def call(*arguments: str | Path, stdin: bytes = b"") -> Printed:
        monkeypatch.setattr(sys, "argv", ["neural", "generate", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as exit_:
            main()
        return Printed(exit_.value.code, *capfd.readouterr())

    return call


def test_the_prompt_and_its_continuation_are_the_whole_output(neural, run: Path) -> None:
    first = neural(run, "--prompt", "to be", "--max-new-tokens", "40", "--seed", "1")
    assert first.code == 0
    assert first.out.startswith("to be")
    assert len(first.out) > 20
    assert first.out.endswith("\n")
    assert first.err.splitlines()[-1].startswith("40 tokens, ")
    assert neural(run, "--prompt", "to be", "--max-new-tokens", "40", "--seed", "1").out == first.out
    assert neural(run, "--prompt", "to be", "--max-new-tokens", "40", "--seed", "2").out != first.out


def test_json_has_what_was_written(neural, run: Path) -> None:
    arguments = ("--prompt", "to ", "--num-samples", 3, "--seed", 5, "--max-new-tokens", 50, "--temperature", 1.5)
    printed = neural(run, *arguments, "--top-k", 40, "--top-p", 0.99, "--min-p", 0.001, "--stop", "be", "--json")
    result = json.loads(printed.out)
    assert set(result) == {"prompt", "samples", "seed", "tokens_per_second", "engine"}
    assert (result["prompt"], result["seed"], len(result["samples"])) == ("to ", 5, 3)
    assert result["tokens_per_second"] > 0
    for sample in result["samples"]:
        assert set(sample) == {"text", "ids", "finish_reason"}
        written = load_tokenizer("byte").decode(sample["ids"])
        assert sample["finish_reason"] in ("stop", "length", "end_of_text")
        assert written == sample["text"] + ("be" if sample["finish_reason"] == "stop" else "")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_another_engine_writes_the_same(neural, run: Path, engine: str) -> None:
    arguments = (run, "--prompt", "to be", "--seed", 1, "--max-new-tokens", 40, "--engine")
    torchs, other = neural(*arguments, "torch"), neural(*arguments, engine)
    assert other.out == torchs.out
    assert other.err.rstrip().endswith(f"engine {engine}")
    rounded = neural(*arguments, engine, "--quantize", "int4", "--json")
    assert json.loads(rounded.out)["engine"] == engine


def test_what_is_asked_for_is_written(neural, run: Path, tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "maximum": 99, "minimum": 10}},
        "required": ["n"],
    }
    (tmp_path / "schema.json").write_text(json.dumps({**schema, "additionalProperties": False}))
    arguments = (run, "--prompt", "A", "--seed", 1, "--temperature", 9)
    assert neural(*arguments, "--choices", " to be, not").out in ("A to be\n", "A not\n")
    assert re.fullmatch(r"A[0-9]{7}\n", neural(*arguments, "--regex", "[0-9]{7}").out)
    written = json.loads(neural(*arguments, "--json-schema", tmp_path / "schema.json").out.removeprefix("A"))
    assert 10 <= written["n"] <= 99


def test_a_draft_model_writes_the_same(neural, run: Path, tmp_path: Path) -> None:
    arguments = (run, "--prompt", "to be", "--seed", 1, "--max-new-tokens", 60)
    assert neural(*arguments, "--draft-model", run).out == neural(*arguments).out
    (tmp_path / "in.jsonl").write_text('{"prompt": "to be"}\n{"prompt": "not"}\n')
    for name, options in (("plain.jsonl", ()), ("drafted.jsonl", ("--draft-model", run, "--draft", 2))):
        assert neural(run, "--prompts", tmp_path / "in.jsonl", "--output", tmp_path / name, *options).code == 0
    written = [sorted((tmp_path / name).read_text().splitlines()) for name in ("plain.jsonl", "drafted.jsonl")]
    assert written[0] == written[1]


def test_a_draft_model_of_another_vocabulary_is_refused(neural, run: Path, tmp_path: Path) -> None:
    from neural.compiler import load

    corpus = open_corpus(str(run.parent / "corpus.txt"))
    tokenizer = load_tokenizer("char", corpus=corpus)
    (tmp_path / "tiny.neural").write_text(
        PROGRAM.replace("257", str(tokenizer.vocab_size)).replace('tokenizer: "byte"', 'tokenizer: "char"')
    )
    other = Run.create(tmp_path / "other", load(tmp_path / "tiny.neural"), tokenizer, corpus)
    train(other)
    printed = neural(run, "--prompt", "A", "--draft-model", other.path)
    assert (printed.code, "N986" in printed.err) == (2, True)


def test_several_samples_have_titles_and_the_first_is_that_alone(neural, run: Path) -> None:
    arguments = (run, "--prompt", "to be", "--seed", 3, "--max-new-tokens", 30)
    alone, three = neural(*arguments), neural(*arguments, "--num-samples", 3)
    assert three.out.startswith(f"--- sample 1 of 3\n{alone.out}--- sample 2 of 3\nto be")
    assert three.err.startswith("90 tokens, ")


def test_without_a_seed_the_random_one_is_printed_and_gives_the_text_again(neural, run: Path) -> None:
    first = neural(run, "--prompt", "to be", "--max-new-tokens", 30)
    seed = first.err.splitlines()[0].removeprefix("seed ")
    assert neural(run, "--prompt", "to be", "--max-new-tokens", 30, "--seed", seed).out == first.out


def test_greedy_needs_no_seed(neural, run: Path) -> None:
    first = neural(run, "--prompt", "to be", "--temperature", 0, "--max-new-tokens", 100)
    assert "seed" not in first.err
    assert neural(run, "--prompt", "to be", "--temperature", 0, "--max-new-tokens", 100).out == first.out


def test_the_prompt_may_come_from_stdin(neural, run: Path) -> None:
    given = neural(run, "--prompt", "tö\nbe", "--seed", 1, "--max-new-tokens", 10)
    assert neural(run, "--prompt", "-", "--seed", 1, "--max-new-tokens", 10, stdin="tö\nbe".encode()).out == given.out


@pytest.mark.parametrize(("written", "read"), [(r"\n\n", "\n\n"), (r"\\", "\\"), (r"\q", r"\q"), ("\n\n", "\n\n")])
def test_escapes_of_stop_strings(neural, run: Path, written: str, read: str) -> None:
    arguments = (run, "--prompt", "to be", "--temperature", 40, "--max-new-tokens", 3000, "--seed", 2, "--json")
    (whole,) = json.loads(neural(*arguments).out)["samples"]
    (cut,) = json.loads(neural(*arguments, "--stop", written).out)["samples"]
    assert cut["text"] == whole["text"].partition(read)[0]


def test_checkpoints_are_chosen_by_name(neural, run: Path) -> None:
    arguments = (run, "--prompt", "to be", "--temperature", 0, "--max-new-tokens", 60, "--checkpoint")
    newest, early = neural(*arguments, "latest"), neural(*arguments, "step-000015")
    assert newest.code == early.code == neural(*arguments, "best").code == 0
    assert newest.out != early.out


def test_a_long_prompt_on_request(neural, run: Path) -> None:
    printed = neural(run, "--prompt", "to be " * 20, "--truncate", "left", "--max-new-tokens", 5, "--seed", 1)
    assert printed.code == 0
    assert printed.out.startswith("to be " * 20)


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("N901", ["--temperature", "-1"]),
        ("N901", ["--temperature", "nan"]),
        ("N902", ["--top-k", "0"]),
        ("N903", ["--top-p", "1.5"]),
        ("N904", ["--min-p", "-0.1"]),
        ("N905", ["--repetition-penalty", "0"]),
        ("N906", ["--seed", "-1"]),
        ("N911", ["--prompt", "x" * 33]),
        ("N912", ["--max-new-tokens", "-5"]),
        ("N913", ["--num-samples", "0"]),
        ("N914", ["--stop", ""]),
        ("N966", ["--engine", "gpu"]),
        ("N968", ["--engine", "torch", "--quantize", "int8"]),
        ("N969", ["--quantize", "int3"]),
        ("N981", ["--regex", "a(("]),
        ("N010", ["--json-schema", "nowhere.json"]),
        ("N985", ["--choices", "yes,,no"]),
        ("N965", ["--beams", "2", "--regex", "a"]),
        ("N857", ["--checkpoint", "step-999999"]),
    ],
)
def test_mistakes_are_said_and_exit_with_2(neural, run: Path, code: str, arguments: list[str]) -> None:
    printed = neural(run, *arguments)
    assert (printed.code, printed.out) == (2, "")
    assert code in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    "code",
    ["N901", "N902", "N903", "N904", "N905", "N906", "N912", "N913", "N914", "N966", "N968", "N969", "N981", "N985"],
)
def test_the_page_of_a_code_shows_what_is_printed(neural, run: Path, code: str) -> None:
    (example,) = re.findall(r"```console\n\$ neural generate (.*)\n((?s:.*))\n```", (PAGES / f"{code}.md").read_text())
    folder, *arguments = shlex.split(example[0])
    assert folder == "runs/first"
    assert neural(run, *arguments).err.strip() == example[1]


@pytest.mark.parametrize("arguments", [["--prompt", "\udcff"], ["--prompt", "-"]], ids=["argument", "stdin"])
def test_a_prompt_that_is_not_text_is_refused(neural, run: Path, arguments: list[str]) -> None:
    printed = neural(run, *arguments, stdin=b"abc\xff")
    assert printed.code == 2
    assert "N916" in printed.err
    assert "0xff" in printed.err


def test_a_folder_that_is_no_run_is_refused(neural, tmp_path: Path) -> None:
    printed = neural(tmp_path)
    assert (printed.code, "N850" in printed.err) == (2, True)


def test_a_run_of_a_classifier_is_refused(neural, run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "classifier")
    (copy / "program.neural").write_text(CLASSIFIER)
    printed = neural(copy, "--prompt", "A")
    assert (printed.code, printed.out) == (2, "")
    assert "N915" in printed.err
    assert "not a language model" in printed.err


def test_help_has_examples(neural) -> None:
    printed = neural("--help")
    assert printed.code == 0
    assert "neural generate runs/first --prompt" in printed.out
    assert '--stop "\\n\\n"' in printed.out


@pytest.mark.parametrize(("samples", "redirection"), [(1, ""), (2, "2>&1")])
def test_a_reader_that_goes_away_ends_it_quietly(run: Path, redirection: str, samples: int) -> None:
    arguments = f"{run} --prompt 'to be' --max-new-tokens 3000 --seed 1 --num-samples {samples}"
    python = f"{sys.executable} -c 'from neural.cli import main; main()' generate"
    line = f"set -o pipefail; {python} {arguments} {redirection} | head -c 3"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert ended.stdout in ("to ", "---")
    assert "Traceback" not in ended.stderr
    assert "Error" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "number"),
    [([], signal.SIGINT), (["--json"], signal.SIGINT), (["--num-samples", "2"], signal.SIGTERM)],
    ids=["stream", "json", "samples"],
)
def test_a_signal_ends_it_with_what_was_written(run: Path, arguments: list[str], number: signal.Signals) -> None:
    """The signal is sent once text, or the seed before it, is there."""
    command = [*COMMAND, run, "--prompt", "to be", "--max-new-tokens", "100000000", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        shown = b"" if arguments else process.stdout.read(60)
        while arguments and not process.stderr.readline().startswith(b"seed"):
            pass  # the native engine says when it is compiled
        process.send_signal(number)
        out, err = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert b"Traceback" not in err
    assert b"tokens/s" in err
    if arguments == ["--json"]:
        assert json.loads(out)["samples"][0]["finish_reason"] is None
    elif not arguments:
        assert (shown + out).startswith(b"to be")
        assert out.endswith(b"\n")


def test_control_characters_do_not_reach_a_terminal(run: Path) -> None:
    ours, theirs = pty.openpty()
    arguments = ["--prompt", "\x1b[31m\x7f\x9b", "--max-new-tokens", "0"]
    in_a_process("generate", run, *arguments, capture_output=False, stdout=theirs, check=True)
    os.close(theirs)
    assert os.read(ours, 1000).decode() == "␛[31m␡\ufffd\r\n"
    os.close(ours)


def test_a_terminal_that_lacks_a_character_shows_another(run: Path) -> None:
    arguments = ["--prompt", "né€", "--max-new-tokens", "0"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    ended = subprocess.run([*COMMAND, run, *arguments], capture_output=True, env=environment, check=True)
    assert ended.stdout == "né?\n".encode("latin-1")
