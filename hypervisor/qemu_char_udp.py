"""A character device of datagrams: parts of qemu-char.c and qemu-sockets.c.

    udp:[HOST]:PORT[@[LOCAL_ADDRESS]:LOCAL_PORT]      what is written is sent there, what comes back is read

Nobody is told whether anybody listens. An empty host is this computer; so is, then, the empty local address,
which is every address in 0.12.4: but datagrams are taken from the peer alone.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from dataclasses import field
from typing import Any

from hypervisor.qemu_char import CharDriverState, qemu_chr_can_read, qemu_chr_read
from hypervisor.qemu_option import QemuOpts, qemu_opt_get
from hypervisor.qemu_sockets import AddrInfo, _family, _say, _socket, closesocket, inet_strfamily, socket_of
from hypervisor.vl_loop import qemu_set_fd_handler2
from tracer import Struct, traced

C_FILE = "qemu-char.c"

READ_BUF_LEN = 4096


class NetCharDriver(Struct):
    """`NetCharDriver`: `buf` is what the front end has not taken yet of a datagram."""

    fd: int = -1
    buf: deque[int] = field(default_factory=deque)
    max_size: int = 0


def _find(host: str, port: str, family: int, flags: int) -> AddrInfo | None:
    """The first address of a name; None after a message."""
    try:
        found: Any = socket.getaddrinfo(host or None, port, family, socket.SOCK_DGRAM, 0, flags)
    except (OSError, UnicodeError, OverflowError) as error:
        _say(f"getaddrinfo({host},{port}): {getattr(error, 'strerror', None) or error}")
        return None
    first: AddrInfo = found[0]
    return first


@traced(file="qemu-sockets.c")
def inet_dgram_opts(opts: QemuOpts) -> int:
    """Make a socket that speaks to one peer; its descriptor, or -1 after a message."""
    host, port = qemu_opt_get(opts, "host") or "localhost", qemu_opt_get(opts, "port") or ""
    if not port:
        return _say("inet_dgram: port not specified")
    peer = _find(host, port, _family(opts), socket.AI_CANONNAME | socket.AI_ADDRCONFIG)
    if peer is None:
        return -1
    here = peer[4][0] if peer[4][0] in ("::1", "127.0.0.1") else ""
    address, own_port = qemu_opt_get(opts, "localaddr") or here, qemu_opt_get(opts, "localport") or "0"
    local = _find(address, own_port, peer[0], socket.AI_PASSIVE)
    fd = _socket("inet_dgram_opts", peer) if local is not None else -1
    if local is None or fd < 0:
        return -1
    what, place = "bind", f"{address},{own_port}"
    try:
        socket_of(fd).setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        socket_of(fd).bind(local[4])
        what, place = "connect", f"{host},{port}"
        socket_of(fd).connect(peer[4])
    except OSError as error:
        closesocket(fd)
        return _say(f"inet_dgram_opts: {what}({inet_strfamily(peer[0])},{place}): {error.strerror}")
    return fd


@traced
def udp_chr_write(chr: CharDriverState, buf: bytes, len: int) -> int:
    """Send a datagram; one that nobody waits for is lost."""
    with contextlib.suppress(OSError):
        return socket_of(chr.opaque.fd).send(buf[:len])
    return -1


def _pass_on(chr: CharDriverState) -> int:
    """Give the front end what it takes of the last datagram; how much it would take more."""
    s = chr.opaque
    s.max_size = qemu_chr_can_read(chr)
    while s.max_size > 0 and s.buf:
        qemu_chr_read(chr, bytes((s.buf.popleft(),)), 1)
        s.max_size = qemu_chr_can_read(chr)
    return int(s.max_size)


@traced
def udp_chr_read_poll(opaque: CharDriverState) -> int:
    """How many bytes the front end takes now, after what was left over."""
    return _pass_on(opaque)


@traced
def udp_chr_read(opaque: CharDriverState) -> None:
    """Take a datagram."""
    s = opaque.opaque
    if s.max_size == 0:
        return
    with contextlib.suppress(OSError):
        s.buf.extend(socket_of(s.fd).recv(READ_BUF_LEN, socket.MSG_DONTWAIT))
    _pass_on(opaque)


@traced
def udp_chr_update_read_handler(chr: CharDriverState) -> None:
    """Watch the socket for input."""
    qemu_set_fd_handler2(chr.opaque.fd, udp_chr_read_poll, udp_chr_read, None, chr)


@traced
def qemu_chr_open_udp(opts: QemuOpts) -> CharDriverState | None:
    """Open a device; None after a message."""
    fd = inet_dgram_opts(opts)
    if fd < 0:
        _say("inet_dgram_opts failed")
        return None
    return CharDriverState(
        opaque=NetCharDriver(fd=fd),
        chr_write=udp_chr_write,
        chr_update_read_handler=udp_chr_update_read_handler,
    )
