"""What the commands of qemu-io share: the open image, buffers, requests, reports (qemu-io.c).

- `state`: the static variables `bs` and `misalign`, and how the user wants images opened.
- `Request`, `parse_request`: a read's or write's options, the same letters in all of them.
- `number(arg)`: an offset or length, or None after the user has been told.
- `parse_pattern`, `qemu_io_alloc`, `qemu_io_free`, `create_iovec`, `dump_buffer`, `print_report`.
"""

import re

from hypervisor.block_int import BlockDriverState
from hypervisor.cmd import (
    VERBOSE_FIXED_TIME,
    cmdinfo_t,
    command_usage,
    cvtnum,
    cvtstr,
    fail,
    tdiv,
    timestr,
)
from hypervisor.cutils import QEMUIOVector, qemu_iovec_add, qemu_iovec_init
from hypervisor.getopt import Getopt
from hypervisor.osdep import qemu_memalign, qemu_vfree
from hypervisor.program import on_reset
from hypervisor.qemu_option_parameter import strtoll
from hypervisor.wording import modern
from tracer import traced

C_FILE = "qemu-io.c"

MISALIGN_OFFSET = 16
REQUEST_MAX_BYTES = (1 << 31) - 512
_UINT_MAX = (1 << 32) - 1
_SIZE = re.compile(r"\s*(?:(0[xX][0-9a-fA-F]+)|(\d+)(\.\d*)?([bBkKmMgGtTpPeE]?))\Z")


class _State:
    bs: BlockDriverState | None = None
    misalign = False
    in_flight = 0
    format: str | None = None
    readonly = False

    @property
    def image(self) -> BlockDriverState:
        """The open image, which the interpreter has made sure of."""
        assert self.bs is not None
        return self.bs


state = _State()


@on_reset
def _reset() -> None:
    state.__dict__.clear()


class Request:
    """What the options of a read or write ask for.

    Parameters
    ----------
    flags : dict of str to str
        The option letters that were given, with their arguments.
    operands : list of str
        Offset and lengths, as text.
    pattern : int
        The byte to write, or to expect.
    """

    def __init__(self, flags: dict[str, str], operands: list[str], pattern: int) -> None:
        self.flags = flags
        self.operands = operands
        self.pattern = pattern

    def __contains__(self, letter: str) -> bool:
        return letter in self.flags


def parse_request(ci: cmdinfo_t, argv: list[str], short: str, pattern: int, exact: bool) -> Request | None:
    """Take a request's options and check its operands: two, or with `exact` false two or more.

    Returns
    -------
    Request or None
        None when something was wrong, which the user has then been told.
    """
    words = Getopt(argv, short)
    flags: dict[str, str] = {}
    for option, argument in words:
        if option == "?":
            command_usage(ci)
            return None
        if option == "P":
            pattern = parse_pattern(argument or "")
            if pattern < 0:
                return None
        flags[option] = argument or ""
    if len(words.operands) != 2 if exact else len(words.operands) < 2:
        command_usage(ci)
        return None
    return Request(flags, words.operands, pattern)


def complain(message: str) -> None:
    """Tell the user what is wrong with a command, on stdout as qemu-io does."""
    print(message)
    fail()


def number(arg: str) -> int | None:
    """Read an offset or length; None if it is none."""
    value = _strtosz(arg) if modern() else cvtnum(arg)
    if value >= 0:
        return value
    if not modern():
        complain(f"non-numeric length argument -- {arg}")
    elif value == -1:
        complain(f"Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {arg}")
    else:
        complain(f"Parsing error: argument too large -- {arg}")
    return None


def _strtosz(text: str) -> int:
    """Read a size as 7.2 does, fractions allowed; -1 for no number, -2 for one too large."""
    match = _SIZE.match(text)
    if match is None or (match[3] and match[4] in ("", "b", "B")):
        return -1
    if match[1]:
        value = int(match[1], 16)
    else:
        shift = 10 * "bkmgtpe".find(match[4].lower() or "b")
        value = int(match[2]) << shift
        if match[3]:
            value += int(float("0" + match[3]) * (1 << shift))
    return value if value < 1 << 63 else -2


@traced
def parse_pattern(arg: str) -> int:
    """Read a byte in C's notation; -1 if it is none."""
    pattern, rest = strtoll(arg)
    if rest or not 0 <= pattern <= 255:
        complain(f"{arg} is not a valid pattern byte")
        return -1
    return pattern


@traced
def qemu_io_alloc(len: int, pattern: int) -> memoryview:
    """Make a buffer full of `pattern`, off the alignment that O_DIRECT wants if the user says so."""
    offset = MISALIGN_OFFSET if state.misalign else 0
    buf = memoryview(qemu_memalign(512, len + offset))
    if pattern:
        buf[:] = bytes((pattern,)) * (len + offset)
    return buf[offset:]


@traced
def qemu_io_free(p: memoryview) -> None:
    """Give a buffer of `qemu_io_alloc` back."""
    qemu_vfree(p)


@traced
def dump_buffer(buffer: memoryview, offset: int, len: int) -> None:
    """Print `len` bytes, sixteen a line: place, hex digits, letters and digits."""
    for at in range(0, len, 16):
        row = bytes(buffer[at : min(at + 16, len)])
        digits = "".join(f"{byte:02x} " for byte in row)
        text = "".join(chr(byte) if byte < 128 and chr(byte).isalnum() else "." for byte in row)
        print(f"{offset + at:08x}:  {digits} {text}")


@traced
def print_report(op: str, t: int, offset: int, count: int, total: int, cnt: int, Cflag: bool) -> None:
    """Print what a request did and how fast; `t` in microseconds, with `Cflag` for machines."""
    ts = timestr(t, VERBOSE_FIXED_TIME if Cflag else 0)
    if Cflag:
        print(f"{total},{cnt},{ts},{tdiv(total, t):.3f},{tdiv(cnt, t):.3f}")
        return
    s1 = cvtstr(total)
    s2 = cvtstr(tdiv(total, t))
    print(f"{op} {total}/{count} bytes at offset {offset}")
    print(f"{s1}, {cnt} ops; {ts} ({s2}/sec and {tdiv(cnt, t):.4f} ops/sec)")


@traced
def create_iovec(qiov: QEMUIOVector, argv: list[str], nr_iov: int, pattern: int) -> memoryview | None:
    """Make `qiov` of the lengths in `argv`, over one buffer full of `pattern`.

    Returns
    -------
    memoryview or None
        The buffer; None if a length is wrong, which the user has then been told.
    """
    sizes: list[int] = []
    for arg in argv[:nr_iov]:
        len = number(arg)
        if len is None:
            return None
        if modern():
            if len > REQUEST_MAX_BYTES:
                complain(f"Argument '{arg}' exceeds maximum size {REQUEST_MAX_BYTES}")
                return None
            if sum(sizes) + len > REQUEST_MAX_BYTES:
                complain(f"The total number of bytes exceed the maximum size {REQUEST_MAX_BYTES}")
                return None
        elif len > _UINT_MAX:
            complain(f"too large length argument -- {arg}")
            return None
        elif len & 0x1FF:
            complain(f"length argument {len} is not sector aligned")
            return None
        sizes.append(len)
    qemu_iovec_init(qiov, nr_iov)
    buf = qemu_io_alloc(sum(sizes), pattern)
    at = 0
    for size in sizes:
        qemu_iovec_add(qiov, buf[at : at + size], size)
        at += size
    return buf
