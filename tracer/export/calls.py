"""The recordings' own format: ``depth TAB function TAB thread TAB file``, in order of entry."""

from __future__ import annotations

from collections.abc import Iterator

from tracer.export.base import Exporter
from tracer.passes import Node, walk
from tracer.trace import Trace
from tracer.values import escape


class Calls(Exporter):
    """One line a call; a tab or newline in a name is a backslash escape."""

    name, suffix, help = "calls", ".calls", "depth, function, thread, file: as the recordings have it"

    def lines(self, trace: Trace, root: Node) -> Iterator[str]:
        """Yield one line a call."""
        found = [(node.call.step, depth, node.call) for node, depth in walk(root) if node.call is not None]
        for _, depth, call in sorted(found, key=lambda item: item[0]):
            yield f"{depth}\t{escape(call.function)}\t{call.thread}\t{escape(call.file)}"


EXPORTER = Calls()
