"""The C++ against PyTorch on the same weights, and against itself cut into other calls: bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from neural.generation.native.pages import PAGE
from neural.generation.native.program import Program
from neural.generation.native.recording import Unsupported, record
from neural.graph.passes import optimize
from neural.quantization.matrix import QuantizedMatrix
from tests.generation.native.models import (
    CONTEXT,
    PROGRAMS,
    VOCAB_SIZE,
    Reader,
    block,
    compiled,
    expected,
    named_weights,
    network,
    rounded,
    tokens,
)


@pytest.mark.parametrize("name", PROGRAMS)
def test_logits_are_pytorchs(name: str) -> None:
    program, model = compiled(PROGRAMS[name])
    ids = tokens(CONTEXT)
    theirs = expected(model, ids)
    ours = Reader(program, named_weights(program, model)).read(ids)
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())


def test_beside_integers_the_cache_takes_a_byte_a_number_and_scales() -> None:
    program, model = compiled(PROGRAMS["gpt2"])
    weights = named_weights(program, model)
    whole, small = (Program(optimize(program.graph), w, threads=1).page_bytes for w in (weights, rounded(weights, 8)))
    kept = 2 * 4 * PAGE  # keys and values of four heads, two layers of each
    assert (whole, small) == (2 * kept * (24 + 32) / 2 * 4, 2 * kept * ((24 + 32) / 2 + 4))


@pytest.mark.parametrize(("width", "kept"), [(512, 1), (544, 4)])
def test_heads_whose_scores_integers_may_not_hold_are_kept_as_floats(width: int, kept: int) -> None:
    """kept: bytes of a number. The logits are PyTorch's, but for rounding before a softmax that these scores make steep."""
    attention = "Residual { RMSNormalization() MultiHeadAttention(num_heads=1, causal=true) }"
    program, model = compiled(network(f"Dense({width}) {attention} Dense(96)"))
    integers, ids = rounded(named_weights(program, model), 8), tokens(CONTEXT)
    scales = 2 * 4 * PAGE if kept == 1 else 0
    assert Program(optimize(program.graph), integers, threads=1).page_bytes == 2 * width * PAGE * kept + scales
    ours, theirs = Reader(program, integers).read(ids), of_rounded(model, integers, ids)
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < 0.1 * np.sqrt(np.mean(theirs**2))


def of_rounded(
    model: nn.Module, integers: Mapping[str, np.ndarray | QuantizedMatrix], ids: Sequence[int]
) -> np.ndarray:
    """PyTorch's logits with what the integers stand for in the model's matrices."""
    with torch.no_grad():
        for name, matrix in integers.items():
            if isinstance(matrix, QuantizedMatrix):
                model.get_parameter(name).copy_(torch.from_numpy(matrix.dequantized()))
    return expected(model, ids)


@pytest.mark.parametrize(("bits", "zeros"), [(8, False), (4, False), (4, True)])
@pytest.mark.parametrize("name", ["gpt2", "rope, grouped", "wide head"])
def test_integers_are_what_they_stand_for(name: str, bits: int, zeros: bool) -> None:
    """As near to PyTorch with the rounded weights as rounding the inputs of each product allows, and nearer to it than
    to PyTorch with the weights as they were.
    """
    program, model = compiled(PROGRAMS[name])
    weights = named_weights(program, model)
    integers = rounded(weights, bits, zeros=zeros)
    ids = tokens(CONTEXT)
    unrounded = expected(model, ids)
    theirs = of_rounded(model, integers, ids)
    ours = Reader(program, integers).read(ids)
    error, scale = np.sqrt(np.mean((ours - theirs) ** 2)), np.sqrt(np.mean(theirs**2))
    assert error < 0.02 * scale
    if bits == 4:
        assert error < 0.5 * np.sqrt(np.mean((theirs - unrounded) ** 2))


@pytest.mark.parametrize(("bits", "zeros"), [(32, False), (8, False), (4, False), (4, True)])
@pytest.mark.parametrize("name", ["gpt2", "one key head", "window, normed, scaled"])
def test_a_text_is_the_same_however_it_is_cut(name: str, bits: int, zeros: bool) -> None:
    program, model = compiled(PROGRAMS[name])
    weights = named_weights(program, model)
    if bits < 32:
        weights = rounded(weights, bits, zeros=zeros)
    ids = tokens(150)
    whole = Reader(program, weights).read(ids)
    reader = Reader(program, weights, threads=3)
    cuts = [0, 1, 2, 5, 64, 65, 128, 140, 150]
    parts = [reader.read(ids[a:b], a) for a, b in pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_texts_do_not_know_their_neighbours() -> None:
    program, model = compiled(PROGRAMS["gpt2"])
    reader = Reader(program, named_weights(program, model), threads=2)
    texts = [tokens(n, seed=n) for n in (70, 3, 20)]
    alone = [reader.read(ids)[-1] for ids in texts]
    for i, ids in enumerate(texts):
        reader.read(ids[:-1], text=i)
    together = reader.native.run(
        [ids[-1] for ids in texts], [len(ids) - 1 for ids in texts], reader.tables, range(len(texts))
    )
    assert np.array_equal(together, np.stack(alone))


def test_only_the_logits_that_are_asked_for() -> None:
    program, model = compiled(PROGRAMS["rope, grouped"])
    reader, ids = Reader(program, named_weights(program, model)), tokens(90)
    whole = reader.read(ids)
    some = reader.native.run(ids, range(90), [reader.tables[0]] * 90, [3, 89])
    assert np.array_equal(some, whole[[3, 89]])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (network(block() + 'Activation("softmax")'), "the operator Softmax"),
        (network("a = Dense(96) b = Dense(96) Concatenate(a, b) Dense(96)" + block()), "the operator Concat"),
        (network(block()).replace(", causal=true", ""), "without a cache"),
    ],
)
def test_what_the_engine_cannot_do_is_said(text: str, what: str) -> None:
    program, model = compiled(text)
    with pytest.raises(Unsupported, match=what):
        record(optimize(program.graph), named_weights(program, model))


def test_a_vocabulary_of_one_panel_and_one() -> None:
    text = PROGRAMS["gpt2"].replace(str(VOCAB_SIZE), "65")
    program, model = compiled(text)
    ids = [64, 0, 63, 64]
    theirs = expected(model, ids)
    np.testing.assert_allclose(Reader(program, named_weights(program, model)).read(ids), theirs, atol=1e-4)


def test_a_call_may_ask_for_no_logits() -> None:
    program, model = compiled(PROGRAMS["gpt2"])
    reader, ids = Reader(program, named_weights(program, model)), tokens(70)
    whole = reader.read(ids)
    assert reader.native.run(ids[:60], range(60), [reader.tables[1]] * 60, []).shape == (0, VOCAB_SIZE)
    assert np.array_equal(reader.read(ids[60:], 60, text=1), whole[60:])
