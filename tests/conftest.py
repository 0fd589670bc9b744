"""What makes the tests quick and is no part of what they prove."""

import gc
import os

import pytest

# One thread a process: tests run two processes on two cores, and threads that wait for each other's cores are slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What XLA compiles here runs a few times: its optimizer takes longer than it saves. `neural verify` has it in its tests.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


def pytest_collection_modifyitems(items: list) -> None:
    """Training comes first: its files take the longest, and one that starts last would leave the other process idle."""
    items.sort(key=lambda item: "training" not in item.path.parts)


@pytest.fixture(autouse=True, scope="module")
def what_is_there_is_no_garbage() -> None:
    """Millions of objects of four frameworks are not looked through again and again, at each collection of garbage."""
    gc.collect()
    gc.freeze()
