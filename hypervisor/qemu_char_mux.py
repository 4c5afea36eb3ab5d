"""One back end shared by several front ends: the multiplexer of qemu-char.c (`mon:stdio`, -nographic).

What is typed goes to the front end that has the focus. Ctrl-A c gives the focus to the next, Ctrl-A x ends
the program, Ctrl-A t puts the time before each line, Ctrl-A h lists the others.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import field
from typing import Any

from hypervisor.qemu_char import (
    CHR_EVENT_BREAK,
    CHR_EVENT_MUX_IN,
    CHR_EVENT_MUX_OUT,
    CharDriverState,
    IOCanRWHandler,
    IOEventHandler,
    IOReadHandler,
    qemu_chr_add_handlers,
    qemu_chr_event,
)
from hypervisor.vl_state import state
from hypervisor.vl_timers import qemu_get_clock, rt_clock
from tracer import Struct, traced

C_FILE = "qemu-char.c"

MAX_MUX = 4
MUX_BUFFER_SIZE = 32


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
    timestamps: int = 0
    linestart: int = 0
    timestamps_start: int = -1
    ends: list[MuxFrontEnd] = field(default_factory=list)


@traced
def mux_chr_write(chr: CharDriverState, buf: bytes, len: int) -> int:
    """Write to the shared back end; with timestamps, the time before the first letter of each line."""
    d = chr.opaque
    assert d.drv.chr_write is not None
    if not d.timestamps:
        return int(d.drv.chr_write(d.drv, buf, len))
    ret = 0
    for ch in buf[:len]:
        if d.linestart:
            _write_timestamp(d)
        ret += d.drv.chr_write(d.drv, bytes((ch,)), 1)
        d.linestart = int(ch == 0x0A)
    return ret


def _write_timestamp(d: MuxDriver) -> None:
    ti = qemu_get_clock(rt_clock)
    if d.timestamps_start == -1:
        d.timestamps_start = ti
    secs, ms = divmod(ti - d.timestamps_start, 1000)
    stamp = b"[%02d:%02d:%02d.%03d] " % (secs // 3600, secs // 60 % 60, secs % 60, ms)
    assert d.drv is not None and d.drv.chr_write is not None
    d.drv.chr_write(d.drv, stamp, len(stamp))


_MUX_HELP = (
    "% h    print this help\n\r"
    "% x    exit emulator\n\r"
    "% s    save disk data back to file (if -snapshot)\n\r"
    "% t    toggle console timestamps\n\r"
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
    _print(chr, intro + _MUX_HELP.replace("%", name))


def _print(chr: CharDriverState, text: str) -> None:
    assert chr.chr_write is not None
    chr.chr_write(chr, text.encode(), len(text))


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
        _print(chr, "QEMU: Terminated\n\r")
        state.exit_reason = "quit"
        raise SystemExit(0)
    elif ch == ord("s"):
        from hypervisor.block import bdrv_commit
        from hypervisor.vl_drive import drives

        for dinfo in drives:
            if dinfo.bdrv is not None:
                bdrv_commit(dinfo.bdrv)
    elif ch == ord("t"):
        d.timestamps = int(not d.timestamps)
        d.timestamps_start = -1
        d.linestart = 0
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
