"""Which pages of memory changed: found by comparison, since watching every store would cost too much.

- `Dirty.pages(memory)`: numbers of the pages that differ from the last call; all of them the first time.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Collection

from hypervisor.accel import PAGE_SIZE
from hypervisor.accel.touched import touched

_PAGES = 16
_BLOCK = _PAGES * PAGE_SIZE
_ZEROS = bytes(_BLOCK)
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)


class Dirty:
    """A copy of memory as it was at the last call, without the blocks of zeros."""

    def __init__(self) -> None:
        self._copy: dict[int, bytes] = {}
        self._first = True

    def pages(self, memory: mmap.mmap) -> Collection[int]:
        """Compare, take the copy anew, and return the numbers of the pages that differed."""
        first, self._first = self._first, False
        changed: set[int] = set()
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for number in _written_blocks(memory) | self._copy.keys():
            at = number * _BLOCK
            old = self._copy.get(number, _ZEROS)
            if _memcmp(address + at, old, min(_BLOCK, len(memory) - at)):
                new = memory[at : at + _BLOCK]
                self._copy[number] = new
                if not first:
                    changed.update(at // PAGE_SIZE + page for page in _differing(new, old))
        return range(-(-len(memory) // PAGE_SIZE)) if first else changed


def _written_blocks(memory: mmap.mmap) -> set[int]:
    pages, found = touched(memory), set()
    page = pages.find(1)
    while page >= 0:
        found.add(page // _PAGES)
        page = pages.find(1, (page // _PAGES + 1) * _PAGES)
    return found


def _differing(new: bytes, old: bytes) -> list[int]:
    pages = range(0, len(new), PAGE_SIZE)
    return [at // PAGE_SIZE for at in pages if new[at : at + PAGE_SIZE] != old[at : at + PAGE_SIZE]]
