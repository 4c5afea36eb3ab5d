"""A call graph to be drawn: boxes in the colours of their files, arrows, a legend; small enough to read.

- `Picture`: `Box`es and `Arrow`s, whatever they come from; `kinds` name the styles of arrows.

How it becomes a page is told in `graphs.draw.page`, how it gets small in `graphs.draw.condense`.
"""

from dataclasses import dataclass, field
from typing import Any

from graphs.draw.drawing import Drawing

Notes = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Box:
    """A function.

    Attributes
    ----------
    name : str
        Shown in bold.
    group : str
        Its C file; boxes of one group share a frame and a colour.
    weight : int
        How often it was called; 0 shows nothing.
    tooltip : str
        Shown by a browser that rests on the box.
    twins : tuple of str
        Functions that the box stands for besides `name`.
    also : tuple of str
        Functions folded into the box, which it calls.
    url : str
        Where a click leads.
    notes : tuple of (str, tuple of str)
        More small print: what the names are, and the names.
    line : int
        Line of its definition in the C file, 0 if not known.
    alias : str
        What small print calls it, where its name alone would not tell.
    """

    name: str
    group: str
    weight: int = 0
    tooltip: str = ""
    twins: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    url: str = ""
    notes: Notes = ()
    line: int = 0
    alias: str = ""

    @property
    def small(self) -> str:
        """What small print calls it."""
        return self.alias or self.name

    @property
    def title(self) -> str:
        """The name, and how many more it stands for."""
        return f"{self.name} and {len(self.twins):,} more" if self.twins else self.name


@dataclass(frozen=True)
class Arrow:
    """A call from one function to another, `kind` one of the picture's kinds."""

    weight: int = 1
    tooltip: str = ""
    kind: str = ""
    url: str = ""


@dataclass
class Picture(Drawing):
    """What to draw.

    Attributes
    ----------
    title : str
        First line of the legend.
    boxes : dict of key to Box
        Keys are any strings that are not shown.
    arrows : dict of (key, key) to Arrow
        From caller to callee.
    kinds : dict of str to (style, colour)
        Arrow kinds other than the plain one, in Graphviz's words; each gets a line in the legend. An empty
        colour stands for that of the caller's file.
    kept : frozenset of str
        Kinds of arrows that condensing leaves alone.
    loose : frozenset of str
        Kinds of arrows that do not lead on: folding the box between two of them leaves no dashed arrow.
    through : (style, colour)
        Arrows that condensing makes.
    goal : str
        Key of a box towards which everything leads; "" if all leads away from a start. It stays, and others
        go into the boxes of what they call instead of those of their callers.
    limit : int
        About how many boxes a page shows.
    """

    title: str
    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: dict[tuple[str, str], Arrow] = field(default_factory=dict)
    kinds: dict[str, tuple[str, str]] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    loose: frozenset[str] = frozenset()
    through: tuple[str, str] = ("dashed", "")
    goal: str = ""
    limit: int = 50

    def dot(self) -> str:
        """Return the page."""
        from graphs.draw.page import to_dot

        return to_dot(self, self.limit)

    def nodes(self) -> list[dict[str, Any]]:
        """Return all functions."""
        return [
            {"id": key, "name": box.name, "file": box.group}
            | ({"line": box.line} if box.line else {})
            | ({"calls": box.weight} if box.weight else {})
            | ({"note": box.tooltip} if box.tooltip else {})
            | ({"url": box.url} if box.url else {})
            | {label: list(names) for label, names in box.notes}
            for key, box in self.boxes.items()
        ]

    def links(self) -> list[dict[str, Any]]:
        """Return all arrows."""
        return [
            {"source": tail, "target": head, "kind": arrow.kind or "call", "times": arrow.weight}
            | ({"evidence": arrow.tooltip} if arrow.tooltip else {})
            | ({"url": arrow.url} if arrow.url else {})
            for (tail, head), arrow in self.arrows.items()
        ]

    def __str__(self) -> str:
        """Say what it shows, in one line."""
        return f"{self.title}: {len(self.boxes):,} functions, {len(self.arrows):,} different calls"
