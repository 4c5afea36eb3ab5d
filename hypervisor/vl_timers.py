"""Clocks, timers and the alarm that wakes the main loop: a part of vl.c.

Three clocks: `rt_clock` (milliseconds, always running), `vm_clock` (nanoseconds, stands while the machine
is stopped) and `host_clock` (the host's time of day). Each has a list of its pending timers, soonest first.

    active_timers[clock.type] -> QEMUTimer -> QEMUTimer -> None

The alarm is QEMU's "dynticks". The real one is a POSIX timer whose signal interrupts whatever runs; here the
deadline is kept, and the main loop and the CPU loop ask for it between two steps (`_alarm_due`), so that
`host_alarm_handler` has the main loop or cpu_exec for its caller and never an accidental one.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hypervisor import icount, trace_io
from hypervisor.kvm_all import kvm_enabled
from hypervisor.program import on_exit, on_reset
from tracer import Struct, symbol, traced

if TYPE_CHECKING:
    from hypervisor.savevm_file import QEMUFile

C_FILE = "vl.c"

QEMU_CLOCK_REALTIME = 0
QEMU_CLOCK_VIRTUAL = 1
QEMU_CLOCK_HOST = 2
ALARM_FLAG_DYNTICKS = 0x1
ALARM_FLAG_EXPIRED = 0x2
MIN_TIMER_REARM_US = 250
GUI_REFRESH_INTERVAL = 30
_INT32_MAX = 0x7FFFFFFF


class QEMUClock(Struct):
    """`QEMUClock`: `type` is a QEMU_CLOCK_*."""

    type: int = 0


class QEMUTimer(Struct):
    """`QEMUTimer`: calls `cb(opaque)` once `clock` has reached `expire_time`, in the clock's unit."""

    clock: QEMUClock | None = None
    expire_time: int = 0
    cb: Callable[[Any], None] | None = None
    opaque: Any = None
    next: QEMUTimer | None = None


class QemuAlarmTimer(Struct):
    """`struct qemu_alarm_timer`; `deadline` is ours, in monotonic nanoseconds."""

    name: str = "dynticks"
    flags: int = ALARM_FLAG_DYNTICKS
    deadline: int | None = None


class TimersState(Struct):
    """`TimersState`: what turns the host's clock into the machine's."""

    cpu_ticks_prev: int = 0
    cpu_ticks_offset: int = 0
    cpu_clock_offset: int = 0
    cpu_ticks_enabled: int = 0


rt_clock = symbol(QEMUClock(type=QEMU_CLOCK_REALTIME), "rt_clock")
vm_clock = symbol(QEMUClock(type=QEMU_CLOCK_VIRTUAL), "vm_clock")
host_clock = symbol(QEMUClock(type=QEMU_CLOCK_HOST), "host_clock")
timers_state = symbol(TimersState(), "timers_state")
active_timers: list[QEMUTimer | None] = [None, None, None]
alarm_timer: QemuAlarmTimer | None = None
timer_alarm_pending = 1
nographic_timer: QEMUTimer | None = None
_io_thread_fd = -1
_event_fds: list[int] = []


@on_reset
def _reset() -> None:
    global alarm_timer, timer_alarm_pending, nographic_timer, _io_thread_fd
    active_timers[:] = [None, None, None]
    alarm_timer = nographic_timer = None
    timer_alarm_pending = 1
    _io_thread_fd = -1
    for field in ("cpu_ticks_prev", "cpu_ticks_offset", "cpu_clock_offset", "cpu_ticks_enabled"):
        setattr(timers_state, field, 0)


@on_exit
def _close_event_pipe() -> None:
    global _io_thread_fd
    _io_thread_fd = -1
    while _event_fds:
        os.close(_event_fds.pop())


@traced
def get_clock_realtime() -> int:
    """Nanoseconds since 1970, in whole microseconds."""
    return icount.time_ns() // 1000 * 1000


@traced
def init_get_clock() -> None:
    """Choose the monotonic clock; here there is always one."""


@traced
def get_clock() -> int:
    """Nanoseconds of the host's monotonic clock."""
    return icount.monotonic_ns()


