"""Messages of every form, each drawn in tests/diagnostics/golden/NAME.txt."""

from __future__ import annotations

from neural.diagnostics.diagnostic import Diagnostic, Edit, Fix, Label, Severity
from neural.diagnostics.source import Source, Span

PROGRAM = Source(
    "model.neural",
    """param d_model = 768
define Block(num_heads, d_model) {
  LayerNormalization(epsilon=1e-5)
  Attention(num_heads=$num_heads, causal=true)
  Dense(units=4 * $d_model, activation="gelu")
  Dense(units=$d_model)
}

network Net {
  input: (1024,)
  layers:
    Block(num_heads=7, d_model=$d_model)
}
""",
)


def place(text: str, source: Source = PROGRAM, nth: int = 0) -> Span:
    start = -1
    for _ in range(nth + 1):
        start = source.text.index(text, start + 1)
    return Span(source, start, start + len(text))


def one_line(text: str, marked: str, label: str = "here") -> Diagnostic:
    source = Source("odd.neural", text)
    return Diagnostic("N101", "a line that is drawn with care", Label(place(marked, source), label))


OTHER = Source("blocks.neural", "define Block(a) {\n  Dense(units=$a)\n}\n")
AXIS = Label(place("num_heads=$num_heads"), "7 heads")
TABS = "\tDense(\tunits=10,\tactivation=1)"

DRAWINGS: dict[str, list[Diagnostic]] = {
    "one_label": [
        Diagnostic("N203", "unknown argument `causal`", Label(place("causal"), "not an argument of Attention"))
    ],
    "no_text_under_the_caret": [Diagnostic("N203", "unknown argument `causal`", Label(place("causal")))],
    "no_place": [Diagnostic("N001", "there is no file x.neural", hint="did you mean y.neural?")],
    "everything": [
        Diagnostic(
            "N402",
            "768 cannot be split among 7 heads",
            Label(place("7", nth=1), "7 heads"),
            (Label(place("768"), "the width"), Label(place("num_heads=$num_heads"), "used here")),
            ("768 / 7 leaves a remainder of 5", "widths are a multiple of the heads\nas in every paper"),
            "choose 6, 8 or 12 heads",
            Fix("write `num_heads=8`", (Edit(place("7", nth=1), "8"),), safe=True),
        )
    ],
    "unsafe_fix": [
        Diagnostic(
            "N102",
            "a title",
            Label(place("768"), "here"),
            fix=Fix("write `512`", (Edit(place("768"), "512"),)),
        )
    ],
    "several_labels_on_a_line": [
        Diagnostic(
            "N300",
            "three labels",
            Label(place("num_heads=$num_heads"), "first"),
            (Label(place("Attention"), "layer"), Label(place("causal=true"), "second")),
        )
    ],
    "labels_that_touch": [
        Diagnostic(
            "N300", "two labels side by side", Label(place("4 *"), "count"), (Label(place("$d_model", nth=1)), AXIS)
        )
    ],
    "one_inside_the_other": [
        Diagnostic(
            "N300",
            "a part and the whole",
            Label(place("$d_model"), "part"),
            (Label(place("units=4 * $d_model"), "whole"),),
        )
    ],
    "many_lines": [
        Diagnostic(
            "N300",
            "a block of lines",
            Label(place(PROGRAM.text[PROGRAM.text.index("define") : PROGRAM.text.index("\n\nnetwork")]), "this define"),
            (Label(place("d_model", nth=1), "never read"),),
        )
    ],
    "two_files": [
        Diagnostic(
            "N202",
            "the define `Block` is defined twice",
            Label(place("Block"), "again here"),
            (Label(place("Block", OTHER), "first here"),),
        )
    ],
    "end_of_file": [
        Diagnostic(
            "N102", "`{` is never closed", Label(Span(PROGRAM, len(PROGRAM.text), len(PROGRAM.text)), "expected `}`")
        )
    ],
    "warning_and_note": [
        Diagnostic("N214", "a warning", Label(place("768")), severity=Severity.WARNING),
        Diagnostic("N601", "a note", Label(place("input")), severity=Severity.NOTE),
    ],
    "gutter_of_two_digits": [
        Diagnostic("N300", "far apart", Label(place("Net"), "below"), (Label(place("768"), "above"),)),
        Diagnostic("N300", "line 10", Label(place("1024"), "the context"), (Label(place("Net"), "of this network"),)),
    ],
    "tabs": [one_line(TABS, "10"), one_line(TABS, "\tactivation"), one_line(TABS, "1)")],
    "wide_characters": [
        one_line('名 = "日本語テキスト" + x', "x"),
        one_line('名 = "日本語テキスト" + x', "日本語テキスト"),
        one_line("ｆｕｌｌ ｗｉｄｔｈ = y", "y"),
    ],
    "combining_characters": [one_line("e\u0301a\u0308o\u0302 = wrong", "wrong"), one_line("נֵרִי = wrong", "wrong")],
    "emoji": [one_line('"🎉👍🏽 party" = wrong', "wrong"), one_line("“x” … = wrong", "wrong")],
    "control_characters": [
        one_line("a\x1b[31m = \x07wrong\x7f\x85\u202e\u2028", "wrong"),
        one_line("a = \x00b", "\x00"),
        Diagnostic("N101", "\x1b[2Jtitle", Label(place("768"), "\x1b[0mlabel\n"), notes=("\x08note",), hint="\rhint"),
    ],
    "long_line": [
        one_line("x" * 150 + " = wrong + " + "y" * 300, "wrong"),
        one_line("wrong + " + "y" * 300, "wrong"),
        one_line("x" * 300 + " + wrong", "wrong"),
        one_line("a" + "b" * 500 + "c", "a" + "b" * 500 + "c"),
    ],
    "line_ends_of_windows": [
        Diagnostic("N101", "a title", Label(place("b", Source("w.neural", "a = 1\r\nb = 2\r\n")), "here")),
        Diagnostic("N101", "a title", Label(Span(Source("w.neural", "a = 1\r\nb = 2\r\n"), 5, 7), "the line end")),
    ],
    "empty_file": [Diagnostic("N009", "the file has no network", Label(Span(Source("e.neural", ""), 0, 0), "empty"))],
}
