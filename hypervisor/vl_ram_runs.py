"""Runs of pages in the stream, where no trace wants a call for each page: `hypervisor.vl_ram`'s shortcuts.

Most of a machine's memory is zeros that nobody wrote. The kernel knows which pages these are
(`hypervisor.accel.touched`), and what stands in the stream for a run of them follows from its beginning. The
bytes are those of page by page.

- `zeros_from(number, limit)`, `records_of_zeros(number, count)`; `records_of_pages(number, limit)`.
- `load_runs(f, written, whole)`, `clear(number, count, written)`.

`written` has a 1 for each page that may hold anything but zeros.
"""

from __future__ import annotations

import ctypes
import struct
from functools import cache

from hypervisor.exec import TARGET_PAGE_SIZE, ram
from hypervisor.savevm_file import QEMUFile, _buffer

RAM_SAVE_FLAG_COMPRESS = 0x02
RAM_SAVE_FLAG_MEM_SIZE = 0x04
RAM_SAVE_FLAG_PAGE = 0x08
RAM_SAVE_FLAG_EOS = 0x10
COMPRESSED = struct.Struct(">QB")
ALIKE = [bytes([byte]) * TARGET_PAGE_SIZE for byte in range(256)]
PAGE_RECORD = 8 + TARGET_PAGE_SIZE
PERIOD = 4096
"""Pages whose addresses differ in the lower three bytes only."""
FLAGS = TARGET_PAGE_SIZE - 1
_MOST = 64
_ZEROS = bytes(_MOST * TARGET_PAGE_SIZE)
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)


def next_flag(flags: bytearray, flag: int, number: int, limit: int) -> int:
    """Where the next such flag is before the limit; the limit if there is none."""
    found = flags.find(flag, number, limit)
    return found if found >= 0 else min(limit, len(flags))


def zeros_from(number: int, limit: int) -> int:
    """How many pages are zeros: compared in place, twice as many each time, then half as many."""
    start = ctypes.addressof(ctypes.c_char.from_buffer(ram())) + number * TARGET_PAGE_SIZE
    done, step, grows = 0, 1, True
    while step and done < limit:
        step = min(step, limit - done)
        if _memcmp(start + done * TARGET_PAGE_SIZE, _ZEROS, step * TARGET_PAGE_SIZE):
            grows, step = False, step // 2
        else:
            done += step
            step = min(2 * step, _MOST) if grows else step // 2
    return done


@cache
def _first_records() -> bytearray:
    """What stands in the stream for the first 16 MiB, if they are zeros."""
    records = bytearray(PERIOD * COMPRESSED.size)
    records[7 :: COMPRESSED.size] = bytes([RAM_SAVE_FLAG_COMPRESS]) * PERIOD
    records[6 :: COMPRESSED.size] = bytes(range(0, 256, 16)) * 256
    records[5 :: COMPRESSED.size] = b"".join(bytes([byte]) * 16 for byte in range(256))
    return records


def records_of_zeros(number: int, count: int) -> bytearray:
    """What stands in the stream for pages of zeros, which all lie in the same 16 MiB."""
    begin, size = number % PERIOD, COMPRESSED.size
    records = _first_records()[begin * size : (begin + count) * size]
    for column, byte in enumerate((number // PERIOD).to_bytes(5, "big")):
        if byte:
            records[column::size] = bytes([byte]) * count
    return records


def records_of_pages(number: int, limit: int) -> tuple[int, bytes]:
    """How many pages from one on hold more than one byte over and over; what stands for them."""
    memory, records = ram(), list[bytes]()
    for addr in range(number * TARGET_PAGE_SIZE, limit * TARGET_PAGE_SIZE, TARGET_PAGE_SIZE):
        page = memory[addr : addr + TARGET_PAGE_SIZE]
        if page == ALIKE[page[0]]:
            break
        records += (addr | RAM_SAVE_FLAG_PAGE).to_bytes(8, "big"), page
    return len(records) // 2, b"".join(records)


def clear(number: int, count: int, written: bytearray) -> None:
    """Have pages hold zeros; one that nobody wrote is left alone, and takes no memory of the host."""
    limit = number + count
    while (number := next_flag(written, 1, number, limit)) < limit:
        zeros = zeros_from(number, next_flag(written, 0, number, limit) - number)
        if not zeros:
            addr = number * TARGET_PAGE_SIZE
            ram()[addr : addr + TARGET_PAGE_SIZE] = ALIKE[0]
        number += zeros or 1


def load_runs(f: QEMUFile, written: bytearray, whole: bool) -> None:
    """Read the pages that come next, as far as they are in the buffer: those of zeros, and `whole` ones."""
    buf, memory = _buffer(f), ram()
    while f._index + COMPRESSED.size <= f._size:
        addr, byte = COMPRESSED.unpack_from(buf, f._index)
        number, flags = addr // TARGET_PAGE_SIZE, addr & FLAGS
        if number >= len(written):
            return
        if flags == RAM_SAVE_FLAG_COMPRESS and not byte:
            f._index += _load_zeros(buf, f._index, f._size, number, written)
        elif flags == RAM_SAVE_FLAG_PAGE and whole and f._index + PAGE_RECORD <= f._size:
            written[number] = 1
            at, begin = addr - flags, f._index + 8
            memory[at : at + TARGET_PAGE_SIZE] = buf[begin : begin + TARGET_PAGE_SIZE]
            f._index += PAGE_RECORD
        else:
            return


def _load_zeros(buf: bytearray, index: int, end: int, number: int, written: bytearray) -> int:
    """Read a run of pages of zeros; how many bytes stood for it."""
    room = min(PERIOD - number % PERIOD, len(written) - number)
    here = bytes(buf[index : min(index + room * COMPRESSED.size, end)])
    count = _alike(here, records_of_zeros(number, len(here) // COMPRESSED.size)) // COMPRESSED.size
    clear(number, count, written)
    return count * COMPRESSED.size


def _alike(found: bytes, expected: bytearray) -> int:
    """How many bytes are alike from the beginning on."""
    low, high = 0, min(len(found), len(expected))
    if found[:high] == expected[:high]:
        return high
    while low + 1 < high:
        middle = (low + high) // 2
        if found[low:middle] == expected[low:middle]:
            low = middle
        else:
            high = middle
    return low
