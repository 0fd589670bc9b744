"""Programs that are nearly right: each compiles, or says what is wrong; never a traceback, never a hang."""

from __future__ import annotations

import builtins
import dis
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType

import pytest

from neural.cli.fmt import formatted
from neural.compiler import Program, compile_source
from neural.diagnostics.diagnostic import NeuralError
from neural.diagnostics.render import apply_fixes, render, to_json
from neural.diagnostics.source import Source
from tests.graph.programs import structure
from tests.properties.mutations import mutant

COUNT = int(os.environ.get("NEURAL_MUTATIONS", "2000"))
CHUNK = 100
PATIENCE = 10  # seconds that one compilation may take before it counts as hanging


@contextmanager
def no_hang():
    """Raises in a compilation that does not end."""

    def give_up(signum, frame):
        raise TimeoutError(f"still compiling after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check(index: int) -> bool:
    """Whether the mutant is a sound program."""
    source, sets, network = mutant(index)
    with no_hang():
        try:
            program = compile_source(source, sets, network)
        except NeuralError as error:
            assert error.diagnostics
            render(error.diagnostics, color=True)
            to_json(error.diagnostics)
            return False
        render(program.messages, color=False)
        assert not undefined(program.source("pytorch"))
    return True


@pytest.mark.parametrize("start", range(0, COUNT // 2, CHUNK))
def test_what_the_compiler_writes_means_the_same(start: int) -> None:
    """The form without shorthand that `--fix` writes, and the one file that a run keeps."""
    for index in range(start, start + CHUNK):
        source, sets, network = mutant(index)
        try:
            program = compile_source(source, sets, network)
        except NeuralError:
            continue
        explicit = without_shorthand(program, source, sets, network)
        assert explicit.graph == program.graph, f"mutant {index}"
        alone = compile_source(Source(source.name, program.text()))
        assert structure(alone.graph.block) == structure(program.graph.block), f"mutant {index}"
        assert alone.settings == program.settings


def without_shorthand(program: Program, source: Source, sets: dict[str, object], network: str | None) -> Program:
    for _ in range(8):
        fixes = [d.fix for d in program.messages if d.fix and d.fix.safe and d.fix.edits[0].span.source is source]
        if not fixes:
            return program
        source = Source(source.name, formatted(apply_fixes(source.text, fixes), source.name))
        program = compile_source(source, sets, network)
    raise AssertionError("the fixes never end")


def undefined(source: str) -> set[str]:
    """Names that a module reads and nothing gives: what Python itself would only find when it runs."""
    module = compile(source, "generated", "exec")
    given = (
        set(dir(builtins)) | {"__name__"} | {i.argval for i in dis.get_instructions(module) if i.opname == "STORE_NAME"}
    )
    read = {
        i.argval
        for code in codes(module)
        for i in dis.get_instructions(code)
        if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    return read - given


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def test_undefined_names_are_found() -> None:
    assert undefined("import math\nclass A:\n    def f(self):\n        return math.pi + gone") == {"gone"}


@pytest.mark.parametrize("start", range(0, COUNT, CHUNK))
def test_a_mutant_compiles_or_is_refused(start: int) -> None:
    for index in range(start, start + CHUNK):
        try:
            check(index)
        except Exception as error:
            raise AssertionError(f"mutant {index}:\n{mutant(index).source.text[:4000]}") from error


def test_mutants_are_of_both_kinds() -> None:
    sound = sum(map(check, range(300)))
    assert 30 < sound < 270
