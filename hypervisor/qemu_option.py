"""Option groups as QEMU's command line keeps them: the QemuOpts half of qemu-option.c.

`-drive file=a.img,if=ide,id=d0` becomes one `QemuOpts` with the id "d0" and two `QemuOpt`,
hanging on the `QemuOptsList` "drive". Nothing is opened or acted upon while options are read.

    QemuOptsList "drive" --head--> [QemuOpts id=d0 --head--> [QemuOpt file, QemuOpt if], ...]

- `qemu_opts_parse(list, params, firstname)`: text to a new `QemuOpts`.
- `qemu_opts_create`, `qemu_opts_find`, `qemu_opts_set`, `qemu_opts_del`, `qemu_opts_id`.
- `qemu_opt_set`, `qemu_opt_get`, `qemu_opt_get_bool`, `qemu_opt_get_number`, `qemu_opt_get_size`.
- `qemu_opts_foreach(list, func, opaque, abort_on_failure)`: how drives and monitors come to life.
- `qemu_opts_validate`: a list without descriptions is checked late, against another's.

The helpers that cut text (`get_opt_name`, `parse_option_bool`, ...) are shared with image creation
options and live in `hypervisor.qemu_option_parameter`.
"""

import sys
from collections.abc import Callable
from dataclasses import field
from enum import IntEnum
from typing import Any, TypeAlias

from hypervisor.cutils import pstrcpy
from hypervisor.qemu_option_parameter import (
    get_opt_name,
    get_opt_value,
    parse_option_bool,
    parse_option_number,
    parse_option_size,
)
from tracer import Struct, traced

C_FILE = "qemu-option.c"


class QemuOptType(IntEnum):
    """`enum QemuOptType`: how an option's text is read."""

    QEMU_OPT_STRING = 0
    QEMU_OPT_BOOL = 1
    QEMU_OPT_NUMBER = 2
    QEMU_OPT_SIZE = 3


class QemuOptDesc(Struct):
    """`QemuOptDesc`: an option that a list accepts."""

    name: str = ""
    type: QemuOptType = QemuOptType.QEMU_OPT_STRING
    help: str | None = None


class QemuOptsList(Struct):
    """`QemuOptsList`: an option group such as "drive"; an empty `desc` accepts any name."""

    name: str = ""
    head: "list[QemuOpts]" = field(default_factory=list)
    desc: list[QemuOptDesc] = field(default_factory=list)


_Options: TypeAlias = "list[QemuOpt]"
_Text: TypeAlias = str | None


class QemuOpts(Struct):
    """`QemuOpts`: one use of an option group, in the order its options were given."""

    id: str | None = None
    head: _Options = field(default_factory=list)
    list: QemuOptsList | None = None


class QemuOpt(Struct):
    """`QemuOpt`: one name with its text, and its value once read.

    Parameters
    ----------
    value : int
        `union value`: `boolean` or `uint` by `desc.type`.
    """

    name: str = ""
    str: _Text = None
    desc: QemuOptDesc | None = None
    value: int = 0
    opts: QemuOpts | None = None


OptLoopFunc = Callable[[str, str | None, Any], int]
OptsLoopFunc = Callable[[QemuOpts, Any], int]


def _find_desc(desc: list[QemuOptDesc], name: str) -> QemuOptDesc | None:
    return next((entry for entry in desc if entry.name == name), None)


@traced
def qemu_opt_find(opts: QemuOpts, name: str) -> QemuOpt | None:
    """Find an option; of several with one name, the last given counts."""
    return next((opt for opt in reversed(opts.head) if opt.name == name), None)


@traced
def qemu_opt_get(opts: QemuOpts, name: str) -> str | None:
    """Text of an option, or None when it was not given."""
    opt = qemu_opt_find(opts, name)
    return opt.str if opt else None


@traced
def qemu_opt_get_bool(opts: QemuOpts, name: str, defval: int) -> int:
    """Value of an on/off option, or `defval`."""
    opt = qemu_opt_find(opts, name)
    return opt.value if opt else defval


@traced
def qemu_opt_get_number(opts: QemuOpts, name: str, defval: int) -> int:
    """Value of a number option, or `defval`."""
    opt = qemu_opt_find(opts, name)
    return opt.value if opt else defval


@traced
def qemu_opt_get_size(opts: QemuOpts, name: str, defval: int) -> int:
    """Value of a size option in bytes, or `defval`."""
    opt = qemu_opt_find(opts, name)
    return opt.value if opt else defval


@traced
def qemu_opt_parse(opt: QemuOpt) -> int:
    """Read the option's text by its description; 0, or -1 after a message."""
    if opt.desc is None or opt.desc.type == QemuOptType.QEMU_OPT_STRING:
        return 0
    parse = {
        QemuOptType.QEMU_OPT_BOOL: parse_option_bool,
        QemuOptType.QEMU_OPT_NUMBER: parse_option_number,
        QemuOptType.QEMU_OPT_SIZE: parse_option_size,
    }[opt.desc.type]
    ret, opt.value = parse(opt.name, opt.str)
    return ret


@traced
def qemu_opt_del(opt: QemuOpt) -> None:
    """Take the option off its group."""
    assert opt.opts is not None
    opt.opts.head.remove(opt)


