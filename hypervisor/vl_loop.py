"""The main loop, its file handlers, and what starts, stops and resets the machine: a part of vl.c.

    main_loop: tcg_cpu_exec -> qemu_cpu_exec -> cpu_exec        the guest runs until something wants attention
               main_loop_wait(qemu_calculate_timeout())         select, timers, bottom halves
               ... until vm_can_run() says no: shutdown, reset

- `qemu_set_fd_handler2(fd, fd_read_poll, fd_read, fd_write, opaque)`: what select() watches.
- `qemu_register_reset(func, opaque)`, `qemu_system_reset()`.
- `vm_start()`, `vm_stop(reason)`, `qemu_add_vm_change_state_handler(cb, opaque)`.
- `qemu_system_shutdown_request()` and its kin: asked for now, done by the main loop.
- `give_up(why)`: ends a machine that nobody could bring on.
"""

from __future__ import annotations

import select
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from hypervisor import cpu_exec as cpu
from hypervisor import icount
from hypervisor import vl_timers as timers
from hypervisor.cpu_exec import CPUState
from hypervisor.kvm_all import kvm_enabled
from hypervisor.program import linked, on_exit, on_reset
from hypervisor.vl_state import state
from tracer import Struct, traced

C_FILE = "vl.c"

EXCP_DEBUG = 0x10002
_IDLE_MS = 5000


class IOHandlerRecord(Struct):
    """`IOHandlerRecord`: the handlers of one file descriptor."""

    fd: int = -1
    fd_read_poll: Callable[[Any], int] | None = None
    fd_read: Callable[[Any], None] | None = None
    fd_write: Callable[[Any], None] | None = None
    deleted: int = 0
    opaque: Any = None
    next: IOHandlerRecord | None = None


class QEMUResetEntry(Struct):
    """`QEMUResetEntry`: a device's reset function."""

    func: Callable[[Any], None] | None = None
    opaque: Any = None


class VMChangeStateEntry(Struct):
    """`VMChangeStateEntry`: told when the machine starts or stops."""

    cb: Callable[[Any, int, int], None] | None = None
    opaque: Any = None


_first_io_handler: IOHandlerRecord | None = None
_reset_handlers: list[QEMUResetEntry] = []
_vm_change_state_head: list[VMChangeStateEntry] = []
_old_signals: dict[int, Any] = {}


@on_reset
def _reset() -> None:
    global _first_io_handler
    _first_io_handler = None
    _reset_handlers.clear()
    _vm_change_state_head.clear()


@on_exit
def _restore_signals() -> None:
    while _old_signals:
        signal.signal(*_old_signals.popitem())


def _handlers() -> list[IOHandlerRecord]:
    found, ioh = [], _first_io_handler
    while ioh is not None:
        found.append(ioh)
        ioh = ioh.next
    return found


@traced
def qemu_set_fd_handler2(
    fd: int,
    fd_read_poll: Callable[[Any], int] | None,
    fd_read: Callable[[Any], None] | None,
    fd_write: Callable[[Any], None] | None,
    opaque: Any,
) -> int:
    """Set, change or (with neither `fd_read` nor `fd_write`) remove the handlers of a descriptor.

    Parameters
    ----------
    fd_read_poll
        Asked before each select(): 0 if nothing can be taken now.
    """
    global _first_io_handler
    ioh = next((entry for entry in _handlers() if entry.fd == fd), None)
    if fd_read is None and fd_write is None:
        if ioh is not None:
            ioh.deleted = 1
    else:
        if ioh is None:
            ioh = IOHandlerRecord(next=_first_io_handler)
            _first_io_handler = ioh
        ioh.fd = fd
        ioh.fd_read_poll = fd_read_poll
        ioh.fd_read = fd_read
        ioh.fd_write = fd_write
        ioh.opaque = opaque
        ioh.deleted = 0
    qemu_notify_event()
    return 0


