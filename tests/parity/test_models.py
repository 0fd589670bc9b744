"""What must hold of every causal model that is generated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from neural.backends.module import load_module
from neural.compiler import compile_source
from neural.diagnostics.source import Source
from neural.graph.interpreter import interpret
from neural.graph.passes import optimize

SMALL = {
    "gpt2": {"vocab_size": 50, "context": 32, "d_model": 16, "n_layer": 2, "n_head": 2},
    "llama": {"vocab_size": 50, "context": 32, "d_model": 16, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "d_ff": 24},
    "shakespeare_char": {"vocab_size": 50, "context": 32, "d_model": 16, "n_layer": 2, "n_head": 2, "dropout": 0.1},
}
WINDOWED = """
network Windowed {
  input: (32,)
  layers:
    tokens = Embedding(50, 16)
    Residual { MultiHeadAttention(num_heads=2, causal=true, window=5, rope=100.0, qk_norm=true) } * 2
    Dense(50, use_bias=false, tied_to=tokens)
  loss: "sparse_categorical_crossentropy"
}
"""
BIDIRECTIONAL = """
network Classifier {
  input: (32,)
  layers:
    Embedding(50, 16)
    PositionalEmbedding()
    Residual { LayerNormalization() MultiHeadAttention(num_heads=2) }
    POOLING
    Dense(3)
  loss: "sparse_categorical_crossentropy"
}
"""


def example(name: str, sets: dict):
    """An example of another size; its tokenizer would not fit the vocabulary."""
    text = Path(f"examples/{name}.neural").read_text().replace('tokenizer: "gpt2"', "")
    return compile_source(Source(f"{name}.neural", text), sets)


def programs():
    for name, sets in SMALL.items():
        yield name, example(name, sets)
    yield "windowed", compile_source(Source("windowed.neural", WINDOWED))
    text = Path("tests/fixtures/tutorial/gpt_decoder.neural").read_text()
    small = (
        text.replace("50257", "50")
        .replace("768", "16")
        .replace("3072", "64")
        .replace("num_heads=12", "num_heads=2")
        .replace("1024", "32")
    )
    yield "tutorial", compile_source(Source("tutorial.neural", small))


@pytest.fixture(scope="module", params=programs(), ids=lambda p: p[0])
def case(request):
    name, program = request.param
    torch.manual_seed(3)
    module = load_module(program.source(), name)
    return program, module, getattr(module, program.name)().eval()


def batch(length: int = 20) -> torch.Tensor:
    return torch.randint(50, (3, length), generator=torch.Generator().manual_seed(5))


def test_equals_the_oracle(case) -> None:
    program, _, model = case
    own = {n: p.detach().numpy() for n, p in model.named_parameters()}
    with torch.no_grad():
        np.testing.assert_allclose(
            model(batch()).numpy(), interpret(optimize(program.graph), own, batch().numpy()), atol=2e-5
        )
        np.testing.assert_allclose(model(batch()).numpy(), _unfused(program, own), atol=2e-5)


def _unfused(program, own: dict) -> np.ndarray:
    """The oracle on the graph before the passes, its projections cut from the fused ones."""
    from neural.graph.graph import weights

    cut, fused = dict(own), {}
    for name, weight in weights(program.graph.block).items():
        if name not in own:
            owner, _, tail = name.rpartition(".")
            block = owner.rpartition(".")[0]
            source = f"{block}.qkv.{tail}"
            start = fused.get(source, 0)
            cut[name] = own[source][start : start + weight.shape[0]]
            fused[source] = start + weight.shape[0]
    return interpret(program.graph, cut, batch().numpy())


def test_never_looks_ahead_and_mixes_tokens(case) -> None:
    _, _, model = case
    one = batch()
    for t in (1, 7, 19):
        other = one.clone()
        other[:, t] = (other[:, t] + 1) % 50
        with torch.no_grad():
            a, b = model(one), model(other)
        assert torch.equal(a[:, :t], b[:, :t])
        assert not torch.equal(a[:, t], b[:, t])
        if t < 19:
            assert not torch.equal(a[:, t + 1], b[:, t + 1])


@pytest.mark.parametrize("cuts", [(1, 19), (19, 1), (5, 5, 10), (7, 1, 1, 11), (20,)])
def test_cache_gives_the_same_logits(case, cuts: tuple[int, ...]) -> None:
    _, module, model = case
    cache, parts = module.KVCache(), []
    with torch.no_grad():
        for piece in batch().split(cuts, dim=1):
            logits, cache = model(piece, past_key_values=cache)
            parts.append(logits)
        assert cache.length == 20
        torch.testing.assert_close(torch.cat(parts, 1), model(batch()), atol=1e-5, rtol=1e-4)


def test_takes_any_cache(case) -> None:
    _, _, model = case

    class Reversed:
        """Keeps keys in a dict of lists: one attribute, one method."""

        def __init__(self) -> None:
            self.length, self.kept = 0, {}

        def update(self, layer, k, v):
            self.kept.setdefault(layer, []).append((k, v))
            self.length = sum(k.size(-2) for k, _ in self.kept[0])
            return tuple(torch.cat([pair[i] for pair in self.kept[layer]], -2) for i in (0, 1))

    cache = Reversed()
    with torch.no_grad():
        first, cache = model(batch()[:, :13], past_key_values=cache)
        second, cache = model(batch()[:, 13:], past_key_values=cache)
        torch.testing.assert_close(torch.cat((first, second), 1), model(batch()), atol=1e-5, rtol=1e-4)


def test_right_padding_changes_no_real_token(case) -> None:
    _, _, model = case
    padded = torch.cat((batch(), torch.zeros(3, 6, dtype=torch.long)), 1)
    mask = torch.cat((torch.ones(3, 20), torch.zeros(3, 6)), 1)
    with torch.no_grad():
        masked = model(padded, attention_mask=mask)
        torch.testing.assert_close(masked[:, :20], model(batch()), atol=1e-5, rtol=1e-4)
        assert masked.isfinite().all()


def test_refuses_more_than_the_context(case) -> None:
    _, _, model = case
    with pytest.raises(ValueError, match="33 tokens, and the context has 32"):
        model(torch.zeros(1, 33, dtype=torch.long))


def test_probabilities(case) -> None:
    _, _, model = case
    with torch.no_grad():
        torch.testing.assert_close(model.probabilities(batch()), model(batch()).softmax(-1))


@pytest.mark.parametrize("pooling", ["GlobalAveragePooling1D()", "GlobalMaxPooling1D()", "LastToken()"])
def test_padding_of_a_classifier(pooling: str) -> None:
    program = compile_source(Source("c.neural", BIDIRECTIONAL.replace("POOLING", pooling)))
    torch.manual_seed(0)
    model = load_module(program.source(), "c").Classifier().eval()
    lengths = (5, 20, 12)
    mask = torch.tensor([[1] * n + [0] * (20 - n) for n in lengths])
    own = {n: p.detach().numpy() for n, p in model.named_parameters()}
    with torch.no_grad():
        together = model(batch(), attention_mask=mask)
        for row, n in enumerate(lengths):
            torch.testing.assert_close(together[row], model(batch()[row : row + 1, :n])[0], atol=1e-6, rtol=1e-5)
    oracle = interpret(optimize(program.graph), own, batch().numpy(), attention_mask=mask.numpy())
    np.testing.assert_allclose(together.numpy(), oracle, atol=1e-5)


def test_starts_as_gpt2_did() -> None:
    program = example("gpt2", {"n_layer": 8, "vocab_size": 500})
    torch.manual_seed(0)
    model = load_module(program.source(), "g").Gpt2()
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert not weight.any(), name
        elif "ln_" in name:
            assert (weight == 1).all(), name
        else:
            expected = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02  # sqrt(2 · 8) is 4
            assert abs(weight.std().item() / expected - 1) < 0.02, name
