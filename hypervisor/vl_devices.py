"""Serial lines, monitors and other devices that options ask for: a part of vl.c.

-serial and its kin are only noted while options are read (`add_device_config`); main opens them in the order
of their kind, by `foreach_device_config(type, func)`. A monitor is two option groups, a chardev and a mon.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any

from hypervisor.cutils import strstart
from hypervisor.errors import HypervisorError
from hypervisor.hw.qdev import qdev_device_add
from hypervisor.program import on_reset
from hypervisor.qemu_char import CharDriverState
from hypervisor.qemu_char_open import (
    qemu_chr_find,
    qemu_chr_open,
    qemu_chr_open_opts,
    qemu_chr_parse_compat,
)
from hypervisor.qemu_config import qemu_mon_opts
from hypervisor.qemu_option import (
    QemuOpts,
    qemu_opt_get,
    qemu_opt_get_bool,
    qemu_opt_set,
    qemu_opts_create,
)
from hypervisor.vl_state import state
from tracer import Struct, traced

C_FILE = "vl.c"

DEV_USB, DEV_BT, DEV_SERIAL, DEV_PARALLEL, DEV_VIRTCON = range(5)


class device_config(Struct):
    """`struct device_config`: an option to be obeyed later; `type` is a DEV_*."""

    type: int = 0
    cmdline: str = ""


_device_configs: list[device_config] = []
_index = {"serial": 0, "parallel": 0}
_monitor_device_index = 0


@on_reset
def _reset() -> None:
    global _monitor_device_index
    _device_configs.clear()
    _index.update(serial=0, parallel=0)
    _monitor_device_index = 0


@traced
def add_device_config(type: int, cmdline: str) -> None:
    """Note an option to be obeyed later."""
    _device_configs.append(device_config(type=type, cmdline=cmdline))


@traced
def foreach_device_config(type: int, func: Callable[[str], int]) -> int:
    """Obey the options of one kind; the first result that is not 0."""
    for conf in _device_configs:
        if conf.type == type:
            rc = func(conf.cmdline)
            if rc:
                return rc
    return 0


def _open(kind: str, ports: list[CharDriverState | None], devname: str) -> int:
    if devname == "none":
        return 0
    index = _index[kind]
    if index == len(ports):
        print(f"qemu: too many {kind} ports", file=sys.stderr)
        raise SystemExit(1)
    ports[index] = qemu_chr_open(f"{kind}{index}", devname, None)
    if ports[index] is None:
        cause = os.strerror(state.last_errno or errno.EINVAL)
        print(f"qemu: could not open {kind} device '{devname}': {cause}", file=sys.stderr)
        return -1
    _index[kind] += 1
    return 0


@traced
def serial_parse(devname: str) -> int:
    """Open the character device of the next serial port; 0 or -1."""
    return _open("serial", state.serial_hds, devname)


@traced
def parallel_parse(devname: str) -> int:
    """Open the character device of the next parallel port; 0 or -1."""
    return _open("parallel", state.parallel_hds, devname)


@traced
def bt_parse(devname: str) -> int:
    """Refuse Bluetooth."""
    raise HypervisorError("the model has no Bluetooth: leave -bt out")


@traced
def virtcon_parse(devname: str) -> int:
    """Refuse a virtio console."""
    raise HypervisorError("the model has no virtio console: leave -virtioconsole out")


@traced
def monitor_parse(optarg: str, mode: str) -> None:
    """Note a monitor: its character device, and itself."""
    global _monitor_device_index
    is_default = False
    ret, label = strstart(optarg, "chardev:")
    if not ret or label is None:
        label = f"monitor{_monitor_device_index}" if _monitor_device_index else "monitor"
        is_default = not _monitor_device_index
        if qemu_chr_parse_compat(label, optarg) is None:
            print(f"parse error: {optarg}", file=sys.stderr)
            raise SystemExit(1)
    opts = qemu_opts_create(qemu_mon_opts, label, 1)
    if opts is None:
        print(f"duplicate chardev: {label}", file=sys.stderr)
        raise SystemExit(1)
    qemu_opt_set(opts, "mode", mode)
    qemu_opt_set(opts, "chardev", label)
    if is_default:
        qemu_opt_set(opts, "default", "on")
    _monitor_device_index += 1


@traced
def chardev_init_func(opts: QemuOpts, opaque: None) -> int:
    """Open a character device; 0 or -1."""
    return -1 if qemu_chr_open_opts(opts, None) is None else 0


@traced
def mon_init_func(opts: QemuOpts, opaque: None) -> int:
    """Make a monitor."""
    from hypervisor.monitor import (
        MONITOR_IS_DEFAULT,
        MONITOR_USE_CONTROL,
        MONITOR_USE_READLINE,
        monitor_init,
    )

    mode = qemu_opt_get(opts, "mode") or "readline"
    if mode not in ("readline", "control"):
        print(f'unknown monitor mode "{mode}"', file=sys.stderr)
        raise SystemExit(1)
    flags = MONITOR_USE_READLINE if mode == "readline" else MONITOR_USE_CONTROL
    if qemu_opt_get_bool(opts, "default", 0):
        flags |= MONITOR_IS_DEFAULT
    chardev = qemu_opt_get(opts, "chardev")
    chr = qemu_chr_find(chardev or "")
    if chr is None:
        print(f'chardev "{chardev}" not found', file=sys.stderr)
        raise SystemExit(1)
    monitor_init(chr, flags)
    return 0


@traced
def device_init_func(opts: QemuOpts, opaque: None) -> int:
    """Make a device of -device, or one that -drive if=virtio stands for; 0 or -1."""
    return -1 if qdev_device_add(opts) is None else 0


_Default = dict[str, int]
_DRIVERS = {
    "isa-serial": "serial",
    "isa-parallel": "parallel",
    "isa-fdc": "floppy",
    "ide-drive": "cdrom",
    "VGA": "vga",
    "cirrus-vga": "vga",
    "vmware-svga": "vga",
}


@traced
def default_driver_check(opts: QemuOpts, opaque: Any) -> int:
    """Leave a default device out that is made explicitly; `opaque` holds what is made by default."""
    driver = qemu_opt_get(opts, "driver")
    if driver in _DRIVERS:
        opaque[_DRIVERS[driver]] = 0
    return 0