@traced(file="cpu-all.h")
def cpu_get_real_ticks() -> int:
    """The host's cycle counter; a monotonic count stands in for it."""
    return icount.now() if icount.enabled() else time.perf_counter_ns()


@traced
def cpu_get_icount() -> int:
    """The guest's time by its instructions; as `cpu_get_clock` it stands while the machine is stopped."""
    return timers_state.cpu_clock_offset + (icount.now() if timers_state.cpu_ticks_enabled else 0)


@traced
def cpu_get_ticks() -> int:
    """The guest's cycle counter, standing while the machine is stopped."""
    if icount.enabled():
        return cpu_get_icount()
    if not timers_state.cpu_ticks_enabled:
        return timers_state.cpu_ticks_offset
    ticks = cpu_get_real_ticks()
    timers_state.cpu_ticks_prev = ticks
    return ticks + timers_state.cpu_ticks_offset


@traced
def cpu_get_clock() -> int:
    """The guest's time in nanoseconds, standing while the machine is stopped."""
    if not timers_state.cpu_ticks_enabled:
        return timers_state.cpu_clock_offset
    return get_clock() + timers_state.cpu_clock_offset


@traced
def cpu_enable_ticks() -> None:
    """Let the guest's time run."""
    if not timers_state.cpu_ticks_enabled:
        timers_state.cpu_ticks_offset -= cpu_get_real_ticks()
        timers_state.cpu_clock_offset -= get_clock()
        timers_state.cpu_ticks_enabled = 1


@traced
def cpu_disable_ticks() -> None:
    """Stop the guest's time."""
    if timers_state.cpu_ticks_enabled:
        timers_state.cpu_ticks_offset = cpu_get_ticks()
        timers_state.cpu_clock_offset = cpu_get_clock()
        timers_state.cpu_ticks_enabled = 0


@traced
def qemu_new_clock(type: int) -> QEMUClock:
    """Make a clock; each of the three exists once."""
    return (rt_clock, vm_clock, host_clock)[type]


@traced
def init_clocks() -> None:
    """Make the three clocks, first of all in main."""
    init_get_clock()
    qemu_new_clock(QEMU_CLOCK_REALTIME)
    qemu_new_clock(QEMU_CLOCK_VIRTUAL)
    qemu_new_clock(QEMU_CLOCK_HOST)


@traced
def qemu_get_clock(clock: QEMUClock) -> int:
    """Read a clock: milliseconds of `rt_clock`, nanoseconds of the other two."""
    if clock.type == QEMU_CLOCK_REALTIME:
        return get_clock() // 1_000_000
    if clock.type == QEMU_CLOCK_VIRTUAL:
        return cpu_get_icount() if icount.enabled() else cpu_get_clock()
    return get_clock_realtime()


@traced
def qemu_new_timer(clock: QEMUClock, cb: Callable[[Any], None], opaque: Any) -> QEMUTimer:
    """Make a timer that is not pending yet."""
    return QEMUTimer(clock=clock, cb=cb, opaque=opaque)


@traced
def qemu_del_timer(ts: QEMUTimer) -> None:
    """Take a timer off its list, if it is on it."""
    assert ts.clock is not None
    before, timer = None, active_timers[ts.clock.type]
    while timer is not None and timer is not ts:
        before, timer = timer, timer.next
    if timer is None:
        return
    if before is None:
        active_timers[ts.clock.type] = ts.next
    else:
        before.next = ts.next


@traced
def qemu_free_timer(ts: QEMUTimer) -> None:
    """Nothing: whoever has the timer forgets it."""


@traced
def qemu_mod_timer(ts: QEMUTimer, expire_time: int) -> None:
    """Set a timer off at `expire_time`, in its clock's unit; a new soonest one rearms the alarm."""
    assert ts.clock is not None
    qemu_del_timer(ts)
    before, timer = None, active_timers[ts.clock.type]
    while timer is not None and timer.expire_time <= expire_time:
        before, timer = timer, timer.next
    ts.expire_time = expire_time
    ts.next = timer
    if before is not None:
        before.next = ts
        return
    active_timers[ts.clock.type] = ts
    if alarm_timer is not None and not alarm_timer.flags & ALARM_FLAG_EXPIRED:
        qemu_rearm_alarm_timer(alarm_timer)


