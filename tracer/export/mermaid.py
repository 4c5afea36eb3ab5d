"""A Mermaid sequence diagram: C files are the participants, calls the messages; repeats are loops.

Mermaid draws a few hundred messages at most; cut larger trees with ``--from``, ``--depth`` and ``--only``.
"""

from __future__ import annotations

from collections.abc import Iterator

from tracer.export.base import Exporter
from tracer.passes import Node, fold, walk
from tracer.trace import Trace
from tracer.values import show

MESSAGE_LIMIT = 500


class Mermaid(Exporter):
    """One statement a line."""

    name, suffix, help = "mermaid", ".mmd", "sequence diagram between C files, for Mermaid"

    def lines(self, trace: Trace, root: Node) -> Iterator[str]:
        """Yield the diagram; after MESSAGE_LIMIT calls a note says that the rest is left out."""
        folded = fold(root)
        numbers: dict[str, str] = {}
        body: list[str] = []
        # what closes each level: its statement, and the participant that acts on it
        around: list[tuple[str, str]] = []
        shown = 0
        for node, depth in walk(folded):
            while len(around) > depth:
                body += filter(None, [around.pop()[0]])
            caller = around[-1][1] if around else "user"
            if shown == MESSAGE_LIMIT:
                body.append(f"Note over {caller}: only the first {MESSAGE_LIMIT} calls are shown")
                break
            if node.count > 1:
                body.append(f"loop x{node.count}")
            ends = ["end"] if node.count > 1 else []
            callee = caller
            if node.call is not None:
                shown += 1
                callee = numbers.setdefault(node.call.file, f"f{len(numbers)}")
                body.append(f"{caller}->>{callee}: {_text(node.call.function)}()")
                if callee != caller and caller != "user" and not node.call.open:
                    result = "raised" if node.call.exc else show(node.call.ret)
                    ends.insert(0, f"{callee}-->>{caller}: {_text(result)}")
            around.append(("\n  ".join(ends), callee))
        while around:
            body += filter(None, [around.pop()[0]])
        yield "sequenceDiagram"
        yield "  actor user as start"
        for file, number in numbers.items():
            yield f"  participant {number} as {_text(file)}"
        for line in body:
            yield f"  {line}"


def _text(text: str) -> str:
    """Write everything but plain letters and harmless marks as Mermaid's entity codes."""
    plain = set("_./-*&@ =()[],")
    return "".join(c if c.isalnum() or c in plain else f"#{ord(c)};" for c in text)


EXPORTER = Mermaid()
