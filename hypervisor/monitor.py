"""The monitor: the line by which a human speaks to a running machine; monitor.c.

A line typed at `(qemu) ` is cut into words as the command's table entry asks for, and its function is called.
The commands themselves are in `hypervisor.monitor_commands`.

- `monitor_init(chr, flags)`: a monitor on a character device.
- `monitor_printf(mon, fmt, *args)`, `monitor_flush(mon)`.
- `qemu_error(fmt, *args)`: to the monitor whose command runs, else to stderr.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from hypervisor.program import on_reset
from hypervisor.qemu_char import (
    CHR_EVENT_MUX_IN,
    CHR_EVENT_MUX_OUT,
    CHR_EVENT_OPENED,
    CharDriverState,
    qemu_chr_add_handlers,
    qemu_chr_write,
)
from hypervisor.readline import (
    ReadLineState,
    readline_handle_byte,
    readline_init,
    readline_restart,
    readline_show_prompt,
    readline_start,
)
from hypervisor.version import QEMU_VERSION
from hypervisor.vl_timers import qemu_new_timer, vm_clock
from tracer import Struct, traced

C_FILE = "monitor.c"

MONITOR_IS_DEFAULT = 0x01
MONITOR_USE_READLINE = 0x02
MONITOR_USE_CONTROL = 0x04

Arguments = dict[str, Any]


class Monitor(Struct):
    """`struct Monitor`: `suspend_cnt` is not 0 while a command runs or another front end has the terminal."""

    chr: CharDriverState | None = None
    mux_out: int = 0
    reset_seen: int = 0
    flags: int = 0
    suspend_cnt: int = 0
    outbuf: str = ""
    rs: ReadLineState | None = None

    @property
    def editor(self) -> ReadLineState:
        """The line editor of a monitor for humans."""
        assert self.rs is not None
        return self.rs


cur_mon: Monitor | None = None
_mon_list: list[Monitor] = []
_error_sinks: list[Monitor | None] = []


@on_reset
def _reset() -> None:
    global cur_mon
    cur_mon = None
    _mon_list.clear()
    _error_sinks.clear()


@traced
def monitor_ctrl_mode(mon: Monitor) -> int:
    """Whether the monitor speaks QMP."""
    return mon.flags & MONITOR_USE_CONTROL


def is_within_reach() -> bool:
    """Whether there is a monitor that somebody can type into: one on a text console has no window."""
    return any(mon.chr is not None and mon.chr.filename not in ("vc", "null", "file") for mon in _mon_list)


@traced
def monitor_flush(mon: Monitor | None) -> None:
    """Send what was printed, unless another front end has the terminal."""
    if mon is not None and mon.outbuf and not mon.mux_out:
        assert mon.chr is not None
        data = mon.outbuf.encode("utf-8", "surrogateescape")
        mon.outbuf = ""
        qemu_chr_write(mon.chr, data, len(data))


@traced
def monitor_puts(mon: Monitor, str: str) -> None:
    """Print text; a line end sends it."""
    mon.outbuf += str.replace("\n", "\r\n")
    if "\n" in str:
        monitor_flush(mon)


@traced
def monitor_vprintf(mon: Monitor | None, fmt: str, ap: tuple[Any, ...]) -> None:
    """Print formatted text."""
    if mon is not None:
        monitor_puts(mon, fmt % ap if ap else fmt.replace("%%", "%"))


@traced
def monitor_printf(mon: Monitor | None, fmt: str, *args: Any) -> None:
    """Print formatted text."""
    monitor_vprintf(mon, fmt, args)


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\n": "\\n", "\r": "\\r"}


@traced
def monitor_print_filename(mon: Monitor, filename: str) -> None:
    """Print a file name, with quotes, backslashes and line ends marked."""
    monitor_printf(mon, "%s", "".join(_ESCAPES.get(letter, letter) for letter in filename))


@traced
def qemu_errors_to_file(fp: Any) -> None:
    """Have errors go to stderr."""
    _error_sinks.append(None)


@traced
def qemu_errors_to_mon(mon: Monitor) -> None:
    """Have errors go to a monitor."""
    _error_sinks.append(mon)


@traced
def qemu_errors_to_previous() -> None:
    """Have errors go where they went before."""
    _error_sinks.pop()


@traced
def qemu_error(fmt: str, *args: Any) -> None:
    """Report an error."""
    mon = _error_sinks[-1] if _error_sinks else None
    if mon is None:
        print(fmt % args if args else fmt, end="", file=sys.stderr)
    else:
        monitor_vprintf(mon, fmt, args)


@traced
def monitor_suspend(mon: Monitor) -> int:
    """Take no more input for now."""
    mon.suspend_cnt += 1
    return 0


@traced
def monitor_resume(mon: Monitor) -> None:
    """Take input again."""
    mon.suspend_cnt -= 1
    if mon.suspend_cnt == 0:
        readline_show_prompt(mon.editor)


def _words(mon: Monitor, name: str, args_type: str, rest: str) -> Arguments | None:
    """Cut a command's arguments as its table entry asks for; None after a message."""
    found: Arguments = {}
    for entry in filter(None, args_type.split(",")):
        key, _, kind = entry.partition(":")
        rest = rest.lstrip()
        if kind.startswith("-"):
            flag = re.match(rf"-{kind[1]}(?=\s|$)", rest)
            if flag is None and rest.startswith("-"):
                monitor_printf(mon, "%s: unsupported option -%s\n", name, rest[1:2])
                return None
            found[key] = int(flag is not None)
            rest = rest[flag.end() :] if flag else rest
        elif rest or not kind.endswith("?"):
            word = re.match(r'"((?:[^"\\]|\\.)*)"|(\S+)', rest)
            if word is None:
                what = {"F": "filename", "B": "block device name"}.get(kind[0], "string")
                monitor_printf(mon, "%s: %s expected\n", name, what)
                return None
            found[key] = word[2] if word[1] is None else re.sub(r"\\(.)", r"\1", word[1])
            rest = rest[word.end() :]
    if rest.strip():
        monitor_printf(mon, "%s: extraneous characters at the end of line\n", name)
        return None
    return found


