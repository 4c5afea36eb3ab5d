"""Disks of the built-in BIOS: int 13h, by the IDE controller's ports.

A request programs the bus master as firmware of 2010 does and then waits for the interrupt, while the
processor is halted and the main loop turns:

    outl(PRD table), outb(direction), outb(clear status), registers, command, outb(start)
    -> bmdma_cmd_writeb -> ide_read_dma_cb -> ... -> bdrv_aio_readv
    HLT, main_loop_wait -> posix_aio_read -> ... -> ide_read_dma_cb -> IRQ 14 or 15

Functions that may have to wait are generators: a `yield` is one HLT. An odd buffer address, which a bus
master cannot use, is served by the data port. Error codes are those of the PC's BIOS (AH of int 13h).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from hypervisor.block import bdrv_is_inserted
from hypervisor.exec import ram
from hypervisor.hw.fdc import FDISK_DBL_SIDES, FDrive, _transfer, fd_revalidate
from hypervisor.ioport import cpu_inb, cpu_inw, cpu_outb, cpu_outl, cpu_outw

Wait = Generator[None, None, int]
"""A request: a `yield` waits for an interrupt; returns 0 or an error code."""

OK = 0x00
BAD_PARAMETER = 0x01
WRITE_PROTECTED = 0x03
NOT_FOUND = 0x04
READ_FAULT = 0x10
TIMEOUT = 0x80
NOT_READY = 0xAA
WRITE_FAULT = 0xCC

PRD_TABLE = 0xFD000
BMDMA_BASE = 0xC000
CD_DRIVE = 0xE0
_BOUNCE = 0x90000
_BUSY, _DRQ, _ERR = 0x80, 0x08, 0x01
_LBA28 = 1 << 28
_MAX_SECTORS = 256


@dataclass
class Disk:
    """A hard disk or CD-ROM on an IDE channel, with the geometry the BIOS shows.

    Parameters
    ----------
    iobase, bm : int
        First port of the channel and of its bus master.
    unit : int
        0 master, 1 slave.
    """

    number: int
    iobase: int
    bm: int
    unit: int
    sectors_total: int = 0
    cylinders: int = 0
    heads: int = 0
    sectors: int = 0

    def select(self, bits: int = 0) -> None:
        """Choose the drive."""
        cpu_outb(self.iobase + 6, 0xA0 | self.unit << 4 | bits)

    def status(self) -> int:
        """Read the status, which takes the interrupt back."""
        return cpu_inb(self.iobase + 7)


def find_disks() -> tuple[list[Disk], Disk | None]:
    """Ask all four places for their drives: hard disks from 80h on, and the first CD-ROM."""
    disks: list[Disk] = []
    cdrom: Disk | None = None
    for channel, iobase in enumerate((0x1F0, 0x170)):
        for unit in (0, 1):
            disk = Disk(0x80 + len(disks), iobase, BMDMA_BASE + 8 * channel, unit)
            disk.select()
            if disk.status() == 0:
                continue
            words = _identify(disk, 0xEC)
            if words is not None:
                _take_geometry(disk, words)
                disks.append(disk)
            elif cdrom is None and _identify(disk, 0xA1) is not None:
                disk.number = CD_DRIVE
                cdrom = disk
    return disks, cdrom


def _identify(disk: Disk, command: int) -> list[int] | None:
    disk.select()
    cpu_outb(disk.iobase + 7, command)
    if disk.status() & (_ERR | _DRQ) != _DRQ:
        return None
    return [cpu_inw(disk.iobase) for _ in range(256)]


def _take_geometry(disk: Disk, words: list[int]) -> None:
    """Show at most 1024 cylinders: a larger disk gets more heads (LBA-assisted translation)."""
    disk.sectors_total = max(words[60] | words[61] << 16, sum(words[100 + i] << 16 * i for i in range(4)))
    cylinders, disk.heads, disk.sectors = words[1], words[3], words[6]
    if cylinders > 1024:
        disk.sectors = 63
        fitting = (h for h in (16, 32, 64, 128, 255) if disk.sectors_total <= 1024 * h * 63)
        disk.heads = next(fitting, 255)
        cylinders = disk.sectors_total // (disk.heads * disk.sectors)
    disk.cylinders = min(cylinders, 1024)


def transfer(disk: Disk, lba: int, count: int, address: int, is_write: bool) -> Wait:
    """Move sectors between a hard disk and memory."""
    if lba < 0 or lba + count > disk.sectors_total:
        return BAD_PARAMETER
    if address + count * 512 > len(ram()):
        return BAD_PARAMETER
    while count:
        n = min(count, _MAX_SECTORS)
        one = _by_port if address & 1 else _by_dma
        code = yield from one(disk, lba, n, address, is_write)
        if code:
            return code
        lba, count, address = lba + n, count - n, address + n * 512
    return OK


def _command(disk: Disk, lba: int, n: int, command: int, command_ext: int) -> None:
    if lba + n > _LBA28:
        disk.select(0x40)
        registers = ((2, n >> 8), (3, lba >> 24), (4, lba >> 32), (5, lba >> 40))
        for register, value in registers:
            cpu_outb(disk.iobase + register, value & 0xFF)
        command = command_ext
    else:
        disk.select(0x40 | lba >> 24)
    for register, value in ((2, n), (3, lba), (4, lba >> 8), (5, lba >> 16)):
        cpu_outb(disk.iobase + register, value & 0xFF)
    cpu_outb(disk.iobase + 7, command)


def _pieces(address: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut memory where a bus master's piece must end: at each 64 KiB."""
    while size:
        piece = min(size, 0x10000 - (address & 0xFFFF))
        yield address, piece
        address, size = address + piece, size - piece


