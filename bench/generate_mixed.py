"""Requests of mixed lengths, all there at once: continuous batching against batches padded to the longest.

    python bench/generate_mixed.py [--requests 64] [--slots 16] [--rounds 3] [--width float32]

GPT-2 124M of random weights, 16 to 700 tokens in and 8 to 256 out, greedy. Both are the native engine; the padded one
takes `slots` requests at a time, fills their prompts up to the longest, and waits for the longest answer. Results:
bench/results/generate_mixed_<date>.json.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gpt2_model import machine, write_gpt2

from neural.generation.engine import Engine
from neural.generation.executors import choose_executor
from neural.generation.options import SamplingOptions
from neural.generation.request import Limits, Request
from neural.training.trained import open_trained

GREEDY = SamplingOptions(temperature=0)
Work = list[tuple[list[int], int]]  # prompts, and how many tokens each wants


def continuous(engine: Engine, work: Work, slots: int) -> None:
    for prompt, new in work:
        engine.submit(Request(prompt, new, GREEDY))
    while engine.busy:
        engine.step()


def padded(engine: Engine, work: Work, slots: int) -> None:
    for start in range(0, len(work), slots):
        batch = work[start : start + slots]
        longest, new = max(len(prompt) for prompt, _ in batch), max(new for _, new in batch)
        continuous(engine, [([0] * (longest - len(prompt)) + prompt, new) for prompt, _ in batch], slots)


def measure(engine: Engine, slots: int, requests: int, rounds: int) -> dict[str, list[float]]:
    rng = random.Random(0)
    lengths = [(rng.randint(16, 700), rng.randint(8, 256)) for _ in range(requests)]
    manners: dict[str, Callable[[Engine, Work, int], None]] = {"continuous": continuous, "padded": padded}
    found: dict[str, list[float]] = {name: [] for name in manners}
    for round_ in range(rounds):
        for name, manner in manners.items():
            work = [([rng.randrange(50257) for _ in range(n)], new) for n, new in lengths]
            began = time.perf_counter()
            manner(engine, work, slots)
            found[name].append(round(time.perf_counter() - began, 3))
            print(f"round {round_ + 1}: {name} {found[name][-1]} s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", default="float32")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        opened = choose_executor(
            open_trained(write_gpt2(Path(folder))), "native", None if args.width == "float32" else args.width
        )
        engine, where = Engine(opened.open(Limits(slots=args.slots))), machine()
    seconds = measure(engine, args.slots, args.requests, args.rounds)
    ratio = statistics.median(seconds["padded"]) / statistics.median(seconds["continuous"])
    path = Path(__file__).parent / "results" / f"generate_mixed_{where['date'][:10]}.json"
    record = {"machine": where, "arguments": vars(args), "seconds": seconds, "padded_over_continuous": round(ratio, 2)}
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"continuous batching is done {ratio:.2f} times as soon; wrote {path}")


if __name__ == "__main__":
    main()
