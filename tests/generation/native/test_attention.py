"""Which keys and values are asked for before attention looks at them."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from neural.cpp.building import FLAGS, SHARED, compiler
from neural.generation.native.library import ENGINE
from neural.generation.native.pages import PAGE

CODE = """
#include "attention.h"
// Where the lines lie that are taken, from the pool on; how many times
extern "C" int64_t taken(int64_t window, int64_t kv_heads, int64_t head_bytes, int64_t offset, int64_t page_bytes,
                         int64_t texts, const int64_t *positions, const int64_t *pages, int64_t most, int64_t first,
                         int64_t end, int64_t lines, int64_t *out) {
    AttentionLayer layer{kv_heads, kv_heads, 64, 64, window, 1.0f, offset, head_bytes, {}};
    static uint8_t pool[1 << 20];
    Tokens tokens{positions, {}, pool, page_bytes};
    for (int64_t i = 0; i < texts; i++) tokens.segments.push_back({i, 1, pages + i * most});
    Coming coming;
    coming.begin(0, first, end);
    int64_t count = 0;
    while (const void *at = coming.take(layer, tokens, lines)) out[count++] = static_cast<const uint8_t *>(at) - pool;
    return count;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    found, folder = compiler(), tmp_path_factory.mktemp("attention")
    if found is None:
        pytest.skip("no C++ compiler")
    (folder / "coming.cpp").write_text(CODE)
    made = Path(folder / "coming.so")
    command = [
        found,
        *FLAGS,
        "-O1",
        "-Wno-psabi",
        *SHARED,
        f"-I{ENGINE.folder}",
        str(folder / "coming.cpp"),
        "-o",
        str(made),
    ]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(made))


@pytest.mark.parametrize("window", [0, 70])
@pytest.mark.parametrize(("first", "end"), [(0, 2), (2, 4), (1, 1)])
def test_each_page_of_a_threads_texts_in_order(library: ctypes.CDLL, window: int, first: int, end: int) -> None:
    positions, pages = [5, 140, 63, 64], [[9, 0, 0], [3, 7, 1], [2, 0, 0], [5, 4, 0]]
    heads, head_bytes, offset, page_bytes, lines = 2, 640, 1280, 4096, 6
    table = (ctypes.c_int64 * 12)(*(page for of_text in pages for page in of_text))
    out = (ctypes.c_int64 * 100)()
    sizes = map(ctypes.c_int64, (window, heads, head_bytes, offset, page_bytes, 4))
    rest = map(ctypes.c_int64, (3, first, end, lines))
    count = library.taken(*sizes, (ctypes.c_int64 * 4)(*positions), table, *rest, out)
    expected = [
        page * page_bytes + offset + start
        for text in range(first, end)
        for i, page in enumerate(pages[text][: positions[text] // PAGE + 1])
        if not window or (i + 1) * PAGE > positions[text] + 1 - window
        for start in range(0, heads * head_bytes, 64 * lines)
    ]
    assert list(out[:count]) == expected
