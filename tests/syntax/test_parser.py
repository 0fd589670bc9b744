"""What each piece of a program is read as."""

from __future__ import annotations

import pytest

from neural.diagnostics.source import Source
from neural.syntax.format import format_file
from neural.syntax.parser import parse
from neural.syntax.tree import Define, Network, Param
from tests.syntax.shapes import read, shape


def literal(value: object) -> tuple:
    return ("Literal", type(value).__name__, repr(value))


def ref(name: str, dollar: bool = False) -> tuple:
    return ("Ref", name, dollar)


def op(left: object, operator: str, right: object) -> tuple:
    return ("Binary", operator, left, right)


def minus(operand: object) -> tuple:
    return ("Unary", "-", operand)


def seq(kind: str, *items: object) -> tuple:
    return ("Sequence", kind, items)


def call(callee: str, *arguments: object, **named: object) -> tuple:
    pairs = [*((None, a) for a in arguments), *named.items()]
    return ("Call", callee, tuple(("Argument", n, v) for n, v in pairs))


def mapping(**entries: object) -> tuple:
    return ("Map", tuple(("Entry", k, v) for k, v in entries.items()))


ONE, TWO, THREE = literal(1), literal(2), literal(3)

VALUES = {
    "12": literal(12),
    "1_000_000": literal(1_000_000),
    "0": literal(0),
    "1e-5": literal(1e-5),
    "1E5": literal(1e5),
    ".5": literal(0.5),
    "2.": literal(2.0),
    "1_0.2_5e+0_1": literal(10.25e1),
    '"a"': literal("a"),
    "'a'": literal("a"),
    "''": literal(""),
    r'"\n\t\r\\\"\'é\u00e9"': literal("\n\t\r\\\"'éé"),
    '"# no comment // either /* */"': literal("# no comment // either /* */"),
    "true": literal(True),
    "True": literal(True),
    "false": literal(False),
    "False": literal(False),
    "none": literal(None),
    "None": literal(None),
    "x": ref("x"),
    "$x": ref("x", True),
    "(1)": ONE,
    "(1,)": seq("tuple", ONE),
    "()": seq("tuple"),
    "(1, 2,)": seq("tuple", ONE, TWO),
    "[]": seq("list"),
    "[1]": seq("list", ONE),
    "[1, (2), [3],]": seq("list", ONE, TWO, seq("list", THREE)),
    "-1": minus(ONE),
    "--1": minus(minus(ONE)),
    "1 + 2 * 3": op(ONE, "+", op(TWO, "*", THREE)),
    "1 - 2 - 3": op(op(ONE, "-", TWO), "-", THREE),
    "1 - (2 - 3)": op(ONE, "-", op(TWO, "-", THREE)),
    "1 / 2 * 3": op(op(ONE, "/", TWO), "*", THREE),
    "-2 ** 2": minus(op(TWO, "**", TWO)),
    "(-2) ** 2": op(minus(TWO), "**", TWO),
    "2 ** -1": op(TWO, "**", minus(ONE)),
    "1 ** 2 ** 3": op(ONE, "**", op(TWO, "**", THREE)),
    "-1 * 2": op(minus(ONE), "*", TWO),
    "1 * -2": op(ONE, "*", minus(TWO)),
    "1-2": op(ONE, "-", TWO),
    "1e-5-3": op(literal(1e-5), "-", THREE),
    "4*$d": op(literal(4), "*", ref("d", True)),
    "F()": call("F"),
    "F (1)": call("F", ONE),
    "F(1, x=2,)": call("F", ONE, x=TWO),
    "F(network=1, true=2)": call("F", network=ONE, true=TWO),
    "HPO(choice(1, 2))": call("HPO", call("choice", ONE, TWO)),
    "{}": mapping(),
    "{ a: 1, b: 2 }": mapping(a=ONE, b=TWO),
    "{ a: 1 b: x c: F() }": mapping(a=ONE, b=ref("x"), c=call("F")),
    "{ layers: 1, network: { a: 1, } }": mapping(layers=ONE, network=mapping(a=ONE)),
}


@pytest.mark.parametrize("text", VALUES)
def test_values(text: str) -> None:
    (param,) = read(f"param x = {text}").items
    assert isinstance(param, Param)
    assert shape(param.value) == VALUES[text]
    assert param.value.span.text == text
    assert param.span.text == f"param x = {text}"


def stmt(layer: str, *arguments: object, name=None, body=None, repeat=None, **named: object) -> tuple:
    return ("Statement", name, layer, call("", *arguments, **named)[2], body, repeat)


STATEMENTS = {
    "A()": stmt("A"),
    "x = A(1, b=2)": stmt("A", ONE, b=TWO, name="x"),
    "A() * 2": stmt("A", repeat=TWO),
    "A() * 2 * $n": stmt("A", repeat=op(TWO, "*", ref("n", True))),
    "A() * ($n - 1)": stmt("A", repeat=op(ref("n", True), "-", ONE)),
    "A() * -1": stmt("A", repeat=minus(ONE)),
    "A() * n": stmt("A", repeat=ref("n")),
    "Residual { A() }": stmt("Residual", body=(stmt("A"),)),
    "Residual {}": stmt("Residual", body=()),
    "Residual(shortcut=B(1)) { A() B() } * 2": stmt(
        "Residual", shortcut=call("B", ONE), body=(stmt("A"), stmt("B")), repeat=TWO
    ),
    "x = Residual { A() }": stmt("Residual", name="x", body=(stmt("A"),)),
    "network_2 = param_1(none_3=1)": stmt("param_1", name="network_2", none_3=ONE),
}