@traced
def qemu_opt_set(opts: QemuOpts, name: str, value: str | None) -> int:
    """Add an option to a group and read its value.

    Returns
    -------
    int
        0, or -1 after a message: the group does not know the name, or the value does not parse.
    """
    assert opts.list is not None
    desc = _find_desc(opts.list.desc, name)
    if desc is None and opts.list.desc:
        print(f'option "{name}" is not valid for {opts.list.name}', file=sys.stderr)
        return -1
    opt = QemuOpt(name=name, str=value, desc=desc, opts=opts)
    opts.head.append(opt)
    if qemu_opt_parse(opt) < 0:
        print(f'Failed to parse "{value}" for "{opts.list.name}.{name}"', file=sys.stderr)
        qemu_opt_del(opt)
        return -1
    return 0


@traced
def qemu_opt_foreach(opts: QemuOpts, func: OptLoopFunc, opaque: Any, abort_on_failure: int) -> int:
    """Call `func(name, text, opaque)` for each option; the last result."""
    rc = 0
    for opt in tuple(opts.head):
        rc = func(opt.name, opt.str, opaque)
        if abort_on_failure and rc:
            break
    return rc


@traced
def qemu_opts_find(list: QemuOptsList, id: str) -> QemuOpts | None:
    """Find the group use with this id."""
    return next((opts for opts in list.head if opts.id == id), None)


@traced
def qemu_opts_create(list: QemuOptsList, id: str | None, fail_if_exists: int) -> QemuOpts | None:
    """Start a new group use.

    Returns
    -------
    QemuOpts or None
        An id in use gives the existing one, or None after a message if `fail_if_exists`.
    """
    if id is not None:
        opts = qemu_opts_find(list, id)
        if opts is not None:
            if not fail_if_exists:
                return opts
            print(f'tried to create id "{id}" twice for "{list.name}"', file=sys.stderr)
            return None
    opts = QemuOpts(id=id, list=list, head=[])
    list.head.append(opts)
    return opts


@traced
def qemu_opts_set(list: QemuOptsList, id: str | None, name: str, value: str) -> int:
    """Start a new group use that holds one option; 0 or -1."""
    opts = qemu_opts_create(list, id, 1)
    return -1 if opts is None else qemu_opt_set(opts, name, value)


@traced
def qemu_opts_id(opts: QemuOpts) -> str | None:
    """Id of a group use, None when none was given."""
    return opts.id


@traced
def qemu_opts_del(opts: QemuOpts) -> None:
    """Drop a group use and all its options."""
    assert opts.list is not None
    while opts.head:
        qemu_opt_del(opts.head[0])
    opts.list.head.remove(opts)


@traced
def qemu_opts_print(opts: QemuOpts, dummy: Any) -> int:
    """Print a group use in one line on stderr."""
    assert opts.list is not None
    words = "".join(f' {opt.name}="{opt.str}"' for opt in opts.head)
    print(f"{opts.list.name}: {opts.id or '<noid>'}:{words}", file=sys.stderr)
    return 0


@traced
def qemu_opts_do_parse(opts: QemuOpts, params: str, firstname: str | None) -> int:
    """Read "a=1,b,noc" into options a=1, b=on, c=off.

    Parameters
    ----------
    firstname : str or None
        Name of a first value that comes without one: "stdio,mux=on" for "backend".

    Returns
    -------
    int
        0, or -1 when an option was refused.
    """
    p = params
    while p:
        equals, comma = p.find("="), p.find(",")
        if equals < 0 or 0 <= comma < equals:
            if p == params and firstname:
                option = pstrcpy(128, firstname)
                p, value = get_opt_value(1024, p)
            else:
                p, option = get_opt_name(128, p, ",")
                off = option.startswith("no")
                option = option[2:] if off else option
                value = pstrcpy(1024, "off" if off else "on")
        else:
            p, option = get_opt_name(128, p, "=")
            if not p.startswith("="):
                break
            p, value = get_opt_value(1024, p[1:])
        if option != "id" and qemu_opt_set(opts, option, value) == -1:
            return -1
        if not p.startswith(","):
            break
        p = p[1:]
    return 0


@traced
def qemu_opts_parse(list: QemuOptsList, params: str, firstname: str | None) -> QemuOpts | None:
    """Read one command-line use of a group; None after a message."""
    id = None
    if params.startswith("id="):
        _, id = get_opt_value(1024, params[3:])
    elif (at := params.find(",id=")) >= 0:
        _, id = get_opt_value(1024, params[at + 4 :])
    opts = qemu_opts_create(list, id, 1)
    if opts is None:
        return None
    if qemu_opts_do_parse(opts, params, firstname) != 0:
        qemu_opts_del(opts)
        return None
    return opts


@traced
def qemu_opts_validate(opts: QemuOpts, desc: list[QemuOptDesc]) -> int:
    """Check and read the options of a list that accepted any name; 0 or -1."""
    assert opts.list is not None
    for opt in opts.head:
        opt.desc = _find_desc(desc, opt.name)
        if opt.desc is None:
            print(f'option "{opt.name}" is not valid for {opts.list.name}', file=sys.stderr)
            return -1
        if qemu_opt_parse(opt) < 0:
            return -1
    return 0


@traced
def qemu_opts_foreach(list: QemuOptsList, func: OptsLoopFunc, opaque: Any, abort_on_failure: int) -> int:
    """Call `func(opts, opaque)` for each use of the group; the last result."""
    rc = 0
    for opts in tuple(list.head):
        rc = func(opts, opaque)
        if abort_on_failure and rc:
            break
    return rc
