"""Folded stacks, for flamegraph.pl and its kin: ``outer;inner;... nanoseconds`` of own time.

The format has no quoting: ``;``, ``%``, blanks and control characters are written as in URLs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from urllib.parse import quote

from tracer.export.base import Exporter, labels, spans
from tracer.passes import Node
from tracer.trace import Trace


class Folded(Exporter):
    """One line a distinct stack."""

    name, suffix, help = "folded", ".folded", "folded stacks with own time, for flame graphs"

    def lines(self, trace: Trace, root: Node) -> Iterator[str]:
        """Yield the stacks in order of their first call."""
        names = {fid: _quoted(label) for fid, label in labels(root).items()}
        threads = len({node.call.thread for node in root.children if node.call is not None}) > 1
        own: Counter[str] = Counter()
        stack: list[str] = []
        for span in spans(trace, root):
            del stack[span.depth :]
            outer = stack[-1] if stack else ""
            top = f"thread-{span.call.thread};" if threads else ""
            path = (outer + ";" if outer else top) + names[span.call.info.fid]
            stack.append(path)
            own[path] += span.end - span.start
            if outer:
                own[outer] -= span.end - span.start
        for path, weight in own.items():
            yield f"{path} {max(weight, 0)}"


def _quoted(label: str) -> str:
    """Quote what would be read as the format's own marks; keep other letters as they are."""
    return "".join(
        c if c.isprintable() and c not in "; %" else quote(c, safe="", errors="replace") for c in label
    )


EXPORTER = Folded()
