"""The option groups of the command line, and their file form: qemu-config.c.

- `qemu_drive_opts`, `qemu_chardev_opts`, `qemu_mon_opts`, ...: one `QemuOptsList` a group.
- `qemu_set_option("drive.d0.cache=none")`, `qemu_global_option("ide-drive.ver=0.11")`: -set and -global.
- `qemu_add_globals()`: hands what -global stored to the device properties.
- `qemu_config_parse(fp)`, `qemu_config_write(fp)`: -readconfig and -writeconfig.
"""

import re
import sys
from typing import TextIO

from hypervisor import program
from hypervisor.hw.qdev_properties import GlobalProperty, qdev_prop_register_global
from hypervisor.qemu_option import (
    QemuOptDesc,
    QemuOpts,
    QemuOptsList,
    QemuOptType,
    qemu_opt_foreach,
    qemu_opt_get,
    qemu_opt_set,
    qemu_opts_create,
    qemu_opts_find,
    qemu_opts_foreach,
    qemu_opts_id,
)
from tracer import symbol, traced

C_FILE = "qemu-config.c"

_STRING, _BOOL, _NUMBER = (
    QemuOptType.QEMU_OPT_STRING,
    QemuOptType.QEMU_OPT_BOOL,
    QemuOptType.QEMU_OPT_NUMBER,
)


def _group(name: str, /, **names: QemuOptType) -> QemuOptsList:
    desc = [QemuOptDesc(name=option.rstrip("_"), type=kind) for option, kind in names.items()]
    group = QemuOptsList(name=name, head=[], desc=desc)
    symbol(group, f"qemu_{name}_opts")
    return group


qemu_drive_opts = _group(
    "drive",
    bus=_NUMBER,
    unit=_NUMBER,
    if_=_STRING,
    index=_NUMBER,
    cyls=_NUMBER,
    heads=_NUMBER,
    secs=_NUMBER,
    trans=_STRING,
    media=_STRING,
    snapshot=_BOOL,
    file=_STRING,
    cache=_STRING,
    aio=_STRING,
    format=_STRING,
    serial=_STRING,
    rerror=_STRING,
    werror=_STRING,
    addr=_STRING,
    readonly=_BOOL,
    boot=_BOOL,
)
qemu_chardev_opts = _group(
    "chardev",
    backend=_STRING,
    path=_STRING,
    host=_STRING,
    port=_STRING,
    localaddr=_STRING,
    localport=_STRING,
    to=_NUMBER,
    ipv4=_BOOL,
    ipv6=_BOOL,
    wait=_BOOL,
    server=_BOOL,
    delay=_BOOL,
    telnet=_BOOL,
    width=_NUMBER,
    height=_NUMBER,
    cols=_NUMBER,
    rows=_NUMBER,
    mux=_BOOL,
    signal=_BOOL,
)
qemu_device_opts = _group("device")
qemu_netdev_opts = _group("netdev")
qemu_net_opts = _group("net")
qemu_rtc_opts = _group("rtc", base=_STRING, clock=_STRING)
qemu_global_opts = _group("global", driver=_STRING, property=_STRING, value=_STRING)
qemu_mon_opts = _group("mon", mode=_STRING, chardev=_STRING, default=_BOOL)

_lists = [
    qemu_drive_opts,
    qemu_chardev_opts,
    qemu_device_opts,
    qemu_netdev_opts,
    qemu_net_opts,
    qemu_rtc_opts,
    qemu_global_opts,
    qemu_mon_opts,
]


@program.on_reset
def _reset() -> None:
    for group in _lists:
        group.head = []


def _error(line: str) -> int:
    print(line, file=sys.stderr)
    return -1


@traced
def find_list(group: str) -> QemuOptsList | None:
    """Find an option group by name, or None after a message."""
    found = next((entry for entry in _lists if entry.name == group), None)
    if found is None:
        _error(f'there is no option group "{group}"')
    return found


@traced
def qemu_set_option(str: str) -> int:
    """Obey -set GROUP.ID.NAME=VALUE; 0, or -1 after a message."""
    match = re.match(r"([^.]{1,63})\.([^.]{1,63})\.([^=]{1,63})=(.*)", str, re.DOTALL)
    if match is None:
        return _error(f'can\'t parse: "{str}"')
    group = find_list(match[1])
    if group is None:
        return -1
    opts = qemu_opts_find(group, match[2])
    if opts is None:
        return _error(f'there is no {group.name} "{match[2]}" defined')
    return qemu_opt_set(opts, match[3], match[4])


@traced
def qemu_global_option(str: str) -> int:
    """Obey -global DRIVER.PROPERTY=VALUE; 0, or -1 after a message."""
    match = re.match(r"([^.]{1,63})\.([^=]{1,63})=(.*)", str, re.DOTALL)
    if match is None:
        return _error(f'can\'t parse: "{str}"')
    opts = qemu_opts_create(qemu_global_opts, None, 0)
    assert opts is not None
    for name, value in zip(("driver", "property", "value"), match.groups(), strict=True):
        qemu_opt_set(opts, name, value)
    return 0


@traced
def qemu_add_one_global(opts: QemuOpts, opaque: None) -> int:
    """Hand one -global to the device properties."""
    qdev_prop_register_global(
        GlobalProperty(
            driver=qemu_opt_get(opts, "driver") or "",
            property=qemu_opt_get(opts, "property") or "",
            value=qemu_opt_get(opts, "value") or "",
        )
    )
    return 0


@traced
def qemu_add_globals() -> None:
    """Hand every -global to the device properties, just before the machine is made."""
    qemu_opts_foreach(qemu_global_opts, qemu_add_one_global, None, 0)


@traced
def config_write_opt(name: str, value: str | None, opaque: TextIO) -> int:
    """Write one option as a line of its section."""
    opaque.write(f'  {name} = "{value}"\n')
    return 0


@traced
def config_write_opts(opts: QemuOpts, opaque: TextIO) -> int:
    """Write one group use as a section."""
    assert opts.list is not None
    id = qemu_opts_id(opts)
    opaque.write(f'[{opts.list.name} "{id}"]\n' if id else f"[{opts.list.name}]\n")
    qemu_opt_foreach(opts, config_write_opt, opaque, 0)
    opaque.write("\n")
    return 0


@traced
def qemu_config_write(fp: TextIO) -> None:
    """Write all groups in the form that -readconfig reads."""
    fp.write("# qemu config file\n\n")
    for group in _lists:
        qemu_opts_foreach(group, config_write_opts, fp, 0)


@traced
def qemu_config_parse(fp: TextIO) -> int:
    """Read option groups from a file; 0, or -1 after a message."""
    opts: QemuOpts | None = None
    group = ""
    for line in fp:
        if line == "\n" or line.startswith("#"):
            continue
        if section := re.match(r'\[(\w{1,63})(?: "([^"]{1,63})")?\]', line):
            group = section[1]
            found = find_list(group)
            if found is None:
                return -1
            opts = qemu_opts_create(found, section[2], int(section[2] is not None))
        elif option := re.match(r'\s*(\S{1,63}) = "([^"]{1,1023})"', line):
            if opts is None:
                return _error("no group defined")
            if qemu_opt_set(opts, option[1], option[2]) != 0:
                return _error(f'failed to set "{option[1]}" for {group}')
        else:
            return _error(f"parse error: {line}")
    return 0
