"""Parsing with libclang: one index, an optional precompiled header, a plain parse whenever that is safer.

- `Parser(tree, arguments, roots)`: parses files of a tree; `close()` frees clang's index.
- `parser.facts(path)`: the `Unit` of one C file.
- `parser.use_header(pch)`: from now on read the common headers from a `precompiled.Header`.
"""

from __future__ import annotations


from ctypes import byref, c_char_p, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING

from graphs.index import clang
from graphs.index.clang import text
from graphs.index.facts import Unit
from graphs.index.walk import walk

if TYPE_CHECKING:
    from graphs.index.precompiled import Header

_SEVERE = 3


class Parser:
    """Turns C files into facts.

    Parameters
    ----------
    tree : Path
        Root that paths are relative to.
    arguments : list of str
        The compiler's arguments for every file.
    roots : dict
        Folders whose files belong to the tree: absolute prefix to prefix in the index.
    """

    def __init__(self, tree: Path, arguments: list[str], roots: dict[str, str]) -> None:
        self.tree = tree
        self.arguments = arguments
        self.roots = roots
        self.lib = clang.library()
        # The index must leave out what a precompiled header declares: visiting it would read it all in again.
        self.index = self.lib.createIndex(1, 0)
        self.header: Header | None = None

    def close(self) -> None:
        """Free clang's index."""
        self.lib.disposeIndex(self.index)

    def use_header(self, header: Header | None) -> None:
        """Read common headers from a precompiled one where it is safe."""
        self.header = header

    def parse(self, full: str, arguments: list[str], options: int = 0) -> int:
        """A CXTranslationUnit, 0 when clang could not make one."""
        words = [word.encode() for word in arguments]
        vector = (c_char_p * len(words))(*words)
        unit = c_void_p()
        self.lib.parseTranslationUnit2(
            self.index, full.encode(), vector, len(words), None, 0, options | clang.PARSE_KEEP_GOING, byref(unit)
        )
        return unit.value or 0

    def facts(self, path: str, extra: list[str] | None = None) -> Unit:
        """Facts of the file `path` of the tree; a file that clang cannot read gives a unit with an error."""
        full = str(self.tree / path)
        arguments = self.arguments if extra is None else extra
        if self.header is not None and extra is None and self.header.serves(path):
            unit = self._walk(path, full, [*arguments, "-include-pch", str(self.header.file)])
            if unit is not None and not unit.errors:
                unit.depends = sorted({*unit.depends, *self.header.depends})
                return unit
        unit = self._walk(path, full, arguments)
        if unit is None:
            unit = Unit(path, files=[path], depends=[path], errors=[f"{path}: clang could not read it"])
        return unit

    def _walk(self, path: str, full: str, arguments: list[str]) -> Unit | None:
        tu = self.parse(full, arguments)
        if not tu:
            return None
        try:
            unit = walk(tu, path, full, self.roots)
            unit.errors = self.errors(tu)
            unit.depends = self.inclusions(tu, path)
            return unit
        finally:
            self.lib.disposeTranslationUnit(tu)

    def errors(self, tu: int) -> list[str]:
        """Messages of the errors that clang reported, with their places."""
        lib = self.lib
        out = []
        for number in range(lib.getNumDiagnostics(tu)):
            diagnostic = c_void_p(lib.getDiagnostic(tu, number))
            if lib.getDiagnosticSeverity(diagnostic) >= _SEVERE:
                file, line, _, _ = clang.expansion(lib.getDiagnosticLocation(diagnostic))
                name = self._name(file) if file else ""
                out.append(f"{name or '<command line>'}:{line}: {text(lib.getDiagnosticSpelling(diagnostic))}")
            lib.disposeDiagnostic(diagnostic)
        return out

    def _name(self, file: int) -> str:
        full = text(self.lib.getFileName(c_void_p(file)))
        return self._inside(full) or full

    def _inside(self, full: str) -> str | None:
        import os

        full = os.path.normpath(full)
        for root, prefix in self.roots.items():
            if full.startswith(root):
                return prefix + full[len(root) :]
        return None

    def inclusions(self, tu: int, path: str) -> list[str]:
        """Files of the tree that a translation unit read."""
        handles: list[int] = []

        def visit(file: int, _stack: object, _depth: int, _data: object) -> None:
            handles.append(file)

        self.lib.getInclusions(tu, clang.INCLUSION_VISITOR(visit), None)
        names = {path}
        for handle in handles:
            inside = self._inside(text(self.lib.getFileName(c_void_p(handle))))
            if inside is not None:
                names.add(inside)
        return sorted(names)


