"""Questions to an index: functions by name, who calls whom, paths, tables; plain rows, no networkx.

- `Index.open(path=None)`: an index file, the shipped one by default.
- `index.function(name)`: one function by `name` or `file:name`; unknown and ambiguous names are errors that
  help.
- `index.callers(f)`, `index.callees(f)`, `index.graph()`: edges; `index.evidence(edge)`: how one is known.
- `index.path(a, b)`, `index.paths(a, b, limit)`: shortest and all simple paths.

`program` narrows everything to one link set ("system", "img", "io", "nbd").
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from graphs.errors import GraphsError
from graphs.index import store

SHIPPED = Path(__file__).parent.parent / "data" / "qemu-kvm-0.12.4.index"

_FUNCTION = (
    "f.id, files.path, f.name, f.line, f.last_line, f.signature, f.parameters, f.macro, f.static, f.programs"
)


@dataclass(frozen=True, slots=True)
class Function:
    """A definition; identity is (file, name)."""

    id: int
    file: str
    name: str
    line: int
    last_line: int
    signature: str
    parameters: str
    macro: str
    static: bool
    programs: int

    def __str__(self) -> str:
        return f"{self.file}:{self.name}"


@dataclass(frozen=True, slots=True)
class Edge:
    """A call that the sources show; `caller` is None for the program's start."""

    id: int
    caller: int | None
    callee: int
    kind: str
    file: str
    line: int
    column: int
    site: int | None
    programs: int
    evidence: str | None

    @property
    def place(self) -> str:
        """file:line."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a function's way to a pointer: `source` goes into `target` at a place."""

    target: str
    source: str
    kind: str
    place: str
    function: str


