"""Questions about the whole graph: cycles, what main never reaches, what changed between two indexes.

- `cycles(index)`: groups of functions that call each other in a circle (strongly connected).
- `dead(index)`: functions that the program's start and main do not reach.
- `diff(old, new)`: a `Difference` of functions and calls, with likely renames.
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from graphs.index.query import Function, Index

# Of renames: what is still evidence, what is likely, and what is as good as the best.
_COMMON, _LIKELY, _NEARLY = 0.05, 0.6, 0.25


def cycles(index: Index) -> list[list[Function]]:
    """Strongly connected groups, larger ones first; a function that only calls itself is a group of one.

    Tarjan's algorithm without recursion.
    """
    successors = index.successors
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    groups: list[list[int]] = []
    for root in sorted(successors):
        if root in order or root < 0:
            continue
        work = [(root, iter(successors.get(root, ())))]
        order[root] = low[root] = len(order)
        stack.append(root)
        on_stack.add(root)
        while work:
            at, rest = work[-1]
            for other in rest:
                if other not in order:
                    order[other] = low[other] = len(order)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(successors.get(other, ()))))
                    break
                if other in on_stack:
                    low[at] = min(low[at], order[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[at])
                if low[at] == order[at]:
                    group = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        group.append(member)
                        if member == at:
                            break
                    if len(group) > 1 or at in successors.get(at, ()):
                        groups.append(group)
    functions = index.all_functions
    named = [sorted((functions[n] for n in group), key=str) for group in groups]
    return sorted(named, key=lambda group: (-len(group), str(group[0])))


def dead(index: Index) -> list[Function]:
    """Functions that nothing reaches from main or from the program's start (constructors)."""
    reached = set(index.successors.get(-1, ()))
    reached.update(f.id for f in index.all_functions.values() if f.name == "main")
    work = list(reached)
    while work:
        for callee in index.successors.get(work.pop(), ()):
            if callee not in reached:
                reached.add(callee)
                work.append(callee)
    return sorted((f for f in index.all_functions.values() if f.id not in reached), key=str)


@dataclass
class Difference:
    """What changed from one index to another.

    Attributes
    ----------
    moved : list of (old, new)
        Same name, other file.
    renamed : list of (old, new, likeness)
        Likely: like names, callers and callees that few others have, and files called the same; several for a
        function that was split.
    calls_gone, calls_new : list of (caller, callee)
        By name, between functions that both have.
    """

    kept: int = 0
    gone: list[Function] = field(default_factory=list)
    new: list[Function] = field(default_factory=list)
    moved: list[tuple[Function, Function]] = field(default_factory=list)
    renamed: list[tuple[Function, Function, float]] = field(default_factory=list)
    calls_gone: list[tuple[str, str]] = field(default_factory=list)
    calls_new: list[tuple[str, str]] = field(default_factory=list)


def diff(old: Index, new: Index) -> Difference:
    """Compare two indexes function by function and call by call."""
    out = Difference()
    before = {(f.file, f.name): f for f in old.all_functions.values()}
    after = {(f.file, f.name): f for f in new.all_functions.values()}
    gone = [f for key, f in before.items() if key not in after]
    fresh = [f for key, f in after.items() if key not in before]
    out.kept = len(before) - len(gone)
    out.moved = _moves(gone, fresh)
    moved_old = {f.id for f, _ in out.moved}
    moved_new = {f.id for _, f in out.moved}
    left = [f for f in gone if f.id not in moved_old]
    rest = [f for f in fresh if f.id not in moved_new]
    out.renamed = _renames(old, new, left, rest)
    renamed_old = {f.id for f, _, _ in out.renamed}
    renamed_new = {f.id for _, f, _ in out.renamed}
    out.gone = [f for f in left if f.id not in renamed_old]
    out.new = [f for f in rest if f.id not in renamed_new]
    _calls(old, new, out)
    return out


