"""Character devices of file descriptors: files, pipes, and the terminal; a part of qemu-char.c.

A terminal is set to pass every key on at once, and put back as it was when the program ends. Standard output
goes through `sys.stdout` when that is not the process's own, so that a caller in Python can catch it. A pipe
that nobody reads does not stop the machine: what it cannot hold waits, and more than `qemu_char_out.LIMIT` is
dropped.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

from hypervisor import qemu_char_out as out
from hypervisor.program import on_exit, on_reset
from hypervisor.qemu_char import (
    CHR_EVENT_CLOSED,
    CharDriverState,
    qemu_chr_can_read,
    qemu_chr_event,
    qemu_chr_generic_open,
    qemu_chr_read,
)
from hypervisor.qemu_option import QemuOpts, qemu_opt_get, qemu_opt_get_bool
from hypervisor.vl_loop import qemu_set_fd_handler2
from hypervisor.vl_state import DT_NOGRAPHIC, state
from tracer import Struct, traced

C_FILE = "qemu-char.c"


class FDCharDriver(Struct):
    """`FDCharDriver`: a back end of two descriptors; -1 for none."""

    fd_in: int = -1
    fd_out: int = -1
    max_size: int = 0


_term_fifo = bytearray()
_stdio_nb_clients = 0
_open_fds: list[int] = []
_old_terminal: list[Any] | None = None
_old_blocking: bool | None = None
_term_atexit_done = 0


@on_reset
def _reset() -> None:
    global _stdio_nb_clients
    _term_fifo.clear()
    _stdio_nb_clients = 0


@on_exit
def _close_all() -> None:
    global _term_atexit_done
    if _term_atexit_done:
        _term_atexit_done = 0
        term_exit()
    while _open_fds:
        fd = _open_fds.pop()
        out.drain(fd)
        os.close(fd)


@traced
def unix_write(fd: int, buf: bytes, len1: int) -> int:
    """Write all bytes, those later that the other end does not take now; -1 if it takes no more."""
    view = memoryview(buf)[:len1]
    if fd != 1:
        return len1 if out.put(fd, view) else -1
    if sys.stdout is not sys.__stdout__:
        sys.stdout.write(bytes(view).decode("utf-8", "replace"))
        return len1
    print(end="", flush=True)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            os.set_blocking(fd, True)
        except OSError:
            return -1
    return len1


@traced
def send_all(fd: int, buf: bytes, len1: int) -> int:
    """Write all bytes."""
    return unix_write(fd, buf, len1)


@traced
def fd_chr_write(chr: CharDriverState, buf: bytes, len: int) -> int:
    """Write to the descriptor."""
    fd = chr.opaque.fd_out
    waited = out.pending(fd)
    ret = send_all(fd, buf, len)
    if out.pending(fd) and not waited:
        qemu_set_fd_handler2(fd, *_input(chr), _flush, chr)
    return ret


def _input(chr: CharDriverState) -> tuple[Any, Any]:
    """Handlers for input on the descriptor that is written to: a pipe may serve both ways."""
    s = chr.opaque
    return (fd_chr_read_poll, fd_chr_read) if s.fd_in == s.fd_out else (None, None)


def _flush(chr: CharDriverState) -> None:
    fd = chr.opaque.fd_out
    if not out.flush(fd) or not out.pending(fd):
        qemu_set_fd_handler2(fd, *_input(chr), None, chr)


@traced
def fd_chr_read_poll(opaque: CharDriverState) -> int:
    """How many bytes the front end takes now."""
    opaque.opaque.max_size = 0 if out.is_behind(opaque.opaque.fd_out) else qemu_chr_can_read(opaque)
    return int(opaque.opaque.max_size)


@traced
def fd_chr_read(opaque: CharDriverState) -> None:
    """Pass what came to the front end; at its end, watch the descriptor no more."""
    s = opaque.opaque
    if s.max_size == 0:
        return
    try:
        buf = os.read(s.fd_in, min(s.max_size, 4096))
    except BlockingIOError:
        return
    if buf:
        qemu_chr_read(opaque, buf, len(buf))
        return
    qemu_set_fd_handler2(s.fd_in, None, None, None, None)
    qemu_chr_event(opaque, CHR_EVENT_CLOSED)


@traced
def fd_chr_update_read_handler(chr: CharDriverState) -> None:
    """Watch the descriptor for input; standard input has handlers of its own."""
    s = chr.opaque
    if s.fd_in >= 0 and not (state.display_type == DT_NOGRAPHIC and s.fd_in == 0):
        qemu_set_fd_handler2(s.fd_in, fd_chr_read_poll, fd_chr_read, None, chr)


@traced
def qemu_chr_open_fd(fd_in: int, fd_out: int) -> CharDriverState:
    """Make a device of two descriptors."""
    chr = CharDriverState(
        opaque=FDCharDriver(fd_in=fd_in, fd_out=fd_out),
        chr_write=fd_chr_write,
        chr_update_read_handler=fd_chr_update_read_handler,
    )
    qemu_chr_generic_open(chr)
    return chr


@traced
def qemu_chr_open_file_out(opts: QemuOpts) -> CharDriverState:
    """Open a file for output, emptied first; raises OSError."""
    fd_out = os.open(qemu_opt_get(opts, "path") or "", os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o666)
    _open_fds.append(fd_out)
    return qemu_chr_open_fd(-1, fd_out)


@traced
def qemu_chr_open_pipe(opts: QemuOpts) -> CharDriverState:
    """Open the named pipes PATH.in and PATH.out, or one pipe for both ways; raises OSError."""
    path = qemu_opt_get(opts, "path") or ""
    try:
        fd_in = os.open(f"{path}.in", os.O_RDWR | os.O_NONBLOCK)
        _open_fds.append(fd_in)
        fd_out = os.open(f"{path}.out", os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        fd_in = fd_out = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    _open_fds.append(fd_out)
    return qemu_chr_open_fd(fd_in, fd_out)


@traced
def stdio_read_poll(opaque: CharDriverState) -> int:
    """Whether more can be typed: one byte waits at most."""
    if _term_fifo and qemu_chr_can_read(opaque) > 0:
        qemu_chr_read(opaque, bytes(_term_fifo), 1)
        _term_fifo.clear()
    return int(not _term_fifo)


@traced
def stdio_read(opaque: CharDriverState) -> None:
    """Pass a typed byte to the front end; at the end of input, watch it no more."""
    try:
        buf = os.read(0, 1)
    except BlockingIOError:
        return
    except OSError:
        buf = b""
    if not buf:
        qemu_set_fd_handler2(0, None, None, None, None)
        qemu_chr_event(opaque, CHR_EVENT_CLOSED)
    elif qemu_chr_can_read(opaque) > 0:
        qemu_chr_read(opaque, buf, 1)
    else:
        _term_fifo.extend(buf)


@traced
def term_exit() -> None:
    """Put the terminal back as it was."""
    global _old_terminal, _old_blocking
    if _old_terminal is not None:
        import termios

        termios.tcsetattr(0, termios.TCSANOW, _old_terminal)
        _old_terminal = None
    if _old_blocking is not None:
        os.set_blocking(0, _old_blocking)
        _old_blocking = None


@traced
def term_init(opts: QemuOpts) -> None:
    """Have a terminal pass every key on at once, unechoed; anything else is left as it is."""
    global _old_terminal, _old_blocking, _term_atexit_done
    _term_atexit_done = 1
    signals = qemu_opt_get_bool(opts, "signal", int(state.display_type != DT_NOGRAPHIC))
    _old_blocking = os.get_blocking(0)
    os.set_blocking(0, False)
    if not os.isatty(0):
        state.last_errno = errno.ENOTTY
        return
    import termios

    _old_terminal = termios.tcgetattr(0)
    tty = termios.tcgetattr(0)
    iflag, oflag, cflag, lflag, _, _, cc = range(7)
    tty[iflag] &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP)
    tty[iflag] &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
    tty[oflag] |= termios.OPOST
    tty[lflag] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
    if not signals:
        tty[lflag] &= ~termios.ISIG
    tty[cflag] = tty[cflag] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    tty[cc][termios.VMIN], tty[cc][termios.VTIME] = 1, 0
    termios.tcsetattr(0, termios.TCSANOW, tty)


@traced
def qemu_chr_open_stdio(opts: QemuOpts) -> CharDriverState | None:
    """Open standard input and output, once."""
    global _stdio_nb_clients
    if _stdio_nb_clients:
        return None
    try:
        os.fstat(0)
    except OSError:
        return qemu_chr_open_fd(-1, 1)
    chr = qemu_chr_open_fd(0, 1)
    qemu_set_fd_handler2(0, stdio_read_poll, stdio_read, None, chr)
    _stdio_nb_clients += 1
    term_init(opts)
    return chr
