"""Machines: their registration and choice, and the boot order of the one that runs; a part of vl.c."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from hypervisor.hw.qdev_properties import GlobalProperty
from hypervisor.program import on_reset
from tracer import Struct, traced

C_FILE = "vl.c"

QEMUMachineInitFunc = Callable[[int, str, str | None, str, str | None, str | None], None]
"""init(ram_size, boot_device, kernel_filename, kernel_cmdline, initrd_filename, cpu_model)"""


class QEMUMachine(Struct):
    """`QEMUMachine` (hw/boards.h): a machine that -M can ask for."""

    name: str = ""
    alias: str | None = None
    desc: str = ""
    init: QEMUMachineInitFunc | None = None
    use_scsi: int = 0
    max_cpus: int = 1
    no_serial: int = 0
    no_parallel: int = 0
    no_floppy: int = 0
    no_cdrom: int = 0
    no_sdcard: int = 0
    is_default: int = 0
    compat_props: list[GlobalProperty] | None = None
    next: QEMUMachine | None = None


QEMUBootSetHandler = Callable[[Any, str], int]

_machines: list[QEMUMachine] = []
_boot_set: tuple[QEMUBootSetHandler, Any] | None = None


@on_reset
def _reset() -> None:
    global _boot_set
    _machines.clear()
    _boot_set = None


@traced
def qemu_register_boot_set(func: QEMUBootSetHandler, opaque: Any) -> None:
    """Have `func(opaque, boot_devices)` change the boot order."""
    global _boot_set
    _boot_set = func, opaque


@traced
def qemu_boot_set(boot_devices: str) -> int:
    """Change the boot order; -EINVAL if the machine cannot, 1 after a message."""
    if _boot_set is None:
        return -errno.EINVAL
    func, opaque = _boot_set
    return func(opaque, boot_devices)


@traced
def restore_boot_devices(opaque: str) -> None:
    """At a reset, return to the order of before -boot once=."""
    from hypervisor.vl_loop import qemu_unregister_reset

    qemu_boot_set(opaque)
    qemu_unregister_reset(restore_boot_devices, opaque)


@traced
def qemu_register_machine(m: QEMUMachine) -> int:
    """Append a machine to the list."""
    m.next = None
    if _machines:
        _machines[-1].next = m
    _machines.append(m)
    return 0


@traced
def find_machine(name: str) -> QEMUMachine | None:
    """Find a machine by name or alias."""
    return next((m for m in _machines if name in (m.name, m.alias)), None)


@traced
def find_default_machine() -> QEMUMachine | None:
    """Find the machine taken without -M."""
    return next((m for m in _machines if m.is_default), None)


def print_machines() -> None:
    """Print what -M takes, one line a name."""
    print("Supported machines are:")
    for m in _machines:
        if m.alias:
            print(f"{m.alias:<10} {m.desc} (alias of {m.name})")
        print(f"{m.name:<10} {m.desc}{' (default)' if m.is_default else ''}")
