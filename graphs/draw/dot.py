"""The DOT language: text with everything quoted as it must be.

- `Dot`: nodes, edges and clusters in order; `dot.text()`.
- `quote(text)`, `html(text)`: a value, and text inside an HTML-like label.
"""

from collections.abc import Mapping
from html import escape

Attributes = Mapping[str, "str | int | float"]

_NONE: Attributes = {}
TURNED = "turned"


class Markup(str):
    """A label written in Graphviz's HTML-like language; it is not quoted again."""


def quote(value: str | int | float) -> str:
    r"""Quote a value for DOT.

    >>> print(quote('a "b" c\\d'))
    "a \"b\" c\\d"
    >>> quote(Markup("<b>x</b>"))
    '<<b>x</b>>'
    """
    if isinstance(value, Markup):
        return f"<{value}>"
    lines = (_printable(line).replace("\\", "\\\\").replace('"', '\\"') for line in str(value).split("\n"))
    return '"' + "\\n".join(lines) + '"'


def html(text: str) -> str:
    """Make text safe inside an HTML-like label.

    >>> html("a<b> & c")
    'a&lt;b&gt; &amp; c'
    """
    return escape(_printable(text), quote=False).replace('"', "&quot;")


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else "·" for c in text)


class Dot:
    """A directed graph in the making.

    Examples
    --------
    >>> dot = Dot({"rankdir": "LR"})
    >>> dot.cluster("block.c", {"label": "block.c"})
    >>> dot.node("a", {"label": "bdrv_read"}, "block.c")
    >>> dot.edge("a", "a")
    >>> print(dot.text())
    digraph {
      graph [rankdir="LR"];
      subgraph "cluster_block.c" {
        graph [label="block.c"];
        "a" [label="bdrv_read"];
      }
      "a" -> "a";
    }
    """

    def __init__(
        self, graph: Attributes, node: Attributes | None = None, edge: Attributes | None = None
    ) -> None:
        self.graph = dict(graph)
        self._defaults = {"node": node or {}, "edge": edge or {}}
        self._clusters: dict[str, tuple[Attributes, list[str]]] = {}
        self._nodes: list[str] = []
        self._edges: list[str] = []

    def cluster(self, name: str, attributes: Attributes) -> None:
        """Declare a cluster; nodes may then be put into it."""
        self._clusters[name] = attributes, []

    def node(self, name: str, attributes: Attributes, cluster: str | None = None) -> None:
        """Add a node, to a cluster if one is named."""
        row = f"{quote(name)}{_list(attributes)};"
        (self._nodes if cluster is None else self._clusters[cluster][1]).append(row)

    def edge(
        self, tail: str, head: str, attributes: Attributes = _NONE, ports: str = "", turned: bool = False
    ) -> None:
        """Add an edge; `ports` is the part of the tail (a table cell) that it starts from.

        One that is `turned` is laid out as if it led from head to tail; `engine.render` knows its class.
        """
        if turned:
            tail, head, attributes = head, tail, {**attributes, "dir": "back", "class": TURNED}
        port = f":{quote(ports)}:e" if ports else ""
        self._edges.append(f"{quote(tail)}{port} -> {quote(head)}{_list(attributes)};")

    def text(self) -> str:
        """Return the graph as DOT."""
        lines = ["digraph {", f"  graph{_list(self.graph)};"]
        lines += [
            f"  {kind}{_list(attributes)};" for kind, attributes in self._defaults.items() if attributes
        ]
        for name, (attributes, nodes) in self._clusters.items():
            if nodes:
                lines += [f"  subgraph {quote('cluster_' + name)} {{", f"    graph{_list(attributes)};"]
                lines += [f"    {row}" for row in nodes]
                lines.append("  }")
        lines += [f"  {row}" for row in [*self._nodes, *self._edges]]
        return "\n".join([*lines, "}"])


def _list(attributes: Attributes) -> str:
    inner = ", ".join(f"{name}={quote(value)}" for name, value in attributes.items())
    return f" [{inner}]" if inner else ""