@traced
def qemu_timer_pending(ts: QEMUTimer) -> int:
    """Whether a timer waits on its list."""
    assert ts.clock is not None
    timer = active_timers[ts.clock.type]
    while timer is not None and timer is not ts:
        timer = timer.next
    return int(timer is not None)


@traced
def qemu_run_timers(ptimer_head: int, current_time: int) -> None:
    """Call all timers of a list that are due; `ptimer_head` is the list's index, a QEMU_CLOCK_*."""
    while True:
        ts = active_timers[ptimer_head]
        if ts is None or ts.expire_time > current_time:
            return
        active_timers[ptimer_head] = ts.next
        ts.next = None
        assert ts.cb is not None
        ts.cb(ts.opaque)


@traced
def qemu_next_deadline() -> int:
    """Nanoseconds until the next timer of the guest or of the time of day."""
    delta = _INT32_MAX
    timer = active_timers[QEMU_CLOCK_VIRTUAL]
    if timer is not None:
        delta = timer.expire_time - qemu_get_clock(vm_clock)
    timer = active_timers[QEMU_CLOCK_HOST]
    if timer is not None:
        delta = min(delta, timer.expire_time - qemu_get_clock(host_clock))
    return max(delta, 0)


@traced
def qemu_next_deadline_dyntick() -> int:
    """Microseconds until the next timer of any clock, 250 at least."""
    delta = (qemu_next_deadline() + 999) // 1000
    timer = active_timers[QEMU_CLOCK_REALTIME]
    if timer is not None:
        delta = min(delta, (timer.expire_time - qemu_get_clock(rt_clock)) * 1000)
    return max(delta, MIN_TIMER_REARM_US)


@traced
def alarm_has_dynticks(t: QemuAlarmTimer) -> int:
    """Whether the alarm can be set to any moment."""
    return t.flags & ALARM_FLAG_DYNTICKS


@traced
def dynticks_start_timer(t: QemuAlarmTimer) -> int:
    """Make the alarm usable; it is not set."""
    t.deadline = None
    return 0


@traced
def dynticks_rearm_timer(t: QemuAlarmTimer) -> None:
    """Set the alarm to the next timer, unless it stands there already or no timer is pending."""
    if not any(active_timers):
        return
    now = icount.monotonic_ns()
    deadline = now + qemu_next_deadline_dyntick() * 1000
    if t.deadline is None or t.deadline > deadline or t.deadline <= now:
        t.deadline = deadline
        if kvm_enabled() and threading.current_thread() is not threading.main_thread():
            # The main loop waits in select() for the old deadline.
            _wake()


@traced
def qemu_rearm_alarm_timer(t: QemuAlarmTimer) -> None:
    """Set an alarm that rings once."""
    if alarm_has_dynticks(t):
        dynticks_rearm_timer(t)


@traced
def init_timer_alarm() -> int:
    """Start the alarm; the first kind that works is taken, and here it is the first."""
    global alarm_timer
    t = QemuAlarmTimer()
    err = dynticks_start_timer(t)
    alarm_timer = t
    return err


@traced
def dynticks_stop_timer(t: QemuAlarmTimer) -> None:
    """Unset the alarm."""
    t.deadline = None


@traced
def quit_timers() -> None:
    """Give the alarm up, when the main loop has ended."""
    global alarm_timer
    if alarm_timer is not None:
        dynticks_stop_timer(alarm_timer)
    alarm_timer = None


@traced
def qemu_put_timer(f: QEMUFile, ts: QEMUTimer | None) -> None:
    """Write when a timer goes off; all ones if it is not pending."""
    from hypervisor.savevm_file import qemu_put_be64

    qemu_put_be64(f, ts.expire_time if ts is not None and qemu_timer_pending(ts) else -1)


