"""Whole models against Hugging Face transformers, on its random weights: logits, gradients, greedy text, the cache."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from neural.backends.module import load_module
from neural.compiler import load

GPT2_NAMES = (
    ("blocks.", "transformer.h."),
    ("attn.qkv", "attn.c_attn"),
    ("wte.", "transformer.wte."),
    ("wpe.", "transformer.wpe."),
)
GPT2_NAMES += (("ln_f.", "transformer.ln_f."),)
LLAMA_NAMES = (
    ("tokens.", "model.embed_tokens."), ("blocks.", "model.layers."), ("attention_norm", "input_layernorm"),
    ("attention.out", "self_attn.o_proj"), ("mlp_norm", "post_attention_layernorm"), ("mlp.gate", "mlp.gate_proj"),
    ("mlp.up", "mlp.up_proj"), ("mlp.down", "mlp.down_proj"),
)  # fmt: skip


def gpt2():
    """GPT-2 small, 124M. Ours, theirs, and how a weight of theirs becomes ours."""
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)).eval()
    program = load("examples/gpt2.neural", {"dropout": 0.0})

    def convert(name: str, state: dict) -> torch.Tensor:
        for ours, other in GPT2_NAMES:
            name = name.replace(ours, other)
        transposed = name.endswith("weight") and any(part in name for part in ("c_attn", "c_proj", "c_fc"))
        return state[name].T if transposed else state[name]

    return program, theirs, convert


def llama():
    """A small Llama with grouped heads."""
    sizes = {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 176,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
    }
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(
        LlamaConfig(**sizes, num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5)
    ).eval()
    sets = {"vocab_size": 512, "d_model": 64, "d_ff": 176, "n_layer": 3, "n_head": 8, "n_kv_head": 2, "context": 128}
    program = load("examples/llama.neural", sets)

    def convert(name: str, state: dict) -> torch.Tensor:
        if name == "norm.weight":
            return state["model.norm.weight"]
        if name == "head.weight":
            return state["lm_head.weight"]
        for ours, other in LLAMA_NAMES:
            name = name.replace(ours, other)
        if "attention.qkv" in name:
            return torch.cat([state[name.replace("attention.qkv", f"self_attn.{p}_proj")] for p in "qkv"])
        return state[name]

    return program, theirs, convert


@pytest.fixture(scope="module", params=[gpt2, llama], ids=["gpt2-124M", "llama"])
def pair(request):
    program, theirs, convert = request.param()
    module = load_module(program.source(), "ours")
    ours = getattr(module, program.name)().eval()
    state = theirs.state_dict()
    ours.load_state_dict({name: convert(name, state) for name in ours.state_dict()})
    return ours, theirs, convert, module


def ids(model, length: int) -> torch.Tensor:
    return torch.randint(model.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(1))


def test_logits(pair) -> None:
    ours, theirs, _, _ = pair
    batch = ids(theirs, 96)
    with torch.no_grad():
        assert (ours(batch) - theirs(batch).logits).abs().max() <= 2e-5


def test_gradients(pair) -> None:
    ours, theirs, convert, _ = pair
    batch = ids(theirs, 32)
    for model in (ours, theirs):
        out = model(batch)
        logits = out if isinstance(out, torch.Tensor) else out.logits
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()).backward()
    gradients = {n: p.grad for n, p in theirs.named_parameters()}
    gradients.setdefault("lm_head.weight", gradients.get("transformer.wte.weight"))
    for name, parameter in ours.named_parameters():
        other = convert(name, gradients)
        assert (parameter.grad - other).norm() <= 1e-4 * other.norm(), name


def test_greedy_tokens_with_and_without_cache(pair) -> None:
    ours, theirs, _, module = pair
    prompt = ids(theirs, 5)[:1]
    expected = theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=64,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    plain, cached, cache, new = prompt, prompt, module.KVCache(), prompt
    with torch.no_grad():
        for _ in range(64):
            plain = torch.cat((plain, ours(plain)[:, -1:].argmax(-1)), 1)
            logits, cache = ours(new, past_key_values=cache)
            new = logits[:, -1:].argmax(-1)
            cached = torch.cat((cached, new), 1)
    assert torch.equal(cached, expected)
    assert torch.equal(plain, expected)
