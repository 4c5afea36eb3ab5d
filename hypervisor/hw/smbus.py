"""The SMBus's protocol on the I2C bus, for hosts and for devices: hw/smbus.c; SMBus specification.

A transfer is a command byte and data. A device gathers what is sent, and acts when the direction turns or
the transfer ends:

    host: start(write) command [data ...] stop           -> write_data, or send_byte of the command alone
    host: start(write) command start(read) ... nack stop -> read_data, byte by byte

- `smbus_register_device(info)`: a kind of device.
- `smbus_read_byte(bus, addr, command)` and its kin: what a host does; with nobody at `addr`, 255s are read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import field
from typing import Any

from hypervisor.hw.i2c import (
    I2C_FINISH,
    I2C_NACK,
    I2C_START_RECV,
    I2C_START_SEND,
    I2CBus,
    I2CSlave,
    I2CSlaveInfo,
    i2c_end_transfer,
    i2c_nack,
    i2c_recv,
    i2c_register_slave,
    i2c_send,
    i2c_start_transfer,
)
from tracer import traced

C_FILE = "hw/smbus.c"

SMBUS_IDLE, SMBUS_WRITE_DATA, SMBUS_RECV_BYTE, SMBUS_READ_DATA, SMBUS_DONE = range(5)
SMBUS_CONFUSED = -1
_BLOCK = 32


class SMBusDevice(I2CSlave):
    """`SMBusDevice`: `mode` is where in a transfer it is, an SMBUS_*."""

    mode: int = SMBUS_IDLE
    data_len: int = 0
    data_buf: bytearray = field(default_factory=lambda: bytearray(2 + _BLOCK))
    command: int = 0


class SMBusDeviceInfo(I2CSlaveInfo):
    """`SMBusDeviceInfo`: what the device does with a command; `read_data` gets the number of the byte."""

    smbus_init: Callable[[Any], int] | None = None
    quick_cmd: Callable[[Any, int], None] | None = None
    send_byte: Callable[[Any, int], None] | None = None
    receive_byte: Callable[[Any], int] | None = None
    write_data: Callable[[Any, int, bytes, int], None] | None = None
    read_data: Callable[[Any, int, int], int] | None = None


def _kind(dev: SMBusDevice) -> SMBusDeviceInfo:
    assert isinstance(dev.info, SMBusDeviceInfo)
    return dev.info


def _confuse(dev: SMBusDevice, why: str) -> None:
    print(f"smbus: error: {why}", file=sys.stderr)
    dev.mode = SMBUS_CONFUSED


@traced
def smbus_do_quick_cmd(dev: SMBusDevice, recv: int) -> None:
    """Obey a command that consists of its direction."""
    quick_cmd = _kind(dev).quick_cmd
    if quick_cmd is not None:
        quick_cmd(dev, recv)


@traced
def smbus_do_write(dev: SMBusDevice) -> None:
    """Obey what was gathered."""
    kind = _kind(dev)
    if dev.data_len == 0:
        smbus_do_quick_cmd(dev, 0)
    elif dev.data_len == 1:
        if kind.send_byte is not None:
            kind.send_byte(dev, dev.data_buf[0])
    else:
        dev.command = dev.data_buf[0]
        if kind.write_data is not None:
            kind.write_data(dev, dev.command, bytes(dev.data_buf[1 : dev.data_len]), dev.data_len - 1)


def _turn(dev: SMBusDevice) -> None:
    """Go from writing to reading."""
    if dev.data_len == 0:
        _confuse(dev, "Read after write with no data")
        return
    if dev.data_len > 1:
        smbus_do_write(dev)
    else:
        dev.command = dev.data_buf[0]
    dev.data_len = 0
    dev.mode = SMBUS_READ_DATA


def _finish(dev: SMBusDevice) -> None:
    if dev.mode == SMBUS_WRITE_DATA:
        smbus_do_write(dev)
    elif dev.mode == SMBUS_RECV_BYTE:
        smbus_do_quick_cmd(dev, 1)
    elif dev.mode == SMBUS_READ_DATA:
        _confuse(dev, "Unexpected stop during receive")
    dev.mode = SMBUS_IDLE
    dev.data_len = 0


@traced
def smbus_i2c_event(s: SMBusDevice, event: int) -> None:
    """Follow a transfer."""
    if event == I2C_FINISH:
        _finish(s)
    elif event == I2C_START_SEND and s.mode == SMBUS_IDLE:
        s.mode = SMBUS_WRITE_DATA
    elif event == I2C_START_RECV and s.mode == SMBUS_IDLE:
        s.mode = SMBUS_RECV_BYTE
    elif event == I2C_START_RECV and s.mode == SMBUS_WRITE_DATA:
        _turn(s)
    elif event == I2C_NACK and s.mode in (SMBUS_READ_DATA, SMBUS_DONE):
        s.mode = SMBUS_DONE
    else:
        what = {I2C_START_SEND: "send start condition", I2C_START_RECV: "recv start condition"}
        _confuse(s, f"Unexpected {what.get(event, 'NACK')} in state {s.mode}")


@traced
def smbus_i2c_recv(s: SMBusDevice) -> int:
    """Give a byte."""
    kind, ret = _kind(s), 0
    if s.mode == SMBUS_RECV_BYTE:
        ret = kind.receive_byte(s) if kind.receive_byte is not None else 0
        s.mode = SMBUS_DONE
    elif s.mode == SMBUS_READ_DATA:
        if kind.read_data is not None:
            ret = kind.read_data(s, s.command, s.data_len)
            s.data_len += 1
    else:
        _confuse(s, f"Unexpected read in state {s.mode}")
    return ret


@traced
def smbus_i2c_send(s: SMBusDevice, data: int) -> int:
    """Gather a byte."""
    if s.mode != SMBUS_WRITE_DATA:
        print(f"smbus: error: Unexpected write in state {s.mode}", file=sys.stderr)
    elif s.data_len < len(s.data_buf):
        s.data_buf[s.data_len] = data
        s.data_len += 1
    return 0


@traced
def smbus_device_init(i2c: SMBusDevice) -> int:
    """Call the kind's own init function."""
    smbus_init = _kind(i2c).smbus_init
    assert smbus_init is not None
    return smbus_init(i2c)


