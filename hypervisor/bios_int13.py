"""INT 13h and the boot sector of the built-in BIOS; the disks themselves are in `hypervisor.bios_disk`.

Functions 00h-04h, 08h, 09h, 0Ch, 0Dh, 10h, 11h, 15h with cylinders, heads and sectors; 41h-44h, 47h, 48h with
block numbers (Phoenix Enhanced Disk Drive 3.0); 4Bh of a CD-ROM booted without emulation (El Torito 1.0).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from hypervisor import bios_disk as disk
from hypervisor.bios_call import Call
from hypervisor.block import bdrv_is_inserted
from hypervisor.exec import ram
from hypervisor.hw.fdc import FDrive

if TYPE_CHECKING:
    from hypervisor.bios import Bios

_CATALOG = 0x9F000
_STATUS = 0x474
_ANSWERS = {0x15: 0x03, 0x41: 0x30}
"""What AH holds instead of 0: 15h says it is a fixed disk, 41h that this is EDD 3.0."""


def _find(bios: Bios, number: int) -> disk.Disk | None:
    if bios.cdrom is not None and number == disk.CD_DRIVE:
        return bios.cdrom
    return next((entry for entry in bios.disks if entry.number == number), None)


def _finish(call: Call, code: int) -> None:
    ram()[_STATUS] = code
    call.ah = code
    call.set_carry(code != disk.OK)


def serve(bios: Bios, call: Call) -> Generator[None, None, None] | None:
    """Serve a call; a generator if it may have to wait."""
    if call.dl < 0x80:
        drives = bios.floppies()
        if call.dl >= len(drives) or drives[call.dl].bs is None:
            _finish(call, disk.TIMEOUT if call.ah in (0x02, 0x03, 0x04) else disk.BAD_PARAMETER)
        else:
            _floppy(bios, call, drives[call.dl])
        return None
    found = _find(bios, call.dl)
    if found is None:
        _finish(call, disk.BAD_PARAMETER)
        return None
    if call.ah in (0x02, 0x03, 0x42, 0x43):
        return _transfer(call, found)
    function = call.ah
    code = _inquire(bios, call, found)
    _finish(call, code)
    if code == disk.OK:
        call.ah = _ANSWERS.get(function, disk.OK)
    return None


def _inquire(bios: Bios, call: Call, found: disk.Disk) -> int:
    """Serve what needs no waiting; the error code."""
    match call.ah:
        case 0x00 | 0x09 | 0x0C | 0x0D | 0x10 | 0x11 | 0x44 | 0x47:
            return disk.OK
        case 0x01:
            status = int(ram()[_STATUS])
            call.al = status
            return status
        case 0x04:
            lba = _chs(call, found.heads, found.sectors)
            inside = lba is not None and lba + call.al <= found.sectors_total
            return disk.OK if inside else disk.NOT_FOUND
        case 0x08 if found is not bios.cdrom:
            last = found.cylinders - 1
            call.ch, call.cl = last & 0xFF, found.sectors | last >> 2 & 0xC0
            call.dh, call.dl = found.heads - 1, len(bios.disks)
            call.al = 0
            return disk.OK
        case 0x15:
            call.cx, call.dx = found.sectors_total >> 16, found.sectors_total
            return disk.OK
        case 0x41 if call.bx == 0x55AA:
            call.bx, call.cx = 0xAA55, 0x0001
            return disk.OK
        case 0x48:
            return _parameters(bios, call, found)
        case 0x4B if found is bios.cdrom:
            return _emulation(call)
    return disk.BAD_PARAMETER


def _chs(call: Call, heads: int, sectors: int) -> int | None:
    """Block number of the cylinder, head and sector asked for, or None if there is no such place."""
    cylinder: int = call.ch | (call.cl & 0xC0) << 2
    head, sector = call.dh, call.cl & 0x3F
    if not 1 <= sector <= sectors or head >= heads:
        return None
    return int((cylinder * heads + head) * sectors + sector - 1)


def _packet(call: Call) -> tuple[int, int, int, int]:
    """Address of the disk address packet, and its count, buffer and block number."""
    at = call.r.ds * 16 + (call.r.esi & 0xFFFF)
    raw = ram()[at : at + 16]
    offset, segment = int.from_bytes(raw[4:6], "little"), int.from_bytes(raw[6:8], "little")
    count, lba = int.from_bytes(raw[2:4], "little"), int.from_bytes(raw[8:16], "little")
    return at, count, segment * 16 + offset, lba


def _transfer(call: Call, found: disk.Disk) -> Generator[None, None, None]:
    is_write = bool(call.ah & 1)
    if call.ah in (0x42, 0x43):
        at, count, address, block = _packet(call)
        code = yield from _move(found, block, count, address, is_write)
        if code:
            ram()[at + 2 : at + 4] = b"\0\0"
    else:
        lba, count = _chs(call, found.heads, found.sectors), call.al
        address = call.r.es * 16 + call.bx
        if lba is None or count == 0:
            code = disk.BAD_PARAMETER
        else:
            code = yield from _move(found, lba, count, address, is_write)
        if code:
            call.al = 0
    _finish(call, code)


def _move(found: disk.Disk, lba: int, count: int, address: int, is_write: bool) -> disk.Wait:
    if found.number == disk.CD_DRIVE:
        if is_write:
            return disk.WRITE_PROTECTED
        return (yield from disk.read_cdrom(found, lba, count, address))
    return (yield from disk.transfer(found, lba, count, address, is_write))


def _parameters(bios: Bios, call: Call, found: disk.Disk) -> int:
    """Fill the caller's buffer: flags, geometry, number of blocks, bytes a block."""
    at = call.r.ds * 16 + (call.r.esi & 0xFFFF)
    size = int.from_bytes(ram()[at : at + 2], "little")
    if size < 26:
        return disk.BAD_PARAMETER
    is_cdrom = found is bios.cdrom
    numbers = (0, 0, 0) if is_cdrom else (found.cylinders, found.heads, found.sectors)
    total, block = (0xFFFFFFFFFFFFFFFF, 2048) if is_cdrom else (found.sectors_total, 512)
    fields = [(26, 2), (0x74 if is_cdrom else 0x02, 2), *((n, 4) for n in numbers), (total, 8), (block, 2)]
    ram()[at : at + 26] = b"".join(value.to_bytes(width, "little") for value, width in fields)
    return disk.OK


