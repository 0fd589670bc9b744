"""Values: literals, arithmetic, parameters, choices for a search."""

from __future__ import annotations

import pytest

from tests.graph.programs import codes, compiled, network, output, told, values

ARITHMETIC = [
    ("2 + 3 * 4", 14),
    ("(2 + 3) * 4", 20),
    ("2 ** 3 ** 2", 512),
    ("-2 ** 2 + 5", 1),
    ("2 ** -1", 0.5),
    ("7 - 3 - 2", 2),
    ("64 / 4 / 2", 8),
    ("64 / 4", 16),
    ("-6 / 3", -2),
    ("7 / 2", 3.5),
    ("8.0 / 2", 4.0),
    ("1e-3 * 2", 0.002),
    ("3 * 2.0", 6.0),
    ("0 ** 0", 1),
    ("9223372036854775807", 2**63 - 1),
    ("-9223372036854775807", -(2**63) + 1),
    ("1_000_000", 1_000_000),
]


@pytest.mark.parametrize(("written", "value"), ARITHMETIC)
def test_arithmetic(written: str, value: object) -> None:
    found = values(network("Dense(4)", before=f"param x = {written}"))["x"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", True), ("True", True), ("false", False), ("False", False), ("none", None), ("None", None),
        ('"a b"', "a b"), ("'a \"b'", 'a "b'), ('"\\u00e9\\n"', "é\n"), ("(1, 2)", (1, 2)), ("(1,)", (1,)), ("()", ()),
        ("[1, 2.5]", (1, 2.5)), ('["a", ("b", 3)]', ("a", ("b", 3))), (".5", 0.5), ("1e-5", 1e-5), ("5.", 5.0),
    ],
)  # fmt: skip
def test_literals(written: str, value: object) -> None:
    found = values(network("Dense(4)", before=f"param x = {written}"))["x"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("written", "code", "place"),
    [
        ("1 / 0", "N305", "0"),
        ("1 / (2 - 2)", "N305", "(2 - 2)"),
        ("0 ** -1", "N305", "-1"),
        ("2 ** 63", "N306", "2 ** 63"),
        ("2 ** 99999", "N306", "2 ** 99999"),
        ("9223372036854775807 + 1", "N306", "9223372036854775807 + 1"),
        ("1e308 * 10", "N306", "1e308 * 10"),
        ("(0 - 8) ** 0.5", "N306", "(0 - 8) ** 0.5"),
        ("true + 1", "N303", "true"),
        ('2 * "3"', "N303", '"3"'),
        ("-none", "N303", "none"),
        ("(1, 2) * 2", "N303", "(1, 2)"),
        ("Dense(3)", "N304", "Dense(3)"),
        ("{ a: 1 }", "N304", "{ a: 1 }"),
    ],
)
def test_arithmetic_that_is_refused(written: str, code: str, place: str) -> None:
    assert told(network("Dense(4)", before=f"param x = {written}")) == [(code, place)]


def test_a_quotient_that_is_not_whole_is_told_where_a_whole_number_is_needed() -> None:
    assert told(network("Dense(units=$d_model / 5)", before="param d_model = 64")) == [("N311", "$d_model / 5")]
    assert output(network("Dense(units=$d_model / 4)", before="param d_model = 64")) == (16,)
    assert codes(network("Dropout($d_model / 128) Dense(4)", before="param d_model = 64")) == []


@pytest.mark.parametrize("units", ["0", "-1", "1.5", "8.0", "true", "none", '"8"', "(8,)", "9223372036854775808"])
def test_what_is_no_size(units: str) -> None:
    assert len(codes(network(f"Dense(units={units})"))) == 1


# Parameters


def test_a_bare_name_means_the_same_as_a_dollar() -> None:
    before = "param width = 8 define Block(units) { Dense(units=units) }"
    assert output(network("Block(units=width)", before=before)) == (8,)
    assert output(network("Block(units=$width)", before=before.replace("=units", "=$units"))) == (8,)


def test_a_parameter_of_a_define_hides_one_of_the_file() -> None:
    assert output(network("Block(width=3)", before="param width = 8 define Block(width) { Dense($width) }")) == (3,)


