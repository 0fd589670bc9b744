"""Every mistake of syntax: what is said about it, where, and that nothing is said because of it."""

from __future__ import annotations

import pytest

from neural.diagnostics.diagnostic import Diagnostic
from neural.diagnostics.render import apply_fixes
from neural.diagnostics.source import Source
from neural.syntax.parser import parse
from tests.syntax.shapes import read, shape


def told(diagnostic: Diagnostic) -> str:
    """`CODE line:column title`, and `, fix` where there is one that `--fix` writes."""
    assert diagnostic.primary
    line, column = diagnostic.primary.span.source.line_column(diagnostic.primary.span.start)
    fix = ", fix" if diagnostic.fix and diagnostic.fix.safe else ""
    return f"{diagnostic.code} {line}:{column} {diagnostic.title}{fix}"


ROWS: list[tuple[str, list[str]]] = [
    ("param", ["N122 1:6 `param` is not followed by a name"]),
    ("param =", ["N122 1:6 `param` is not followed by a name"]),
    ("param a", ["N121 1:8 `param a` has no value"]),
    ("param a =", ["N121 1:10 `param a` has no value"]),
    ("param a = network N { }", ["N121 1:10 `param a` has no value"]),
    ("param a 1", ["N107 1:8 `=` is missing after `param a`, fix"]),
    ("param a: 1", ["N107 1:8 `param a` takes `=`, not `:`, fix"]),
    ('param "a" = 1', ["N122 1:7 `param` is not followed by a name, fix"]),
    ("param $a = 1", ["N122 1:7 `param` is not followed by a name, fix"]),
    ("param true = 1", ["N120 1:7 `true` is a word of the language and cannot name a param"]),
    ("param network = 1", ["N120 1:7 `network` is a word of the language and cannot name a param"]),
    ("param a = +1", ["N101 1:11 a value does not begin with `+`, fix"]),
    ("param a = 1 +", ["N121 1:14 a value is missing before the end of the file"]),
    ("param a = 1 2 param b = 3", ["N101 1:13 expected `import`, `param`, `define` or `network`, found the number 2"]),
    ("param a = [1, 2", ["N102 1:16 `[` is never closed"]),
    ("param a = (1, 2]", ["N103 1:16 `]` cannot close `(`"]),
    ("param a = [1 2]", ["N106 1:14 a comma is missing before the number 2, fix"]),
    ("param a = [1,, 2]", ["N121 1:14 a value is missing before `,`"]),
    ("param a = F(x=1, x=2)", ["N117 1:18 the argument `x` is given twice"]),
    ("param a = F(x=1, 2)", ["N116 1:18 a positional argument stands after a named one"]),
    ("param a = F(x: 1)", ["N107 1:14 the argument `x` takes `=`, not `:`, fix"]),
    ('param a = F(x "b")', ["N107 1:14 `=` is missing after the argument `x`, fix"]),
    ("param a = F(x $b)", ["N106 1:15 a comma is missing before `$b`, fix"]),
    ("param a = F(x=)", ["N121 1:15 the argument `x` has no value"]),
    (
        "param a = 012 param b = 1k param c = 1e param d = 0x1F param e = 1.2.3",
        [
            "N111 1:11 `012` is not a number",
            "N111 1:25 `1k` is not a number",
            "N111 1:38 `1e` is not a number",
            "N111 1:51 `0x1F` is not a number",
            "N111 1:66 `1.2.3` is not a number",
        ],
    ),
    (
        "param a = 1e999 param b = 1e-999",
        ["N125 1:11 `1e999` is too large for a float", "N125 1:27 `1e-999` is too small for a float"],
    ),
    (
        'param a = "\\q \\u12 \\ud800"',
        [
            "N112 1:12 `\\q` is not an escape",
            "N112 1:15 `\\u` is not followed by four hexadecimal digits",
            "N112 1:20 `\\ud800` is half of a surrogate pair, not a character",
        ],
    ),
    ('param a = "abc', ["N104 1:11 a string is never closed"]),
    ("param a = 'it's'", ["N104 1:16 a string is never closed"]),
    (
        "param a = $ param b = $5 param c = ${d}",
        [
            "N110 1:11 `$` is not followed by a name",
            "N110 1:23 `$5` names nothing",
            "N110 1:36 `$` takes a name without braces, fix",
        ],
    ),
    ("param größe = 1", ["N113 1:7 `größe` is not a name"]),
    ("param a = “b”", ['N113 1:11 `“` is a typographic quote, not `"`, fix']),
    ("param a = 2 × 3", ["N113 1:13 `×` is U+00D7 (multiplication sign), not `*`, fix"]),
    ("param a = 1\xa0param b = 2", ["N113 1:12 U+00A0 (no-break space) stands where a space belongs, fix"]),
    ("param a = 7 % 2", ["N113 1:13 `%` has no meaning here"]),
    ("param a = 1;", ["N128 1:12 nothing separates statements and sections: `;`, fix"]),
    ("param a = {b = 1}", ["N108 1:14 `b` takes `:`, not `=`, fix"]),
    ("param a = {1: 2}", ["N101 1:12 expected a key, found the number 1"]),
    ("param a = import", ["N101 1:11 expected a value, found `import`"]),
    ("a = 1", ["N115 1:1 `a` is not a declaration"]),
    ("import", ["N126 1:7 `import` is not followed by a path"]),
    ("import a.neural", ["N126 1:8 the path of an `import` stands in quotes, fix"]),
    ("import 'a', 'b'", ["N101 1:11 expected `import`, `param`, `define` or `network`, found `,`"]),
    ("improt 'a'", ["N115 1:1 `improt` is not a declaration, fix"]),
    ("netwrok N { }", ["N115 1:1 `netwrok` is not a declaration, fix"]),
    ("model N { }", ["N115 1:1 `model` is not a declaration"]),
    ("class X", ["N115 1:1 `class` is not a declaration"]),
    ("x", ["N115 1:1 `x` is not a declaration"]),
    ("}", ["N103 1:1 `}` closes nothing"]),
    ("{", ["N101 1:1 expected `import`, `param`, `define` or `network`, found `{`"]),
    ("1", ["N101 1:1 expected `import`, `param`, `define` or `network`, found the number 1"]),
    ("'doc'", ["N101 1:1 expected `import`, `param`, `define` or `network`, found the string 'doc'"]),
    ("A()", ["N123 1:1 the layer `A` stands outside a network"]),
    ("layers: A()", ["N127 1:1 the section `layers` stands outside a network"]),
    ("network N { } loss: x", ["N127 1:15 the section `loss` stands outside a network"]),
    ("define", ["N122 1:7 `define` is not followed by a name"]),
    ("define X", ["N101 1:9 expected `{` after `define X`, found the end of the file"]),
    ("define X { }", ["N109 1:8 `define X` has no parameter list, fix"]),
    ("define X: A()", ["N101 1:9 expected `{` after `define X`, found `:`"]),
    ("define (a) { }", ["N122 1:7 `define` is not followed by a name"]),
    ("define X(a b) { }", ["N106 1:12 a comma is missing before `b`, fix"]),
    ("define X($a) { }", ["N101 1:10 the parameter `a` is declared without `$`, fix"]),
    ("define X(1) { }", ["N101 1:10 expected the name of a parameter, found the number 1"]),
    ("define X(a:1) { }", ["N107 1:11 `parameter a` takes `=`, not `:`, fix"]),
    ("define X(a=) { }", ["N121 1:12 `parameter a` has no value"]),
    ("define X(a, b { A() }", ["N102 1:15 `(` is never closed"]),
    ("define X(a) { A() define Y() { }", ["N102 1:19 `{` is never closed"]),
    ("define none() { }", ["N120 1:8 `none` is a word of the language and cannot name a define"]),
    ("define X(a) { loss: 1 }", ["N127 1:15 the section `loss` stands outside a network"]),
    ("define X(a) { layers: A() }", ["N127 1:15 `layers:` does not stand here"]),
    ("define X(a) { A }", ["N109 1:15 `A` has no parentheses, fix"]),
    ("define X(a) { A B() }", ["N109 1:15 `A` has no parentheses, fix"]),
    ("define X(a) { x B() }", ["N107 1:16 `=` is missing after `x`, fix"]),
    ("define X(a) { x = 1 }", ["N124 1:19 `x` is given a value, not a layer"]),
    ("define X(a) { x = $a }", ["N124 1:19 `x` is given a value, not a layer"]),
    ("define X(a) { x = 'a' }", ["N124 1:19 `x` is given a value, not a layer"]),
    ("define X(a) { 'x' = A() }", ["N124 1:15 the string 'x' cannot name a value"]),
    ("define X(a) { 3 * A() }", ["N124 1:15 the count stands before the layer"]),
    ("define X(a) { A() ** 3 }", ["N101 1:19 a statement is repeated with `*`, not `**`, fix"]),
    ("define X(a) { A() * $n - 1 }", ["N101 1:24 `-` after a count"]),
    ("define X(a) { A() * }", ["N121 1:21 a value is missing before `}`"]),
    ("define X(a) { A(), B() }", ["N128 1:18 nothing separates statements and sections: `,`, fix"]),
    (
        "define X(a) { A(); B(); }",
        [
            "N128 1:18 nothing separates statements and sections: `;`, fix",
            "N128 1:23 nothing separates statements and sections: `;`, fix",
        ],
    ),
    ("define X(a) { A 'relu' }", ["N109 1:17 the argument of `A` stands without parentheses, fix"]),
    ("define X(a) { true = A() }", ["N120 1:15 `true` is a word of the language and cannot name a value"]),
    ("define X(a) { Residual A() }", ["N101 1:15 `Residual` is not followed by `{`", "N102 1:29 `{` is never closed"]),
    ("define X(a) { Residual { A() }", ["N102 1:31 `{` is never closed"]),
    ("define X(a) { x = y }", ["N124 1:19 `x` is given a value, not a layer"]),
    ("define X(a) { = A() }", ["N101 1:15 expected a layer such as `Dense(units=10)`, found `=`"]),
    ("define X(a) { A() -> B() }", ["N101 1:19 expected a layer such as `Dense(units=10)`, found `-`"]),
    ("define X(a) { A()() }", ["N101 1:18 expected a layer such as `Dense(units=10)`, found `(`"]),
    ("define X(a) { A(1) 2 }", ["N124 1:20 the number 2 is not a layer"]),
    ("define X(a) { { A() } }", ["N101 1:15 expected a layer such as `Dense(units=10)`, found `{`"]),
    ("network", ["N122 1:8 `network` is not followed by a name"]),
    ("network { }", ["N122 1:8 `network` is not followed by a name"]),
    ("network N", ["N101 1:10 expected `{` after `network N`, found the end of the file"]),
    ("network N: layers: A()", ["N101 1:10 expected `{` after `network N`, found `:`"]),
    ("network N { A() B() C() loss: x }", ["N123 1:13 the layer `A` stands outside `layers:`"]),
    ("network N { layers { A() } loss: x }", ["N118 1:20 the statements of `layers:` stand without braces"]),
    ("network N { layers: { A() } loss: x }", ["N118 1:21 the statements of `layers:` stand without braces"]),
    ("network N { layers: { A() loss: x }", ["N118 1:21 the statements of `layers:` stand without braces"]),
    ("network N { layers A() loss: x }", ["N108 1:19 `:` is missing after `layers`, fix"]),
    ("network N { layers = A() loss: x }", ["N108 1:20 `layers` takes `:`, not `=`, fix"]),
    ("network N { loss }", ["N101 1:18 expected `:` after `loss`, found `}`"]),
    ("network N { loss: }", ["N121 1:18 the section `loss` has no value"]),
    ("network N { loss: train { } }", ["N101 1:25 expected a section such as `layers:`, found `{`"]),
    ("network N { loss x }", ["N108 1:17 `:` is missing after `loss`, fix"]),
    ("network N { loss = x }", ["N108 1:18 `loss` takes `:`, not `=`, fix"]),
    ("network N { (1) }", ["N101 1:13 expected a section such as `layers:`, found `(`"]),
    ("network N { loss: x, train { } }", ["N128 1:20 nothing separates statements and sections: `,`, fix"]),
    ("network N { layers: A() loss = y loss: x }", ["N108 1:30 `loss` takes `:`, not `=`, fix"]),
    (
        "network N { layers: A() train { a = 1 b 2 : 3 } loss: x }",
        ["N108 1:35 `a` takes `:`, not `=`, fix", "N101 1:41 expected `:` after `b`, found the number 2"],
    ),
    ("network N { layers: A() optimizer = Adam(1) loss: x }", ["N108 1:35 `optimizer` takes `:`, not `=`, fix"]),
    ("network N { layers: A() metrics ['a'] loss: x }", ["N108 1:32 `:` is missing after `metrics`, fix"]),
    ("network N { layers: A() Residual { B()  loss: x }", ["N102 1:41 `{` is never closed"]),
    ("network N { layers: A() B(1 loss: x }", ["N102 1:29 `(` is never closed"]),
    ("network N { layers: A() B(1] loss: x }", ["N103 1:28 `]` cannot close `(`"]),
    ("network N { layers: A() B(1}) loss: x }", ["N103 1:28 `}` closes nothing"]),
    ("network N { layers: A() B{a=1} loss: x }", ["N101 1:26 expected `(` after `B`, found `{`"]),
    ("network N { layers: A() input (1,) loss: x }", []),
    ("network N { train { a: 1 ) }", ["N103 1:26 `)` cannot close `{`"]),
    ("network N { train { a: 1 loss: x }", ["N102 1:35 `{` is never closed"]),
    ("network N { input: (1,} layers: A() }", ["N103 1:23 `}` cannot close `(`"]),
    ("/* open", ["N105 1:1 a comment is never closed"]),
    ("network N { /* open", ["N105 1:13 a comment is never closed"]),
    (
        "network N {\n  layers:\n    A(1\n    B(2)\n    q = C(3\n    D(4)\n  loss: F(1,\n  train { }\n}",
        ["N102 4:5 `(` is never closed", "N102 6:5 `(` is never closed", "N102 8:3 `(` is never closed"],
    ),
]


