"""What the ways of migration have in common, around the calls that 0.12.4 makes.

- `parse_host_port(str)`: of net.c.
- `outgoing(...)`: the state of a migration that begins.
- `begin_to_connect(s, ...)`: the source's first step over TCP and unix sockets.
- `write_to_socket`, `close_connection`, `connected`: the source's side of TCP and unix sockets.
- `write_to_descriptor`: that of commands and descriptors.
- `accept_incoming(fd, runs)`, `accept_from_file(f)`: the destination's, of the same two kinds.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from zlib import crc32

from hypervisor import migration_verdict as verdict
from hypervisor.migration import (
    FdMigrationState,
    migrate_fd_cancel,
    migrate_fd_get_status,
    migrate_fd_release,
)
from hypervisor.qemu_sockets import closesocket, qemu_accept, socket_of
from hypervisor.savevm import distrust, half_loaded, last_complaint, qemu_announce_self, qemu_loadvm_state
from hypervisor.savevm_file import QEMUFile, qemu_fclose, qemu_fopen_socket, qemu_stdio_fd
from hypervisor.vl_loop import qemu_set_fd_handler2, vm_start
from hypervisor.vl_state import state
from tracer import traced


@traced(file="net.c")
def parse_host_port(str: str) -> tuple[str, int] | None:
    """Cut "host:port"; None when it is no such thing. Host 0 is any address, none at all the loopback.

    Returns
    -------
    (str, int) or None
        Dotted address and port; what C writes into its `struct sockaddr_in`.
    """
    host, colon, port = str.partition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 0xFFFF or "/" in host:
        return None
    if host == "":
        return "127.0.0.1", int(port)
    try:
        if host[0].isdigit():
            return socket.inet_ntoa(socket.inet_aton(host)), int(port)
        return socket.gethostbyname(host), int(port)
    except (OSError, UnicodeError):
        return None


def outgoing(
    get_error: Callable[[FdMigrationState], int],
    write: Callable[[FdMigrationState, memoryview, int], int],
    close: Callable[[FdMigrationState], int],
    bandwidth_limit: int,
    blk: int,
    inc: int,
) -> FdMigrationState:
    """What a migration begins with.

    Parameters
    ----------
    get_error, write, close : callable
        What differs from one protocol to another.
    bandwidth_limit : int
        Bytes a second.
    blk, inc : int
        Of `migrate`: -b, disks go too; -i, only what overlays hold.
    """
    return FdMigrationState(
        get_error=get_error,
        write=write,
        close=close,
        cancel=migrate_fd_cancel,
        get_status=migrate_fd_get_status,
        release=migrate_fd_release,
        blk=blk,
        shared=inc,
        bandwidth_limit=bandwidth_limit,
    )


def begin_to_connect(
    s: FdMigrationState, address: tuple[str, int] | str, uri: str, go_on: Callable[[FdMigrationState], None]
) -> int:
    """Connect, without waiting for it.

    Parameters
    ----------
    uri : str
        What the user wrote, for the message.
    go_on : callable
        Called by the main loop when the connection stands or has failed, if that takes time.

    Returns
    -------
    int
        0 when it stands, -EINPROGRESS when it takes time, or another -errno after a message.
    """
    s._errno = socket_of(s.fd).connect_ex(address)
    if not s._errno:
        return 0
    assert s.get_error is not None
    code = s.get_error(s)
    if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
        qemu_set_fd_handler2(s.fd, None, None, go_on, s)
        return -errno.EINPROGRESS
    closesocket(s.fd)
    print(f"studykvm: {uri}: {os.strerror(code)}", file=sys.stderr)
    return -code


def write_to_socket(s: FdMigrationState, buf: memoryview, size: int) -> int:
    """Send; -1 with the reason kept. A destination that has refused is heard at once.

    Returns
    -------
    int
        Bytes taken, or -1: then `s._errno` is the errno, and `s._why` the refusal if that was it.
    """
    connection = socket_of(s.fd)
    refusal = verdict.refusal_so_far(connection)
    if refusal:
        s._why, s._errno = f"the destination refused: {refusal}", errno.ECONNRESET
        return -1
    try:
        done = connection.send(buf[:size])
    except OSError as error:
        s._errno = error.errno or errno.EIO
        return -1
    s._checksum = crc32(buf[:done], s._checksum)
    return done


def write_to_descriptor(s: FdMigrationState, buf: memoryview, size: int) -> int:
    """Write; -1 with the reason kept.

    Returns
    -------
    int
        Bytes taken, or -1: then `s._errno` is the errno.
    """
    try:
        return os.write(s.fd, buf[:size])
    except OSError as error:
        s._errno = error.errno or errno.EIO
        return -1


def close_connection(s: FdMigrationState) -> int:
    """Agree with the destination, if all was sent, and close.

    Returns
    -------
    int
        0. Why the machine does not run there goes into `s._why`.
    """
    if s.fd == -1:
        return 0
    if s._all_sent and not s._why:
        socket_of(s.fd).setblocking(True)
        s._why, remark = verdict.hand_over(socket_of(s.fd), s._checksum)
        if remark:
            print(f"studykvm: migration: {remark}", file=sys.stderr)
    closesocket(s.fd)
    s.fd = -1
    return 0


def connected(s: FdMigrationState) -> bool:
    """Whether a connection that was begun stands.

    Returns
    -------
    bool
        False, with the reason in `s._why`, when the socket reports an error (SO_ERROR).
    """
    code = socket_of(s.fd).getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        s._why = os.strerror(code)
    return code == 0


def load_incoming(
    f: QEMUFile, after: Callable[[], None], runs: bool, agreed: Callable[[], bool] = lambda: True
) -> bool:
    """Load a machine and run it; False after a message.

    Parameters
    ----------
    after : callable
        Called once the machine is loaded, before it runs.
    runs : bool
        Whether it is to run, if -S did not say otherwise.
    agreed : callable
        Called once the machine is loaded: whether it is to run. It may find that what was loaded is no good.
    """
    ret = qemu_loadvm_state(f)
    if ret < 0:
        print("load of migration failed", file=sys.stderr)
        return False
    runs = agreed() and runs
    if half_loaded():
        return False
    qemu_announce_self()
    after()
    if runs and state.autostart:
        vm_start()
    return True


def accept_from_file(f: QEMUFile) -> None:
    """Load the machine that comes out of an open file, and run it."""

    def stop_watching() -> None:
        qemu_set_fd_handler2(qemu_stdio_fd(f), None, None, None, None)

    if not load_incoming(f, stop_watching, runs=True):
        # quirk: 0.12.4 goes on watching the descriptor that it closes here.
        stop_watching()
    qemu_fclose(f)


def accept_incoming(listening: int, runs: bool) -> bool:
    """Take a connection and load the machine that comes; whoever is refused is told.

    Parameters
    ----------
    listening : int
        The descriptor that listens; it is closed once a machine is loaded, and stays open else.
    runs : bool
        As for `load_incoming`.
    """
    c = qemu_accept(listening)
    if c == -1:
        print("could not accept migration connection", file=sys.stderr)
        return False
    f = qemu_fopen_socket(c)

    def stop_listening() -> None:
        qemu_set_fd_handler2(listening, None, None, None, None)
        closesocket(listening)

    def agreed() -> bool:
        good, remark = verdict.take_over(socket_of(c), f.opaque._checksum)
        if not good:
            distrust("studykvm: what came is not what was sent: it was changed on its way")
        if remark:
            print(f"studykvm: migration: {remark}", file=sys.stderr)
        return good and not remark

    loaded = load_incoming(f, stop_listening, runs, agreed)
    qemu_fclose(f)
    if not loaded:
        verdict.refuse(socket_of(c), last_complaint())
    closesocket(c)
    return loaded
