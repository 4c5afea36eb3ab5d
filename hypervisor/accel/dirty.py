"""Which pages of memory changed: found by comparison, since watching every store would cost too much.

- `Dirty.pages(memory)`: numbers of the pages that differ from the last call; all of them the first time.
"""

from __future__ import annotations

import mmap

from hypervisor.accel import PAGE_SIZE

_BLOCK = 256 * PAGE_SIZE


class Dirty:
    """A copy of memory as it was at the last call; pages of zeros cost nothing."""

    def __init__(self) -> None:
        self._copy: mmap.mmap | None = None

    def pages(self, memory: mmap.mmap) -> set[int]:
        """Compare, take the copy anew, and return the numbers of the pages that differed."""
        first = self._copy is None
        if self._copy is None:
            self._copy = mmap.mmap(-1, len(memory))
        changed: set[int] = set()
        for block in range(0, len(memory), _BLOCK):
            new, old = memory[block : block + _BLOCK], self._copy[block : block + _BLOCK]
            if new == old:
                continue
            for at in range(0, len(new), PAGE_SIZE):
                page = new[at : at + PAGE_SIZE]
                if page != old[at : at + PAGE_SIZE]:
                    self._copy[block + at : block + at + PAGE_SIZE] = page
                    changed.add((block + at) // PAGE_SIZE)
        return set(range(-(-len(memory) // PAGE_SIZE))) if first else changed
