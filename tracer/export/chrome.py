"""Chrome trace events (JSON object format); opens in Perfetto and chrome://tracing.

Source: "Trace Event Format", complete events (ph X), times in microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tracer.export.base import Exporter, by_thread, spans
from tracer.passes import Node
from tracer.trace import Trace
from tracer.values import show


class Chrome(Exporter):
    """One event a line inside one JSON object."""

    name, suffix, help = "chrome", ".json", "Chrome trace events, for ui.perfetto.dev"

    def lines(self, trace: Trace, root: Node) -> Iterator[str]:
        """Yield the object, one event a line."""
        yield '{"displayTimeUnit":"ns","traceEvents":['
        program = str(trace.meta.get("program", ""))
        named = {"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": program}}
        yield json.dumps(named)
        for number in by_thread(root):
            thread = {"ph": "M", "pid": 1, "tid": number, "name": "thread_name"}
            yield "," + json.dumps({**thread, "args": {"name": f"thread {number}"}})
        for span in spans(trace, root):
            call = span.call
            args: dict[str, Any] = {name: show(value) for name, value in call.args.items()}
            if call.exc is not None:
                args["exception"] = ": ".join(filter(None, call.exc))
            elif not call.open:
                args["return"] = show(call.ret)
            yield "," + json.dumps(
                {
                    "ph": "X",
                    "pid": 1,
                    "tid": call.thread,
                    "ts": span.start / 1000,
                    "dur": (span.end - span.start) / 1000,
                    "name": call.function,
                    "cat": call.file,
                    "args": args,
                }
            )
        yield "]}"


EXPORTER = Chrome()
