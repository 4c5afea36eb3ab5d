"""Which pages of memory were ever written: the kernel knows it, as it has no page frame for any other.

Most of a machine's memory is such, and need not be read to know that it holds zeros: reading 512 MB takes a
tenth of a second, asking the kernel some microseconds.

- `touched(memory)`: a byte for each page.

Since Linux 6.7 its ioctl PAGEMAP_SCAN lists them; before that, /proc/self/pagemap has 64 bits for each.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct

from hypervisor.accel import PAGE_SIZE

_PAGEMAP_SCAN = 0xC0606610
_IS_PRESENT, _IS_SWAPPED, _IS_ZERO_FRAME = 1 << 3, 1 << 4, 1 << 5
_PM_SCAN_ARG = struct.Struct("<12Q")
_PAGE_REGION = struct.Struct("<3Q")
_REGIONS = 512
_PRESENT_OR_SWAPPED = bytes(int(byte & 0xC0 != 0) for byte in range(256))


def touched(memory: mmap.mmap) -> bytearray:
    """Ask for each page of private memory whether it may hold anything but zeros.

    Returns
    -------
    bytearray
        A 1 for each such page, 0 for the others; all 1 where the kernel does not tell.
    """
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    try:
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return bytearray(b"\1") * -(-len(memory) // PAGE_SIZE)
    try:
        return _scan(fd, address, len(memory))
    except OSError:
        return _read(fd, address, len(memory))
    finally:
        os.close(fd)


def _scan(fd: int, address: int, size: int) -> bytearray:
    found = bytearray(-(-size // PAGE_SIZE))
    regions = (ctypes.c_char * (_REGIONS * _PAGE_REGION.size))()
    start, end = address, address + len(found) * PAGE_SIZE
    while start < end:
        arg = bytearray(
            _PM_SCAN_ARG.pack(
                *(_PM_SCAN_ARG.size, 0, start, end, 0),
                *(ctypes.addressof(regions), _REGIONS, 0),
                *(_IS_ZERO_FRAME, _IS_ZERO_FRAME, _IS_PRESENT | _IS_SWAPPED, 0),
            )
        )
        count = fcntl.ioctl(fd, _PAGEMAP_SCAN, arg)
        for begin, stop, _ in _PAGE_REGION.iter_unpack(regions.raw[: count * _PAGE_REGION.size]):
            first, last = (begin - address) // PAGE_SIZE, (stop - address) // PAGE_SIZE
            found[first:last] = b"\1" * (last - first)
        start = _PM_SCAN_ARG.unpack(arg)[4]
    return found


def _read(fd: int, address: int, size: int) -> bytearray:
    pages = -(-size // PAGE_SIZE)
    entries = os.pread(fd, pages * 8, address // PAGE_SIZE * 8)
    # A page whose entry the kernel does not give counts as written.
    return bytearray(entries[7::8].translate(_PRESENT_OR_SWAPPED).ljust(pages, b"\1"))
