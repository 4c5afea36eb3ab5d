"""A function's surroundings as a picture.

- `picture(index, function, depth, callers, links) -> Picture`: arrows in the style of how the call is known,
  tooltips with the evidence; `picture.save(path)` writes it in any format.
- `below(index, title, starts, calls, depth, links) -> Picture`: the same below several functions.
- `KINDS`, `GROUP`: the styles, and which of them each kind of call has.
"""

from __future__ import annotations

from graphs.draw.links import Links
from graphs.draw.picture import Arrow, Box, Picture
from graphs.index import explain
from graphs.index.query import Edge, Function, Index

# Style and colour of the arrows, by how a call is known; calls by name are plain.
KINDS = {
    "through a pointer": ("dashed", "#c2410c"),
    "as a callback": ("dashed", "#7e22ce"),
    "by the system": ("dotted", "#b91c1c"),
    "from generated code": ("dotted", "#15803d"),
}
GROUP = {
    "field": "through a pointer", "table": "through a pointer", "variable": "through a pointer",
    "parameter": "as a callback", "library": "as a callback", "signal": "by the system",
    "thread": "by the system", "constructor": "by the system", "destructor": "by the system",
    "tcg": "from generated code",
}  # fmt: skip
_EVIDENCE = 3
_NOWHERE = Links()


def surroundings(
    index: Index, start: Function, depth: int, callers: bool
) -> tuple[list[Function], dict[tuple[int, int], list[Edge]]]:
    """Functions within `depth` calls, nearest first, and the calls between them."""
    near = index.within(start, depth, backwards=callers)
    edges: dict[tuple[int, int], list[Edge]] = {}
    for number in near:
        function = index.by_number(number)
        for edge in index.callers(function) if callers else index.callees(function):
            if edge.caller is not None and edge.caller in near and edge.callee in near:
                edges.setdefault((edge.caller, edge.callee), []).append(edge)
    return [index.by_number(n) for n in sorted(near, key=lambda n: (near[n], n))], edges


def picture(
    index: Index, start: Function, depth: int, callers: bool = False, links: Links = _NOWHERE
) -> Picture:
    """What a function reaches in `depth` calls, or what reaches it, to be drawn."""
    functions, edges = surroundings(index, start, depth, callers)
    word = "What reaches" if callers else "What is reached from"
    calls = f"{depth} calls" if depth != 1 else "1 call"
    title = f"{word} {start.name} in {calls}, {index.meta.get('identity', '')}".rstrip(", ")
    return _drawn(index, Picture(title, goal=str(start) if callers else ""), functions, edges, links)


def below(
    index: Index,
    title: str,
    starts: list[Function],
    calls: list[Edge],
    depth: int,
    links: Links = _NOWHERE,
) -> Picture:
    """What `starts` reach in `depth` calls, and what `calls` lead to, with their callers."""
    functions: dict[str, Function] = {}
    edges: dict[tuple[int, int], list[Edge]] = {}
    for edge in calls:
        if edge.caller is not None:
            edges.setdefault((edge.caller, edge.callee), []).append(edge)
            caller = index.by_number(edge.caller)
            functions[str(caller)] = caller
    called = [(index.by_number(edge.callee), depth - 1) for edge in calls]
    for start, deep in [*called, *((start, depth) for start in starts)]:
        found, inside = surroundings(index, start, deep, False)
        functions |= {str(one): one for one in found}
        edges |= inside
    return _drawn(index, Picture(title), list(functions.values()), edges, links)


def _drawn(
    index: Index,
    out: Picture,
    functions: list[Function],
    edges: dict[tuple[int, int], list[Edge]],
    links: Links,
) -> Picture:
    for function in functions:
        tooltip = f"{function.name} ({function.file}:{function.line})\n{function.signature}"
        url = links.url(function.file, function.line)
        out.boxes[str(function)] = Box(
            function.name, function.file, tooltip=tooltip, url=url, line=function.line
        )
    for (caller, callee), group in edges.items():
        ends = index.by_number(caller), index.by_number(callee)
        out.arrows[str(ends[0]), str(ends[1])] = _arrow(index, ends, group, links)
    used = {arrow.kind for arrow in out.arrows.values()}
    out.kinds = {name: style for name, style in KINDS.items() if name in used}
    return out


def _arrow(index: Index, ends: tuple[Function, Function], edges: list[Edge], links: Links) -> Arrow:
    # A call by name says more than what a pointer may hold besides.
    first = next((edge for edge in edges if edge.kind not in GROUP), edges[0])
    shown = [first, *(edge for edge in edges if edge is not first)]
    rows = [f"{ends[0].name} calls {ends[1].name}"]
    rows += [explain.how(index, edge) for edge in shown[:_EVIDENCE]]
    if len(shown) > _EVIDENCE:
        rows.append(f"and {len(shown) - _EVIDENCE} more calls")
    url = links.url(first.file, first.line)
    return Arrow(1, "\n".join(rows), GROUP.get(first.kind, ""), url)
