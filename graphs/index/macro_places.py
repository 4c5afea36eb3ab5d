"""Where a macro stands: looked up in the text of the sources, since the index holds what macros became.

- `macro_places(index, name, tree)`: definitions and uses in the files that the index was made from, comments
  and strings left out; what conditions hide is shown too.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from pathlib import Path

from graphs.index.query import Index
from graphs.index.symbolic import Reference

_SKIPPED = re.compile(rb'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.DOTALL)
_LINE = re.compile(rb"\n")


def macro_places(index: Index, name: str, tree: Path) -> list[Reference]:
    """Definitions and uses of a macro; none if no file of the tree defines it."""
    word = re.compile(rb"\b" + re.escape(name.encode()) + rb"\b")
    definition = re.compile(rb"^[ \t]*#[ \t]*define[ \t]+$", re.MULTILINE)
    out = []
    for number, path in index.db.execute("SELECT id, path FROM files ORDER BY path").fetchall():
        try:
            data = (tree / path).read_bytes()
        except OSError:
            continue
        if not word.search(data):
            continue
        data = _SKIPPED.sub(lambda match: re.sub(rb"[^\n]", b" ", match[0]), data)
        begins = [0, *(match.end() for match in _LINE.finditer(data))]
        spans = index.db.execute(
            "SELECT line, last_line, name FROM functions WHERE file = ?", (number,)
        ).fetchall()
        for match in word.finditer(data):
            line = bisect_right(begins, match.start())
            begin = begins[line - 1]
            use = "definition" if definition.search(data[begin : match.start()]) else "read"
            within = next((owner for first, last, owner in spans if first <= line <= last), "")
            out.append(Reference(use, path, line, match.start() - begin + 1, within))
    return out if any(place.use == "definition" for place in out) else []
