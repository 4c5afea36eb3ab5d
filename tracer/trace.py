"""A finished recording, decoded as far as it is asked for.

- `load(path)`: a trace from a file.
- `Trace`: `events()`, `calls()` with filters, `tree()`, `stats()`, and of the structures `objects()`,
  `state_at(step)` and `writes(struct, field)`.
- `Call`: one call; `FunctionInfo`: one function.

A step is an event's position in the trace. `state_at(step)` holds after that event; so a call's entry is
`state_at(call.step)`, and its exit `state_at(call.exit_step)`.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tracer.errors import DamagedTraceError
from tracer.fileformat import Contents, FunctionInfo, read
from tracer.session import Event
from tracer.values import Value

if TYPE_CHECKING:
    from tracer.passes import Node
    from tracer.state import History, ObjectInfo, StructState, Write
    from tracer.stats import Stats


class Call:
    """One call, as the trace has it.

    Attributes
    ----------
    step, exit_step
        Steps of its entry and its exit.
    depth
        Number of calls around it, in its thread.
    thread
        Number of its thread, by first appearance.
    parent
        The call it was made from.
    ret
        Encoded return value.
    exc
        (type, text) of the exception that ended it, or None.
    t_enter, t_exit : ns
        Of a clock that starts anywhere; `trace.meta["clock"]` is its value at the start.

    `exit_step` and `t_exit` are None when the trace has no end of the call: see `open`.
    """

    __slots__ = (
        "_event", "depth", "exc", "exit_step", "info", "parent", "ret", "step", "t_enter", "t_exit", "thread",
    )  # fmt: skip

    def __init__(self, step: int, depth: int, info: FunctionInfo, event: Event, parent: Call | None) -> None:
        self.step = step
        self.depth = depth
        self.info = info
        self.parent = parent
        self._event = event
        _, self.thread, self.t_enter = event[:3]
        self.t_exit: int | None = None
        self.exit_step: int | None = None
        self.ret: Value = None
        self.exc: tuple[str, str] | None = None

    @property
    def file(self) -> str:
        """C file."""
        return self.info.file

    @property
    def function(self) -> str:
        """C function."""
        return self.info.name

    @property
    def args(self) -> dict[str, Value]:
        """Encoded arguments by parameter name."""
        return dict(zip(self.info.params, self._event[3:], strict=False))

    @property
    def open(self) -> bool:
        """Whether the trace ended before the call did."""
        return self.t_exit is None

    @property
    def path(self) -> tuple[str, ...]:
        """The functions from the outermost call to this one."""
        names, call = [], self
        while True:
            names.append(call.function)
            if call.parent is None:
                return tuple(reversed(names))
            call = call.parent

    def __repr__(self) -> str:
        """Show place and function."""
        return f"<Call {self.function} step={self.step} depth={self.depth} thread={self.thread}>"


# what follows the time in each
_STRUCT_EVENTS = {"n": (str, str, dict), "w": (str, str, object, object), "f": (str,)}


class _Index:
    """All calls and structure events of a trace, from one pass over its events."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.structs: list[tuple[int, Event, Call | None]] = []
        self._stacks: dict[int, list[Call]] = {}
        self._suspended: dict[int, Call] = {}

    def add(self, functions: dict[int, FunctionInfo], events: Iterable[Event], step: int) -> None:
        """Add events, the first of which is number `step`."""
        calls, stacks = self.calls, self._stacks
        for event in events:
            kind, thread, t = event[0], event[1], event[2]
            if thread.__class__ is not int or t.__class__ is not int:
                raise ValueError("thread and time are integers")
            stack = stacks.get(thread)
            if stack is None:
                stack = stacks[thread] = []
            if kind.__class__ is int:
                if kind >= 0:
                    call = Call(step, len(stack), functions[kind], event, stack[-1] if stack else None)
                    stack.append(call)
                    calls.append(call)
                else:
                    ended = _pop(stack, ~kind)
                    if ended is not None:
                        ended.t_exit, ended.exit_step, ended.ret = t, step, event[3]
            elif kind in _STRUCT_EVENTS:
                values, kinds = event[3:], _STRUCT_EVENTS[kind]
                if len(values) < len(kinds) or not all(map(isinstance, values, kinds)):
                    raise ValueError("incomplete structure event")
                self.structs.append((step, event, stack[-1] if stack else None))
            elif kind == "x":
                ended = _pop(stack, event[3])
                if ended is not None:
                    ended.t_exit, ended.exit_step, ended.exc = t, step, (str(event[4]), str(event[5]))
            elif kind == "y" and stack:
                self._suspended[event[3]] = stack.pop()
            elif kind == "r" and event[3] in self._suspended:
                stack.append(self._suspended.pop(event[3]))
            step += 1


