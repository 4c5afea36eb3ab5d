"""The monitor: the line by which a human, or a program, speaks to a running machine; monitor.c.

What is typed at `(qemu) ` goes to `handle_user_command`, which has `hypervisor.monitor_parse` cut it into
words as the command's table entry asks for, and calls the command's function:

    monitor_read -> readline_handle_byte -> monitor_command_cb -> handle_user_command
                                                                   monitor_parse_command
                                                                   monitor_call_handler -> do_info -> ...

The tables of commands are in `hypervisor.monitor_commands`, the commands in `monitor_info`,
`monitor_control`, `monitor_memory`, `monitor_cpu`, `monitor_devices`, `monitor_keys`, `monitor_log` and
`monitor_trace`; what programs speak, QMP, is in `monitor_qmp`; completion in `monitor_completion`.

- `monitor_init(chr, flags)`: a monitor on a character device.
- `monitor_printf(mon, fmt, *args)`, `monitor_flush(mon)`.
- `qemu_error(fmt, *args)`: to the monitor whose command runs, else to stderr.
- `qemu_error_new(fmt, **data)`: an error that QMP can send, too; see `hypervisor.qerror`.
- `mon_get_cpu()`: the processor that commands are about.
"""

from __future__ import annotations

import errno
import sys
from dataclasses import field
from typing import TYPE_CHECKING, Any, Final

from hypervisor.errors import HypervisorError
from hypervisor.program import on_reset
from hypervisor.qemu_char import (
    CHR_EVENT_CLOSED,
    CHR_EVENT_MUX_IN,
    CHR_EVENT_MUX_OUT,
    CHR_EVENT_OPENED,
    CharDriverState,
    qemu_chr_add_handlers,
    qemu_chr_write,
)
from hypervisor.qerror import (
    QERR_MISSING_PARAMETER,
    QERR_UNDEFINED_ERROR,
    QError,
    QErrorFormat,
    qerror_from_info,
    qerror_print,
)
from hypervisor.readline import (
    ReadLineFunc,
    ReadLineState,
    readline_handle_byte,
    readline_init,
    readline_restart,
    readline_show_prompt,
    readline_start,
)
from hypervisor.version import QEMU_VERSION
from hypervisor.vl_state import state
from tracer import Struct, traced

if TYPE_CHECKING:
    from hypervisor.cpu_exec import CPUState
    from hypervisor.json_streamer import JSONMessageParser
    from hypervisor.monitor_commands import Command

C_FILE = "monitor.c"

MONITOR_IS_DEFAULT = 0x01
MONITOR_USE_READLINE = 0x02
MONITOR_USE_CONTROL = 0x04
_OUTBUF_SIZE = 1024
_HELD: Final = 1 << 16
"""Most characters that are kept while another front end has the terminal."""

Arguments = dict[str, Any]


class MonitorControl(Struct):
    """`MonitorControl`: what only QMP needs.

    Parameters
    ----------
    id
        Goes back with the answer; `has_id` because None is no way to say that there is none.
    print_enabled
        Set only while a message is sent: commands must not print.
    """

    id: Any = None
    has_id: int = 0
    print_enabled: int = 0
    parser: JSONMessageParser | None = None


class Monitor(Struct):
    """`struct Monitor`: `suspend_cnt` is not 0 while a command runs or another front end has the terminal."""

    chr: CharDriverState | None = None
    mux_out: int = 0
    reset_seen: int = 0
    flags: int = 0
    suspend_cnt: int = 0
    outbuf: str = ""
    rs: ReadLineState | None = None
    mc: MonitorControl | None = None
    mon_cpu: CPUState | None = None
    password_completion_cb: Any = None
    password_opaque: Any = None
    error: QError | None = None
    fds: dict[str, int] = field(default_factory=dict)

    @property
    def editor(self) -> ReadLineState:
        """The line editor of a monitor for humans."""
        assert self.rs is not None
        return self.rs

    @property
    def control(self) -> MonitorControl:
        """What a monitor for programs has."""
        assert self.mc is not None
        return self.mc


cur_mon: Monitor | None = None
_mon_list: list[Monitor] = []
_error_sinks: list[Monitor | None] = []


@on_reset
def _reset() -> None:
    global cur_mon
    cur_mon = None
    _mon_list.clear()
    _error_sinks.clear()


