"""The index as a networkx graph, for notebooks and programs of one's own.

- `open_index(path=None, program=None)`: a `CallGraph`, which is a `networkx.MultiDiGraph`.

Nodes are "file:name", with the attributes file, name, line, signature, static, macro, programs (list of str).
Edges go from caller to callee, keyed by their number, with kind (see `graphs.index.resolve.KINDS`), file,
line, column,
evidence (how the call is known, in words) and programs. The graph's own attributes are those of the index:
identity,
clang ...
In Jupyter a graph of up to 200 functions displays itself as SVG; `graph.near("main", 2)` makes such a part.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx

from graphs.index import explain
from graphs.index.export import GROUP, KINDS
from graphs.index.query import Index

if TYPE_CHECKING:
    from graphs.draw.picture import Picture

_READABLE = 200


class CallGraph(networkx.MultiDiGraph):  # type: ignore[misc]
    """Functions and calls; see the module for the attributes."""

    def near(self, name: str, depth: int = 2, callers: bool = False) -> CallGraph:
        """The part within `depth` calls of a function ("file:name" or "name").

        Raises
        ------
        KeyError
            when there is no such function, or several.
        """
        found = [n for n in self if n == name or n.rpartition(":")[2] == name]
        if len(found) != 1:
            raise KeyError(f"{len(found)} functions are called {name}: {', '.join(found[:8])}")
        base = self.reverse(copy=False) if callers else self
        nodes = networkx.single_source_shortest_path_length(base, found[0], cutoff=depth)
        part = self.subgraph(nodes).copy()
        assert isinstance(part, CallGraph)
        return part

    def __str__(self) -> str:
        name = self.graph.get("identity", "?")
        return f"call graph of {name}: {len(self)} functions, {self.number_of_edges()} calls"

    def picture(self) -> Picture:
        """The graph to be drawn; `picture().save("out.svg")` writes it."""
        from graphs.draw.picture import Arrow, Box, Picture

        picture = Picture(str(self))
        for node, data in self.nodes(data=True):
            tooltip = f"{node}, line {data['line']}\n{data['signature']}"
            picture.boxes[node] = Box(data["name"], data["file"], tooltip=tooltip, line=data["line"])
        for caller, callee in self.edges():
            calls = self.get_edge_data(caller, callee).values()
            # A call by name says more than what a pointer may hold besides.
            kind = min((GROUP.get(data["kind"], "") for data in calls), key=lambda kind: kind != "")
            evidence = "\n".join(dict.fromkeys(data["evidence"] for data in calls))
            picture.arrows[caller, callee] = Arrow(1, evidence, kind)
        used = {arrow.kind for arrow in picture.arrows.values()}
        picture.kinds = {name: style for name, style in KINDS.items() if name in used}
        return picture

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What Jupyter shows: a picture, if it can be read, and a line of text."""
        if not 0 < len(self) <= _READABLE:
            return {"text/plain": str(self)}
        return self.picture()._repr_mimebundle_() | {"text/plain": str(self)}


def open_index(path: str | Path | None = None, program: str | None = None) -> CallGraph:
    """The call graph of an index file, by default the one that ships.

    Raises
    ------
    GraphsError
        when the file is missing, damaged, or of another version.
    """
    with Index.open(path, program) as index:
        graph = CallGraph(**{name: value for name, value in index.meta.items() if value})
        names = {}
        for f in index.all_functions.values():
            names[f.id] = str(f)
            graph.add_node(
                str(f), file=f.file, name=f.name, line=f.line, signature=f.signature, static=f.static,
                macro=f.macro, programs=index.program_names(f.programs),
            )  # fmt: skip
        for edge in index.edges():
            if edge.caller in names and edge.callee in names:
                graph.add_edge(
                    names[edge.caller], names[edge.callee], edge.id, kind=edge.kind, file=edge.file,
                    line=edge.line, column=edge.column, evidence=explain.how(index, edge),
                    programs=index.program_names(edge.programs),
                )  # fmt: skip
        return graph
