"""Character devices on pseudo terminals: a part of qemu-char.c.

Whether somebody has opened the other side shows only in reading: it fails while nobody has. So a timer tries
every second, and at once when the guest writes.
"""

from __future__ import annotations

import errno
import os
import pty
import sys
import tty

from hypervisor import qemu_char_out as out
from hypervisor.osdep import adopt_fd
from hypervisor.qemu_char import (
    CharDriverState,
    qemu_chr_can_read,
    qemu_chr_generic_open,
    qemu_chr_read,
)
from hypervisor.qemu_char_fd import send_all
from hypervisor.qemu_option import QemuOpts, qemu_opt_set
from hypervisor.vl_loop import qemu_set_fd_handler2
from hypervisor.vl_timers import QEMUTimer, qemu_get_clock, qemu_mod_timer, qemu_new_timer, rt_clock
from tracer import Struct, traced

C_FILE = "qemu-char.c"


class PtyCharDriver(Struct):
    """`PtyCharDriver`: `polling` while the descriptor is watched, `connected` while somebody is there."""

    fd: int = -1
    connected: int = 0
    polling: int = 0
    read_bytes: int = 0
    timer: QEMUTimer | None = None


@traced
def pty_chr_write(chr: CharDriverState, buf: bytes, len: int) -> int:
    """Write to the terminal; nothing while nobody is there."""
    s = chr.opaque
    if not s.connected:
        pty_chr_update_read_handler(chr)
        return 0
    waited = out.pending(s.fd)
    ret = send_all(s.fd, buf, len)
    if out.pending(s.fd) and not waited:
        qemu_set_fd_handler2(s.fd, pty_chr_read_poll, pty_chr_read, _flush, chr)
    return ret


def _flush(chr: CharDriverState) -> None:
    fd = chr.opaque.fd
    if not out.flush(fd) or not out.pending(fd):
        qemu_set_fd_handler2(fd, pty_chr_read_poll, pty_chr_read, None, chr)


@traced
def pty_chr_read_poll(opaque: CharDriverState) -> int:
    """How many bytes the front end takes now."""
    opaque.opaque.read_bytes = 0 if out.is_behind(opaque.opaque.fd) else qemu_chr_can_read(opaque)
    return int(opaque.opaque.read_bytes)


@traced
def pty_chr_read(opaque: CharDriverState) -> None:
    """Pass what was typed to the front end; note when nobody is there."""
    s = opaque.opaque
    if s.read_bytes == 0:
        return
    try:
        buf = os.read(s.fd, min(s.read_bytes, 4096))
    except OSError as error:
        if error.errno == errno.EIO:
            pty_chr_state(opaque, 0)
        return
    if not buf:
        pty_chr_state(opaque, 0)
        return
    pty_chr_state(opaque, 1)
    qemu_chr_read(opaque, buf, len(buf))


@traced
def pty_chr_update_read_handler(chr: CharDriverState) -> None:
    """Watch the terminal, and soon conclude that somebody is there unless reading fails."""
    s = chr.opaque
    qemu_set_fd_handler2(s.fd, pty_chr_read_poll, pty_chr_read, None, chr)
    s.polling = 1
    qemu_mod_timer(s.timer, qemu_get_clock(rt_clock) + 10)


@traced
def pty_chr_state(chr: CharDriverState, connected: int) -> None:
    """Note that somebody came or went."""
    s = chr.opaque
    if connected:
        if not s.connected:
            qemu_chr_generic_open(chr)
        s.connected = 1
        return
    qemu_set_fd_handler2(s.fd, None, None, None, None)
    out.forget(s.fd)
    s.connected = 0
    s.polling = 0
    qemu_mod_timer(s.timer, qemu_get_clock(rt_clock) + 1000)


@traced
def pty_chr_timer(opaque: CharDriverState) -> None:
    """Look again whether somebody is there."""
    s = opaque.opaque
    if s.connected:
        return
    if s.polling:
        pty_chr_state(opaque, 1)
    else:
        pty_chr_update_read_handler(opaque)


@traced
def qemu_chr_open_pty(opts: QemuOpts) -> CharDriverState | None:
    """Open a new pseudo terminal and say on stderr which."""
    try:
        fd, slave_fd = pty.openpty()
    except OSError:
        return None
    adopt_fd(fd)
    tty.setraw(slave_fd)
    name = os.ttyname(slave_fd)
    os.close(slave_fd)
    os.set_blocking(fd, False)
    qemu_opt_set(opts, "path", name)
    print(f"char device redirected to {name}", file=sys.stderr, flush=True)
    chr = CharDriverState(
        filename=f"pty:{name}",
        opaque=PtyCharDriver(fd=fd),
        chr_write=pty_chr_write,
        chr_update_read_handler=pty_chr_update_read_handler,
    )
    chr.opaque.timer = qemu_new_timer(rt_clock, pty_chr_timer, chr)
    return chr
