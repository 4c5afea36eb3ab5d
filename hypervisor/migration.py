"""Moving a running machine to another computer: migration.c.

The source saves itself into a stream while it runs, stops for the last part, and stands; the destination,
started with the same options and -incoming, loads the stream and runs.

    do_migrate -> tcp_start_outgoing_migration ... -> migrate_fd_connect
                      qemu_savevm_state_begin                           memory, stage 1
                      migrate_fd_put_ready: qemu_savevm_state_iterate   stage 2, again at every tick of
                      buffered_file
                                            vm_stop, flush disks, qemu_savevm_state_complete        stage 3,
                                            devices
                      migrate_fd_cleanup

- `qemu_start_incoming_migration(uri)`: for -incoming.
- `do_migrate`, `do_migrate_cancel`, `do_migrate_set_speed`, `do_migrate_set_downtime`, `do_info_migrate`.
- `migrate_fd_*`: what tcp, unix, exec and fd have in common.

In 0.12.4 nobody tells the source how the destination fared. Two machines of our own agree on a socket
(`hypervisor.migration_verdict`): a source that hears it was refused lets its machine go on.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
import select
import sys
import time
from collections.abc import Callable
from typing import Any

from hypervisor import quirks
from hypervisor.aio import qemu_aio_flush
from hypervisor.block import bdrv_flush_all
from hypervisor.block_migration import (
    blk_mig_active,
    blk_mig_bytes_remaining,
    blk_mig_bytes_total,
    blk_mig_bytes_transferred,
)
from hypervisor.buffered_file import is_stuck, qemu_fopen_ops_buffered
from hypervisor.cutils import strstart
from hypervisor.kvm_all import kvm_enabled
from hypervisor.monitor import Arguments, Monitor, monitor_printf, monitor_resume, monitor_suspend
from hypervisor.osdep import close_fd
from hypervisor.program import on_reset
from hypervisor.savevm import (
    qemu_savevm_state_begin,
    qemu_savevm_state_cancel,
    qemu_savevm_state_complete,
    qemu_savevm_state_iterate,
)
from hypervisor.savevm_file import (
    SILENCE,
    QEMUFile,
    qemu_fclose,
    qemu_file_put_notify,
    qemu_file_set_rate_limit,
)
from hypervisor.savevm_rehearsal import rehearse_loading, rehearse_saving
from hypervisor.vl_loop import qemu_set_fd_handler2, vm_start, vm_stop
from hypervisor.vl_ram import ram_bytes_remaining, ram_bytes_total, ram_bytes_transferred
from hypervisor.vl_state import state
from hypervisor.vl_timers import qemu_get_clock, qemu_mod_timer, qemu_new_timer, rt_clock
from tracer import Struct, traced
from tracer.session import recording

C_FILE = "migration.c"

MIG_STATE_ERROR = -1
MIG_STATE_COMPLETED = 0
MIG_STATE_CANCELLED = 1
MIG_STATE_ACTIVE = 2
_WORDS = {
    MIG_STATE_ACTIVE: "active",
    MIG_STATE_COMPLETED: "completed",
    MIG_STATE_ERROR: "failed",
    MIG_STATE_CANCELLED: "cancelled",
}


class FdMigrationState(Struct):
    """`FdMigrationState`, with the `MigrationState` at its head.

    Parameters
    ----------
    bandwidth_limit : int
        Bytes a second.
    fd : int
        What is written to; -1 when it is closed.
    state : int
        A MIG_STATE_*.
    write
        `write(s, buf, size)`: bytes written, or -1, and then `get_error(s)` says why.
    blk, shared : int
        Whether disks go with it; whether only what overlays hold.
    """

    cancel: Callable[[FdMigrationState], None] | None = None
    get_status: Callable[[FdMigrationState], int] | None = None
    release: Callable[[FdMigrationState], None] | None = None
    blk: int = 0
    shared: int = 0
    bandwidth_limit: int = 0
    file: QEMUFile | None = None
    fd: int = -1
    mon: Monitor | None = None
    state: int = MIG_STATE_ACTIVE
    get_error: Callable[[FdMigrationState], int] | None = None
    close: Callable[[FdMigrationState], int] | None = None
    write: Callable[[FdMigrationState, memoryview, int], int] | None = None
    opaque: QEMUFile | None = None
    _errno: int = 0
    _to: str = ""
    _why: str = ""
    _all_sent: bool = False
    _checksum: int = 0

    @property
    def stream(self) -> QEMUFile:
        """The stream, once there is a connection."""
        assert self.file is not None
        return self.file


_TURN_MS = 2
_PROTOCOLS = ("tcp:", "exec:", "unix:", "fd:")
_LARGEST = (1 << 63) - 1
_TOOK_NOTHING = f"the other side took nothing for {SILENCE:.0f} seconds"
_max_throttle = 32 << 20
_max_downtime = 30_000_000
_current_migration: FdMigrationState | None = None


@on_reset
def _reset() -> None:
    global _max_throttle, _max_downtime, _current_migration
    _max_throttle, _max_downtime, _current_migration = 32 << 20, 30_000_000, None


def _start(protocol: str, way: str) -> Callable[..., Any]:
    """How the incoming or the outgoing migration of a protocol begins; no other protocol is loaded."""
    name = protocol.rstrip(":")
    module = importlib.import_module(f"hypervisor.migration_{name}")
    start: Callable[..., Any] = getattr(module, f"{name}_start_{way}_migration")
    return start


@traced
def qemu_start_incoming_migration(uri: str) -> None:
    """Wait for a machine; when nothing can be waited for, this one stands all the same."""
    rehearse_loading()
    for protocol in _PROTOCOLS:
        found, rest = strstart(uri, protocol)
        if found:
            _start(protocol, "incoming")(rest)
            return
    print(f"unknown migration protocol: {uri}", file=sys.stderr)


@traced
def do_migrate(mon: Monitor, qdict: Arguments) -> None:
    """Obey `migrate [-d] [-b] [-i] uri`."""
    global _current_migration
    uri = qdict["uri"]
    if _current_migration is not None and migrate_fd_get_status(_current_migration) == MIG_STATE_ACTIVE:
        monitor_printf(mon, "migration already in progress\n")
        return
    s = None
    for protocol in _PROTOCOLS:
        found, rest = strstart(uri, protocol)
        if found:
            start = _start(protocol, "outgoing")
            s = start(mon, rest, _max_throttle, qdict["detach"], qdict["blk"], qdict["inc"])
            break
    else:
        monitor_printf(mon, "unknown migration protocol: %s\n", uri)
    if s is None:
        monitor_printf(mon, "migration failed\n")
        if slashes := re.match(r"tcp://(.*)", uri):
            print(f"studykvm: 0.12 wants no slashes: migrate tcp:{slashes[1]}", file=sys.stderr)
        return
    s._to = uri
    if _current_migration is not None:
        migrate_fd_release(_current_migration)
    _current_migration = s


@traced
def do_migrate_cancel(mon: Monitor, qdict: Arguments) -> None:
    """Obey `migrate_cancel`."""
    if _current_migration is not None:
        migrate_fd_cancel(_current_migration)


def _strtod(text: str) -> tuple[float, str]:
    number = re.match(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text)
    return (float(number[0]), text[number.end() :]) if number else (0.0, text)


@traced
def do_migrate_set_speed(mon: Monitor, qdict: Arguments) -> None:
    """Obey `migrate_set_speed`: bytes a second, or with k, m or g."""
    global _max_throttle
    value, unit = _strtod(qdict["value"])
    scale = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(unit[:1].lower(), 1)
    _max_throttle = int(min(value * scale, _LARGEST)) & 0xFFFFFFFF
    s = _current_migration
    if s is not None and s.file is not None:
        qemu_file_set_rate_limit(s.file, _max_throttle)


@traced
def migrate_max_downtime() -> int:
    """Nanoseconds for which the machine may stand."""
    return _max_downtime


@traced
def do_migrate_set_downtime(mon: Monitor, qdict: Arguments) -> None:
    """Obey `migrate_set_downtime`: seconds, or with ms, us or ns."""
    global _max_downtime
    value, unit = _strtod(qdict["value"])
    scale = {"ms": 1_000_000, "us": 1000, "ns": 1}.get(unit, 1_000_000_000)
    _max_downtime = int(min(max(value * scale, 0), _LARGEST))


@traced
def migrate_print_status(mon: Monitor, name: str, status_dict: dict[str, Any]) -> None:
    """Print how far memory or disks are."""
    for word in ("transferred", "remaining", "total"):
        monitor_printf(mon, "%s %s: %d kbytes\n", word, name, status_dict[name][word] >> 10)


@traced
def do_info_migrate_print(mon: Monitor, data: dict[str, Any]) -> None:
    """Print how far the migration is."""
    monitor_printf(mon, "Migration status: %s\n", data["status"])
    for name in ("ram", "disk"):
        if name in data:
            migrate_print_status(mon, name, data)


@traced
def migrate_put_status(qdict: dict[str, Any], name: str, trans: int, rem: int, total: int) -> None:
    """Note how far memory or disks are."""
    qdict[name] = {"transferred": trans, "remaining": rem, "total": total}


@traced
def do_info_migrate(mon: Monitor) -> dict[str, Any] | None:
    """How far the last migration is; None before there was one."""
    s = _current_migration
    if s is None:
        return None
    status = migrate_fd_get_status(s)
    qdict: dict[str, Any] = {"status": _WORDS[status]}
    if status == MIG_STATE_ACTIVE:
        # Asked for in the order in which a compiler's code asks, from the last argument on.
        total, left, done = ram_bytes_total(), ram_bytes_remaining(), ram_bytes_transferred()
        migrate_put_status(qdict, "ram", done, left, total)
        if blk_mig_active():
            total, left, done = blk_mig_bytes_total(), blk_mig_bytes_remaining(), blk_mig_bytes_transferred()
            migrate_put_status(qdict, "disk", done, left, total)
    return qdict


@traced
def migrate_fd_monitor_suspend(s: FdMigrationState, mon: Monitor) -> None:
    """Take no commands until the migration has ended."""
    s.mon = mon
    if monitor_suspend(mon) != 0:
        monitor_printf(mon, "terminal does not allow synchronous migration, continuing detached\n")


@traced
def migrate_fd_error(s: FdMigrationState) -> None:
    """End a migration that failed."""
    s.state = MIG_STATE_ERROR
    migrate_fd_cleanup(s)
    _tell(s, "failed")


def _tell(s: FdMigrationState, how: str) -> None:
    goes_on = "the machine goes on here" if state.vm_running else "the machine stands here"
    print(f"studykvm: migration {how}: {s._why or 'the connection broke'}; {goes_on}", file=sys.stderr)


@traced
def migrate_fd_cleanup(s: FdMigrationState) -> None:
    """Close the stream, which writes all that is left of it, and the descriptor."""
    qemu_set_fd_handler2(s.fd, None, None, None, None)
    if s.file is not None:
        qemu_fclose(s.file)
        s.file = None
    if s.fd != -1:
        _close(s)
    if s.mon is not None:
        monitor_resume(s.mon)
        s.mon = None
    s.fd = -1


def _close(s: FdMigrationState) -> None:
    from hypervisor.qemu_sockets import closesocket

    try:
        closesocket(s.fd)
    except KeyError:
        close_fd(s.fd)


@traced
def migrate_fd_put_notify(opaque: FdMigrationState) -> None:
    """The other side takes bytes again."""
    qemu_set_fd_handler2(opaque.fd, None, None, None, None)
    qemu_file_put_notify(opaque.stream)


@traced
def migrate_fd_put_buffer(opaque: FdMigrationState, data: memoryview, size: int) -> int:
    """Write some of the stream; -EAGAIN when the other side takes nothing now."""
    s = opaque
    assert s.write is not None and s.get_error is not None
    if s._why:
        return -errno.EIO
    ret = s.write(s, data, size)
    while ret == -1 and s.get_error(s) == errno.EINTR:
        ret = s.write(s, data, size)
    if ret == -1:
        ret = -s.get_error(s)
        if ret == -errno.EAGAIN and s.state == MIG_STATE_CANCELLED:
            quirks.note("cancel-waits", "0.12.4 stands still after migrate_cancel until what it kept is sent")
            ret = -errno.ECANCELED
        elif ret == -errno.EAGAIN:
            qemu_set_fd_handler2(s.fd, None, None, migrate_fd_put_notify, s)
        else:
            s._why = s._why or os.strerror(-ret)
    return ret


@traced
def migrate_fd_connect(s: FdMigrationState) -> None:
    """Begin to save the machine into a connection that stands."""
    rehearse_saving()
    s.file = qemu_fopen_ops_buffered(
        s,
        s.bandwidth_limit,
        migrate_fd_put_buffer,
        migrate_fd_put_ready,
        migrate_fd_wait_for_unfreeze,
        migrate_fd_close,
    )
    if qemu_savevm_state_begin(s.mon, s.file, s.blk, s.shared) < 0:
        migrate_fd_error(s)
        return
    if recording() or kvm_enabled():
        migrate_fd_put_ready(s)
    else:
        # The guest stood while its memory was read: before it is stopped, let it have its turn.
        qemu_mod_timer(qemu_new_timer(rt_clock, migrate_fd_put_ready, s), qemu_get_clock(rt_clock) + _TURN_MS)


@traced
def migrate_fd_put_ready(opaque: FdMigrationState) -> None:
    """Save more; once little is left, stop the machine and save the rest."""
    s = opaque
    if s.state != MIG_STATE_ACTIVE:
        return
    if is_stuck(s.stream.opaque):
        s._why = _TOOK_NOTHING
        migrate_fd_error(s)
        return
    ret = qemu_savevm_state_iterate(s.mon, s.stream)
    if ret < 0:
        # quirk: 0.12.4 leaves it active, and sends nothing more.
        migrate_fd_error(s)
    if ret != 1:
        return
    old_vm_running = state.vm_running
    vm_stop(0)
    qemu_aio_flush()
    bdrv_flush_all()
    failed = qemu_savevm_state_complete(s.mon, s.stream) < 0
    if failed and old_vm_running:
        vm_start()
    s._all_sent = not failed
    migrate_fd_cleanup(s)
    if s._why and not failed:
        # quirk: 0.12.4 takes what it could not send, or what was refused, for completed, and stands.
        failed = True
        if old_vm_running:
            vm_start()
    s.state = MIG_STATE_ERROR if failed else MIG_STATE_COMPLETED
    if failed:
        _tell(s, "failed")


@traced
def migrate_fd_get_status(mig_state: FdMigrationState) -> int:
    """A MIG_STATE_*."""
    return mig_state.state


@traced
def migrate_fd_cancel(mig_state: FdMigrationState) -> None:
    """Give up; the machine runs on."""
    s = mig_state
    if s.state != MIG_STATE_ACTIVE:
        return
    s.state = MIG_STATE_CANCELLED
    if s.file is not None:
        qemu_savevm_state_cancel(s.mon, s.file)
    migrate_fd_cleanup(s)


@traced
def migrate_fd_release(mig_state: FdMigrationState) -> None:
    """Forget a migration; one under way is given up."""
    if mig_state.state == MIG_STATE_ACTIVE:
        mig_state.state = MIG_STATE_CANCELLED
        migrate_fd_cleanup(mig_state)


@traced
def migrate_fd_wait_for_unfreeze(opaque: FdMigrationState) -> None:
    """Wait until the other side takes bytes again; not for ever, as the real program does."""
    s = opaque
    if s.state != MIG_STATE_ACTIVE:
        return
    deadline = time.monotonic() + SILENCE
    while not select.select([], [s.fd], [], 0.2)[1]:
        if time.monotonic() > deadline or state.shutdown_requested:
            s._why = _TOOK_NOTHING
            return


@traced
def migrate_fd_close(opaque: FdMigrationState) -> int:
    """Close what is behind the stream."""
    assert opaque.close is not None
    qemu_set_fd_handler2(opaque.fd, None, None, None, None)
    return opaque.close(opaque)
