"""A precompiled header for the headers that most files begin with, and which files may safely use it.

Reading a header ahead of a file can change what the file means, so a file is served only if

- no macro that it defines is a word of the headers, nor a switch of the system's headers,
- no macro of a header that it does not itself reach is a word of the file, nor of a macro that it uses, and
- clang finds no error (the parser then falls back to a plain parse).

The headers' own facts are those of one small file that includes them all, `PSEUDO`.

- `Header.build(parser, headers, scratch, texts)`: the header, None when clang refuses it.
- `Texts(tree, arguments)`: what texts hold; `texts.gather(paths)` reads them ahead, beside clang.
- `header.serves(path)`: whether a file may use it; `header.facts()`: the headers' facts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from graphs.index import clang
from graphs.index.facts import Unit
from graphs.index.walk import walk

if TYPE_CHECKING:
    from graphs.index.parse import Parser

PSEUDO = "<common headers>"
SOURCE = "studykvm-common.h"

_WORD = re.compile(rb"[A-Za-z_]\w*")
_BLANKS = bytes(c if (chr(c).isalnum() and c < 128) or c == 95 else 32 for c in range(256))
_DIRECTIVE = re.compile(
    rb"^[ \t]*#[ \t]*(include|define|undef|ifdef|ifndef|if|elif|else|endif)\b(.*)", re.MULTILINE
)
# Macros that change what the system's headers declare.
_SWITCH = re.compile(rb"NDEBUG|_\w+_SOURCE|__STDC_\w+_MACROS|_FILE_OFFSET_BITS")
# A definition that yields to an earlier one: no other text of the header depends on which one it was.
_YIELDING = re.compile(
    rb"#[ \t]*ifndef[ \t]+(\w+)[ \t]*\n[ \t]*#[ \t]*define[ \t]+\1\b[^\n]*\n[ \t]*#[ \t]*endif"
)
_DEFINITION = re.compile(rb"#[ \t]*define[ \t]+(\w+)((?:\\\n|[^\n])*)")
_COMMENT = re.compile(rb"/\*.*?\*/", re.DOTALL)


class Header:
    """A precompiled header and the words that decide whom it serves."""

    def __init__(self, parser: Parser, file: Path, tu: int, depends: list[str], texts: Texts) -> None:
        self.file = file
        self.depends = depends
        self._parser = parser
        self._tu = tu
        self._tree = str(parser.tree)
        self._roots = parser.roots
        self._inside = {self._tree_path(path) for path in self.depends}
        self._texts = texts
        self._reach: dict[str, frozenset[str]] = {}
        named = frozenset().union(*(self._reached(path) for path in self._inside))
        self._unnamed = frozenset(
            path for path in self._inside if path not in named and "config" in os.path.basename(path)
        )

    @classmethod
    def build(cls, parser: Parser, headers: list[str], scratch: Path, texts: Texts) -> Header | None:
        """Precompile `headers`; None when one is absent or clang reports an error."""
        source = scratch / SOURCE
        source.write_text("".join(f'#include "{name}"\n' for name in headers))
        arguments = ["-xc-header", *parser.arguments[1:]]
        tu = parser.parse(str(source), arguments, clang.PARSE_FOR_SERIALIZATION | clang.PARSE_INCOMPLETE)
        if not tu:
            return None
        file = scratch / "common.pch"
        if parser.failed(tu) or parser.lib.saveTranslationUnit(tu, str(file).encode(), 0):
            parser.lib.disposeTranslationUnit(tu)
            return None
        read = parser.inclusions(tu, PSEUDO) - {PSEUDO}
        return cls(parser, file, tu, sorted(path for path in read if not path.endswith(SOURCE)), texts)

    def facts(self) -> Unit:
        """The headers' own facts; to be asked for once."""
        source = self.file.with_name(SOURCE)
        try:
            unit = walk(self._tu, PSEUDO, str(source), self._parser.roots)
        finally:
            self._parser.lib.disposeTranslationUnit(self._tu)
        unit.depends = self.depends
        return unit

    def serves(self, path: str) -> bool:
        """Whether the file means the same with the headers read first."""
        full = f"{self._tree}/{path}"
        reached = self._reached(full)
        common = reached & self._inside
        # Headers that are included under a macro's name come with those that include them.
        common |= self._unnamed if common else frozenset()
        if not common or self._forestalled(full, set(), set()):
            return False
        texts = [self._texts.read(p) for p in (full, *(reached - self._inside))]
        if any(_SWITCH.fullmatch(name) for text in texts for name in text.defines):
            return False
        foreign = frozenset().union(*(self._texts.read(p).defines for p in self._inside - common))
        return not _clash(foreign, texts)

    def _forestalled(self, full: str, defined: set[bytes], met: set[str]) -> bool:
        """Whether a macro is defined before a common header that has its name as a word."""
        for directive, name in self._texts.read(full).order:
            if directive != b"include":
                defined.add(name)
                continue
            target = self._texts.find(name.decode(errors="replace"), os.path.dirname(full))
            if target is None or target in met:
                continue
            met.add(target)
            if target not in self._inside:
                if self._forestalled(target, defined, met):
                    return True
                continue
            below = {target, *(self._reached(target) & self._inside)} - met | {target}
            met |= below
            if any(not defined.isdisjoint(self._texts.read(p).everything) for p in below):
                return True
        return False

    def _tree_path(self, path: str) -> str:
        for root, prefix in self._roots.items():
            if prefix and path.startswith(prefix):
                return root + path[len(prefix) :]
        return f"{self._tree}/{path}"

    def _reached(self, full: str) -> frozenset[str]:
        """Files of the tree that a file includes, however deep, itself not counted."""
        found = self._reach.get(full)
        if found is None:
            out: set[str] = set()
            waiting = [full]
            while waiting:
                at = waiting.pop()
                for target in self._texts.named_in(at):
                    # What a common header really includes is known; its text may name more, under conditions.
                    if target in out or (at in self._inside and target not in self._inside):
                        continue
                    out.add(target)
                    waiting.append(target)
            found = self._reach[full] = frozenset(out - {full})
        return found


