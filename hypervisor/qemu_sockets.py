"""Sockets from option groups: qemu-sockets.c, and the socket functions of osdep.c.

- `inet_listen_opts(opts, port_offset)`, `inet_connect_opts(opts)`: host, port, to, ipv4, ipv6.
- `unix_listen_opts(opts)`, `unix_connect_opts(opts)`: path.
- `qemu_accept(s)`, `socket_set_nonblock(fd)`, `closesocket(fd)`.
- `socket_of(fd)`: the Python socket of a descriptor made here.
- `private_bind(socket, path)`: a unix socket for its owner alone.

All return a descriptor, or -1 after 0.12.4's message on stderr. Two things are safer than in 0.12.4: an empty
host is the loopback address and not every address of the computer; a unix socket is its owner's alone.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
import tempfile
from typing import Any, TypeAlias

from hypervisor.cutils import pstrcpy
from hypervisor.program import on_exit
from hypervisor.qemu_option import (
    QemuOpts,
    qemu_opt_get,
    qemu_opt_get_bool,
    qemu_opt_get_number,
    qemu_opt_set,
)
from tracer import traced

C_FILE = "qemu-sockets.c"

AddrInfo: TypeAlias = "tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]"
"""`struct addrinfo`, as getaddrinfo returns it: family, type, protocol, canonical name, address."""

_sockets: dict[int, socket.socket] = {}
_folders: list[str] = []


@on_exit
def _close_all() -> None:
    while _sockets:
        _sockets.popitem()[1].close()
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


def _adopt(made: socket.socket) -> int:
    _sockets[made.fileno()] = made
    return made.fileno()


def socket_of(fd: int) -> socket.socket:
    """The Python socket behind a descriptor made here."""
    return _sockets[fd]


def closesocket(fd: int) -> None:
    """Close a socket made here."""
    _sockets.pop(fd).close()


def _say(text: str) -> int:
    print(text, file=sys.stderr)
    return -1


@traced(file="osdep.c")
def qemu_socket(domain: int, type: int, protocol: int) -> int:
    """Make a socket that programs started from here do not inherit; raises OSError."""
    return _adopt(socket.socket(domain, type, protocol))


@traced(file="osdep.c")
def qemu_accept(s: int) -> int:
    """Take a connection; -1 when there is none to take."""
    try:
        return _adopt(socket_of(s).accept()[0])
    except OSError:
        return -1


@traced(file="osdep.c")
def socket_set_nonblock(fd: int) -> None:
    """Have calls on a descriptor return at once."""
    if fd in _sockets:
        _sockets[fd].setblocking(False)
    else:
        os.set_blocking(fd, False)


@traced
def inet_strfamily(family: int) -> str:
    """Name an address family."""
    names: dict[int, str] = {socket.AF_INET6: "ipv6", socket.AF_INET: "ipv4", socket.AF_UNIX: "unix"}
    return names.get(family, "????")


@traced
def inet_getport(e: AddrInfo) -> int:
    """Port of an address."""
    return e[4][1]


@traced
def inet_setport(e: AddrInfo, port: int) -> AddrInfo:
    """The address with another port."""
    family, type, protocol, name, address = e
    return family, type, protocol, name, (address[0], port, *address[2:])


def _family(opts: QemuOpts) -> int:
    family = socket.AF_INET if qemu_opt_get_bool(opts, "ipv4", 0) else socket.AF_UNSPEC
    return socket.AF_INET6 if qemu_opt_get_bool(opts, "ipv6", 0) else family


def _lookup(addr: str, port: str, family: int, flags: int) -> list[AddrInfo]:
    try:
        found: Any = socket.getaddrinfo(addr or None, port, family, socket.SOCK_STREAM, 0, flags)
    except (OSError, UnicodeError) as error:
        _say(f"getaddrinfo({addr},{port}): {getattr(error, 'strerror', None) or error}")
        return []
    return list(found)


def _socket(who: str, e: AddrInfo) -> int:
    """Make a socket for an address; -1 after a message, where the host lacks the address family."""
    try:
        return qemu_socket(*e[:3])
    except OSError as error:
        return _say(f"{who}: socket({inet_strfamily(e[0])}): {error.strerror}")


def _bind(slisten: int, e: AddrInfo, last: int) -> bool:
    """Bind to the first free port from the address's own to `last`; False after a message."""
    while True:
        try:
            socket_of(slisten).bind(e[4])
            return True
        except (OSError, OverflowError) as error:
            if not last or inet_getport(e) > last:
                cause = getattr(error, "strerror", None) or error
                _say(f"inet_listen_opts: bind({inet_strfamily(e[0])},{e[4][0]},{inet_getport(e)}): {cause}")
                return False
        e = inet_setport(e, inet_getport(e) + 1)


