"""Line editing of the monitor: readline.c.

Every byte redraws the line: back to its beginning, the text, erase to the end (ECMA-48 CUB and EL), whether
or not a terminal is there to see it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Any

from hypervisor.cutils import pstrcpy
from tracer import Struct, traced

if TYPE_CHECKING:
    from hypervisor.monitor import Monitor

C_FILE = "readline.c"

READLINE_CMD_BUF_SIZE = 4095
READLINE_MAX_CMDS = 64
IS_NORM, IS_ESC, IS_CSI = 0, 1, 2

ReadLineFunc = Callable[[Any, str, Any], None]


class ReadLineState(Struct):
    """`ReadLineState`: the line as it is, and as it was last drawn.

    Parameters
    ----------
    cmd_buf_index : int
        Where the cursor is.
    hist_entry : int
        Which older line is being looked at, -1 for none.
    """

    cmd_buf: str = ""
    cmd_buf_index: int = 0
    last_cmd_buf: str = ""
    last_cmd_buf_index: int = 0
    esc_state: int = IS_NORM
    esc_param: int = 0
    history: list[str] = field(default_factory=list)
    hist_entry: int = -1
    readline_func: ReadLineFunc | None = None
    readline_opaque: Any = None
    read_password: int = 0
    prompt: str = ""
    mon: Monitor | None = None


def _print(rs: ReadLineState, text: str) -> None:
    from hypervisor.monitor import monitor_printf

    monitor_printf(rs.mon, "%s", text)


def _flush(rs: ReadLineState) -> None:
    from hypervisor.monitor import monitor_flush

    monitor_flush(rs.mon)


@traced
def readline_show_prompt(rs: ReadLineState) -> None:
    """Print the prompt."""
    _print(rs, rs.prompt)
    _flush(rs)
    rs.last_cmd_buf = ""
    rs.last_cmd_buf_index = 0
    rs.esc_state = IS_NORM


@traced
def readline_update(rs: ReadLineState) -> None:
    """Draw the line, if it has changed, and move the cursor."""
    if rs.cmd_buf != rs.last_cmd_buf:
        text = "*" * len(rs.cmd_buf) if rs.read_password else rs.cmd_buf
        _print(rs, "\033[D" * rs.last_cmd_buf_index + text + "\033[K")
        rs.last_cmd_buf = rs.cmd_buf
        rs.last_cmd_buf_index = len(rs.cmd_buf)
    delta = rs.cmd_buf_index - rs.last_cmd_buf_index
    if delta:
        _print(rs, ("\033[C" if delta > 0 else "\033[D") * abs(delta))
        rs.last_cmd_buf_index = rs.cmd_buf_index
    _flush(rs)


@traced
def readline_insert_char(rs: ReadLineState, ch: int) -> None:
    """Insert a byte at the cursor."""
    if len(rs.cmd_buf) < READLINE_CMD_BUF_SIZE:
        at = rs.cmd_buf_index
        rs.cmd_buf = rs.cmd_buf[:at] + bytes((ch,)).decode("latin-1") + rs.cmd_buf[at:]
        rs.cmd_buf_index += 1


@traced
def readline_delete_char(rs: ReadLineState) -> None:
    """Delete the byte under the cursor."""
    at = rs.cmd_buf_index
    rs.cmd_buf = rs.cmd_buf[:at] + rs.cmd_buf[at + 1 :]


@traced
def readline_backspace(rs: ReadLineState) -> None:
    """Delete the byte before the cursor."""
    if rs.cmd_buf_index > 0:
        rs.cmd_buf_index -= 1
        readline_delete_char(rs)


@traced
def readline_backword(rs: ReadLineState) -> None:
    """Delete the word before the cursor."""
    before = rs.cmd_buf[: rs.cmd_buf_index]
    kept = before.rstrip()
    kept = kept[: kept.rfind(" ") + 1]
    rs.cmd_buf = kept + rs.cmd_buf[rs.cmd_buf_index :]
    rs.cmd_buf_index = len(kept)


@traced
def readline_up_char(rs: ReadLineState) -> None:
    """Go to the line before."""
    if rs.hist_entry == 0 or not rs.history:
        return
    rs.hist_entry = (len(rs.history) if rs.hist_entry == -1 else rs.hist_entry) - 1
    rs.cmd_buf = rs.history[rs.hist_entry]
    rs.cmd_buf_index = len(rs.cmd_buf)


@traced
def readline_down_char(rs: ReadLineState) -> None:
    """Go to the line after."""
    if rs.hist_entry == -1:
        return
    rs.hist_entry += 1
    if rs.hist_entry >= len(rs.history):
        rs.hist_entry = -1
    rs.cmd_buf = rs.history[rs.hist_entry] if rs.hist_entry >= 0 else ""
    rs.cmd_buf_index = len(rs.cmd_buf)


@traced
def readline_hist_add(rs: ReadLineState, cmdline: str) -> None:
    """Remember a line as the latest; one that is known already moves there."""
    if not cmdline:
        return
    if cmdline in rs.history:
        rs.history.remove(cmdline)
    rs.history = [*rs.history, cmdline][-READLINE_MAX_CMDS:]
    rs.hist_entry = -1


def _end_of_line(rs: ReadLineState) -> None:
    line = rs.cmd_buf
    if not rs.read_password:
        readline_hist_add(rs, line)
    _print(rs, "\n")
    rs.cmd_buf = rs.last_cmd_buf = ""
    rs.cmd_buf_index = rs.last_cmd_buf_index = 0
    assert rs.readline_func is not None
    rs.readline_func(rs.mon, line, rs.readline_opaque)


def _plain(rs: ReadLineState, ch: int) -> None:
    if ch in (10, 13):
        _end_of_line(rs)
    elif ch == 1:
        rs.cmd_buf_index = 0
    elif ch == 4:
        readline_delete_char(rs)
    elif ch == 5:
        rs.cmd_buf_index = len(rs.cmd_buf)
    elif ch == 23:
        readline_backword(rs)
    elif ch == 27:
        rs.esc_state = IS_ESC
    elif ch in (8, 127):
        readline_backspace(rs)
    elif ch == 155:
        rs.esc_state = IS_CSI
    elif ch >= 32:
        readline_insert_char(rs, ch)


def _control_sequence(rs: ReadLineState, ch: str) -> None:
    if ch.isdigit():
        rs.esc_param = min(rs.esc_param * 10 + int(ch), 9999)
        return
    rs.esc_state = IS_NORM
    key = {"~1": "H", "~3": "P", "~4": "K"}.get(f"~{rs.esc_param}", "") if ch == "~" else ch
    if key in ("A", "F"):
        readline_up_char(rs)
    elif key in ("B", "E"):
        readline_down_char(rs)
    elif key == "C":
        rs.cmd_buf_index = min(rs.cmd_buf_index + 1, len(rs.cmd_buf))
    elif key == "D":
        rs.cmd_buf_index = max(rs.cmd_buf_index - 1, 0)
    elif ch == "~" and key == "H":
        rs.cmd_buf_index = 0
    elif ch == "~" and key == "K":
        rs.cmd_buf_index = len(rs.cmd_buf)
    elif ch == "~" and key == "P":
        readline_delete_char(rs)


@traced
def readline_handle_byte(rs: ReadLineState, ch: int) -> None:
    """Take a typed byte."""
    if rs.esc_state == IS_NORM:
        _plain(rs, ch)
    elif rs.esc_state == IS_ESC:
        rs.esc_state = IS_CSI if ch == ord("[") else IS_NORM
        rs.esc_param = 0
    else:
        _control_sequence(rs, chr(ch))
    readline_update(rs)


@traced
def readline_start(
    rs: ReadLineState, prompt: str, read_password: int, readline_func: ReadLineFunc, opaque: Any
) -> None:
    """Begin to read lines."""
    rs.prompt = pstrcpy(256, prompt)
    rs.readline_func = readline_func
    rs.readline_opaque = opaque
    rs.read_password = read_password
    readline_restart(rs)


@traced
def readline_restart(rs: ReadLineState) -> None:
    """Forget what was typed."""
    rs.cmd_buf = ""
    rs.cmd_buf_index = 0


@traced
def readline_init(mon: Monitor) -> ReadLineState:
    """Make a line editor."""
    return ReadLineState(mon=mon)
