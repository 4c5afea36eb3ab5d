"""Which pages of memory changed: found by comparison, since watching every store would cost too much.

- `Dirty.pages(memory)`: numbers of the pages that differ from the last call; all of them the first time.
"""

from __future__ import annotations

import ctypes
import mmap

from hypervisor.accel import PAGE_SIZE

_BLOCK = 256 * PAGE_SIZE
_ZEROS = bytes(_BLOCK)
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)


class Dirty:
    """A copy of memory as it was at the last call, block by block; blocks of zeros share one."""

    def __init__(self) -> None:
        self._copy: list[bytes] = []

    def pages(self, memory: mmap.mmap) -> set[int]:
        """Compare, take the copy anew, and return the numbers of the pages that differed."""
        first = not self._copy
        if first:
            self._copy = [_ZEROS] * -(-len(memory) // _BLOCK)
        changed: set[int] = set()
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for number, old in enumerate(self._copy):
            at = number * _BLOCK
            if _memcmp(address + at, old, min(_BLOCK, len(memory) - at)):
                new = memory[at : at + _BLOCK]
                self._copy[number] = new
                if not first:
                    changed.update(at // PAGE_SIZE + page for page in _differing(new, old))
        return set(range(-(-len(memory) // PAGE_SIZE))) if first else changed


def _differing(new: bytes, old: bytes) -> list[int]:
    pages = range(0, len(new), PAGE_SIZE)
    return [at // PAGE_SIZE for at in pages if new[at : at + PAGE_SIZE] != old[at : at + PAGE_SIZE]]
