"""What the emulator tells the firmware: hw/fw_cfg.c.

The firmware writes a number to port 510h and reads that entry byte by byte from port 511h. Entry 19h lists
files, which have numbers from 20h on:

    count, then for each file: size, number, 2 bytes reserved, name in 56 bytes     (big endian)

- `fw_cfg_init(ctl_port, data_port, ctl_addr, data_addr)`: with QEMU's signature, memory sizes and the like.
- `fw_cfg_add_i16`, `_i32`, `_i64`, `_bytes`, `fw_cfg_add_file(s, dir, filename, data, len)`.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import field
from typing import Any

from hypervisor.ioport import register_ioport_read, register_ioport_write
from hypervisor.savevm import vmstate_register
from hypervisor.trace_io import traced_io
from hypervisor.vl_loop import qemu_register_reset
from hypervisor.vl_state import DT_NOGRAPHIC, state
from hypervisor.vmstate.pc import vmstate_fw_cfg
from tracer import Struct, traced

C_FILE = "hw/fw_cfg.c"

FW_CFG_SIGNATURE, FW_CFG_ID, FW_CFG_UUID, FW_CFG_RAM_SIZE, FW_CFG_NOGRAPHIC, FW_CFG_NB_CPUS = range(6)
FW_CFG_NUMA, FW_CFG_BOOT_MENU, FW_CFG_MAX_CPUS = 0x0D, 0x0E, 0x0F
FW_CFG_FILE_DIR, FW_CFG_FILE_FIRST, FW_CFG_FILE_SLOTS = 0x19, 0x20, 0x10
FW_CFG_MAX_ENTRY = FW_CFG_FILE_FIRST + FW_CFG_FILE_SLOTS
FW_CFG_WRITE_CHANNEL, FW_CFG_ARCH_LOCAL = 0x4000, 0x8000
FW_CFG_ENTRY_MASK = ~(FW_CFG_WRITE_CHANNEL | FW_CFG_ARCH_LOCAL) & 0xFFFF
FW_CFG_INVALID = 0xFFFF
FW_CFG_ACPI_TABLES, FW_CFG_SMBIOS_ENTRIES, FW_CFG_IRQ0_OVERRIDE = 0x8000, 0x8001, 0x8002
_FILE = struct.Struct(">IHxx56s")


class FWCfgEntry(Struct):
    """`FWCfgEntry`: what one number stands for."""

    len: int = 0
    data: bytearray | None = None
    callback_opaque: Any = None
    callback: Callable[[Any, bytearray], None] | None = None


class FWCfgState(Struct):
    """`FWCfgState`: all entries, and which byte of which is read next."""

    entries: list[list[FWCfgEntry]] = field(
        default_factory=lambda: [[FWCfgEntry() for _ in range(FW_CFG_MAX_ENTRY)] for _ in range(2)]
    )
    files: bytearray | None = None
    cur_entry: int = 0
    cur_offset: int = 0


def _entry(s: FWCfgState, key: int) -> FWCfgEntry:
    entries, number = s.entries[int(bool(key & FW_CFG_ARCH_LOCAL))], key & FW_CFG_ENTRY_MASK
    # A machine that was loaded may have any number.
    return entries[number] if number < len(entries) else FWCfgEntry()


@traced_io
def fw_cfg_write(s: FWCfgState, value: int) -> None:
    """Write the next byte of a writable entry."""
    if s.cur_entry == FW_CFG_INVALID:
        return
    e = _entry(s, s.cur_entry)
    if s.cur_entry & FW_CFG_WRITE_CHANNEL and s.cur_offset < e.len and e.callback and e.data is not None:
        e.data[s.cur_offset] = value
        s.cur_offset += 1
        if s.cur_offset == e.len:
            e.callback(e.callback_opaque, e.data)
            s.cur_offset = 0


@traced_io
def fw_cfg_select(s: FWCfgState, key: int) -> int:
    """Choose an entry; 0 when there is none of that number."""
    s.cur_offset = 0
    known = key & FW_CFG_ENTRY_MASK < FW_CFG_MAX_ENTRY
    s.cur_entry = key if known else FW_CFG_INVALID
    return int(known)


@traced_io
def fw_cfg_read(s: FWCfgState) -> int:
    """Read the next byte of the entry; zeros beyond its end."""
    if s.cur_entry == FW_CFG_INVALID:
        return 0
    e = _entry(s, s.cur_entry)
    if e.data is None or s.cur_offset >= e.len:
        return 0
    s.cur_offset += 1
    return e.data[s.cur_offset - 1]


@traced_io
def fw_cfg_io_readb(opaque: FWCfgState, addr: int) -> int:
    """Read the data port."""
    return fw_cfg_read(opaque)


@traced_io
def fw_cfg_io_writeb(opaque: FWCfgState, addr: int, value: int) -> None:
    """Write the data port."""
    fw_cfg_write(opaque, value)


@traced_io
def fw_cfg_io_writew(opaque: FWCfgState, addr: int, value: int) -> None:
    """Write the port that chooses."""
    fw_cfg_select(opaque, value)


@traced
def fw_cfg_reset(opaque: FWCfgState) -> None:
    """Choose the signature."""
    fw_cfg_select(opaque, 0)


@traced
def fw_cfg_add_bytes(s: FWCfgState, key: int, data: bytearray | None, len: int) -> int:
    """Set an entry; 1, or 0 when there is no such number."""
    return _set(s, key, data, len)


def _set(s: FWCfgState, key: int, data: bytearray | None, len: int) -> int:
    if key & FW_CFG_ENTRY_MASK >= FW_CFG_MAX_ENTRY:
        return 0
    entry = _entry(s, key)
    entry.data, entry.len = data, len
    return 1


@traced
def fw_cfg_add_i16(s: FWCfgState, key: int, value: int) -> int:
    """Set an entry of 16 bits."""
    return fw_cfg_add_bytes(s, key, bytearray(value.to_bytes(2, "little")), 2)


@traced
def fw_cfg_add_i32(s: FWCfgState, key: int, value: int) -> int:
    """Set an entry of 32 bits."""
    return fw_cfg_add_bytes(s, key, bytearray(value.to_bytes(4, "little")), 4)


@traced
def fw_cfg_add_i64(s: FWCfgState, key: int, value: int) -> int:
    """Set an entry of 64 bits."""
    return fw_cfg_add_bytes(s, key, bytearray(value.to_bytes(8, "little")), 8)


@traced
def fw_cfg_add_file(s: FWCfgState, dir: str, filename: str, data: bytearray, len: int) -> int:
    """Add a file, called `dir` and the last part of `filename`; 1, or 0 when the list is full."""
    return _add_file(s, f"{dir}/{filename.rsplit('/', 1)[-1]}", data, len, fw_cfg_add_bytes)


def tell_more(s: FWCfgState, name: str, data: bytearray) -> None:
    """Add a file of which 0.12.4 did not tell the firmware yet: none of its functions is called."""
    _add_file(s, name, data, len(data), _set)


def _add_file(s: FWCfgState, name: str, data: bytearray, len: int, put: Callable[..., int]) -> int:
    if s.files is None:
        size = 4 + FW_CFG_FILE_SLOTS * _FILE.size
        s.files = bytearray(size)
        put(s, FW_CFG_FILE_DIR, s.files, size)
    index = int.from_bytes(s.files[:4], "big")
    if index == FW_CFG_FILE_SLOTS:
        print("fw_cfg: out of file slots", file=sys.stderr)
        return 0
    put(s, FW_CFG_FILE_FIRST + index, data, len)
    _FILE.pack_into(s.files, 4 + index * _FILE.size, len, FW_CFG_FILE_FIRST + index, name.encode()[:55])
    s.files[:4] = (index + 1).to_bytes(4, "big")
    return 1


@traced
def fw_cfg_init(ctl_port: int, data_port: int, ctl_addr: int, data_addr: int) -> FWCfgState:
    """Make the device at its ports; the addresses, for machines without ports, are 0."""
    s = FWCfgState()
    register_ioport_write(ctl_port, 2, 2, fw_cfg_io_writew, s)
    register_ioport_read(data_port, 1, 1, fw_cfg_io_readb, s)
    register_ioport_write(data_port, 1, 1, fw_cfg_io_writeb, s)
    fw_cfg_add_bytes(s, FW_CFG_SIGNATURE, bytearray(b"QEMU"), 4)
    fw_cfg_add_bytes(s, FW_CFG_UUID, bytearray(16), 16)
    fw_cfg_add_i16(s, FW_CFG_NOGRAPHIC, int(state.display_type == DT_NOGRAPHIC))
    fw_cfg_add_i16(s, FW_CFG_NB_CPUS, 1)
    fw_cfg_add_i16(s, FW_CFG_MAX_CPUS, 1)
    fw_cfg_add_i16(s, FW_CFG_BOOT_MENU, state.boot_menu)
    vmstate_register(-1, vmstate_fw_cfg, s)
    qemu_register_reset(fw_cfg_reset, s)
    return s