def monitors() -> list[Monitor]:
    """All monitors, the last made first."""
    return list(_mon_list)


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
        try:
            data = mon.outbuf.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            data = mon.outbuf.encode("utf-8", "replace")
        mon.outbuf = ""
        qemu_chr_write(mon.chr, data, len(data))


@traced
def monitor_puts(mon: Monitor, str: str) -> None:
    """Print text; the end of a line sends it, and a full buffer does."""
    for line in str.splitlines(keepends=True) if "\n" in str else (str,):
        mon.outbuf += line.replace("\n", "\r\n")
        if line.endswith("\n") or len(mon.outbuf) >= _OUTBUF_SIZE - 1:
            monitor_flush(mon)
    if len(mon.outbuf) > _HELD:
        mon.outbuf = mon.outbuf[-_HELD:]


@traced
def monitor_vprintf(mon: Monitor | None, fmt: str, ap: tuple[Any, ...]) -> None:
    """Print formatted text; in a monitor for programs, an error."""
    if mon is None:
        return
    if mon.mc is not None and not mon.mc.print_enabled:
        qemu_error_new(QERR_UNDEFINED_ERROR)
        return
    monitor_puts(mon, fmt % ap if ap else fmt.replace("%%", "%"))


@traced
def monitor_printf(mon: Monitor | None, fmt: str, *args: Any) -> None:
    """Print formatted text."""
    monitor_vprintf(mon, fmt, args)


