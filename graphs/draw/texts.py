"""Graphs as text for other programs: JSON, GraphML and Mermaid.

- `write(kind, nodes, links) -> str`: `kind` one of `KINDS`.

A node is a dict with `id`, `name`, `file` and whatever else is known; a link has `source`, `target` and a
`kind`, which Mermaid writes on the arrow if it is not "call". Empty attributes are left out of GraphML.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

KINDS = ("mmd", "graphml", "json")

Row = Mapping[str, Any]


def write(kind: str, nodes: Sequence[Row], links: Sequence[Row]) -> str:
    """Return a graph as text.

    >>> nodes = [{"id": "a.c:f", "name": "f", "file": "a.c"}, {"id": "a.c:g", "name": "g", "file": "a.c"}]
    >>> print(write("mmd", nodes, [{"source": "a.c:f", "target": "a.c:g"}]), end="")
    flowchart LR
      subgraph s0["a.c"]
        n0["f"]
        n1["g"]
      end
      n0 --> n1
    """
    return {"json": _json, "graphml": _graphml, "mmd": _mermaid}[kind](nodes, links)


def _json(nodes: Sequence[Row], links: Sequence[Row]) -> str:
    # The form of networkx.node_link_graph.
    graph = {"directed": True, "multigraph": False, "nodes": list(nodes), "links": list(links)}
    return json.dumps(graph, indent=1, ensure_ascii=False) + "\n"


def _mermaid(nodes: Sequence[Row], links: Sequence[Row]) -> str:
    numbers = {node["id"]: f"n{number}" for number, node in enumerate(nodes)}
    files: dict[str, list[Row]] = {}
    for node in nodes:
        files.setdefault(node["file"], []).append(node)
    lines = ["flowchart LR"]
    for number, (file, members) in enumerate(files.items()):
        indent = "    " if file else "  "
        if file:
            lines.append(f"  subgraph s{number}[{_label(file)}]")
        lines += [f"{indent}{numbers[node['id']]}[{_label(node['name'])}]" for node in members]
        if file:
            lines.append("  end")
    for link in links:
        word = f"|{_label(link['kind'])}|" if link.get("kind", "call") != "call" else ""
        lines.append(f"  {numbers[link['source']]} -->{word} {numbers[link['target']]}")
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    r"""Quote a label; Mermaid writes what is special as its entities.

    >>> print(_label('say "x" <y> #1'))
    "say #quot;x#quot; #lt;y#gt; #35;1"
    """
    for plain, entity in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("\n", "<br/>")):
        text = text.replace(plain, entity)
    return f'"{text}"'


def _graphml(nodes: Sequence[Row], links: Sequence[Row]) -> str:
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">',
    ]
    for rows, what, own in ((nodes, "node", {"id"}), (links, "edge", {"source", "target"})):
        for key in dict.fromkeys(key for row in rows for key in row if key not in own):
            lines.append(f'<key id="{what}-{key}" for="{what}" attr.name="{key}" attr.type="string"/>')
    lines.append('<graph edgedefault="directed">')
    for node in nodes:
        lines.append(f"<node id={_attribute(node['id'])}>{_data('node', node, {'id'})}</node>")
    for link in links:
        ends = f"source={_attribute(link['source'])} target={_attribute(link['target'])}"
        lines.append(f"<edge {ends}>{_data('edge', link, {'source', 'target'})}</edge>")
    return "\n".join([*lines, "</graph>", "</graphml>"]) + "\n"


def _data(what: str, row: Row, own: set[str]) -> str:
    return "".join(
        f'<data key="{what}-{key}">{escape(_plain(value))}</data>'
        for key, value in row.items()
        if key not in own and value not in ("", None)
    )


def _plain(value: Any) -> str:
    text = str(value) if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
    # XML has no way to write the other control characters.
    return "".join(c if c.isprintable() or c in "\n\t" else "·" for c in text)


def _attribute(text: str) -> str:
    return '"' + escape(_plain(text)).replace("\n", "&#10;").replace("\t", "&#9;") + '"'
