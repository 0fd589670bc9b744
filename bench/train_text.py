"""The memory that a long text is tokenised and trained on within: GPT-2's tokenizer, a small model, all in one command.

    python bench/train_text.py TEXT [--size 2e9] [--steps 30] [--output bench/results]

The lines of TEXT are repeated in random orders until they are so many bytes. Measured is the most that the command and
its children had in memory at once, every second: their proportional set size, which counts pages of files, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch

from neural.training.metrics import read_metrics

EXAMPLE = Path(__file__).parent.parent / "examples" / "gpt2.neural"
SETS = {"n_layer": 2, "d_model": 64, "n_head": 2, "context": 64}
SHARDS = "data"  # a folder of the run


def write_text(source: Path, size: float, path: Path) -> None:
    lines, draw = source.read_text().split("\n"), random.Random(0)
    with path.open("w") as file:
        while file.tell() < size:
            draw.shuffle(lines)
            file.write("\n".join(lines) + "\n")


def held(process: psutil.Process) -> int:
    """Bytes of a process and its children; 0 of those that have ended."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def measure(text: Path, run: Path, steps: int) -> dict[str, Any]:
    given = [word for key, value in SETS.items() for word in ("--set", f"{key}={value}")]
    where = ["--data", text, "--out", run, "--stop-at", steps]
    command = [sys.executable, "-m", "neural", "train", EXAMPLE, *where, *given]
    began, peaks = time.perf_counter(), {"tokenising": 0, "training": 0}
    training = psutil.Popen([*map(str, command)])
    while training.poll() is None:
        try:
            now = held(training)
        except psutil.Error:
            break
        part = "training" if (run / SHARDS).exists() else "tokenising"
        peaks[part] = max(peaks[part], now)
        time.sleep(1)
    if training.wait():
        raise SystemExit(training.returncode)
    last = [record for record in read_metrics(run / "metrics.jsonl") if record["kind"] == "train"][-1]
    return {
        "bytes_of_text": text.stat().st_size,
        "steps": steps,
        "tokens_a_step": last["tokens"] // last["step"],
        "seconds": time.perf_counter() - began,
        "peak_bytes": peaks,
        "loss": last["loss"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="a text of some megabytes")
    parser.add_argument("--size", type=float, default=2e9, help="bytes that are trained on")
    parser.add_argument("--steps", type=int, default=30, help="of 480 sequences of 64 tokens")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="the folder for results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        text = Path(name) / "text.txt"
        write_text(arguments.text, arguments.size, text)
        row = measure(text, Path(name) / "run", arguments.steps)
    print({part: f"{peak / 1e6:,.0f} MB" for part, peak in row["peak_bytes"].items()}, f"{row['seconds']:.0f} s")
    now = datetime.now(UTC)
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "libc": " ".join(platform.libc_ver())}
    head = {"date": now.isoformat(timespec="seconds"), "machine": machine, "torch": str(torch.__version__)}
    path = arguments.output / f"train_text_{now:%Y-%m-%d}.json"
    path.write_text(json.dumps(head | row, indent=2) + "\n")


if __name__ == "__main__":
    main()
