"""Our trainer beside nanoGPT, eager and compiled, and transformers, in turn: tokens a second, memory, losses.

    python bench/train.py --nanogpt ../nanoGPT [--only gpt2,big,small,memory] [--rounds 3] [--precision bfloat16]

`--nanogpt` is a checkout of https://github.com/karpathy/nanoGPT. All start from the same weights, see the same batches,
on the CPU, in float32 or under autocast to bfloat16; each turn is a process of its own, which measures the machine's
matmul peak in that precision too. Results go to bench/results/train_<configuration>[_bfloat16]_<date>.json.
`neural bench train` does the same with a program of your own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import torch

from neural.benchmarks.training.comparison import compare
from neural.compiler import load

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
ALL = ("neural", "nanogpt", "nanogpt-compiled", "transformers")
GPT2 = {"dropout": 0.0}
BIG = {"n_layer": 6, "n_head": 6, "d_model": 384, "context": 256, "dropout": 0.2}
# The example, what is set in it, its batch, timed steps, and who takes part.
CONFIGURATIONS = {
    "gpt2": ("gpt2", GPT2 | {"context": 512}, 2, 4, ALL),
    "memory": ("gpt2", GPT2, 4, 1, ("neural", "nanogpt")),
    "big": ("shakespeare_char", BIG, 64, 3, ALL),
    "small": ("shakespeare_char", {}, 12, 200, ALL),
}


def program_of(example: str, batch: int, folder: Path) -> Path:
    """The example with that batch, one forward pass a step, and nanoGPT's exact GELU."""
    text = (EXAMPLES / f"{example}.neural").read_text().replace('"gelu_tanh"', '"gelu"')
    text = re.sub(r"batch_size( =|:) 12", rf"batch_size\1 {batch}", text.replace("gradient_accumulation: 40", ""))
    path = folder / f"{example}.neural"
    path.write_text(text)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of nanoGPT")
    parser.add_argument("--only", default=",".join(CONFIGURATIONS), help="which configurations, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of all products")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="the folder for results")
    arguments = parser.parse_args()
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
    }
    for name in arguments.only.split(","):
        example, sets, batch, steps, who = CONFIGURATIONS[name]
        print(f"{name}: {example}, batch {batch}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            program = load(program_of(example, batch, Path(folder)), sets, None)
            how = {"rounds": arguments.rounds, "steps": steps, "precision": arguments.precision}
            found = compare(program, sets, who, arguments.nanogpt.resolve(), **how, tell=print)
        now = datetime.now(UTC)
        head = {"date": now.isoformat(timespec="seconds"), "machine": machine, "torch": str(torch.__version__)}
        kind = "" if arguments.precision == "float32" else f"_{arguments.precision}"
        path = arguments.output / f"train_{name}{kind}_{now:%Y-%m-%d}.json"
        head |= {"configuration": [example, sets, batch], "precision": arguments.precision}
        path.write_text(json.dumps(head | found, indent=2) + "\n")
        print(json.dumps(found["medians"], indent=2), path, sep="\n", flush=True)


if __name__ == "__main__":
    main()