@traced
def qemu_set_fd_handler(
    fd: int, fd_read: Callable[[Any], None] | None, fd_write: Callable[[Any], None] | None, opaque: Any
) -> int:
    """`qemu_set_fd_handler2` without a poll function."""
    return qemu_set_fd_handler2(fd, None, fd_read, fd_write, opaque)


@traced
def qemu_notify_event() -> None:
    """Have the processor return to the main loop soon."""
    if kvm_enabled():
        from hypervisor.qemu_kvm import qemu_kvm_notify_work

        qemu_kvm_notify_work()
    elif state.cpu_single_env is not None:
        cpu.cpu_exit(state.cpu_single_env)


@traced
def qemu_add_vm_change_state_handler(cb: Callable[[Any, int, int], None], opaque: Any) -> VMChangeStateEntry:
    """Have `cb(opaque, running, reason)` called when the machine starts or stops; the last added first."""
    entry = VMChangeStateEntry(cb=cb, opaque=opaque)
    _vm_change_state_head.insert(0, entry)
    return entry


@traced
def vm_state_notify(running: int, reason: int) -> None:
    """Tell everybody that the machine runs or stands."""
    for entry in list(_vm_change_state_head):
        assert entry.cb is not None
        entry.cb(entry.opaque, running, reason)


@traced
def vm_start() -> None:
    """Start the machine or let it go on."""
    if not state.vm_running:
        timers.cpu_enable_ticks()
        state.vm_running = 1
        vm_state_notify(1, 0)
        if timers.alarm_timer is not None:
            timers.qemu_rearm_alarm_timer(timers.alarm_timer)


@traced
def do_vm_stop(reason: int) -> None:
    """Stop the guest's time and tell everybody."""
    if state.vm_running:
        timers.cpu_disable_ticks()
        state.vm_running = 0
        vm_state_notify(0, reason)


@traced
def vm_stop(reason: int) -> None:
    """Stop the machine; it can go on from where it is."""
    do_vm_stop(reason)


@traced
def qemu_register_reset(func: Callable[[Any], None], opaque: Any) -> None:
    """Have `func(opaque)` called at each reset, after those registered before."""
    _reset_handlers.append(QEMUResetEntry(func=func, opaque=opaque))


@traced
def qemu_unregister_reset(func: Callable[[Any], None], opaque: Any) -> None:
    """Take back a registration."""
    for entry in _reset_handlers:
        if entry.func == func and entry.opaque is opaque:
            _reset_handlers.remove(entry)
            return


@traced
def qemu_system_reset() -> None:
    """Reset all devices, in the order of their registration."""
    for entry in list(_reset_handlers):
        assert entry.func is not None
        entry.func(entry.opaque)


@traced
def qemu_system_reset_request() -> None:
    """Ask for a reset, which -no-reboot turns into a shutdown."""
    if state.no_reboot:
        state.shutdown_requested = 1
    else:
        state.reset_requested = 1
    if state.cpu_single_env is not None:
        state.cpu_single_env.stopped = 1
    qemu_notify_event()


@traced
def qemu_system_shutdown_request() -> None:
    """Ask for the end of the program."""
    state.shutdown_requested = 1
    qemu_notify_event()


def give_up(why: str, remedy: str = "") -> None:
    """Say why the machine cannot go on, and end it unless somebody has a monitor to mend that.

    The real program waits in its window, whose menus and consoles the model has not.

    Parameters
    ----------
    remedy
        What to do in the monitor; without it, nothing is said where there is one.
    """
    from hypervisor.monitor import is_within_reach

    if is_within_reach() or state.no_shutdown:
        if remedy:
            print(f"studykvm: {why}; {remedy}", file=sys.stderr)
        return
    print(f"studykvm: {why}; no monitor is at hand (-monitor stdio), so this is the end", file=sys.stderr)
    state.exit_reason = "stuck"
    qemu_system_shutdown_request()


