"""The memory of the machine as a live section of the stream: the part of vl.c that saves and loads it.

    00000000 02000004        bytes of memory | MEM_SIZE        begins stage 1
    00000000 00000008 data   address | PAGE, 4096 bytes
    00000000 00001002 00     address | COMPRESS, one byte      a page that holds this byte only
    00000000 00000010        EOS                               ends each part

Stage 1 sends all pages, stage 2 those that changed since, again and again until what is left would take no
longer than the downtime allowed, and stage 3, with the machine stopped, the rest. Each stage first asks the
accelerator what changed; the loop ends early when the stream's rate limit is reached.

- `ram_save_live(mon, f, stage, opaque)`, `ram_load(f, opaque, version_id)`.
- `ram_bytes_remaining`, `ram_bytes_transferred`, `ram_bytes_total`.
"""

from __future__ import annotations

import ctypes
import errno
import struct
import time

from hypervisor.exec import ram
from hypervisor.program import on_reset
from hypervisor.savevm import complain
from hypervisor.savevm_file import (
    QEMUFile,
    _buffer,
    _put,
    qemu_file_has_error,
    qemu_file_rate_limit,
    qemu_get_be64,
    qemu_get_buffer,
    qemu_get_byte,
    qemu_put_be64,
    qemu_put_buffer,
)
from hypervisor.vl_state import state
from tracer import traced
from tracer.session import current

C_FILE = "vl.c"

TARGET_PAGE_SIZE = 4096
RAM_SAVE_FLAG_COMPRESS = 0x02
RAM_SAVE_FLAG_MEM_SIZE = 0x04
RAM_SAVE_FLAG_PAGE = 0x08
RAM_SAVE_FLAG_EOS = 0x10
_FLAGS = TARGET_PAGE_SIZE - 1
_BLOCK = 256
_COMPRESSED = struct.Struct(">QB")
_COMPRESSED_BLOCK = struct.Struct(">" + "QB" * _BLOCK)
_ALL_DIRTY = b"\1" * _BLOCK
_ZEROS = bytes(_BLOCK * TARGET_PAGE_SIZE)
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
_ALIKE = [bytes([byte]) * TARGET_PAGE_SIZE for byte in range(256)]

_dirty = bytearray()
_current_addr = 0
_bytes_transferred = 0


@on_reset
def _reset() -> None:
    global _dirty, _current_addr, _bytes_transferred
    _dirty = bytearray()
    _current_addr = _bytes_transferred = 0


@traced(file="exec.c")
def cpu_physical_sync_dirty_bitmap(start_addr: int, end_addr: int) -> int:
    """Ask the accelerator which pages changed."""
    env = state.first_cpu
    assert env is not None
    for page in env.accel.dirty_pages():
        if page < len(_dirty):
            _dirty[page] = 1
    return 0


@traced
def is_dup_page(page: bytes, ch: int) -> int:
    """Whether a page holds one byte only."""
    return int(page == _ALIKE[ch])