def _emulation(call: Call) -> int:
    """Tell how the CD-ROM was booted: without emulation."""
    at = call.r.ds * 16 + (call.r.esi & 0xFFFF)
    ram()[at : at + 0x13] = bytes((0x13, 0, disk.CD_DRIVE)) + bytes(16)
    return disk.OK


def _floppy(bios: Bios, call: Call, drive: FDrive) -> None:
    match call.ah:
        case 0x00 | 0x0C | 0x10 | 0x11:
            _finish(call, disk.OK)
        case 0x01:
            call.al = ram()[_STATUS]
            _finish(call, call.al)
        case 0x02 | 0x03 | 0x04:
            lba = _chs(call, disk.floppy_heads(drive), drive.last_sect or 18)
            code = disk.NOT_FOUND
            if lba is not None and call.ah == 0x04:
                code = disk.OK
            elif lba is not None:
                address = call.r.es * 16 + call.bx
                code = disk.floppy_transfer(drive, lba, call.al, address, call.ah == 0x03)
            if code:
                call.al = 0
            _finish(call, code)
        case 0x08:
            last = (drive.max_track or 80) - 1
            call.ch, call.cl = last & 0xFF, (drive.last_sect or 18) | last >> 2 & 0xC0
            call.dh = 1
            call.dl = sum(1 for entry in bios.floppies() if entry.bs is not None)
            call.bx = 4
            _finish(call, disk.OK)
        case 0x15:
            _finish(call, disk.OK)
            call.ah = 0x01
        case _:
            _finish(call, disk.BAD_PARAMETER)


def load_boot_sector(bios: Bios, letter: str) -> Generator[None, None, tuple[int, int] | None]:
    """Load the boot sector of a boot device to 0000:7C00.

    Returns
    -------
    tuple of int or None
        Drive number, -1 for a medium that does not boot, and the segment to start in, 0 for 0000:7C00; None
        without drive or medium.
    """
    if letter == "a":
        drive = bios.floppies()[0]
        if drive.bs is None or not bdrv_is_inserted(drive.bs):
            return None
        code = disk.floppy_transfer(drive, 0, 1, 0x7C00, False)
        return (-1 if code or not _signed() else 0), 0
    if letter == "c":
        if not bios.disks:
            return None
        code = yield from disk.transfer(bios.disks[0], 0, 1, 0x7C00, False)
        return (-1 if code or not _signed() else bios.disks[0].number), 0
    if bios.cdrom is None:
        return None
    code = yield from disk.read_cdrom(bios.cdrom, 17, 1, _CATALOG)
    if code:
        return None
    return (yield from _load_cdrom(bios.cdrom))


def _signed() -> bool:
    return ram()[0x7DFE:0x7E00] == b"\x55\xaa"


def _load_cdrom(cdrom: disk.Disk) -> Generator[None, None, tuple[int, int]]:
    """Load the image that the boot catalog's first entry names."""
    record = ram()[_CATALOG : _CATALOG + 2048]
    if record[:30] != b"\x00CD001\x01EL TORITO SPECIFICATION":
        return -1, 0
    code = yield from disk.read_cdrom(cdrom, int.from_bytes(record[0x47:0x4B], "little"), 1, _CATALOG)
    entry = ram()[_CATALOG + 32 : _CATALOG + 64]
    if code or entry[0] != 0x88 or entry[1] & 0x0F != 0:
        return -1, 0
    segment = int.from_bytes(entry[2:4], "little")
    size = int.from_bytes(entry[6:8], "little") * 512
    block = int.from_bytes(entry[8:12], "little")
    code = yield from disk.read_cdrom(cdrom, block, (size + 2047) // 2048, (segment or 0x7C0) * 16)
    return (-1 if code else disk.CD_DRIVE), segment