def _pop(stack: list[Call], fid: int) -> Call | None:
    """Take the innermost call of `fid` off the stack, and what an interrupt left above it."""
    for index in range(len(stack) - 1, -1, -1):
        if stack[index].info.fid == fid:
            call = stack[index]
            del stack[index:]
            return call
    return None


class Trace:
    """A recording.

    Attributes
    ----------
    functions
        Every function that was traced, by number.
    meta
        Program, argv, python, started, clock, note.
    damage
        What is wrong with the file it came from, or None. What precedes the damage is there.
    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self.functions = contents.functions
        self.meta = contents.meta
        self.damage = contents.damage

    @classmethod
    def of(cls, events: Sequence[Event], functions: dict[int, FunctionInfo], meta: dict[str, Any]) -> Trace:
        """Return the trace of a list of events (see tracer/session.py)."""
        return cls(Contents(meta, functions, [(len(events), lambda: events)]))

    def __len__(self) -> int:
        """Return the number of events."""
        return sum(count for count, _ in self._contents.chunks)

    def events(self) -> Iterator[Event]:
        """Iterate over the raw events (see tracer/session.py); chunks are decoded one at a time."""
        for _, events in self._chunks():
            yield from events

    def _chunks(self) -> Iterator[tuple[int, Sequence[Event]]]:
        step = 0
        for count, decode in list(self._contents.chunks):
            try:
                events = decode()
                if type(events) not in (list, tuple) or len(events) != count:
                    raise DamagedTraceError(f"damaged chunk of {count} events")
            except DamagedTraceError as error:
                self._damaged(step, error)
                return
            yield step, events
            step += count

    def _damaged(self, step: int, error: Exception) -> None:
        if self.damage is None:
            self.damage = f"{error}; the {step} events before it were read"

    @cached_property
    def _index(self) -> _Index:
        index = _Index()
        collecting = gc.isenabled()
        # millions of objects that stay: each collection would look at all of them
        gc.disable()
        try:
            for step, events in self._chunks():
                try:
                    index.add(self.functions, events, step)
                except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                    self._damaged(
                        step, DamagedTraceError(f"malformed event ({type(error).__name__}: {error})")
                    )
                    break
        finally:
            if collecting:
                gc.enable()
        return index

    def calls(
        self,
        *,
        file: str | None = None,
        function: str | None = None,
        thread: int | None = None,
        depth: int | None = None,
    ) -> Iterator[Call]:
        """Iterate over the calls in order of entry.

        Parameters
        ----------
        file, function
            Globs over C file and C function: ``block/*``, ``qcow_*``.
        thread
            Number of a thread.
        depth
            Greatest depth.
        """
        fids = {
            info.fid
            for info in self.functions.values()
            if (file is None or fnmatchcase(info.file, file))
            and (function is None or fnmatchcase(info.name, function))
        }
        for call in self._index.calls:
            if (
                call.info.fid in fids
                and (thread is None or call.thread == thread)
                and (depth is None or call.depth <= depth)
            ):
                yield call

    def tree(self) -> Node:
        """Return the call tree; tracer/passes.py folds and cuts it."""
        from tracer.passes import build

        return build(self._index.calls)

    def stats(self, among: Container[Call] | None = None) -> Stats:
        """Return counts and times by function; with `among`, of these calls only."""
        from tracer.stats import stats

        return stats(self, among)

    @cached_property
    def _history(self) -> History:
        from tracer.state import History

        return History(self._index.structs)

    def struct_events(self) -> list[tuple[int, Event, Call | None]]:
        """Return the structure events: step, raw event, the innermost call of its thread."""
        return self._index.structs

    def objects(self) -> list[ObjectInfo]:
        """Return every structure seen: id, struct, the steps of its first sight and of its end."""
        return self._history.objects()

    def state_at(self, step: int) -> dict[str, StructState]:
        """Return the structures that exist after event `step`, by id, with their fields' encoded values."""
        return self._history.state_at(step)

    def writes(self, struct: str | None = None, field: str | None = None) -> list[Write]:
        """Return who wrote the fields of a struct, and when.

        Parameters
        ----------
        struct
            A struct's name (``BlockDriverState``: all of them) or an object's id (``BlockDriverState#3``);
            None for every struct.
        field
            One field's name; None for all.
        """
        return self._history.writes(struct, field)


def load(path: str | os.PathLike[str]) -> Trace:
    """Read a trace file.

    A damaged one gives a trace of what precedes the damage, with `damage` set.

    Raises
    ------
    DamagedTraceError
        When nothing can be read: no trace, an empty one, or one of a newer major version.
    """
    return Trace(read(os.fspath(path)))
