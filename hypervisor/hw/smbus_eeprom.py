"""A memory of 256 bytes on the SMBus, as memory modules carry to describe themselves: hw/smbus_eeprom.c."""

from __future__ import annotations

from hypervisor.hw.qdev_properties import Property
from hypervisor.hw.smbus import SMBusDevice, SMBusDeviceInfo, smbus_register_device
from hypervisor.module import device_init
from tracer import traced

C_FILE = "hw/smbus_eeprom.c"


class SMBusEEPROMDevice(SMBusDevice):
    """`SMBusEEPROMDevice`: `offset` is the byte that is read next."""

    data: memoryview = memoryview(b"")
    offset: int = 0


@traced
def eeprom_quick_cmd(dev: SMBusEEPROMDevice, read: int) -> None:
    """Nothing to do."""


@traced
def eeprom_send_byte(dev: SMBusEEPROMDevice, val: int) -> None:
    """Say which byte to read next."""
    dev.offset = val


@traced
def eeprom_receive_byte(dev: SMBusEEPROMDevice) -> int:
    """Read a byte and go on to the next."""
    val = dev.data[dev.offset]
    dev.offset = dev.offset + 1 & 0xFF
    return val


@traced
def eeprom_write_data(dev: SMBusEEPROMDevice, cmd: int, buf: bytes, len: int) -> None:
    """Write bytes from `cmd` on, round the end of the memory."""
    for at, byte in enumerate(buf):
        dev.data[cmd + at & 0xFF] = byte


@traced
def eeprom_read_data(dev: SMBusEEPROMDevice, cmd: int, n: int) -> int:
    """Read byte number `n` of those from `cmd` on."""
    if n == 0:
        dev.offset = cmd
    return eeprom_receive_byte(dev)


@traced
def smbus_eeprom_init(dev: SMBusEEPROMDevice) -> int:
    """Begin at the first byte."""
    dev.offset = 0
    return 0


smbus_eeprom_info = SMBusDeviceInfo(
    name="smbus-eeprom",
    size=SMBusEEPROMDevice,
    props=[Property(name="data", type="ptr", field="data")],
    smbus_init=smbus_eeprom_init,
    quick_cmd=eeprom_quick_cmd,
    send_byte=eeprom_send_byte,
    receive_byte=eeprom_receive_byte,
    write_data=eeprom_write_data,
    read_data=eeprom_read_data,
)


@traced
def smbus_eeprom_register_devices() -> None:
    """Register the device."""
    smbus_register_device(smbus_eeprom_info)


device_init(smbus_eeprom_register_devices)