def _by_dma(disk: Disk, lba: int, n: int, address: int, is_write: bool) -> Wait:
    pieces = list(_pieces(address, n * 512))
    for number, (begin, size) in enumerate(pieces):
        last = 0x80000000 if number == len(pieces) - 1 else 0
        entry = begin.to_bytes(4, "little") + (size & 0xFFFF | last).to_bytes(4, "little")
        ram()[PRD_TABLE + 8 * number : PRD_TABLE + 8 * number + 8] = entry
    cpu_outl(disk.bm + 4, PRD_TABLE)
    direction = 0 if is_write else 0x08
    cpu_outb(disk.bm, direction)
    cpu_outb(disk.bm + 2, cpu_inb(disk.bm + 2) | 0x06)
    _command(disk, lba, n, *((0xCA, 0x35) if is_write else (0xC8, 0x25)))
    cpu_outb(disk.bm, direction | 0x01)
    # The interrupt bit alone may come with a piece still under way.
    while cpu_inb(disk.iobase + 0x206) & _BUSY:
        yield
    cpu_outb(disk.bm, direction)
    if disk.status() & (_BUSY | _DRQ | _ERR):
        return WRITE_FAULT if is_write else READ_FAULT
    return OK


def _by_port(disk: Disk, lba: int, n: int, address: int, is_write: bool) -> Wait:
    fault = WRITE_FAULT if is_write else READ_FAULT
    _command(disk, lba, n, *((0x30, 0x34) if is_write else (0x20, 0x24)))
    memory = ram()
    for at in range(address, address + n * 512, 512):
        status = disk.status()
        while status & (_BUSY | _DRQ | _ERR) == 0 and at != address:
            # A stopped machine tries again when it goes on.
            yield
            status = disk.status()
        if status & (_DRQ | _ERR) != _DRQ:
            return fault
        if is_write:
            for word in range(at, at + 512, 2):
                cpu_outw(disk.iobase, memory[word] | memory[word + 1] << 8)
        else:
            data = b"".join(cpu_inw(disk.iobase).to_bytes(2, "little") for _ in range(256))
            memory[at : at + 512] = data
    return fault if disk.status() & _ERR else OK


def read_cdrom(disk: Disk, block: int, count: int, address: int) -> Wait:
    """Read blocks of 2048 bytes by packet commands and the data port."""
    if address + count * 2048 > len(ram()):
        return BAD_PARAMETER
    for number in range(count):
        packet = b"\x28\x00" + (block + number).to_bytes(4, "big") + b"\x00\x00\x01\x00\x00\x00"
        code = _packet(disk, packet)
        if code:
            # The first command after a change of medium only tells of the change.
            _packet(disk, b"\x03\x00\x00\x00\x12" + bytes(7))
            _drain(disk, None)
            code = _packet(disk, packet)
        if code:
            return code
        _drain(disk, address + number * 2048)
    return OK
    yield


def _packet(disk: Disk, packet: bytes) -> int:
    disk.select()
    for register, value in ((1, 0), (4, 0x00), (5, 0x08)):
        cpu_outb(disk.iobase + register, value)
    cpu_outb(disk.iobase + 7, 0xA0)
    for at in range(0, 12, 2):
        cpu_outw(disk.iobase, packet[at] | packet[at + 1] << 8)
    return NOT_READY if disk.status() & _ERR else OK


def _drain(disk: Disk, address: int | None) -> None:
    data = bytearray()
    while disk.status() & _DRQ and len(data) < 2048:
        data += cpu_inw(disk.iobase).to_bytes(2, "little")
    if address is not None:
        ram()[address : address + len(data)] = data


def floppy_transfer(drive: FDrive, lba: int, count: int, address: int, is_write: bool) -> int:
    """Move sectors between a floppy and memory; 0 or an error code.

    Parameters
    ----------
    lba : int
        Number of the first sector.
    count : int
        Sectors.
    address : int
        Physical address of the memory.

    Returns
    -------
    int
        0, or the code that the BIOS call (int 13h) answers with in AH.
    """
    fd_revalidate(drive)
    if drive.bs is None or not bdrv_is_inserted(drive.bs):
        return TIMEOUT
    if is_write and drive.ro:
        return WRITE_PROTECTED
    if address + count * 512 > len(ram()):
        return BAD_PARAMETER
    buf = memoryview(ram())[address : address + count * 512]
    if _transfer(drive, lba, buf, is_write) < 0:
        return WRITE_FAULT if is_write else NOT_FOUND
    return OK


def floppy_heads(drive: FDrive) -> int:
    """How many sides the disk in a drive has."""
    return 2 if drive.flags & FDISK_DBL_SIDES else 1
