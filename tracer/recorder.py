"""Recording: starting, stopping, and carrying events from the session's list to the file.

- `record(path)`: a context manager; `start()` and `stop()` do the same by hand. Then `.trace` is the trace.

A thread of its own writes what has come together as soon as the program pauses, after a second at the latest,
or sooner when there is much of it: what a killed program leaves is readable up to then. While the program is
busy the thread stays out of its way: both want the interpreter. A write that fails ends the recording, not
the program.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Self

from tracer.errors import TracerError, TracerWarning
from tracer.fileformat import FunctionInfo, Writer
from tracer.functions import entries_from, install, uninstall
from tracer.session import Session, current, set_current
from tracer.trace import Trace, load

FLUSH_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.05
FLUSH_EVENTS: Final = 200_000
CHUNK_EVENTS: Final = 8192


class record:
    """Record every traced call and structure change between `start` and `stop`.

    Parameters
    ----------
    path
        Trace file to write; None keeps the trace in memory.
    note
        Free text kept in the trace's metadata.
    only
        Patterns of C files, such as ``"block*"``: calls of other files' functions are left out. Changes of
        structures are all kept.

    Raises
    ------
    TracerError
        On `start`: when a recording is running already, or the file cannot be written.

    Examples
    --------
    >>> with record() as recording:
    ...     pass
    >>> len(recording.trace)
    0
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, note: str = "", only: Iterable[str] = ()
    ) -> None:
        # absolute: the program may change its directory
        self.path = None if path is None else os.path.abspath(path)
        self.damage: str | None = None
        self._note = note
        self._only = tuple(only)
        self._session: Session | None = None
        self._trace: Trace | None = None

    def start(self) -> Self:
        """Begin to record.

        Raises
        ------
        TracerError
            When a recording runs already, or the file cannot be written.
        """
        if current() is not None:
            raise TracerError("a recording is already running in this process; stop it first")
        sink = None if self.path is None else Writer(self.path)
        self._session = session = Session(self._only)
        self._meta = _metadata(self._note, session)
        if sink is not None:
            self._sink: _Sink = _Sink(sink, session, self._meta)
            self._sink.start()
        self._recursion_limit = sys.getrecursionlimit()
        # every traced call takes a second frame
        self._raised_limit = 2 * self._recursion_limit + 100
        sys.setrecursionlimit(self._raised_limit)
        global _running
        _running = self
        set_current(session)
        install(session)
        session.install_struct_hooks()
        atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """End the recording; does nothing when it has ended."""
        session = self._leave()
        if session is None:
            return
        atexit.unregister(self.stop)
        if self.path is None:
            # a copy: calls that still run in other threads append their ends
            self._trace = Trace.of(list(session.events), _functions(0), self._meta)
        else:
            self.damage = self._sink.finish()
            if self.damage is not None:
                text = f"{self.path}: the trace is incomplete: {self.damage}"
                warnings.warn(text, TracerWarning, stacklevel=2)

    def _leave(self) -> Session | None:
        session = self._session
        if session is None or current() is not session:
            return None
        set_current(None)
        uninstall()
        session.end()
        if sys.getrecursionlimit() == self._raised_limit:
            sys.setrecursionlimit(self._recursion_limit)
        return session

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def trace(self) -> Trace:
        """The finished trace.

        Raises
        ------
        TracerError
            While the recording runs.
        """
        if self._session is None or current() is self._session:
            raise TracerError("the trace is there when the recording has ended")
        if self._trace is None:
            assert self.path is not None
            self._trace = load(self.path)
        return self._trace


_running: record | None = None


def _abandon() -> None:
    """In a forked child: stop recording, and leave the parent's file alone."""
    if _running is not None:
        _running._leave()


os.register_at_fork(after_in_child=_abandon)


def _metadata(note: str, session: Session) -> dict[str, Any]:
    return {
        "program": os.path.basename(sys.argv[0]) if sys.argv else "",
        "argv": [os.fsencode(arg).decode("utf-8", "backslashreplace") for arg in sys.argv],
        "python": sys.version.split()[0],
        "started": time.time(),
        "clock": session.clock(),
        "note": note,
    }


def _functions(first: int) -> dict[int, FunctionInfo]:
    return {
        e.fid: FunctionInfo(e.fid, e.file, e.name, e.module, e.line, e.params) for e in entries_from(first)
    }


class _Sink(threading.Thread):
    """Carries events to the file until it is told to finish."""

    def __init__(self, writer: Writer, session: Session, meta: dict[str, Any]) -> None:
        super().__init__(name="tracer", daemon=True)
        self._writer = writer
        self._session = session
        self._written = 0
        self._next_fid = 0
        self._failure: str | None = None
        self._ended = threading.Event()
        self._attempt(lambda: writer.map(b"M", meta))

    def run(self) -> None:
        last, before, events = time.monotonic(), 0, self._session.events
        while not self._ended.wait(POLL_SECONDS):
            count = len(events)
            paused = count == before or time.monotonic() - last >= FLUSH_SECONDS
            if count >= FLUSH_EVENTS or (count and paused):
                self._attempt(self._flush)
                last = time.monotonic()
            before = len(events)

    def finish(self) -> str | None:
        """Write the rest, close the file, and say what failed."""
        self._ended.set()
        self.join()
        self._attempt(self._flush)
        self._attempt(lambda: self._writer.map(b"Z", {"events": self._written}))
        self._writer.close()
        return self._failure

    def _attempt(self, write: Any) -> None:
        """Write, unless writing failed before: then the events are dropped, so that memory does not fill."""
        if self._failure is not None:
            self._session.events.clear()
            return
        try:
            write()
        except OSError as error:
            self._failure = f"{error.strerror} after {self._written} events"

    def _flush(self) -> None:
        events = self._session.events
        while count := min(len(events), CHUNK_EVENTS):
            batch = events[:count]
            # taken after the events: so it has every function that they mention
            functions = _functions(self._next_fid)
            if functions:
                table = [(f.fid, f.file, f.name, f.module, f.line, f.params) for f in functions.values()]
                self._writer.items(b"F", table)
                self._next_fid += len(functions)
            self._writer.items(b"E", batch)
            del events[:count]
            self._written += count
