"""Completion of a line typed into the monitor: a part of monitor.c.

Commands, what follows `info` and `help`, block devices, keys, and files, as the command's `args_type` has it.
"""

from __future__ import annotations

import os

from hypervisor import monitor
from hypervisor.block import bdrv_get_device_name, bdrv_iterate
from hypervisor.block_int import BlockDriverState
from hypervisor.monitor_commands import info_cmds, mon_cmds
from hypervisor.monitor_keys import key_defs
from hypervisor.monitor_parse import compare_cmd, get_str
from hypervisor.readline import ReadLineState, readline_add_completion, readline_set_completion_index
from tracer import traced

C_FILE = "monitor.c"

MAX_ARGS = 16
_SPACE = " \t\n\v\f\r"


def _rs() -> ReadLineState:
    assert monitor.cur_mon is not None
    return monitor.cur_mon.editor


@traced
def cmd_completion(name: str, list: str) -> None:
    """Offer the names in `list`, which `|` separates, that begin with `name`."""
    for cmd in list.split("|"):
        if cmd.startswith(name):
            readline_add_completion(_rs(), cmd)


@traced
def file_completion(input: str) -> None:
    """Offer the files that begin with `input`; folders with a slash."""
    folder, prefix = os.path.split(input)
    folder = input[: len(input) - len(prefix)]
    try:
        names = sorted(os.listdir(folder or "."))
    except (OSError, ValueError):
        return
    for name in names:
        if name.startswith(prefix):
            slash = "/" if os.path.isdir(folder + name) else ""
            readline_add_completion(_rs(), folder + name + slash)


@traced
def block_completion_it(opaque: str, bs: BlockDriverState) -> None:
    """Offer a block device if it begins with `opaque`."""
    name = bdrv_get_device_name(bs)
    if name.startswith(opaque):
        readline_add_completion(_rs(), name)


@traced
def parse_cmdline(cmdline: str) -> list[str]:
    """Cut a line into words, as far as that goes."""
    args: list[str] = []
    rest = cmdline.lstrip(_SPACE)
    while rest and len(args) < MAX_ARGS:
        ret, word, rest = get_str(1024, rest)
        args.append(word)
        if ret < 0:
            break
        rest = rest.lstrip(_SPACE)
    return args


@traced
def next_arg_type(typestr: str) -> str:
    """The next type of a list of types, with what follows it."""
    _, colon, rest = typestr.partition(":")
    return rest if colon else typestr


def _argument_type(args_type: str, number: int) -> str:
    """The letter of the argument that is being typed; a flag before it counts as none."""
    ptype = next_arg_type(args_type)
    for _ in range(number - 1):
        ptype = next_arg_type(ptype)
    if ptype.startswith("-") and "," in ptype:
        ptype = next_arg_type(ptype)
    return ptype[:1]


@traced
def monitor_find_completion(cmdline: str) -> None:
    """Offer completions of the last word of a line."""
    args = parse_cmdline(cmdline)
    if cmdline and cmdline[-1] in _SPACE:
        args.append("")
    if len(args) > MAX_ARGS:
        return
    word = args[-1] if args else ""
    readline_set_completion_index(_rs(), len(word))
    if len(args) <= 1:
        for cmd in mon_cmds:
            cmd_completion(word, cmd.name)
        return
    found = next((cmd for cmd in mon_cmds if compare_cmd(args[0], cmd.name)), None)
    if found is None:
        return
    flags = sum(arg.startswith("-") for arg in args[1:-1])
    kind = _argument_type(found.args_type, len(args) - 1 - flags)
    if kind == "F":
        file_completion(word)
    elif kind == "B":
        bdrv_iterate(block_completion_it, word)
    elif kind == "s" and found.name == "info":
        for cmd in info_cmds:
            cmd_completion(word, cmd.name)
    elif kind == "s" and found.name == "sendkey":
        key = word.rpartition("-")[2]
        readline_set_completion_index(_rs(), len(key))
        for _, name in key_defs:
            cmd_completion(key, name)
    elif kind == "s" and found.name == "help|?":
        for cmd in mon_cmds:
            cmd_completion(word, cmd.name)
