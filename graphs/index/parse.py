"""Parsing with libclang: one index, an optional precompiled header, a plain parse whenever that is safer.

- `Parser(tree, arguments, roots)`: parses files of a tree; `close()` frees clang's index.
- `parser.common(path)`, `parser.parsed(path, own, common)`, `parser.facts(parsed)`: one C file to its `Unit`;
  the second step may run beside the others.
- `parser.use_header(pch)`: from now on read the common headers from a `precompiled.Header`.
"""

from __future__ import annotations

import os
from ctypes import byref, c_char_p, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graphs.index import clang
from graphs.index.clang import text
from graphs.index.facts import Unit
from graphs.index.walk import walk

if TYPE_CHECKING:
    from graphs.index.precompiled import Header

_SEVERE = 3


@dataclass(frozen=True)
class Parsed:
    """A parsed file: its translation unit (0 if there is none), and whether headers were precompiled."""

    path: str
    full: str
    tu: int
    common: bool


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
        """Free clang's index, and let go of the header: it knows the parser too, a ring that would stay."""
        self.lib.disposeIndex(self.index)
        self.header = None

    def use_header(self, header: Header | None) -> None:
        """Read common headers from a precompiled one where it is safe."""
        self.header = header

    def parse(self, full: str, arguments: list[str], options: int = 0) -> int:
        """A CXTranslationUnit, 0 when clang could not make one."""
        words = [word.encode() for word in arguments]
        vector = (c_char_p * len(words))(*words)
        unit = c_void_p()
        self.lib.parseTranslationUnit2(
            self.index,
            full.encode(),
            vector,
            len(words),
            None,
            0,
            options | clang.PARSE_KEEP_GOING,
            byref(unit),
        )
        return unit.value or 0

    def common(self, path: str) -> bool:
        """Whether the common headers may be read from the precompiled one for a file."""
        return self.header is not None and self.header.serves(path)

    def parsed(self, path: str, own: list[str] | None = None, common: bool = False) -> Parsed:
        """Parse a file; its own arguments instead of the tree's, if given. May run beside a walk.

        With `common`, the common headers are the precompiled ones; a file for which they prove unsafe is
        parsed again without them.
        """
        full = str(self.tree / path)
        arguments = self.arguments if own is None else own
        if self.header is not None and common:
            read = ["-Xclang", "-fno-validate-pch", "-include-pch", str(self.header.file)]
            tu = self.parse(full, [*arguments, *read])
            if tu and not self.failed(tu):
                return Parsed(path, full, tu, True)
            if tu:
                self.lib.disposeTranslationUnit(tu)
        return Parsed(path, full, self.parse(full, arguments), False)

    def facts(self, parsed: Parsed) -> Unit:
        """Facts of a parsed file; one that clang cannot read gives a unit with an error."""
        path, tu = parsed.path, parsed.tu
        if not tu:
            return Unit(path, files=[path], depends=[path], errors=[f"{path}: clang could not read it"])
        try:
            unit = walk(tu, path, parsed.full, self.roots)
            # With the common headers it was taken only because it had none.
            unit.errors = [] if parsed.common else self.errors(tu)
            depends = self.inclusions(tu, path)
            if parsed.common and self.header is not None:
                depends |= set(self.header.depends)
            unit.depends = sorted(depends)
            return unit
        finally:
            self.lib.disposeTranslationUnit(tu)

    def failed(self, tu: int) -> bool:
        """Whether clang reported an error."""
        lib = self.lib
        for number in range(lib.getNumDiagnostics(tu)):
            diagnostic = c_void_p(lib.getDiagnostic(tu, number))
            severity = lib.getDiagnosticSeverity(diagnostic)
            lib.disposeDiagnostic(diagnostic)
            if severity >= _SEVERE:
                return True
        return False

    def errors(self, tu: int) -> list[str]:
        """Messages of the errors that clang reported, with their places."""
        lib = self.lib
        out = []
        for number in range(lib.getNumDiagnostics(tu)):
            diagnostic = c_void_p(lib.getDiagnostic(tu, number))
            if lib.getDiagnosticSeverity(diagnostic) >= _SEVERE:
                file, line, _, _ = clang.expansion(lib.getDiagnosticLocation(diagnostic))
                name = self._name(file) if file else ""
                out.append(
                    f"{name or '<command line>'}:{line}: {text(lib.getDiagnosticSpelling(diagnostic))}"
                )
            lib.disposeDiagnostic(diagnostic)
        return out

    def _name(self, file: int) -> str:
        full = text(self.lib.getFileName(c_void_p(file)))
        return self._inside(full) or full

    def _inside(self, full: str) -> str | None:
        full = os.path.normpath(full)
        for root, prefix in self.roots.items():
            if full.startswith(root):
                return prefix + full[len(root) :]
        return None

    def inclusions(self, tu: int, path: str) -> set[str]:
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
        return names
