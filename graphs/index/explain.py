"""Edges in words: one line that says how a call is known, and the chain behind it.

- `how(index, edge)`: e.g. ``through BlockDriver.bdrv_open, block.c:472``.
- `leading(index, way)`: the calls along a way of functions.
- `chain(index, edge, sources)`: the steps from the function's name to the call, with source lines if a tree
  is at hand.
- `Sources(tree)`: reads lines of the tree, when it is there.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from graphs.index.query import Edge, Function, Index, Step

_WORDS = {
    "direct": "by name",
    "macro": "by name, in a function that a macro wrote",
    "field": "through a field",
    "table": "through a table",
    "parameter": "as a callback",
    "variable": "through a variable",
    "constructor": "before main, as a constructor",
    "destructor": "after main, as a destructor",
    "signal": "as a signal handler",
    "thread": "as a thread",
    "library": "by a library function it is given to",
    "tcg": "from generated code",
}


class Sources:
    """Lines of a source tree, '' when the tree or the file is not there."""

    def __init__(self, tree: str | Path | None) -> None:
        self.tree = Path(tree) if tree else None
        self._files: dict[str, list[str]] = {}

    def line(self, place: str) -> str:
        """The text at file:line, stripped."""
        if self.tree is None:
            return ""
        path, _, number = place.rpartition(":")
        if path not in self._files:
            try:
                self._files[path] = (self.tree / path).read_text(errors="replace").splitlines()
            except OSError:
                self._files[path] = []
        lines = self._files[path]
        return lines[int(number) - 1].strip() if 0 < int(number) <= len(lines) else ""


def through(index: Index, edge: Edge) -> str:
    """What a call through a pointer goes through, '' for other calls."""
    if edge.site is None:
        return ""
    symbol, kind = index.sites[edge.site]
    if symbol is not None:
        return index.symbol_name(symbol)
    return f"{'an' if kind == 'expression' else 'a'} {kind}"


def how(index: Index, edge: Edge) -> str:
    """How a call is known, in a few words, with its place."""
    words = _WORDS[edge.kind]
    name = through(index, edge)
    if edge.kind == "tcg":
        return f"{words}, entered at {edge.place}"
    if name:
        words = f"through {name}"
    if edge.kind in ("constructor", "destructor"):
        return f"{words}, {edge.place}"
    steps = index.evidence(edge)
    if name and steps:
        return f"{words}, called at {edge.place}, set at {steps[0].place}"
    return f"{words}, {edge.place}"


def leading(index: Index, way: list[Function]) -> list[Edge]:
    """The calls along a way, each at a place from which the next one follows.

    A function may call another one in several places. Where the next call is of what the first one hands
    over, only the place that hands it over leads on.
    """
    out: list[Edge] = []
    following: list[Edge] = []
    for caller, callee in reversed(list(pairwise(way))):
        edges = index.between(caller, callee)
        for later in following:
            handed = {step.place for step in index.evidence(later)}
            leads = [edge for edge in edges if edge.place in handed]
            if leads:
                edges, out[-1] = leads, later
                break
        following = edges
        out.append(edges[0])
    return out[::-1]


def step_words(step: Step) -> str:
    """A step in words."""
    where = f" in {step.function}" if step.function else ""
    if step.kind == "argument":
        return f"{step.source} is passed as {step.target}{where}"
    if step.kind == "return":
        return f"{step.source} is what {step.target.removeprefix('the result of ')} returns"
    if step.kind == "initialiser":
        return f"{step.source} initialises {step.target}{where}"
    return f"{step.source} is assigned to {step.target}{where}"


def chain(index: Index, edge: Edge, sources: Sources) -> list[str]:
    """Lines that lead from the function's name to the call, each with its place and its source line."""
    callee = index.by_number(edge.callee)
    caller = index.by_number(edge.caller) if edge.caller is not None else None
    lines = []
    for step in index.evidence(edge):
        lines += _line(step.place, step_words(step), sources)
    name = through(index, edge)
    if edge.kind in ("constructor", "destructor"):
        made = f", written by {callee.macro}()" if callee.macro else ""
        when = "before" if edge.kind == "constructor" else "after"
        lines += _line(edge.place, f"{callee.name} is a {edge.kind}{made}: it runs {when} main", sources)
    elif edge.kind in ("signal", "thread", "library"):
        lines += _line(
            edge.place,
            f"{caller.name if caller else '?'} hands it over: it is called {_WORDS[edge.kind]}",
            sources,
        )
    elif edge.kind == "tcg":
        lines += _line(
            edge.place, f"{caller.name if caller else '?'} enters generated code, which calls it", sources
        )
    elif name:
        lines += _line(edge.place, f"{caller.name if caller else '?'} calls through {name}", sources)
    else:
        lines += _line(
            edge.place, f"{caller.name if caller else 'an initialiser'} calls it {_WORDS[edge.kind]}", sources
        )
    return lines


def _line(place: str, words: str, sources: Sources) -> list[str]:
    out = [f"  {place}: {words}"]
    text = sources.line(place)
    if text:
        out.append(f"      {text}")
    return out
