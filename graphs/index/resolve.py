"""Calls to edges: which function calls which, how it is known, and in which programs.

Kinds of edges (`KINDS`)

    direct        a call by name
    macro         a call by name inside a function that a macro wrote
    field         through a field of a struct
    table         through a field or array of a table of handlers
    parameter     a callback: through a parameter
    variable      through a variable, a result or an expression
    constructor   the program's start runs it before main
    signal        a signal handler, from the function that installs it
    thread        a thread's body, from the function that starts it
    library       a callback given to a library function, which calls it
    destructor    the program's end runs it
    tcg           a helper that generated code calls, from where generated code is entered

- `resolve(merged, programs, generated)`: the `Edge`s of all programs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from graphs.index.facts import INITIALISED
from graphs.index.flow import Solution, solve
from graphs.index.merge import Flow, Function, Merged, Site

KINDS = (
    "direct", "macro", "field", "table", "parameter", "variable", "constructor", "signal", "thread",
    "library", "tcg", "destructor",
)  # fmt: skip
START = -1

_SIGNAL_CALLS = frozenset({"signal", "sigset", "bsd_signal", "sysv_signal"})
_THREAD_CALLS = frozenset({"pthread_create", "clone", "thrd_create"})
_KEEPERS = frozenset({"free", "realloc", "memcpy", "memmove", "memset", "memcmp", "printf", "fprintf"})


@dataclass(slots=True)
class Edge:
    """A caller may call a callee.

    Attributes
    ----------
    caller : int
        Number of the function, `START` for the program's start.
    callee : int
        Number of the function.
    kind : str
        One of `KINDS`.
    place : int
        Of the call; for handlers, of what installs them.
    site : int
        Number of the call through a pointer, -1 for others.
    programs : int
        Bits of the programs in which it holds.
    evidence : tuple of Flow
        How the function came to the pointer, first step first.
    """

    caller: int
    callee: int
    kind: str
    place: int
    site: int
    programs: int
    evidence: tuple[Flow, ...] = ()


@dataclass
class Resolved:
    """All edges, and the calls that name no function of the tree."""

    edges: list[Edge] = field(default_factory=list)
    externals: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    unresolved: list[int] = field(default_factory=list)


class _Resolver:
    def __init__(self, merged: Merged, programs: list[int], generated: dict[str, list[str]]) -> None:
        self.merged = merged
        self.programs = programs
        self.generated = generated
        self.by_key: dict[str, list[int]] = defaultdict(list)
        for number, function in enumerate(merged.functions):
            self.by_key[function.key].append(number)
        self.edges: dict[tuple[int, int, str, int, int], Edge] = {}
        self.out = Resolved()
        tables: dict[str, int] = defaultdict(int)
        for table, _string, _place, _items in merged.rows:
            tables[table] += 1
        self.in_tables = {
            (target, source)
            for table, _string, _place, items in merged.rows
            if tables[table] > 1
            for target, source in items
        }

    def run(self) -> Resolved:
        self._direct()
        self._constructors()
        found: set[int] = set()
        for program in self.programs:
            solution = solve(self.merged, program)
            self._sites(solution, program, found)
            self._handlers(solution, program)
            self._at_exit(solution, program)
        self.out.unresolved = [n for n in range(len(self.merged.sites)) if n not in found]
        self.out.edges = sorted(
            self.edges.values(), key=lambda e: (e.caller, e.place, e.callee, KINDS.index(e.kind), e.site)
        )
        return self.out

    def _add(self, edge: Edge) -> None:
        identity = (edge.caller, edge.callee, edge.kind, edge.place, edge.site)
        known = self.edges.get(identity)
        if known is None:
            self.edges[identity] = edge
        else:
            known.programs |= edge.programs

    def _definitions(self, key: str, programs: int) -> list[int]:
        return [n for n in self.by_key.get(key, ()) if self.merged.functions[n].programs & programs]

    def _direct(self) -> None:
        functions = self.merged.functions
        for call in self.merged.calls:
            callees = self._definitions(call.callee, call.programs)
            if not callees:
                self.out.externals.setdefault((call.caller, call.callee), (call.place, call.programs))
            for callee in callees:
                kind = "macro" if call.caller >= 0 and functions[call.caller].macro else "direct"
                self._add(
                    Edge(
                        call.caller, callee, kind, call.place, -1, call.programs & functions[callee].programs
                    )
                )

    def _constructors(self) -> None:
        for number, function in enumerate(self.merged.functions):
            for bit, kind in ((1, "constructor"), (2, "destructor")):
                if function.constructor & bit:
                    self._add(Edge(START, number, kind, function.place, -1, function.programs))

    def _sites(self, solution: Solution, program: int, found: set[int]) -> None:
        entered = set(self.generated.get("entered_through", ()))
        for number, site in enumerate(self.merged.sites):
            if not site.programs & program:
                continue
            if site.label in entered:
                self._generated(number, site, solution, program)
                found.add(number)
                continue
            for key, source in solution.functions(site).items():
                steps = tuple(solution.chain(source, key)) if source else ()
                kind = self._kind(site, steps)
                for callee in self._definitions(key, program):
                    found.add(number)
                    self._add(Edge(site.caller, callee, kind, site.place, number, program, steps))

    def _generated(self, number: int, site: Site, solution: Solution, program: int) -> None:
        for sink in self.generated.get("calls_what_reaches", ()):
            for key in solution.reach.get(sink, ()):
                steps = tuple(solution.chain(sink, key))
                for callee in self._definitions(key, program):
                    self._add(Edge(site.caller, callee, "tcg", site.place, number, program, steps))

    def _kind(self, site: Site, steps: tuple[Flow, ...]) -> str:
        if site.kind == 3:
            return "table"
        if steps and any(s.kind == INITIALISED and (s.target, s.source) in self.in_tables for s in steps[:1]):
            return "table"
        return ("field", "variable", "parameter", "table", "variable", "variable")[site.kind]

    def _handlers(self, solution: Solution, program: int) -> None:
        """Functions given away: to a library function, or to a struct that the system reads."""
        for flow in self.merged.flows:
            if not flow.programs & program or flow.caller < 0:
                continue
            kind = self._given_to(flow.target, program)
            if not kind:
                continue
            keys = (
                [flow.source] if flow.source.startswith("f:") else list(solution.reach.get(flow.source, ()))
            )
            for key in keys:
                steps = (*solution.chain(flow.source, key), flow) if key != flow.source else (flow,)
                for callee in self._definitions(key, program):
                    self._add(Edge(flow.caller, callee, kind, flow.place, -1, program, steps))

    def _at_exit(self, solution: Solution, program: int) -> None:
        """Whoever ends the program runs what was registered for its end."""
        registered = {
            (key, flow)
            for symbol in ("p:f::atexit:0", "p:f::on_exit:0")
            for key, flow in solution.reach.get(symbol, {}).items()
        }
        for (caller, callee), (where, programs) in sorted(self.out.externals.items()):
            if callee != "f::exit" or not programs & program or caller < 0:
                continue
            for key, flow in registered:
                for handler in self._definitions(key, program):
                    self._add(Edge(caller, handler, "library", where, -1, program, (flow,)))

    def _given_to(self, target: str, program: int) -> str:
        if target.startswith("m:<system>:"):
            return "signal" if "sigaction" in target else "library"
        if not target.startswith("p:f::"):
            return ""
        name = target[5:].rpartition(":")[0]
        if name in _KEEPERS or self._definitions(f"f::{name}", program):
            return ""
        if name in _SIGNAL_CALLS:
            return "signal"
        return "thread" if name in _THREAD_CALLS else "library"


def resolve(merged: Merged, programs: list[int], generated: dict[str, list[str]]) -> Resolved:
    """Edges of all programs.

    Parameters
    ----------
    merged : Merged
        The facts.
    programs : list of int
        One bit a program; each is resolved by itself.
    generated : dict
        `entered_through`: symbols through which code made at run time is entered; `calls_what_reaches`:
        symbols whose functions that code may call.
    """
    return _Resolver(merged, programs, generated).run()


def compatible(site: str, function: str) -> bool:
    """Whether a function of one class can be called as another: same shape, as far as C would let it pass.

    >>> compatible("i(pi)", "i(pi)"), compatible("i(pi)", "v(pi)")
    (True, True)
    >>> compatible("i(p)", "i(p.)"), compatible("v(?)", "v(p)")
    (True, True)
    >>> compatible("i(pi)", "i(p)"), compatible("i(pp)", "i(pi)")
    (False, False)
    """
    wanted, offered = site[2:-1], function[2:-1]
    if wanted == "?" or offered == "?":
        return True
    if offered.endswith("."):
        return wanted.rstrip(".").startswith(offered[:-1])
    return wanted.rstrip(".") == offered


__all__ = ["KINDS", "START", "Edge", "Function", "Resolved", "compatible", "resolve"]
