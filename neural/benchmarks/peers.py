"""Programs that write text with one and the same model, greedily, and never stop at an end."""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from neural.compiler import Program
from neural.graph.graph import primitives, tied, weights
from neural.graph.passes import optimize
from neural.layers.dense import Dense, Projections
from neural.quantization.choice import widths
from neural.quantization.matrix import size

Prompts = list[list[int]]
Opener = Callable[[Path, int], Any]  # folder, threads


class Peer(Protocol):
    def generate(self, prompts: Prompts, new: int) -> list[list[int]]:
        """Continue all prompts, which are of one length, by `new` tokens each, together."""


class Ours:
    """The engine on one of its executors."""

    def __init__(self, folder: Path, threads: int, executor: str, quantize: str | None) -> None:
        import torch

        from neural.generation.engine import Engine
        from neural.generation.executors import choose_executor
        from neural.generation.options import SamplingOptions
        from neural.generation.request import Limits, Request
        from neural.training.trained import open_trained

        torch.set_num_threads(threads)
        found = open_trained(Path((folder / "source").read_text()))
        limits = Limits(slots=int((folder / "slots").read_text()))
        self._engine = Engine(choose_executor(found, executor, quantize).open(limits))
        del found  # its float32 weights, where the executor has them in a form of its own
        self._request = partial(Request, options=SamplingOptions(temperature=0))

    def generate(self, prompts: Prompts, new: int) -> list[list[int]]:
        handles = [self._engine.submit(self._request(prompt, new)) for prompt in prompts]
        written: dict[int, list[int]] = {handle: [] for handle in handles}
        while self._engine.busy:
            for event in self._engine.step():
                written[event.handle].append(event.token)
        return [written[handle] for handle in handles]


class Transformers:
    """Hugging Face's `generate`. static: with a static cache, and compiled."""

    def __init__(self, folder: Path, threads: int, static: bool = False) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self._model = AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32).eval()
        self._model.generation_config.eos_token_id = None
        self._manner = {"cache_implementation": "static"} if static else {}
        if static:
            self._model.forward = torch.compile(self._model.forward)
        self._tensor = torch.tensor

    def generate(self, prompts: Prompts, new: int) -> list[list[int]]:
        ids = self._tensor(prompts)
        out = self._model.generate(
            ids, attention_mask=ids * 0 + 1, do_sample=False, max_new_tokens=new, pad_token_id=0, **self._manner
        )
        return out[:, ids.shape[1] :].tolist()


class CTranslate2:
    """width: "float32" or "int8"."""

    def __init__(self, folder: Path, threads: int, width: str) -> None:
        import ctranslate2

        made = folder / f"ctranslate2-{width}"
        if not made.exists():
            kind = None if width == "float32" else width
            ctranslate2.converters.TransformersConverter(str(folder / "hf")).convert(str(made), quantization=kind)
            named = json.loads((made / "config.json").read_text())
            lacking = [name for name, value in named.items() if name.endswith("_token") and value is None]
            (made / "config.json").write_text(json.dumps(named | dict.fromkeys(lacking, "<|endoftext|>")))
        self._generator = ctranslate2.Generator(str(made), compute_type=width, intra_threads=threads, inter_threads=1)
        vocabulary = json.loads((folder / "hf" / "tokenizer.json").read_text())["model"]["vocab"]
        self._names = sorted(vocabulary, key=vocabulary.__getitem__)

    def generate(self, prompts: Prompts, new: int) -> list[list[int]]:
        words = [[self._names[i] for i in prompt] for prompt in prompts]
        found = self._generator.generate_batch(
            words, max_length=new, min_length=new, sampling_topk=1, include_prompt_in_result=False, end_token=[]
        )
        return [one.sequences_ids[0] for one in found]


