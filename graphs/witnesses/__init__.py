"""Three witnesses of one boot: the model's trace, the source's index, and a recording of the real program.

- `lay(traced(trace), open_source(...), ...) -> Witnesses`: one graph, each call between two functions with
  who saw it.
- `graphs.witnesses.report`: as a table; `graphs.witnesses.page`: as a picture.

A call is a (caller, callee) pair. What each witness says of it:

- the trace: the callee ran as the next traced function inside the caller, in the same thread. What no
  function of the model calls, or a signal handler wherever it struck, is called by the system: `None`.
- the source: an edge of the index; or a way through functions that the trace cannot show, which are named
  (`Source.way`); or, for what the system calls, a constructor, a thread, a signal or exit handler.
- the recording: as the trace, on the functions that the trace would show (`graphs.witnesses.recorded`).

The source alone says far more than one run can show. Laid down are only its direct calls from functions that
ran in the trace to functions that the model has; the others are counted.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphs.calls import CallTable, Name
from graphs.witnesses.recorded import recorded

if TYPE_CHECKING:
    from pathlib import Path

    from graphs.recordings import Recording
    from graphs.witnesses.source import Source
    from tracer import Trace

MODEL, SOURCE, REAL = "model", "source", "real"

Pair = tuple[Name | None, Name]
Call = tuple[Name | None, Name, str]
"""Caller, callee, where."""

# Who saw a call: what to call it, most trusted first.
TITLES: dict[frozenset[str], str] = {
    frozenset({MODEL, SOURCE, REAL}): "traced, in source and recorded",
    frozenset({MODEL, SOURCE}): "traced and in source",
    frozenset({MODEL, REAL}): "traced and recorded, not in source",
    frozenset({MODEL}): "traced only",
    frozenset({SOURCE, REAL}): "recorded and in source, not traced",
    frozenset({REAL}): "recorded only",
    frozenset({SOURCE}): "in source only",
}
FAULT = "traced only"


@dataclass(frozen=True)
class Seen:
    """A call between two functions, and who saw it.

    Attributes
    ----------
    caller : (str, str) or None
        None for what the system calls.
    callee : (str, str)
        The called function.
    by : frozenset of str
        Of MODEL, SOURCE, REAL.
    times : int
        How often the trace has it.
    first : str
        Where the trace has it first.
    recorded : int
        How often the recording has it.
    through : tuple of (str, str)
        Functions on the way that the trace cannot show.
    """

    caller: Name | None
    callee: Name
    by: frozenset[str]
    times: int = 0
    first: str = ""
    recorded: int = 0
    through: tuple[Name, ...] = ()

    @property
    def title(self) -> str:
        """Who saw it, in words."""
        return TITLES[self.by]

    def __str__(self) -> str:
        """Show the way.

        >>> str(Seen(("a.c", "f"), ("b.c", "g"), frozenset({MODEL, SOURCE}), through=(("m.c", "m"),)))
        'f -> (m) -> g'
        """
        caller = self.caller[1] if self.caller else "(the system)"
        return " -> ".join([caller, *(f"({name})" for _, name in self.through), self.callee[1]])


@dataclass
class Witnesses:
    """What the witnesses say.

    Attributes
    ----------
    source : Source
        The source, to ask for evidence.
    calls : list of Seen
        In the order of the trace, then of the recording and the source.
    recording : str
        Name of the recording; "" for none.
    times : dict of (str, str) to int
        How often each function of the trace ran.
    quiet : frozenset of (str, str)
        Functions of the model that this trace leaves out.
    beyond : dict of str to int
        What was counted and not laid down.
    """

    source: Source
    calls: list[Seen] = field(default_factory=list)
    recording: str = ""
    times: dict[Name, int] = field(default_factory=dict)
    quiet: frozenset[Name] = frozenset()
    beyond: dict[str, int] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """What the index was made from."""
        return self.source.index.meta.get("identity", "")

    @property
    def program(self) -> str:
        """What the index calls the program; "" when it is not known."""
        index = self.source.index
        return ", ".join(index.program_names(index.mask)) if index.mask >= 0 else ""

    @property
    def faults(self) -> list[Seen]:
        """Calls that only the model makes."""
        return [seen for seen in self.calls if seen.title == FAULT]

    def counts(self) -> dict[str, int]:
        """Return how many calls have each title."""
        found = Counter(seen.title for seen in self.calls)
        return {title: found[title] for title in TITLES.values() if found[title]}

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """What Jupyter shows: the picture, and the table as text."""
        from graphs.witnesses.page import picture

        bundle = picture(self)._repr_mimebundle_()
        return bundle | {"text/plain": str(self)}

    def __str__(self) -> str:
        """Return the table."""
        from graphs.witnesses.report import lines

        return "\n".join(lines(self))


def program_of(functions: Collection[Name]) -> str:
    """Return the link set that the file of `main` tells, "" when there is no `main`.

    >>> program_of({("qemu-img.c", "main"), ("block.c", "bdrv_open2")})
    'img'
    """
    mains = {"qemu-img.c": "img", "qemu-io.c": "io", "qemu-nbd.c": "nbd", "vl.c": "system"}
    return next((program for file, program in mains.items() if (file, "main") in functions), "")


def open_source(functions: Collection[Name], path: str | Path | None = None) -> Source:
    """Open an index, on the program that the functions are of.

    Parameters
    ----------
    functions : collection of (str, str)
        What ran.
    path : str or Path, optional
        An index; by default qemu-kvm 0.12.4's, which ships.

    Raises
    ------
    GraphsError
        If the index cannot be read.
    """
    from graphs.index.query import Index
    from graphs.witnesses.source import Source

    index = Index.open(path)
    program = program_of(functions)
    if program in index.programs:
        index.mask = index.programs[program]
    return Source(index)


def traced(trace: Trace) -> list[Call]:
    """Return the calls of a trace."""
    return [
        (
            None if call.parent is None else (call.parent.file, call.parent.function),
            (call.file, call.function),
            f"step {call.step}",
        )
        for call in trace.calls()
    ]


def tabled(table: CallTable) -> list[Call]:
    """Return the calls of a call table, in the same form."""
    open_: dict[int, list[Name]] = {}
    found: list[Call] = []
    for line, (depth, name, thread) in enumerate(table, 1):
        callers = open_.setdefault(thread, [])
        del callers[depth:]
        found.append((callers[-1] if callers else None, name, f"line {line}"))
        callers.append(name)
    return found


def lay(
    calls: Iterable[Call],
    source: Source,
    heard: Collection[Name] = (),
    quiet: Collection[Name] = (),
    recording: Recording | None = None,
) -> Witnesses:
    """Lay the witnesses together.

    Parameters
    ----------
    calls : iterable
        The trace's: see `traced` and `tabled`.
    source : Source
        The source's.
    heard : collection of (str, str)
        Functions that the tracer hears of, called or not; those in `calls` are added.
    quiet : collection of (str, str)
        Functions that the model has and the tracer did not hear of.
    recording : Recording, optional
        The real program's calls.
    """
    times: Counter[Name] = Counter()
    pairs: Counter[Pair] = Counter()
    first: dict[Pair, str] = {}
    for caller, callee, where in calls:
        times[callee] += 1
        pair = None if source.is_signal_handler(callee) else caller, callee
        pairs[pair] += 1
        first.setdefault(pair, where)
    known = frozenset(heard) | times.keys()
    hidden = frozenset(quiet) - known
    out = Witnesses(source, recording=recording.name if recording else "", times=dict(times), quiet=hidden)
    real = recorded(recording, source, known) if recording else {}
    for pair in dict.fromkeys([*pairs, *real]):
        caller, callee = pair
        if pair not in pairs and caller is not None and caller not in times:
            _count(out, "recorded calls out of functions that did not run in the trace")
            continue
        made = real.get(pair)
        through = _through(source, caller, callee, made.through if made else ())
        if through is None and caller is not None:
            through = source.way(caller, callee, known, hidden)
        by = frozenset(
            who for who, saw in ((MODEL, pair in pairs), (REAL, made), (SOURCE, through is not None)) if saw
        )
        out.calls.append(
            Seen(
                caller, callee, by, pairs[pair], first.get(pair, ""), made.times if made else 0, through or ()
            )
        )
    _source_only(out, source, known)
    return out


def _through(
    source: Source, caller: Name | None, callee: Name, between: tuple[Name, ...]
) -> tuple[Name, ...] | None:
    """Return the way that the source shows: straight, or the recorded one; None when it shows neither."""
    if caller is None:
        begins = callee[1] == "main" and callee in source.functions
        return () if begins or source.start(callee) else None
    if source.calls(caller, callee):
        return ()
    way = (caller, *between, callee)
    return between if between and all(itertools.starmap(source.calls, itertools.pairwise(way))) else None


def _source_only(out: Witnesses, source: Source, known: Collection[Name]) -> None:
    laid = {(seen.caller, seen.callee) for seen in out.calls}
    for caller in source.functions:
        for callee in source.callees(caller):
            if (caller, callee) in laid:
                continue
            if caller not in out.times:
                _count(out, "calls in source out of functions that did not run in the trace")
            elif callee not in known:
                _count(out, "calls in source to functions that the model leaves out")
            else:
                out.calls.append(Seen(caller, callee, frozenset({SOURCE})))


def _count(out: Witnesses, what: str) -> None:
    out.beyond[what] = out.beyond.get(what, 0) + 1
