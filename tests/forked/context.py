"""`CONTEXT.Process(target=…)`: a process of its own that has everything imported."""

from __future__ import annotations

import multiprocessing

# The server has one thread and has computed nothing, so a child of it copies no lock that is held and no pool of torch.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.forked.imports"])
