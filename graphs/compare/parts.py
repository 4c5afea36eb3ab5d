"""Comparing parts of a run: the calls inside one call, wherever it happened.

Two runs of the emulator differ as wholes: another BIOS does other things, and the main loop turns as often
as the clock says. Parts of them are comparable: what the guest's first read does, what `commit all` does.

- `Selector.parse("bmdma_cmd_writeb>ide_read_dma_cb#2")`: the second call of one function with a call of the
  other inside it.
- `compare_part(calls, recording, part, known) -> Comparison`
- `parts(recording) -> list[Part]`: those of `data/scope.toml` that a recording has.
- `streams(recording) -> list[Part]`, `compare_stream_part(...)`: those that write or read saved state.

Up to its third `main_loop_wait` (the 760,000th entry where everything was kept) a recording of the
emulator has every function, behind it those of some files, and of these not those called most. There, calls
of the model to functions that no recording has behind that point are left out, and counted. What the guest
does there, or somebody types, seems to be inside whatever the line above shows: a call ends where it begins.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cache

from graphs import recordings
from graphs.calls import CallTable, Name
from graphs.compare import Comparison, compare
from graphs.compare.projection import project
from graphs.compare.scope import outside, part_rows, part_scope, reaches, stream_rows
from graphs.compare.stream import compare_stream
from graphs.errors import GraphsError
from graphs.recordings import Recording

_LOOP: Name = ("vl.c", "main_loop_wait")
_TURNS, _EVERYTHING = 3, 760_000
MISSING = "- the trace does not have it"
_ASKED = {"do_info_migrate"}
"""Asked as often as somebody liked, and answered as things stood then."""


@dataclass(frozen=True)
class Selector:
    """Which call: the `number`-th of `function` that has a call of `inner`, if given, inside.

    Examples
    --------
    >>> Selector.parse("do_commit"), str(Selector.parse("do_info>bdrv_info#2"))
    (Selector(function='do_commit', inner='', number=1), 'do_info>bdrv_info#2')
    """

    function: str
    inner: str = ""
    number: int = 1

    @classmethod
    def parse(cls, text: str) -> "Selector":
        """Read `FUNCTION[>INNER][#NUMBER]`.

        Raises
        ------
        GraphsError
            For any other text.
        """
        match = re.fullmatch(r"(\w+)(?:>(\w+))?(?:#([1-9]\d*))?", text)
        if match is None:
            raise GraphsError(f"{text!r} selects no call: write FUNCTION, FUNCTION>INNER or FUNCTION>INNER#2")
        return cls(match[1], match[2] or "", int(match[3] or 1))

    def __str__(self) -> str:
        inner = f">{self.inner}" if self.inner else ""
        return f"{self.function}{inner}#{self.number}"


@dataclass(frozen=True)
class Part:
    """A part worth comparing.

    Attributes
    ----------
    title : str
        What it is called.
    selector : Selector
        Where it is.
    also : tuple of str
        Patterns of functions that are compared besides those in scope.
    own : bool
        Compare what the function itself calls, and not what that calls.
    """

    title: str
    selector: Selector
    also: tuple[str, ...] = ()
    own: bool = False


def parts(recording: Recording) -> list[Part]:
    """Return the parts that a recording has, in the order of `data/scope.toml`."""
    found = []
    for row in part_rows():
        selector = Selector.parse(row["inside"])
        part = Part(row["title"], selector, tuple(row.get("also", ())), row.get("own", False))
        for number in range(1, (count(recording.calls, selector) if row.get("every") else 1) + 1):
            numbered = replace(selector, number=number)
            if _find(recording.calls, numbered) is not None:
                title = f"{part.title}, {number}" if number > 1 else part.title
                found.append(replace(part, title=title, selector=numbered))
    return found


def streams(recording: Recording) -> list[Part]:
    """Return the parts of a recording that write or read saved state."""
    found = []
    for row in stream_rows():
        selector = Selector.parse(row["inside"])
        for number in range(1, count(recording.calls, selector) + 1):
            title = f"{row['title']}, {number}" if number > 1 else row["title"]
            found.append(Part(title, replace(selector, number=number)))
    return found


def compare_stream_part(
    calls: CallTable, recording: Recording, part: Part, known: Collection[Name] = ()
) -> list[str] | None:
    """Lay such a part over the same one of a recording; what differs, or None if the trace lacks it."""
    function, number = part.selector.function, part.selector.number
    if count(calls, part.selector) < number:
        return None
    return compare_stream(calls, recording, function, known, number)


def compare_stream_parts(
    calls: CallTable, recording: Recording, known: Collection[Name] = ()
) -> list[tuple[Part, list[str]]]:
    """Lay all such parts that both have over each other; the second answers of a question are any of them.

    Returns
    -------
    list of (Part, list of str)
        What differs in each.
    """
    found = []
    for part in streams(recording):
        differences = compare_stream_part(calls, recording, part, known)
        if differences and part.selector.function in _ASKED:
            others = range(1, count(calls, replace(part.selector, number=1)) + 1)
            each = (
                compare_stream(calls, recording, part.selector.function, known, n, part.selector.number)
                for n in others
            )
            differences = next((lines for lines in each if not lines), differences)
        if differences is None and part.selector.function not in _ASKED:
            differences = [MISSING]
        if differences is not None:
            found.append((part, differences))
    return found


def count(table: CallTable, selector: Selector) -> int:
    """How many calls a selector without its number fits."""
    return sum(1 for _ in _fitting(table, selector))


def compare_part(
    calls: CallTable, recording: Recording, part: Part, known: Collection[Name] = ()
) -> Comparison | None:
    """Lay a part of the model's calls over the same part of a recording.

    Returns
    -------
    Comparison or None
        None if one of the two does not have the part.
    """
    ours, theirs = _find(calls, part.selector), _find(recording.calls, part.selector)
    if ours is None or theirs is None:
        return None
    recorded = None if theirs[0] < _whole(recording) else _recorded_behind() | _behind(recording)
    if part.own:
        ours, theirs = _own(calls, ours), _own(recording.calls, theirs)
    inside = replace(recording, calls=_cut(recording.calls, theirs, None))
    scope = part_scope(recording)
    scope = replace(scope, take=scope.take + part.also)
    found = compare(_cut(calls, ours, recorded), inside, known, scope=scope)
    missing = {calls.names[calls.function[at]] for at in ours} - recorded if recorded is not None else set()
    covered = frozenset(name for name in missing if found.scope.covers(name))
    return replace(found, part=str(part.selector), unrecorded=covered)


def _find(table: CallTable, selector: Selector) -> list[int] | None:
    for number, rows in enumerate(_fitting(table, selector), 1):
        if number == selector.number:
            return rows
    return None


def _fitting(table: CallTable, selector: Selector) -> Iterator[list[int]]:
    """Yield the rows of each call that fits, its own first."""
    roots = {number for number, name in enumerate(table.names) if name[1] == selector.function}
    inner = {number for number, name in enumerate(table.names) if name[1] == selector.inner}
    if not roots or (selector.inner and not inner):
        return
    acts, within = outside()
    begins = {number for number, name in enumerate(table.names) if name in acts}
    for at, function in enumerate(table.function):
        if function in roots:
            rows = _inside(table, at, () if table.names[function] in within else begins)
            if not selector.inner or any(table.function[row] in inner for row in rows):
                yield rows


def _inside(table: CallTable, root: int, ends: Collection[int]) -> list[int]:
    thread, depth, rows = table.thread[root], table.depth[root], [root]
    for at in range(root + 1, len(table)):
        if table.thread[at] == thread:
            if table.depth[at] <= depth or table.function[at] in ends:
                break
            rows.append(at)
    return rows


def _own(table: CallTable, rows: list[int]) -> list[int]:
    return [at for at in rows if table.depth[at] <= table.depth[rows[0]] + 1]


def _cut(table: CallTable, rows: list[int], kept: Collection[Name] | None) -> CallTable:
    """Take rows out as a table of their own; a row that is not kept is as if it had not been written."""
    part = CallTable()
    for at in rows:
        name = table.names[table.function[at]]
        if kept is None or name in kept:
            part.append(table.depth[at] - table.depth[rows[0]], name, 0)
    return part


def _whole(recording: Recording) -> int:
    """How many rows have every function."""
    turns = 0
    for at, (_, name, _) in enumerate(recording.calls):
        turns += name == _LOOP
        if turns == _TURNS:
            return _EVERYTHING if len(recording.calls) > _EVERYTHING else at
    return len(recording.calls)


def _behind(recording: Recording) -> set[Name]:
    whole, table = _whole(recording), recording.calls
    behind = CallTable(table.names, table.depth[whole:], table.function[whole:], table.thread[whole:])
    return {row.name for row in project(behind, lambda name: True, interrupts=reaches())}


@cache
def _recorded_behind() -> frozenset[Name]:
    """All functions that a recording shows where not every function was kept."""
    shipped = (name for name in recordings.names() if name[0] in "de")
    return frozenset(name for each in shipped for name in _behind(recordings.load(each)))
