"""The call graph in Graphviz's DOT language: functions in their files, calls with counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tracer.export.base import Exporter
from tracer.fileformat import FunctionInfo
from tracer.passes import Node, walk
from tracer.trace import Trace


class Dot(Exporter):
    """One statement a line."""

    name, suffix, help = "dot", ".dot", "call graph for Graphviz, functions grouped by file"

    def lines(self, trace: Trace, root: Node) -> Iterator[str]:
        """Yield the graph."""
        files: dict[str, dict[int, FunctionInfo]] = {}
        edges: Counter[tuple[int, int]] = Counter()
        stack: list[int] = []
        for node, depth in walk(root):
            if node.call is None:
                continue
            info = node.call.info
            files.setdefault(info.file, {})[info.fid] = info
            del stack[depth:]
            if stack:
                edges[stack[-1], info.fid] += 1
            stack.append(info.fid)
        yield "digraph calls {"
        # newrank: with many frames and calls in rings, older releases of dot fail without it
        yield "  rankdir=LR; newrank=true; node [shape=box, fontname=monospace];"
        for number, (file, infos) in enumerate(files.items()):
            yield f"  subgraph cluster_{number} {{ label={_quoted(file)};"
            for fid, info in infos.items():
                yield f"    f{fid} [label={_quoted(info.name)}];"
            yield "  }"
        for (caller, callee), count in edges.items():
            yield f"  f{caller} -> f{callee} [label={count}];"
        yield "}"


def _quoted(text: str) -> str:
    """Quote a label; a backslash is doubled, since Graphviz reads escapes in labels."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return '"' + safe.replace("\\", "\\\\").replace('"', '\\"') + '"'


EXPORTER = Dot()
