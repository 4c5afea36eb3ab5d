"""The visitor of `tree.Tree` compiled: `visitor.c` beside this file, built where a C compiler is at hand.

A callback into Python costs more than all that clang does for a node. Without a compiler, and for a few files
only, `tree` visits in Python: the same nodes in the same order.

- `Building(folder)`: starts the compiler; `finish()` waits, and from then on `compiled()` has the visitor.
- `compiled()`: the `Visitor`, None if there is none.
- `Visitor.tree(cursor)`, `Visitor.list(cursor)`: what is below a cursor, as lists of integers.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import struct
import subprocess
from ctypes import POINTER, Structure, byref, c_char_p, c_long, c_void_p
from pathlib import Path
from typing import Any, Literal

from graphs.index import clang
from graphs.index.clang import Cursor

_SOURCE = Path(__file__).with_suffix(".c")
_NEEDED = ("visitChildren", "getCursorReferenced", "getCursorLocation")
_LETTERS: dict[str, Literal["Q", "i", "I"]] = {
    "target": "Q", "kind": "i", "parent": "i", "end": "i", "node": "i", "number": "I"
}  # fmt: skip
_PATIENCE = 60
_ready: Visitor | None = None


class Columns(Structure):
    """What a visit leaves in memory, good until the next one into it; see `visitor.c`."""

    _fields_ = (
        *((name, c_long) for name in ("room", "count", "wanted", "deep", "failed")),
        *((name, c_void_p) for name in ("cursor", "target", "kind", "parent", "end", "node", "number")),
    )

    cursors: Any = ()
    _views: dict[str, memoryview]
    _size = 0

    def lists(self, size: int, *names: str) -> list[list[int]]:
        """The first `size` values of columns.

        Raises
        ------
        MemoryError
            when the visit could not hold all.
        """
        if self.failed:
            raise MemoryError
        if self.room != self._size:
            self._view()
        return [self._views[name][:size].tolist() for name in names]

    def _view(self) -> None:
        self._size = self.room
        self.cursors = (Cursor * self.room).from_address(self.cursor)
        self._views = {}
        for name, letter in _LETTERS.items():
            size = struct.calcsize(letter)
            memory = (ctypes.c_char * (self.room * size)).from_address(getattr(self, name))
            self._views[name] = memoryview(memory).cast("B").cast(letter)


class Visitor:
    """The compiled visitor.

    Attributes
    ----------
    nodes : Columns
        What `tree` found. Its `cursors` show the visitor's own memory: who keeps one copies it.
    """

    def __init__(self, path: Path, classes: bytes) -> None:
        dll, lib = ctypes.PyDLL(str(path)), clang.library()
        for function in (dll.studykvm_tree, dll.studykvm_list):
            function.argtypes, function.restype = [POINTER(Cursor), POINTER(Columns)], None
        dll.studykvm_bind.argtypes, dll.studykvm_bind.restype = [c_void_p, c_void_p, c_void_p, c_char_p], None
        dll.studykvm_bind(*(ctypes.cast(getattr(lib, name), c_void_p) for name in _NEEDED), classes)
        self._tree, self._list = dll.studykvm_tree, dll.studykvm_list
        self.nodes, self._found = Columns(), Columns()

    def tree(self, cursor: Cursor) -> list[list[int]]:
        """Everything below a declaration: kind, parent, end; of the nodes wanted: node, target, number."""
        nodes = self.nodes
        self._tree(byref(cursor), byref(nodes))
        return nodes.lists(nodes.count, "kind", "parent", "end") + nodes.lists(
            nodes.wanted, "node", "target", "number"
        )

    def list(self, cursor: Cursor) -> tuple[Columns, list[int], list[int]]:
        """What is directly below a cursor: columns, kinds, and clang's numbers of where it stands."""
        found = self._found
        self._list(byref(cursor), byref(found))
        kinds, numbers = found.lists(found.count, "kind", "number")
        return found, kinds, numbers


class Building:
    """A compiler at work on the visitor.

    Parameters
    ----------
    folder : Path
        Where the library goes; it may vanish once loaded.
    classes : bytes
        What to do with a node of each kind, see `tree`.
    """

    def __init__(self, folder: Path, classes: bytes) -> None:
        self.path = folder / "visitor.so"
        self.classes = classes
        self.process: subprocess.Popen[bytes] | None = None
        named = shlex.split(os.environ.get("CC", ""))
        words = next((w for w in (named, ["cc"], ["gcc"], ["clang"]) if w and shutil.which(w[0])), None)
        if words is None or _ready is not None:
            return
        command = [*words, "-O1", "-w", "-shared", "-fPIC", "-o", str(self.path), str(_SOURCE)]
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError:
            return

    def finish(self) -> None:
        """Wait for the compiler and load what it made; if that fails, nothing is lost but time."""
        global _ready
        if self.process is None:
            return
        try:
            if self.process.wait(_PATIENCE) == 0:
                _ready = Visitor(self.path, self.classes)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


def compiled() -> Visitor | None:
    """The compiled visitor, if there is one."""
    return _ready
