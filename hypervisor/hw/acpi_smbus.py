"""The PIIX4's registers for its SMBus: a part of hw/acpi.c; Intel 82371AB data sheet, chapter 7.

    0 status    2 control, bit 6 starts    3 command    4 address, bit 0 reads    5, 6 data    7 block of 32

What is sent and received goes by `hypervisor.hw.smbus` to the devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypervisor.hw.smbus import (
    smbus_quick_command,
    smbus_read_block,
    smbus_read_byte,
    smbus_read_word,
    smbus_receive_byte,
    smbus_send_byte,
    smbus_write_block,
    smbus_write_byte,
    smbus_write_word,
)
from hypervisor.trace_io import traced_io
from tracer import traced

if TYPE_CHECKING:
    from hypervisor.hw.acpi import PIIX4PMState

C_FILE = "hw/acpi.c"

SMBHSTSTS, SMBHSTCNT, SMBHSTCMD, SMBHSTADD, SMBHSTDAT0, SMBHSTDAT1, SMBBLKDAT = 0, 2, 3, 4, 5, 6, 7
_FIELDS = {SMBHSTCMD: "smb_cmd", SMBHSTADD: "smb_addr", SMBHSTDAT0: "smb_data0", SMBHSTDAT1: "smb_data1"}
_START, _FAILED = 0x40, 0x04
_QUICK, _BYTE, _BYTE_DATA, _WORD_DATA, _BLOCK_DATA = 0, 1, 2, 3, 5


def _read(s: PIIX4PMState, prot: int, addr: int) -> None:
    assert s.smbus is not None
    if prot == _BYTE:
        s.smb_data0 = smbus_receive_byte(s.smbus, addr)
    elif prot == _BYTE_DATA:
        s.smb_data0 = smbus_read_byte(s.smbus, addr, s.smb_cmd)
    elif prot == _WORD_DATA:
        val = smbus_read_word(s.smbus, addr, s.smb_cmd)
        s.smb_data0, s.smb_data1 = val & 0xFF, val >> 8
    else:
        s.smb_data0 = smbus_read_block(s.smbus, addr, s.smb_cmd, s.smb_data)


def _write(s: PIIX4PMState, prot: int, addr: int) -> None:
    assert s.smbus is not None
    if prot == _BYTE:
        smbus_send_byte(s.smbus, addr, s.smb_cmd)
    elif prot == _BYTE_DATA:
        smbus_write_byte(s.smbus, addr, s.smb_cmd, s.smb_data0)
    elif prot == _WORD_DATA:
        smbus_write_word(s.smbus, addr, s.smb_cmd, s.smb_data1 << 8 | s.smb_data0)
    else:
        smbus_write_block(s.smbus, addr, s.smb_cmd, s.smb_data, s.smb_data0)


@traced
def smb_transaction(s: PIIX4PMState) -> None:
    """Talk to a device as the control register says."""
    prot, addr, read = s.smb_ctl >> 2 & 7, s.smb_addr >> 1, s.smb_addr & 1
    if prot == _QUICK:
        assert s.smbus is not None
        smbus_quick_command(s.smbus, addr, read)
    elif prot in (_BYTE, _BYTE_DATA, _WORD_DATA, _BLOCK_DATA):
        (_read if read else _write)(s, prot, addr)
    else:
        s.smb_stat |= _FAILED


def _next(s: PIIX4PMState) -> int:
    index = s.smb_index
    s.smb_index = (index + 1) % len(s.smb_data)
    return index


@traced_io
def smb_ioport_writeb(opaque: PIIX4PMState, addr: int, val: int) -> None:
    """Write a register."""
    addr &= 0x3F
    if addr == SMBHSTSTS:
        opaque.smb_stat = opaque.smb_index = 0
    elif addr == SMBHSTCNT:
        opaque.smb_ctl = val
        if val & _START:
            smb_transaction(opaque)
    elif addr == SMBBLKDAT:
        opaque.smb_data[_next(opaque)] = val
    elif addr in _FIELDS:
        setattr(opaque, _FIELDS[addr], val)


@traced_io
def smb_ioport_readb(opaque: PIIX4PMState, addr: int) -> int:
    """Read a register."""
    addr &= 0x3F
    if addr == SMBHSTSTS:
        return opaque.smb_stat
    if addr == SMBHSTCNT:
        opaque.smb_index = 0
        return opaque.smb_ctl & 0x1F
    if addr == SMBBLKDAT:
        return opaque.smb_data[_next(opaque)]
    return int(getattr(opaque, _FIELDS[addr])) if addr in _FIELDS else 0
