"""Line editing of the monitor: readline.c.

Every byte redraws the line: back to its beginning, the text, erase to the end (ECMA-48 CUB and EL), whether
or not a terminal is there to see it. A letter beyond ASCII is several bytes; each is a lone surrogate in
`cmd_buf`, and the line that is handed on has the letter.

- `readline_start(rs, prompt, read_password, readline_func, opaque)`: read lines for `readline_func`.
- `readline_handle_byte(rs, ch)`: a byte was typed.
- `readline_add_completion(rs, str)`, `readline_set_completion_index(rs, index)`: for the completion finder.
"""

from __future__ import annotations

import os
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
READLINE_MAX_COMPLETIONS = 256
IS_NORM, IS_ESC, IS_CSI = 0, 1, 2

ReadLineFunc = Callable[[Any, str, Any], None]
ReadLineCompletionFunc = Callable[[str], None]


class ReadLineState(Struct):
    """`ReadLineState`: the line as it is, and as it was last drawn.

    Parameters
    ----------
    cmd_buf_index : int
        Where the cursor is.
    hist_entry : int
        Which older line is being looked at, -1 for none.
    completion_index : int
        How much of each completion is typed already.
    """

    cmd_buf: str = ""
    cmd_buf_index: int = 0
    last_cmd_buf: str = ""
    last_cmd_buf_index: int = 0
    esc_state: int = IS_NORM
    esc_param: int = 0
    history: list[str] = field(default_factory=list)
    hist_entry: int = -1
    completion_finder: ReadLineCompletionFunc | None = None
    completions: list[str] = field(default_factory=list)
    completion_index: int = 0
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
        rs.cmd_buf = rs.cmd_buf[:at] + bytes((ch,)).decode("ascii", "surrogateescape") + rs.cmd_buf[at:]
        rs.cmd_buf_index += 1


@traced
def readline_backward_char(rs: ReadLineState) -> None:
    """Move the cursor to the left."""
    if rs.cmd_buf_index > 0:
        rs.cmd_buf_index -= 1


@traced
def readline_forward_char(rs: ReadLineState) -> None:
    """Move the cursor to the right."""
    if rs.cmd_buf_index < len(rs.cmd_buf):
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
        readline_backward_char(rs)
        readline_delete_char(rs)


@traced
def readline_backword(rs: ReadLineState) -> None:
    """Delete the word before the cursor."""
    before = rs.cmd_buf[: rs.cmd_buf_index]
    kept = before.rstrip()
    # A blank in the first column is not looked at, and goes with the word.
    kept = kept[: kept.rfind(" ", 1) + 1]
    rs.cmd_buf = kept + rs.cmd_buf[rs.cmd_buf_index :]
    rs.cmd_buf_index = len(kept)


@traced
def readline_bol(rs: ReadLineState) -> None:
    """Move the cursor to the beginning."""
    rs.cmd_buf_index = 0


@traced
def readline_eol(rs: ReadLineState) -> None:
    """Move the cursor to the end."""
    rs.cmd_buf_index = len(rs.cmd_buf)


@traced
def readline_up_char(rs: ReadLineState) -> None:
    """Go to the line before."""
    if rs.hist_entry == 0 or not rs.history:
        return
    rs.hist_entry = (len(rs.history) if rs.hist_entry == -1 else rs.hist_entry) - 1
    _replace(rs, rs.history[rs.hist_entry])


def _replace(rs: ReadLineState, line: str) -> None:
    rs.cmd_buf = os.fsencode(line).decode("ascii", "surrogateescape")
    rs.cmd_buf_index = len(rs.cmd_buf)


@traced
def readline_down_char(rs: ReadLineState) -> None:
    """Go to the line after."""
    if rs.hist_entry == -1:
        return
    rs.hist_entry += 1
    if rs.hist_entry >= len(rs.history):
        rs.hist_entry = -1
    _replace(rs, rs.history[rs.hist_entry] if rs.hist_entry >= 0 else "")


@traced
def readline_hist_add(rs: ReadLineState, cmdline: str) -> None:
    """Remember a line as the latest; one that is known already moves there."""
    if not cmdline:
        return
    if cmdline in rs.history:
        rs.history.remove(cmdline)
    rs.history = [*rs.history, cmdline][-READLINE_MAX_CMDS:]
    rs.hist_entry = -1


@traced
def readline_add_completion(rs: ReadLineState, str: str) -> None:
    """Offer a completion; beyond `READLINE_MAX_COMPLETIONS` they are dropped."""
    if len(rs.completions) < READLINE_MAX_COMPLETIONS:
        rs.completions.append(str)


@traced
def readline_set_completion_index(rs: ReadLineState, index: int) -> None:
    """Say how much of each completion is typed already."""
    rs.completion_index = index


def _whole(text: str) -> str:
    """Typed bytes as letters."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def _insert(rs: ReadLineState, text: str) -> None:
    for byte in os.fsencode(text):
        readline_insert_char(rs, byte)


@traced
def readline_completion(rs: ReadLineState) -> None:
    """Complete the word at the cursor, or show what it may become."""
    rs.completions = []
    assert rs.completion_finder is not None
    rs.completion_finder(_whole(rs.cmd_buf[: rs.cmd_buf_index]))
    found = rs.completions
    if not found:
        return
    if len(found) == 1:
        _insert(rs, found[0][rs.completion_index :])
        if found[0] and not found[0].endswith("/"):
            readline_insert_char(rs, ord(" "))
        return
    _print(rs, "\n")
    first, last = min(found), max(found)
    common = next((at for at, letter in enumerate(first) if last[at : at + 1] != letter), len(first))
    _insert(rs, first[rs.completion_index : common])
    width = min(max(max(map(len, found)) + 2, 10), 80)
    columns = 80 // width
    for at in range(0, len(found), columns):
        _print(rs, "".join(f"{name:<{width}}" for name in found[at : at + columns]) + "\n")
    readline_show_prompt(rs)


def _end_of_line(rs: ReadLineState) -> None:
    line = _whole(rs.cmd_buf)
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
        readline_bol(rs)
    elif ch == 4:
        readline_delete_char(rs)
    elif ch == 5:
        readline_eol(rs)
    elif ch == 9:
        readline_completion(rs)
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


_KEYS: dict[str, Callable[[ReadLineState], None]] = {
    "A": readline_up_char,
    "F": readline_up_char,
    "B": readline_down_char,
    "E": readline_down_char,
    "C": readline_forward_char,
    "D": readline_backward_char,
    "1~": readline_bol,
    "3~": readline_delete_char,
    "4~": readline_eol,
}
"""What ends a control sequence, with the number before it where that counts."""


def _control_sequence(rs: ReadLineState, ch: str) -> None:
    if ch in "0123456789":
        rs.esc_param = min(rs.esc_param * 10 + int(ch), 9999)
        return
    rs.esc_state = IS_NORM
    key = _KEYS.get(f"{rs.esc_param}~" if ch == "~" else ch)
    if key is not None:
        key(rs)


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
def readline_get_history(rs: ReadLineState, index: int) -> str | None:
    """An older line, 0 being the oldest; None behind the latest."""
    return rs.history[index] if index < len(rs.history) else None


@traced
def readline_init(mon: Monitor, completion_finder: ReadLineCompletionFunc) -> ReadLineState:
    """Make a line editor."""
    return ReadLineState(mon=mon, completion_finder=completion_finder)
