"""What the witnesses say, as a table.

- `lines(witnesses, every=False) -> list[str]`; `table(witnesses)`: the head of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap

from graphs.calls import Name
from graphs.witnesses import FAULT, MODEL, REAL, SOURCE, TITLES, Seen, Witnesses
from graphs.witnesses.source import MOST_LEFT_OUT

_MEANINGS = {
    frozenset({MODEL, REAL}): "a gap of the index",
    frozenset({MODEL}): "a fault of the model",
    frozenset({SOURCE, REAL}): "the model leaves it out, or its guest does other things",
    frozenset({SOURCE}): "this run did not come there",
    frozenset({REAL}): "a gap of the index and of the model",
}
_SHORT, _NAMES, _WIDTH = 8, 6, 100


def lines(witnesses: Witnesses, every: bool = False) -> list[str]:
    """Return the report, line by line.

    Parameters
    ----------
    witnesses : Witnesses
        What to report.
    every : bool
        List all calls, also those that are not the model's.
    """
    return [
        *table(witnesses),
        *_faults(witnesses),
        *_ways(witnesses),
        *_others(witnesses, every),
    ]


def table(witnesses: Witnesses) -> list[str]:
    """Return the verdict and the table."""
    return [*_verdict(witnesses), "", *_shares(witnesses)]


def _verdict(witnesses: Witnesses) -> Iterator[str]:
    made = [seen for seen in witnesses.calls if MODEL in seen.by]
    source = f"the source of {witnesses.identity}" if witnesses.identity else "the source"
    source += f" ({witnesses.program})" if witnesses.program else ""
    if witnesses.faults:
        yield f"{len(witnesses.faults):,} of the trace's {len(made):,} different calls are not in {source}"
    else:
        yield f"all {len(made):,} different calls of the trace are in {source}"


def _shares(witnesses: Witnesses) -> Iterator[str]:
    counts, total = witnesses.counts(), len(witnesses.calls)
    width = max(map(len, TITLES.values()))
    for by, title in TITLES.items():
        wanted = by == {MODEL} or (by == {REAL} and witnesses.recording)
        if not (counts.get(title) or wanted):
            continue
        count = counts.get(title, 0)
        meaning = f"   {_MEANINGS[by]}" if by in _MEANINGS else ""
        yield f"{title:<{width}}{count:>8,}{100 * count / total if total else 0:>8.1f} %{meaning}"
    for what, count in witnesses.beyond.items():
        yield f"beyond these: {count:,} {what}"


def _faults(witnesses: Witnesses) -> Iterator[str]:
    if witnesses.faults:
        yield ""
        yield f"{FAULT}:"
    for seen in witnesses.faults:
        yield f"  {seen}   first at {seen.first}"
        yield f"      {_reason(witnesses, seen)}"


def _reason(witnesses: Witnesses, seen: Seen) -> str:
    known = witnesses.source.functions
    for name in filter(None, (seen.caller, seen.callee)):
        if name not in known:
            return f"{name[1]} ({name[0]}) is no function of that program"
    if seen.caller is None:
        return "nothing calls it in the trace, and nothing in the source gives it to the system"
    return f"no call, nor a way through {MOST_LEFT_OUT} functions that the model leaves out"


def _ways(witnesses: Witnesses) -> Iterator[str]:
    through = [seen for seen in witnesses.calls if MODEL in seen.by and seen.through]
    if not through:
        return
    yield ""
    yield f"through functions that the trace leaves out, in brackets ({len(through)} calls):"
    groups: dict[tuple[Name | None, tuple[Name, ...]], list[str]] = {}
    for seen in through:
        groups.setdefault((seen.caller, seen.through), []).append(seen.callee[1])
    for (caller, way), callees in groups.items():
        head = " -> ".join([caller[1] if caller else "(the system)", *(f"({name})" for _, name in way)])
        yield from wrap(
            f"{head} -> {', '.join(callees)}", _WIDTH, initial_indent="  ", subsequent_indent=" " * 6
        )
    quiet = sorted({name for seen in through for name in seen.through} & witnesses.quiet)
    if quiet:
        names = ", ".join(name for _, name in quiet)
        text = f"Of these the model has {names}: `studykvm boot --trace-io` traces them."
        yield from _wrapped(text)


def _others(witnesses: Witnesses, every: bool) -> Iterator[str]:
    titles = [title for by, title in TITLES.items() if MODEL not in by or by == {MODEL, REAL}]
    for title in titles:
        chosen = [seen for seen in witnesses.calls if seen.title == title]
        if chosen and (every or title != TITLES[frozenset({SOURCE})]):
            yield ""
            yield f"{title}:"
            yield from _grouped(chosen, every)


def _grouped(chosen: Iterable[Seen], every: bool) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for seen in chosen:
        groups.setdefault(seen.caller[1] if seen.caller else "(the system)", []).append(seen.callee[1])
    for number, (caller, callees) in enumerate(groups.items()):
        if number == _SHORT and not every:
            yield f"  and {len(groups) - _SHORT} more functions (--all lists them)"
            return
        shown = callees if every else callees[:_NAMES]
        more = [f"and {len(callees) - len(shown)} more"] if len(shown) < len(callees) else []
        yield from _wrapped(f"{caller} -> {', '.join(shown + more)}")


def _wrapped(text: str) -> list[str]:
    return wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False)
