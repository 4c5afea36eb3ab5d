"""Character devices: where serial lines and monitors lead; qemu-char.c.

A `CharDriverState` has a back end (stdio, a file, nothing, a pipe) that it writes to, and a front end (a
serial port, a monitor) whose handlers it calls. A multiplexer (`mon:stdio`) shares one back end among several
front ends; Ctrl-A c goes from one to the next, Ctrl-A x ends the program.

- `qemu_chr_parse_compat(label, filename)`: "file:out.txt" to an option group.
- `qemu_chr_open_opts(opts, init)`, `qemu_chr_open(label, filename, init)`: to an open device.
- `qemu_chr_add_handlers(s, fd_can_read, fd_read, fd_event, opaque)`, `qemu_chr_write(s, buf, len)`.

Back ends: null, stdio, file, pipe, and vc, a text console that nobody sees. Sockets, terminals, pty and
parallel ports are known by name and not modelled.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import field
from typing import Any

from hypervisor.cutils import strstart
from hypervisor.errors import HypervisorError
from hypervisor.program import linked, on_exit, on_reset
from hypervisor.qemu_config import qemu_chardev_opts
from hypervisor.qemu_option import (
    QemuOpts,
    qemu_opt_get,
    qemu_opt_get_bool,
    qemu_opt_set,
    qemu_opts_create,
    qemu_opts_del,
    qemu_opts_id,
)
from hypervisor.vl_loop import qemu_set_fd_handler2
from hypervisor.vl_state import DT_NOGRAPHIC, state
from tracer import Struct, traced

C_FILE = "qemu-char.c"

CHR_EVENT_BREAK = 0
CHR_EVENT_OPENED = 2
CHR_EVENT_MUX_IN = 3
CHR_EVENT_MUX_OUT = 4
CHR_EVENT_CLOSED = 5
MAX_MUX = 4
MUX_BUFFER_SIZE = 32

IOCanRWHandler = Callable[[Any], int]
IOReadHandler = Callable[[Any, bytes, int], None]
IOEventHandler = Callable[[Any, int], None]


class CharDriverState(Struct):
    """`CharDriverState`: `opaque` is the back end's own state, the handlers are the front end's."""

    chr_write: Callable[[CharDriverState, bytes, int], int] | None = None
    chr_update_read_handler: Callable[[CharDriverState], None] | None = None
    chr_can_read: IOCanRWHandler | None = None
    chr_read: IOReadHandler | None = None
    chr_event: IOEventHandler | None = None
    chr_accept_input: Callable[[CharDriverState], None] | None = None
    handler_opaque: Any = None
    init: Callable[[CharDriverState], None] | None = None
    opaque: Any = None
    bh: Any = None
    label: str | None = None
    filename: str | None = None


class FDCharDriver(Struct):
    """`FDCharDriver`: a back end of two descriptors; -1 for none."""

    fd_in: int = -1
    fd_out: int = -1
    max_size: int = 0


class MuxFrontEnd(Struct):
    """A multiplexer's front end, in C a column of MuxDriver's arrays, with the input that waits for it."""

    chr_can_read: IOCanRWHandler | None = None
    chr_read: IOReadHandler | None = None
    chr_event: IOEventHandler | None = None
    ext_opaque: Any = None
    buffer: deque[int] = field(default_factory=deque)


class MuxDriver(Struct):
    """`MuxDriver`: `focus` is the front end that gets what is typed."""

    drv: CharDriverState | None = None
    focus: int = -1
    mux_cnt: int = 0
    term_got_escape: int = 0
    ends: list[MuxFrontEnd] = field(default_factory=list)


_chardevs: list[CharDriverState] = []
_term_fifo = bytearray()
_stdio_nb_clients = 0
_open_fds: list[int] = []
_old_terminal: list[Any] | None = None
_old_blocking: bool | None = None


@on_reset
def _reset() -> None:
    global _stdio_nb_clients
    _chardevs.clear()
    _term_fifo.clear()
    _stdio_nb_clients = 0


@on_exit
def _close_all() -> None:
    term_exit()
    while _open_fds:
        os.close(_open_fds.pop())


@traced
def qemu_chr_event(s: CharDriverState, event: int) -> None:
    """Tell the front end of an event, CHR_EVENT_*."""
    if s.chr_event is not None:
        s.chr_event(s.handler_opaque, event)


@traced
def qemu_chr_generic_open_bh(opaque: CharDriverState) -> None:
    """Tell the front end that the device is open, once the main loop runs."""
    qemu_chr_event(opaque, CHR_EVENT_OPENED)
    linked.qemu_bh_delete(opaque.bh)
    opaque.bh = None


@traced
def qemu_chr_generic_open(s: CharDriverState) -> None:
    """Have the front end told later that the device is open."""
    if s.bh is None:
        s.bh = linked.qemu_bh_new(qemu_chr_generic_open_bh, s)
        linked.qemu_bh_schedule(s.bh)


@traced
def qemu_chr_write(s: CharDriverState, buf: bytes, len: int) -> int:
    """Write to the back end; how many bytes it took."""
    assert s.chr_write is not None
    return s.chr_write(s, buf, len)


@traced
def qemu_chr_can_read(s: CharDriverState) -> int:
    """How many bytes the front end takes now."""
    return s.chr_can_read(s.handler_opaque) if s.chr_can_read is not None else 0


@traced
def qemu_chr_read(s: CharDriverState, buf: bytes, len: int) -> None:
    """Give input to the front end."""
    assert s.chr_read is not None
    s.chr_read(s.handler_opaque, buf, len)


@traced
def qemu_chr_accept_input(s: CharDriverState) -> None:
    """The front end takes input again."""
    if s.chr_accept_input is not None:
        s.chr_accept_input(s)


@traced
def qemu_chr_add_handlers(
    s: CharDriverState,
    fd_can_read: IOCanRWHandler | None,
    fd_read: IOReadHandler | None,
    fd_event: IOEventHandler | None,
    opaque: Any,
) -> None:
    """Put a front end on the device."""
    s.chr_can_read = fd_can_read
    s.chr_read = fd_read
    s.chr_event = fd_event
    s.handler_opaque = opaque
    if s.chr_update_read_handler is not None:
        s.chr_update_read_handler(s)


@traced
def null_chr_write(chr: CharDriverState, buf: bytes, len: int) -> int:
    """Swallow everything."""
    return len


@traced
def qemu_chr_open_null(opts: QemuOpts) -> CharDriverState:
    """Open the device that swallows everything."""
    return CharDriverState(chr_write=null_chr_write)


@traced(file="console.c")
def text_console_init(opts: QemuOpts) -> CharDriverState:
    """Open a text console of the graphical window; the model has no window, so nobody sees it."""
    return CharDriverState(chr_write=null_chr_write)


@traced
def mux_chr_write(chr: CharDriverState, buf: bytes, len: int) -> int:
    """Write to the shared back end."""
    assert chr.opaque.drv.chr_write is not None
    return int(chr.opaque.drv.chr_write(chr.opaque.drv, buf, len))


_MUX_HELP = (
    "% h    print this help\n\r"
    "% x    exit emulator\n\r"
    "% s    save disk data back to file (if -snapshot)\n\r"
    "% b    send break (magic sysrq)\n\r"
    "% c    switch between console and monitor\n\r"
    "% %  sends %\n\r"
)


@traced
def mux_print_help(chr: CharDriverState) -> None:
    """Print what can follow the escape character."""
    code = state.term_escape_char
    name, intro = "Escape-Char", f"\n\rEscape-Char set to Ascii: 0x{code:02x}\n\r\n\r"
    if 0 < code < 26:
        name, intro = f"C-{chr_of(code)}", "\n\r"
    text = (intro + _MUX_HELP.replace("%", name)).encode()
    qemu_chr_write(chr, text, len(text))


def chr_of(code: int) -> str:
    """The letter of a control character."""
    return "abcdefghijklmnopqrstuvwxyz"[code - 1]


@traced
def mux_chr_send_event(d: MuxDriver, mux_nr: int, event: int) -> None:
    """Tell one front end of an event."""
    end = d.ends[mux_nr]
    if end.chr_event is not None:
        end.chr_event(end.ext_opaque, event)


def _mux_command(chr: CharDriverState, d: MuxDriver, ch: int) -> None:
    if ch in b"?h":
        mux_print_help(chr)
    elif ch == ord("x"):
        text = b"QEMU: Terminated\n\r"
        qemu_chr_write(chr, text, len(text))
        state.exit_reason = "quit"
        raise SystemExit(0)
    elif ch == ord("s"):
        from hypervisor.block import bdrv_commit
        from hypervisor.vl_drive import drives

        for dinfo in drives:
            if dinfo.bdrv is not None:
                bdrv_commit(dinfo.bdrv)
    elif ch == ord("b"):
        qemu_chr_event(chr, CHR_EVENT_BREAK)
    elif ch == ord("c"):
        mux_chr_send_event(d, d.focus, CHR_EVENT_MUX_OUT)
        d.focus = (d.focus + 1) % d.mux_cnt
        mux_chr_send_event(d, d.focus, CHR_EVENT_MUX_IN)


@traced
def mux_proc_byte(chr: CharDriverState, d: MuxDriver, ch: int) -> int:
    """Look at a typed byte; 1 if it is for the front end."""
    if d.term_got_escape:
        d.term_got_escape = 0
        if ch == state.term_escape_char:
            return 1
        _mux_command(chr, d, ch)
    elif ch == state.term_escape_char:
        d.term_got_escape = 1
    else:
        return 1
    return 0


@traced
def mux_chr_accept_input(chr: CharDriverState) -> None:
    """Give the chosen front end the input that waits for it."""
    end = chr.opaque.ends[chr.opaque.focus]
    while end.buffer and end.chr_can_read is not None and end.chr_can_read(end.ext_opaque):
        end.chr_read(end.ext_opaque, bytes((end.buffer.popleft(),)), 1)


@traced
def mux_chr_can_read(opaque: CharDriverState) -> int:
    """Whether more can be typed."""
    end = opaque.opaque.ends[opaque.opaque.focus]
    if len(end.buffer) < MUX_BUFFER_SIZE:
        return 1
    return end.chr_can_read(end.ext_opaque) if end.chr_can_read is not None else 0


@traced
def mux_chr_read(opaque: CharDriverState, buf: bytes, size: int) -> None:
    """Pass what is typed to the chosen front end."""
    d = opaque.opaque
    mux_chr_accept_input(opaque)
    for ch in buf[:size]:
        end = d.ends[d.focus]
        if not mux_proc_byte(opaque, d, ch):
            continue
        if not end.buffer and end.chr_can_read is not None and end.chr_can_read(end.ext_opaque):
            end.chr_read(end.ext_opaque, bytes((ch,)), 1)
        else:
            end.buffer.append(ch)


@traced
def mux_chr_event(opaque: CharDriverState, event: int) -> None:
    """Pass an event to all front ends."""
    for number in range(opaque.opaque.mux_cnt):
        mux_chr_send_event(opaque.opaque, number, event)


@traced
def mux_chr_update_read_handler(chr: CharDriverState) -> None:
    """Add a front end, which gets what is typed from now on."""
    d = chr.opaque
    if d.mux_cnt >= MAX_MUX:
        print("Cannot add I/O handlers, MUX array is full", file=sys.stderr)
        return
    d.ends.append(
        MuxFrontEnd(
            chr_can_read=chr.chr_can_read,
            chr_read=chr.chr_read,
            chr_event=chr.chr_event,
            ext_opaque=chr.handler_opaque,
        )
    )
    if d.mux_cnt == 0:
        qemu_chr_add_handlers(d.drv, mux_chr_can_read, mux_chr_read, mux_chr_event, chr)
    if d.focus != -1:
        mux_chr_send_event(d, d.focus, CHR_EVENT_MUX_OUT)
    d.focus = d.mux_cnt
    d.mux_cnt += 1
    mux_chr_send_event(d, d.focus, CHR_EVENT_MUX_IN)


@traced
def qemu_chr_open_mux(drv: CharDriverState) -> CharDriverState:
    """Put a multiplexer on a device."""
    return CharDriverState(
        opaque=MuxDriver(drv=drv),
        chr_write=mux_chr_write,
        chr_update_read_handler=mux_chr_update_read_handler,
        chr_accept_input=mux_chr_accept_input,
    )


@traced
def unix_write(fd: int, buf: bytes, len1: int) -> int:
    """Write all bytes; -1 if the descriptor takes no more."""
    view = memoryview(buf)[:len1]
    if fd == 1 and sys.stdout is not sys.__stdout__:
        sys.stdout.write(bytes(view).decode("utf-8", "replace"))
        return len1
    if fd == 1:
        sys.stdout.flush()
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
    return send_all(chr.opaque.fd_out, buf, len)


@traced
def fd_chr_read_poll(opaque: CharDriverState) -> int:
    """How many bytes the front end takes now."""
    opaque.opaque.max_size = qemu_chr_can_read(opaque)
    return int(opaque.opaque.max_size)


@traced
def fd_chr_read(opaque: CharDriverState) -> None:
    """Pass what came to the front end; at its end, watch the descriptor no more."""
    s = opaque.opaque
    if s.max_size == 0:
        return
    buf = os.read(s.fd_in, min(s.max_size, 4096))
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
        fd_in = os.open(f"{path}.in", os.O_RDWR)
        _open_fds.append(fd_in)
        fd_out = os.open(f"{path}.out", os.O_RDWR)
    except OSError:
        fd_in = fd_out = os.open(path, os.O_RDWR)
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
    global _old_terminal, _old_blocking
    signals = qemu_opt_get_bool(opts, "signal", int(state.display_type != DT_NOGRAPHIC))
    _old_blocking = os.get_blocking(0)
    os.set_blocking(0, False)
    if not os.isatty(0):
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


def _network_address(rest: str, names: tuple[str, str]) -> dict[str, str] | None:
    host, colon, port = rest.partition(":")
    return {names[0]: host, names[1]: port.partition(",")[0]} if colon and port else None


def _set(opts: QemuOpts, **values: str) -> QemuOpts:
    for name, value in values.items():
        qemu_opt_set(opts, name, value)
    return opts


@traced
def qemu_chr_parse_compat(label: str, filename: str) -> QemuOpts | None:
    """Read the old spelling of a device, "file:out.txt" or "mon:stdio"; None if it is none."""
    opts = qemu_opts_create(qemu_chardev_opts, label, 1)
    if opts is None:
        return None
    ret, rest = strstart(filename, "mon:")
    if ret and rest is not None:
        filename = rest
        qemu_opt_set(opts, "mux", "on")
    if filename in ("null", "pty", "msmouse", "braille", "stdio"):
        return _set(opts, backend=filename)
    ret, rest = strstart(filename, "vc")
    if ret and rest is not None:
        return _parse_vc(opts, rest)
    if filename == "con:":
        return _set(opts, backend="console")
    if strstart(filename, "COM")[0]:
        return _set(opts, backend="serial", path=filename)
    for prefix in ("file", "pipe"):
        ret, rest = strstart(filename, f"{prefix}:")
        if ret and rest is not None:
            return _set(opts, backend=prefix, path=rest)
    for prefix, backend in (("tcp", "socket"), ("telnet", "socket"), ("udp", "udp")):
        ret, rest = strstart(filename, f"{prefix}:")
        if ret and rest is not None:
            address = _network_address(rest, ("host", "port"))
            if address is not None:
                return _set(opts, backend=backend, **address)
    ret, rest = strstart(filename, "unix:")
    if ret and rest is not None:
        return _set(opts, backend="socket", path=rest.partition(",")[0])
    for prefix, backend in (("/dev/parport", "parport"), ("/dev/ppi", "parport"), ("/dev/", "tty")):
        if strstart(filename, prefix)[0]:
            return _set(opts, backend=backend, path=filename)
    qemu_opts_del(opts)
    return None


def _parse_vc(opts: QemuOpts, rest: str) -> QemuOpts | None:
    qemu_opt_set(opts, "backend", "vc")
    if not rest.startswith(":"):
        return opts
    width, _, height = rest[1:].partition("x")
    unit = "Cc" if width.endswith("C") else ""
    if width.rstrip(unit).isdigit() and height.rstrip(unit).isdigit():
        names = ("cols", "rows") if unit else ("width", "height")
        return _set(opts, **dict(zip(names, (width.rstrip(unit), height.rstrip(unit)), strict=True)))
    qemu_opts_del(opts)
    return None


_OPEN: dict[str, Callable[[QemuOpts], CharDriverState | None]] = {
    "null": qemu_chr_open_null,
    "vc": text_console_init,
    "file": qemu_chr_open_file_out,
    "pipe": qemu_chr_open_pipe,
    "stdio": qemu_chr_open_stdio,
}
_BACKENDS = ("null", "socket", "udp", "msmouse", "vc", "file", "pipe", "pty", "stdio", "tty", "parport")
"""In the order of QEMU's table, which is searched with a look at the option for each entry."""


