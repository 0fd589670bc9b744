"""Programs that are nearly right: seeded mutations of the examples, of the tutorial and of every layer's samples."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from neural.diagnostics.source import Source
from neural.layers import REGISTRY

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "tests" / "fixtures" / "tutorial"

TOKENS = re.compile(r"\s+|#[^\n]*|\"[^\"\n]*\"|[\w.$]+|\*\*|.", re.DOTALL)

VALUES = (
    "0", "-1", "1", "2", "3", "7", "1.5", "-0.0", "1e308", "-1e308", "1e-320", str(2**31), str(2**63), str(2**63 - 1), "10" * 90, "2 ** 99999",
    "$d_model / 5", "1 / 0", "true", "none", "()", "(0,)", "(-1, -1)", "[]", '""', '"softmax"', '"x" * 9', "input", "$input", "$nobody", "q",
    "HPO(choice(2, 4))", "HPO(range(4, 2))", "HPO()", "Rope(base=0.0)", 'Rope(base=10.0, scaling="llama3")', "tied_to=wte", "Add()", "Residual { }",
    "Residual { Dropout(0.1) } * 3", "Attention(num_heads=3)", "MultiHeadAttention(num_heads=2, causal=true)", "* 0", "* 3", "* $n_layer",
    "PositionalEmbedding()", "Flatten()", "LastToken()", 'Activation("softmax")', "Reshape((-1, 2))", "Concatenate(input, input)", "weights=\"gone\"",
    "define", "network", "param", "import", "layers:", "input: (8,)", "self", "class", "T", "x", "None", "d_model", "é", "模型", "\u202e", "\0", "🙂",
    '"' + "long " * 4000 + '"', "a" * 5000, "$" + "b" * 3000, "(" * 300, "{" * 300, "-" * 300 + "1", "1" + " + 1" * 400, "/*", "//", "#", "\\", "'", "\r", "\t",
)  # fmt: skip


@cache
def programs() -> tuple[tuple[str, str], ...]:
    """Name (imports are relative to it) and text of each program to start from."""
    found = [(str(p), p.read_text(encoding="utf-8")) for p in sorted((ROOT / "examples").glob("*.neural"))]
    decoder = TUTORIAL / "gpt_decoder.neural"
    classifier = TUTORIAL / "gpt_classifier.neural"
    found.append((str(decoder), decoder.read_text(encoding="utf-8")))
    head = 'import "gpt_decoder.neural"\nparam num_classes = 2\n'
    found.append((str(classifier), head + classifier.read_text(encoding="utf-8")))
    rich = Path(__file__).with_name("rich.neural")
    found += [(str(rich), rich.read_text(encoding="utf-8"))] * 4
    return tuple(found)


@cache
def samples() -> tuple[tuple[str, str], ...]:
    """A program for each sample of each layer."""
    name = programs()[-1][0]
    every = [s for cls in dict.fromkeys(REGISTRY.values()) for s in cls.samples]
    return tuple((name, f"network Sample {{\n  input: {s.input}\n  layers:\n    {s.layers}\n}}\n") for s in every)


@cache
def vocabulary() -> tuple[str, ...]:
    """The tokens of all programs."""
    return tuple(sorted({t for _, text in (*programs(), *samples()) for t in TOKENS.findall(text) if not t.isspace()}))


class Mutant(NamedTuple):
    source: Source
    sets: dict[str, object]
    network: str | None


def mutant(index: int) -> Mutant:
    """The index-th mutant and what `--set` is given: the same for ever, as long as the programs are."""
    random = Random(index)
    if random.random() < 0.03:
        raw = random.randbytes(random.choice((0, 1, 20, 400)))
        return Mutant(Source(programs()[0][0], raw.decode("utf-8", errors="replace")), {}, None)
    name, text = random.choice(random.choice((programs(), programs(), programs(), samples())))
    for _ in range(1 + int(random.expovariate(1.2))):
        text = random.choice(MUTATIONS)(text, random)
    sets = (
        {random.choice(vocabulary()): random.choice((0, -1, 1.5, 2**63, "x", None, True))}
        if random.random() < 0.1
        else {}
    )
    networks = re.findall(r"network (\w+)", text)
    return Mutant(Source(name, text), sets, random.choice(networks) if len(networks) > 1 else None)


def _characters(text: str, random: Random) -> str:
    i, n = random.randrange(len(text) + 1), random.choice((1, 1, 1, 2, 5, 40))
    piece = text[i : i + n]
    return _changed(text[:i], piece, text[i + n :], random, lambda: random.choice("(){}[],:=*/+-.$\"'#\n aZ0_é\u2028"))


def _tokens(text: str, random: Random) -> str:
    tokens = TOKENS.findall(text)
    solid = [i for i, t in enumerate(tokens) if not t.isspace()]
    if not solid:
        return text + random.choice(VALUES)
    i = random.choice(solid)
    if random.random() < 0.2:
        j = random.choice(solid)
        tokens[i], tokens[j] = tokens[j], tokens[i]
        return "".join(tokens)
    other = lambda: " " + random.choice(random.choice((VALUES, vocabulary()))) + " "  # noqa: E731
    return _changed("".join(tokens[:i]), tokens[i], "".join(tokens[i + 1 :]), random, other)


def _values(text: str, random: Random) -> str:
    """One number, string or parameter of the program becomes another value."""
    places = list(re.finditer(r"\$\w+|(?<=[=(, :])[\d.][\w.-]*|\"[^\"\n]*\"|\b(?:true|false)\b", text))
    if not places:
        return text
    place = random.choice(places)
    value = random.choice(VALUES) if random.random() < 0.6 else random.choice(places)[0]
    return text[: place.start()] + value + text[place.end() :]


def _lines(text: str, random: Random) -> str:
    lines = text.splitlines(keepends=True)
    if len(lines) < 2:
        return text
    i, j = random.randrange(len(lines)), random.randrange(len(lines))
    if random.random() < 0.3:
        lines[i], lines[j] = lines[j], lines[i]
        return "".join(lines)
    return _changed("".join(lines[:i]), lines[i], "".join(lines[i + 1 :]), random, lambda: lines[j])


def _changed(before: str, piece: str, after: str, random: Random, other) -> str:
    match random.choice(("delete", "twice", "insert", "replace")):
        case "delete":
            return before + after
        case "twice":
            return before + piece + piece + after
        case "insert":
            return before + other() + piece + after
    return before + other() + after


MUTATIONS = (_characters, _tokens, _tokens, _values, _values, _values, _lines, _lines)