@pytest.mark.parametrize("text", STATEMENTS)
def test_statements(text: str) -> None:
    define, network = read(f"define X() {{ {text} {text} }} network N {{ layers: {text} {text} }}").items
    assert isinstance(define, Define) and isinstance(network, Network)
    for statements in (define.body, network.sections[0].value):
        assert shape(statements) == (STATEMENTS[text],) * 2
        assert [s.span.text for s in statements] == [text] * 2


SECTIONS = {
    "input: (1,)": ("input", seq("tuple", ONE)),
    'loss: "x"': ("loss", literal("x")),
    "optimizer: AdamW(a=1)": ("optimizer", call("AdamW", a=ONE)),
    "train { a: 1  b: 2 }": ("train", mapping(a=ONE, b=TWO)),
    "train: { a: 1, b: 2 }": ("train", mapping(a=ONE, b=TWO)),
    "layers:": ("layers", ()),
    "layers: x = A() Residual { B() }": ("layers", (stmt("A", name="x"), stmt("Residual", body=(stmt("B"),)))),
    "anything: x": ("anything", ref("x")),
    "param: x": ("param", ref("x")),
}


@pytest.mark.parametrize("first", SECTIONS)
@pytest.mark.parametrize("second", SECTIONS)
def test_sections_follow_one_another(first: str, second: str) -> None:
    (network,) = read(f"network N {{ {first} {second} }}").items
    assert isinstance(network, Network)
    assert shape(network.sections) == tuple(("Section", *SECTIONS[s]) for s in (first, second))
    assert [s.span.text for s in network.sections] == [first, second]


def test_a_file_holds_items_in_any_order() -> None:
    text = 'network N { } define X(a, b = 2 * $a, c = none,) { } param p = 1 import "x" network M { }'
    assert shape(read(text)) == (
        ("Network", "N", ()),
        (
            "Define",
            "X",
            (
                ("Parameter", "a", None),
                ("Parameter", "b", op(TWO, "*", ref("a", True))),
                ("Parameter", "c", literal(None)),
            ),
            (),
        ),
        ("Param", "p", ONE),
        ("Import", literal("x")),
        ("Network", "M", ()),
    )


def test_comments_are_kept_with_their_marks_and_places() -> None:
    file = read("# one\nparam a = 1 // two  \n/* three\n  lines */ param b = [ /* four */ ] # five")
    assert [c.text for c in file.comments] == ["# one", "// two", "/* three\n  lines */", "/* four */", "# five"]
    assert all(c.span.text == c.text for c in file.comments)


@pytest.mark.parametrize("text", ["", "\n", "# nothing", "\ufeff", "/**/"])
def test_an_empty_file_is_no_mistake_of_syntax(text: str) -> None:
    assert read(text).items == ()


NESTED = {
    "parentheses": lambda n: "param a = " + "(" * n + "1" + ")" * n,
    "lists": lambda n: "param a = " + "[" * n + "]" * n,
    "calls": lambda n: "param a = " + "F(x=" * n + "1" + ")" * n,
    "maps": lambda n: "param a = " + "{ a: " * n + "1" + "}" * n,
    "signs": lambda n: "param a = " + "-" * n + "1",
    "sums": lambda n: "param a = " + "1 + " * n + "1",
    "powers": lambda n: "param a = " + "2 ** " * n + "1",
    "residuals": lambda n: "define X() {" + "Residual {" * n + "}" * n + "}",
}


@pytest.mark.parametrize("kind", NESTED)
def test_a_hundred_levels_are_read_and_written(kind: str) -> None:
    file = read(NESTED[kind](97))
    assert shape(read(format_file(file))) == shape(file)
    _, messages = parse(Source("test.neural", NESTED[kind](101)))
    assert [d.code for d in messages] == ["N119"]


@pytest.mark.parametrize(
    "text",
    [
        "{" * 10**6,
        "}" * 10**6,
        "{}" * 10**6,
        "network N {" + "{" * 10**6,
        "network N { layers: " + "Residual {" * 10**5,
        "network N { loss: " + "(" * 10**6,
        "network N { layers: A(" + "[" * 10**6,
        "network N { train {" + "a: {" * 10**5,
        "param a = " + "-" * 10**6,
        "param a = " + "1 + " * 10**5 + "1",
        "param a = " + "2 ** " * 10**5 + "1",
        "network N { layers: A(" + "," * 10**6,
        "define X(" + "a(" * 10**5,
        "a " * 10**5,
    ],
    ids=lambda text: text[:30],
)
def test_nonsense_is_refused_in_a_word(text: str) -> None:
    _, messages = parse(Source("test.neural", text))
    assert len(messages) == 1


@pytest.mark.parametrize(
    "text", ["@ " * 10**5, "'\n" * 10**5, "$ " * 10**5, "param x = 1e\n" * 10**4, "define " * 10**4]
)
def test_mistakes_are_counted_up_to_a_hundred(text: str) -> None:
    _, messages = parse(Source("test.neural", text))
    assert len(messages) == 101
    assert messages[-1].code == "N100"


def test_a_binary_file_is_one_mistake() -> None:
    file, messages = parse(Source("model.neural", "PK\x03\x04\0\0" * 100))
    assert [d.code for d in messages] == ["N114"]
    assert not file.complete
