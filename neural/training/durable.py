"""JSON and folders that survive a crash: a name stands for its old self or wholly for its new one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from neural.data.durable import write_bytes

TEMPORARY = ".tmp-"


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 whole or not at all. OSError as the system gives it."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON whole or not at all. ValueError for NaN and infinities, which JSON cannot say."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def remove_tree(path: Path) -> None:
    """Remove a folder. A crash halfway leaves only a `.tmp-` name, which the next start cleans."""
    doomed = path
    if not path.name.startswith(TEMPORARY):
        doomed = path.with_name(f"{TEMPORARY}removed-{path.name}")
        if doomed.exists():
            shutil.rmtree(doomed)
        path.rename(doomed)
    shutil.rmtree(doomed)
