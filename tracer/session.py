"""One recording in progress: the event list, and what appends to it.

- `Session`: events, clock, thread numbers, structure ids, structure hooks.
- `free(obj)`: records that a structure was freed.
- `current()`, `set_current()`: the session now running, or None.

An event is a tuple ``(kind, thread, nanoseconds, ...)``; its position in the trace is its step::

    (fid, thread, t, arg, ...)                  a call begins: fid >= 0, arguments in the order of params
    (~fid, thread, t, value)                    it returns
    ("x", thread, t, fid, type, text)           it ends by an exception
    ("y", thread, t, token)                     the innermost call, a generator or coroutine, is suspended
    ("r", thread, t, token)                     the call suspended with that token goes on
    ("n", thread, t, id, class, {field: value}) a structure is first seen: its fields as they are now
    ("w", thread, t, id, field, old, new)       a field is written, by the innermost call of that thread
    ("f", thread, t, id)                        a structure is freed

Threads append without a lock: `list.append` is atomic.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from time import monotonic_ns
from types import NoneType
from typing import Any

from tracer.structs import NAMES, Struct, StructType, install_hooks, remove_hooks
from tracer.values import Value, make_encoder

Event = tuple[Any, ...]

_serials = itertools.count(1)
_current: Session | None = None


class _ThreadNumber(threading.local):
    """`n`: the number of the calling thread, in order of first use."""

    def __init__(self, counter: itertools.count[int]) -> None:
        self.n = next(counter)


class Session:
    """The state of one recording.

    Attributes
    ----------
    events
        What was recorded and not yet taken away.
    serial
        A number that no other session of this process has.
    only
        Patterns of C files, as a shell's, whose functions are recorded; none: all.
    """

    def __init__(self, only: Iterable[str] = ()) -> None:
        self.only = tuple(only)
        self.serial = next(_serials)
        self.events: list[Event] = []
        self.append = self.events.append
        self.thread = _ThreadNumber(itertools.count())
        self.clock = monotonic_ns
        self.encode: Callable[[Any], Value] = make_encoder(StructType, self.serial, self._announce, NAMES)
        self.active = True
        self.forms: dict[Any, Any] = {}
        """Recording code by the shape of a function, for `tracer.codegen`."""
        self.tokens = itertools.count(1)
        self._building: set[int] = set()
        self._numbers: dict[str, int] = {}
        self._lock = threading.RLock()
        self._pending: list[Struct] = []
        self._announcing = False
        # the starting thread is thread 0
        self.thread.n  # noqa: B018

    def install_struct_hooks(self) -> None:
        """Record creations and field writes from now on."""
        building, append, encode, announce = self._building, self.append, self.encode, self._announce
        number, nothing = int, NoneType
        thread, clock, plain_write, serial = self.thread, self.clock, object.__setattr__, self.serial

        def create(cls: Any, /, *args: Any, **kwargs: Any) -> Any:
            obj = cls.__new__(cls, *args, **kwargs)
            if type(obj) is cls:
                building.add(id(obj))
                try:
                    obj.__init__(*args, **kwargs)
                finally:
                    building.discard(id(obj))
                announce(obj)
            return obj

        def write(self_: Any, name: str, value: Any) -> None:
            if name not in type(self_).__struct_fields__ or (building and id(self_) in building):
                plain_write(self_, name, value)
                return
            try:
                known, (mark, label) = self_._trace_ref
            except AttributeError:
                known = 0
            if known != serial:
                mark, label = announce(self_)
            fields = self_.__dict__
            old, kind = fields.get(name), type(value)
            was = type(old)
            # numbers and null pointers, the commonest, are their own encoding
            before = old if was is number or was is nothing else encode(old)
            fields[name] = value
            after = value if kind is number or kind is nothing else encode(value)
            append(("w", thread.n, clock(), label if mark == "@" else "&" + label, name, before, after))

        install_hooks(create, write)

    def _announce(self, obj: Struct) -> Value:
        """Give a structure its id in this session and record its fields."""
        with self._lock:
            known, ref = getattr(obj, "_trace_ref", (0, None))
            if known == self.serial:
                # another thread was faster
                return ref
            ref = self._name(obj)
            self._pending.append(obj)
            if self._announcing:
                # the loop below, further up this very stack, takes it: no recursion along linked lists
                return ref
            self._announcing = True
            try:
                while self._pending:
                    self._record_new(self._pending.pop(0))
            finally:
                self._announcing = False
                self._pending.clear()
        return ref

    def _name(self, obj: Struct) -> Value:
        self._building.discard(id(obj))
        symbol = getattr(obj, "_trace_symbol", None)
        if symbol is not None:
            ref = ("&", symbol)
        else:
            name = type(obj).__name__
            number = self._numbers[name] = self._numbers.get(name, 0) + 1
            ref = ("@", f"{name}#{number}")
        obj._trace_ref = (self.serial, ref)
        return ref

    def _record_new(self, obj: Struct) -> None:
        encode, values, number, nothing = self.encode, obj.__dict__, int, NoneType
        fields = {}
        for name in type(obj).__struct_fields__:
            if name in values:
                value = values[name]
                kind = type(value)
                fields[name] = value if kind is number or kind is nothing else encode(value)
        ref = obj._trace_ref[1]
        self.append(("n", self.thread.n, self.clock(), object_id(ref), type(obj).__name__, fields))

    def freed(self, obj: Struct) -> None:
        """Record that a structure was freed."""
        ref = self.encode(obj)
        self.append(("f", self.thread.n, self.clock(), object_id(ref)))

    def end(self) -> None:
        """Stop recording structures; what calls still running append goes nowhere."""
        self.active = False
        remove_hooks()


def object_id(ref: tuple[str, str]) -> str:
    """Return the id of a referenced structure: ``BlockDriverState#3``, or ``&bdrv_raw`` for a named one."""
    return ref[1] if ref[0] == "@" else "&" + ref[1]


def free(obj: Struct) -> None:
    """Record that a structure was freed, as `qemu_free` does; nothing happens while no trace runs."""
    if _current is not None:
        _current.freed(obj)


def current() -> Session | None:
    """Return the running session, or None."""
    return _current


def recording() -> bool:
    """Whether a trace runs, so that shortcuts would show in it."""
    return _current is not None


def set_current(session: Session | None) -> None:
    """Make `session` the running one."""
    global _current
    _current = session
