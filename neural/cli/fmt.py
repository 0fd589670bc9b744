"""`neural fmt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fmt(
    files: Annotated[
        list[Path], typer.Argument(help="Files, folders (all .neural files in them), or - for standard input.")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; show what would change and exit with 1 if anything would.")
    ] = False,
) -> None:
    """Bring programs into the one canonical style. Comments stay, and the meaning never changes.

    \b
    Examples:
      neural fmt model.neural
      neural fmt --check examples/       # for continuous integration
      neural fmt - < model.neural        # to standard output
    """
    from neural.diagnostics.diagnostic import NeuralError

    failures: list[NeuralError] = []
    changed = 0
    for path in _programs(files):
        try:
            changed += _standard_input(check) if str(path) == "-" else _file(path, check)
        except NeuralError as error:
            failures.append(error)
    if failures:
        raise NeuralError(*(d for error in failures for d in error.diagnostics))
    if check and changed:
        raise typer.Exit(1)


def formatted(text: str, name: str) -> str:
    """Text in canonical style. Raises NeuralError with all syntax errors."""
    from neural.diagnostics.diagnostic import NeuralError
    from neural.diagnostics.source import Source
    from neural.syntax.format import format_file
    from neural.syntax.parser import parse

    file, errors = parse(Source(name, text))
    if errors:
        raise NeuralError(*errors)
    return format_file(file)


def write_formatted(path: Path, text: str) -> None:
    """Write a program to its file, formatted if it parses and as it is otherwise."""
    from neural.diagnostics.diagnostic import NeuralError

    try:
        text = formatted(text, str(path))
    except NeuralError:
        # `check --fix` mends what it can; the caller reports what is still wrong
        _write(path, text)
    else:
        _write(path, text)


def _programs(arguments: list[Path]) -> list[Path]:
    """The files meant, folders written out; each once."""
    from neural.diagnostics.diagnostic import fail

    found: dict[Path, None] = {}
    for argument in arguments:
        if argument.is_dir():
            inside = sorted(
                p for p in argument.rglob("*.neural") if p.is_file() and not _hidden(p.relative_to(argument))
            )
            if not inside:
                fail("N014", f"there is no .neural file in the folder {argument}")
            found.update(dict.fromkeys(inside))
        else:
            found[argument] = None
    return list(found)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _standard_input(check: bool) -> bool:
    import sys

    from neural.diagnostics.diagnostic import fail

    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fail(
            "N006",
            "standard input is not UTF-8 text",
            notes=(f"byte {error.start} is {error.object[error.start]:#04x}",),
        )
    result = formatted(text, "<standard input>")
    if check:
        return _differs(text, result, "<standard input>")
    sys.stdout.write(result)
    return False


def _file(path: Path, check: bool) -> bool:
    text = _read(path)
    result = formatted(text, str(path))
    if check:
        return _differs(text, result, str(path))
    if result == text:
        return False
    _write(path, result)
    print(f"formatted {path}")
    return True


def _read(path: Path) -> str:
    from neural.diagnostics.diagnostic import NeuralError
    from neural.graph.definitions import read_source
    from neural.graph.messages import Messages, Poisoned

    messages = Messages()
    try:
        return read_source(path, messages).text
    except Poisoned:
        raise NeuralError(*messages.errors) from None


def _differs(text: str, result: str, name: str) -> bool:
    """Print the difference, if there is one."""
    from difflib import unified_diff

    lines = unified_diff(text.splitlines(), result.splitlines(), name, f"{name} (formatted)", lineterm="")
    shown = "\n".join(lines)
    if text != result:
        print(shown or f"{name}: line ends differ")
    return text != result


def _write(path: Path, text: str) -> None:
    """All or nothing: a file beside it, then renamed over it, with the same permissions; a link stays a link."""
    import os
    import shutil
    import tempfile

    target = path.resolve()
    handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(target, beside)
        Path(beside).replace(target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
