"""The graph held against recordings of the real program.

- `check(index, recordings)`: a `Result`; recordings are names of those that ship, or NAME.calls.gz files.
- `report(index, result, sites)`: the result as text.

What counts (see the caveats of the recordings):

- Only the complete part: of a system recording until its third `main_loop_wait`, or its first 760,000 entries
  if it kept every function longer; later a line may hang under a function that is not its caller.
- A signal handler, and what it calls, appears under whatever it interrupted. It is judged by its own edge:
  some function installs it. Lines after it count as its own as long as it reaches them and the nominal caller
  does
  not.
- A helper that generated code calls is judged by its tcg edge.
- A call through a pointer is exercised when its function called one of its targets. A target that was not
  called there is `false` only if that function did run in the same recordings; one that never ran is
  `unobserved`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from graphs.index.query import Function, Index
from graphs.wording import counted

_EVERYTHING = 760_000
_TURNS = 3

Pair = tuple[int, int]


@dataclass
class Site:
    """A call through a pointer that recordings exercised.

    Attributes
    ----------
    seen, false, unobserved : set of int
        Targets that were called there; that ran, but were not called there; that never ran.
    missed : set of int
        Recorded callees that only this site can explain, and that the index does not give it.
    """

    number: int
    seen: set[int] = field(default_factory=set)
    false: set[int] = field(default_factory=set)
    unobserved: set[int] = field(default_factory=set)
    missed: set[int] = field(default_factory=set)


@dataclass
class Result:
    """What a check found.

    Attributes
    ----------
    pairs : dict
        Recorded (caller, callee) pairs between indexed functions, each with where it was first seen.
    missed : list of pair
        Those that the graph lacks.
    handlers, helpers : int
        Pairs judged by signal and tcg edges.
    unknown : dict
        Recorded functions that the index does not have, with how often.
    """

    recordings: list[str] = field(default_factory=list)
    entries: int = 0
    pairs: dict[Pair, str] = field(default_factory=dict)
    missed: list[Pair] = field(default_factory=list)
    handlers: int = 0
    helpers: int = 0
    unknown: dict[tuple[str, str], int] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)


class _Check:
    def __init__(self, index: Index) -> None:
        self.index = index
        self.number = {(f.file, f.name): f.id for f in index.all_functions.values()}
        self.edges: dict[Pair, set[str]] = defaultdict(set)
        self.site_targets: dict[int, set[int]] = defaultdict(set)
        self.by_name: set[Pair] = set()
        for edge in index.edges():
            if edge.caller is None:
                continue
            self.edges[edge.caller, edge.callee].add(edge.kind)
            if edge.site is None:
                self.by_name.add((edge.caller, edge.callee))
            elif edge.kind != "tcg":
                self.site_targets[edge.site].add(edge.callee)
        self.signals = {callee for (_, callee), kinds in self.edges.items() if "signal" in kinds}
        self.helpers = {callee for (_, callee), kinds in self.edges.items() if "tcg" in kinds}
        self.reached: dict[int, frozenset[int]] = {}
        self.ran: set[int] = set()
        self.result = Result()

    def reach(self, handler: int) -> frozenset[int]:
        if handler not in self.reached:
            self.reached[handler] = frozenset(self.index.within(self.index.by_number(handler), 1 << 30))
        return self.reached[handler]

    def read(self, name: str, calls: Iterable[tuple[int, tuple[str, str], int]], system: bool) -> None:
        """Take the pairs of one recording."""
        stacks: dict[int, list[int | None]] = defaultdict(list)
        interrupted: dict[int, tuple[int, int]] = {}
        turns = 0
        for line, (depth, identity, thread) in enumerate(calls, 1):
            if system and identity[1] == "main_loop_wait":
                turns += 1
            if line > _EVERYTHING or (turns >= _TURNS and "everything" not in name):
                break
            self.result.entries += 1
            number = self.number.get(identity)
            if number is None:
                self.result.unknown[identity] = self.result.unknown.get(identity, 0) + 1
            else:
                self.ran.add(number)
            stack = stacks[thread]
            del stack[depth:]
            parent = stack[-1] if 0 < depth == len(stack) else None
            stack.append(number)
            if thread in interrupted and depth < interrupted[thread][0]:
                del interrupted[thread]
            if number in self.signals:
                interrupted[thread] = (depth, number)
                self.result.handlers += 1
            elif parent is not None and number is not None:
                self._pair((parent, number), f"{name}:{line}", thread, interrupted)

    def _pair(self, pair: Pair, where: str, thread: int, interrupted: dict[int, tuple[int, int]]) -> None:
        if pair not in self.edges and thread in interrupted:
            if pair[1] in self.reach(interrupted[thread][1]):
                return
            del interrupted[thread]
        self.result.pairs.setdefault(pair, where)

    def finish(self) -> Result:
        """Judge the pairs and the sites."""
        result = self.result
        called: dict[int, set[int]] = defaultdict(set)
        for pair in result.pairs:
            kinds = self.edges.get(pair)
            if kinds is None:
                result.missed.append(pair)
            elif kinds == {"tcg"}:
                result.helpers += 1
            called[pair[0]].add(pair[1])
        result.missed.sort(key=lambda pair: result.pairs[pair])
        self._sites(called)
        return result

    def _sites(self, called: dict[int, set[int]]) -> None:
        rows = self.index.db.execute(
            "SELECT id, caller, class FROM sites WHERE caller IS NOT NULL"
        ).fetchall()
        classes = dict(self.index.db.execute("SELECT id, class FROM functions").fetchall())
        lost: dict[int, set[int]] = defaultdict(set)
        for caller, callee in self.result.missed:
            lost[caller].add(callee)
        for number, caller, klass in rows:
            targets = self.site_targets.get(number, set())
            here = {callee for callee in called[caller] if (caller, callee) not in self.by_name}
            site = Site(number, here & targets, missed=_fitting(lost[caller], klass, classes))
            if not site.seen and not site.missed:
                continue
            site.false = {t for t in targets - site.seen if t in self.ran}
            site.unobserved = targets - site.seen - site.false
            self.result.sites.append(site)


def _fitting(callees: set[int], klass: str, classes: dict[int, str]) -> set[int]:
    from graphs.index.resolve import compatible

    return {callee for callee in callees if compatible(klass, classes[callee])} if klass else set()


def check(index: Index, recordings: Iterable[str]) -> Result:
    """Hold an index against recordings.

    Parameters
    ----------
    recordings : iterable of str
        Names of those that ship, "all" of them, or NAME.calls.gz files.

    Raises
    ------
    GraphsError
        when a recording cannot be read.
    """
    from graphs import recordings as shipped

    work = _Check(index)
    names = [name for given in recordings for name in (shipped.names() if given == "all" else [given])]
    for name in names:
        recording = shipped.load(name)
        work.read(recording.name, recording.calls, "system" in recording.program)
        work.result.recordings.append(recording.name)
    return work.finish()


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"


def report(index: Index, result: Result, sites: bool = False) -> str:
    """The result as text: pairs, misses, sites; every exercised site if `sites`."""
    found = len(result.pairs) - len(result.missed)
    lines = [
        f"{counted(len(result.recordings), 'recording')}, "
        f"{counted(result.entries, 'call')} in {'its' if len(result.recordings) == 1 else 'their'} complete "
        f"part{'' if len(result.recordings) == 1 else 's'}",
        f"pairs     {len(result.pairs):,} caller-callee pairs between indexed functions, "
        f"{found:,} in the graph "
        f"({_share(found, len(result.pairs))})",
        f"          {result.helpers:,} of them are generated code calling a helper; "
        f"{result.handlers:,} calls of signal handlers were judged by what installs them",
    ]
    for caller, callee in result.missed:
        one, other = index.by_number(caller), index.by_number(callee)
        lines.append(f"  missed  {one} -> {other}   ({result.pairs[caller, callee]}; {_known(index, other)})")
    if result.unknown:
        names = ", ".join(f"{name} ({file})" for file, name in sorted(result.unknown)[:6])
        lines.append(f"not indexed: {len(result.unknown)} recorded functions: {names}")
    lines += _site_lines(index, result, sites)
    return "\n".join(lines)


def _known(index: Index, callee: Function) -> str:
    """Who calls a function as far as the graph knows: a missed pair is mostly a caller whose line is lost."""
    edges = index.callers(callee)
    names = list(dict.fromkeys(index.by_number(e.caller).name for e in edges if e.caller is not None))
    if not names:
        return "the graph knows no caller"
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"the graph has it from {', '.join(names[:4])}{more}"


def _scores(site: Site) -> tuple[float, float, float]:
    """Recall, precision over the targets that ran, precision over all targets."""
    seen = len(site.seen)
    recall = seen / (seen + len(site.missed))
    ran = seen + len(site.false)
    everything = ran + len(site.unobserved)
    return recall, seen / ran if ran else 0.0, seen / everything if everything else 0.0


def _site_lines(index: Index, result: Result, every: bool) -> list[str]:
    chosen = result.sites
    if not chosen:
        return ["no call through a pointer was exercised"]
    scores = [_scores(site) for site in chosen]
    recall, precision, strict = (sum(column) / len(scores) for column in zip(*scores, strict=True))
    seen = sum(len(s.seen) for s in chosen)
    false = sum(len(s.false) for s in chosen)
    unobserved = sum(len(s.unobserved) for s in chosen)
    missed = sum(len(s.missed) for s in chosen)
    total = index.db.execute("SELECT count(*) FROM sites").fetchone()[0]
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    lines = [
        f"pointers  {len(chosen)} of {total} calls through pointers exercised ({_share(len(chosen), total)})",
        f"per site  recall {100 * recall:.2f} %, precision {100 * precision:.1f} %, F1 {100 * f1:.1f} %; "
        f"precision {100 * strict:.1f} % if unobserved targets counted as false",
        f"per edge  {seen} seen, {false} false (ran, but not from there), "
        f"{unobserved} unobserved (never ran), "
        f"{missed} missed: recall {_share(seen, seen + missed)}, precision {_share(seen, seen + false)}",
    ]
    if every:
        lines += [_site_line(index, site, score) for site, score in zip(chosen, scores, strict=True)]
    return lines


def _site_line(index: Index, site: Site, score: tuple[float, float, float]) -> str:
    caller, path, line, through = index.db.execute(
        "SELECT s.caller, files.path, s.line, s.through FROM sites s "
        "JOIN files ON files.id = s.file WHERE s.id = ?",
        (site.number,),
    ).fetchone()
    name = index.symbol_name(through) if through is not None else "an expression"
    return (
        f"  {path}:{line} {index.by_number(caller).name} through {name}: {len(site.seen)} seen, "
        f"{len(site.false)} false, {len(site.unobserved)} unobserved, {len(site.missed)} missed; "
        f"recall {score[0]:.2f}, precision {score[1]:.2f} ({score[2]:.2f})"
    )
