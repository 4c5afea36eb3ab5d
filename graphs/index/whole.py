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
        Likely: like name or signature, and like callers and callees.
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
    names = Counter(f.name for f in fresh)
    lone = {f.name: f for f in fresh if names[f.name] == 1}
    left = []
    for f in gone:
        other = lone.pop(f.name, None)
        if other is None:
            left.append(f)
        else:
            out.moved.append((f, other))
    taken = {other.id for _, other in out.moved}
    rest = [f for f in fresh if f.id not in taken]
    out.renamed = _renames(old, new, left, rest)
    renamed_old = {f.id for f, _, _ in out.renamed}
    renamed_new = {f.id for _, f, _ in out.renamed}
    out.gone = [f for f in left if f.id not in renamed_old]
    out.new = [f for f in rest if f.id not in renamed_new]
    _calls(old, new, out)
    return out


def _neighbours(index: Index, chosen: list[Function]) -> dict[int, set[str]]:
    wanted = {f.id for f in chosen}
    out: dict[int, set[str]] = defaultdict(set)
    functions = index.all_functions
    for caller, callees in index.successors.items():
        for callee in callees:
            if caller in wanted and callee in functions:
                out[caller].add(">" + functions[callee].name)
            if callee in wanted and caller in functions:
                out[callee].add("<" + functions[caller].name)
    return out


def _renames(
    old: Index, new: Index, gone: list[Function], fresh: list[Function]
) -> list[tuple[Function, Function, float]]:
    around_old, around_new = _neighbours(old, gone), _neighbours(new, fresh)
    by_neighbour: dict[str, set[int]] = defaultdict(set)
    numbers = {f.id: f for f in fresh}
    for number, around in around_new.items():
        for name in around:
            by_neighbour[name].add(number)
    likely = []
    for f in gone:
        shared: Counter[int] = Counter()
        for name in around_old[f.id]:
            if len(by_neighbour[name]) < 200:
                shared.update(by_neighbour[name])
        for number, common in shared.most_common(12):
            other = numbers[number]
            union = len(around_old[f.id] | around_new[number])
            alike = difflib.SequenceMatcher(None, f.name, other.name).ratio()
            score = 0.5 * common / union + 0.5 * alike
            if score >= 0.5 and alike >= 0.5:
                likely.append((score, str(f), f, other))
    out: list[tuple[Function, Function, float]] = []
    used: set[int] = set()
    for score, _, f, other in sorted(likely, key=lambda row: (-row[0], row[1])):
        if f.id not in used and -other.id - 1 not in used:
            used.update((f.id, -other.id - 1))
            out.append((f, other, score))
    return out


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
