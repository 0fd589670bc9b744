"""Statements: what they read, what they are called, how often they stand, what a define makes of them."""

from __future__ import annotations

import pytest

from tests.graph.programs import codes, compiled, network, output, structure, told

# What a statement reads


def test_a_statement_reads_the_one_before_it() -> None:
    assert structure(compiled(network("Dense(8) Dense(4)")).graph.block)[1][1][1] == (1,)


@pytest.mark.parametrize(
    ("layers", "reads"),
    [
        ("a = Dense(16) Dense(input, 4)", (0,)),
        ("a = Dense(16) Dense(a, 4)", (1,)),
        ("a = Dense(16) Dense(8) Add(a, input)", (1, 0)),
        ("a = Dense(16) b = Dense(input, 16) Add(b, a)", (2, 1)),
        ("a = Dense(16) Add(a, a)", (1, 1)),
    ],
)
def test_first_positional_arguments_name_values(layers: str, reads: tuple[int, ...]) -> None:
    assert structure(compiled(network(layers)).graph.block)[1][-1][1] == reads


def test_other_positional_arguments_bind_in_order() -> None:
    short, long = network('Dense(8, "relu", false)'), network('Dense(units=8, activation="relu", use_bias=false)')
    assert structure(compiled(short).graph.block) == structure(compiled(long).graph.block)
    mixed = network('Dense(input, 8, use_bias=false, activation="relu")')
    assert structure(compiled(mixed).graph.block) == structure(compiled(long).graph.block)


def test_a_parameter_may_stand_by_position() -> None:
    assert output(network("Dense(width)", before="param width = 8")) == (8,)
    assert output(network("Dense(input, width)", before="param width = 8")) == (8,)


def test_input_is_what_the_enclosing_block_was_given() -> None:
    before = "define Twice(d) { Dense($d) Dense(input, $d) }"
    (rows,) = [
        r
        for r in structure(compiled(network("Dense(9) Twice(4)", before=before)).graph.block)[1]
        if isinstance(r[0][0], tuple)
    ]
    assert [inputs for _, inputs, _ in rows[0][1]] == [(0,), (0,)]


def test_a_residual_leaves_input_alone() -> None:
    block = compiled(network("Dense(16) Residual { Dense(8) a = Dense(input, 16) Add(a, input) }")).graph.block
    assert [inputs for _, inputs, _ in structure(block)[1]] == [(0,), (1,), (0,), (3, 0), (1, 4)]


def test_a_define_gives_its_last_value() -> None:
    before = "define Block() { a = Dense(3) b = Dense(input, 5) Add(b, b) }"
    assert output(network("Block()", before=before)) == (5,)


@pytest.mark.parametrize(
    ("layers", "code", "place"),
    [
        ("a = Dense(16) Add(a, b)", "N209", "b"),
        ("Add(input, later) later = Dense(16)", "N209", "later"),
        ("a = Dense(16) Dense(4, a)", "N208", "a"),
        ("Add(Dense(16), input)", "N304", "Dense(16)"),
        ("a = Dense(4) a = Dense(5)", "N203", "a"),
        ("input = Dense(4)", "N203", "input"),
        ("Dense(4) { Dense(5) }", "N206", "Dense"),
        ("Residual() Dense(4)", "N206", "Residual"),
        ("Residual { }", "N206", "Residual"),
        ("Residual(3) { Dense(16) }", "N301", "3"),
        ("Residual(shortcut=3) { Dense(16) }", "N301", "shortcut=3"),
        ("Dense(4, 4) Dense(5)", "N311", "4"),
        ("Dense()", "N302", "Dense"),
        ('Dense(4, "relu", true, 3)', "N309", "3"),
        ("Dense(4, units=5)", "N310", "units=5"),
        ("Dense(unit=5)", "N301", "unit"),
        ("Dens(5)", "N207", "Dens"),
        ("dense(5)", "N207", "dense"),
        ("Add(input)", "N403", "Add"),
        ("a = Dense(4) Dense(a, a, 4)", "N403", "Dense"),
    ],
)
def test_statements_that_are_refused(layers: str, code: str, place: str) -> None:
    assert told(network(layers)) == [(code, place)]