_ESCAPES = {" ": "\\ ", '"': '\\"', "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


@traced
def monitor_print_filename(mon: Monitor, filename: str) -> None:
    """Print a file name, with blanks, quotes, backslashes and line ends marked."""
    for letter in filename:
        monitor_printf(mon, "%s", _ESCAPES.get(letter, letter))


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
def qemu_error_internal(fmt: QErrorFormat, data: dict[str, Any]) -> None:
    """Report an error that has a class; a monitor keeps it until its command has ended."""
    qerror = qerror_from_info(fmt, data)
    mon = _error_sinks[-1] if _error_sinks else None
    if mon is None:
        qerror_print(qerror)
    elif mon.error is None:
        mon.error = qerror


def qemu_error_new(fmt: QErrorFormat, **data: Any) -> None:
    """`qemu_error_internal`, in C a macro that adds the place."""
    qemu_error_internal(fmt, data)


@traced
def monitor_suspend(mon: Monitor) -> int:
    """Take no more input for now; -ENOTTY for a monitor for programs."""
    if mon.rs is None:
        return -errno.ENOTTY
    mon.suspend_cnt += 1
    return 0


@traced
def monitor_resume(mon: Monitor) -> None:
    """Take input again."""
    if mon.rs is None:
        return
    mon.suspend_cnt -= 1
    if mon.suspend_cnt == 0:
        readline_show_prompt(mon.rs)


@traced
def mon_set_cpu(cpu_index: int) -> int:
    """Choose the processor that commands are about; 0 or -1."""
    env = state.first_cpu
    while env is not None:
        if env.cpu_index == cpu_index and cur_mon is not None:
            cur_mon.mon_cpu = env
            return 0
        env = env.next_cpu
    return -1


@traced
def mon_get_cpu() -> CPUState | None:
    """The processor that commands are about."""
    if cur_mon is None:
        return state.first_cpu
    if cur_mon.mon_cpu is None:
        mon_set_cpu(0)
    return cur_mon.mon_cpu


@traced
def monitor_handler_ported(cmd: Command) -> int:
    """Whether a command's result can go to a program: it is returned, and printed by another function."""
    return int(cmd.user_print is not None)


@traced
def monitor_has_error(mon: Monitor) -> int:
    """Whether the command has failed with an error that has a class."""
    return int(mon.error is not None)


@traced
def monitor_print_error(mon: Monitor) -> None:
    """Print the command's error."""
    assert mon.error is not None
    qerror_print(mon.error)
    mon.error = None


@traced
def monitor_call_handler(mon: Monitor, cmd: Command, params: Arguments) -> None:
    """Call a command whose result is returned, and print or send that."""
    data = _obey(mon, cmd, params)
    if monitor_ctrl_mode(mon):
        from hypervisor.monitor_qmp import monitor_protocol_emitter

        monitor_protocol_emitter(mon, data)
    elif data is not None and cmd.user_print is not None:
        cmd.user_print(mon, data)


def _obey(mon: Monitor, cmd: Command, params: Arguments) -> Any:
    """Call a command; what the model is not up to is an answer, and the machine goes on.

    ValueError is what Python says of file names that no file can have; the last two, of odd numbers.
    """
    try:
        return cmd.handler()(mon, params)
    except (HypervisorError, OSError, ValueError, OverflowError, MemoryError) as error:
        if monitor_ctrl_mode(mon):
            qemu_error_new(QERR_UNDEFINED_ERROR)
        else:
            monitor_printf(mon, "%s: %s\n", cmd.name, _words(error))
        return None


def _words(error: Exception) -> str:
    """What an exception says to a user."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or "not enough memory for that"


@traced
def handle_user_command(mon: Monitor, cmdline: str) -> None:
    """Execute a line."""
    from hypervisor.monitor_parse import monitor_parse_command

    qdict: Arguments = {}
    cmd = monitor_parse_command(mon, cmdline, qdict)
    if cmd is None:
        return
    qemu_errors_to_mon(mon)
    if monitor_handler_ported(cmd):
        monitor_call_handler(mon, cmd, qdict)
    else:
        _obey(mon, cmd, qdict)
    if monitor_has_error(mon):
        monitor_print_error(mon)
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
    if mon.rs is None:
        return
    readline_start(mon.rs, "(qemu) ", 0, monitor_command_cb, None)
    if show_prompt:
        readline_show_prompt(mon.rs)


@traced
def monitor_read_password(mon: Monitor, readline_func: ReadLineFunc, opaque: Any) -> int:
    """Ask for a password, which is not echoed; 0 or -EINVAL."""
    if monitor_ctrl_mode(mon):
        qemu_error_new(QERR_MISSING_PARAMETER, name="password")
        return -errno.EINVAL
    readline_start(mon.editor, "Password: ", 1, readline_func, opaque)
    return 0


@traced
def monitor_can_read(opaque: Monitor) -> int:
    """Whether a byte can be taken now; messages wait until they can be told apart, after the greeting."""
    greeted = opaque.mc is None or opaque.mc.parser is not None
    return int(opaque.suspend_cnt == 0 and greeted)


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
    react = {
        CHR_EVENT_MUX_IN: _take_terminal,
        CHR_EVENT_MUX_OUT: _give_terminal,
        CHR_EVENT_OPENED: _greet,
        CHR_EVENT_CLOSED: _forget_line,
    }.get(event)
    if react is not None:
        react(opaque)


def _take_terminal(mon: Monitor) -> None:
    mon.mux_out = 0
    if not mon.reset_seen:
        mon.suspend_cnt = 0
        return
    readline_restart(mon.editor)
    monitor_resume(mon)
    monitor_flush(mon)


def _give_terminal(mon: Monitor) -> None:
    if not mon.reset_seen:
        mon.suspend_cnt += 1
    else:
        if mon.suspend_cnt == 0:
            monitor_printf(mon, "\n")
        # Before the terminal is another's: then nothing is written any more.
        monitor_flush(mon)
        monitor_suspend(mon)
    mon.mux_out = 1


def _greet(mon: Monitor) -> None:
    monitor_printf(mon, "QEMU %s monitor - type 'help' for more information\n", QEMU_VERSION)
    if not mon.mux_out:
        readline_show_prompt(mon.editor)
    mon.reset_seen = 1


def _forget_line(mon: Monitor) -> None:
    # 0.12.4 would put the next client's words behind what this one left, and take them for its password.
    monitor_read_command(mon, 0)


@traced
def monitor_init(chr: CharDriverState, flags: int) -> None:
    """Put a monitor on a character device."""
    global cur_mon
    from hypervisor import monitor_keys

    if not _mon_list:
        monitor_keys.make_timer()
    mon = Monitor(chr=chr, flags=flags, fds={})
    if flags & MONITOR_USE_READLINE:
        from hypervisor.monitor_completion import monitor_find_completion

        mon.rs = readline_init(mon, monitor_find_completion)
        monitor_read_command(mon, 0)
    if monitor_ctrl_mode(mon):
        from hypervisor.monitor_qmp import monitor_control_event, monitor_control_read

        mon.mc = MonitorControl()
        qemu_chr_add_handlers(chr, monitor_can_read, monitor_control_read, monitor_control_event, mon)
    else:
        qemu_chr_add_handlers(chr, monitor_can_read, monitor_read, monitor_event, mon)
    _mon_list.insert(0, mon)
    if cur_mon is None or flags & MONITOR_IS_DEFAULT:
        cur_mon = mon
