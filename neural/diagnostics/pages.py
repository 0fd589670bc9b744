"""The page of each code: what it means, why it is refused, what to do. The same pages are in the documentation."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "pages"


def codes() -> list[str]:
    """All codes that have a page, in order."""
    return sorted(path.stem for path in FOLDER.glob("N[0-9][0-9][0-9].md"))


def page(code: str) -> str | None:
    """The page of a code as Markdown, or None where there is no such code."""
    return (FOLDER / f"{code}.md").read_text("utf-8") if code in codes() else None


def title(code: str) -> str | None:
    """What the code is, from the first line of its page: `# N402: …`."""
    text = page(code)
    return text and text.split("\n", 1)[0].removeprefix(f"# {code}:").strip()