def test_a_define_reads_parameters_of_the_file() -> None:
    assert output(network("Block()", before="param width = 8 define Block() { Dense($width) }")) == (8,)
    assert output(network("Block()", before="param width = 8 define Block() { Dense($width) }"), {"width": 5}) == (5,)


def test_a_define_does_not_read_parameters_of_its_caller() -> None:
    before = "define Inner() { Dense($width) } define Outer(width) { Inner() }"
    assert told(network("Outer(width=8)", before=before)) == [("N201", "$width")]


def test_a_default_reads_the_parameters_before_it_and_those_of_the_file() -> None:
    before = "param f = 4 define Block(d, ff = $f * $d) { Dense($ff) Dense($d) }"
    assert compiled(network("Block(d=8)", before=before)).parameter_count == 16 * 32 + 32 + 32 * 8 + 8
    assert compiled(network("Block(d=8, ff=10)", before=before)).parameter_count == 16 * 10 + 10 + 10 * 8 + 8


def test_params_may_stand_in_any_order() -> None:
    text = "param a = 2 * $b\n" + network("Dense($a)") + "param b = 3"
    assert output(text) == (6,)


@pytest.mark.parametrize(("given", "width"), [({}, 8), ({"d": 3}, 12), ({"w": 5}, 5), ({"w": 7, "d": 9}, 7)])
def test_set_overrides_a_param_and_what_is_made_of_it(given: dict[str, object], width: int) -> None:
    assert output(network("Dense($w)", before="param d = 2 param w = 4 * $d"), given) == (width,)


def test_set_binds_a_name_that_the_file_reads_and_nobody_binds() -> None:
    assert codes(network("Dense(num_classes)")) == ["N209"]
    assert codes(network("Dense(units=num_classes)")) == codes(network("Dense($num_classes)")) == ["N201"]
    assert output(network("Dense(num_classes)"), {"num_classes": 2}) == (2,)
    assert compiled(network("Dense(num_classes)"), {"num_classes": 2}).parameters == {"num_classes": 2}


def test_set_of_a_parameter_nobody_has() -> None:
    assert codes(network("Dense(4)", before="param width = 3"), {"widht": 2}) == ["N205"]
    assert codes(network("Dense(units=4)"), {"units": 2}) == ["N205"]
    assert codes(network("B(4)", before="define B(n) { Dense($n) }"), {"n": 2}) == ["N205"]


def test_an_unbound_name_is_told_once() -> None:
    assert told(network("Dense($w) Dense($w) Dense(2 * $w)")) == [("N201", "$w")]


# HPO


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("choice(64, 128)", 64), ("categorical(0.5, 1)", 0.5), ('choice("relu", "gelu")', "relu"), ("range(8, 64)", 8),
        ("range(8, 64, step=8)", 8), ("log_range(1e-4, 1e-2)", 1e-4), ("choice($b, 3)", 5), ("choice(true)", True),
    ],
)  # fmt: skip
def test_outside_a_search_a_choice_is_its_first_or_lowest(written: str, value: object) -> None:
    program = compiled(network("Dense(4)", before=f"param b = 5 param x = HPO({written})"))
    assert program.parameters["x"] == value
    assert [d.code for d in program.messages] == ["N308"]


def test_a_choice_may_stand_for_any_value() -> None:
    layers = 'Dense(HPO(choice(16, 8)), activation=HPO(choice("relu", "gelu"))) * 1'
    text = network(
        layers,
        sections="optimizer: Adam(learning_rate=HPO(log_range(1e-4, 1e-2))) train { steps: HPO(choice(10, 20)) }",
    )
    assert codes(text) == ["N308"] * 4
    assert compiled(text).settings.train.steps == 10


@pytest.mark.parametrize(
    "written", ["", "3", "choice", "choice()", "range(1)", "range(2, 1)", "range(1, 2, 3)", "log_range(0, 1)", "choice(a=1)", 'range("a", "b")',
                "range(1, 2, step=0)", "range(1, 2, stop=1)", "log_range(1, 2, step=1)", "uniform(1, 2)", "choice(1), choice(2)"],
)  # fmt: skip
def test_a_bad_choice(written: str) -> None:
    found = codes(network("Dense(4)", before=f"param x = HPO({written})"))
    assert found == ["N307"]
