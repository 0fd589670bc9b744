"""Errors of libraries that mean that memory ran out, told from others without loading the libraries."""

from __future__ import annotations

import re

from neural.diagnostics.amounts import size

SIGNS = re.compile(r"can't allocate memory|could not create a memory object", re.IGNORECASE)  # torch on a CPU, oneDNN
ASKED = re.compile(r"tried to allocate (\d+) bytes|tried to allocate ([\d.]+ [KMGT]iB)", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return True
    return isinstance(error, RuntimeError) and bool(SIGNS.search(str(error)))


def asked_for(error: BaseException) -> str:
    """What was asked for in vain, where the error says it: the end of a message, ": 2.00 GiB more were asked for"."""
    asked = ASKED.search(str(error))
    return f": {asked[2] or size(int(asked[1]))} more were asked for" if asked else ""
