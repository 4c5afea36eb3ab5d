"""Character devices on the host's serial lines, /dev/ttyS0 say: a part of qemu-char.c.

The line passes every byte as it is. The guest's speed is not handed on: the model's serial port has none.
"""

from __future__ import annotations

import os
import termios

from hypervisor.osdep import adopt_fd
from hypervisor.qemu_char import CharDriverState, qemu_chr_generic_open
from hypervisor.qemu_char_fd import qemu_chr_open_fd
from hypervisor.qemu_option import QemuOpts, qemu_opt_get
from tracer import traced

C_FILE = "qemu-char.c"

_IFLAG, _OFLAG, _CFLAG, _LFLAG, _ISPEED, _OSPEED = range(6)
_INPUT = ("IGNBRK", "BRKINT", "PARMRK", "ISTRIP", "INLCR", "IGNCR", "ICRNL", "IXON")
_LOCAL = ("ECHO", "ECHONL", "ICANON", "IEXTEN", "ISIG")
_CONTROL = ("CSIZE", "PARENB", "PARODD", "CRTSCTS", "CSTOPB")


def _bits(names: tuple[str, ...]) -> int:
    return sum(getattr(termios, name) for name in names)


@traced
def tty_serial_init(fd: int, speed: int, parity: str, data_bits: int, stop_bits: int) -> None:
    """Set up a line; what is none is left as it is."""
    try:
        tty = termios.tcgetattr(fd)
    except termios.error:
        return
    tty[_ISPEED] = tty[_OSPEED] = getattr(termios, f"B{speed}")
    tty[_IFLAG] &= ~_bits(_INPUT)
    tty[_OFLAG] |= termios.OPOST
    tty[_LFLAG] &= ~_bits(_LOCAL)
    tty[_CFLAG] &= ~_bits(_CONTROL)
    tty[_CFLAG] |= getattr(termios, f"CS{data_bits}") | (termios.CSTOPB if stop_bits == 2 else 0)
    tty[_CFLAG] |= {"E": termios.PARENB, "O": termios.PARENB | termios.PARODD}.get(parity, 0)
    termios.tcsetattr(fd, termios.TCSANOW, tty)


@traced
def qemu_chr_open_tty(opts: QemuOpts) -> CharDriverState:
    """Open a line; raises OSError."""
    fd = adopt_fd(os.open(qemu_opt_get(opts, "path") or "", os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY))
    tty_serial_init(fd, 115200, "N", 8, 1)
    chr = qemu_chr_open_fd(fd, fd)
    qemu_chr_generic_open(chr)
    return chr