def test_a_mistake_silences_what_follows_from_it() -> None:
    layers = "a = Dense(units=0) b = Dense(a, 4) Add(a, b) Residual { Dense(7) } Dense(4) * 3 Flatten(a)"
    assert told(network(layers)) == [("N311", "0")]


def test_all_mistakes_are_told_at_once() -> None:
    layers = 'Dense(0) Dropout(2) Dense(input, 4, activation="rleu") Dens(4) LayerNormalization(input, epsilon=0)'
    assert codes(network(layers)) == ["N311", "N311", "N311", "N207", "N311"]


def test_mistakes_of_a_define_that_nobody_calls_are_told() -> None:
    before = "define Unused(n) { Dense($m) Dropout(7) Dens(3) Dense($n) }"
    assert codes(network("Dense(4)", before=before)) == ["N201", "N311", "N207"]


def test_a_define_called_twice_tells_its_mistake_once() -> None:
    before = "define Block(n) { Dropout(7) Dense($n) }"
    assert codes(network("Block(4) Block(5)", before=before)) == ["N311"]


# Names


@pytest.mark.parametrize(
    "name",
    [
        "class",
        "self",
        "forward",
        "x",
        "F",
        "torch",
        "T",
        "to",
        "positions",
        "mask",
        "layer",
        "q",
        "cache",
        "past",
        "super",
    ],
)
def test_any_name_will_do(name: str) -> None:
    layers = f"{name} = Dense(8) MultiHeadAttention(num_heads=2, causal=true) Add({name}, {name}) Dense(units=$n)"
    before = f"param n = 4 define {name.capitalize()}({name}) {{ Dense(units=${name}) }}"
    program = compiled(network(layers + f" {name.capitalize()}({name}=3)", input="(16, 4)", before=before))
    compile(program.source(), "generated", "exec")
    assert program.parameter_count == 4 * 8 + 8 + 4 * (8 * 8 + 8) + 8 * 4 + 4 + 4 * 3 + 3


def test_names_given_in_a_residual_belong_to_the_block_around_it() -> None:
    assert output(network("Residual { inner = Dense(16) } Dense(inner, 4)")) == (4,)
    assert codes(network("Residual { inner = Dense(16) } inner = Dense(4)")) == ["N203"]


def test_names_of_one_define_are_not_those_of_another() -> None:
    before = "define A() { h = Dense(4) } define B() { h = Dense(5) }"
    assert output(network("h = A() B()", before=before)) == (5,)


# Repetition


def test_copies_have_weights_of_their_own() -> None:
    assert compiled(network("Dense(16) * 3")).parameter_count == 3 * (16 * 16 + 16)
    before = "define Block() { Dense(16) }"
    assert compiled(network("Block() * 3", before=before)).parameter_count == 3 * (16 * 16 + 16)
    assert compiled(network("Residual { Dense(16) } * 3")).parameter_count == 3 * (16 * 16 + 16)


def test_copies_are_a_loop_in_the_source() -> None:
    source = compiled(network("Block(16) * $n", before="param n = 3 define Block(d) { Dense($d) }")).source()
    assert "for _ in range(n)" in source
    assert source.count("Block(d=16") == 1


@pytest.mark.parametrize(
    "layer",
    [
        "Attention(num_heads=2)",
        "Attention(num_heads=2, causal=true, qk_norm=true)",
        "Attention(num_heads=4, rope=10.0)",
    ],
)
def test_layers_that_need_a_mask_can_be_repeated(layer: str) -> None:
    program = compiled(network(f"Dense(8) {layer} * 2 Dense(4)", input="(5, 16)"))
    assert output(network(f"Dense(8) {layer} * 2 Dense(4)", input="(5, 16)")) == (5, 4)
    compile(program.source(), "generated", "exec")


