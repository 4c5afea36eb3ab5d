"""Migration over TCP: migration-tcp.c.

`tcp:host:port`; host 0 is every address of this computer, none the loopback.
"""

from __future__ import annotations

import errno
import re
import socket
import sys

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
    parse_host_port,
    write_to_socket,
)
from hypervisor.monitor import Monitor, monitor_resume
from hypervisor.qemu_sockets import closesocket, qemu_socket, socket_of, socket_set_nonblock
from hypervisor.vl_loop import qemu_set_fd_handler2
from tracer import traced

C_FILE = "migration-tcp.c"


@traced
def socket_errno(s: FdMigrationState) -> int:
    """Why the last call failed."""
    return s._errno


@traced
def socket_write(s: FdMigrationState, buf: memoryview, size: int) -> int:
    """Send; -1 when that failed."""
    return write_to_socket(s, buf, size)


@traced
def tcp_close(s: FdMigrationState) -> int:
    """Close the connection, after the destination has had its say."""
    return close_connection(s)


@traced
def tcp_wait_for_connect(opaque: FdMigrationState) -> None:
    """The connection stands, or could not be made."""
    qemu_set_fd_handler2(opaque.fd, None, None, None, None)
    if connected(opaque):
        migrate_fd_connect(opaque)
    else:
        migrate_fd_error(opaque)


@traced
def tcp_start_outgoing_migration(
    mon: Monitor, host_port: str, bandwidth_limit: int, detach: int, blk: int, inc: int
) -> FdMigrationState | None:
    """Begin to connect; None when that cannot be."""
    address = parse_host_port(host_port)
    if address is None:
        return None
    s = outgoing(socket_errno, socket_write, tcp_close, bandwidth_limit, blk, inc)
    s.fd = qemu_socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    socket_set_nonblock(s.fd)
    # What is handed on while the machine stands should not wait for more.
    socket_of(s.fd).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not detach:
        migrate_fd_monitor_suspend(s, mon)
    ret = begin_to_connect(s, address, f"tcp:{host_port}", tcp_wait_for_connect)
    if ret == 0:
        migrate_fd_connect(s)
    elif ret != -errno.EINPROGRESS:
        if s.mon is not None:
            # quirk: 0.12.4's monitor takes no more commands.
            monitor_resume(s.mon)
        return None
    return s


@traced
def tcp_accept_incoming_migration(opaque: int) -> None:
    """Load the machine that comes, and run it."""
    accept_incoming(opaque, runs=True)


@traced
def tcp_start_incoming_migration(host_port: str) -> int:
    """Listen; -errno after a message when that cannot be."""
    address = parse_host_port(host_port)
    if address is None:
        print(f"invalid host/port combination: {host_port}", file=sys.stderr)
        if slashes := re.match(r"//(.*)", host_port):
            print(f"studykvm: 0.12 wants no slashes: -incoming tcp:{slashes[1]}", file=sys.stderr)
        return -errno.EINVAL
    s = qemu_socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    listening = socket_of(s)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1)
    except OSError as error:
        closesocket(s)
        print(f"studykvm: -incoming tcp:{host_port}: {error.strerror}", file=sys.stderr)
        return -(error.errno or errno.EIO)
    qemu_set_fd_handler2(s, None, tcp_accept_incoming_migration, None, s)
    return 0
