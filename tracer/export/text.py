"""The call tree as the console shows it (tracer/text.py), folded, with arguments."""

from __future__ import annotations

from collections.abc import Iterator

from tracer.export.base import Exporter
from tracer.passes import Node
from tracer.text import tree_lines
from tracer.trace import Trace


class Text(Exporter):
    """Indented text."""

    name, suffix, help = "text", ".txt", "call tree, folded, with arguments"

    def lines(self, trace: Trace, root: Node) -> Iterator[str]:
        """Yield one line a call."""
        return tree_lines(root, args=True)


EXPORTER = Text()