@traced
def smbus_register_device(info: SMBusDeviceInfo) -> None:
    """Register a kind of device."""
    info.i2c_init = smbus_device_init
    info.event = smbus_i2c_event
    info.recv = smbus_i2c_recv
    info.send = smbus_i2c_send
    i2c_register_slave(info)


def _write(bus: I2CBus, addr: int, *data: int) -> None:
    i2c_start_transfer(bus, addr, 0)
    for byte in data:
        i2c_send(bus, byte)


def _read_end(bus: I2CBus) -> None:
    i2c_nack(bus)
    i2c_end_transfer(bus)


@traced
def smbus_quick_command(bus: I2CBus, addr: int, read: int) -> None:
    """Send a direction only."""
    i2c_start_transfer(bus, addr, read)
    i2c_end_transfer(bus)


@traced
def smbus_receive_byte(bus: I2CBus, addr: int) -> int:
    """Receive a byte without a command."""
    i2c_start_transfer(bus, addr, 1)
    data = i2c_recv(bus) & 0xFF
    _read_end(bus)
    return data


@traced
def smbus_send_byte(bus: I2CBus, addr: int, data: int) -> None:
    """Send a byte without a command."""
    _write(bus, addr, data)
    i2c_end_transfer(bus)


@traced
def smbus_read_byte(bus: I2CBus, addr: int, command: int) -> int:
    """Read a byte."""
    _write(bus, addr, command)
    i2c_start_transfer(bus, addr, 1)
    data = i2c_recv(bus) & 0xFF
    _read_end(bus)
    return data


@traced
def smbus_write_byte(bus: I2CBus, addr: int, command: int, data: int) -> None:
    """Write a byte."""
    _write(bus, addr, command, data)
    i2c_end_transfer(bus)


@traced
def smbus_read_word(bus: I2CBus, addr: int, command: int) -> int:
    """Read 16 bits, the low byte first."""
    _write(bus, addr, command)
    i2c_start_transfer(bus, addr, 1)
    low, high = i2c_recv(bus), i2c_recv(bus)
    _read_end(bus)
    return (low | high << 8) & 0xFFFF


@traced
def smbus_write_word(bus: I2CBus, addr: int, command: int, data: int) -> None:
    """Write 16 bits, the low byte first."""
    _write(bus, addr, command, data & 0xFF, data >> 8)
    i2c_end_transfer(bus)


@traced
def smbus_read_block(bus: I2CBus, addr: int, command: int, data: bytearray) -> int:
    """Read as many bytes as the first one says into `data`; how many, 0 for more than 32."""
    _write(bus, addr, command)
    i2c_start_transfer(bus, addr, 1)
    count = i2c_recv(bus)
    count = 0 if count > _BLOCK else count
    for at in range(count):
        data[at] = i2c_recv(bus) & 0xFF
    _read_end(bus)
    return count & 0xFF


@traced
def smbus_write_block(bus: I2CBus, addr: int, command: int, data: bytearray, len: int) -> None:
    """Write the number of bytes, 32 at most, and the bytes."""
    _write(bus, addr, command, min(len, _BLOCK), *data[: min(len, _BLOCK)])
    i2c_end_transfer(bus)
