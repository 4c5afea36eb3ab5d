"""A function's surroundings as a picture or as data.

- `write(index, function, depth, callers, path, boxes)`: svg, png, pdf, dot by Graphviz; mmd, graphml, json as
  text.
- `picture(...)`: the `graphs.draw` picture: arrows in the style of how the call is known, tooltips with the
  evidence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from graphs.errors import GraphsError
from graphs.index import explain
from graphs.index.query import Edge, Function, Index

if TYPE_CHECKING:
    from graphs.draw.picture import Picture

_TEXT = ("mmd", "graphml", "json")

# Style and colour of the arrows, by how a call is known; calls by name are plain.
_KINDS = {
    "through a pointer": ("dashed", "#c2410c"),
    "as a callback": ("dashed", "#7e22ce"),
    "by the system": ("dotted", "#b91c1c"),
}
_GROUP = {
    "field": "through a pointer", "table": "through a pointer", "variable": "through a pointer",
    "parameter": "as a callback", "library": "as a callback", "signal": "by the system",
    "thread": "by the system",
    "constructor": "by the system", "tcg": "by the system",
}  # fmt: skip


def surroundings(
    index: Index, start: Function, depth: int, callers: bool
) -> tuple[list[Function], list[Edge]]:
    """Functions within `depth` calls, nearest first, and the first call of each kind between them."""
    near = index.within(start, depth, backwards=callers)
    edges: dict[tuple[int | None, int], Edge] = {}
    for number in near:
        function = index.by_number(number)
        for edge in index.callers(function) if callers else index.callees(function):
            if edge.caller in near and edge.callee in near:
                edges.setdefault((edge.caller, edge.callee), edge)
    return [index.by_number(n) for n in sorted(near, key=lambda n: (near[n], n))], list(edges.values())


def picture(index: Index, start: Function, depth: int, callers: bool) -> Picture:
    """The surroundings of a function, to be drawn."""
    from graphs.draw.picture import Arrow, Box, Picture

    functions, edges = surroundings(index, start, depth, callers)
    word = "What reaches" if callers else "What is reached from"
    used = {_GROUP[edge.kind] for edge in edges if edge.kind in _GROUP}
    out = Picture(
        f"{word} {start.name} in {depth} calls, {index.meta.get('identity', '')}",
        kinds={name: style for name, style in _KINDS.items() if name in used},
    )
    for function in functions:
        tooltip = f"{function}, line {function.line}\n{function.signature}"
        out.boxes[str(function)] = Box(function.name, function.file, 0, tooltip)
    for edge in edges:
        if edge.caller is None:
            continue
        ends = str(index.by_number(edge.caller)), str(index.by_number(edge.callee))
        tooltip = f"{explain.how(index, edge)}"
        out.arrows[ends] = Arrow(1, tooltip, _GROUP.get(edge.kind, ""))
    return out


def write(index: Index, start: Function, depth: int, callers: bool, path: str, boxes: int) -> tuple[int, int]:
    """Write the surroundings of a function in the format that the name's ending says.

    Returns
    -------
    (int, int)
        Functions and calls.

    Raises
    ------
    GraphsError
        when the ending is none of the formats, or the file cannot be written.
    """
    kind = Path(path).suffix.lower().lstrip(".")
    try:
        if kind in _TEXT:
            functions, edges = surroundings(index, start, depth, callers)
            Path(path).write_text(_as_text(index, kind, functions, edges))
            return len(functions), len(edges)
        from graphs.draw import engine
        from graphs.draw.picture import to_dot

        if kind not in engine.FORMATS:
            wanted = ", ".join((*engine.FORMATS, *_TEXT))
            raise GraphsError(f"{path}: there is no format {kind!r}; end the name in one of {wanted}")
        drawn = picture(index, start, depth, callers)
        engine.write(to_dot(drawn, boxes), path)
        return len(drawn.boxes), len(drawn.arrows)
    except OSError as error:
        raise GraphsError(f"{path} cannot be written: {error.strerror}") from None


def _as_text(index: Index, kind: str, functions: list[Function], edges: list[Edge]) -> str:
    if kind == "json":
        return _json(index, functions, edges)
    return _mermaid(functions, edges) if kind == "mmd" else _graphml(index, functions, edges)


def _json(index: Index, functions: list[Function], edges: list[Edge]) -> str:
    nodes = [
        {"id": str(f), "file": f.file, "name": f.name, "line": f.line, "signature": f.signature}
        for f in functions
    ]
    links = [
        {
            "source": str(index.by_number(e.caller)), "target": str(index.by_number(e.callee)),
            "kind": e.kind,
            "place": e.place, "evidence": explain.how(index, e),
        }
        for e in edges if e.caller is not None
    ]  # fmt: skip
    return (
        json.dumps({"directed": True, "multigraph": False, "nodes": nodes, "links": links}, indent=1) + "\n"
    )


def _mermaid(functions: list[Function], edges: list[Edge]) -> str:
    name = {f.id: f"f{n}" for n, f in enumerate(functions)}
    lines = ["flowchart LR"]
    files: dict[str, list[Function]] = {}
    for f in functions:
        files.setdefault(f.file, []).append(f)
    for n, (file, members) in enumerate(files.items()):
        lines.append(f'  subgraph s{n}["{file}"]')
        lines += [f'    {name[f.id]}["{f.name}"]' for f in members]
        lines.append("  end")
    for edge in edges:
        if edge.caller is not None:
            arrow = "-.->" if edge.kind in _GROUP else "-->"
            lines.append(f"  {name[edge.caller]} {arrow} {name[edge.callee]}")
    return "\n".join(lines) + "\n"


def _graphml(index: Index, functions: list[Function], edges: list[Edge]) -> str:
    keys = [("file", "node"), ("name", "node"), ("line", "node"), ("kind", "edge"), ("place", "edge")]
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">',
    ]
    lines += [f'<key id="{k}" for="{what}" attr.name="{k}" attr.type="string"/>' for k, what in keys]
    lines.append('<graph edgedefault="directed">')
    for f in functions:
        data = "".join(
            f'<data key="{k}">{escape(str(v))}</data>'
            for k, v in zip(("file", "name", "line"), (f.file, f.name, f.line), strict=True)
        )
        lines.append(f"<node id={quoteattr(str(f))}>{data}</node>")
    for e in edges:
        if e.caller is not None:
            caller, callee = index.by_number(e.caller), index.by_number(e.callee)
            ends = f"source={quoteattr(str(caller))} target={quoteattr(str(callee))}"
            lines.append(
                f'<edge {ends}><data key="kind">{e.kind}</data>'
                f'<data key="place">{escape(e.place)}</data></edge>'
            )
    return "\n".join([*lines, "</graph>", "</graphml>"]) + "\n"