@traced
def monitor_parse_command(mon: Monitor, cmdline: str) -> tuple[Any, Arguments]:
    """Find the command of a line and cut its arguments; no command after a message."""
    from hypervisor.monitor_commands import find_command

    name, _, rest = cmdline.strip().partition(" ")
    if not name:
        return None, {}
    cmd = find_command(name)
    if cmd is None:
        monitor_printf(mon, "unknown command: '%s'\n", name)
        return None, {}
    if cmd.function is None:
        monitor_printf(mon, "%s: the model has no such command\n", name)
        return None, {}
    qdict = _words(mon, name, cmd.args_type, rest)
    return (cmd, qdict) if qdict is not None else (None, {})


@traced
def handle_user_command(mon: Monitor, cmdline: str) -> None:
    """Execute a line."""
    cmd, qdict = monitor_parse_command(mon, cmdline)
    if cmd is None:
        return
    qemu_errors_to_mon(mon)
    try:
        cmd.function(mon, qdict)
    finally:
        qemu_errors_to_previous()


@traced
def monitor_command_cb(mon: Monitor, cmdline: str, opaque: None) -> None:
    """Execute a line and show the prompt again."""
    monitor_suspend(mon)
    handle_user_command(mon, cmdline)
    monitor_resume(mon)


@traced
def monitor_read_command(mon: Monitor, show_prompt: int) -> None:
    """Begin to read commands."""
    readline_start(mon.editor, "(qemu) ", 0, monitor_command_cb, None)
    if show_prompt:
        readline_show_prompt(mon.editor)


@traced
def monitor_can_read(opaque: Monitor) -> int:
    """Whether a byte can be taken now."""
    return int(opaque.suspend_cnt == 0)


@traced
def monitor_read(opaque: Monitor, buf: bytes, size: int) -> None:
    """Take typed bytes."""
    global cur_mon
    old_mon, cur_mon = cur_mon, opaque
    for ch in buf[:size]:
        readline_handle_byte(opaque.editor, ch)
    cur_mon = old_mon


@traced
def monitor_event(opaque: Monitor, event: int) -> None:
    """Greet when the device opens; stand aside while another front end has the terminal."""
    mon = opaque
    if event == CHR_EVENT_MUX_IN:
        mon.mux_out = 0
        if mon.reset_seen:
            readline_restart(mon.editor)
            monitor_resume(mon)
            monitor_flush(mon)
        else:
            mon.suspend_cnt = 0
    elif event == CHR_EVENT_MUX_OUT:
        if mon.reset_seen:
            if mon.suspend_cnt == 0:
                monitor_printf(mon, "\n")
            monitor_flush(mon)
            monitor_suspend(mon)
        else:
            mon.suspend_cnt += 1
        mon.mux_out = 1
    elif event == CHR_EVENT_OPENED:
        monitor_printf(mon, "QEMU %s monitor - type 'help' for more information\n", QEMU_VERSION)
        if not mon.mux_out:
            readline_show_prompt(mon.editor)
        mon.reset_seen = 1


def _release_keys(opaque: None) -> None:
    """Nothing: the model has no keys to press."""


@traced
def monitor_init(chr: CharDriverState, flags: int) -> None:
    """Put a monitor on a character device."""
    global cur_mon
    if not _mon_list:
        qemu_new_timer(vm_clock, _release_keys, None)
    mon = Monitor(chr=chr, flags=flags)
    mon.rs = readline_init(mon)
    monitor_read_command(mon, 0)
    monitor_ctrl_mode(mon)
    qemu_chr_add_handlers(chr, monitor_can_read, monitor_read, monitor_event, mon)
    _mon_list.insert(0, mon)
    if cur_mon is None or flags & MONITOR_IS_DEFAULT:
        cur_mon = mon
