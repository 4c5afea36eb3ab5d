"""A typed line cut into a command and its arguments: a part of monitor.c.

A table entry's `args_type` says how: "device:B,target:F,arg:s?" is a list of names with types.

    F file name, B block device, s string (may stand in quotes)      ? may be missing
    i 32-bit number, l number, M number of MiB: an expression        ? may be missing, . begins with a dot
    / a format as gdb has it: /10xb, which gives "count", "format" and "size"
    -f the flag -f: 1 or 0

- `monitor_parse_command(mon, cmdline, qdict)`: the table entry, and the arguments in `qdict`.
- `monitor_find_command(cmdname)`, `get_str(p)`, `get_command_name(cmdline)`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hypervisor import monitor
from hypervisor.monitor import Arguments, Monitor, monitor_printf
from hypervisor.monitor_expr import get_expr
from hypervisor.program import on_reset
from tracer import traced

if TYPE_CHECKING:
    from hypervisor.monitor_commands import Command

C_FILE = "monitor.c"

_SPACE = " \t\n\v\f\r"
_WORD = re.compile(r"[^ \t\n\v\f\r]+")
_ESCAPES = {"n": "\n", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
# Up to the closing quote, or to a backslash that means nothing.
_QUOTED = re.compile(r"""([^"\\]|\\[nr\\'"])*""")
_EXPECTED = {"F": "filename", "B": "block device name", "s": "string"}
_SIZES = {"b": 1, "h": 2, "w": 4, "g": 8, "L": 8}
_DEFAULT_FORMAT = {"format": ord("x"), "size": 4}
_default_format = dict(_DEFAULT_FORMAT)


@on_reset
def _reset() -> None:
    _default_format.update(_DEFAULT_FORMAT)


class _Refused(Exception):
    """An argument is wrong, and the message is out."""


@traced
def compare_cmd(name: str, list: str) -> int:
    """Whether `name` is one of the names in `list`, which `|` separates."""
    return int(name in list.split("|"))


@traced
def monitor_find_command(cmdname: str) -> Command | None:
    """Find a command by one of its names."""
    from hypervisor.monitor_commands import mon_cmds

    return next((cmd for cmd in mon_cmds if compare_cmd(cmdname, cmd.name)), None)


@traced
def get_command_name(cmdline: str, nlen: int) -> tuple[str | None, str]:
    """Cut the name off a line, which ends at a blank or a slash.

    Returns
    -------
    str or None, str
        The rest of the line, None if there is nothing in it; and the name.
    """
    line = cmdline.lstrip(_SPACE)
    if not line:
        return None, ""
    match = re.match(r"[^/ \t\n\v\f\r]*", line)
    assert match is not None
    return line[match.end() :], match[0][: nlen - 1]


@traced
def get_str(buf_size: int, p: str) -> tuple[int, str, str]:
    r"""Cut a word or a quoted string off a line.

    Returns
    -------
    int, str, str
        0, or -1 if there is none; the word; the rest.

    Examples
    --------
    >>> get_str(1024, ' "a \\"b" c')
    (0, 'a "b', ' c')
    """
    p = p.lstrip(_SPACE)
    if not p:
        return -1, "", p
    if not p.startswith('"'):
        word = _WORD.match(p)
        assert word is not None
        return 0, word[0][: buf_size - 1], p[word.end() :]
    inside = _QUOTED.match(p, 1)
    assert inside is not None
    end, rest = p[inside.end() : inside.end() + 1], p[inside.end() + 1 :]
    if end == '"':
        text = re.sub(r"\\(.)", lambda escape: _ESCAPES[escape[1]], inside[0])
        return 0, text[: buf_size - 1], rest
    if end:
        monitor_printf(monitor.cur_mon, "unsupported escape code: '\\%s'\n", rest[:1])
    else:
        monitor_printf(monitor.cur_mon, "unterminated string\n")
    return -1, "", rest


@traced
def key_get_info(type: str) -> tuple[str | None, str]:
    """Cut the next name off a list of types; what follows it, None at the end, and the name."""
    key, colon, rest = type.removeprefix(",").partition(":")
    return (rest, key) if colon else (None, "")


@traced
def is_valid_option(c: str, typestr: str) -> int:
    """Whether a flag comes later in the list of types."""
    return int(f"-{c}" in typestr)


def _string(mon: Monitor, name: str, kind: str, key: str, rest: str, qdict: Arguments) -> str:
    rest = rest.lstrip(_SPACE)
    if kind.endswith("?") and not rest:
        return rest
    ret, word, rest = get_str(1024, rest)
    if ret < 0:
        monitor_printf(mon, "%s: %s expected\n", name, _EXPECTED[kind[0]])
        raise _Refused
    qdict[key] = word
    return rest


def _format(mon: Monitor, rest: str, qdict: Arguments) -> str:
    rest = rest.lstrip(_SPACE)
    count, format, size = 1, -1, -1
    if rest.startswith("/"):
        found = re.match(r"/([0-9]*)([oduxicbhwgL]*)", rest)
        assert found is not None
        rest = rest[found.end() :]
        count = int(found[1][:10] or "1")
        for letter in found[2]:
            if letter in _SIZES:
                size = _SIZES[letter]
            else:
                format = ord(letter)
        if rest and rest[0] not in _SPACE:
            monitor_printf(mon, "invalid char in format: '%s'\n", rest[0])
            raise _Refused
        if format < 0:
            format = _default_format["format"]
        if format != ord("i"):
            size = _default_format["size"] if size < 0 else size
            _default_format["size"] = size
        _default_format["format"] = format
    else:
        format = _default_format["format"]
        size = _default_format["size"] if format != ord("i") else -1
    qdict.update(count=count, format=format, size=size)
    return rest


def _number(mon: Monitor, name: str, kind: str, key: str, rest: str, qdict: Arguments) -> str:
    rest = rest.lstrip(_SPACE)
    if kind.endswith("?") and not rest:
        return rest
    if kind.endswith("."):
        if not rest.startswith("."):
            return rest
        rest = rest[1:]
    ret, val, rest = get_expr(mon, rest)
    if ret:
        raise _Refused
    if kind[0] == "i" and val >> 32 & 0xFFFFFFFF:
        monitor_printf(mon, "'%s' has failed: ", name)
        monitor_printf(mon, "integer is for 32-bit values\n")
        raise _Refused
    qdict[key] = val << 20 if kind[0] == "M" else val
    return rest


def _flag(mon: Monitor, name: str, kind: str, later: str, key: str, rest: str, qdict: Arguments) -> str:
    given = rest.lstrip(_SPACE)
    qdict[key] = 0
    if not given.startswith("-"):
        return given
    if given[1:2] == kind[1]:
        qdict[key] = 1
        return given[2:]
    if not is_valid_option(given[1:2], later):
        monitor_printf(mon, "%s: unsupported option -%s\n", name, given[1:2])
        raise _Refused
    return rest


@traced
def monitor_parse_command(mon: Monitor, cmdline: str, qdict: Arguments) -> Command | None:
    """Find the command of a line and put its arguments into `qdict`; None after a message."""
    rest, name = get_command_name(cmdline, 256)
    if rest is None:
        return None
    cmd = monitor_find_command(name)
    if cmd is None:
        monitor_printf(mon, "unknown command: '%s'\n", name)
        return None
    if not cmd.is_modelled():
        monitor_printf(mon, "%s: the model has no such command\n", name)
        return None
    try:
        return cmd if _arguments(mon, name, cmd.args_type, rest, qdict) else None
    except _Refused:
        return None


def _arguments(mon: Monitor, name: str, args_type: str, rest: str, qdict: Arguments) -> bool:
    while True:
        types, key = key_get_info(args_type)
        if types is None:
            break
        kind, _, args_type = types.partition(",")
        args_type = args_type and f",{args_type}"
        if kind[0] in _EXPECTED:
            rest = _string(mon, name, kind, key, rest, qdict)
        elif kind[0] == "/":
            rest = _format(mon, rest, qdict)
        elif kind[0] == "-":
            rest = _flag(mon, name, kind, args_type, key, rest, qdict)
        else:
            rest = _number(mon, name, kind, key, rest, qdict)
    if rest.strip(_SPACE):
        monitor_printf(mon, "%s: extraneous characters at the end of line\n", name)
        return False
    return True
