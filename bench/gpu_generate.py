"""GPT-2 XL in bfloat16 on a GPU: one text, and 64 together beside transformers' continuous batching, in turn.

    python bench/gpu_generate.py [--size xl|small] [--rounds 5]

Random weights, the same for both. Results: bench/results/generate_gpu_<size>_<date>.json.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from neural.backends.module import load_module
from neural.benchmarks.peers import bytes_read
from neural.compiler import load
from neural.generation.engine import Engine
from neural.generation.graph_executor import GraphExecutor
from neural.generation.options import SamplingOptions
from neural.generation.request import Limits, Request

HERE = Path(__file__).parent
SIZES = {"xl": {"d_model": 1600, "n_layer": 48, "n_head": 25}, "small": {"d_model": 768, "n_layer": 12, "n_head": 12}}
PROMPT, NEW, TOGETHER = 128, 128, 64
Write = Callable[[list[list[int]], int], list[list[int]]]  # prompts and a number of new tokens: those tokens


def write(engine: Engine, prompts: list[list[int]], new: int) -> list[list[int]]:
    handles = [engine.submit(Request(prompt, new, SamplingOptions(temperature=0))) for prompt in prompts]
    written: dict[int, list[int]] = {handle: [] for handle in handles}
    while engine.busy:
        for event in engine.step():
            written[event.handle].append(event.token)
    return [written[handle] for handle in handles]


def continuous_batching(peer: GPT2LMHeadModel, prompts: list[list[int]], new: int) -> list[list[int]]:
    none = {"eos_token_id": None, "bos_token_id": 0, "pad_token_id": 0}
    config = GenerationConfig(max_new_tokens=new, do_sample=False, **none)
    answers = peer.generate_batch(prompts, generation_config=config, persistent_manager=True)
    return [answer.generated_tokens for answer in answers.values()]


@torch.no_grad()
def same_in_transformers(model: torch.nn.Module, size: str) -> GPT2LMHeadModel:
    sizes = SIZES[size]
    config = GPT2Config(n_embd=sizes["d_model"], n_layer=sizes["n_layer"], n_head=sizes["n_head"])
    with torch.device("cuda"):
        peer = GPT2LMHeadModel(config).to(torch.bfloat16).eval()
    own = dict(model.named_parameters())
    for name, parameter in peer.named_parameters():
        ours = name.removeprefix("transformer.").replace("h.", "blocks.", 1) if ".h." in name else name.split(".", 1)[1]
        ours = ours.replace("attn.c_attn", "attn.qkv")
        matrix = own[ours]
        parameter.copy_(matrix.T if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else matrix)
    return peer


def bandwidth(size: int = 8 << 30) -> float:
    """Bytes a second that are read, the best of five tries."""
    numbers, best = torch.ones(size // 4, device="cuda"), 0.0
    for _ in range(5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        numbers.sum()
        end.record()
        end.synchronize()
        best = max(best, 1000 * size / start.elapsed_time(end))
    return best


def seconds(of: Write, prompts: list[list[int]], new: int) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    assert all(len(text) == new for text in of(prompts, new))
    torch.cuda.synchronize()
    return time.perf_counter() - began


def profiled(of: Write, prompts: list[list[int]]) -> str:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        of(prompts, 9)
    return profile.key_averages().table(sort_by="device_time_total", row_limit=40, max_name_column_width=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="xl")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", type=Path, help="a file for the kernels of our steps")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="the folder for results")
    arguments = parser.parse_args()
    program = load(HERE.parent / "examples" / "gpt2.neural", SIZES[arguments.size], None)
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = getattr(load_module(program.source("pytorch"), program.name), program.name)().to(torch.bfloat16).eval()
    rng = random.Random(0)

    def texts(count: int) -> list[list[int]]:
        return [[rng.randrange(program.vocab_size) for _ in range(PROMPT)] for _ in range(count)]

    def engine(slots: int) -> Engine:
        sizes = {"context": program.context, "vocab_size": program.vocab_size}
        limits = Limits(slots=slots, prefill_tokens=PROMPT * 4)
        return Engine(GraphExecutor(model, limits, **sizes, say=partial(print, flush=True)))

    read, found = bytes_read(program)["float32"] // 2, {}
    alone = partial(write, engine(1))
    alone(texts(1), 4)
    speeds, memory = [], []
    for _ in range(arguments.rounds):
        memory.append(bandwidth())
        first, whole = (seconds(alone, texts(1), new) for new in (1, NEW + 1))
        speeds.append(NEW / (whole - first))
    speed, share = (
        statistics.median(speeds),
        statistics.median(s * read / m for s, m in zip(speeds, memory, strict=True)),
    )
    found["one"] = {
        "rounds": speeds,
        "tokens_per_second": speed,
        "first_token_seconds": first,
        "bandwidth_share": share,
    }
    found |= {"bandwidth_bytes_per_second": statistics.median(memory), "bytes_per_token": read}
    print(json.dumps(found), flush=True)
    if arguments.profile:
        arguments.profile.write_text(profiled(alone, texts(1)))
    del alone
    torch.cuda.empty_cache()
    together = {"neural": partial(write, engine(TOGETHER))}
    together["transformers"] = partial(continuous_batching, same_in_transformers(model, arguments.size))
    for name, of in together.items():
        print(name, "warm after", round(seconds(of, texts(TOGETHER), NEW), 1), "s", flush=True)
    took: dict[str, list[float]] = {name: [] for name in together}
    for number in range(1, arguments.rounds + 1):
        for name, of in together.items():
            took[name].append(seconds(of, texts(TOGETHER), NEW))
            print(f"round {number}: {name:14} {TOGETHER * NEW / took[name][-1]:>9,.0f} tokens/s", flush=True)
    speeds = {name: TOGETHER * NEW / statistics.median(each) for name, each in took.items()}
    found["together"] = {"texts": TOGETHER, "tokens_per_second": speeds, "seconds": took}
    now = datetime.now(UTC)
    head = {
        "date": now.isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }
    head |= {"size": arguments.size, "prompt": PROMPT, "new": NEW, "precision": "bfloat16"}
    path = arguments.output / f"generate_gpu_{arguments.size}_{now:%Y-%m-%d}.json"
    path.write_text(json.dumps(head | found, indent=1) + "\n")
    print(json.dumps(found["together"]["tokens_per_second"]), path)


if __name__ == "__main__":
    main()