@traced
def ram_save_block(f: QEMUFile) -> int:
    """Write the next page that changed, from where the last one was on; 0 if there is none."""
    global _current_addr
    number = _dirty.find(1, _current_addr // TARGET_PAGE_SIZE)
    if number < 0:
        number = _dirty.find(1)
    if number < 0:
        return 0
    _dirty[number] = 0
    _current_addr = addr = number * TARGET_PAGE_SIZE
    page = ram()[addr : addr + TARGET_PAGE_SIZE]
    if is_dup_page(page, page[0]):
        _put(f, _COMPRESSED.pack(addr | RAM_SAVE_FLAG_COMPRESS, page[0]))
    else:
        qemu_put_be64(f, addr | RAM_SAVE_FLAG_PAGE)
        qemu_put_buffer(f, page, TARGET_PAGE_SIZE)
    return 1


def _holds_zeros(addr: int) -> bool:
    """Whether a block of memory is all zeros; compared in place."""
    memory = ram()
    if addr + len(_ZEROS) > len(memory):
        return False
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return not _memcmp(start + addr, _ZEROS, len(_ZEROS))


def _records_of_zeros(addr: int) -> bytes:
    """What stands in the stream for a block of pages of zeros."""
    first = addr | RAM_SAVE_FLAG_COMPRESS
    fields = [0] * (2 * _BLOCK)
    fields[::2] = range(first, first + len(_ZEROS), TARGET_PAGE_SIZE)
    return _COMPRESSED_BLOCK.pack(*fields)


def _save_zeros(f: QEMUFile) -> int:
    """Write a whole block of pages of zeros as `ram_save_block` would page by page; how many, 0 if there is
    none.

    Most of a machine's memory is such. Where a trace runs, every page has its call.
    """
    global _current_addr
    number = _dirty.find(1, _current_addr // TARGET_PAGE_SIZE)
    if number < 0 or number % _BLOCK or _dirty[number : number + _BLOCK] != _ALL_DIRTY:
        return 0
    addr = number * TARGET_PAGE_SIZE
    if not _holds_zeros(addr):
        return 0
    _dirty[number : number + _BLOCK] = bytes(_BLOCK)
    _put(f, _records_of_zeros(addr))
    _current_addr = addr + (_BLOCK - 1) * TARGET_PAGE_SIZE
    return _BLOCK


@traced
def ram_save_remaining() -> int:
    """How many pages are to be sent."""
    return _dirty.count(1)


@traced
def ram_bytes_remaining() -> int:
    """Bytes to be sent."""
    return ram_save_remaining() * TARGET_PAGE_SIZE


@traced
def ram_bytes_transferred() -> int:
    """Bytes of pages sent, pages of one byte counted whole."""
    return _bytes_transferred


@traced
def ram_bytes_total() -> int:
    """Bytes of memory."""
    return len(ram())


@traced
def ram_save_live(mon: object, f: QEMUFile, stage: int, opaque: None) -> int:
    """Write a part of the memory.

    Parameters
    ----------
    stage : int
        1 begins, 2 goes on, 3 ends, with the machine stopped; negative gives up.

    Returns
    -------
    int
        1 when stage 2 has so little left that the rest fits into the downtime allowed.
    """
    global _dirty, _bytes_transferred
    from hypervisor.migration import migrate_max_downtime

    if stage < 0:
        _dirty = bytearray()
        return 0
    if stage == 1:
        _dirty = bytearray(len(ram()) // TARGET_PAGE_SIZE)
    cpu_physical_sync_dirty_bitmap(0, 0xFFFFFFFFFFFFFFFF)
    if stage == 1:
        _bytes_transferred = 0
        _dirty = bytearray(b"\1") * len(_dirty)
        qemu_put_be64(f, len(ram()) | RAM_SAVE_FLAG_MEM_SIZE)
    before, begun = _bytes_transferred, time.monotonic_ns()
    untraced = current() is None
    while not qemu_file_rate_limit(f):
        saved = (untraced and _save_zeros(f)) or ram_save_block(f)
        if not saved:
            break
        _bytes_transferred += saved * TARGET_PAGE_SIZE
    # Nothing sent: as good as no speed at all, but not a division by zero.
    speed = (_bytes_transferred - before) / max(time.monotonic_ns() - begun, 1) or 0.000001
    if stage == 3:
        while ram_save_block(f):
            _bytes_transferred += TARGET_PAGE_SIZE
    qemu_put_be64(f, RAM_SAVE_FLAG_EOS)
    expected_time = int(ram_save_remaining() * TARGET_PAGE_SIZE / speed)
    return int(stage == 2 and expected_time <= migrate_max_downtime())


def _load_page(f: QEMUFile, addr: int, flags: int) -> int:
    memory = ram()
    if addr + TARGET_PAGE_SIZE > len(memory):
        complain(f"studykvm: a page at {addr:#x}, where this machine has no memory")
        return -errno.EINVAL
    if flags & RAM_SAVE_FLAG_COMPRESS:
        page = _ALIKE[qemu_get_byte(f)]
        # A page that nobody wrote yet takes no memory of the host as long as it is left alone.
        if memory[addr : addr + TARGET_PAGE_SIZE] != page:
            memory[addr : addr + TARGET_PAGE_SIZE] = page
    else:
        with memoryview(memory) as view:
            qemu_get_buffer(f, view[addr : addr + TARGET_PAGE_SIZE], TARGET_PAGE_SIZE)
    return 0


def _skip_zeros(f: QEMUFile) -> None:
    """Read the pages of zeros that come next, as far as they are in the buffer."""
    memory, buf, index, zeros = ram(), _buffer(f), f._index, _ALIKE[0]
    while index + _COMPRESSED.size <= f._size:
        addr, byte = _COMPRESSED.unpack_from(buf, index)
        addr -= RAM_SAVE_FLAG_COMPRESS
        block = index + _COMPRESSED_BLOCK.size
        if (
            block <= f._size
            and not addr % len(_ZEROS)
            and 0 <= addr < len(memory)
            and buf[index:block] == _records_of_zeros(addr)
            and _holds_zeros(addr)
        ):
            index = block
            continue
        if byte or addr & _FLAGS or not 0 <= addr <= len(memory) - TARGET_PAGE_SIZE:
            break
        if memory[addr : addr + TARGET_PAGE_SIZE] != zeros:
            memory[addr : addr + TARGET_PAGE_SIZE] = zeros
        index += _COMPRESSED.size
    f._index = index


@traced
def ram_load(f: QEMUFile, opaque: None, version_id: int) -> int:
    """Read a part of the memory.

    Errors
    ------
    -EINVAL : another version, or a machine with another size of memory.
    """
    if version_id != 3:
        return -errno.EINVAL
    flags = 0
    while not flags & RAM_SAVE_FLAG_EOS:
        _skip_zeros(f)
        addr = qemu_get_be64(f)
        flags, addr = addr & _FLAGS, addr & ~_FLAGS
        if flags & RAM_SAVE_FLAG_MEM_SIZE and addr != len(ram()):
            _other_size(addr)
            return -errno.EINVAL
        if flags & (RAM_SAVE_FLAG_COMPRESS | RAM_SAVE_FLAG_PAGE):
            ret = _load_page(f, addr, flags)
            if ret < 0:
                return ret
        if qemu_file_has_error(f):
            return -errno.EIO
    return 0


def _other_size(addr: int) -> None:
    complain(
        f"studykvm: the memory to be loaded has {addr:,} bytes, this machine's {len(ram()):,}:"
        " start both machines with the same -m"
    )
