"""Counts and times of a trace.

- `stats(trace)`: a `Stats` with one `FunctionStats` a function that was called.
- `stats(trace, among)`: the calls and functions of these calls only; their times are those of the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
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


def stats(trace: Trace, among: Container[Call] | None = None) -> Stats:
    """Count the calls of a trace and add up their times.

    Parameters
    ----------
    among
        Only these calls; None for all. A call's own time is without all that it called, among them or not.
    """
    table: dict[int, FunctionStats] = {}
    # by thread: the calls around the current one, whether each counts, how often a function is among those
    stacks: dict[int, tuple[list[tuple[Call, bool]], Counter[int]]] = {}
    threads: set[int] = set()
    total = open_calls = 0
    first = last = None
    for call in trace.calls():
        stack, active = stacks.setdefault(call.thread, ([], Counter()))
        while stack and stack[-1][0] is not call.parent:
            outer, counted = stack.pop()
            active[outer.info.fid] -= counted
        spent = None if call.t_exit is None else call.t_exit - call.t_enter
        if spent is not None and stack and stack[-1][1] and not stack[-1][0].open:
            table[stack[-1][0].info.fid].own -= spent
        counts = among is None or call in among
        stack.append((call, counts))
        if not counts:
            continue
        total += 1
        threads.add(call.thread)
        row = table.get(call.info.fid)
        if row is None:
            row = table[call.info.fid] = FunctionStats(call.info)
        row.calls += 1
        row.exceptions += call.exc is not None
        first = call.t_enter if first is None else min(first, call.t_enter)
        if spent is None:
            open_calls += 1
        else:
            last = max(last or 0, call.t_enter + spent)
            row.own += spent
            if not active[call.info.fid]:
                row.total += spent
        active[call.info.fid] += 1
    return Stats(
        events=len(trace),
        calls=total,
        open_calls=open_calls,
        threads=len(threads),
        structures=len(trace.objects()),
        writes=len(trace.writes()),
        duration=(last - first) if first is not None and last is not None else 0,
        functions=sorted(table.values(), key=lambda row: -row.own),
    )
