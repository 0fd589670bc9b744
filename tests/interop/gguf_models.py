"""Models for the tests of GGUF: random checkpoints, our generated source with their weights, and llama.cpp itself."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, GGUFWriter

from neural.backends.module import load_module
from neural.compiler import compile_source
from neural.data.tokenizers.gpt2 import installed_gpt2
from neural.data.tokenizers.layout import byte_alphabet, to_json
from neural.diagnostics.source import Source
from neural.interop.decoder import Checkpoint, Decoder, Rotary, Vocabulary, tensor_shapes
from neural.interop.gguf import write
from neural.interop.program import program_text
from neural.interop.recognition import from_network, recognize, steps_from_network, to_network
from neural.quantization.rounding import round_to_nearest

SIZES = {"vocab_size": 50257, "context": 128, "d_model": 64, "n_layer": 2, "n_head": 4, "head_dim": 16, "d_ff": 96}
PLAIN = {**SIZES, "norm": "rms", "epsilon": 1e-6, "activation": "silu", "gated": True, "tied": True}
DECODERS = {
    "gpt2": Decoder(**{**PLAIN, "norm": "layer", "epsilon": 1e-5, "activation": "gelu_tanh", "gated": False},
                    n_kv_head=4, qkv_bias=True, out_bias=True, mlp_bias=True),
    "llama": Decoder(**{**PLAIN, "tied": False, "epsilon": 1e-5}, n_kv_head=2, rope=Rotary(10000.0)),
    "qwen2": Decoder(**PLAIN, n_kv_head=2, rope=Rotary(1000000.0), qkv_bias=True),
    "qwen3": Decoder(**{**PLAIN, "head_dim": 32}, n_kv_head=2, rope=Rotary(1000000.0), qk_norm=True),
    "gemma": Decoder(**{**PLAIN, "activation": "gelu_tanh", "head_dim": 24}, n_kv_head=1, rope=Rotary(), embedding_scale=8.0),
}  # fmt: skip


TEXTS = (
    "Hello world", "What is 12345.67 + 89?", "naïve café — ÅÆØ 日本語 😀👩‍👩‍👧", "def f(x):\n    return x**2  # ok\n\n\n",
    "   before and after  ", "tabs\t\tand\r\n", "I'll we've DON'T iT'S", "$$a==b^c|d~e;;; ---", "a\n \n b", "", " ",
    "CamelCaseWords HTTPServer ÉCOLE", "\n\n  x", "a<|endoftext|>b",
)  # fmt: skip
NUMERALS = "١٢٣ ½ ² 1000000"


@cache
def gpt2_vocabulary() -> Vocabulary:
    tokenizer = installed_gpt2()
    return Vocabulary(to_json(tokenizer.layout), bos_id=50256, eos_id=50256)


def random_checkpoint(decoder: Decoder, vocabulary: Vocabulary | None = None, *, spread: float = 0.3) -> Checkpoint:
    """Weights so far apart that two next tokens are never close."""
    generator = np.random.default_rng(len(tensor_shapes(decoder)) + decoder.vocab_size)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        middle = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        return (middle + spread * generator.standard_normal(shape)).astype(np.float32)

    tensors = {name: draw(name, shape) for name, shape in tensor_shapes(decoder).items()}
    return Checkpoint(decoder, tensors, vocabulary or gpt2_vocabulary())


def quantized(checkpoint: Checkpoint, bits: int, *, zeros: bool = False) -> Checkpoint:
    """With its matrices rounded, as the export of a quantised run has it."""
    recognized = recognize(compile_source(Source("model.neural", program_text(checkpoint.decoder, "Model"))).graph)
    weights = to_network(recognized, checkpoint.tensors)
    matrices = {n: round_to_nearest(w, bits, zeros=zeros) for n, w in weights.items() if w.ndim == 2 and "pos" not in n}
    weights |= {name: matrix.dequantized() for name, matrix in matrices.items()}
    tensors, steps = from_network(recognized, weights), steps_from_network(recognized, matrices)
    return replace(checkpoint, tensors=tensors, steps=steps)


def model_of(checkpoint: Checkpoint) -> torch.nn.Module:
    """The checkpoint as a program of the language, compiled for PyTorch."""
    program = compile_source(Source("model.neural", program_text(checkpoint.decoder, "Model")))
    recognized = recognize(program.graph)
    assert recognized.decoder == checkpoint.decoder
    model = load_module(program.source(), "model").Model().eval()
    weights = to_network(recognized, checkpoint.tensors)
    missing = model.load_state_dict({n: torch.from_numpy(np.array(w)) for n, w in weights.items()}, strict=False)
    assert not missing.unexpected_keys
    return model


@torch.no_grad()
def logits_of(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    """(T, V)"""
    return _logits(model, ids)[0]


def greedy(model: torch.nn.Module, ids: list[int], count: int) -> list[int]:
    for _ in range(count):
        ids = [*ids, int(logits_of(model, ids)[-1].argmax())]
    return ids[-count:]


def _logits(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids]))


# A byte-level BPE of 261 tokens: enough for a file of some kilobytes.
LAYOUT = {
    "version": "1.0",
    "added_tokens": [{"id": 258, "content": "<|endoftext|>", "special": True}],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
    "post_processor": None,
    "decoder": {"type": "ByteLevel"},
    "model": {
        "type": "BPE",
        "vocab": {token: i for i, token in enumerate([*byte_alphabet().values(), "ab", "abc", "<|endoftext|>"])},
        "merges": ["a b", ["ab", "c"]],
    },
}
SMALL = {name: replace(d, vocab_size=261, d_model=32, n_head=2, n_kv_head=2 if name == "gpt2" else 1, n_layer=1,
                       embedding_scale=d.embedding_scale and 32**0.5) for name, d in DECODERS.items()}  # fmt: skip


def vocabulary(**changes) -> Vocabulary:
    return Vocabulary(json.dumps(LAYOUT | changes), eos_id=258)


def small(decoder: str = "llama", **changes) -> Checkpoint:
    """changes: of the decoder."""
    return random_checkpoint(replace(SMALL[decoder], **changes), vocabulary())


def written(checkpoint: Checkpoint, folder: Path) -> Path:
    write(checkpoint, folder / "model.gguf")
    return folder / "model.gguf"


def rewritten(
    source: Path, target: Path, *, tensors=lambda name, array: (array, None), keys=None, drop=(), extra=None
) -> Path:
    """The same file, written by the package gguf, with other keys or tensors."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    keys = keys or {}
    for key, found in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", *drop, *keys):
            continue
        writer.add_key_value(key, found.contents(), found.types[0], found.types[-1] if len(found.types) > 1 else None)
    for key, (value, kind) in keys.items():
        writer.add_key_value(key, value, kind)
    for tensor in reader.tensors:
        if tensor.name not in drop:
            array, kind = tensors(tensor.name, np.array(tensor.data))
            writer.add_tensor(tensor.name, array, raw_dtype=kind)
    for name, array in (extra or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


class LlamaCpp:
    """A model in llama.cpp, all in float32 and on one core."""

    def __init__(self, path: Path, context: int = 128) -> None:
        import xllamacpp as x

        params = x.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = context, 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_type_k = params.cache_type_v = x.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.fit_params = params.warmup = False
        self.server = x.Server(params)
        self.greedy([1], 1)  # its loop has begun: one that ends before, as it may, is waited for by its end for ever

    def greedy(self, ids: list[int], count: int) -> list[int]:
        wanted = {"prompt": ids, "n_predict": count, "temperature": 0, "ignore_eos": True, "return_tokens": True}
        return self._post("completion", wanted)["tokens"]

    def encode(self, text: str, *, ends: bool = False) -> list[int]:
        """ends: with what the file puts around a text."""
        return self._post("tokenize", {"content": text, "add_special": ends, "parse_special": True})["tokens"]

    def chat(self, question: str, count: int) -> str:
        wanted = {"messages": [{"role": "user", "content": question}], "max_tokens": count, "temperature": 0}
        return self._post("v1/chat/completions", wanted)["choices"][0]["message"]["content"]

    def _post(self, what: str, content: dict) -> dict:
        url, headers = f"{self.server.listening_address}/{what}", {"Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(content).encode(), headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)
