"""The engine's C++, and what can be called in it."""

from __future__ import annotations

import ctypes
from pathlib import Path

from neural.cpp.building import Library

P, N = ctypes.c_void_p, ctypes.c_int64
ENGINE = Library(
    name="native",
    what="the native engine",
    folder=Path(__file__).parent / "source",
    instead="--engine torch",
    functions={
        "engine_new": (P, (N, N, N)),
        "engine_delete": (None, (P,)),
        "engine_matrix": (N, (P, N, N, N, P, P, P)),
        "engine_vector": (N, (P, N, P)),
        "engine_buffer": (N, (P, N)),
        "engine_integers": (N, (P, N, N)),
        "engine_layer": (None, (P, N, N, N, N, ctypes.c_float)),
        "engine_operation": (None, (P, P, ctypes.c_float)),
        "engine_logits": (None, (P, N)),
        "engine_page_bytes": (N, (P,)),
        "engine_make_pages": (N, (P, N)),
        "engine_copy_page": (None, (P, N, N)),
        "engine_run": (None, (P, N, P, P, P, P, N, P)),
    },
)
