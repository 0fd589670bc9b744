"""A decoder as a program: readable, in the canonical style, and the same decoder again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neural.compiler import compile_source
from neural.diagnostics.diagnostic import Severity
from neural.diagnostics.source import Source
from neural.interop.decoder import Decoder, Rotary, tensor_shapes
from neural.interop.fields import Fields
from neural.interop.huggingface import FAMILIES, choose
from neural.interop.program import program_text
from neural.interop.recognition import recognize
from neural.syntax.format import format_file
from neural.syntax.parser import parse
from tests.interop.families import random_model

POSITIVE = st.floats(1e-3, 1e6, allow_subnormal=False)
SMALL = st.integers(1, 4)


@st.composite
def rotaries(draw) -> Rotary:
    base = draw(POSITIVE)
    kind = draw(st.sampled_from(("none", "linear", "llama3")))
    if kind == "none":
        return Rotary(base)
    factor = draw(POSITIVE.filter(lambda f: f != 1.0))
    if kind == "linear":
        return Rotary(base, "linear", factor)
    low = draw(st.floats(0.5, 2.0))
    return Rotary(base, "llama3", factor, low, low + draw(st.floats(0.5, 8.0)), draw(st.integers(1, 10000)))


@st.composite
def decoders(draw) -> Decoder:
    """Any that the language can say."""
    n_kv_head, group, head_dim = draw(SMALL), draw(SMALL), 2 * draw(SMALL)
    n_head = n_kv_head * group
    d_model = draw(st.sampled_from((n_head * head_dim, 2 * draw(SMALL) * 3)))
    if d_model % n_head == 0 and draw(st.booleans()):
        head_dim = 2 * max(1, d_model // n_head // 2)
    norm = draw(st.sampled_from(("layer", "rms")))
    scale = draw(st.none() | st.floats(0.01, 2.0))
    return Decoder(
        vocab_size=draw(st.integers(2, 60000)),
        context=draw(st.integers(1, 5000)),
        d_model=d_model,
        n_layer=draw(SMALL),
        n_head=n_head,
        n_kv_head=n_kv_head,
        head_dim=head_dim,
        d_ff=draw(st.integers(1, 100)),
        norm=norm,
        epsilon=draw(st.floats(1e-12, 1.0)),
        activation=draw(st.sampled_from(("gelu_tanh", "gelu", "silu", "relu", "relu_squared"))),
        gated=draw(st.booleans()),
        tied=draw(st.booleans()),
        rope=draw(st.none() | rotaries()),
        **{f"{part}_bias": draw(st.booleans()) for part in ("qkv", "out", "mlp", "head")},
        qk_norm=draw(st.booleans()),
        scale=None if scale == head_dim**-0.5 else scale,
        embedding_scale=draw(st.none() | st.just(d_model**0.5) | POSITIVE),
        window=draw(st.none() | st.integers(1, 50)),
        dropout=draw(st.sampled_from((0.0, 0.1, 0.5))),
    )


def compiled(text: str):
    return compile_source(Source("model.neural", text))


@settings(max_examples=60)
@given(decoders())
def test_a_program_says_its_decoder(decoder: Decoder) -> None:
    text = program_text(decoder, "Model", title="any # title\nnetwork")
    program = compiled(text)
    recognized = recognize(program.graph)
    assert recognized.decoder == decoder
    placed = [n for v in recognized.weights.values() for n in ((v,) if isinstance(v, str) else v)]
    assert sorted(placed) == sorted(tensor_shapes(decoder))
    assert not [m for m in program.messages if m.severity is not Severity.NOTE]
    file, errors = parse(Source("model.neural", text))
    assert not errors
    assert format_file(file) == text


@settings(max_examples=60)
@given(decoders())
def test_a_family_either_says_a_decoder_or_why_not(decoder: Decoder) -> None:
    """`choose` believes the family's own reader alone: what it picks reads as the decoder, biases of zeros aside."""
    held = [f for f in FAMILIES.values() if not f.why_not(decoder)]
    for family in FAMILIES.values():
        assert (family in held) == (not family.why_not(decoder))
    if held:
        assert choose(decoder) is held[0]
        shapes = tensor_shapes(held[0].filled(decoder))
        stored = [part for tensor in held[0].tensors(held[0].filled(decoder)) for part in tensor.parts]
        assert sorted(stored) == sorted(shapes)


LLAMA = Decoder(
    vocab_size=64, context=32, d_model=16, n_layer=2, n_head=4, n_kv_head=2, head_dim=4, d_ff=40, norm="rms",
    epsilon=1e-6, activation="silu", gated=True, tied=True, rope=Rotary(500000.0),
)  # fmt: skip


def test_a_program_of_a_known_form_is_short_and_trains() -> None:
    text = program_text(
        LLAMA, "Llama", weights='we"ights.safetensors', tokenizer="tokenizer.json", title="Llama, from x"
    )
    program = compiled(text)
    assert text.startswith("# Llama, from x\n\nparam vocab_size = 64\n")
    assert len(text.splitlines()) < 60
    assert program.settings.weights == 'we"ights.safetensors'
    assert program.settings.optimizer.name == "AdamW"
    assert program.settings.train.steps
    assert "param rope_base = 500000.0" in text


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_say_some_decoder(name: str) -> None:
    config = random_model(name).config.to_dict()
    assert FAMILIES[name].why_not(FAMILIES[name].decoder(Fields(config, Path("config.json")))) == ()
