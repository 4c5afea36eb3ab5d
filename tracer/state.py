"""What became of the structures: their states at any step, and who wrote which field.

- `History`: rebuilds both from the structure events of a trace.
- `StructState`, `ObjectInfo`, `Write`: what it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracer.session import Event
from tracer.values import Value

if TYPE_CHECKING:
    from tracer.trace import Call


class StructState(dict[str, Value]):
    """A structure's fields at one step, by name; `id` and `struct` say whose they are."""

    def __init__(self, id: str, struct: str, fields: dict[str, Value]) -> None:
        super().__init__(fields)
        self.id = id
        self.struct = struct


@dataclass(slots=True)
class ObjectInfo:
    """A structure of a trace; `freed` is the step at which it was freed, or None."""

    id: str
    struct: str
    step: int
    freed: int | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """A field's new value; `call` is the innermost call of that thread, `path` the functions down to it."""

    step: int
    thread: int
    t: int
    object: str
    struct: str
    field: str
    old: Value
    new: Value
    call: Call | None

    @property
    def path(self) -> tuple[str, ...]:
        """The functions from the outermost call to the one that wrote."""
        return self.call.path if self.call is not None else ()


class History:
    """The structure events of a trace, in order; each with its step and the call it happened in."""

    def __init__(self, events: Sequence[tuple[int, Event, Call | None]]) -> None:
        self._events = events
        # where the last question left off, for questions in order of steps
        self._at = 0
        self._step = -1
        self._state: dict[str, StructState] = {}

    def objects(self) -> list[ObjectInfo]:
        """Return every structure, in order of first sight."""
        found: dict[str, ObjectInfo] = {}
        for step, (kind, _, _, name, *rest), _ in self._events:
            if kind == "n":
                found[name] = ObjectInfo(name, rest[0], step)
            elif kind == "f" and name in found:
                found[name].freed = step
        return list(found.values())

    def state_at(self, step: int) -> dict[str, StructState]:
        """Return the structures that exist after event `step`."""
        if step < self._step:
            self._at, self._state = 0, {}
        self._step = step
        while self._at < len(self._events) and self._events[self._at][0] <= step:
            self._apply(self._events[self._at][1])
            self._at += 1
        return {name: StructState(name, fields.struct, fields) for name, fields in self._state.items()}

    def _apply(self, event: Event) -> None:
        kind, _, _, name, *rest = event
        if kind == "n":
            self._state[name] = StructState(name, rest[0], rest[1])
        elif kind == "f":
            self._state.pop(name, None)
        elif name in self._state:
            self._state[name][rest[0]] = rest[2]

    def writes(self, struct: str | None = None, field: str | None = None) -> list[Write]:
        """Return the writes to a struct's or an object's fields; None means all."""
        structs: dict[str, str] = {}
        found = []
        for step, event, call in self._events:
            kind, thread, t, name = event[:4]
            if kind == "n":
                structs[name] = event[4]
            elif kind == "w" and struct in (None, name, structs.get(name)) and field in (None, event[4]):
                found.append(
                    Write(step, thread, t, name, structs.get(name, ""), event[4], event[5], event[6], call)
                )
        return found