@traced
def qemu_system_powerdown_request() -> None:
    """Ask the guest to switch itself off."""
    state.powerdown_requested = 1
    qemu_notify_event()


@traced
def qemu_shutdown_requested() -> int:
    """Whether the end was asked for; asked once."""
    wanted, state.shutdown_requested = state.shutdown_requested, 0
    return wanted


@traced
def qemu_reset_requested() -> int:
    """Whether a reset was asked for; asked once."""
    wanted, state.reset_requested = state.reset_requested, 0
    return wanted


@traced
def qemu_powerdown_requested() -> int:
    """Whether a power-down was asked for; asked once."""
    wanted, state.powerdown_requested = state.powerdown_requested, 0
    return wanted


@traced
def termsig_handler(signal: int) -> None:
    """Turn SIGINT, SIGHUP and SIGTERM into a shutdown."""
    state.exit_reason = "signal"
    qemu_system_shutdown_request()


def _on_signal(number: int, frame: object) -> None:
    termsig_handler(number)
    timers._wake()


@traced
def sighandler_setup() -> None:
    """Catch the signals that end the program; only a process's main thread can."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            _old_signals[number] = signal.signal(number, _on_signal)


@traced
def qemu_init_main_loop() -> int:
    """Make what the main loop needs before any device."""
    return timers.qemu_event_init()


@traced
def qemu_init_vcpu(_env: CPUState) -> None:
    """Note how many cores and threads the processor has."""
    _env.nr_cores = 1
    _env.nr_threads = 1
    if kvm_enabled():
        from hypervisor.qemu_kvm_vcpu import kvm_init_vcpu

        kvm_init_vcpu(_env)


@traced
def cpu_can_run(env: CPUState) -> int:
    """Whether the processor may execute."""
    return int(not (env.stop or env.stopped or not state.vm_running))


@traced
def cpu_has_work(env: CPUState) -> int:
    """Whether the processor would do anything if it ran."""
    if env.stop:
        return 1
    if env.stopped:
        return 0
    return int(not env.halted or cpu.qemu_cpu_has_work(env))


@traced
def tcg_has_work() -> int:
    """Whether any processor has work."""
    return int(state.first_cpu is not None and cpu_has_work(state.first_cpu))


@traced
def qemu_cpu_exec(env: CPUState) -> int:
    """Run the processor until something wants attention; why it came back, an EXCP_*."""
    return cpu.cpu_exec(env)


@traced
def tcg_cpu_exec() -> None:
    """Give each processor its turn, unless the alarm has rung."""
    if state.next_cpu is None:
        state.next_cpu = state.first_cpu
    while state.next_cpu is not None:
        env = state.cur_cpu = state.next_cpu
        if timers._take_pending_alarm():
            break
        if cpu_can_run(env):
            qemu_cpu_exec(env)
        elif env.stop:
            break
        state.next_cpu = env.next_cpu


@traced
def qemu_calculate_timeout() -> int:
    """Milliseconds the main loop may sleep: none while the guest has work."""
    if not state.vm_running or not tcg_has_work():
        return _IDLE_MS
    return 0


@traced
def vm_can_run() -> int:
    """Whether nothing was asked for that the main loop must do itself."""
    return int(not (state.powerdown_requested or state.reset_requested or state.shutdown_requested))


def _select(rfds: list[int], wfds: list[int], milliseconds: int) -> tuple[set[int], set[int]]:
    """select() that the alarm, too, brings back; the vCPU thread may have the machine meanwhile."""
    from hypervisor.qemu_kvm import qemu_mutex_lock_iothread, qemu_mutex_unlock_iothread, ring

    qemu_mutex_unlock_iothread()
    wait = timers._until_alarm(milliseconds * 1_000_000)
    try:
        readable, writable, _ = select.select(rfds, wfds, [], wait / 1e9)
    except OSError:
        readable, writable = [], []
    if icount.enabled() and not readable and not writable:
        icount.pass_by(wait)
    qemu_mutex_lock_iothread()
    try:
        if timers._alarm_due():
            if kvm_enabled():
                ring()
            else:
                timers.host_alarm_handler(signal.SIGALRM)
            if kvm_enabled() or (not readable and not writable):
                readable, writable, _ = select.select(rfds, wfds, [], 0)
    except OSError:
        return set(), set()
    return set(readable), set(writable)


def _fd_ready() -> bool:
    """Whether a descriptor waits; the real program's signals tell it so."""
    rfds = [ioh.fd for ioh in _handlers() if ioh.fd_read and not ioh.deleted and ioh.fd_read_poll is None]
    return bool(select.select(rfds, [], [], 0)[0])


