"""The three witnesses as a picture: functions as boxes, calls in the colours of who saw them.

- `picture(witnesses, title, links) -> Picture`
- `choose(witnesses, start, depth, globs) -> Witnesses`: a part of the graph.

Functions that the source calls and this run did not come to are small print in their callers' boxes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from graphs.calls import Name
from graphs.draw.links import Links
from graphs.draw.picture import Arrow, Box, Picture
from graphs.errors import GraphsError
from graphs.witnesses import FAULT, MODEL, REAL, SOURCE, TITLES, Seen, Witnesses

_STYLES = {
    frozenset({MODEL, SOURCE, REAL}): ("solid", "#15803d"),
    frozenset({MODEL, SOURCE}): ("solid", "#1d4ed8"),
    frozenset({MODEL, REAL}): ("solid", "#a16207"),
    frozenset({MODEL}): ("bold", "#dc2626"),
    frozenset({SOURCE, REAL}): ("dashed", "#c2410c"),
    frozenset({REAL}): ("bold", "#c026d3"),
    frozenset({SOURCE}): ("dotted", "#64748b"),
}
_UNTRACED = frozenset(title for by, title in TITLES.items() if MODEL not in by)
_SYSTEM = "the system"


def choose(
    witnesses: Witnesses, start: str | None = None, depth: int | None = None, globs: Sequence[str] = ()
) -> Witnesses:
    """Return what lies within `depth` calls of a function, between functions that match.

    Parameters
    ----------
    witnesses : Witnesses
        All of it.
    start : str, optional
        A function, `name` or `file:name`.
    depth : int, optional
        How far from it.
    globs : sequence of str
        Functions, files or `file:name`; `*` stands for any text.

    Raises
    ------
    GraphsError
        If nothing is left.
    """
    calls = witnesses.calls
    if globs:
        calls = [
            seen
            for seen in calls
            if (seen.caller is None or _fits(seen.caller, globs)) and _fits(seen.callee, globs)
        ]
    if start is not None:
        calls = _below(calls, start, depth)
    if not calls:
        wanted = " and ".join([*globs, *([start] if start else [])])
        raise GraphsError(f"no call fits {wanted}; names are functions, files or file:function")
    return replace(witnesses, calls=calls)


def _fits(name: Name, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(text, glob) for text in (*name, ":".join(name)) for glob in globs)


def _below(calls: list[Seen], start: str, depth: int | None) -> list[Seen]:
    out: dict[Name, list[Seen]] = defaultdict(list)
    for seen in calls:
        if seen.caller is not None:
            out[seen.caller].append(seen)
    near = {name: 0 for name in out if start in (name[1], ":".join(name))}
    work = list(near)
    chosen = []
    for name in work:
        if near[name] == depth:
            continue
        for seen in out.get(name, ()):
            chosen.append(seen)
            # What did not run leads nowhere.
            if seen.callee not in near and seen.times:
                near[seen.callee] = near[name] + 1
                work.append(seen.callee)
    return chosen


def picture(witnesses: Witnesses, title: str = "Three witnesses", links: Links | None = None) -> Picture:
    """Return the graph as a picture."""
    links = links or Links()
    used = {seen.by for seen in witnesses.calls}
    page = Picture(
        title,
        kinds={TITLES[by]: style for by, style in _STYLES.items() if by in used},
        kept=frozenset({FAULT, TITLES[frozenset({REAL})], TITLES[frozenset({MODEL, REAL})]}),
        loose=_UNTRACED,
        through=("dashed", "#334155"),
    )
    shown = {
        name
        for seen in witnesses.calls
        for name in (seen.caller, seen.callee)
        if name in witnesses.times or seen.by != {SOURCE}
    }
    notes: dict[Name | None, list[str]] = defaultdict(list)
    for seen in witnesses.calls:
        if seen.callee in shown:
            page.arrows[_key(seen.caller), _key(seen.callee)] = _arrow(witnesses, seen, links)
        else:
            notes[seen.caller].append(_told(seen.callee, witnesses))
    for name in sorted(shown, key=_key):
        page.boxes[_key(name)] = _box(witnesses, name, notes[name], links)
    return page


def _key(name: Name | None) -> str:
    return ":".join(name) if name else _SYSTEM


def _told(name: Name, witnesses: Witnesses) -> str:
    """Name a function; with its file if another of the name ran."""
    file, function = name
    return f"{function} ({file})" if any(function == other for _, other in witnesses.times) else function


def _box(witnesses: Witnesses, name: Name | None, only: list[str], links: Links) -> Box:
    if name is None:
        return Box(
            _SYSTEM, "", 0, "what the system calls: main, constructors, threads, signal and exit handlers"
        )
    file, function = name
    line = witnesses.source.line(name)
    times = witnesses.times.get(name, 0)
    tooltip = f"{function} ({file}:{line}), " + (f"{times:,} calls" if times else "did not run in the trace")
    return Box(
        function, file, times, tooltip, url=links.url(file, line), line=line,
        notes=((TITLES[frozenset({SOURCE})], tuple(only)),) if only else (),
    )  # fmt: skip


def _arrow(witnesses: Witnesses, seen: Seen, links: Links) -> Arrow:
    rows = [str(seen), seen.title]
    if seen.times:
        rows.append(f"traced {seen.times:,} times, first at {seen.first}")
    if seen.recorded:
        rows.append(f"recorded {seen.recorded:,} times")
    url = ""
    source = witnesses.source
    way = [seen.caller, *seen.through, seen.callee]
    edge = source.call(way[0], way[1]) if way[0] and way[1] else source.start(seen.callee)
    if edge is not None and SOURCE in seen.by:
        rows.append(source.how(edge))
        url = links.url(edge.file, edge.line)
    return Arrow(max(seen.times, 1), "\n".join(rows), seen.title, url)
