"""Migration over a descriptor that somebody opened: migration-fd.c.

`migrate fd:NAME` takes what `getfd NAME` received, `-incoming fd:N` a descriptor that the program was started
with. Neither takes one that this program opened itself, such as that of its disk.
"""

from __future__ import annotations

import errno
import os
import sys

from hypervisor.migration import (
    FdMigrationState,
    migrate_fd_connect,
    migrate_fd_monitor_suspend,
)
from hypervisor.migration_socket import accept_from_file, outgoing, write_to_descriptor
from hypervisor.monitor import Monitor
from hypervisor.monitor_control import monitor_get_fd
from hypervisor.osdep import close_fd
from hypervisor.qemu_option_parameter import strtoll
from hypervisor.savevm_file import QEMUFile, qemu_fdopen
from hypervisor.vl_loop import qemu_set_fd_handler2
from tracer import traced

C_FILE = "migration-fd.c"


@traced
def fd_errno(s: FdMigrationState) -> int:
    """Why the last call failed."""
    return s._errno


@traced
def fd_write(s: FdMigrationState, buf: memoryview, size: int) -> int:
    """Write; -1 when that failed."""
    return write_to_descriptor(s, buf, size)


@traced
def fd_close(s: FdMigrationState) -> int:
    """Close the descriptor."""
    if s.fd != -1:
        close_fd(s.fd)
        s.fd = -1
    return 0


def _inherited(number: str) -> int:
    """The descriptor of this number, or -1 where the program was not started with it."""
    fd, rest = strtoll(number)
    try:
        # Python opens nothing that programs started later would have too.
        return fd if number and not rest and os.get_inheritable(fd) else -1
    except (OverflowError, OSError):
        return -1


@traced
def fd_start_outgoing_migration(
    mon: Monitor, fdname: str, bandwidth_limit: int, detach: int, blk: int, inc: int
) -> FdMigrationState | None:
    """Save the machine into a descriptor; None when nobody gave one of that name."""
    fd = monitor_get_fd(mon, fdname)
    if fd == -1:
        print(
            f"studykvm: fd:{fdname}: nobody gave such a descriptor; `getfd {fdname}` on a monitor that is a"
            " unix socket takes one",
            file=sys.stderr,
        )
        return None
    os.set_blocking(fd, False)
    s = outgoing(fd_errno, fd_write, fd_close, bandwidth_limit, blk, inc)
    s.fd = fd
    if not detach:
        migrate_fd_monitor_suspend(s, mon)
    migrate_fd_connect(s)
    return s


@traced
def fd_accept_incoming_migration(opaque: QEMUFile) -> None:
    """Load the machine that comes, and run it."""
    accept_from_file(opaque)


@traced
def fd_start_incoming_migration(infd: str) -> int:
    """Wait for a machine on a descriptor; -EBADF after a message when there is none."""
    fd = _inherited(infd)
    f = qemu_fdopen(fd, "rb")
    if f is None:
        print(f"studykvm: -incoming fd:{infd}: nobody gave this program such a descriptor", file=sys.stderr)
        return -errno.EBADF
    qemu_set_fd_handler2(fd, None, fd_accept_incoming_migration, None, f)
    return 0
