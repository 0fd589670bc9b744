"""The drawing, read back as XML: well-formed, nothing upon anything else, and it says what the graph says."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from neural.backends.svg import emit
from neural.backends.svg.letters import fitted, text_width
from neural.backends.svg.palette import FAMILIES
from neural.compiler import Program, compile_source, load
from neural.diagnostics.source import Source
from neural.graph.graph import Block, Node, primitives
from neural.layers import REGISTRY
from neural.layers.layer import Composite

SVG = "{http://www.w3.org/2000/svg}"
TUTORIAL = Path("tests/fixtures/tutorial")


def written(text: str) -> Program:
    return compile_source(Source("drawn.neural", text))


def classifier() -> Program:
    text = f'import "gpt_decoder.neural"\n{(TUTORIAL / "gpt_classifier.neural").read_text()}'
    return compile_source(Source(str(TUTORIAL / "drawn.neural"), text), {"num_classes": 2})


MLP = """
network Mlp {
  input: (784,)
  layers:
    Dense(256, activation="relu")
    Dropout(0.2)
    Output(10, activation="softmax")
  loss: "sparse_categorical_crossentropy"
}
"""
BRANCHES = """
define Branch(d) { Dense($d, activation="gelu") LayerNormalization() }
network Branches {
  input: { image: (100,), features: (32,) }
  layers:
    a = Dense(image, 64)
    b = Dense(features, 64, activation="relu")
    c = Add(a, b)
    d = Branch(c, 64) * 3
    e = Add(d, c)
    f = Multiply(e, c, d)
    g = Dense(c, 64)
    Concatenate(f, g, d)
    Dense(5)
}
"""
CLOSED = "define D0(n) { Dense($n) Dense($n) }\n" + "".join(
    f"define D{i}(n) {{ D{i - 1}($n) Activation('relu') D{i - 1}($n) }}\n" for i in range(1, 9)
)
PROGRAMS = {
    "gpt2": lambda: load("examples/gpt2.neural"),
    "gpt3": lambda: load("examples/gpt2.neural", {"n_layer": 96, "d_model": 12288, "n_head": 96}),
    "gpt_decoder": lambda: load("examples/gpt_decoder.neural"),
    "llama": lambda: load("examples/llama.neural"),
    "shakespeare": lambda: load("examples/shakespeare_char.neural"),
    "tutorial": lambda: load(TUTORIAL / "gpt_decoder.neural"),
    "classifier": classifier,
    "perceptron": lambda: written(MLP),
    "branches": lambda: written(BRANCHES),
    "many blocks": lambda: written(f"{CLOSED} network Deep {{ input: (8,) layers: D8(8) }}"),
    "a name as long as they come": lambda: written(
        f"network {'Very' * 60} {{ input: (8,) layers: {'x' * 90} = Dense(8) }}"
    ),
}


def random_program(seed: int) -> Program:
    """Up to 24 statements that read one to four of the values above them; every value is read."""
    rng = random.Random(seed)
    lines, unread = ["x0 = Dense(8)"], ["x0"]
    for i in range(1, rng.randint(4, 24)):
        known = [f"x{j}" for j in range(i)]
        count = rng.choice([1, 1, 1, 2, 2, 3, 4])
        read = rng.sample(known, min(count, i)) if rng.random() < 0.6 else known[-count:]
        given = ", ".join(read)
        single = [f"Dense({given}, 8, activation='gelu')", f"Inner({given})", f"Inner({given}) * {rng.randint(2, 9)}"]
        several = [f"Add({given})", f"Multiply({given})", f"Wide({given})"]
        lines.append(f"x{i} = {rng.choice(several if len(read) > 1 else single)}")
        unread = [u for u in unread if u not in read] + [f"x{i}"]
    lines.append(f"Add({', '.join(unread)})" if len(unread) > 1 else f"Dense({unread[0]}, 8)")
    inner = "define Inner() { a = Dense(4) b = Dense(input, 4) Add(a, b) Dense(8) }"
    body = re.sub(r"(x\d+) = Wide\((.*)\)", r"w\1 = Concatenate(\2) \1 = Dense(w\1, 8)", "\n".join(lines))
    return written(f"{inner} network Random {{ input: (8,) layers: {body} }}")


PROGRAMS |= {f"random {seed}": lambda seed=seed: random_program(seed) for seed in range(40)}


class Rect(NamedTuple):
    x: float
    y: float
    right: float
    bottom: float

    def overlaps(self, other: Rect) -> bool:
        return self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom

    def holds(self, other: Rect) -> bool:
        return self.x <= other.x and other.right <= self.right and self.y <= other.y and other.bottom <= self.bottom


def rect(element: ET.Element, margin: float = 0.0) -> Rect:
    if element.tag == f"{SVG}circle":
        x, y, r = (float(element.get(k)) for k in ("cx", "cy", "r"))
        return Rect(x - r + margin, y - r + margin, x + r - margin, y + r - margin)
    x, y, w, h = (float(element.get(k)) for k in ("x", "y", "width", "height"))
    return Rect(x + margin, y + margin, x + w - margin, y + h - margin)


def of_class(root: ET.Element, name: str) -> list[ET.Element]:
    return [e for e in root.iter() if e.get("class") == name]


def corners(element: ET.Element) -> list[tuple[float, float]]:
    """The points of a wire, those that its rounded corners pull it to among them."""
    numbers = [float(n) for n in re.findall(r"-?[\d.]+", element.get("d"))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


@pytest.fixture(scope="module", params=PROGRAMS, ids=str)
def drawn(request: pytest.FixtureRequest) -> tuple[Program, ET.Element]:
    program = PROGRAMS[request.param]()
    return program, ET.fromstring(emit(program.graph))


def test_everything_is_on_the_sheet(drawn: tuple[Program, ET.Element]) -> None:
    root = drawn[1]
    x, y, w, h = (float(n) for n in root.get("viewBox").split())
    sheet = Rect(x, y, x + w, y + h)
    assert all(sheet.holds(rect(e)) for e in root.iter() if e.tag in (f"{SVG}circle", f"{SVG}rect") and e.get("x"))
    assert all(x <= px <= w and y <= py <= h for e in of_class(root, "wire") for px, py in corners(e))
    for text in root.iter(f"{SVG}text"):
        mono = "mono" in (text.get("font-family") or "")
        width = text_width(
            "".join(text.itertext()), float(text.get("font-size")), bold=bool(text.get("font-weight")), mono=mono
        )
        start = float(text.get("x")) - {"end": width, "middle": width / 2}.get(text.get("text-anchor"), 0)
        assert x <= start and start + width <= w, "".join(text.itertext())


def test_no_shape_lies_upon_another(drawn: tuple[Program, ET.Element]) -> None:
    root = drawn[1]
    shapes = [rect(e) for e in (*of_class(root, "box"), *of_class(root, "joint"))]
    assert not [(a, b) for a, b in combinations(shapes, 2) if a.overlaps(b)]
    frames = [rect(e) for e in of_class(root, "frame")]
    for a, b in combinations(frames, 2):
        assert a.holds(b) or b.holds(a) or not a.overlaps(b)
    for frame in frames:
        assert all(frame.holds(s) or not frame.overlaps(s) for s in shapes)


def test_no_line_runs_through_a_shape(drawn: tuple[Program, ET.Element]) -> None:
    root = drawn[1]
    shapes = [rect(e, margin=1.5) for e in of_class(root, "box")]
    shapes += [rect(e, margin=4) for e in of_class(root, "joint")]  # the square within the circle
    for wire in of_class(root, "wire"):
        for (ax, ay), (bx, by) in pairwise(corners(wire)):
            piece = Rect(min(ax, bx), min(ay, by), max(ax, bx) + 0.01, max(ay, by) + 0.01)
            assert not [s for s in shapes if s.overlaps(piece)]


def test_text_stays_in_its_card(drawn: tuple[Program, ET.Element]) -> None:
    for group in of_class(drawn[1], "card"):
        card = rect(group.find(f"{SVG}rect"))
        lines: dict[str, float] = {}
        for text in group.findall(f"{SVG}text"):
            mono = "mono" in (text.get("font-family") or "")
            width = sum(
                text_width(t, float(size), bold=bold, mono=mono)
                for t, size, bold in (
                    (text.text, text.get("font-size"), text.get("font-weight") == "600"),
                    *((s.text, s.get("font-size"), False) for s in text),
                )
            )
            line = text.get("y") if text.get("text-anchor") != "middle" else "badge"
            lines[line] = lines.get(line, 0) + width
        assert all(width <= card.right - card.x - 10 for width in lines.values())


def cards(block: Block) -> list[Node]:
    """The nodes that are drawn, each once, however often it is repeated."""
    return [
        n for node in block.nodes for n in ([node, *cards(node.layer)] if isinstance(node.layer, Block) else [node])
    ]


@pytest.mark.parametrize("name", [n for n in PROGRAMS if n != "many blocks"])
def test_every_node_is_drawn_once_with_what_it_is(name: str) -> None:
    program = PROGRAMS[name]()
    root = ET.fromstring(emit(program.graph))
    told = [g.find(f"{SVG}title").text.split("\n")[0] for k in ("card", "block", "merging") for g in of_class(root, k)]
    expected = [
        node.layer.name if isinstance(node.layer, Block) else type(node.layer).__name__
        for node in cards(program.graph.block)
    ]
    assert sorted(t.split("(")[0] for t in told) == sorted(expected)
    badges = [t.text for t in root.iter(f"{SVG}text") if (t.text or "").startswith("× ")]
    assert sorted(badges) == sorted(f"× {n.copies}" for n in cards(program.graph.block) if n.copies > 1)


def test_a_gpt_shows_what_a_paper_shows() -> None:
    root = ET.fromstring(emit(PROGRAMS["gpt2"]().graph))
    texts = ["".join(t.itertext()) for t in root.iter(f"{SVG}text")]
    for expected in (
        "Gpt2", "124,439,808 parameters  ·  1,024 tokens of context  ·  vocabulary of 50,257", "× 12", "38.6 M",
        "7.09 M", "(B, T, 768)", "(B, T, 3072)", "logits", "(B, T, 50257) float32", "input_ids", "tied to wte",
        "num_heads=12, causal=true, dropout=0.1", "attention", "embedding", "normalization", "shared weight",
    ):  # fmt: skip
        assert expected in texts, expected
    assert len(of_class(root, "joint")) == 2
    assert len(of_class(root, "frame")) == 3
    dashed = [e for e in of_class(root, "wire") if e.get("stroke-dasharray")]
    assert len(dashed) == 2  # the tie, and its sample in the legend


def test_too_many_cards_close_the_deepest_blocks() -> None:
    root = ET.fromstring(emit(PROGRAMS["many blocks"]().graph))
    program = PROGRAMS["many blocks"]()
    assert len(of_class(root, "card")) <= 400 < sum(1 for _ in primitives(program.graph.block))
    assert "block, closed" in ["".join(t.itertext()) for t in root.iter(f"{SVG}text")]


EVIL = ["</text><script>alert(1)</script>", '" onload="alert(1)', "a & b <c>", "]]>", "\x00\x1b\ud800", "&lt;"]


@pytest.mark.parametrize("name", EVIL, ids=ascii)
def test_a_name_is_only_text(name: str) -> None:
    """No program can spell such names; whoever builds a graph by hand can."""
    graph = PROGRAMS["gpt2"]().graph
    nodes = [replace(n, name=name, named=True) if n.name == "blocks" else n for n in graph.block.nodes]
    root = ET.fromstring(emit(replace(graph, block=replace(graph.block, name=name, nodes=tuple(nodes)))))
    kinds = {e.tag.removeprefix(SVG) for e in root.iter()}
    assert kinds == {"svg", "title", "desc", "g", "rect", "circle", "path", "text", "tspan"}
    assert not [k for e in root.iter() for k in e.attrib if k.startswith("on")]


def test_a_drawing_stands_alone() -> None:
    text = emit(PROGRAMS["llama"]().graph)
    assert text == emit(PROGRAMS["llama"]().graph)
    assert not re.search(r"href|url\(|@import|<script|<style|<image", text)
    assert text.count("http") == 1  # the name of SVG itself


def test_every_family_has_a_colour() -> None:
    modules = {c.__module__.rpartition(".")[2] for c in REGISTRY.values() if not issubclass(c, Composite)}
    assert modules <= FAMILIES.keys()


@pytest.mark.parametrize(("text", "limit"), [("abc", 100), ("a" * 80, 100), ("", 5), ("abc", 1)])
def test_text_is_cut_to_fit(text: str, limit: float) -> None:
    cut = fitted(text, limit, 12)
    assert cut == text or cut.endswith("…")
    assert text_width(cut, 12) <= max(limit, text_width("…", 12))