@traced
def qemu_chr_open_opts(
    opts: QemuOpts, init: Callable[[CharDriverState], None] | None
) -> CharDriverState | None:
    """Open a device; None after a message."""
    if qemu_opts_id(opts) is None:
        print("chardev: no id specified", file=sys.stderr)
        return None
    for backend in _BACKENDS:
        if backend == qemu_opt_get(opts, "backend"):
            break
    else:
        print(f'chardev: backend "{qemu_opt_get(opts, "backend")}" not found', file=sys.stderr)
        return None
    if backend not in _OPEN:
        raise HypervisorError(f"the model has no character device '{backend}': use stdio, file:PATH or null")
    try:
        chr = _OPEN[backend](opts)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        chr = None
    if chr is None:
        print(f'chardev: opening backend "{qemu_opt_get(opts, "backend")}" failed', file=sys.stderr)
        return None
    if chr.filename is None:
        chr.filename = qemu_opt_get(opts, "backend")
    chr.init = init
    _chardevs.append(chr)
    if qemu_opt_get_bool(opts, "mux", 0):
        base = chr
        base.label = f"{qemu_opts_id(opts)}-base"
        chr = qemu_chr_open_mux(base)
        chr.filename = base.filename
        _chardevs.append(chr)
    chr.label = qemu_opts_id(opts)
    return chr


@traced
def qemu_chr_open(
    label: str, filename: str, init: Callable[[CharDriverState], None] | None
) -> CharDriverState | None:
    """Open a device in its old spelling; a multiplexed one gets a monitor beside its front end."""
    ret, rest = strstart(filename, "chardev:")
    if ret and rest is not None:
        return qemu_chr_find(rest)
    opts = qemu_chr_parse_compat(label, filename)
    if opts is None:
        return None
    chr = qemu_chr_open_opts(opts, init)
    if chr is not None and qemu_opt_get_bool(opts, "mux", 0):
        from hypervisor.monitor import MONITOR_USE_READLINE, monitor_init

        monitor_init(chr, MONITOR_USE_READLINE)
    return chr


@traced
def qemu_chr_find(name: str) -> CharDriverState | None:
    """Find a device by its label."""
    return next((chr for chr in _chardevs if chr.label == name), None)
