"""Where things stand: from libclang's locations to (file of the tree, line, column), mostly by arithmetic.

clang numbers every character of every file that it reads, each inclusion anew. The first place asked about in
a file tells where its numbers begin; from then on a number less that beginning is an offset, and lines follow
by
bisection.
Places in macros need a call or two for each use of one.

- `Places(tu, unit, main, roots)`; `of(location)` gives a place, `at(number, cursor)` too, without a call if
  it can, `path_of(cursor)` a path of the tree or None.
- `text_at(location, size)`: source characters, for the few questions that libclang has no answer to.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from ctypes import c_void_p
from functools import cache, lru_cache

from graphs.index import clang
from graphs.index.clang import Cursor, Location
from graphs.index.facts import Unit, place

_MACRO = 0x80000000


class Places:
    """Places of one translation unit."""

    def __init__(self, tu: int, unit: Unit, main: str, roots: dict[str, str]) -> None:
        self.lib = clang.library()
        self.unit = unit
        self.roots = roots
        self.names: dict[int, str | None] = {0: None}
        self.numbers: dict[str, int] = {}
        self.full: dict[int, str] = {}
        self.low, self.high = 0, -1
        self.lines: list[int] = [0]
        self.file = self.number(unit.path) << 36
        # Stretches of clang's numbers: where each begins and ends, the file (-1 outside the tree), its lines.
        self.begins: list[int] = []
        self.stretches: list[tuple[int, int, list[int]]] = []
        # Stretches inside the uses of macros: where each begins; where it ends, with the use's place.
        self.uses: list[int] = []
        self.used: list[tuple[int, int]] = []
        self._main(tu, main)

    def _main(self, tu: int, main: str) -> None:
        handle = self.lib.getFile(tu, main.encode())
        size, lines = _measure(main)
        if not handle or not size:
            return
        first = self.lib.getLocationForOffset(tu, c_void_p(handle), 0).raw
        last = self.lib.getLocationForOffset(tu, c_void_p(handle), size - 1).raw
        if last - first == size - 1 and not first & _MACRO:
            self.low, self.high, self.lines = first, last, lines

    def number(self, path: str) -> int:
        """Number of a path in the unit."""
        found = self.numbers.get(path)
        if found is None:
            found = self.numbers[path] = len(self.unit.files)
            self.unit.files.append(path)
        return found

    def name(self, file: int) -> str | None:
        """Path in the tree of a CXFile, None outside."""
        try:
            return self.names[file]
        except KeyError:
            full = os.path.normpath(clang.text(self.lib.getFileName(c_void_p(file))))
            self.full[file] = full
            path = None
            for root, prefix in self.roots.items():
                if full.startswith(root):
                    path = prefix + full[len(root) :]
                    break
            self.names[file] = path
            return path

    def at(self, number: int, cursor: Cursor) -> int:
        """Place of a cursor whose location has clang's `number`; -1 outside the tree."""
        if self.low <= number <= self.high:
            offset = number - self.low
            line = bisect_right(self.lines, offset)
            return self.file | (line << 12) | min(offset - self.lines[line - 1] + 1, 4095)
        known = self._known(number)
        return known if known is not None else self._ask(self.lib.getCursorLocation(cursor))

    def inside(self, text: str) -> str:
        """Text with paths of the tree for those on disk."""
        for root, prefix in self.roots.items():
            text = text.replace(root, prefix)
        return text

    def of(self, location: Location) -> int:
        """Place of a location; -1 outside the tree."""
        number: int = location.raw
        if self.low <= number <= self.high:
            offset = number - self.low
            line = bisect_right(self.lines, offset)
            return self.file | (line << 12) | min(offset - self.lines[line - 1] + 1, 4095)
        known = self._known(number)
        return known if known is not None else self._ask(location)

    def _known(self, number: int) -> int | None:
        if number & _MACRO:
            at = bisect_right(self.uses, number) - 1
            return self.used[at][1] if at >= 0 and number <= self.used[at][0] else None
        at = bisect_right(self.begins, number) - 1
        if at < 0 or number > self.stretches[at][0]:
            return None
        _, file, lines = self.stretches[at]
        if file < 0:
            return -1
        offset = number - self.begins[at]
        line = bisect_right(lines, offset)
        return (file << 36) | (line << 12) | min(offset - lines[line - 1] + 1, 4095)

    def _ask(self, location: Location) -> int:
        handle, offset = clang.expanded(location)
        path = self.name(handle)
        where = -1
        if path is not None:
            lines = _measure(self.full[handle])[1]
            line = bisect_right(lines, offset)
            where = place(self.number(path), line, offset - lines[line - 1] + 1)
        if location.raw & _MACRO:
            if where >= 0:
                self._use(location.raw, where, _measure(self.full[handle])[0])
        elif handle:
            self._stretch(handle, location.raw - offset, path)
        return where

    def _use(self, number: int, where: int, size: int) -> None:
        """Note a number inside the use of a macro at `where`, in a file of `size` characters.

        A macro's use is numbered in one go: what lies between two of its numbers is of it too. The same place
        in another inclusion of the file is further away than the file is long.
        """
        uses, used = self.uses, self.used
        at = bisect_right(uses, number)
        if at and used[at - 1][1] == where and number - used[at - 1][0] <= size:
            used[at - 1] = number, where
        elif at < len(uses) and used[at][1] == where and uses[at] - number <= size:
            uses[at] = number
        else:
            uses.insert(at, number)
            used.insert(at, (number, where))

    def _stretch(self, handle: int, begin: int, path: str | None) -> None:
        size, lines = _measure(self.full[handle])
        if not size:
            return
        at = bisect_right(self.begins, begin)
        self.begins.insert(at, begin)
        self.stretches.insert(at, (begin + size - 1, -1 if path is None else self.number(path), lines))

    def outside(self, number: int) -> tuple[int, int]:
        """First and last of the numbers around one that is outside the tree, as far as is known."""
        at = bisect_right(self.begins, number) - 1
        if number & _MACRO or at < 0 or number > self.stretches[at][0]:
            return number, number
        return self.begins[at], self.stretches[at][0]

    def path_of(self, cursor: Cursor) -> str | None:
        """Path in the tree of the file in which a cursor's text is expanded, None outside."""
        where = self.of(self.lib.getCursorLocation(cursor))
        return None if where < 0 else self.unit.files[where >> 36]

    def text_at(self, location: Location, size: int) -> str:
        """Up to `size` source characters at a location."""
        file, _, _, offset = clang.expansion(location)
        path = self.name(file)
        if path is None:
            return ""
        return _text(self.full[file])[offset : offset + size].decode(errors="replace")


@lru_cache(8)
def _text(full: str) -> bytes:
    try:
        with open(full, "rb") as file:
            return file.read()
    except OSError:
        return b""


@cache
def _measure(full: str) -> tuple[int, list[int]]:
    """Size of a file, and the offsets at which its lines begin."""
    data = _text(full)
    lines = [0]
    position = data.find(b"\n")
    while position >= 0:
        lines.append(position + 1)
        position = data.find(b"\n", position + 1)
    return len(data), lines
