"""Every event as one JSON object a line, for jq and scripts.

The first line describes the trace. Then ``kind`` is call, return, raise, new, write or free; every line has
its step, thread and time (ns since the trace began). Values are as tracer/values.py encodes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tracer.export.base import Exporter, jsonable
from tracer.passes import Node, walk
from tracer.trace import Trace

_STRUCTS = {"n": ("new", ("object", "struct", "fields")), "w": ("write", ("object", "field", "old", "new"))}
_STRUCTS["f"] = ("free", ("object",))


class JsonLines(Exporter):
    """One line an event."""

    name, suffix, help = "jsonl", ".jsonl", "every event as a JSON object"

    def lines(self, trace: Trace, root: Node) -> Iterator[str]:
        """Yield the events of the chosen calls, and the structure events that happened inside these."""
        zero = int(trace.meta.get("clock", 0))
        yield json.dumps({"kind": "trace", "events": len(trace), **jsonable(trace.meta)})
        calls = {node.call for node, _ in walk(root) if node.call is not None}
        rows: list[tuple[int, int, int, dict[str, Any]]] = []
        for call in calls:
            where = {"call": call.step, "file": call.file, "function": call.function}
            entry = {**where, "depth": call.depth, "args": jsonable(call.args)}
            rows.append((call.step, call.thread, call.t_enter, {"kind": "call", **entry}))
            if call.exit_step is not None and call.t_exit is not None:
                if call.exc is not None:
                    end = {"kind": "raise", **where, "exception": list(call.exc)}
                else:
                    end = {"kind": "return", **where, "value": jsonable(call.ret)}
                rows.append((call.exit_step, call.thread, call.t_exit, end))
        whole = len(calls) == sum(1 for _ in trace.calls())
        for step, event, inside in trace.struct_events():
            if inside in calls or whole:
                kind, names = _STRUCTS[event[0]]
                content = {name: jsonable(value) for name, value in zip(names, event[3:], strict=False)}
                by = None if inside is None else inside.step
                rows.append((step, event[1], event[2], {"kind": kind, "call": by, **content}))
        for step, thread, t, row in sorted(rows, key=lambda row: row[0]):
            yield json.dumps({"step": step, "thread": thread, "t": t - zero, **row})


EXPORTER = JsonLines()
