"""Which functions reach which symbol: the flow tier, one program at a time.

Values go along the flows (assignments, initialisers, arguments, returns); a field stands for that field of
every object of its type. A call through a pointer binds its arguments to the parameters of each function
found
there, and that function's result to its own, until nothing changes.

- `solve(merged, program)`: a `Solution` for the link set with that bit.
- `Solution.reach[symbol]`: functions (keys) that may be there, each with how it came.
- `Solution.chain(symbol, function)`: the steps from the function's name to the symbol, as flows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from graphs.index.facts import PASSED, RETURNED
from graphs.index.merge import Flow, Merged, Site


@dataclass
class Solution:
    """Functions by symbol.

    Attributes
    ----------
    reach : dict
        Symbol to {function key: flow it came by}.
    """

    reach: dict[str, dict[str, Flow]] = field(default_factory=dict)

    def functions(self, site: Site) -> dict[str, str]:
        """Functions a site may call, each with the symbol it was found in ("" if named there)."""
        out: dict[str, str] = {}
        for source in site.sources:
            if source.startswith("f:"):
                out.setdefault(source, "")
            else:
                for function in self.reach.get(source, ()):
                    out.setdefault(function, source)
        return out

    def chain(self, symbol: str, function: str) -> list[Flow]:
        """Flows from the place where `function` is named to `symbol`."""
        steps: list[Flow] = []
        seen = set()
        while symbol and symbol not in seen and symbol != function:
            seen.add(symbol)
            flow = self.reach.get(symbol, {}).get(function)
            if flow is None:
                break
            steps.append(flow)
            symbol = flow.source
        steps.reverse()
        return steps


def solve(merged: Merged, program: int) -> Solution:
    """The functions that reach each symbol in one program."""
    out: dict[str, list[Flow]] = {}
    reach: dict[str, dict[str, Flow]] = {}
    work: deque[tuple[str, str]] = deque()

    def arrive(flow: Flow, function: str) -> None:
        there = reach.setdefault(flow.target, {})
        if function not in there:
            there[function] = flow
            work.append((flow.target, function))

    def connect(flow: Flow) -> None:
        if flow.source.startswith("f:"):
            arrive(flow, flow.source)
            return
        out.setdefault(flow.source, []).append(flow)
        for function in list(reach.get(flow.source, ())):
            arrive(flow, function)

    sites: dict[str, list[Site]] = {}
    bound: set[tuple[str, int, str]] = set()

    def bind(site: Site, function: str) -> None:
        if (function, site.place, site.result) in bound:
            return
        bound.add((function, site.place, site.result))
        for position, values in site.arguments:
            for value in values:
                connect(Flow(f"p:{function}:{position}", value, PASSED, site.place, site.caller, program))
        connect(Flow(site.result, f"r:{function}", RETURNED, site.place, site.caller, program))

    for site in merged.sites:
        if site.programs & program:
            for source in site.sources:
                sites.setdefault(source, []).append(site)
    for flow in merged.flows:
        if flow.programs & program:
            connect(flow)
    for source, those in list(sites.items()):
        if source.startswith("f:"):
            for site in those:
                bind(site, source)
    while work:
        symbol, function = work.popleft()
        for flow in out.get(symbol, ()):
            arrive(flow, function)
        for site in sites.get(symbol, ()):
            bind(site, function)
    return Solution(reach)
