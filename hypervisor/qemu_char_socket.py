"""Character devices on sockets, with telnet's negotiation: a part of qemu-char.c.

A server has one client at a time; the next waits until that one goes. Input is read only as far as the front
end takes it, and not at all from a client that is behind in reading what it was sent. It is cut off once
`qemu_char_out.LIMIT` bytes wait for it: 0.12.4 would stand still until it reads.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys

from hypervisor import qemu_char_out as out
from hypervisor.program import on_exit, on_reset
from hypervisor.qemu_char import (
    CHR_EVENT_BREAK,
    CHR_EVENT_CLOSED,
    CharDriverState,
    qemu_chr_can_read,
    qemu_chr_event,
    qemu_chr_generic_open,
    qemu_chr_read,
)
from hypervisor.qemu_char_fd import send_all
from hypervisor.qemu_option import QemuOpts, qemu_opt_get, qemu_opt_get_bool
from hypervisor.qemu_sockets import (
    closesocket,
    inet_connect_opts,
    inet_listen_opts,
    qemu_accept,
    socket_of,
    socket_set_nonblock,
    unix_connect_opts,
    unix_listen_opts,
)
from hypervisor.vl_loop import qemu_set_fd_handler, qemu_set_fd_handler2
from tracer import Struct, traced

C_FILE = "qemu-char.c"

IAC, IAC_BREAK = 255, 243
_LOOK_UP = 0.2
"""Seconds."""
_WILL, _DO, _BINARY, _ECHO, _SUPPRESS_GO_AHEAD = 251, 253, 0, 1, 3


class TCPCharDriver(Struct):
    """`TCPCharDriver`: -1 for a descriptor that is not there.

    Parameters
    ----------
    do_telnetopt
        0 without telnet, 1 in plain text, 2 and 3 within an option's three bytes.
    """

    fd: int = -1
    listen_fd: int = -1
    connected: int = 0
    max_size: int = 0
    do_telnetopt: int = 0
    do_nodelay: int = 0
    is_unix: int = 0
    msgfd: int = -1


_drivers: list[TCPCharDriver] = []


@on_reset
def _reset() -> None:
    _drivers.clear()


@on_exit
def _last_words() -> None:
    for s in _drivers:
        if s.connected:
            out.drain(s.fd)
            # A socket that is closed with input unread takes back what it sent.
            with contextlib.suppress(OSError):
                socket_of(s.fd).recv(1 << 16)
        _drop_msgfd(s)


def _drop_msgfd(s: TCPCharDriver) -> None:
    if s.msgfd != -1:
        os.close(s.msgfd)
        s.msgfd = -1


@traced
def tcp_chr_write(chr: CharDriverState, buf: bytes, len: int) -> int:
    """Write to the client; without one, nowhere."""
    s = chr.opaque
    if not s.connected:
        return len
    waited = out.pending(s.fd)
    ret = send_all(s.fd, buf, len)
    if ret < 0 and out.pending(s.fd):
        print(f"studykvm: {chr.label}: the client reads too slowly, it is cut off", file=sys.stderr)
        _hang_up(chr)
    elif out.pending(s.fd) and not waited:
        qemu_set_fd_handler2(s.fd, tcp_chr_read_poll, tcp_chr_read, _flush, chr)
    return ret


def _flush(chr: CharDriverState) -> None:
    s = chr.opaque
    if not out.flush(s.fd) or not out.pending(s.fd):
        qemu_set_fd_handler2(s.fd, tcp_chr_read_poll, tcp_chr_read, None, chr)


@traced
def tcp_chr_read_poll(opaque: CharDriverState) -> int:
    """How many bytes the front end takes now."""
    s = opaque.opaque
    if not s.connected or out.is_behind(s.fd):
        return 0
    s.max_size = qemu_chr_can_read(opaque)
    return int(s.max_size)


@traced
def tcp_chr_process_IAC_bytes(chr: CharDriverState, s: TCPCharDriver, buf: bytes, size: int) -> bytes:
    """Take telnet's options out of what came; a break among them goes to the front end."""
    kept = bytearray()
    for byte in buf[:size]:
        if s.do_telnetopt == 1:
            if byte == IAC:
                s.do_telnetopt = 2
            else:
                kept.append(byte)
        elif s.do_telnetopt == 2 and byte == IAC:
            kept.append(byte)
            s.do_telnetopt = 1
        elif s.do_telnetopt == 2 and byte == IAC_BREAK:
            qemu_chr_event(chr, CHR_EVENT_BREAK)
            s.do_telnetopt = 1
        else:
            s.do_telnetopt = 3 if s.do_telnetopt == 2 else 1
    return bytes(kept)


@traced
def tcp_get_msgfd(chr: CharDriverState) -> int:
    """The descriptor that came with the last input."""
    return int(chr.opaque.msgfd)


@traced
def unix_process_msgfd(chr: CharDriverState, msg: list[int]) -> None:
    """Keep the last of the descriptors that came."""
    s = chr.opaque
    for fd in msg:
        _drop_msgfd(s)
        s.msgfd = fd