@pytest.mark.parametrize(("text", "expected"), ROWS, ids=[text[:40] for text, _ in ROWS])
def test_what_is_told(text: str, expected: list[str]) -> None:
    assert [told(d) for d in parse(Source("test.neural", text))[1]] == expected


@pytest.mark.parametrize("text", [t for t, lines in ROWS if lines and all(line.endswith(", fix") for line in lines)])
def test_safe_fixes_mend(text: str) -> None:
    fixes = [d.fix for d in parse(Source("test.neural", text))[1] if d.fix]
    mended = apply_fixes(text, fixes)
    assert parse(Source("test.neural", mended))[1] == [], mended


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("param a: 1", True),
        ("network N { layers: A(1 x=2) B }", True),
        ("param a = 012", False),
        ("param a = 1 % 2", False),
        ("define X() { A(x=) }", False),
        ("network N { layers: 3 }", False),
        ("network N { /* rest", False),
    ],
)
def test_a_tree_says_whether_something_is_missing(text: str, complete: bool) -> None:
    file, messages = parse(Source("test.neural", text))
    assert messages and file.complete is complete


def test_a_mended_tree_is_the_one_that_was_meant() -> None:
    broken = "netwrok N { input = (1,) layers A(1 b: 2) B q C() loss 'x' }"
    file, messages = parse(Source("test.neural", broken))
    assert len(messages) == 8
    assert shape(file) == shape(read("network N { input: (1,) layers: A(1, b=2) B() q = C() loss: 'x' }"))


def test_all_mistakes_of_a_file_are_told_in_order() -> None:
    text = "\n".join(t for t, lines in ROWS[:3] + ROWS[8:12] if lines)
    places = [d.primary.span.start for d in parse(Source("test.neural", text))[1] if d.primary]
    assert places == sorted(places) and len(places) > 5
