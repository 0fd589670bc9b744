"""Files: what they hold, imports, networks of a file, and files that are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from neural.compiler import load
from neural.diagnostics.diagnostic import NeuralError
from tests.graph.programs import codes, compiled, network, told

BLOCK = "define Block(d) { Dense($d) }"


def failure(path: Path, **options) -> list[str]:
    with pytest.raises(NeuralError) as caught:
        load(path, **options)
    return [d.code for d in caught.value.diagnostics]


def write(folder: Path, **files: str) -> Path:
    """Programs in a folder; the path of the one called main."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".neural")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "main.neural"


def test_declarations_stand_in_any_order() -> None:
    parts = ["param d = 8", BLOCK, "network Net { input: (16,) layers: Block($d) }"]
    graphs = [compiled("\n".join(p)).graph for p in (parts, parts[::-1], [parts[1], parts[2], parts[0]])]
    assert graphs[0] == graphs[1] == graphs[2]


def test_a_file_means_the_same_on_one_line() -> None:
    text = (Path(__file__).parents[2] / "examples" / "gpt2.neural").read_text()
    bare = " ".join(line.split("#")[0] for line in text.splitlines())
    assert compiled(bare).graph == compiled(text).graph


def test_comments() -> None:
    text = "# one\n// two\n/* three\n of several lines */ network N { # four\n input: (3,) layers: // five\n Dense(4) /* six */ * 1 }"
    assert compiled(text.replace("* 1", "")).name == "N"


# Imports


def test_an_import_brings_defines_and_params(tmp_path: Path) -> None:
    main = write(
        tmp_path, main='import "parts/blocks.neural"\n' + network("Block($d)"), parts__blocks="param d = 8 " + BLOCK
    )
    assert load(main).parameter_count == 16 * 8 + 8
    assert load(main, {"d": 3}).parameter_count == 16 * 3 + 3


def test_an_import_is_found_from_the_file_that_it_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = write(tmp_path, main='import "a/b.neural"\n' + network("Block(4)"), a__b='import "c.neural"', a__c=BLOCK)
    monkeypatch.chdir("/")
    assert load(main).parameter_count == 16 * 4 + 4


def test_a_file_is_read_once_however_often_it_is_imported(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main='import "a.neural" import "b.neural" import "./a.neural"\n' + network("Block(4)"),
        a=BLOCK + ' import "b.neural"',
        b='import "a.neural" import "main.neural"',
    )
    assert load(main).parameter_count == 16 * 4 + 4


def test_networks_of_imports_do_not_count(tmp_path: Path) -> None:
    other = network("Dense(3)").replace("Net", "Other")
    main = write(
        tmp_path, main='import "other.neural"\n' + network("Dense(4)"), other=other, lone='import "other.neural"'
    )
    assert load(main).name == "Net"
    assert failure(main, network="Other") == ["N007"]
    assert failure(tmp_path / "lone.neural") == ["N009"]


@pytest.mark.parametrize("other", [BLOCK, "param Block = 3"])
def test_names_of_imports_are_names_of_the_program(tmp_path: Path, other: str) -> None:
    main = write(tmp_path, main='import "other.neural"\n' + BLOCK + network("Block(4)"), other=other)
    if other == BLOCK:
        assert failure(main) == ["N202"]
    else:
        assert (
            load(main).parameter_count == 16 * 4 + 4
        )  # a param and a define may share a name: they never stand in one place


def test_mistakes_of_imports_are_told_with_their_file(tmp_path: Path) -> None:
    main = write(
        tmp_path, main='import "other.neural"\n' + network("Block(0)"), other="define Block(d) { Dense(unit=$d) }"
    )
    with pytest.raises(NeuralError) as caught:
        load(main)
    assert [(Path(d.primary.span.source.name).name, d.code) for d in caught.value.diagnostics] == [
        ("other.neural", "N301")
    ]


