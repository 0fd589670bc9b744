"""GPT-2 124M in onnxruntime, 128 greedy tokens: our graph and PyTorch's export of Hugging Face's, in turn.

    pip install --constraint constraints.txt onnxscript && python bench/onnx_generate.py [--rounds 5]

Theirs is `torch.onnx.export(dynamo=True)` of `GPT2LMHeadModel` with its cache as inputs and outputs, under the names
that optimum gives them. Both have the same random weights and are driven by the same loop; their tokens and PyTorch's
must be equal. Results: bench/results/onnx_generate_<date>.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import transformers
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

from neural.backends.onnx import emit, write
from neural.compiler import load
from neural.graph.graph import weights
from neural.graph.passes import optimize
from neural.quantization.quantize import round_all

HERE = Path(__file__).parent
PROMPT, NEW = 16, 128
NAMES = (
    ("blocks.", "transformer.h."), ("attn.qkv", "attn.c_attn"), ("wte.", "transformer.wte."),
    ("wpe.", "transformer.wpe."), ("ln_f.", "transformer.ln_f."),
)  # fmt: skip


class WithPast(torch.nn.Module):
    """Keys and values as tensors, (B, heads, past, head_dim), two a layer."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, position_ids, past):
        cache = DynamicCache([tuple(pair) for pair in past])
        out = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, past_key_values=cache
        )
        return out.logits, [(layer.keys, layer.values) for layer in out.past_key_values.layers]


def export_theirs(model: GPT2LMHeadModel, path: Path) -> None:
    layers, heads = model.config.n_layer, model.config.n_head
    width = model.config.n_embd // heads
    past = [(torch.zeros(2, heads, 5, width), torch.zeros(2, heads, 5, width)) for _ in range(layers)]
    ids, mask, positions = (torch.zeros(2, n, dtype=torch.long) for n in (3, 8, 3))
    example = (ids, mask + 1, positions + torch.arange(5, 8), past)
    names = [f"{{}}.{i}.{part}" for i in range(layers) for part in ("key", "value")]
    free = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        WithPast(model).eval(), example, path, dynamo=True,
        input_names=["input_ids", "attention_mask", "position_ids", *(n.format("past_key_values") for n in names)],
        output_names=["logits", *(n.format("present") for n in names)],
        dynamic_shapes=(*({0: free, 1: free},) * 3, [({0: free, 2: free},) * 2] * layers),
    )  # fmt: skip


def export_ours(model: GPT2LMHeadModel, path: Path, quantize: str | None) -> None:
    network = optimize(load(HERE.parent / "examples" / "gpt2.neural").graph)
    state = model.state_dict()
    found = {}
    for name in weights(network.block):
        theirs = name
        for ours, other in NAMES:
            theirs = theirs.replace(ours, other)
        turned = name.endswith("weight") and any(part in theirs for part in ("c_attn", "c_proj", "c_fc"))
        found[name] = (state[theirs].T if turned else state[theirs]).numpy()
    write(emit(network, found, round_all(network.block, found, quantize) if quantize else {}), path)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def generate(session: onnxruntime.InferenceSession, prompt: np.ndarray) -> tuple[list[int], float]:
    """The tokens, and how many a second."""
    past = {
        i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32)
        for i in session.get_inputs()
        if i.name.startswith("past_key_values.")
    }
    new, mask, tokens = prompt, np.ones_like(prompt), []
    began = time.perf_counter()
    for _ in range(NEW):
        positions = np.arange(mask.shape[1])[None, -new.shape[1] :]
        given = {"input_ids": new, "attention_mask": mask, "position_ids": positions}
        logits, *present = session.run(None, given | past)
        past = dict(zip(past, present, strict=True))
        new = logits[:, -1:].argmax(-1)
        mask = np.concatenate((mask, np.ones_like(new)), axis=1)
        tokens.append(int(new[0, 0]))
    return tokens, NEW / (time.perf_counter() - began)


def machine() -> dict[str, str | int]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    cpu = ", ".join(sorted(models)) or platform.processor()
    return {"cpu": cpu, "cores": os.cpu_count() or 0, "system": platform.platform()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="where the results go, instead of bench/results")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).eval()
    prompt = torch.randint(50257, (1, PROMPT), generator=torch.Generator().manual_seed(1))
    expected = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW, do_sample=False, eos_token_id=None,
        pad_token_id=0,
    )[0, PROMPT:].tolist()  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_theirs(model, folder / "huggingface.onnx")
        for who, quantize in (("neural", None), ("neural_int8", "int8"), ("neural_int4", "int4")):
            export_ours(model, folder / f"{who}.onnx", quantize)
        order = ("huggingface", "neural", "neural_int8", "neural_int4")
        sizes = {who: sum(f.stat().st_size for f in folder.glob(f"{who}.onnx*")) for who in order}
        sessions = {who: open_session(folder / f"{who}.onnx") for who in order}
    rates: dict[str, list[float]] = {who: [] for who in order}
    for number in range(arguments.rounds + 1):  # the first is to warm up
        for who, session in sessions.items():
            tokens, rate = generate(session, prompt.numpy())
            if who in ("huggingface", "neural") and tokens != expected:
                raise SystemExit(f"{who} gives other tokens than PyTorch")
            if number:
                rates[who].append(round(rate, 2))
                print(f"round {number}: {who:12} {rate:7.2f} tokens a second", flush=True)
    medians = {who: statistics.median(r) for who, r in rates.items()}
    ratios = {who: round(rate / medians["huggingface"], 3) for who, rate in medians.items()}
    print(f"median: {medians}, against Hugging Face's export: {ratios}")
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {m.__name__: str(m.__version__) for m in (torch, transformers, onnxruntime)},
        "prompt": PROMPT,
        "new_tokens": NEW,
        "bytes": sizes,
        "median_tokens_per_second": medians,
        "ratio": ratios,
        "rounds": rates,
    }
    path = arguments.output or HERE / "results" / f"onnx_generate_{datetime.now(UTC):%Y-%m-%d}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
