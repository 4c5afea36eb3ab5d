"""Holding a trace of the model against a recording of the real program.

- `compare(calls, recording, known) -> Comparison`: `calls` of the model, `known` its functions.
- `graphs.compare.report`: a comparison as text.

Both sides are projected on the functions in scope that the model has (`scope`, `projection`), laid
thread by thread over each other as trees (`trees`, `alignment`); if they differ, once more
without what only the speed of threads decides (`timing`). Equal means the same functions, the same
nesting, the same order.
"""

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from graphs.calls import CallTable, Name
from graphs.compare.alignment import Difference, align
from graphs.compare.projection import ROOT, Row, project, threads
from graphs.compare.scope import Scope, lacking, reaches, scope_of
from graphs.compare.timing import settle
from graphs.compare.trees import Forest, Tree
from graphs.recordings import Recording

__all__ = ["Comparison", "Difference", "compare"]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes
    ----------
    recording : Recording
        The recording held against.
    scope : Scope
        What was looked at.
    ours, theirs : int
        Calls compared, of the model and of the recording.
    equal_calls : int
        Calls equal in order.
    differences : dict of str to tuple of Difference
        By thread role; only roles that differ.
    timing : (int, int) or None
        None if equal without the timing rules; else how many calls these took out, of the model and of
        the recording.
    only_theirs : frozenset of (str, str)
        Functions in scope that the recording has and the trace lacks; not those left to timing.
    unmodelled : frozenset of (str, str)
        Those of `only_theirs` that the model does not have at all.
    only_ours : frozenset of (str, str)
        Functions in scope that the trace has and the recording lacks.
    absent : frozenset of str
        C files in which functions that the model lacks lost some of their calls.
    part : str
        The call whose inside was compared (`graphs.compare.parts`); empty for the whole run.
    unrecorded : frozenset of (str, str)
        Functions in scope that the model called there and that no recording has in such places.
    """

    recording: Recording
    scope: Scope
    ours: int
    theirs: int
    equal_calls: int
    differences: dict[str, tuple[Difference, ...]]
    timing: tuple[int, int] | None
    only_theirs: frozenset[Name]
    unmodelled: frozenset[Name]
    only_ours: frozenset[Name]
    absent: frozenset[str] = frozenset()
    part: str = ""
    unrecorded: frozenset[Name] = frozenset()

    @property
    def equal(self) -> bool:
        """Whether all compared calls are equal."""
        return not self.differences

    @property
    def share(self) -> float:
        """Calls equal in order as a share of both sides' calls, 0 to 1."""
        total = self.ours + self.theirs
        return 2 * self.equal_calls / total if total else 1.0


def compare(
    calls: CallTable,
    recording: Recording,
    known: Collection[Name] = (),
    *,
    until: str = "",
    leave: Collection[str] = (),
    scope: Scope | None = None,
) -> Comparison:
    """Lay the calls of the model over a recording.

    Parameters
    ----------
    calls : CallTable
        The model's calls.
    recording : Recording
        The real program's.
    known : collection of (str, str)
        Functions that the model has, called or not; those in `calls` are added.
    until : str, optional
        Stop at the first call of this function (`file:function`), if the scope does not stop earlier.
    leave : collection of str, optional
        Patterns of functions to leave out, besides the scope's.
    scope : Scope, optional
        Instead of the recording's own.
    """
    scope = scope or scope_of(recording)
    modelled = calls.functions() | set(known)
    absent = {name for name in recording.calls.functions() - modelled if scope.may_lack(name)}
    stop = _identity(until or scope.until)

    def covered(name: Name) -> bool:
        return scope.covers(name) and not any(fnmatchcase(":".join(name), pattern) for pattern in leave)

    def rows(table: CallTable, known_only: bool) -> list[Row]:
        return project(
            table,
            lambda name: covered(name) and (not known_only or name in modelled),
            until=stop,
            absent=absent,
            lost=scope.loses,
            interrupts=reaches(),
            cut=lacking().keys(),
        )

    ours, theirs = rows(calls, True), rows(recording.calls, True)
    seen, recorded = _names(ours), _names(rows(recording.calls, False))
    forest = Forest()
    sizes, taken = (len(ours), len(theirs)), None
    equal, differences = len(ours), dict[str, tuple[Difference, ...]]()
    if threads(forest, ours) != threads(forest, theirs):
        settled = settle(forest, ours), settle(forest, theirs)
        sizes = _size(settled[0]), _size(settled[1])
        taken = len(ours) - sizes[0], len(theirs) - sizes[1]
        equal, empty = 0, forest.make(ROOT)
        for role in sorted(settled[0].keys() | settled[1].keys()):
            found = align(settled[0].get(role, empty), settled[1].get(role, empty))
            equal += found.equal
            if found.differences:
                differences[role] = tuple(found.differences)
        compared = _called(settled[0]) | _called(settled[1])
        seen, recorded = seen & compared, recorded & compared | recorded - modelled
    only_theirs = frozenset(recorded - seen), frozenset(recorded - modelled)
    only_ours = frozenset(seen - recorded)
    files = frozenset(file for file, _ in absent)
    return Comparison(recording, scope, *sizes, equal, differences, taken, *only_theirs, only_ours, files)


def _identity(text: str) -> Name | None:
    file, _, function = text.partition(":")
    return (file, function) if text else None


def _names(rows: list[Row]) -> set[Name]:
    return {row.name for row in rows}


def _called(roles: dict[str, Tree]) -> set[Name]:
    return {name for tree in roles.values() for name in tree.functions()}


def _size(roles: dict[str, Tree]) -> int:
    return sum(tree.size - 1 for tree in roles.values())
