"""What drives say of themselves: the IDENTIFY parts of hw/ide/core.c.

The answer is 256 little-endian words (ATA/ATAPI-6, IDENTIFY DEVICE and IDENTIFY PACKET DEVICE); texts are
padded with blanks and their bytes swapped in each word.
"""

from __future__ import annotations

from hypervisor.block import bdrv_enable_write_cache
from hypervisor.hw.ide.internal import MAX_MULT_SECTORS, IDEState
from tracer import traced

C_FILE = "hw/ide/core.c"


@traced
def padstr(str: bytearray, offset: int, src: str, len: int) -> None:
    """Store a text padded with blanks, its bytes swapped in each word; `offset` counts words."""
    text = src.encode("ascii", "replace")[:len].ljust(len)
    for i, byte in enumerate(text):
        str[2 * offset + (i ^ 1)] = byte


@traced
def put_le16(p: bytearray, offset: int, v: int) -> None:
    """Store the low 16 bits of `v` as word `offset`; C passes the address."""
    p[2 * offset : 2 * offset + 2] = (v & 0xFFFF).to_bytes(2, "little")


def _put(p: bytearray, words: dict[int, int]) -> None:
    for offset, value in words.items():
        put_le16(p, offset, value)


def _put_texts(p: bytearray, s: IDEState, model: str) -> None:
    padstr(p, 10, s.drive_serial_str, 20)
    _put(p, {20: 3, 21: 512, 22: 4})
    padstr(p, 23, s.version, 8)
    padstr(p, 27, model, 40)


@traced
def ide_identify(s: IDEState) -> None:
    """Fill the buffer with a hard disk's description, made once."""
    if not s.identify_set:
        p = bytearray(512)
        oldsize = s.cylinders * s.heads * s.sectors
        _put(p, {0: 0x0040, 1: s.cylinders, 3: s.heads, 4: 512 * s.sectors, 5: 512, 6: s.sectors})
        _put_texts(p, s, "QEMU HARDDISK")
        _put(
            p,
            {
                47: 0x8000 | MAX_MULT_SECTORS,
                48: 1,
                49: 1 << 11 | 1 << 9 | 1 << 8,
                51: 0x200,
                52: 0x200,
                53: 7,
            },
        )
        _put(p, {54: s.cylinders, 55: s.heads, 56: s.sectors, 57: oldsize, 58: oldsize >> 16})
        if s.mult_sectors:
            put_le16(p, 59, 0x100 | s.mult_sectors)
        _put(p, {60: s.nb_sectors, 61: s.nb_sectors >> 16, 62: 0x07, 63: 0x07})
        _put(p, {65: 120, 66: 120, 67: 120, 68: 120, 80: 0xF0, 81: 0x16})
        _put(p, {82: 1 << 14 | 1, 83: 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10, 84: 1 << 14})
        put_le16(p, 85, 1 << 14 | (1 << 5 if bdrv_enable_write_cache(s.drive) else 0) | 1)
        _put(p, {86: 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10, 87: 1 << 14, 88: 0x3F | 1 << 13})
        put_le16(p, 93, 1 | 1 << 14 | 0x2000)
        _put(p, {100 + i: s.nb_sectors >> 16 * i for i in range(4)})
        s.identify_data = p
        s.identify_set = 1
    s.io_buffer[:512] = s.identify_data


@traced
def ide_atapi_identify(s: IDEState) -> None:
    """Fill the buffer with a CD-ROM drive's description, made once."""
    if not s.identify_set:
        p = bytearray(512)
        put_le16(p, 0, 2 << 14 | 5 << 8 | 1 << 7 | 2 << 5)
        _put_texts(p, s, "QEMU DVD-ROM")
        _put(p, {48: 1, 49: 1 << 9 | 1 << 8, 53: 7, 62: 7, 63: 7, 64: 0x3F, 65: 0xB4, 66: 0xB4})
        _put(p, {67: 0x12C, 68: 0xB4, 71: 30, 72: 30, 80: 0x1E, 88: 0x3F | 1 << 13})
        s.identify_data = p
        s.identify_set = 1
    s.io_buffer[:512] = s.identify_data
