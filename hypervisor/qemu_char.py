"""Character devices: where serial lines and monitors lead; qemu-char.c.

A `CharDriverState` has a back end (stdio, a file, nothing, a pipe, a pseudo terminal, a socket) that it
writes to, and a front end (a serial port, a monitor) whose handlers it calls.

- `qemu_chr_add_handlers(s, fd_can_read, fd_read, fd_event, opaque)`: put a front end on a device.
- `qemu_chr_write(s, buf, len)`, `qemu_chr_read(s, buf, len)`: towards the back end, towards the front end.

Back ends of descriptors are in `hypervisor.qemu_char_fd`, pseudo terminals in `hypervisor.qemu_char_pty`,
sockets in `hypervisor.qemu_char_socket`, the multiplexer in `hypervisor.qemu_char_mux`; options to open
devices are in `hypervisor.qemu_char_open`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypervisor.program import linked
from hypervisor.qemu_option import QemuOpts
from tracer import Struct, traced

C_FILE = "qemu-char.c"

CHR_EVENT_BREAK = 0
CHR_EVENT_OPENED = 2
CHR_EVENT_MUX_IN = 3
CHR_EVENT_MUX_OUT = 4
CHR_EVENT_CLOSED = 5

IOCanRWHandler = Callable[[Any], int]
IOReadHandler = Callable[[Any, bytes, int], None]
IOEventHandler = Callable[[Any, int], None]


class CharDriverState(Struct):
    """`CharDriverState`: `opaque` is the back end's own state, the handlers are the front end's."""

    chr_write: Callable[[CharDriverState, bytes, int], int] | None = None
    chr_update_read_handler: Callable[[CharDriverState], None] | None = None
    get_msgfd: Callable[[CharDriverState], int] | None = None
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
def qemu_chr_get_msgfd(s: CharDriverState) -> int:
    """The descriptor that came with the last input, -1 if none."""
    return s.get_msgfd(s) if s.get_msgfd is not None else -1


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
