"""Random trees, and random ways to write them down."""

from __future__ import annotations

from hypothesis import strategies as st

from neural.diagnostics.source import Source, Span
from neural.syntax.lexer import Lexer
from neural.syntax.statements import RESERVED
from neural.syntax.tree import (
    Argument,
    Binary,
    Call,
    Define,
    Entry,
    File,
    Import,
    Literal,
    Map,
    Name,
    Network,
    Param,
    Parameter,
    Ref,
    Section,
    Sequence,
    Statement,
    Unary,
)

NOWHERE = Span(Source("nowhere", ""), 0, 0)
ODD = ["layers", "input", "train", "loss", "Residual", "optimizer", "e5", "_", "x_1", "Dense"]

words = st.one_of(st.sampled_from([*ODD, *RESERVED]), st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True))
plain = words.filter(lambda w: w not in RESERVED)
numbers = st.one_of(st.integers(0, 10**25), st.floats(0, allow_nan=False, allow_infinity=False))
literals = st.builds(Literal, st.one_of(numbers, st.text(max_size=12), st.booleans(), st.none()), st.just(NOWHERE))


def name(source: st.SearchStrategy[str]) -> st.SearchStrategy[Name]:
    return st.builds(Name, source, st.just(NOWHERE))


def tuples(source: st.SearchStrategy, most: int = 3) -> st.SearchStrategy[tuple]:
    return st.lists(source, max_size=most).map(tuple)


@st.composite
def argument_lists(draw, values: st.SearchStrategy) -> tuple[Argument, ...]:
    positional = draw(st.lists(values, max_size=2))
    named = draw(st.dictionaries(words, values, max_size=3))
    return (
        *(Argument(None, v, NOWHERE) for v in positional),
        *(Argument(Name(k, NOWHERE), v, NOWHERE) for k, v in named.items()),
    )


def compounds(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(
        st.builds(Unary, st.just("-"), values, st.just(NOWHERE)),
        st.builds(Binary, st.sampled_from(["+", "-", "*", "/", "**"]), values, values, st.just(NOWHERE)),
        st.builds(Sequence, st.sampled_from(["tuple", "list"]), tuples(values), st.just(NOWHERE)),
        st.builds(Call, name(plain), argument_lists(values), st.just(NOWHERE)),
        maps(values),
    )


def maps(values: st.SearchStrategy) -> st.SearchStrategy[Map]:
    return st.builds(Map, tuples(st.builds(Entry, name(words), values, st.just(NOWHERE))), st.just(NOWHERE))


refs = st.one_of(
    st.builds(Ref, plain, st.just(False), st.just(NOWHERE)), st.builds(Ref, words, st.just(True), st.just(NOWHERE))
)
values = st.recursive(st.one_of(literals, refs), compounds, max_leaves=8)


def statement(bodies: st.SearchStrategy, names: st.SearchStrategy[str] = plain) -> st.SearchStrategy[Statement]:
    return st.builds(
        Statement,
        st.one_of(st.none(), name(names)),
        name(plain),
        argument_lists(values),
        bodies,
        st.one_of(st.none(), values),
        st.just(NOWHERE),
    )


bodies = st.recursive(
    tuples(statement(st.none())), lambda inner: tuples(statement(st.one_of(st.none(), inner))), max_leaves=4
)
in_layers = statement(
    st.one_of(st.none(), bodies), plain.filter(lambda w: w not in ("loss", "optimizer", "lr_schedule", "metrics"))
)
sections = st.one_of(
    st.builds(Section, name(words.filter(lambda w: w != "layers")), values, st.just(NOWHERE)),
    st.builds(Section, name(words.filter(lambda w: w not in ("layers", "Residual"))), maps(values), st.just(NOWHERE)),
    st.builds(Section, st.just(Name("layers", NOWHERE)), tuples(in_layers, 4), st.just(NOWHERE)),
).filter(lambda s: s.key.text != "Residual" or not isinstance(s.value, Map))
parameters = st.builds(Parameter, name(plain), st.one_of(st.none(), values), st.just(NOWHERE))
items = st.one_of(
    st.builds(
        Import,
        st.builds(Literal, st.text(max_size=9), st.just(NOWHERE)),
        st.just(NOWHERE),
    ),
    st.builds(Param, name(plain), values, st.just(NOWHERE)),
    st.builds(Define, name(plain), tuples(parameters), bodies, st.just(NOWHERE)),
    st.builds(Network, name(plain), tuples(sections, 4), st.just(NOWHERE)),
)
files = st.builds(File, st.just(NOWHERE.source), tuples(items, 4), st.just(()))

# Ways to write

_remark = st.text(max_size=8).map(lambda t: t.replace("\0", ""))
line_comments = st.builds(
    lambda mark, t: f" {mark}{t}\n",
    st.sampled_from(["#", "//"]),
    _remark.map(lambda t: t.replace("\n", "")),
)
block_comments = st.builds(lambda t: f" /*{t.replace('*/', '')}*/ ", _remark.filter(lambda t: not t.endswith("*")))
blanks = st.text(" \t\n\r\f", min_size=1, max_size=3)
gaps = st.one_of(st.just(" "), blanks, line_comments, block_comments, st.builds(str.__add__, line_comments, blanks))


def tokens(text: str) -> list[str]:
    """The tokens of a program as they are written."""
    lexer = Lexer(Source("test.neural", text))
    found: list[str] = []
    while (batch := lexer.batch())[0].kind != "end":
        found.extend(text[t.start : t.end] for t in batch if t.kind != "end")
    return found


@st.composite
def spread(draw, text: str) -> str:
    """The program with other white space and comments between its tokens."""
    return "".join(piece for token in tokens(text) for piece in (draw(gaps), token)) + draw(gaps)
