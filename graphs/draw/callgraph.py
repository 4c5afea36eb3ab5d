"""The call graph of a trace, and of a recording: functions as boxes, calls as arrows.

- `of_tree(root, title, places) -> Picture`: from the (chosen part of the) call tree of a trace.
- `of_calls(calls, title, places) -> Picture`: from a call table.
- `Places`: where functions and calls stand in the real source, from its index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from graphs.calls import CallTable, Name
from graphs.draw.picture import Arrow, Box, Picture

if TYPE_CHECKING:
    from tracer.passes import Node

_Edge = tuple[Name | None, Name, str]


def of_tree(root: Node, title: str) -> Picture:
    """Draw the calls of a tree (see `tracer.passes.select`), first calls explained in tooltips."""
    return _picture(_tree_edges(root), title)


def of_calls(calls: CallTable, title: str) -> Picture:
    """Draw the calls of a table, of which no arguments are known."""
    return _picture(_table_edges(calls), title)


def _tree_edges(root: Node) -> Iterable[_Edge]:
    from tracer.values import show

    waiting: list[tuple[Node, Name | None]] = [(child, None) for child in reversed(root.children)]
    while waiting:
        node, caller = waiting.pop()
        call = node.call
        if call is None:
            continue
        name = (call.file, call.function)
        arguments = ", ".join(f"{parameter}={show(value)}" for parameter, value in call.args.items())
        yield caller, name, f"step {call.step}: {call.function}({arguments})"
        waiting += [(child, name) for child in reversed(node.children)]


def _table_edges(calls: CallTable) -> Iterable[_Edge]:
    open_: dict[int, list[Name]] = {}
    for line, (depth, name, thread) in enumerate(calls, 1):
        callers = open_.setdefault(thread, [])
        del callers[depth:]
        yield callers[-1] if callers else None, name, f"first in line {line}"
        callers.append(name)


def _picture(edges: Iterable[_Edge], title: str) -> Picture:
    times: Counter[Name] = Counter()
    arrows: Counter[tuple[Name, Name]] = Counter()
    first: dict[Name, str] = {}
    for caller, name, where in edges:
        times[name] += 1
        first.setdefault(name, where)
        if caller is not None:
            arrows[caller, name] += 1
    picture = Picture(title)
    for name, count in times.items():
        file, function = name
        tooltip = f"{function} ({file}), {count:,} calls\n{first[name]}"
        picture.boxes[_key(name)] = Box(function, file, count, tooltip)
    for (caller, name), count in arrows.items():
        tooltip = f"{caller[1]} calls {name[1]}, {count:,} times"
        picture.arrows[_key(caller), _key(name)] = Arrow(count, tooltip)
    return picture


def _key(name: Name) -> str:
    return ":".join(name)
