"""From a call table to one tree a thread, on the functions that both sides know.

- `project(table, keep, ...) -> list[Row]`: leaves out functions that are not kept, hanging what they
  called on the nearest kept caller; cuts at the scope's end; drops signal handlers with all they call.
- `threads(forest, rows) -> dict`: the trees, by thread number.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from graphs.calls import CallTable, Name
from graphs.compare.trees import Forest, Tree

ROOT: Name = ("", "thread")


@dataclass(frozen=True, slots=True)
class Row:
    """One kept call: its depth among kept calls, its function, its thread."""

    depth: int
    name: Name
    thread: int


def project(
    table: CallTable,
    keep: Callable[[Name], bool],
    until: Name | None = None,
    drop: Collection[Name] = (),
    interrupts: Mapping[Name, Collection[str]] | None = None,
    cut: Collection[tuple[Name, Name]] = (),
    absent: Collection[Name] = (),
    lost: Callable[[Name], bool] = lambda name: False,
) -> list[Row]:
    """Project calls on the functions that `keep` accepts.

    Parameters
    ----------
    table : CallTable
        All calls.
    keep : callable
        Called once a function.
    until : (str, str), optional
        Stop where the main thread first enters this function.
    drop : collection of (str, str)
        Functions left out together with everything that they call.
    interrupts : dict of (str, str) to collection of str
        Signal handlers, left out like `drop`, each with functions that are left out where they follow it.
    cut : collection of ((str, str), (str, str))
        Calls of the second function directly by the first, left out like `drop`.
    absent, lost
        Functions inside which those that `lost` accepts are left out like `drop`.

    Examples
    --------
    >>> table = CallTable()
    >>> for depth, function in enumerate(["bdrv_read", "qemu_malloc", "raw_read"]):
    ...     table.append(depth, ("", function), 0)
    >>> [(row.depth, row.name[1]) for row in project(table, lambda name: name[1] != "qemu_malloc")]
    [(0, 'bdrv_read'), (1, 'raw_read')]
    """
    kept = [keep(name) for name in table.names]
    interrupts = interrupts or {}
    dropped = [name in drop or name in interrupts for name in table.names]
    following = [interrupts.get(name, ()) for name in table.names]
    stop = table.names.index(until) if until in table.names else -1
    numbers = {name: number for number, name in enumerate(table.names)}
    pairs = {(numbers.get(caller, -1), numbers.get(called, -1)) for caller, called in cut}
    lacking, losing = [name in absent for name in table.names], [lost(name) for name in table.names]
    lacked: dict[int, int] = {}
    callers: dict[int, list[tuple[int, int]]] = {}
    open_: dict[int, list[int]] = {}
    under: dict[int, tuple[int, Collection[str]]] = {}
    rows: list[Row] = []
    for depth, function, thread in zip(table.depth, table.function, table.thread, strict=True):
        if function == stop and thread == 0:
            break
        if thread in under:
            begun, own = under[thread]
            if depth > begun or (depth == begun and table.names[function][1] in own):
                continue
            del under[thread]
        stack = callers.setdefault(thread, [])
        while stack and stack[-1][0] >= depth:
            stack.pop()
        if depth <= lacked.get(thread, -1):
            del lacked[thread]
        if (
            dropped[function]
            or (stack and (stack[-1][1], function) in pairs)
            or (thread in lacked and losing[function])
        ):
            under[thread] = depth, following[function]
            continue
        stack.append((depth, function))
        if lacking[function] and thread not in lacked:
            lacked[thread] = depth
        depths = open_.setdefault(thread, [])
        while depths and depths[-1] >= depth:
            depths.pop()
        if kept[function]:
            rows.append(Row(len(depths), table.names[function], thread))
            depths.append(depth)
    return rows


def threads(forest: Forest, rows: list[Row]) -> dict[int, Tree]:
    """Build the tree of each thread, under a root of its own."""
    split: dict[int, list[tuple[int, Name]]] = {}
    for row in rows:
        split.setdefault(row.thread, []).append((row.depth, row.name))
    return {thread: forest.grow(ROOT, calls) for thread, calls in sorted(split.items())}
