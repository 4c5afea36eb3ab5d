"""Devices on the main system bus: hw/sysbus.c."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypervisor.hw.qdev import DeviceInfo, DeviceState, qdev_register, system_bus_info
from tracer import traced

C_FILE = "hw/sysbus.c"


class SysBusDeviceInfo(DeviceInfo):
    """`SysBusDeviceInfo`: its own init function takes the device only."""

    sysbus_init: Callable[[Any], int] | None = None


@traced
def sysbus_device_init(dev: DeviceState, base: SysBusDeviceInfo) -> int:
    """Call the kind's own init function."""
    assert base.sysbus_init is not None
    return base.sysbus_init(dev)


@traced
def sysbus_register_withprop(info: SysBusDeviceInfo) -> None:
    """Register a kind of device for the system bus."""
    info.init = sysbus_device_init
    info.bus_info = system_bus_info
    qdev_register(info)
