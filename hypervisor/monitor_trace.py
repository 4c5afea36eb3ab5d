"""`trace`, the monitor's one command that QEMU has not: record what this very program does.

    trace on           record all calls and structure changes from now on
    trace off          stop
    trace status       whether a recording runs, and how much it has
    trace save FILE    store what was recorded, for `studykvm trace show FILE`
    trace tail [N]     the last N calls, 20 without a number

So a student sees one command of a running machine: `trace on`, `info block`, `trace off`, `trace tail`. Calls
that were under way at `trace on` are not in it, and those under way at `trace off` have no end. What is
recorded goes to a temporary file: memory does not grow. A run that --trace records as a whole is not touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import warnings
from typing import Final

from hypervisor.monitor import Arguments, Monitor, monitor_printf
from hypervisor.program import on_exit
from tracer import TracerError, TracerWarning, load, record
from tracer.session import current

_TAIL: Final = 20
_READABLE: Final = 16 << 20
_USAGE: Final = "usage: trace on|off|status|save FILE|tail [N]\n"


class _Recording:
    """The recording of this program, and the file it goes to."""

    def __init__(self) -> None:
        self.recorder: record | None = None
        self.path: str | None = None
        self.damage: str | None = None

    @property
    def running(self) -> bool:
        return self.recorder is not None

    def start(self) -> None:
        """Begin anew; what was recorded before is dropped."""
        self.forget()
        self.damage = None
        handle, self.path = tempfile.mkstemp(prefix="studykvm-", suffix=".trace")
        os.close(handle)
        self.recorder = record(self.path, note="trace on, in the monitor").start()

    def stop(self) -> None:
        """End the recording, if it runs; what it has stays."""
        if self.recorder is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TracerWarning)
                self.recorder.stop()
            self.damage = self.recorder.damage
            self.recorder = None

    def forget(self) -> None:
        """Drop everything."""
        self.stop()
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            self.path = None


_recording = _Recording()


@on_exit
def _forget() -> None:
    _recording.forget()


def do_trace(mon: Monitor, qdict: Arguments) -> None:
    """Obey `trace`."""
    what, file = qdict.get("what", "status"), qdict.get("file")
    if what not in _OBEY or (file is None and what == "save") or (file and what not in ("save", "tail")):
        monitor_printf(mon, _USAGE)
        return
    try:
        _OBEY[what](mon, file or "")
    except TracerError as error:
        monitor_printf(mon, "trace %s: %s\n", what, error)


def _on(mon: Monitor, file: str) -> None:
    if _recording.running:
        monitor_printf(mon, "trace: it is on already; trace off ends it\n")
    elif current() is not None:
        monitor_printf(mon, "trace: the whole run is being recorded by --trace already\n")
    else:
        _recording.start()


def _off(mon: Monitor, file: str) -> None:
    if _recording.running:
        _recording.stop()
        if _recording.damage is not None:
            monitor_printf(mon, "trace: it is incomplete: %s\n", _recording.damage)
    else:
        monitor_printf(mon, "trace: it is off already\n")


def _status(mon: Monitor, file: str) -> None:
    if not _recording.running and current() is not None:
        monitor_printf(mon, "trace: the whole run is being recorded by --trace\n")
    elif _recording.path is None:
        monitor_printf(mon, "trace: off, nothing is recorded\n")
    else:
        size = os.path.getsize(_recording.path)
        monitor_printf(mon, "trace: %s, %d bytes recorded\n", "on" if _recording.running else "off", size)


def _recorded(mon: Monitor) -> str | None:
    """The file of a recording that has ended, as it must before it is read; None after a message."""
    if _recording.path is None:
        monitor_printf(mon, "trace: nothing is recorded; trace on begins\n")
        return None
    if _recording.running:
        monitor_printf(mon, "trace: it goes on; trace off before it is read\n")
        return None
    return _recording.path


def _save(mon: Monitor, file: str) -> None:
    path = _recorded(mon)
    if path is not None:
        shutil.copyfile(path, file)


def _tail(mon: Monitor, file: str) -> None:
    if file and not (file.isdecimal() and int(file)):
        monitor_printf(mon, _USAGE)
        return
    path = _recorded(mon)
    if path is None:
        return
    if os.path.getsize(path) > _READABLE:
        monitor_printf(mon, "trace: it is too large to be read here: trace save FILE\n")
        return
    calls = list(load(path).calls())[-int(file or _TAIL) :]
    least = min((call.depth for call in calls), default=0)
    for call in calls:
        indent = "  " * (call.depth - least)
        end = " ..." if call.open else ""
        monitor_printf(mon, "%s%s%s  %s\n", indent, call.function, end, call.file)


_OBEY = {"on": _on, "off": _off, "status": _status, "save": _save, "tail": _tail}
