"""C++ of ours as a shared library: compiled once for this machine and kept in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from neural.diagnostics.diagnostic import fail

HEADERS = Path(__file__).parent  # that all of it may include
FLAGS = ("-std=c++20", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
SHARED = ("-shared", "-fPIC", "-pthread", f"-I{HEADERS}")
COMPILERS = ("c++", "g++", "clang++")
SHOWN_LINES = 8

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Library:
    """What is compiled: the one .cpp in a folder. `name`: of its file; `what`: for people; `instead`: of it.

    functions: name: (result, arguments), in ctypes' types, as the .cpp has them.
    """

    name: str
    what: str
    folder: Path
    functions: Mapping[str, tuple[Any, tuple[Any, ...]]]
    instead: str
    flags: tuple[str, ...] = ()

    @property
    def install(self) -> str:
        return f"install a C++ compiler (Debian: apt-get install g++), or use {self.instead}"


def compiler() -> str | None:
    """The C++ compiler of this machine: $CXX, or the first that is found."""
    named = os.environ.get("CXX")
    return shutil.which(named) if named else next((p for p in map(shutil.which, COMPILERS) if p), None)


def prepare(library: Library, say: Say = lambda _: None) -> Path:
    """Compile the library unless that is done; where it lies. `say` is told, since it takes some seconds.

    NeuralError N970 where there is no compiler, N971 where it fails.
    """
    found = compiler()
    if found is None:
        fail("N970", f"{library.what} needs a C++ compiler, and none is on the path", hint=library.install)
    sources = sorted([*library.folder.iterdir(), *HEADERS.glob("*.h")])
    made_by = repr((found, FLAGS, library.flags, _machine())).encode()
    stamp = hashlib.sha256(b"\0".join([*(s.read_bytes() for s in sources), made_by]))
    path = _cache_folder() / f"{library.name}-{stamp.hexdigest()[:16]}.so"
    if not path.exists():
        say(f"compiling {library.what} for this machine: some seconds, once")
        _compile(library, found, path)
    return path


@cache
def load(library: Library) -> ctypes.CDLL:
    """The library, compiled if need be. NeuralError: see `prepare`."""
    loaded = ctypes.CDLL(str(prepare(library)))
    for name, (result, arguments) in library.functions.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def _compile(library: Library, found: str, path: Path) -> None:
    """Write the library beside, then rename it: two at once do each other no harm."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            (source,) = library.folder.glob("*.cpp")
            command = [found, *FLAGS, *SHARED, *library.flags, str(source), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
            if done.returncode:
                said = tuple(line for line in done.stderr.splitlines() if "error" in line)[:SHOWN_LINES]
                fail("N971", f"{found} could not compile {library.what}", notes=said, hint=library.install)
            made.replace(path)
    except OSError as error:
        reason = f"{library.what} could not be kept in {path.parent}: {error.strerror}"
        fail("N971", reason, hint=library.install)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neural"


def _machine() -> str:
    """What -march=native depends on: a cache in a home folder may be shared by unlike machines."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), "") + platform.machine()
    return platform.platform() + platform.machine()
