"""Rewrites the golden files: `make golden`."""

from __future__ import annotations

from importlib import import_module

SOURCES = (
    "tests.backends.test_source",
    "tests.diagnostics.test_render",
    "tests.docs.test_reference",
    "tests.golden.mistakes",
)


def main() -> None:
    for module in SOURCES:
        for path, text in import_module(module).golden().items():
            if not path.exists() or path.read_text() != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                print(f"wrote {path}")


if __name__ == "__main__":
    main()
