"""The tutorial's shorthand: rules of structure, and the explicit form that `neural check --fix` writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from neural.cli.fmt import formatted
from neural.compiler import Program, compile_source, load
from neural.diagnostics.diagnostic import NeuralError, Severity
from neural.diagnostics.render import apply_fixes
from neural.diagnostics.source import Source
from neural.graph.graph import primitives
from neural.layers.attention import Attention
from neural.layers.embedding import PositionalEmbedding
from tests.graph.programs import codes, compiled, network, structure, told

TUTORIAL = Path(__file__).parents[1] / "fixtures" / "tutorial"
DECODER = (TUTORIAL / "gpt_decoder.neural").read_text(encoding="utf-8")
CLASSIFIER = 'import "gpt_decoder.neural"\n' + (TUTORIAL / "gpt_classifier.neural").read_text(encoding="utf-8")
LOSS = 'loss: "sparse_categorical_crossentropy"'


def tutorial(text: str, sets: dict[str, object] | None = None, name: str = "program.neural") -> Program:
    return compile_source(Source(str(TUTORIAL / name), text), sets)


def fixed(text: str, sets: dict[str, object] | None = None, name: str = "program.neural") -> str:
    """The text after the rounds of `neural check --fix`."""
    for _ in range(8):
        program = tutorial(text, sets, name)
        fixes = [d.fix for d in program.messages if d.fix and d.fix.edits[0].span.source.text == text]
        if not fixes:
            return text
        assert all(fix.safe for fix in fixes)
        text = formatted(apply_fixes(text, fixes), name)
    raise AssertionError("the fixes never end")


def attentions(program: Program) -> list[Attention]:
    return [p.node.layer for p in primitives(program.graph.block) if isinstance(p.node.layer, Attention)]


# The tutorial itself


def test_the_tutorials_programs_compile_byte_for_byte() -> None:
    decoder = load(TUTORIAL / "gpt_decoder.neural")
    assert sorted(d.code for d in decoder.messages) == ["N601", "N601", "N602", "N603", "N604", "N605"]
    assert (decoder.context, decoder.vocab_size, decoder.graph.cached) == (1024, 50257, True)
    # 124,439,808 with a tied head; here the head is 50257 x 768 of its own, with a bias
    assert decoder.parameter_count == 124_439_808 + 50257 * 768 + 50257
    found = attentions(decoder)
    assert len(found) == 12
    assert {(a.num_heads.value, a.causal.value, a.dropout.value) for a in found} == {(12, True, 0.1)}
    classifier = tutorial(CLASSIFIER, {"num_classes": 2})
    assert {d.code for d in classifier.messages} == {"N211", "N601", "N602", "N603", "N604"}
    assert classifier.graph.activation == "softmax"
    assert [v.value for v in classifier.graph.block.value(classifier.graph.block.outputs[0]).shape[1:]] == [2]


@pytest.mark.parametrize(
    ("text", "sets"), [(DECODER, {}), (CLASSIFIER, {"num_classes": 2})], ids=["decoder", "classifier"]
)
def test_the_explicit_form_is_the_same_graph(text: str, sets: dict[str, object]) -> None:
    explicit = fixed(text, sets)
    assert explicit != text
    assert tutorial(explicit, sets).graph == tutorial(text, sets).graph
    assert tutorial(explicit, sets).source() == tutorial(text, sets).source()
    left = [d.code for d in tutorial(explicit, sets).messages if d.fix and d.fix.edits[0].span.source.text == explicit]
    assert left == []
    assert fixed(explicit, sets) == explicit


def test_the_classifier_over_the_fixed_decoder_has_no_notes(tmp_path: Path) -> None:
    (tmp_path / "gpt_decoder.neural").write_text(fixed(DECODER))
    (tmp_path / "classifier.neural").write_text(fixed(CLASSIFIER, {"num_classes": 2}))
    program = load(tmp_path / "classifier.neural", {"num_classes": 2})
    assert [d.code for d in program.messages] == ["N211"]
    assert program.graph == tutorial(CLASSIFIER, {"num_classes": 2}).graph


def test_strict_makes_every_note_an_error() -> None:
    with pytest.raises(NeuralError) as caught:
        compile_source(Source(str(TUTORIAL / "x.neural"), DECODER), strict=True)
    assert sorted({d.code for d in caught.value.diagnostics}) == ["N601", "N602", "N603", "N604", "N605"]
    assert {d.severity for d in caught.value.diagnostics} == {Severity.ERROR}
    compile_source(Source(str(TUTORIAL / "x.neural"), fixed(DECODER)), strict=True)


# By structure, not by a file's or a comment's text


def renamed(text: str) -> str:
    names = {
        "CausalAttention": "MyMaskedThing", "GptBlock": "Layer", "GptDecoder": "Net", "d_model": "w", "d_ff": "inner", "dropout=": "p=",
        "$dropout": "$p", ", dropout)": ", p)",
    }  # fmt: skip
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def without_comments(text: str) -> str:
    return re.sub(r"#[^\n]*", "", text)


def one_line(text: str) -> str:
    return " ".join(without_comments(text).split())


def other_comments(text: str) -> str:
    return re.sub(r"#[^\n]*", "# no attention here, Add nothing, softmax twice", text)


def network_first(text: str) -> str:
    at = text.index("network")
    return text[at:] + "\n" + text[:at]


@pytest.mark.parametrize("change", [renamed, without_comments, one_line, other_comments, network_first])
def test_the_rules_hold_by_structure(change) -> None:
    text = change(DECODER)
    assert structure(tutorial(text).graph.block) == structure(tutorial(DECODER).graph.block)
    assert structure(tutorial(fixed(text)).graph.block) == structure(tutorial(DECODER).graph.block)
    codes_of = [sorted(d.code for d in tutorial(t).messages) for t in (text, DECODER)]
    assert codes_of[0] == codes_of[1]


# N601: Add() without operands


def same(short: str, long: str, **where: str) -> bool:
    """Whether two spellings are one graph, before and after `--fix`."""
    a, b = network(short, **where), network(long, **where)
    explicit = structure(compiled(b).graph.block)
    return structure(compiled(a).graph.block) == explicit == structure(compiled(fixed(a)).graph.block)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("Dense(16) Add()", "Residual { Dense(16) }"),
        ("Dense(8) Dense(16) Add()", "Residual { Dense(8) Dense(16) }"),
        ("Dense(16) Add() Dense(16) Add() Dense(4)", "Residual { Dense(16) } Residual { Dense(16) } Dense(4)"),
        ("r = Dense(16) out = Add() Dense(out, 4)", "out = Residual { r = Dense(16) } Dense(out, 4)"),
        ("Dense(16) * 2 Add()", "Residual { Dense(16) * 2 }"),
        ("a = Dense(16) b = Add() Add(a, b)", "b = Residual { a = Dense(16) } Add(a, b)"),
        ("Residual { Dense(16) } Add()", "Residual { Residual { Dense(16) } }"),
    ],
)
def test_add_is_a_residual(short: str, long: str) -> None:
    assert codes(network(short)).count("N601") == short.count("Add()")
    assert codes(network(long)) == []
    assert same(short, long)


def test_add_in_a_define_adds_what_the_define_was_given() -> None:
    before = "define Block(d) {{ {} }}"
    short, long = before.format("Dense($d) Add()"), before.format("Residual { Dense($d) }")
    assert structure(compiled(network("Dense(8) Block(8)", before=short)).graph.block) == structure(
        compiled(network("Dense(8) Block(8)", before=long)).graph.block
    )


@pytest.mark.parametrize("layers", ["Add() Dense(4)", "Dense(16) Add() Add()"])
def test_add_with_nothing_before_it(layers: str) -> None:
    assert told(network(layers))[-1] == ("N206", "Add()")


def test_add_that_changes_the_shape() -> None:
    assert told(network("Dense(8) Add()")) == [("N601", "Add()"), ("N401", "Add")]


@pytest.mark.parametrize("layers", ["a = Dense(16) Add(a, input)", "a = Dense(16) Add(a, a, a)"])
def test_add_with_operands_is_no_shorthand(layers: str) -> None:
    assert codes(network(layers)) == []


# N602: three Dense as projections


def define(body: str, name: str = "CausalThing", parameters: str = "num_heads, d") -> str:
    return f"define {name}({parameters}) {{ {body} }}"


THREE = "Dense($d) Dense($d) Dense($d)"
EXPLICIT = "query = Dense(input, $d) key = Dense(input, $d) value = Dense(input, $d) Attention(query, key, value, num_heads=$num_heads"


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (THREE, f"{EXPLICIT}, causal=true)"),
        (f"{THREE} Dropout(0.1)", f"{EXPLICIT}, causal=true, dropout=0.1)"),
        (f"{THREE} Dense($d)", f"{EXPLICIT}, causal=true) Dense($d)"),
        (f"{THREE} Dense($d) Dropout(0.1)", f"{EXPLICIT}, causal=true) Dense($d) Dropout(0.1)"),
        (f"Dropout(0.1) {THREE}", f"input_2 = Dropout(0.1) {EXPLICIT.replace('input', 'input_2')}, causal=true)"),
        ("Dense(units=$d, use_bias=false) " * 3, f"{EXPLICIT.replace('$d)', '$d, use_bias=false)')}, causal=true)"),
        ('Dense($d, activation="linear") ' * 3, f"{EXPLICIT}, causal=true)"),
        (f"Residual {{ {THREE} Dense($d) }}", f"Residual {{ {EXPLICIT}, causal=true) Dense($d) }}"),
        (f"{THREE} Dense($d) Add()", f"Residual {{ {EXPLICIT}, causal=true) Dense($d) }}"),
        (f"LayerNormalization() {THREE} Dense($d) Add()", "Residual { n = LayerNormalization() "
         f"{EXPLICIT.replace('input', 'n')}, causal=true) Dense($d) }}"),
        ("a = Dense($d) b = Dense($d) c = Dense($d)", f"{EXPLICIT}, causal=true)"),
    ],
)  # fmt: skip
def test_three_dense_are_projections(short: str, long: str) -> None:
    programs = [
        network("Block(num_heads=2, d=8)".replace("Block", "CausalThing"), input="(5, 8)", before=define(body))
        for body in (short, long)
    ]
    assert "N602" in codes(programs[0])
    assert codes(programs[1]) == []
    graphs = [structure(compiled(p).graph.block) for p in (*programs, fixed(programs[0]))]
    assert graphs[0] == graphs[1] == graphs[2]


@pytest.mark.parametrize(
    ("name", "causal"),
    [("CausalAttention", True), ("MaskedAttention", True), ("MyCausalThing", True), ("SelfMasked", True), ("Attend", False), ("Acausal", False), ("Unmasked", False)],
)  # fmt: skip
def test_the_name_of_the_define_says_whether_it_is_causal(name: str, causal: bool) -> None:
    program = compiled(network(f"{name}(2, 8)", input="(5, 8)", before=define(THREE, name)))
    assert [a.causal.value for a in attentions(program)] == [causal]


@pytest.mark.parametrize(
    "body",
    [
        "Dense($d) Dense($d)",
        "Dense($d) Dense($d) Dense($d + 8)",
        "Dense($d) Dropout(0.1) Dense($d) Dense($d)",
        'Dense($d) Dense($d, activation="relu") Dense($d)',
        "a = Dense($d) Dense(input, $d) Dense($d)",
        f"{THREE} Attention(num_heads=$num_heads)",
        f"{THREE} Residual {{ MultiHeadAttention(num_heads=$num_heads) }}",
        "Dense($d) * 3",
    ],
)
def test_what_is_not_three_projections(body: str) -> None:
    assert "N602" not in codes(network("CausalThing(2, 8)", input="(5, 8)", before=define(body)))


def test_only_a_define_with_num_heads_has_projections() -> None:
    assert "N602" not in codes(network("CausalThing(8)", input="(5, 8)", before=define(THREE, parameters="d")))
    assert "N602" not in codes(network("Dense(8) Dense(8) Dense(8)", input="(5, 8)", before="param num_heads = 2"))


def test_widths_that_do_not_divide_are_told_at_the_call() -> None:
    text = network("CausalThing(num_heads=3, d=8)", input="(5, 8)", before=define(THREE))
    assert ("N402", "3") in told(text)


# N603: positions


@pytest.mark.parametrize(
    ("layers", "before"),
    [
        ("Embedding(100, 8) MultiHeadAttention(num_heads=2, causal=true)", ""),
        ("Embedding(100, 8) Dropout(0.1) Residual { Attention(num_heads=2) }", ""),
        ("Embedding(100, 8) Block(2)", "define Block(h) { Attention(num_heads=$h) }"),
        ("x = Embedding(100, 8) a = Attention(x, num_heads=2) Add(a, x)", ""),
        ("Embed(100) Attention(num_heads=2)", "define Embed(v) { Embedding($v, 8) }"),
        ("Whole(100)", "define Embed(v) { Embedding($v, 8) } define Whole(v) { Embed($v) Attention(num_heads=2) }"),
    ],
)
def test_attention_without_positions_is_given_learned_ones(layers: str, before: str) -> None:
    text = network(layers, before=before)
    assert codes(text) == ["N603"]
    program = compiled(text)
    (position,) = [p for p in primitives(program.graph.block) if isinstance(p.node.layer, PositionalEmbedding)]
    assert position.inputs[0].shape[1].value == 16
    assert not any(d.code == "N214" for d in program.messages)
    assert codes(fixed(text)) == []
    assert compiled(fixed(text)).graph == program.graph


@pytest.mark.parametrize("input", ["(16,)", "($context,)", "{ words: (16,) }", "{ words: (16,), other: (8,) }"])
def test_positions_are_as_long_as_the_input(input: str) -> None:
    layers = "Embedding(100, 8) Attention(num_heads=2)" if "other" not in input else (
        "Embedding(words, 100, 8) a = Attention(num_heads=2) b = GlobalAveragePooling1D() c = Dense(other, 8) Add(b, c)"
    )  # fmt: skip
    text = network(layers, input=input, before="param context = 16")
    assert "N603" in codes(text)
    assert compiled(fixed(text)).graph == compiled(text).graph


@pytest.mark.parametrize(
    "layers",
    [
        "Embedding(100, 8) PositionalEmbedding() Attention(num_heads=2)",
        'Embedding(100, 8) PositionalEncoding(kind="sinusoidal") Attention(num_heads=2)',
        "Embedding(100, 8) Attention(num_heads=2, rope=10000.0)",
        "Embedding(100, 8) Dense(4)",
        "Embedding(100, 8) GlobalAveragePooling1D() Dense(2)",
    ],
)
def test_networks_that_need_no_positions(layers: str) -> None:
    assert codes(network(layers)) == []
    assert codes(network("Attention(num_heads=2)", input="(5, 8)")) == []


# N604: the softmax at the end


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ('Dense(4) Activation("softmax")', "Dense(4)"),
        ('Dense(4) Activation(activation="softmax")', "Dense(4)"),
        ('Dense(4, activation="softmax")', "Dense(4)"),
        ('Dense(units=4, activation="softmax", use_bias=false)', "Dense(units=4, use_bias=false)"),
        ('Dense(activation="softmax", units=4)', "Dense(units=4)"),
        ('Dense(4, "softmax")', "Dense(4)"),
        ('Dense(4, "softmax", false)', 'Dense(4, "linear", false)'),
        ('Output(4, activation="softmax")', "Output(4)"),
        ('out = Dense(4, activation="softmax")', "out = Dense(4)"),
    ],
)
@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_a_final_softmax_is_left_to_the_loss(short: str, long: str, loss: str) -> None:
    section = f'loss: "{loss}"'
    assert codes(network(short, sections=section)) == ["N604"]
    assert same(short, long, sections=section)
    assert "softmax" not in compiled(network(short, sections=section)).source().split("def probabilities")[0]
    assert "def probabilities" in compiled(network(short, sections=section)).source()


def test_a_final_sigmoid_is_left_to_the_binary_loss() -> None:
    section = 'loss: "binary_crossentropy"'
    for short in ('Dense(4, activation="sigmoid")', 'Dense(4) Activation("sigmoid")'):
        assert codes(network(short, sections=section)) == ["N604"]
        assert same(short, "Dense(4)", sections=section)
    assert ".sigmoid()" in compiled(network("Dense(4)", sections=section)).source().split("def probabilities")[1]


@pytest.mark.parametrize("loss", ['loss: "mean_squared_error"', ""])
def test_a_softmax_without_a_cross_entropy_stays(loss: str) -> None:
    text = network('Dense(4, activation="softmax")', sections=loss)
    assert codes(text) == []
    assert "softmax" in compiled(text).source()


def test_shorthand_is_of_built_in_layers() -> None:
    before = "define Add() { Dense(3) } define Activation(name) { Dense(4) } define Dense2(d) { Dense($d) }"
    text = network('Dense(16) Add() Activation("softmax")', before=before, sections=LOSS)
    assert set(codes(text)) == {"N212"}
    hidden = "define Dense(d) { Output($d) } " + define(THREE)
    assert "N602" not in codes(network("CausalThing(2, 8)", input="(5, 8)", before=hidden))


def test_a_softmax_in_the_middle_stays() -> None:
    text = network('Dense(4, activation="softmax") Dense(3)', sections=LOSS)
    assert codes(text) == []
    assert "F.softmax" in compiled(text).source()


# N605: equal statements


def test_equal_calls_of_a_define_are_a_loop() -> None:
    before = "define Block(d) { Dense($d) Dropout(0.1) }"
    short, long = (
        network("Block(16) Block(16) Block(16) Dense(4)", before=before),
        network("Block(16) * 3 Dense(4)", before=before),
    )
    assert told(short) == [("N605", "Block(16) Block(16) Block(16)")]
    assert compiled(short).graph == compiled(long).graph == compiled(fixed(short)).graph
    assert "for _ in range(3)" in compiled(short).source()


@pytest.mark.parametrize(
    "layers",
    [
        "Block(16) Block(8)",
        "a = Block(16) Block(16)",
        "Block(16) Dense(16) Block(16)",
        "Block(16) Block(input, 16)",
        "Block(16) * 2 Block(16)",
        "Dense(8) Block(16) Block(16)",
    ],
)
def test_statements_that_are_not_equal(layers: str) -> None:
    found = codes(network(layers, before="define Block(d) { Dense($d) }"))
    assert [c for c in found if c != "N214"] == []


def test_spelling_does_not_make_a_difference() -> None:
    before = "define Block(d) { Dense($d) }"
    assert "N605" in codes(network("Block( 16 )  # one\n Block(16) /* two */", before=before))
    assert "N605" not in codes(network("Block(16) Block(d=16)", before=before))


# N606: a language model that looks ahead


@pytest.mark.parametrize(
    "layers",
    [
        "Attention(num_heads=2)",
        "MultiHeadAttention(num_heads=2)",
        "Residual { Attention(num_heads=2) }",
        "Attention(num_heads=2, causal=true) Attention(num_heads=2, causal=false)",
    ],
)
def test_a_language_model_that_is_not_causal_is_a_warning(layers: str) -> None:
    text = network(f"Embedding(100, 8) PositionalEmbedding() {layers} Dense(100)", sections=LOSS)
    assert codes(text) == ["N606"]
    assert codes(text.replace("Dense(100)", "GlobalAveragePooling1D() Dense(2)")) == []
    assert codes(text.replace("Dense(100)", "Dense(99)")) == []
    assert codes(text.replace(LOSS, 'loss: "mean_squared_error"')) == []


def rules() -> Iterator[str]:
    yield "define Whole(num_heads, d) { Embedding(50, $d) Block($num_heads, $d) Block($num_heads, $d) Head($d) }"
    yield f"define Block(num_heads, d) {{ LayerNormalization() Attend($num_heads, $d) Add() }} {define(THREE + ' Dense($d)', 'Attend')}"
    yield "define Head(d) { Dense(50) }"


def test_all_rules_together_inside_defines() -> None:
    text = network('Whole(2, 8) Activation("softmax")', before="\n".join(rules()), sections=LOSS)
    assert sorted(set(codes(text))) == ["N601", "N602", "N603", "N604", "N605", "N606"]
    explicit = fixed(text)
    assert codes(explicit) == ["N606"]
    assert compiled(explicit).graph == compiled(text).graph
