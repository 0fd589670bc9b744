"""What makes the tests quick and is no part of what they prove."""

import gc
import os

import hypothesis
import pytest

# One thread a process: tests run two processes on two cores, and threads that wait for each other's cores are slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What XLA compiles here runs a few times: its optimizer and its newer code generator take longer than they save. A test
# of `neural verify` has them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")


hypothesis.settings.register_profile("untimed", deadline=None)  # other work on the machine is no failure
hypothesis.settings.load_profile("untimed")

# Folders with the longest files: one of those that starts last would leave the other process idle.
FIRST = ("training", "verification", "docs", "properties", "parity", "interop", "generation", "backends")


def pytest_collection_modifyitems(items: list) -> None:
    folders = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: folders.get(item.path.parts[len(item.config.rootpath.parts) + 1], len(FIRST)))


@pytest.fixture(autouse=True, scope="module")
def what_is_there_is_no_garbage() -> None:
    """Millions of objects of four frameworks are not looked through again and again, at each collection of garbage."""
    gc.collect()
    gc.freeze()
