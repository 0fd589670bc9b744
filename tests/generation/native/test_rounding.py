"""Inputs of products with integers, rounded by what makes them: the very integers that passes of their own make."""

from __future__ import annotations

import numpy as np
import pytest

from neural.generation.native import rounding
from neural.generation.native.fusing import fuse
from neural.generation.native.recording import Kind, record
from neural.graph.passes import optimize
from tests.generation.native.models import (
    GATED,
    PROGRAMS,
    Reader,
    block,
    compiled,
    named_weights,
    network,
    rounded,
    tokens,
)

HEADS = {  # of their width: a program, and how often something is rounded after it was written
    24: (network(block("num_heads=4") * 2), 1),  # after the last attention rows are selected, which rounds them
    32: (network(block("num_heads=3") * 2), 0),
}


@pytest.mark.parametrize("width", HEADS)
def test_only_heads_that_are_no_whole_groups_take_a_pass_of_their_own(width: int) -> None:
    text, passes = HEADS[width]
    program, model = compiled(text)
    weights = rounded(named_weights(program, model), 8)
    recording = fuse(record(optimize(program.graph), weights))
    operations = rounding.round_inputs(recording, weights)
    assert sum(o.kind is Kind.QUANTIZE for o in operations) == passes
    products = [o for o in operations if o.kind is Kind.LINEAR]
    assert all(o.a is None and o.integers is not None for o in products)
    written = [o for o in operations if o.kept and o.kind is not Kind.QUANTIZE]
    assert recording.logits.result in [o.out for o in written]
    assert all(o.out in [view.result for p in operations for view in p.reads] for o in written[:-1])


@pytest.mark.parametrize("bits", [{8}, {4}, {8, 4}], ids=["int8", "int4", "both"])
@pytest.mark.parametrize(
    "text",
    [HEADS[32][0], PROGRAMS["wide head"], PROGRAMS["one key head"], GATED + network(block("num_heads=3") + "Residual { Gated() }")],
    ids=["whole groups", "wide head", "one key head", "gated"],
)  # fmt: skip
def test_the_same_bits_as_by_passes_of_their_own(text: str, bits: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    program, model = compiled(text)
    numbers = named_weights(program, model)
    each = [rounded(numbers, width) for width in sorted(bits)]
    weights = {name: each[i % len(each)][name] for i, name in enumerate(numbers)}
    ids = tokens(150)

    def logits() -> np.ndarray:
        reader = Reader(program, weights, threads=2)
        alone = [reader.read(ids[:70]), *(reader.read([token], 70 + i) for i, token in enumerate(ids[70:80]))]
        return np.concatenate([*alone, reader.read(ids, text=1)])

    ours = logits()
    monkeypatch.setattr(rounding, "_can_round", lambda operation, attentions: False)
    assert np.array_equal(ours, logits())
