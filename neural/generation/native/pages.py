"""Pages of keys and values: who holds which, and which are kept for texts that begin alike.

A page is 64 tokens of one text in every layer. Texts that begin alike hold the same pages (Kwon et al. 2023,
PagedAttention); whoever writes into a page that others hold too takes a copy of it first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

PAGE = 64  # tokens, as in source/attention.h

Key = tuple[int, tuple[int, ...]]  # the serial number of the page before, 0 for none, and the page's tokens


class Pages:
    """`count` pages. Whole ones are known by their tokens and all before them, and when no text holds them any more
    up to `most_kept` are kept, the least recently used the first to go.
    """

    def __init__(self, count: int, most_kept: int) -> None:
        self._free = list(range(count))[::-1]
        self._holders = [0] * count
        self._most_kept = most_kept
        self._keys: dict[int, Key] = {}  # of pages that are known
        self._known: dict[Key, tuple[int, int]] = {}  # page and serial number
        self._kept: OrderedDict[int, None] = OrderedDict()  # known and held by none, the least recently used first
        self._last_serial = 0
        self._count = count

    @property
    def used(self) -> int:
        """Pages that are held or kept."""
        return self._count - len(self._free)

    def take(self) -> int:
        """A page for one holder, its contents no one's."""
        if not self._free:
            self._forget(next(iter(self._kept)))
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def hold(self, page: int) -> None:
        self._holders[page] += 1
        self._kept.pop(page, None)

    def drop(self, pages: Sequence[int]) -> None:
        """Of a text: its last page goes before those that it follows."""
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page] == 0:
                if page in self._keys:
                    self._kept[page] = None
                else:
                    self._free.append(page)
        while len(self._kept) > self._most_kept:
            self._forget(next(iter(self._kept)))

    def holders(self, page: int) -> int:
        return self._holders[page]

    def shared(self, page: int) -> bool:
        """Whether it must be copied before it is written."""
        return self._holders[page] > 1 or page in self._keys

    def find(self, tokens: Sequence[int]) -> list[int]:
        """Pages that hold the longest known beginning of `tokens`, the last token never included; not yet held."""
        found, before = [], 0
        for start in range(0, len(tokens) - PAGE, PAGE):
            page, before = self._known.get((before, tuple(tokens[start : start + PAGE])), (None, 0))
            if page is None:
                break
            found.append(page)
        return found

    def publish(self, tokens: Sequence[int], pages: Sequence[int]) -> None:
        """Make the whole pages of a text known, where anything is kept at all."""
        before = 0
        for i in range(len(tokens) // PAGE if self._most_kept else 0):
            key = before, tuple(tokens[i * PAGE : (i + 1) * PAGE])
            if key not in self._known:
                if pages[i] in self._keys:  # known after other pages of the same tokens
                    return
                self._last_serial += 1
                self._known[key], self._keys[pages[i]] = (pages[i], self._last_serial), key
            before = self._known[key][1]

    def _forget(self, page: int) -> None:
        del self._known[self._keys.pop(page)]
        del self._kept[page]
        self._free.append(page)


class Text:
    """Tokens whose keys and values lie in pages. table: int64, one page for each 64 tokens that it may have, at
    `address` in memory.
    """

    def __init__(self, pages: Pages, copy: Callable[[int, int], None], most: int) -> None:
        self._pages, self._copy = pages, copy
        self.table = np.zeros(-(-most // PAGE), np.int64)
        self.address = self.table.ctypes.data
        self._held = 0  # pages of the table
        self.length = 0

    @property
    def held(self) -> list[int]:
        return self.table[: self._held].tolist()

    def make_room(self, count: int) -> None:
        """Pages of its own for `count` tokens after its length."""
        first = self.length // PAGE
        if self.length % PAGE and self._pages.shared(int(self.table[first])):
            own = self._pages.take()
            self._copy(int(self.table[first]), own)
            self._pages.drop([int(self.table[first])])
            self.table[first] = own
        while self._held * PAGE < self.length + count:
            self.table[self._held] = self._pages.take()
            self._held += 1

    def truncate(self, length: int) -> None:
        """Hold the first `length` tokens only."""
        keep = -(-length // PAGE)
        self._pages.drop(self.table[keep : self._held].tolist())
        self._held, self.length = min(keep, self._held), length

    def hold(self, pages: Sequence[int], length: int) -> None:
        """Hold nothing but these pages, which others may hold too: its first `length` tokens."""
        for page in pages:
            self._pages.hold(page)
        self.truncate(0)
        self.table[: len(pages)] = pages
        self._held, self.length = len(pages), length