@traced
def qemu_get_timer(f: QEMUFile, ts: QEMUTimer) -> None:
    """Set a timer to what was written."""
    from hypervisor.savevm_file import qemu_get_be64

    expire_time = qemu_get_be64(f)
    if expire_time != (1 << 64) - 1:
        qemu_mod_timer(ts, expire_time)
    else:
        qemu_del_timer(ts)


@traced
def host_alarm_handler(host_signum: int) -> None:
    """The alarm rings: have the CPU and select() come back."""
    global timer_alarm_pending
    from hypervisor.vl_loop import qemu_notify_event

    if alarm_timer is None or not alarm_has_dynticks(alarm_timer):
        return
    qemu_event_increment()
    alarm_timer.flags |= ALARM_FLAG_EXPIRED
    alarm_timer.deadline = None
    timer_alarm_pending = 1
    qemu_notify_event()


@traced
def qemu_event_increment() -> None:
    """Write a byte into the pipe that wakes select()."""
    _wake()


@traced
def qemu_event_read(opaque: int) -> None:
    """Drain the pipe that wakes select()."""
    with contextlib.suppress(BlockingIOError):
        while os.read(opaque, 512):
            pass


@traced
def fcntl_setfl(fd: int, flag: int) -> int:
    """Add a file status flag; here O_NONBLOCK is the only one asked for."""
    if flag & os.O_NONBLOCK:
        os.set_blocking(fd, False)
    return 0


@traced
def qemu_event_init() -> int:
    """Make the pipe that wakes select()."""
    global _io_thread_fd
    from hypervisor.vl_loop import qemu_set_fd_handler2

    fds = os.pipe()
    _event_fds.extend(fds)
    fcntl_setfl(fds[0], os.O_NONBLOCK)
    fcntl_setfl(fds[1], os.O_NONBLOCK)
    qemu_set_fd_handler2(fds[0], None, qemu_event_read, None, fds[0])
    _io_thread_fd = fds[1]
    return 0


@traced
def nographic_update(opaque: None) -> None:
    """Come back every 30 ms: a machine without display keeps its main loop turning by this."""
    if nographic_timer is not None:
        qemu_mod_timer(nographic_timer, qemu_get_clock(rt_clock) + GUI_REFRESH_INTERVAL)


def _start_nographic_timer() -> None:
    global nographic_timer
    nographic_timer = qemu_new_timer(rt_clock, nographic_update, None)
    qemu_mod_timer(nographic_timer, qemu_get_clock(rt_clock))


def _take_pending_alarm() -> bool:
    """Whether the alarm has rung since the last call."""
    global timer_alarm_pending
    pending, timer_alarm_pending = timer_alarm_pending, 0
    return bool(pending)


def _alarm_due() -> bool:
    deadline = alarm_timer.deadline if alarm_timer is not None else None
    return deadline is not None and icount.monotonic_ns() >= deadline


def _until_alarm(limit: int) -> int:
    """`limit`, or the nanoseconds until the alarm if these are fewer."""
    deadline = alarm_timer.deadline if alarm_timer is not None else None
    if deadline is None:
        return limit
    return min(limit, max(deadline - icount.monotonic_ns(), 0))


def _wake() -> None:
    """Have select() return, also from a signal handler or another thread."""
    if _io_thread_fd >= 0:
        with contextlib.suppress(BlockingIOError):
            os.write(_io_thread_fd, b"\0")


def _guest_nanoseconds() -> int:
    """`qemu_get_clock(vm_clock)` without a trace of asking."""
    return timers_state.cpu_clock_offset + (icount.monotonic_ns() if timers_state.cpu_ticks_enabled else 0)


def _clock_at_port() -> int:
    """`qemu_get_clock(vm_clock)` for a port that guests read until time has passed, thousands of times.

    Asking is a part of the port's access: a trace has it when it has those.
    """
    return qemu_get_clock(vm_clock) if trace_io.is_enabled() else _guest_nanoseconds()


def _guest_seconds() -> float:
    """The guest's time without a trace of asking; for the BIOS clock."""
    return _guest_nanoseconds() / 1e9
