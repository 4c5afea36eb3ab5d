"""Migration through a command: migration-exec.c.

`exec:cat > FILE` keeps a machine, `exec:cat FILE` takes it back.
"""

from __future__ import annotations

from hypervisor.migration import (
    FdMigrationState,
    migrate_fd_connect,
    migrate_fd_monitor_suspend,
)
from hypervisor.migration_socket import accept_from_file, outgoing, write_to_descriptor
from hypervisor.monitor import Monitor
from hypervisor.qemu_sockets import socket_set_nonblock
from hypervisor.savevm_file import QEMUFile, _popen, qemu_fclose, qemu_popen, qemu_popen_cmd, qemu_stdio_fd
from hypervisor.vl_loop import qemu_set_fd_handler2
from tracer import traced

C_FILE = "migration-exec.c"


@traced
def file_errno(s: FdMigrationState) -> int:
    """Why the last call failed."""
    return s._errno


@traced
def file_write(s: FdMigrationState, buf: memoryview, size: int) -> int:
    """Write to the command's input; -1 when that failed."""
    return write_to_descriptor(s, buf, size)


@traced
def exec_close(s: FdMigrationState) -> int:
    """Close the command's input and wait for its end; its status tells whether it got all."""
    if s.opaque is not None:
        status = qemu_fclose(s.opaque)
        if status and not s._why:
            s._why = f"the command ended with status {status}"
        s.opaque = None
        s.fd = -1
    return 0


@traced
def exec_start_outgoing_migration(
    mon: Monitor, command: str, bandwidth_limit: int, detach: int, blk: int, inc: int
) -> FdMigrationState:
    """Run the command and save the machine into its input."""
    s = outgoing(file_errno, file_write, exec_close, bandwidth_limit, blk, inc)
    process = _popen(command, "w")
    assert process.stdin is not None
    s.fd = process.stdin.fileno()
    socket_set_nonblock(s.fd)
    s.opaque = qemu_popen(process, "w")
    if not detach:
        migrate_fd_monitor_suspend(s, mon)
    migrate_fd_connect(s)
    return s


@traced
def exec_accept_incoming_migration(opaque: QEMUFile) -> None:
    """Load the machine that the command prints, and run it."""
    accept_from_file(opaque)


@traced
def exec_start_incoming_migration(command: str) -> int:
    """Run the command whose output is the machine."""
    f = qemu_popen_cmd(command, "r")
    qemu_set_fd_handler2(qemu_stdio_fd(f), None, exec_accept_incoming_migration, None, f)
    return 0
