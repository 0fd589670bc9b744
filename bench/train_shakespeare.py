"""nanoGPT's recipe for character-level Shakespeare on CPUs, by nanoGPT and by us, in turn: seconds and validation loss.

    python bench/train_shakespeare.py --nanogpt ../nanoGPT --corpus tinyshakespeare.txt [--rounds 3]

`--nanogpt` is a checkout of https://github.com/karpathy/nanoGPT; it is copied, not changed. Each training is a process
of its own from its start to its end, imports and tokenising included, and nothing else runs beside it. Both models are
then measured on all of the held-out text by one function. Results: bench/results/train_shakespeare_<date>.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from neural.training.distributed.parallel import Parallel
from neural.training.evaluate import evaluate
from neural.training.run import Run
from neural.training.session import to_device

HERE = Path(__file__).parent
PROGRAM = HERE.parent / "examples" / "shakespeare_char.neural"
CPU = torch.device("cpu")

# The command of nanoGPT's README ("I only have a macbook"), with as many steps as asked for.
NANOGPT = """
train.py config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64
--batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters={steps} --lr_decay_iters={steps} --dropout=0.0
"""


class NanoGpt(nn.Module):
    """nanoGPT's model as one that gives all logits: given targets, it does."""

    def __init__(self, checkout: Path) -> None:
        super().__init__()
        spec = importlib.util.spec_from_file_location("nanogpt_model", checkout / "model.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # its dataclass looks itself up there
        spec.loader.exec_module(module)
        checkpoint = torch.load(checkout / "out-shakespeare-char" / "ckpt.pt", weights_only=True)
        self.inner = module.GPT(module.GPTConfig(**checkpoint["model_args"]))
        self.inner.load_state_dict(checkpoint["model"])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.inner(ids.contiguous(), ids.contiguous())[0]


def timed(command: list[str], folder: Path) -> dict[str, float]:
    """Run a command alone: wall and CPU seconds, and peak memory in MB. Its output goes to `folder`/last.log."""
    with (folder / "last.log").open("w") as log:
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], cwd=folder, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(command)} failed: see {folder / 'last.log'}")
    used = usage.ru_utime + usage.ru_stime
    return {"seconds": round(seconds, 2), "cpu_seconds": round(used, 2), "peak_mb": round(usage.ru_maxrss / 1024)}


def prepare_nanogpt(source: Path, corpus: Path, work: Path) -> Path:
    """A copy of the checkout with the corpus in its own format."""
    checkout = work / "nanogpt"
    shutil.copytree(source, checkout, ignore=shutil.ignore_patterns(".git"))
    folder = checkout / "data" / "shakespeare_char"
    shutil.copy(corpus, folder / "input.txt")
    subprocess.run([sys.executable, "prepare.py"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return checkout


def held_out_loss(model: nn.Module, run: Run) -> float:
    """Nats a character over all of the text that was held out."""
    batches = (to_device(batch, CPU) for batch in run.data.evaluation(limit=run.data.store.n_tokens))
    return round(evaluate(Parallel(model.eval()), batches, run.tokenizer.byte_lengths).loss, 4)


def measure(nanogpt: Path, corpus: Path, rounds: int, steps: int) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {"nanogpt": [], "neural": []}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        checkout = prepare_nanogpt(nanogpt, corpus, work)
        program = work / PROGRAM.name
        program.write_text(PROGRAM.read_text().replace("param steps = 2000", f"param steps = {steps}"))
        for number in range(rounds):
            shutil.rmtree(checkout / "out-shakespeare-char", ignore_errors=True)
            theirs = timed(NANOGPT.format(steps=steps).split(), checkout)
            run = work / f"run-{number}"
            command = ["-m", "neural", "train", str(program), "--data", str(corpus), "--out", str(run)]
            ours = timed([*command, "--device", "cpu"], work)
            opened = Run.open(run)
            theirs["validation_loss"] = held_out_loss(NanoGpt(checkout), opened)
            ours["validation_loss"] = held_out_loss(opened.load_model(), opened)
            for who, result in (("nanogpt", theirs), ("neural", ours)):
                found[who].append(result)
                print(f"round {number + 1}: {who:8} {result}", flush=True)
    return found


def machine() -> dict[str, str | int]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    name = ", ".join(sorted(models)) or platform.processor()
    return {
        "cpu": name,
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }


def commit(checkout: Path) -> str:
    found = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or "not a git checkout"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of nanoGPT")
    parser.add_argument("--corpus", type=Path, required=True, help="tinyshakespeare.txt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--output", type=Path, help="where the results go, instead of bench/results")
    arguments = parser.parse_args()
    found = measure(arguments.nanogpt.resolve(), arguments.corpus.resolve(), arguments.rounds, arguments.steps)
    names = ("seconds", "cpu_seconds", "peak_mb", "validation_loss")
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        "nanogpt_commit": commit(arguments.nanogpt),
        "steps": arguments.steps,
        "median": {who: {n: statistics.median(r[n] for r in rows) for n in names} for who, rows in found.items()},
        "rounds": found,
    }
    path = arguments.output or HERE / "results" / f"train_shakespeare_{datetime.now(UTC):%Y-%m-%d}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["median"], indent=2), f"\n{path}")


if __name__ == "__main__":
    main()
