"""Call tables: what a program called, in order, in columns; the common ground of traces and recordings.

- `CallTable`: one row a call (depth, function, thread), functions numbered in `names`.
- `CallTable.from_trace(trace)`, `CallTable.read(path)`: from a trace of the model, or from a
  `NAME.calls` or `NAME.calls.gz` file (`depth TAB function TAB thread TAB source file` a line).
- `table.pack()`, `CallTable.unpack(data, names)`: the compact form that ships.

Packed form, compressed as one xz stream: row count (u32), then the columns one after the other, all
little-endian: function numbers (u16), depths as the step from "one deeper than the line before in the
same thread" (i16; 0 for a first child), threads (u8).
"""

from __future__ import annotations

import gzip
import lzma
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from graphs.errors import GraphsError

if TYPE_CHECKING:
    from tracer import Trace

Name = tuple[str, str]
"""Identity of a function: (C file, function)."""

_HEADER = struct.Struct("<I")
# 16-bit columns: telling xz that values come in pairs of bytes halves the size.
_FILTERS: list[dict[str, int]] = [
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 1, "pb": 1}
]


@dataclass
class CallTable:
    """Calls in the order in which they began.

    Attributes
    ----------
    names : list of (str, str)
        (C file, function) by number.
    depth : array of int
        0 for a call made by no recorded one.
    function : array of int
        Numbers into `names`.
    thread : array of int
        0 is the main thread; numbered by first appearance.

    Examples
    --------
    >>> table = CallTable()
    >>> table.append(0, ("block.c", "bdrv_open2"), 0)
    >>> table.append(1, ("block/raw-posix.c", "raw_open"), 0)
    >>> list(table)
    [(0, ('block.c', 'bdrv_open2'), 0), (1, ('block/raw-posix.c', 'raw_open'), 0)]
    >>> list(CallTable.unpack(table.pack(), table.names)) == list(table)
    True
    """

    names: list[Name] = field(default_factory=list)
    depth: array[int] = field(default_factory=lambda: array("i"))
    function: array[int] = field(default_factory=lambda: array("H"))
    thread: array[int] = field(default_factory=lambda: array("B"))

    def __post_init__(self) -> None:
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.depth)

    def __iter__(self) -> Iterator[tuple[int, Name, int]]:
        names = self.names
        for depth, function, thread in zip(self.depth, self.function, self.thread, strict=True):
            yield depth, names[function], thread

    def append(self, depth: int, name: Name, thread: int) -> None:
        """Add one call at the end."""
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self.names)
            self.names.append(name)
        self.depth.append(depth)
        self.function.append(number)
        self.thread.append(thread)

    def functions(self) -> set[Name]:
        """Return the distinct functions that were called."""
        return {self.names[number] for number in set(self.function)}

    @classmethod
    def from_trace(cls, trace: Trace) -> CallTable:
        """Take the calls of a model's trace."""
        table = cls()
        for call in trace.calls():
            table.append(call.depth, (call.file, call.function), call.thread)
        return table

    @classmethod
    def read(cls, path: Path, names: list[Name] | None = None) -> CallTable:
        """Read a `.calls` or `.calls.gz` file.

        Parameters
        ----------
        path : Path
            The file.
        names : list of (str, str), optional
            A numbering to share with other tables; new functions are added to it.

        Raises
        ------
        GraphsError
            If the file is missing, not whole, or not in the format.
        """
        table = cls(names if names is not None else [])
        opener = gzip.open if path.suffix == ".gz" else open
        try:
            with opener(path, "rt", encoding="utf-8") as lines:
                for line in lines:
                    depth, function, thread, file = line.rstrip("\n").split("\t")
                    table.append(int(depth), (file, function), int(thread))
        except (ValueError, OverflowError) as error:
            raise GraphsError(
                f"{path}: line {len(table) + 1} is not a call; wanted: depth TAB function TAB thread TAB file"
            ) from error
        except (OSError, EOFError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise GraphsError(f"{path}: cannot be read as a recording: {reason}") from error
        return table

    def pack(self) -> bytes:
        """Return the compact form; `names` is kept apart, since many tables share it."""
        steps, last = array("h"), dict[int, int]()
        for depth, thread in zip(self.depth, self.thread, strict=True):
            steps.append(depth - last.get(thread, -1) - 1)
            last[thread] = depth
        columns = [_little(self.function), _little(steps), self.thread.tobytes()]
        return lzma.compress(
            _HEADER.pack(len(self)) + b"".join(columns), format=lzma.FORMAT_XZ, filters=_FILTERS
        )

    @classmethod
    def unpack(cls, data: bytes, names: list[Name]) -> CallTable:
        """Undo `pack`."""
        raw = lzma.decompress(data)
        (count,) = _HEADER.unpack_from(raw)
        table, at = cls(names), _HEADER.size
        table.function.frombytes(raw[at : at + 2 * count])
        steps = array("h", raw[at + 2 * count : at + 4 * count])
        table.thread.frombytes(raw[at + 4 * count :])
        if sys.byteorder == "big":
            table.function.byteswap()
            steps.byteswap()
        last = dict[int, int]()
        for step, thread in zip(steps, table.thread, strict=True):
            last[thread] = depth = last.get(thread, -1) + 1 + step
            table.depth.append(depth)
        return table


def _little(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column.tobytes()
