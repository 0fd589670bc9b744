"""Tokens per second of our engine and of transformers' `generate`, in turn, on models of random weights.

    python bench/generate.py [--model shakespeare|gpt2] [--batches 1,4,16] [--prompt 128] [--new 32] [--rounds 3]
    python bench/generate.py --mixed 64       # requests of mixed lengths: continuous batching against padded batches

Every call has prompts of its own. Tokens are greedy on both sides, and none ends a text. Float32, threads as
OMP_NUM_THREADS says. A time holds the reading of the prompts too. Results: bench/results/generate_<model>_<date>.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from neural.backends.module import load_module
from neural.compiler import compile_source
from neural.diagnostics.source import Source
from neural.generation.engine import Engine
from neural.generation.options import SamplingOptions
from neural.generation.request import Limits, Request

HERE = Path(__file__).parent
SIZES = {  # of examples/gpt2.neural
    "shakespeare": {"vocab_size": 65, "context": 1024, "d_model": 128, "n_layer": 4, "n_head": 4},
    "gpt2": {"vocab_size": 50257, "context": 1024, "d_model": 768, "n_layer": 12, "n_head": 12},
}
GREEDY = SamplingOptions(temperature=0)
Prompts = list[list[int]]


def our_model(sizes: dict[str, int]) -> nn.Module:
    text = (HERE.parent / "examples" / "gpt2.neural").read_text().replace('tokenizer: "gpt2"', "")
    program = compile_source(Source("gpt2.neural", text), sizes)
    return getattr(load_module(program.source("pytorch"), program.name), program.name)().eval()


def their_model(sizes: dict[str, int]) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    names = {"vocab_size": "vocab_size", "context": "n_positions", "d_model": "n_embd", "n_layer": "n_layer"}
    config = {theirs: sizes[ours] for ours, theirs in names.items()}
    return GPT2LMHeadModel(GPT2Config(**config, n_head=sizes["n_head"], bos_token_id=None, eos_token_id=None)).eval()


def ours(model: nn.Module, sizes: dict[str, int], prompts: Prompts, new: list[int], slots: int) -> None:
    engine = Engine(model, context=sizes["context"], vocab_size=sizes["vocab_size"], limits=Limits(slots=slots))
    for prompt, count in zip(prompts, new, strict=True):
        engine.submit(Request(prompt, count, GREEDY))
    while engine.busy:
        engine.step()


@torch.inference_mode()
def theirs(model: nn.Module, prompts: Prompts, new: list[int], slots: int) -> None:
    """Batches of `slots`, padded on the left to the longest prompt, until the longest answer is done."""
    for start in range(0, len(prompts), slots):
        batch, count = prompts[start : start + slots], max(new[start : start + slots])
        longest = max(map(len, batch))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in batch])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in batch])
        model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=count, pad_token_id=0)


def padded(model: nn.Module, sizes: dict[str, int], prompts: Prompts, new: list[int], slots: int) -> None:
    """Our own engine used as padded batches would be: of each `slots` requests all wait for the slowest."""
    for start in range(0, len(prompts), slots):
        batch, count = prompts[start : start + slots], max(new[start : start + slots])
        longest = max(map(len, batch))
        room = sizes["context"] - count
        ours(model, sizes, [[0] * (min(longest, room) - len(p)) + p for p in batch], [count] * len(batch), slots)


def seconds(call: Callable[[], None]) -> tuple[float, float]:
    """Of the wall clock, and of all CPUs: on a machine that others use, only the second tells engines apart."""
    began = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - began[0], time.process_time() - began[1]


def measure(
    calls: dict[str, Callable[[Prompts], None]], prompts: Callable[[], Prompts], rounds: int
) -> dict[str, dict]:
    """Seconds of each, in turn, after one round that does not count."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for i in range(rounds + 1):
        for name, call in calls.items():
            given = prompts()
            taken = seconds(lambda call=call, given=given: call(given))
            if i:
                found[name].append(taken)
    return {
        name: {
            kind: {"median": statistics.median(t), "all": [round(x, 4) for x in t]}
            for kind, t in zip(("wall", "cpu"), zip(*times, strict=True), strict=True)
        }
        for name, times in found.items()
    }


def by_batch(model: nn.Module, peer: nn.Module, sizes: dict[str, int], args: argparse.Namespace) -> dict:
    rng, results = random.Random(0), {}
    for batch in args.batches:
        new = [args.new] * batch
        calls = {
            "neural": lambda p, n=new, b=batch: ours(model, sizes, p, n, b),
            "transformers": lambda p, n=new, b=batch: theirs(peer, p, n, b),
        }
        made = measure(
            calls,
            lambda b=batch: [[rng.randrange(sizes["vocab_size"]) for _ in range(args.prompt)] for _ in range(b)],
            args.rounds,
        )
        results[f"batch {batch}"] = made
        for kind in ("wall", "cpu"):
            speeds = {name: batch * args.new / t[kind]["median"] for name, t in made.items()}
            told = ", ".join(f"{name} {s:.1f}" for name, s in speeds.items())
            print(f"batch {batch:3}, tokens a {kind} second: {told}", flush=True)
    return results


def mixed(model: nn.Module, peer: nn.Module, sizes: dict[str, int], args: argparse.Namespace) -> dict:
    """16 to 800 tokens in, 8 to 256 out (within the context), all there at once, 16 slots."""
    rng = random.Random(0)
    lengths = [(rng.randint(16, 700), rng.randint(8, 256)) for _ in range(args.mixed)]
    new = [n for _, n in lengths]
    calls = {
        "continuous": lambda p: ours(model, sizes, p, new, 16),
        "padded": lambda p: padded(model, sizes, p, new, 16),
        "transformers padded": lambda p: theirs(peer, p, new, 16),
    }
    made = measure(
        calls, lambda: [[rng.randrange(sizes["vocab_size"]) for _ in range(n)] for n, _ in lengths], args.rounds
    )
    for kind in ("wall", "cpu"):
        print(f"{kind}: " + ", ".join(f"{name} {t[kind]['median']:.2f} s" for name, t in made.items()))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZES, default="shakespeare")
    parser.add_argument("--batches", type=lambda s: [int(n) for n in s.split(",")], default=[1, 4, 16])
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mixed", type=int, default=0, metavar="REQUESTS")
    args = parser.parse_args()
    sizes = SIZES[args.model]
    model, peer = our_model(sizes), their_model(sizes)
    results = (mixed if args.mixed else by_batch)(model, peer, sizes, args)
    now = datetime.now(UTC)
    machine = {
        "platform": platform.platform(), "cpus": os.cpu_count(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "load": os.getloadavg()[0],
    }  # fmt: skip
    kind = f"mixed{args.mixed}" if args.mixed else f"{args.prompt}+{args.new}"
    path = HERE / "results" / f"generate_{args.model}_{kind}_{now:%Y-%m-%d}.json"
    record = {"arguments": vars(args), "machine": machine, "date": now.isoformat(), "seconds": results}
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