@pytest.mark.parametrize("count", ["0", "-1", "1.5", "2.0", "true", '"2"', "none", "(2,)"])
def test_what_is_no_count(count: str) -> None:
    assert codes(network(f"Dense(16) * {count}")) == ["N313"]


@pytest.mark.parametrize(
    ("layers", "place"),
    [
        ("Dense(8) * 2", "Dense"),
        ("a = Dense(16) Add(a, input) * 2", "2"),
        ("a = Dense(16) Dense(16, tied_to=a) * 2", "2"),
        ("Residual(shortcut=Dense(8)) { Dense(8) } * 2", "Residual"),
    ],
)
def test_what_cannot_be_repeated(layers: str, place: str) -> None:
    assert told(network(layers)) == [("N414", place)]


def test_a_repeated_residual_reads_parameters() -> None:
    before = "param d = 16 define Block(rate) { Residual { Dense($d) Dropout($rate) } * 2 }"
    assert compiled(network("Block(0.1)", before=before)).parameter_count == 2 * (16 * 16 + 16)


# Residual


def test_a_residual_adds_what_enters_to_what_its_body_gives() -> None:
    rows = structure(compiled(network("Dense(8) Residual { Dense(4) Dense(8) }")).graph.block)[1]
    assert rows[-1][:2] == (("Add",), (1, 3))


def test_a_shortcut_projects_the_input() -> None:
    rows = structure(compiled(network("Residual(shortcut=Dense(8)) { Dense(8) }")).graph.block)[1]
    assert rows[-1][:2] == (("Add",), (2, 1))
    assert output(network("Residual(shortcut=Dense(8)) { Dense(8) }")) == (8,)


def test_residuals_nest_and_have_names() -> None:
    assert output(network("outer = Residual { Residual { Dense(16) } Dense(16) } Add(outer, input)")) == (16,)


# Ties


def test_a_tied_weight_counts_once() -> None:
    text = network("t = Embedding(100, 8) Dense(8) Dense(100, use_bias=false, tied_to=t)")
    assert compiled(text).parameter_count == 100 * 8 + 8 * 8 + 8


def test_a_tied_weight_is_transposed_where_the_use_needs_it() -> None:
    (tie,) = compiled(network("a = Dense(8) Dense(16, tied_to=a)")).graph.block.ties
    assert tie.transposed
    (tie,) = compiled(network("t = Embedding(100, 16) Dense(100, tied_to=t)")).graph.block.ties
    assert not tie.transposed


@pytest.mark.parametrize(
    ("layers", "code", "place"),
    [
        ("Dense(16) Dense(16, tied_to=first)", "N210", "first"),
        ('a = Dense(16) Dense(16, tied_to="a")', "N210", '"a"'),
        ("a = Dense(16) Dense(16, tied_to=3)", "N210", "3"),
        ("a = Dropout(0.1) Dense(16, tied_to=a)", "N210", "a"),
        ("a = Dense(8) Dense(9) Dense(4, tied_to=a)", "N413", "a"),
        ("a = Dense(16) * 2 Dense(16, tied_to=a)", "N210", "a"),
        ("Dense(16, tied_to=a) a = Dense(16)", "N210", "a"),
    ],
)
def test_ties_that_are_refused(layers: str, code: str, place: str) -> None:
    assert told(network(layers)) == [(code, place)]


# Weights


@pytest.mark.parametrize("name", ["gone.safetensors", "x" * 300, "a\\u0000b", "folder/gone.safetensors"])
def test_weights_that_are_not_there_are_a_warning(name: str) -> None:
    assert told(network(f'Dense(4, weights="{name}")')) == [("N211", f'"{name}"')]
    node = compiled(network('Dense(4, weights="gone.safetensors")')).graph.block.nodes[0]
    assert node.weights_from == "gone.safetensors"


@pytest.mark.parametrize("value", ["3", "none", "pretrained", "(1,)", "true"])
def test_weights_that_are_no_name_of_a_file(value: str) -> None:
    assert codes(network(f"Dense(4, weights={value})")) == ["N312"]