class LlamaCpp:
    """kind: "F32", "Q8_0" or "Q4_0", in which the GGUF file's matrices are stored."""

    def __init__(self, folder: Path, threads: int, kind: str) -> None:
        import xllamacpp as x

        path = folder / "gguf" / "model.gguf"
        if kind != "F32":
            path, source = folder / f"model-{kind}.gguf", path
            if not path.exists():
                requantized(source, path, kind)
        slots = int((folder / "slots").read_text())
        params = x.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = 1024 * slots, slots, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.fit_params = params.warmup = False
        self._server = x.Server(params)

    def generate(self, prompts: Prompts, new: int) -> list[list[int]]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(partial(self._complete, new=new), prompts))

    def _complete(self, prompt: list[int], new: int) -> list[int]:
        wanted = {"prompt": prompt, "n_predict": new, "temperature": 0, "ignore_eos": True, "return_tokens": True}
        request = urllib.request.Request(
            f"{self._server.listening_address}/completion",
            json.dumps({**wanted, "cache_prompt": False}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)["tokens"]


def requantized(source: Path, target: Path, kind: str) -> None:
    """A GGUF file with its float32 matrices in another type, positions aside, as llama-quantize leaves them."""
    import gguf

    reader = gguf.GGUFReader(source)
    architecture = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(target, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        value_type = field.types[0]
        inner = field.types[-1] if value_type is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), value_type, inner)
    wanted = gguf.GGMLQuantizationType[kind]
    for tensor in reader.tensors:
        data, stored = tensor.data, tensor.tensor_type
        if len(tensor.shape) == 2 and not tensor.name.startswith("position"):
            data, stored = gguf.quants.quantize(data, wanted), wanted
        writer.add_tensor(tensor.name, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _at_each_width(executor: str) -> dict[str, Opener]:
    quantized = {"float32": None, "int8": "int8", "int4": "int4"}
    return {width: partial(Ours, executor=executor, quantize=to) for width, to in quantized.items()}


class Kind(NamedTuple):
    """widths: what opens the peer, by the width of its weights. package: what must be installed. form: of `neural
    export`, which it reads; None where it opens the source itself.
    """

    widths: dict[str, Opener]
    package: str | None = None
    form: str | None = None


KINDS = {
    "neural": Kind(_at_each_width("native")),
    "neural-torch": Kind({"float32": partial(Ours, executor="torch", quantize=None)}),
    "neural-compiled": Kind({"float32": partial(Ours, executor="compiled", quantize=None)}),
    "transformers": Kind({"float32": Transformers}, "transformers", "hf"),
    "transformers-static": Kind({"float32": partial(Transformers, static=True)}, "transformers", "hf"),
    "onnxruntime": Kind(_at_each_width("onnxruntime"), "onnxruntime"),
    "openvino": Kind(_at_each_width("openvino"), "openvino"),
    "ctranslate2": Kind({w: partial(CTranslate2, width=w) for w in ("float32", "int8")}, "ctranslate2", "hf"),
    "llama.cpp": Kind(
        {w: partial(LlamaCpp, kind=k) for w, k in (("float32", "F32"), ("int8", "Q8_0"), ("int4", "Q4_0"))},
        "xllamacpp",
        "gguf",
    ),
}
WIDTHS = ("float32", "int8", "int4")


def installed(name: str) -> bool:
    package = KINDS[name].package
    return package is None or find_spec(package) is not None


def bytes_read(program: Program) -> dict[str, int]:
    """Weights that a token takes, by width: the matrices of all products, and a row of each table."""
    block = optimize(program.graph).block
    owned, shared = weights(block), tied(block)
    products = [f"{p.path}.weight" for p in primitives(block) if isinstance(p.node.layer, Dense | Projections)]
    shapes = {name: owned[name].shape for name in {shared.get(name, name) for name in products}}
    of_floats = {"float32": sum(4 * math.prod(shape) for shape in shapes.values())}
    return of_floats | {
        width: sum(size(shapes[name], bits) for name, bits in widths(block, width).items() if name in shapes)
        for width in WIDTHS[1:]
    }
