"""Counts and times of a trace.

- `stats(trace)`: a `Stats` with one `FunctionStats` a function that was called.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tracer.fileformat import FunctionInfo

if TYPE_CHECKING:
    from tracer.trace import Call, Trace


@dataclass(slots=True)
class FunctionStats:
    """Of one function: calls, exceptions, time with and without the calls it made (ns).

    A recursive call's time counts once in `total`.
    """

    info: FunctionInfo
    calls: int = 0
    exceptions: int = 0
    total: int = 0
    own: int = 0


@dataclass(slots=True)
class Stats:
    """Of a whole trace; `functions` is sorted by own time, the largest first."""

    events: int
    calls: int
    open_calls: int
    threads: int
    structures: int
    writes: int
    duration: int
    functions: list[FunctionStats] = field(default_factory=list)


def stats(trace: Trace) -> Stats:
    """Count the calls of a trace and add up their times."""
    table: dict[int, FunctionStats] = {}
    # by thread: the calls around the current one, and how often each function is among them
    stacks: dict[int, tuple[list[Call], Counter[int]]] = {}
    total = open_calls = 0
    first = last = None
    for call in trace.calls():
        total += 1
        row = table.get(call.info.fid)
        if row is None:
            row = table[call.info.fid] = FunctionStats(call.info)
        row.calls += 1
        row.exceptions += call.exc is not None
        stack, active = stacks.setdefault(call.thread, ([], Counter()))
        while stack and stack[-1] is not call.parent:
            active[stack.pop().info.fid] -= 1
        first = call.t_enter if first is None else min(first, call.t_enter)
        if call.t_exit is None:
            open_calls += 1
        else:
            spent = call.t_exit - call.t_enter
            last = call.t_exit if last is None else max(last, call.t_exit)
            row.own += spent
            if call.parent is not None and not call.parent.open:
                table[call.parent.info.fid].own -= spent
            if not active[call.info.fid]:
                row.total += spent
        stack.append(call)
        active[call.info.fid] += 1
    return Stats(
        events=len(trace),
        calls=total,
        open_calls=open_calls,
        threads=len(stacks),
        structures=len(trace.objects()),
        writes=len(trace.writes()),
        duration=(last - first) if first is not None and last is not None else 0,
        functions=sorted(table.values(), key=lambda row: -row.own),
    )