@traced
def main_loop_wait(timeout: int) -> None:
    """Sleep until something happens, then serve descriptors, timers and bottom halves, in this order.

    Parameters
    ----------
    timeout : int
        Milliseconds to sleep at most.
    """
    global _first_io_handler
    from hypervisor import async_

    timeout = async_.qemu_bh_update_timeout(timeout)
    watched = [ioh for ioh in _handlers() if not ioh.deleted]
    rfds = [
        ioh.fd
        for ioh in watched
        if ioh.fd_read and (ioh.fd_read_poll is None or ioh.fd_read_poll(ioh.opaque) != 0)
    ]
    readable, writable = _select(rfds, [ioh.fd for ioh in watched if ioh.fd_write], timeout)
    if readable or writable:
        for ioh in _handlers():
            if not ioh.deleted and ioh.fd_read and ioh.fd in readable:
                ioh.fd_read(ioh.opaque)
            if not ioh.deleted and ioh.fd_write and ioh.fd in writable:
                ioh.fd_write(ioh.opaque)
        _unlink_deleted()
    alarm = timers.alarm_timer
    if alarm is not None and alarm.flags & timers.ALARM_FLAG_EXPIRED:
        alarm.flags &= ~timers.ALARM_FLAG_EXPIRED
        timers.qemu_rearm_alarm_timer(alarm)
    if state.vm_running:
        timers.qemu_run_timers(timers.QEMU_CLOCK_VIRTUAL, timers.qemu_get_clock(timers.vm_clock))
    timers.qemu_run_timers(timers.QEMU_CLOCK_REALTIME, timers.qemu_get_clock(timers.rt_clock))
    timers.qemu_run_timers(timers.QEMU_CLOCK_HOST, timers.qemu_get_clock(timers.host_clock))
    linked.qemu_bh_poll()


def _unlink_deleted() -> None:
    global _first_io_handler
    kept = [ioh for ioh in _handlers() if not ioh.deleted]
    following: IOHandlerRecord | None = None
    for ioh in reversed(kept):
        if ioh.next is not following:
            ioh.next = following
        following = ioh
    _first_io_handler = following


@traced
def main_loop() -> None:
    """Run the machine until its end is asked for."""
    from hypervisor.hw.irq import qemu_irq_raise
    from hypervisor.monitor_qmp import (
        QEVENT_POWERDOWN,
        QEVENT_RESET,
        QEVENT_SHUTDOWN,
        monitor_protocol_event,
    )

    if kvm_enabled():
        from hypervisor.qemu_kvm import kvm_main_loop

        kvm_main_loop()
        timers.cpu_disable_ticks()
        return
    while True:
        while True:
            tcg_cpu_exec()
            main_loop_wait(qemu_calculate_timeout())
            if not vm_can_run():
                break
        if qemu_shutdown_requested():
            monitor_protocol_event(QEVENT_SHUTDOWN, None)
            if not state.no_shutdown:
                break
            vm_stop(0)
            state.no_shutdown = 0
        if qemu_reset_requested():
            monitor_protocol_event(QEVENT_RESET, None)
            qemu_system_reset()
        if qemu_powerdown_requested():
            monitor_protocol_event(QEVENT_POWERDOWN, None)
            qemu_irq_raise(state.qemu_system_powerdown)
