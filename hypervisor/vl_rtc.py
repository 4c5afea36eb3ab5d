"""Which time the guest's clock shows: a part of vl.c.

- `configure_rtc(opts)`, `configure_rtc_date_offset(startdate, legacy)`: -rtc and -startdate.
- `rtc_clock()`: the clock by which it goes on, `host_clock` or `vm_clock`.
- `qemu_get_timedate(offset)`: the time it starts with.

`state.rtc_date_offset` is how many seconds the guest's clock is behind the host's, -1 for none.
"""

from __future__ import annotations

import re
import sys
import time
from typing import NoReturn

from hypervisor import icount
from hypervisor.qemu_option import QemuOpts, qemu_opt_get
from hypervisor.vl_state import state
from hypervisor.vl_timers import QEMUClock, host_clock, vm_clock
from tracer import traced

C_FILE = "vl.c"

_DATE = re.compile(r"\s*([-+]?\d+)-\s*([-+]?\d+)-\s*([-+]?\d+)")
_TIME = re.compile(r"T\s*([-+]?\d+):\s*([-+]?\d+):\s*([-+]?\d+)")


def _refuse(*lines: str) -> NoReturn:
    print("\n".join(lines), file=sys.stderr)
    raise SystemExit(1)


def _seconds(text: str) -> int | None:
    """Seconds since 1970 of a date, with or without a time behind it; None if it is neither.

    >>> _seconds("1970-01-02"), _seconds("1970-01-01T00:01:05"), _seconds("tomorrow")
    (86400, 65, None)
    """
    import calendar

    date = _DATE.match(text)
    if date is None:
        return None
    clock = _TIME.match(text, date.end())
    hms = [int(number) for number in clock.groups()] if clock else [0, 0, 0]
    try:
        return calendar.timegm((*(int(number) for number in date.groups()), *hms))
    except (ValueError, OverflowError):
        return None


@traced
def configure_rtc_date_offset(startdate: str, legacy: int) -> None:
    """Have the guest's clock start at a date; leaves the program after a message.

    Parameters
    ----------
    legacy
        Of -startdate, which knows "now", too.
    """
    if startdate == "now" and legacy:
        state.rtc_date_offset = -1
        return
    start = _seconds(startdate)
    if start is None or start == -1:
        _refuse("Invalid date format. Valid formats are:", "'2006-06-17T16:01:21' or '2006-06-17'")
    state.rtc_date_offset = icount.time_ns() // 1_000_000_000 - start


@traced
def configure_rtc(opts: QemuOpts) -> None:
    """Obey -rtc; leaves the program after a message."""
    base = qemu_opt_get(opts, "base")
    if base in ("utc", "localtime"):
        state.rtc_utc = int(base == "utc")
    elif base is not None:
        configure_rtc_date_offset(base, 0)
    clock = qemu_opt_get(opts, "clock")
    if clock not in (None, "host", "vm"):
        _refuse(f"qemu: invalid option value '{clock}'")
    state.rtc_follows_vm = int(clock == "vm")


def rtc_clock() -> QEMUClock:
    """The clock that moves the guest's."""
    return vm_clock if state.rtc_follows_vm else host_clock


@traced
def qemu_get_timedate(offset: int) -> time.struct_time:
    """Date and time that the guest's clock starts with, `offset` seconds on."""
    seconds = icount.time_ns() // 1_000_000_000 + offset
    if state.rtc_date_offset != -1:
        return time.gmtime(seconds - state.rtc_date_offset)
    return time.gmtime(seconds) if state.rtc_utc else time.localtime(seconds)
