"""One thread a process: tests run two processes on two cores, and threads that wait for each other's cores are slow."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_collection_modifyitems(items: list) -> None:
    """Training comes first: its files take the longest, and one that starts last would leave the other process idle."""
    items.sort(key=lambda item: "training" not in item.path.parts)