def _moves(gone: list[Function], fresh: list[Function]) -> list[tuple[Function, Function]]:
    """The same name in another file: the only one, or the one whose file is called the same."""
    named: dict[str, list[Function]] = defaultdict(list)
    for f in fresh:
        named[f.name].append(f)
    out = []
    for f in gone:
        others = named.get(f.name, [])
        alike = [other for other in others if _base(other) == _base(f)] or others
        if len(alike) == 1:
            out.append((f, alike[0]))
            others.remove(alike[0])
    return out


def _base(function: Function) -> str:
    return function.file.rpartition("/")[2]


def _neighbours(index: Index, chosen: list[Function]) -> tuple[dict[int, set[str]], Counter[str]]:
    """Callers and callees of functions by name, and how many functions have each of them."""
    wanted = {f.id for f in chosen}
    out: dict[int, set[str]] = defaultdict(set)
    degree: Counter[str] = Counter()
    functions = index.all_functions
    for caller, callees in index.successors.items():
        for callee in callees:
            if caller not in functions or callee not in functions:
                continue
            calls, called = ">" + functions[callee].name, "<" + functions[caller].name
            degree.update((calls, called))
            if caller in wanted:
                out[caller].add(calls)
            if callee in wanted:
                out[callee].add(called)
    return out, degree


def _renames(
    old: Index, new: Index, gone: list[Function], fresh: list[Function]
) -> list[tuple[Function, Function, float]]:
    """Likely new names; several for a function that may have been split."""
    around_old, degree_old = _neighbours(old, gone)
    around_new, degree_new = _neighbours(new, fresh)
    by_neighbour: dict[str, set[int]] = defaultdict(set)
    numbers = {f.id: f for f in fresh}
    for number, around in around_new.items():
        for name in around:
            by_neighbour[name].add(number)
    likely = []
    for f in gone:
        doubt: dict[int, float] = defaultdict(lambda: 1.0)
        for name in sorted(around_old[f.id]):
            # A neighbour that few others have is strong evidence, one that all have is none.
            share = 1 / max(degree_old[name], degree_new[name], 1)
            if share > _COMMON:
                for number in by_neighbour.get(name, ()):
                    doubt[number] *= 1 - share
        for number, left in doubt.items():
            other = numbers[number]
            alike = difflib.SequenceMatcher(None, f.name, other.name).ratio()
            score = 0.5 * alike + 0.35 * (1 - left) + 0.15 * (_base(f) == _base(other))
            if score >= _LIKELY and alike >= 0.5:
                likely.append((score, f, other))
    return _chosen(likely)


def _chosen(likely: list[tuple[float, Function, Function]]) -> list[tuple[Function, Function, float]]:
    """The best new name of each function, with those that are nearly as good and nobody else's."""
    likely.sort(key=lambda row: (-row[0], str(row[1]), str(row[2])))
    best: dict[int, float] = {}
    taken: set[int] = set()
    out = []
    for score, f, other in likely:
        if other.id not in taken and score >= best.get(f.id, 0) - _NEARLY:
            best.setdefault(f.id, score)
            taken.add(other.id)
            out.append((f, other, score))
    place = {f.id: n for n, (f, _, _) in reversed(list(enumerate(out)))}
    return sorted(out, key=lambda row: (place[row[0].id], -row[2]))


def _calls(old: Index, new: Index, out: Difference) -> None:
    def named(index: Index, both: set[str]) -> set[tuple[str, str]]:
        functions = index.all_functions
        return {
            (functions[a].name, functions[b].name)
            for a, callees in index.successors.items()
            for b in callees
            if a in functions and b in functions and functions[a].name in both and functions[b].name in both
        }

    both = {f.name for f in old.all_functions.values()} & {f.name for f in new.all_functions.values()}
    before, after = named(old, both), named(new, both)
    out.calls_gone, out.calls_new = sorted(before - after), sorted(after - before)
