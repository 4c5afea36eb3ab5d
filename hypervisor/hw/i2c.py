"""The I2C bus, on which the SMBus's protocol runs: hw/i2c.c.

- `i2c_init_bus(parent, name)`; `i2c_register_slave(info)`: a kind of device for it.
- `i2c_start_transfer(bus, address, recv)`, then `i2c_send`, `i2c_recv`, `i2c_nack`, `i2c_end_transfer`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypervisor.hw.qdev import BusInfo, BusState, DeviceInfo, DeviceState, qbus_create, qdev_register
from hypervisor.hw.qdev_properties import Property
from hypervisor.savevm import vmstate_register
from hypervisor.vmstate.acpi import vmstate_i2c_bus
from tracer import traced

C_FILE = "hw/i2c.c"

I2C_START_RECV, I2C_START_SEND, I2C_FINISH, I2C_NACK = range(4)


class I2CSlave(DeviceState):
    """`i2c_slave`: a device that answers to an address of 7 bits."""

    address: int = 0

    @property
    def kind(self) -> I2CSlaveInfo:
        """What the device can do."""
        assert isinstance(self.info, I2CSlaveInfo)
        return self.info


class I2CBus(BusState):
    """`i2c_bus`: `current_dev` is the device that is spoken to."""

    current_dev: I2CSlave | None = None
    saved_address: int = 0


class I2CSlaveInfo(DeviceInfo):
    """`I2CSlaveInfo`: `event` is told of an I2C_*."""

    i2c_init: Callable[[Any], int] | None = None
    event: Callable[[Any, int], None] | None = None
    recv: Callable[[Any], int] | None = None
    send: Callable[[Any, int], int] | None = None


i2c_bus_info = BusInfo(
    name="I2C", size=I2CBus, props=[Property(name="address", type="uint8", field="address", defval=0)]
)


@traced
def i2c_init_bus(parent: DeviceState | None, name: str) -> I2CBus:
    """Make a bus."""
    bus = qbus_create(i2c_bus_info, parent, name)
    assert isinstance(bus, I2CBus)
    vmstate_register(-1, vmstate_i2c_bus, bus)
    return bus


def _tell(dev: I2CSlave, event: int) -> None:
    assert dev.kind.event is not None
    dev.kind.event(dev, event)


@traced
def i2c_start_transfer(bus: I2CBus, address: int, recv: int) -> int:
    """Speak to the device of an address; 0, or 1 if nobody answers."""
    for dev in bus.children:
        if isinstance(dev, I2CSlave) and dev.address == address:
            bus.current_dev = dev
            _tell(dev, I2C_START_RECV if recv else I2C_START_SEND)
            return 0
    return 1


@traced
def i2c_end_transfer(bus: I2CBus) -> None:
    """Speak to nobody any more."""
    if bus.current_dev is not None:
        _tell(bus.current_dev, I2C_FINISH)
        bus.current_dev = None


@traced
def i2c_send(bus: I2CBus, data: int) -> int:
    """Send a byte; 0, or -1 if nobody listens."""
    dev = bus.current_dev
    return -1 if dev is None or dev.kind.send is None else dev.kind.send(dev, data)


@traced
def i2c_recv(bus: I2CBus) -> int:
    """Receive a byte; -1 if nobody speaks."""
    dev = bus.current_dev
    return -1 if dev is None or dev.kind.recv is None else dev.kind.recv(dev)


@traced
def i2c_nack(bus: I2CBus) -> None:
    """Tell the device that no more is wanted."""
    if bus.current_dev is not None:
        _tell(bus.current_dev, I2C_NACK)


@traced
def i2c_slave_qdev_init(dev: I2CSlave, base: I2CSlaveInfo) -> int:
    """Call the kind's own init function."""
    assert base.i2c_init is not None
    return base.i2c_init(dev)


@traced
def i2c_register_slave(info: I2CSlaveInfo) -> None:
    """Register a kind of device for the bus."""
    info.init = i2c_slave_qdev_init
    info.bus_info = i2c_bus_info
    qdev_register(info)
