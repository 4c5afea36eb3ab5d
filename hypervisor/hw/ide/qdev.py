"""Drives as devices on a channel: hw/ide/qdev.c."""

from __future__ import annotations

import sys

from hypervisor.hw.ide.core import ide_init_drive
from hypervisor.hw.ide.internal import IDEBus, IDEDevice, IDEDeviceInfo
from hypervisor.hw.qdev import (
    BusInfo,
    DeviceState,
    qbus_create_inplace,
    qdev_create,
    qdev_init,
    qdev_register,
)
from hypervisor.hw.qdev_properties import Property, qdev_prop_set_drive, qdev_prop_set_uint32
from hypervisor.module import device_init
from hypervisor.vl_drive import DriveInfo
from tracer import traced

C_FILE = "hw/ide/qdev.c"

ide_bus_info = BusInfo(name="IDE", size=IDEBus)


@traced
def ide_bus_new(idebus: IDEBus, dev: DeviceState) -> None:
    """Make a controller's channel a bus."""
    qbus_create_inplace(idebus, ide_bus_info, dev, None)


@traced
def ide_qdev_init(qdev: IDEDevice, base: IDEDeviceInfo) -> int:
    """Put a drive into its place and call its kind's own init function; -1 after a message."""
    bus = qdev.parent_bus
    assert isinstance(bus, IDEBus) and base.ide_init is not None
    if qdev.dinfo is None:
        print(f"{base.name}: no drive specified", file=sys.stderr)
        return -1
    if qdev.unit == -1:
        qdev.unit = 1 if bus.master else 0
    if qdev.unit not in (0, 1):
        return -1
    place = ("master", "slave")[qdev.unit]
    if getattr(bus, place) is not None:
        print(f"ide: tried to assign {place} twice", file=sys.stderr)
        return -1
    setattr(bus, place, qdev)
    return base.ide_init(qdev)


@traced
def ide_qdev_register(info: IDEDeviceInfo) -> None:
    """Register a kind of device for a channel."""
    info.init = ide_qdev_init
    info.bus_info = ide_bus_info
    qdev_register(info)


@traced
def ide_create_drive(bus: IDEBus, unit: int, drive: DriveInfo) -> IDEDevice | None:
    """Make a drive of what -drive said."""
    dev = qdev_create(bus, "ide-drive")
    qdev_prop_set_uint32(dev, "unit", unit)
    qdev_prop_set_drive(dev, "drive", drive)
    if qdev_init(dev) < 0:
        return None
    assert isinstance(dev, IDEDevice)
    return dev


@traced
def ide_drive_initfn(dev: IDEDevice) -> int:
    """Bring a drive to life."""
    bus = dev.parent_bus
    assert isinstance(bus, IDEBus)
    ide_init_drive(bus.ifs[dev.unit], dev.dinfo, dev.version)
    return 0


ide_drive_info = IDEDeviceInfo(
    name="ide-drive",
    size=IDEDevice,
    ide_init=ide_drive_initfn,
    props=[
        Property(name="unit", type="uint32", field="unit", defval=-1),
        Property(name="drive", type="drive", field="dinfo"),
        Property(name="ver", type="string", field="version"),
    ],
)


@traced
def ide_drive_register() -> None:
    """Register the drive."""
    ide_qdev_register(ide_drive_info)


device_init(ide_drive_register)
