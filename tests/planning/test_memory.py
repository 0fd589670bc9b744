"""Memory, against tensors that PyTorch keeps, its allocator, its optimizers and a cache that is filled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from neural.compiler import Program, compile_source
from neural.diagnostics.diagnostic import NeuralError
from neural.diagnostics.source import Source
from neural.generation.cache import KVCache
from neural.graph.passes import optimize
from neural.layers import REGISTRY
from neural.layers.activation import ACTIVATIONS
from neural.layers.layer import Composite
from neural.planning.activations import dropped
from neural.planning.plan import plan
from neural.planning.saved import KEPT_BY_ACTIVATION, saved
from neural.planning.sizes import Setting
from neural.training.distributed.parallel import Parallel
from neural.training.optimizers import make_optimizer
from neural.training.step import accumulate_gradients
from tests.planning.programs import (
    BATCH,
    CONTEXT,
    GPT2,
    LLAMA,
    VOCABULARY,
    batch_of,
    classifier,
    example,
    features,
    module_of,
    saved_bytes,
    tokens,
)

ATTENTION = {
    "one input": "Attention(num_heads=4) Dense(4)",
    "projections": "MultiHeadAttention(num_heads=4) Dense(4)",
    "rotary": "MultiHeadAttention(num_heads=4, causal=true, rope=100.0) Dense(4)",
    "grouped": "MultiHeadAttention(num_heads=4, num_kv_heads=2, causal=true, rope=100.0) Dense(4)",
    "a window": "MultiHeadAttention(num_heads=4, causal=true, window=16) Dense(4)",
    "normalised": "MultiHeadAttention(num_heads=4, causal=true, qk_norm=true) Dense(4)",
    "normalised, rotary": "MultiHeadAttention(num_heads=4, causal=true, rope=100.0, qk_norm=true) Dense(4)",
    "dropout": "MultiHeadAttention(num_heads=4, causal=true, dropout=0.1) Dense(4)",
    "dropout, grouped": "MultiHeadAttention(num_heads=4, num_kv_heads=2, causal=true, rope=9.0, dropout=0.1) Dense(4)",
    "dropout, normalised": "MultiHeadAttention(num_heads=4, causal=true, qk_norm=true, dropout=0.1) Dense(4)",
    "dropout, a window": "MultiHeadAttention(num_heads=4, causal=true, window=16, dropout=0.1) Dense(4)",
}
OTHERS = {
    "dropout": "Dropout(0.5) Dense(4)",
    "no dropout": "Dropout(0.0) Dense(4) Dense(4)",
    "batch norm": "BatchNormalization() Dense(4)",
    "layer norm": "LayerNormalization() Dense(4)",
    "rms norm": "RMSNormalization() Dense(4)",
    "greatest": "GlobalMaxPooling1D() Dense(4)",
    "mean": "GlobalAveragePooling1D() Dense(4)",
    "last": "LastToken() Dense(4)",
    "flat": "Flatten() Dense(4)",
    "another shape": "Reshape((32, 96)) Dense(4)",
    "sinusoids": 'PositionalEmbedding(kind="sinusoidal") Dense(4)',
    "three factors": "a = Dense(8) b = Dense(a, 8) c = Dense(b, 8) Multiply(a, b, c) Dense(4)",
    "side by side": "a = Dense(8) b = Dense(a, 8) Concatenate(a, b) Dense(4)",
    "a residual": 'Residual { Dense(8, activation="relu") Dense(48) } LayerNormalization() Dense(4)',
    "copies": "Dense(48) * 3 Dense(4)",
    "copies that keep their input": 'Dense(48, activation="gelu") * 3 Dense(4)',
    "copies that keep their output": 'Dense(48, activation="tanh") * 3 Activation("tanh") Dense(4)',
    "one value read often": "a = Dense(8) b = Dense(a, 8) c = LayerNormalization(a) Add(b, c, a) Dense(4)",
}
SAVED = {
    "gpt2": lambda: example("gpt2", **GPT2, dropout=0.0),
    "gpt2 with dropout": lambda: example("gpt2", **GPT2, dropout=0.2),
    "gpt2, deep": lambda: example("gpt2", **GPT2 | {"n_layer": 6}, dropout=0.0),
    "llama": lambda: example("llama", **LLAMA),
    "classifier": classifier,
    "perceptron": lambda: features('Dense(96, activation="relu") Dropout(0.2) Dense(10)'),
    **{f"attention: {name}": lambda layers=layers: tokens(layers) for name, layers in ATTENTION.items()},
    **{name: lambda layers=layers: tokens(layers) for name, layers in OTHERS.items()},
    **{f"Dense, {a}": lambda a=a: tokens(f'Dense(40, activation="{a}") Dense(4)') for a in ACTIVATIONS},
    **{f"Activation, {a}": lambda a=a: tokens(f'Dense(40) Activation("{a}") Dense(4)') for a in ACTIVATIONS},
}


@pytest.mark.parametrize("make", SAVED.values(), ids=SAVED)
def test_activations_are_what_pytorch_keeps(make) -> None:
    """To 1 part in 25: rotary tables and positions, which weigh in such small networks, are left out."""
    program = make()
    module, x = module_of(program), batch_of(program)
    kept = saved_bytes(module, lambda: module(x))
    planned = plan(program, BATCH, device="cpu").training.activations
    assert planned <= kept
    assert planned == pytest.approx(kept, rel=0.04)


@pytest.mark.parametrize("length", [CONTEXT, 24])
def test_activations_at_a_shorter_context(length: int) -> None:
    program = example("llama", **LLAMA)
    module, x = module_of(program), batch_of(program, 5, length)
    kept = saved_bytes(module, lambda: module(x))
    context = None if length == CONTEXT else length
    assert plan(program, 5, context).training.activations == pytest.approx(kept, rel=0.02)


# How many arrays of (batch, context, 48) a forward pass makes and does not keep.
DROPPED = {
    "copies": 0,
    "copies that keep their input": 0,
    "a residual": 1,  # the product that is added to its input
    "mean": 1,
    "gpt2": 1 + 2 * 2,  # embeddings of tokens, and two products in each of two blocks
    "gpt2, deep": 1 + 6 * 2,
    "gpt2 with dropout": 2 + 2 * 4,  # and what dropout lets through of them
}


@pytest.mark.parametrize("name", DROPPED)
def test_what_is_made_and_not_kept(name: str) -> None:
    setting = Setting(BATCH, None, "cpu", own_kernels=True)
    assert dropped(optimize(SAVED[name]().graph).block, setting) == DROPPED[name] * 4 * BATCH * CONTEXT * 48


@pytest.mark.parametrize("name", ["gpt2", "gpt2 with dropout", "llama"])
@pytest.mark.parametrize("vocabulary", [VOCABULARY, 1500])
def test_the_total_is_the_peak_of_a_training_step(name: str, vocabulary: int) -> None:
    """What the allocator handed out at most while two batches were accumulated: all but weights and optimizer."""
    base, dropout = (LLAMA, {}) if name == "llama" else (GPT2, {"dropout": 0.2 if "with" in name else 0.0})
    program = example(name.split()[0], **base | {"vocab_size": vocabulary}, **dropout)
    module = module_of(program)
    batches = [(batch_of(program, 8), batch_of(program, 8)) for _ in range(2)]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        accumulate_gradients(Parallel(module), batches)
    held = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    memory = plan(program, 8, device="cpu", accumulation=2).training
    assert memory.allocated - memory.weights - memory.optimizer == pytest.approx(peak, rel=0.02)


OPTIMIZERS = ("AdamW(learning_rate=0.1)", "Adam()", "SGD()", "SGD(momentum=0.9)")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_optimizer_keeps_what_is_planned(optimizer: str) -> None:
    program = features("Dense(32) BatchNormalization() Dense(10)", more=f"optimizer: {optimizer}")
    module = module_of(program)
    made = make_optimizer(program.settings.optimizer, module)
    module(batch_of(program)).sum().backward()
    made.step()
    held = sum(t.nbytes for state in made.state.values() for t in state.values() if torch.is_tensor(t) and t.ndim)
    memory = plan(program).training
    assert memory.optimizer == held
    assert memory.gradients == sum(p.grad.nbytes for p in module.parameters())
    floats = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    assert memory.weights == sum(t.nbytes for t in floats)


def filled(program: Program, batch: int, length: int) -> int:
    """Bytes of a cache that holds `length` tokens of each sequence."""
    cache = KVCache(program.context)
    with torch.no_grad():
        module_of(program).eval()(batch_of(program, batch, length), past_key_values=cache)
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache._layers.values())


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(
    "program",
    [
        example("gpt2", **GPT2),
        example("llama", **LLAMA),
        tokens("MultiHeadAttention(num_heads=4, causal=true, window=16) * 3"),
    ],
    ids=["gpt2", "llama", "window"],
)
def test_the_cache_is_as_large_as_a_full_one(program: Program, batch: int) -> None:
    memory = plan(program, batch).generation
    assert memory.cache == filled(program, batch, CONTEXT)
    assert memory.total == memory.weights + memory.cache


def test_a_window_says_what_a_forgetful_cache_would_hold() -> None:
    memory = plan(tokens("MultiHeadAttention(num_heads=4, num_kv_heads=2, causal=true, window=16)"), 2).generation
    assert memory.cache_in_window == 2 * 2 * 16 * 24 * 4
    assert memory.cache == memory.cache_in_window * CONTEXT // 16
    assert plan(example("gpt2", **GPT2)).generation.cache_in_window == plan(example("gpt2", **GPT2)).generation.cache


def test_without_causal_attention_there_is_no_cache() -> None:
    assert plan(classifier()).generation.cache == 0
    assert not plan(features("Dense(3)")).generates


def test_the_device_is_the_files_unless_told() -> None:
    layers = "MultiHeadAttention(num_heads=4, dropout=0.1) Dense(4)"
    open_, cpu = tokens(layers), tokens(layers, "execution { device: 'cpu' }")
    assert (plan(open_).device, plan(cpu).device, plan(cpu, device="cuda").device) == ("cuda", "cpu", "cuda")
    assert plan(cpu).training == plan(open_, device="cpu").training
    heads, pairs, batch = 4, CONTEXT**2, 8
    assert plan(cpu).training.activations - plan(open_).training.activations > 2.5 * 4 * batch * heads * pairs


@pytest.mark.parametrize("cls", sorted({c for c in REGISTRY.values() if not issubclass(c, Composite)}, key=str))
def test_every_layer_has_a_rule(cls: type) -> None:
    assert saved.dispatch(cls) is not saved.dispatch(object), f"neural/planning/saved.py says nothing of {cls.__name__}"


def test_every_activation_has_a_rule() -> None:
    assert set(KEPT_BY_ACTIVATION) == set(ACTIVATIONS)


MISTAKES = [
    (lambda: tokens("Dense(4)"), {"batch_size": 0}, "N020"),
    (lambda: tokens("Dense(4)"), {"context": 0}, "N020"),
    (lambda: tokens("Dense(4)"), {"context": CONTEXT + 1}, "N021"),
    (lambda: features("Dense(4)"), {"context": 1}, "N021"),
    (lambda: tokens("Flatten() Dense(4)"), {"context": 8}, "N021"),
    (lambda: tokens("Reshape((32, 96)) Dense(4)"), {"context": 8}, "N021"),
]


@pytest.mark.parametrize(("make", "options", "code"), MISTAKES)
def test_what_cannot_be_planned_is_told(make, options: dict, code: str) -> None:
    with pytest.raises(NeuralError) as caught:
        plan(make(), **options)
    assert [d.code for d in caught.value.diagnostics] == [code]


def test_the_whole_context_may_be_named() -> None:
    program = tokens("Flatten() Dense(4)")
    assert plan(program, context=CONTEXT) == plan(program)


def test_checkpointing_keeps_the_inputs_of_blocks() -> None:
    text = Path("examples/gpt2.neural").read_text()
    text = text.replace('tokenizer: "gpt2"', "execution { activation_checkpointing: true }")
    program = compile_source(Source("gpt2.neural", text), {**GPT2, "n_layer": 6, "dropout": 0.0})
    module, x = module_of(program), batch_of(program)
    module.train()
    made = plan(program, BATCH, device="cpu")
    blocks = next(p for p in made.parts if p.parts)
    one = sum(p.activations for p in blocks.parts) // blocks.copies
    kept = saved_bytes(module, lambda: module(x))
    assert made.training.activations - one == pytest.approx(kept, rel=0.04)
    plain = plan(example("gpt2", **GPT2 | {"n_layer": 6}, dropout=0.0), BATCH, device="cpu")
    assert made.training.activations < 0.5 * plain.training.activations
    last = 2 * 48 * 4 * 48 * 6  # the product that ends a block, whose result the backward pass does not read
    assert made.flops_per_token_training == plain.flops_per_token_training + blocks.flops // made.context - last
