"""Where things stand: from libclang's locations to (file of the tree, line, column), mostly by arithmetic.

clang numbers every character of every file it reads. For the main file that number, less the file's first one, is
the offset; lines follow by bisection. Only places in headers and in macros need a call.

- `Places(tu, unit, tree, scratch)`; `of(location)` gives a place, `path_of(cursor)` a path of the tree or None.
- `text_at(location)`: the source characters at a place, for the few questions that libclang has no answer to.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from ctypes import c_void_p
from pathlib import Path

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
        self.contents: dict[str, bytes] = {}
        self.real: dict[str, str] = {}
        self.file = self.number(unit.path) << 36
        self._main(tu, main)

    def _main(self, tu: int, main: str) -> None:
        self.low, self.high, self.lines = 0, -1, [0]
        handle = self.lib.getFile(tu, main.encode())
        try:
            data = Path(main).read_bytes()
        except OSError:
            return
        if not handle or not data:
            return
        first = self.lib.getLocationForOffset(tu, c_void_p(handle), 0).raw
        last = self.lib.getLocationForOffset(tu, c_void_p(handle), len(data) - 1).raw
        if last - first != len(data) - 1 or first & _MACRO:
            return
        self.low, self.high = first, last
        position, lines = data.find(b"\n"), [0]
        while position >= 0:
            lines.append(position + 1)
            position = data.find(b"\n", position + 1)
        self.lines = lines

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
            path = None
            for root, prefix in self.roots.items():
                if full.startswith(root):
                    path = prefix + full[len(root) :]
                    self.real[path] = full
                    break
            self.names[file] = path
            return path

    def of(self, location: Location) -> int:
        """Place of a location; -1 outside the tree."""
        raw = location.raw
        if self.low <= raw <= self.high:
            offset = raw - self.low
            line = bisect_right(self.lines, offset)
            return self.file | (line << 12) | min(offset - self.lines[line - 1] + 1, 4095)
        file, line, column, _ = clang.expansion(location)
        path = self.name(file)
        return -1 if path is None else place(self.number(path), line, column)

    def path_of(self, cursor: Cursor) -> str | None:
        """Path in the tree of the file in which a cursor's text is expanded, None outside."""
        location = self.lib.getCursorLocation(cursor)
        if self.low <= location.raw <= self.high:
            return self.unit.path
        return self.name(clang.expansion(location)[0])

    def text_at(self, location: Location, size: int) -> str:
        """Up to `size` source characters at a location."""
        file, _, _, offset = clang.expansion(location)
        path = self.name(file)
        full = self.real.get(path or "")
        if full is None:
            return ""
        if full not in self.contents:
            try:
                self.contents[full] = Path(full).read_bytes()
            except OSError:
                return ""
        return self.contents[full][offset : offset + size].decode(errors="replace")
