"""The call graph of a trace, and of a recording: functions as boxes, calls as arrows.

- `of_tree(root, title, ...) -> Picture`: from the (chosen part of the) call tree of a trace.
- `of_calls(calls, title, ...) -> Picture`: from a call table.

With a `source`, boxes and arrows say where the real program has them; with `links`, they lead there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from graphs.calls import CallTable, Name
from graphs.draw.links import Links
from graphs.draw.picture import Arrow, Box, Picture
from graphs.wording import counted

if TYPE_CHECKING:
    from graphs.witnesses.source import Source
    from tracer.passes import Node

_Edge = tuple[Name | None, Name, str]


_NOWHERE = Links()


def of_tree(root: Node, title: str, source: Source | None = None, links: Links = _NOWHERE) -> Picture:
    """Draw the calls of a tree (see `tracer.passes.select`), first calls explained in tooltips.

    Parameters
    ----------
    root : Node
        Its children are drawn.
    title : str
        Shown above.
    source : Source, optional
        Says how each call is known and where it stands in C.
    links : Links, optional
        Where functions link to.
    """
    return _picture(_tree_edges(root), title, source, links)


def of_calls(calls: CallTable, title: str, source: Source | None = None, links: Links = _NOWHERE) -> Picture:
    """Draw the calls of a table, of which no arguments are known."""
    return _picture(_table_edges(calls), title, source, links)


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


def _picture(edges: Iterable[_Edge], title: str, source: Source | None, links: Links) -> Picture:
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
        line = source.line(name) if source else 0
        place = f"{file}:{line}" if line else file
        tooltip = f"{function} ({place}), {counted(count, 'call')}\n{first[name]}"
        picture.boxes[_key(name)] = Box(
            function, file, count, tooltip, line=line, url=links.url(file, line) if line else ""
        )
    for (caller, name), count in arrows.items():
        tooltip, url = f"{caller[1]} calls {name[1]}, {counted(count, 'time')}", ""
        edge = source.call(caller, name) if source else None
        if source and edge:
            tooltip += f"\n{source.how(edge)}"
            url = links.url(edge.file, edge.line)
        picture.arrows[_key(caller), _key(name)] = Arrow(count, tooltip, url=url)
    return picture


def _key(name: Name) -> str:
    return ":".join(name)
