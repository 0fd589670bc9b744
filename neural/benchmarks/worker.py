"""A process that holds one peer: commands as JSON lines in, times as JSON lines out.

python -m neural.benchmarks.worker NAME WIDTH FOLDER THREADS
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path

from neural.benchmarks.peers import KINDS


def main() -> None:
    name, width, folder, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    peer = KINDS[name].widths[width](Path(folder), int(threads))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        tokens = peer.generate(asked["prompts"], asked["new"])
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "tokens": tokens, "peak": _peak()}), file=answers, flush=True)


def _peak() -> int | None:
    """Most memory that the process has held so far, bytes; None where the system does not say."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return None


if __name__ == "__main__":
    main()
