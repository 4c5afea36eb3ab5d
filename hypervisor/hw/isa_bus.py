"""The ISA bus: hw/isa-bus.c.

- `isa_bus_new(dev)`, `isa_bus_irqs(irqs)`: made by the PCI-to-ISA bridge, wired by the machine.
- `isa_reserve_irq(isairq)`, `isa_init_irq(dev, isairq)`: the line of an interrupt number.
- `isa_create(name)`, `isa_create_simple(name)`: make a device on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any

from hypervisor.errors import HypervisorError
from hypervisor.hw.irq import IRQState
from hypervisor.hw.qdev import (
    BusInfo,
    BusState,
    DeviceInfo,
    DeviceState,
    qbus_create,
    qdev_create,
    qdev_init_nofail,
    qdev_register,
)
from hypervisor.hw.sysbus import SysBusDeviceInfo, sysbus_register_withprop
from hypervisor.module import device_init
from hypervisor.program import on_reset
from tracer import traced

C_FILE = "hw/isa-bus.c"


class ISABus(BusState):
    """`struct ISABus`: `irqs` are the lines into the interrupt controllers."""

    irqs: list[IRQState] = field(default_factory=list)


class ISADevice(DeviceState):
    """`struct ISADevice`: a device and its interrupt numbers."""

    isairq: list[int] = field(default_factory=list)


class ISADeviceInfo(DeviceInfo):
    """`ISADeviceInfo`: its own init function takes the device only."""

    isa_init: Callable[[Any], int] | None = None


isa_bus_info = BusInfo(name="ISA", size=ISABus)
_isabus: ISABus | None = None
_isa_irq_taken: set[int] = set()


@on_reset
def _reset() -> None:
    global _isabus
    _isabus = None
    _isa_irq_taken.clear()


@traced
def isa_bus_new(dev: DeviceState | None) -> ISABus:
    """Make the machine's ISA bus."""
    global _isabus
    bus = qbus_create(isa_bus_info, dev, None)
    assert isinstance(bus, ISABus)
    _isabus = bus
    return bus


def _bus() -> ISABus:
    if _isabus is None:
        raise HypervisorError("this machine has no ISA bus")
    return _isabus


@traced
def isa_bus_irqs(irqs: list[IRQState]) -> None:
    """Wire the bus's interrupt lines."""
    _bus().irqs = irqs


@traced
def isa_reserve_irq(isairq: int) -> IRQState:
    """Take an interrupt number that nobody else may take; its line."""
    if isairq > 15 or isairq in _isa_irq_taken:
        raise HypervisorError(f"isa irq {isairq} is not free")
    _isa_irq_taken.add(isairq)
    return _bus().irqs[isairq]


@traced
def isa_init_irq(dev: ISADevice, isairq: int) -> IRQState:
    """Take an interrupt number for a device; its line."""
    if isairq > 15 or isairq in _isa_irq_taken:
        raise HypervisorError(f"isa irq {isairq} is not free")
    dev.isairq = [*dev.isairq, isairq]
    _isa_irq_taken.add(isairq)
    return _bus().irqs[isairq]


@traced
def isa_qdev_init(qdev: ISADevice, base: ISADeviceInfo) -> int:
    """Call the kind's own init function."""
    qdev.isairq = []
    assert base.isa_init is not None
    return base.isa_init(qdev)


@traced
def isa_qdev_register(info: ISADeviceInfo) -> None:
    """Register a kind of device for the ISA bus."""
    info.init = isa_qdev_init
    info.bus_info = isa_bus_info
    qdev_register(info)


@traced
def isa_create(name: str) -> DeviceState:
    """Make a device, which `qdev_init` brings to life."""
    return qdev_create(_bus(), name)


@traced
def isa_create_simple(name: str) -> DeviceState:
    """Make a device without properties and bring it to life."""
    dev = isa_create(name)
    qdev_init_nofail(dev)
    return dev


def _isabus_bridge_init(dev: DeviceState) -> int:
    return 0


isabus_bridge_info = SysBusDeviceInfo(
    name="isabus-bridge", size=DeviceState, no_user=1, sysbus_init=_isabus_bridge_init
)


@traced
def isabus_register_devices() -> None:
    """Register the bridge of machines without PCI."""
    sysbus_register_withprop(isabus_bridge_info)


device_init(isabus_register_devices)
