"""The source as a witness: which calls between functions its index shows.

- `Source(index)`: `line(name)`, `call(caller, callee)`, `start(name)`, `callees(name)`, `reach(name)`,
  `way(...)`.

Functions are (C file, name), as in traces and recordings.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator

from graphs.calls import Name
from graphs.index import explain
from graphs.index.query import Edge, Function, Index

MOST_LEFT_OUT = 3
"""Functions in a row that the model may leave out: a longer way would explain nearly anything."""

_QUIET, _LEFT_OUT = 1, 8

# These lead from where a function is handed over, not from a call.
_HANDED = frozenset({"constructor", "library", "signal", "thread"})


class Source:
    """The calls of an index, by the names of their functions."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.functions: dict[Name, Function] = {(f.file, f.name): f for f in index.all_functions.values()}
        self._names: dict[int, Name] = {f.id: name for name, f in self.functions.items()}
        self._edges: dict[tuple[int | None, int], int] = {}
        self._starts: dict[int, int] = {}
        self._signals: set[int] = set()
        self._ways: dict[int, list[int]] = {}
        rows = index.db.execute(
            "SELECT e.id, e.caller, e.callee, k.name, e.programs FROM edges e "
            "JOIN edge_kinds k ON k.id = e.kind ORDER BY e.id"
        )
        for number, caller, callee, kind, programs in rows:
            if not programs & index.mask:
                continue
            if caller is None or kind in _HANDED:
                self._starts.setdefault(callee, number)
            if kind == "signal":
                self._signals.add(callee)
            if caller is not None:
                if (caller, callee) not in self._edges and kind not in _HANDED:
                    self._ways.setdefault(caller, []).append(callee)
                self._edges.setdefault((caller, callee), number)

    def line(self, name: Name) -> int:
        """Line of a definition, 0 when the source has no such function."""
        function = self.functions.get(name)
        return function.line if function else 0

    def call(self, caller: Name, callee: Name) -> Edge | None:
        """The first call from one function to another, None when the source shows none."""
        number = self._number(caller, callee)
        return None if number is None else self._edge(number)

    def calls(self, caller: Name, callee: Name) -> bool:
        """Whether the source shows a call from one function to another."""
        return self._number(caller, callee) is not None

    def _number(self, caller: Name, callee: Name) -> int | None:
        ends = self.functions.get(caller), self.functions.get(callee)
        return self._edges.get((ends[0].id, ends[1].id)) if ends[0] and ends[1] else None

    def reach(self, name: Name) -> frozenset[Name]:
        """Everything that a function may lead to."""
        function = self.functions[name]
        found = self.index.within(function, 1 << 30)
        return frozenset(self._names[number] for number in found if number in self._names)

    def start(self, name: Name) -> Edge | None:
        """How the system begins a function: as a constructor, a thread, a signal or exit handler."""
        function = self.functions.get(name)
        number = self._starts.get(function.id) if function else None
        return None if number is None else self._edge(number)

    def is_signal_handler(self, name: Name) -> bool:
        """Whether a function is given to the system as a signal handler."""
        function = self.functions.get(name)
        return function is not None and function.id in self._signals

    def callees(self, name: Name) -> Iterator[Name]:
        """What a function calls, each once."""
        function = self.functions.get(name)
        for callee in self._ways.get(function.id, ()) if function else ():
            yield self._names[callee]

    def _edge(self, number: int) -> Edge:
        return self.index._edges("e.id = ?", number)[0]

    def how(self, edge: Edge) -> str:
        """Return how a call is known, in words."""
        return explain.how(self.index, edge)

    def way(
        self, caller: Name, callee: Name, heard: Collection[Name], quiet: Collection[Name]
    ) -> tuple[Name, ...] | None:
        """The functions on the likeliest way from one function to another that a trace cannot show.

        Parameters
        ----------
        caller, callee : (str, str)
            Its ends.
        heard : collection of (str, str)
            Functions that the trace would show, so that none of them lies on the way.
        quiet : collection of (str, str)
            Functions that the model has and the trace leaves out; ways through them are preferred.

        Returns
        -------
        tuple of (str, str) or None
            None when there is no way with at most `MOST_LEFT_OUT` functions that the model lacks.
        """
        ends = self.functions.get(caller), self.functions.get(callee)
        if not (ends[0] and ends[1]):
            return None
        start, goal = ends[0].id, ends[1].id
        work = [(0, start)]
        cost, before = {start: 0}, dict[int, int]()
        while work:
            so_far, at = heapq.heappop(work)
            if so_far > cost[at]:
                continue
            for other in self._ways.get(at, ()):
                if other == goal:
                    return self._back(before, start, at)
                name = self._names[other]
                if name in heard:
                    continue
                new = so_far + (_QUIET if name in quiet else _LEFT_OUT)
                if new < cost.get(other, _LEFT_OUT * (MOST_LEFT_OUT + 1)):
                    cost[other], before[other] = new, at
                    heapq.heappush(work, (new, other))
        return None

    def _back(self, before: dict[int, int], start: int, at: int) -> tuple[Name, ...]:
        names = []
        while at != start:
            names.append(self._names[at])
            at = before[at]
        return tuple(reversed(names))