class Texts:
    """What the texts of files hold and include, each read once.

    Parameters
    ----------
    arguments : list of str
        The compiler's, for the folders of headers.
    """

    def __init__(self, tree: Path, arguments: list[str]) -> None:
        self.tree = tree
        self._folders = tuple(arguments[i + 1] for i, word in enumerate(arguments) if word == "-I")
        self._texts: dict[str, _Text] = {}
        self._named: dict[str, tuple[str, ...]] = {}

    def gather(self, paths: Iterable[str]) -> None:
        """Read files of the tree, and all that they include."""
        waiting = [f"{self.tree}/{path}" for path in paths]
        while waiting:
            full = waiting.pop()
            if full not in self._named:
                waiting += self.named_in(full)

    def named_in(self, full: str) -> tuple[str, ...]:
        """Files of the tree that a file's own text includes."""
        found = self._named.get(full)
        if found is None:
            folder = os.path.dirname(full)
            targets = (self.find(name, folder) for name in self.read(full).includes)
            found = self._named[full] = tuple(target for target in targets if target is not None)
        return found

    def find(self, name: str, beside: str) -> str | None:
        """The file that an inclusion's name stands for in a file of the folder `beside`."""
        return _locate(name, beside, self._folders)

    def read(self, full: str) -> _Text:
        """What a file holds; nothing if it cannot be read."""
        found = self._texts.get(full)
        if found is None:
            try:
                content = _COMMENT.sub(b" ", Path(full).read_bytes())
            except OSError:
                content = b""
            found = self._texts[full] = _Text(content)
        return found


class _Text:
    """What a file's text holds, as far as the safety of a precompiled header goes.

    Attributes
    ----------
    words, defines : frozenset of bytes
        Identifiers outside of macros' definitions; macros defined.
    bodies : dict
        Macro to the identifiers that it becomes.
    everything : frozenset of bytes
        All identifiers.
    order : list of (bytes, bytes)
        "include" with a name, "define" with a macro, in the order of the text; not those meant for Windows,
        nor a definition under its own `#ifndef`, which yields to an earlier one.
    """

    def __init__(self, content: bytes) -> None:
        unyielding = _YIELDING.sub(b" ", content)
        self.words = frozenset(_DEFINITION.sub(b" ", unyielding).translate(_BLANKS).split())
        self.bodies: dict[bytes, set[bytes]] = {}
        for name, body in _DEFINITION.findall(unyielding):
            self.bodies.setdefault(name, set()).update(body.translate(_BLANKS).split())
        self.everything = self.words.union(*self.bodies.values(), self.bodies)
        self.order: list[tuple[bytes, bytes]] = []
        conditions: list[bytes] = []
        directives = b"\n".join([line for line in content.split(b"\n") if b"#" in line])
        for directive, rest in _DIRECTIVE.findall(directives):
            word = _WORD.search(rest)
            name = word[0] if word else b""
            if directive in (b"if", b"ifdef", b"ifndef"):
                conditions.append(rest.strip() if directive == b"if" else directive + b" " + name)
            elif directive in (b"else", b"elif"):
                if conditions:
                    conditions[-1] = b""
            elif directive == b"endif":
                if conditions:
                    conditions.pop()
            elif b"ifdef _WIN32" in conditions:
                continue
            elif directive == b"include":
                self.order.append((directive, rest.strip()[1:].split(b'"')[0].split(b">")[0]))
            elif b"ifndef " + name not in conditions:
                self.order.append((b"define", name))
        self.defines = frozenset(name for directive, name in self.order if directive == b"define")
        self.includes = tuple(name.decode() for directive, name in self.order if directive == b"include")


def _clash(foreign: frozenset[bytes], texts: list[_Text]) -> bool:
    """Whether a macro of `foreign` is named in the texts, or in what a macro that they use becomes."""
    if all(foreign.isdisjoint(text.everything) for text in texts):
        return False
    bad = set(foreign)
    grown = True
    while grown:
        grown = False
        for text in texts:
            for name, body in text.bodies.items():
                if name not in bad and not body.isdisjoint(bad):
                    bad.add(name)
                    grown = True
    return any(not bad.isdisjoint(text.words) for text in texts)


@cache
def _locate(name: str, beside: str, folders: tuple[str, ...]) -> str | None:
    for folder in (beside, *folders):
        path = f"{folder}/{name}"
        if os.path.isfile(path):
            return os.path.realpath(path)
    return None