def _listening(e: AddrInfo, last: int) -> int:
    """A socket that listens on an address; -1 after a message."""
    slisten = _socket("inet_listen_opts", e)
    if slisten < 0:
        return -1
    socket_of(slisten).setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if not _bind(slisten, e, last):
        closesocket(slisten)
        return -1
    socket_of(slisten).listen(1)
    return slisten


@traced
def inet_listen_opts(opts: QemuOpts, port_offset: int) -> int:
    """Listen on an address; what was bound goes back into `opts`.

    Parameters
    ----------
    port_offset
        Added to the port that the options name, as VNC does.
    """
    port = qemu_opt_get(opts, "port")
    if port is None:
        return _say("inet_listen_opts: host and/or port not specified")
    port = pstrcpy(33, port)
    addr = qemu_opt_get(opts, "host") or ("::1" if qemu_opt_get_bool(opts, "ipv6", 0) else "127.0.0.1")
    to = qemu_opt_get_number(opts, "to", 0)
    if port_offset and port.isdigit():
        port = str(int(port) + port_offset)
    found = _lookup(addr, port, _family(opts), socket.AI_PASSIVE)
    if not found:
        return -1
    tried = (_listening(e, to and to + port_offset) for e in found)
    slisten = next((fd for fd in tried if fd >= 0), -1)
    if slisten < 0:
        return _say("inet_listen_opts: FAILED")
    listener = socket_of(slisten)
    host, bound = listener.getsockname()[:2]
    v4, v6 = ("off", "on") if listener.family == socket.AF_INET6 else ("on", "off")
    for name, fact in {"host": host, "port": str(bound - port_offset), "ipv6": v6, "ipv4": v4}.items():
        qemu_opt_set(opts, name, fact)
    return slisten


@traced
def inet_connect_opts(opts: QemuOpts) -> int:
    """Connect to an address."""
    addr, port = qemu_opt_get(opts, "host"), qemu_opt_get(opts, "port")
    if addr is None or port is None:
        return _say("inet_connect: host and/or port not specified")
    res = _lookup(addr, port, _family(opts), socket.AI_CANONNAME)
    for e in res:
        sock = _socket("inet_connect_opts", e)
        if sock < 0:
            continue
        socket_of(sock).setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            socket_of(sock).connect(e[4])
            return sock
        except OSError as error:
            if e is res[-1]:
                where = f"{inet_strfamily(e[0])},{res[0][3]},{e[4][0]},{e[4][1]}"
                _say(f"inet_connect_opts: connect({where}): {error.strerror}")
            closesocket(sock)
    return -1


def _nobody_listens(path: str) -> bool:
    """Whether a path is a socket that its program left behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            # A listener is a stream: it is of the wrong type for this socket, and does not notice it.
            probe.connect(path)
        except ConnectionRefusedError:
            return stat.S_ISSOCK(os.lstat(path).st_mode)
        except OSError:
            return False
    return False


def private_bind(sock: socket.socket, path: str) -> None:
    """Bind to a path, for its owner alone.

    A socket that nobody listens on is replaced; one in use or any other file there raises OSError.
    """
    if _nobody_listens(path):
        os.unlink(path)
    mask = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(mask)


@traced
def unix_listen_opts(opts: QemuOpts) -> int:
    """Listen on a path, where only a socket left behind is replaced; without a path, on a new one."""
    path = qemu_opt_get(opts, "path")
    sock = qemu_socket(socket.AF_UNIX, socket.SOCK_STREAM, 0)
    if not path:
        _folders.append(tempfile.mkdtemp(prefix="qemu-socket-"))
        path = os.path.join(_folders[-1], "socket")
        qemu_opt_set(opts, "path", path)
    try:
        private_bind(socket_of(sock), path)
        socket_of(sock).listen(1)
    except OSError as error:
        closesocket(sock)
        return _say(f"bind(unix:{path}): {error.strerror or error}")
    return sock


@traced
def unix_connect_opts(opts: QemuOpts) -> int:
    """Connect to a path."""
    path = qemu_opt_get(opts, "path")
    if path is None:
        return _say("unix connect: no path specified")
    sock = qemu_socket(socket.AF_UNIX, socket.SOCK_STREAM, 0)
    try:
        socket_of(sock).connect(path)
    except OSError as error:
        closesocket(sock)
        return _say(f"connect(unix:{path}): {error.strerror or error}")
    return sock
