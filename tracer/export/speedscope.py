"""Speedscope's file format (www.speedscope.app), one evented profile a thread.

Source: https://www.speedscope.app/file-format-schema.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tracer.export.base import Exporter, by_thread, labels, spans
from tracer.passes import Node, walk
from tracer.trace import Trace

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


class Speedscope(Exporter):
    """One JSON object on one line."""

    name, suffix, help = "speedscope", ".speedscope.json", "for www.speedscope.app"

    def lines(self, trace: Trace, root: Node) -> Iterator[str]:
        """Yield the object."""
        infos = {node.call.info.fid: node.call.info for node, _ in walk(root) if node.call is not None}
        names, numbers = labels(root), {fid: number for number, fid in enumerate(infos)}
        profiles = [self._profile(trace, tree, thread, numbers) for thread, tree in by_thread(root).items()]
        frames = [{"name": names[fid], "file": info.file} for fid, info in infos.items()]
        document = {
            "$schema": _SCHEMA,
            "exporter": "studykvm",
            "name": str(trace.meta.get("program", "")),
            "activeProfileIndex": 0,
            "shared": {"frames": frames},
            "profiles": profiles,
        }
        yield json.dumps(document)

    def _profile(self, trace: Trace, tree: Node, thread: int, numbers: dict[int, int]) -> dict[str, Any]:
        events: list[dict[str, Any]] = []
        around: list[tuple[int, int]] = []
        at = first = None

        def close(depth: int) -> None:
            while len(around) > depth:
                frame, end = around.pop()
                emit("C", frame, end)

        def emit(kind: str, frame: int, when: int) -> None:
            nonlocal at
            # a suspended call may reach into the next one: times must not go back
            at = when if at is None else max(at, when)
            events.append({"type": kind, "frame": frame, "at": at})

        for span in spans(trace, tree):
            close(span.depth)
            frame = numbers[span.call.info.fid]
            emit("O", frame, span.start)
            first = at if first is None else first
            around.append((frame, span.end))
        close(0)
        return {
            "type": "evented",
            "name": f"thread {thread}",
            "unit": "nanoseconds",
            "startValue": first or 0,
            "endValue": at or 0,
            "events": events,
        }


EXPORTER = Speedscope()