@traced
def tcp_chr_recv(chr: CharDriverState, len: int) -> bytes | None:
    """Read; empty when the client is gone, None when there was nothing after all."""
    s = chr.opaque
    try:
        if not s.is_unix:
            return socket_of(s.fd).recv(len)
        buf, fds, _, _ = socket.recv_fds(socket_of(s.fd), len, 1)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        # Reset by the client: 0.12.4 would ask again and again.
        return b""
    if fds:
        unix_process_msgfd(chr, fds)
    return buf


@traced
def tcp_chr_read(opaque: CharDriverState) -> None:
    """Pass what came to the front end; when the client is gone, wait for the next."""
    s = opaque.opaque
    if not s.connected or s.max_size <= 0:
        return
    buf = tcp_chr_recv(opaque, min(s.max_size, 4096))
    if buf == b"":
        _hang_up(opaque)
    elif buf is not None:
        if s.do_telnetopt:
            buf = tcp_chr_process_IAC_bytes(opaque, s, buf, len(buf))
        if buf:
            qemu_chr_read(opaque, buf, len(buf))
        _drop_msgfd(s)


def _hang_up(chr: CharDriverState) -> None:
    """Close the connection and listen again."""
    s = chr.opaque
    s.connected = 0
    if s.listen_fd >= 0:
        qemu_set_fd_handler(s.listen_fd, tcp_chr_accept, None, chr)
    qemu_set_fd_handler(s.fd, None, None, None)
    out.forget(s.fd)
    closesocket(s.fd)
    s.fd = -1
    qemu_chr_event(chr, CHR_EVENT_CLOSED)


@traced
def tcp_chr_connect(opaque: CharDriverState) -> None:
    """Begin to talk to the other side."""
    s = opaque.opaque
    s.connected = 1
    qemu_set_fd_handler2(s.fd, tcp_chr_read_poll, tcp_chr_read, None, opaque)
    qemu_chr_generic_open(opaque)


@traced
def tcp_chr_telnet_init(fd: int) -> None:
    """Ask a telnet client for single characters, binary, unechoed."""
    options = ((_WILL, _ECHO), (_WILL, _SUPPRESS_GO_AHEAD), (_WILL, _BINARY), (_DO, _BINARY))
    for verb, option in options:
        out.put(fd, bytes((IAC, verb, option)))


@traced
def socket_set_nodelay(fd: int) -> None:
    """Have small packets sent at once."""
    socket_of(fd).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@traced
def tcp_chr_accept(opaque: CharDriverState) -> None:
    """Take a client; the next one has to wait."""
    s = opaque.opaque
    fd = qemu_accept(s.listen_fd)
    if fd < 0:
        return
    if s.do_telnetopt:
        s.do_telnetopt = 1
        tcp_chr_telnet_init(fd)
    socket_set_nonblock(fd)
    if s.do_nodelay:
        socket_set_nodelay(fd)
    s.fd = fd
    qemu_set_fd_handler(s.listen_fd, None, None, None)
    tcp_chr_connect(opaque)


@traced
def qemu_chr_open_socket(opts: QemuOpts) -> CharDriverState | None:
    """Open a server or a connection; a server waits for its first client unless told `nowait`."""
    is_listen = qemu_opt_get_bool(opts, "server", 0)
    is_waitconnect = qemu_opt_get_bool(opts, "wait", 1) and is_listen
    is_telnet = qemu_opt_get_bool(opts, "telnet", 0)
    do_nodelay = not qemu_opt_get_bool(opts, "delay", 1)
    is_unix = qemu_opt_get(opts, "path") is not None
    if is_unix:
        fd = unix_listen_opts(opts) if is_listen else unix_connect_opts(opts)
    else:
        fd = inet_listen_opts(opts, 0) if is_listen else inet_connect_opts(opts)
    if fd < 0:
        return None
    if not is_waitconnect:
        socket_set_nonblock(fd)
    s = TCPCharDriver(is_unix=int(is_unix), do_nodelay=int(do_nodelay and not is_unix))
    _drivers.append(s)
    chr = CharDriverState(opaque=s, chr_write=tcp_chr_write, get_msgfd=tcp_get_msgfd)
    if is_listen:
        s.listen_fd = fd
        qemu_set_fd_handler(s.listen_fd, tcp_chr_accept, None, chr)
        if is_telnet:
            s.do_telnetopt = 1
    else:
        s.fd = fd
        if not is_unix:
            socket_set_nodelay(fd)
        tcp_chr_connect(chr)
    chr.filename = _name(opts, bool(is_unix), bool(is_telnet), bool(is_listen))
    if is_listen and is_waitconnect:
        print(f"QEMU waiting for connection on: {chr.filename}", flush=True)
        # accept() itself would not notice a signal that came just before it.
        while not select.select([fd], [], [], _LOOK_UP)[0]:
            pass
        tcp_chr_accept(chr)
        socket_set_nonblock(s.listen_fd)
    return chr


def _name(opts: QemuOpts, is_unix: bool, is_telnet: bool, is_listen: bool) -> str:
    if is_unix:
        name = f"unix:{qemu_opt_get(opts, 'path')}"
    else:
        kind = "telnet" if is_telnet else "tcp"
        name = f"{kind}:{qemu_opt_get(opts, 'host')}:{qemu_opt_get(opts, 'port')}"
    return name + (",server" if is_listen else "")