@pytest.mark.parametrize(
    ("name", "code"),
    [("gone.neural", "N001"), ("folder", "N003"), ("text.txt", "N002"), ("binary.neural", "N006"), ("", "N003"), ("a\\u0000b.neural", "N004"), ("x" * 300 + ".neural", "N004")],
)  # fmt: skip
def test_imports_of_what_is_no_program(tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.txt").write_text(BLOCK)
    (tmp_path / "binary.neural").write_bytes(b"\xff\xfe\x00")
    main = write(tmp_path, main=f'import "{name}"\n' + network("Dense(0)"))
    assert failure(main) == [code, "N311"]


def test_what_an_import_that_failed_would_have_brought_is_not_missed(tmp_path: Path) -> None:
    main = write(tmp_path, main='import "gone.neural"\n' + network("Block($d) Dense(0)"))
    assert failure(main) == ["N001", "N311"]


# The file itself


@pytest.mark.parametrize(
    ("name", "code"),
    [("gone.neural", "N001"), (".", "N003"), ("text.txt", "N002"), ("binary.neural", "N006"), ("nul.neural", "N114")],
)
def test_files_that_are_no_program(tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / "text.txt").write_text(network("Dense(4)"))
    (tmp_path / "binary.neural").write_bytes(b"\x89PNG\xff")
    (tmp_path / "nul.neural").write_bytes(b"network\0")
    assert failure(tmp_path / name) == [code]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    main = write(tmp_path, main=network("Dense(4)"))
    main.chmod(0)
    assert failure(main) == ["N004"]


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, main=network("Dense(4)"))
    with pytest.raises(NeuralError) as caught:
        load(tmp_path / "mian.neural")
    assert "main.neural" in caught.value.diagnostics[0].hint


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    main = tmp_path / "main.neural"
    main.write_bytes(b"\xef\xbb\xbf" + network("Dense(4)  # four\nDense(5)").replace("\n", "\r\n").encode())
    assert load(main).parameter_count == 16 * 4 + 4 + 4 * 5 + 5


def test_ten_megabytes_of_braces(tmp_path: Path) -> None:
    main = tmp_path / "main.neural"
    main.write_text("{" * 10_000_000)
    assert len(failure(main)) == 1


def test_a_file_too_large_for_a_program(tmp_path: Path) -> None:
    main = tmp_path / "main.neural"
    with main.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    assert failure(main) == ["N005"]


# Networks of a file

TWO = network("Dense(4)").replace("Net", "Small") + network("Dense(400)").replace("Net", "Large")


def test_one_of_several_networks_is_named() -> None:
    assert codes(TWO) == ["N008"]
    assert compiled(TWO, network="Large").name == "Large"
    assert codes(TWO, network="Larg") == ["N007"]
    assert compiled(network("Dense(4)"), network="Net").name == "Net"
    assert codes(network("Dense(4)"), network="Nets") == ["N007"]


def test_mistakes_of_a_network_that_is_not_meant_are_not_told() -> None:
    broken = TWO.replace("400", "0")
    assert compiled(broken, network="Small").name == "Small"
    assert codes(broken) == ["N008", "N311"]


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "param a = 3", BLOCK])
def test_a_file_without_a_network(text: str) -> None:
    assert codes(text) == ["N009"]


# Defines


@pytest.mark.parametrize(
    ("before", "layers", "found"),
    [
        ("define A() { A() }", "A()", [("N213", "A")]),
        ("define A() { B() } define B() { Dense(4) A() }", "A()", [("N213", "A")]),
        ("define A() { Dense(4) A() }", "Dense(4)", [("N213", "A")]),
        ("define A(n) { }", "A(3)", [("N206", "A")]),
        ("define A(n) { }", "Dense(3)", [("N206", "A")]),
        ("define A(n, n) { Dense($n) }", "A(3)", [("N202", "n")]),
        ("define A(n) { Dense($n) }", "A()", [("N302", "A")]),
        ("define A(n) { Dense($n) }", "A(3, 4)", [("N309", "4")]),
        ("define A(n) { Dense($n) }", "A(m=3)", [("N301", "m")]),
        ("define A(n) { Dense($n) }", "a = Dense(16) A(a, a, n=3)", [("N403", "A")]),
        ("define A(n) { n = Dense($n) }", "A(3)", [("N203", "n")]),
        ("define A(n) { Dense($n) } define A(m) { Dense($m) }", "A(3)", [("N202", "A")]),
        ("define Net(n) { Dense($n) }", "Dense(3)", [("N202", "Net")]),
    ],
)  # fmt: skip
def test_defines_that_are_refused(before: str, layers: str, found: list[tuple[str, str]]) -> None:
    assert told(network(layers, before=before)) == found


def test_a_define_may_hide_a_built_in_layer() -> None:
    text = network("Output(4)", before="define Output(n) { Dense($n) Dense($n) }")
    assert codes(text) == ["N212"]
    assert compiled(text).parameter_count == 16 * 4 + 4 + 4 * 4 + 4


def test_a_chain_of_many_defines() -> None:
    chain = "define D0() { Dense(4) } " + " ".join(f"define D{i}() {{ D{i - 1}() }}" for i in range(1, 60))
    assert compiled(network("D59()", before=chain)).parameter_count == 16 * 4 + 4
    longer = chain + " " + " ".join(f"define D{i}() {{ D{i - 1}() }}" for i in range(60, 90))
    assert "N213" in codes(network("D89()", before=longer))
