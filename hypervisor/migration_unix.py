"""Migration over a unix socket: migration-unix.c. `unix:path`; the socket is its owner's alone."""

from __future__ import annotations

import errno
import socket
import sys

from hypervisor import quirks
from hypervisor.migration import (
    FdMigrationState,
    migrate_fd_connect,
    migrate_fd_error,
    migrate_fd_monitor_suspend,
)
from hypervisor.migration_socket import (
    accept_incoming,
    begin_to_connect,
    close_connection,
    connected,
    outgoing,
    write_to_socket,
)
from hypervisor.monitor import Monitor
from hypervisor.qemu_sockets import (
    closesocket,
    private_bind,
    qemu_socket,
    socket_of,
    socket_set_nonblock,
)
from hypervisor.vl_loop import qemu_set_fd_handler2
from tracer import traced

C_FILE = "migration-unix.c"

_PATH_SIZE = 107


@traced
def unix_errno(s: FdMigrationState) -> int:
    """Why the last call failed."""
    return s._errno


@traced
def unix_write(s: FdMigrationState, buf: memoryview, size: int) -> int:
    """Send; -1 when that failed."""
    return write_to_socket(s, buf, size)


@traced
def unix_close(s: FdMigrationState) -> int:
    """Close the connection, after the destination has had its say."""
    return close_connection(s)


@traced
def unix_wait_for_connect(opaque: FdMigrationState) -> None:
    """The connection stands, or could not be made."""
    qemu_set_fd_handler2(opaque.fd, None, None, None, None)
    if connected(opaque):
        migrate_fd_connect(opaque)
    else:
        migrate_fd_error(opaque)


@traced
def unix_start_outgoing_migration(
    mon: Monitor, path: str, bandwidth_limit: int, detach: int, blk: int, inc: int
) -> FdMigrationState | None:
    """Connect; None when that cannot be."""
    s = outgoing(unix_errno, unix_write, unix_close, bandwidth_limit, blk, inc)
    s.fd = qemu_socket(socket.AF_UNIX, socket.SOCK_STREAM, 0)
    socket_set_nonblock(s.fd)
    ret = begin_to_connect(s, path[:_PATH_SIZE], f"unix:{path}", unix_wait_for_connect)
    if ret not in (0, -errno.EINPROGRESS):
        return None
    if not detach:
        migrate_fd_monitor_suspend(s, mon)
    if ret == 0:
        migrate_fd_connect(s)
    return s


@traced
def unix_accept_incoming_migration(opaque: int) -> None:
    """Load the machine that comes."""
    # quirk: 0.12.4 starts a machine that came over tcp, exec or fd, but not one that came over unix.
    if accept_incoming(opaque, runs=False):
        quirks.note("unix-stands", "a machine that came over a unix socket stands in 0.12.4 until `cont`")


@traced
def unix_start_incoming_migration(path: str) -> int:
    """Listen; -EINVAL after a message when that cannot be."""
    sock = qemu_socket(socket.AF_UNIX, socket.SOCK_STREAM, 0)
    doing = "bind"
    try:
        # Safer than 0.12.4, which unlinks whatever is there, be it a disk image.
        private_bind(socket_of(sock), path[:_PATH_SIZE])
        doing = "listen"
        socket_of(sock).listen(1)
    except OSError as error:
        print(f"{doing}(unix:{path}): {error.strerror or error}", file=sys.stderr)
        closesocket(sock)
        return -errno.EINVAL
    qemu_set_fd_handler2(sock, None, unix_accept_incoming_migration, None, sock)
    return 0