class Index:
    """An open index."""

    def __init__(self, path: Path, program: str | None = None) -> None:
        self.path = path
        self.db = store.connect(path)
        self.mask = self._mask(program)
        self._names: dict[int | None, str] = {}
        self._steps: dict[int, Step] = {}

    @classmethod
    def open(cls, path: str | Path | None = None, program: str | None = None) -> Index:
        """Open an index file; the one of qemu-kvm 0.12.4 that ships when no path is given.

        Raises
        ------
        GraphsError
            when the file is missing, damaged, or of another version, or there is no such program in it.
        """
        return cls(SHIPPED if path is None else Path(path), program)

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def meta(self) -> dict[str, str]:
        """What the index says of itself: identity, profile, clang ..."""
        return dict(self.db.execute("SELECT name, value FROM meta").fetchall())

    @cached_property
    def programs(self) -> dict[str, int]:
        """Programs and their bits."""
        return dict(self.db.execute("SELECT name, bit FROM programs ORDER BY bit").fetchall())

    def program_names(self, bits: int) -> list[str]:
        """The programs of a set of bits."""
        return [name for name, bit in self.programs.items() if bits & bit]

    def _mask(self, program: str | None) -> int:
        if program is None:
            return -1
        if program not in self.programs:
            raise GraphsError(
                f"no program {program!r} in {self.path.name}; there are {', '.join(self.programs)}"
            )
        return self.programs[program]

    # -- functions
    # ----------------------------------------------------------------------------------------------

    def _functions(self, where: str, *values: object) -> list[Function]:
        query = f"SELECT {_FUNCTION} FROM functions f JOIN files ON files.id = f.file WHERE {where}"
        try:
            return [Function(*row) for row in self.db.execute(query, values) if row[-1] & self.mask]
        except sqlite3.DatabaseError as error:
            raise GraphsError(
                f"{self.path} is damaged ({error}); make it again with `studykvm index`"
            ) from None

    @cached_property
    def all_functions(self) -> dict[int, Function]:
        """Every function by its number."""
        return {f.id: f for f in self._functions("1")}

    def by_number(self, number: int) -> Function:
        """The function with that number."""
        if "all_functions" in self.__dict__ and number in self.all_functions:
            return self.all_functions[number]
        query = f"SELECT {_FUNCTION} FROM functions f JOIN files ON files.id = f.file WHERE f.id = ?"
        return Function(*self.db.execute(query, (number,)).fetchone())

    def named(self, name: str) -> list[Function]:
        """Functions of that `name` or `file:name`, possibly none; a file may be given by its last parts."""
        file, _, bare = name.rpartition(":")
        found = self._functions("f.name = ? ORDER BY files.path", bare)
        if not file:
            return found
        exact = [f for f in found if f.file == file]
        return exact or [f for f in found if f.file.endswith("/" + file)]

    def function(self, name: str) -> Function:
        """The one function of that `name` or `file:name`.

        Raises
        ------
        GraphsError
            when there is none (the nearest names are told) or several (they are listed).
        """
        name = name.removesuffix("()")
        found = self.named(name)
        if len(found) == 1:
            return found[0]
        if not found:
            raise GraphsError(self._no("function", name, self._function_names(name)))
        listed = "\n".join(
            f"  {f}  (line {f.line}, {', '.join(self.program_names(f.programs))})" for f in found
        )
        raise GraphsError(f"{len(found)} functions are called {name}; say which, as file:name\n{listed}")

    def _function_names(self, name: str) -> list[str]:
        bare = name.rpartition(":")[2]
        twins = [str(f) for f in self.named(bare)] if bare != name else []
        return twins or self._near(bare, "SELECT DISTINCT name FROM functions")

    def _near(self, name: str, query: str, *values: str) -> list[str]:
        import difflib

        names = [row[0] for row in self.db.execute(query, values) if row[0]]
        low = name.lower()
        inside = sorted((n for n in names if low in n.lower()), key=len)[:3] if len(low) > 3 else []
        alike = [
            n for n in names if abs(len(n) - len(name)) <= 4 and len({*n} & {*name}) * 3 >= len({*name}) * 2
        ]
        return list(dict.fromkeys([*difflib.get_close_matches(name, alike, n=4, cutoff=0.7), *inside]))[:5]

    def _no(self, what: str, name: str, near: list[str]) -> str:
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        return f"no {what} {name!r} in the index of {self.meta.get('identity') or self.path.name}{hint}"

    # -- edges
    # --------------------------------------------------------------------------------------------------

    def _edges(self, where: str, *values: object) -> list[Edge]:
        query = (
            "SELECT e.id, e.caller, e.callee, k.name, files.path, e.line, e.column, e.site, "
            "e.programs, e.evidence "
            "FROM edges e JOIN edge_kinds k ON k.id = e.kind JOIN files ON files.id = e.file "
            f"WHERE {where} ORDER BY e.id"
        )
        return [edge for row in self.db.execute(query, values) if (edge := Edge(*row)).programs & self.mask]

    def callers(self, function: Function) -> list[Edge]:
        """Edges to a function."""
        return self._edges("e.callee = ?", function.id)

    def callees(self, function: Function) -> list[Edge]:
        """Edges from a function."""
        return self._edges("e.caller = ?", function.id)

    def between(self, caller: Function, callee: Function) -> list[Edge]:
        """Edges from one function to another."""
        return self._edges("e.caller = ? AND e.callee = ?", caller.id, callee.id)

    def edges(self) -> list[Edge]:
        """All edges."""
        return self._edges("1")

    def outside(self, function: Function) -> list[tuple[str, str, int]]:
        """Functions outside the tree that a function calls: name, file, line."""
        query = (
            "SELECT x.name, files.path, x.line FROM externals x JOIN files ON files.id = x.file "
            "WHERE x.caller = ? ORDER BY x.line, x.name"
        )
        return self.db.execute(query, (function.id,)).fetchall()

    @cached_property
    def successors(self) -> dict[int, list[int]]:
        """Callees by caller, -1 for the program's start; each once, in the order of the calls."""
        out: dict[int, dict[int, None]] = {}
        for caller, callee, programs in self.db.execute(
            "SELECT caller, callee, programs FROM edges ORDER BY id"
        ):
            if programs & self.mask:
                out.setdefault(-1 if caller is None else caller, {})[callee] = None
        return {caller: list(callees) for caller, callees in out.items()}

    def call_sites(self) -> list[tuple[int, int | None, str, str]]:
        """Calls through pointers: number, caller, kind, file:line:column."""
        query = (
            "SELECT s.id, s.caller, s.kind, files.path || ':' || s.line || ':' || s.column, s.programs "
            "FROM sites s JOIN files ON files.id = s.file ORDER BY s.id"
        )
        return [row[:4] for row in self.db.execute(query) if row[4] & self.mask]

    def unresolved(self, function: Function) -> list[tuple[str, int, str]]:
        """Calls through pointers in a function without any target: file, line, what is called through."""
        query = (
            "SELECT files.path, s.line, s.through, s.kind FROM sites s JOIN files ON files.id = s.file "
            "WHERE s.caller = ? AND NOT s.resolved ORDER BY s.line"
        )
        return [
            (path, line, kind if through is None else self.symbol_name(through))
            for path, line, through, kind in self.db.execute(query, (function.id,)).fetchall()
        ]

    # -- evidence
    # -----------------------------------------------------------------------------------------------

    def evidence(self, edge: Edge) -> list[Step]:
        """The steps by which the callee came to the pointer, first step first."""
        if not edge.evidence:
            return []
        return [self._step(int(number)) for number in edge.evidence.split()]

    @cached_property
    def sites(self) -> dict[int, tuple[int | None, str]]:
        """Calls through pointers: the symbol that is called through, and of what kind it is."""
        return {
            n: (through, kind) for n, through, kind in self.db.execute("SELECT id, through, kind FROM sites")
        }

    def _step(self, number: int) -> Step:
        if number not in self._steps:
            self._steps[number] = self._read_step(number)
        return self._steps[number]

    def _read_step(self, number: int) -> Step:
        target, source, kind, function, path, line = self.db.execute(
            "SELECT target, source, flows.kind, function, files.path, line FROM flows "
            "JOIN files ON files.id = flows.file WHERE flows.id = ?",
            (number,),
        ).fetchone()
        owner = self.by_number(function).name if function is not None else ""
        return Step(self.symbol_name(target), self.symbol_name(source), kind, f"{path}:{line}", owner)

    def symbol_name(self, number: int | None) -> str:
        """A symbol as a reader names it: `BlockDriver.bdrv_open`, `parameter fn of register_module_init`."""
        if number not in self._names:
            self._names[number] = self._read_name(number)
        return self._names[number]

    def _read_name(self, number: int | None) -> str:
        row = self.db.execute(
            "SELECT kind, file, name, scope FROM symbols WHERE id = ?", (number,)
        ).fetchone()
        if row is None:
            return "?"
        kind, file, name, scope = row
        if kind == "field":
            return f"{scope}.{name}"
        if kind == "parameter":
            return f"parameter {self._parameter(file, scope, int(name))} of {scope}"
        if kind == "returned":
            return f"the result of {scope}"
        if kind == "variadic":
            return f"the variable arguments of {scope}"
        if kind == "call":
            return f"what a call through a pointer in {scope} returns"
        return str(name.split(":")[0] if kind == "local" else name)

    def _parameter(self, file: str, function: str, position: int) -> str:
        for found in self.named(f"{file}:{function}" if file else function):
            names = found.parameters.split(", ")
            if position < len(names) and names[position]:
                return names[position]
        return str(position + 1)

    # -- paths
    # --------------------------------------------------------------------------------------------------

    def path_between(self, start: Function, goal: Function) -> list[Function] | None:
        """A shortest path, None when there is none."""
        parents: dict[int, int] = {start.id: -2}
        work = deque([start.id])
        while work:
            at = work.popleft()
            for callee in self.successors.get(at, ()):
                if callee not in parents:
                    parents[callee] = at
                    if callee == goal.id:
                        return self._back(parents, callee)
                    work.append(callee)
        return self._back(parents, goal.id) if start.id == goal.id else None

    def _back(self, parents: dict[int, int], at: int) -> list[Function]:
        numbers = []
        while at != -2:
            numbers.append(at)
            at = parents[at]
        return [self.by_number(n) for n in reversed(numbers)]

    def all_paths(self, start: Function, goal: Function, limit: int) -> Iterator[list[Function]]:
        """Paths without repetition, shorter ones first, at most `limit`."""
        distance = self._distances_to(goal.id)
        if start.id not in distance:
            return
        given = 0
        for length in range(distance[start.id], distance[start.id] + 6):
            for numbers in self._walks(start.id, goal.id, length, distance):
                yield [self.by_number(n) for n in numbers]
                given += 1
                if given == limit:
                    return

    def _walks(self, start: int, goal: int, length: int, distance: dict[int, int]) -> Iterator[list[int]]:
        stack = [[start]]
        while stack:
            path = stack.pop()
            left = length - len(path) + 1
            if left == 0:
                if path[-1] == goal:
                    yield path
                continue
            for callee in reversed(self.successors.get(path[-1], ())):
                if callee not in path and distance.get(callee, left) <= left - 1:
                    stack.append([*path, callee])

    def _distances_to(self, goal: int) -> dict[int, int]:
        before: dict[int, list[int]] = {}
        for caller, callees in self.successors.items():
            for callee in callees:
                before.setdefault(callee, []).append(caller)
        distance = {goal: 0}
        work = deque([goal])
        while work:
            at = work.popleft()
            for caller in before.get(at, ()):
                if caller not in distance:
                    distance[caller] = distance[at] + 1
                    work.append(caller)
        return distance

    def within(self, start: Function, depth: int, backwards: bool = False) -> dict[int, int]:
        """Functions at most `depth` calls from `start` (or to it), each with its distance."""
        neighbours = self._reversed() if backwards else self.successors
        found = {start.id: 0}
        work = deque([start.id])
        while work:
            at = work.popleft()
            if found[at] == depth:
                continue
            for other in neighbours.get(at, ()):
                if other not in found and other >= 0:
                    found[other] = found[at] + 1
                    work.append(other)
        return found

    def _reversed(self) -> dict[int, list[int]]:
        out: dict[int, list[int]] = {}
        for caller, callees in self.successors.items():
            for callee in callees:
                out.setdefault(callee, []).append(caller)
        return out
