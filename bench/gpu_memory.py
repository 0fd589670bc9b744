"""Memory of training on a GPU, as planned and as torch allocates it: GPT-2 XL at the largest batch that is to fit.

    python bench/gpu_memory.py [--size xl|small] [--no-checkpointing]

Two steps in bfloat16, context 1,024. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch
from gpu_generate import SIZES

from neural.backends.module import load_module
from neural.compiler import load
from neural.planning.hardware import this_machine
from neural.planning.plan import plan
from neural.training.compiling import compile_where_it_wins
from neural.training.optimizers import make_optimizer
from neural.training.shares import alone
from neural.training.step import optimizer_step

EXAMPLE = Path(__file__).parent.parent / "examples" / "gpt2.neural"
CUDA = torch.device("cuda")
STEPS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="xl")
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--batch", type=int, help="Without it: the largest that is to fit.")
    arguments = parser.parse_args()
    execution = f"execution {{ activation_checkpointing: {str(arguments.checkpointing).lower()} compile: false }}"
    text = (
        EXAMPLE.read_text().replace("gradient_accumulation: 40", "").replace("  train {", f"  {execution}\n  train {{")
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.neural"
        path.write_text(text)
        program = load(path, SIZES[arguments.size] | {"dropout": 0.0}, None)
    device, batch = this_machine(), arguments.batch or 1
    made = plan(program, batch, device="cuda", precision="bfloat16")
    while not arguments.batch:
        more = plan(program, batch + 1, device="cuda", precision="bfloat16")
        if more.training.total > device.usable:
            break
        batch, made = batch + 1, more
    with CUDA:
        model = getattr(load_module(program.source("pytorch"), program.name), program.name)()
    parallel = alone(model.train(), batch)
    parallel.loss.precision = "bfloat16"
    compile_where_it_wins(program, parallel, CUDA)
    optimizer = make_optimizer(program.settings.optimizer, model)
    ids = torch.randint(program.vocab_size, (batch, program.context + 1), device=CUDA)
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        loss = optimizer_step(parallel, optimizer, [(ids[:, :-1], ids[:, 1:])], rate=1e-4, clip=1.0).loss
        seconds.append(time.perf_counter() - began)
    found = {"device": torch.cuda.get_device_name(), "size": arguments.size, "batch": batch, "loss": loss}
    found |= {"checkpointing": arguments.checkpointing, "seconds": seconds, "planned": made.training.total}
    found |= {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    print(json.dumps(found | {"usable": device.usable, "parts": asdict(made.training)}))


if __name__ == "__main__":
    main()
