"""Recording: starting, stopping, and moving events out of the session's list.

- `record(path)`: a context manager; `start()` and `stop()` do the same by hand. Afterwards `.trace` is the trace.
"""
from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any, Self

from tracer.errors import TracerError
from tracer.functions import entries_from, install, uninstall
from tracer.session import Session, current, set_current
from tracer.trace import FunctionInfo, Trace


class record:
    def __init__(self, path: str | os.PathLike[str] | None = None, *, note: str = "") -> None:
        self.path = None if path is None else os.fspath(path)
        self.note = note

    def start(self) -> Self:
        if current() is not None:
            raise TracerError("a recording is already running; stop it first")
        self._session = session = Session()
        set_current(session)
        install(session)
        session.install_struct_hooks()
        return self

    def stop(self) -> None:
        set_current(None)
        uninstall()
        self._session.end()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: Any, error: Any, traceback: TracebackType | None) -> None:
        self.stop()

    @property
    def trace(self) -> Trace:
        functions = {e.fid: FunctionInfo(e.fid, e.file, e.name, e.module, e.line, e.params) for e in entries_from(0)}
        return Trace([self._session.events], functions, {})
