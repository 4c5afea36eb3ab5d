"""What the exporters have in common.

- `Exporter`: a name, a file suffix, and `lines(trace, root)`, the output piece by piece.
- `Span`, `spans(root)`: calls with times that nest, whatever the trace lacks.
- `labels(root)`: a short name for each function; ``name@file`` where two files define it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from tracer.passes import Node, walk
from tracer.trace import Call, Trace
from tracer.values import Value


class Exporter(ABC):
    """Turns a trace, or the part of it that passes have chosen, into another format."""

    name: ClassVar[str]
    suffix: ClassVar[str]
    help: ClassVar[str]

    @abstractmethod
    def lines(self, trace: Trace, root: Node) -> Iterator[str]:
        """Yield the lines of the output, without their ends; `root` is an unfolded tree."""


@dataclass(slots=True)
class Span:
    """A call between two times (ns since the trace began); within those of the call around it."""

    call: Call
    depth: int
    start: int
    end: int


def spans(trace: Trace, root: Node) -> Iterator[Span]:
    """Yield the calls of a tree, parents first, with times made to nest.

    A call without an end lasts until its parent's; one that was suspended ends with its parent at the latest.
    """
    calls = [node.call for node, _ in walk(root) if node.call is not None]
    if not calls:
        return
    zero = int(trace.meta.get("clock", 0)) or min(call.t_enter for call in calls)
    last = max(call.t_enter if call.t_exit is None else call.t_exit for call in calls)
    # by thread: the ends of the calls around, and where the call before ended
    ends: list[int] = []
    for node, depth in walk(root):
        call = node.call
        if call is None:
            continue
        del ends[depth:]
        limit = ends[-1] if ends else last
        end = min(limit if call.t_exit is None else call.t_exit, limit)
        start = min(call.t_enter, end)
        ends.append(end)
        yield Span(call, depth, start - zero, end - zero)


def labels(root: Node) -> dict[int, str]:
    """Return the name of each function of a tree, by number."""
    infos = {node.call.info.fid: node.call.info for node, _ in walk(root) if node.call is not None}
    names = Counter(info.name for info in infos.values())
    return {fid: i.name if names[i.name] == 1 else f"{i.name}@{i.file}" for fid, i in infos.items()}


def by_thread(root: Node) -> dict[int, Node]:
    """Return the tree of each thread, in order of number."""
    trees: dict[int, Node] = {}
    for node in root.children:
        if node.call is not None:
            trees.setdefault(node.call.thread, Node()).children.append(node)
    return dict(sorted(trees.items()))


def jsonable(value: Value) -> Any:
    """Return an encoded value as JSON has it: a float that JSON lacks as text."""
    if isinstance(value, float) and value - value != 0.0:
        return str(value)
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    return value
