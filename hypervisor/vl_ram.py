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

import errno
import time

from hypervisor.accel.touched import touched
from hypervisor.exec import TARGET_PAGE_SIZE, ram
from hypervisor.program import on_reset
from hypervisor.savevm import complain
from hypervisor.savevm_file import (
    IO_BUF_SIZE,
    QEMUFile,
    _put,
    qemu_file_has_error,
    qemu_file_rate_limit,
    qemu_get_be64,
    qemu_get_buffer,
    qemu_get_byte,
    qemu_put_be64,
    qemu_put_buffer,
)
from hypervisor.vl_ram_runs import (
    ALIKE,
    COMPRESSED,
    FLAGS,
    PAGE_RECORD,
    PERIOD,
    RAM_SAVE_FLAG_COMPRESS,
    RAM_SAVE_FLAG_EOS,
    RAM_SAVE_FLAG_MEM_SIZE,
    RAM_SAVE_FLAG_PAGE,
    clear,
    load_runs,
    next_flag,
    records_of_pages,
    records_of_zeros,
    zeros_from,
)
from hypervisor.vl_state import state
from tracer import traced
from tracer.session import recording

C_FILE = "vl.c"

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
    changed = env.accel.dirty_pages()
    if len(changed) == len(ram()) // TARGET_PAGE_SIZE:
        _dirty[:] = b"\1" * len(_dirty)
        return 0
    for page in changed:
        if page < len(_dirty):
            _dirty[page] = 1
    return 0


@traced
def is_dup_page(page: bytes, ch: int) -> int:
    """Whether a page holds one byte only."""
    return int(page == ALIKE[ch])


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
        _put(f, COMPRESSED.pack(addr | RAM_SAVE_FLAG_COMPRESS, page[0]))
    else:
        qemu_put_be64(f, addr | RAM_SAVE_FLAG_PAGE)
        qemu_put_buffer(f, page, TARGET_PAGE_SIZE)
    return 1


def _save_run(f: QEMUFile, written: bytearray) -> int:
    """Write pages as `ram_save_block` would one after the other; how many, 0 where it must look itself.

    No more than fill the buffer: then the rate limit is asked, as after each single page.

    Parameters
    ----------
    written : bytearray
        The pages that may hold anything but zeros.
    """
    global _current_addr
    number = _dirty.find(1, _current_addr // TARGET_PAGE_SIZE)
    if number < 0:
        return 0
    room = IO_BUF_SIZE - f._index
    limit = number + min(-(-room // COMPRESSED.size), PERIOD - number % PERIOD)
    limit = next_flag(_dirty, 0, number, limit)
    count = (next_flag(written, 1, number, limit) - number) or zeros_from(number, limit - number)
    if count:
        _put(f, records_of_zeros(number, count))
    else:
        count, records = records_of_pages(number, min(limit, number - (-room // PAGE_RECORD)))
        _put(f, records)
    if count:
        _dirty[number : number + count] = bytes(count)
        _current_addr = (number + count - 1) * TARGET_PAGE_SIZE
    return count


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
    written = None if recording() else touched(ram())
    while not qemu_file_rate_limit(f):
        saved = (written is not None and _save_run(f, written)) or ram_save_block(f)
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


def _load_page(f: QEMUFile, addr: int, flags: int, written: bytearray) -> int:
    memory, number = ram(), addr // TARGET_PAGE_SIZE
    if addr + TARGET_PAGE_SIZE > len(memory):
        complain(f"studykvm: a page at {addr:#x}, where this machine has no memory")
        return -errno.EINVAL
    if flags & RAM_SAVE_FLAG_COMPRESS:
        byte = qemu_get_byte(f)
        if byte:
            written[number] = 1
            memory[addr : addr + TARGET_PAGE_SIZE] = ALIKE[byte]
        else:
            clear(number, 1, written)
    else:
        written[number] = 1
        with memoryview(memory) as view:
            qemu_get_buffer(f, view[addr : addr + TARGET_PAGE_SIZE], TARGET_PAGE_SIZE)
    return 0


@traced
def ram_load(f: QEMUFile, opaque: None, version_id: int) -> int:
    """Read a part of the memory.

    Errors
    ------
    -EINVAL : another version, or a machine with another size of memory.
    """
    if version_id != 3:
        return -errno.EINVAL
    flags, written = 0, touched(ram())
    while not flags & RAM_SAVE_FLAG_EOS:
        load_runs(f, written, whole=not recording())
        addr = qemu_get_be64(f)
        flags, addr = addr & FLAGS, addr & ~FLAGS
        if flags & RAM_SAVE_FLAG_MEM_SIZE and addr != len(ram()):
            _other_size(addr)
            return -errno.EINVAL
        if flags & (RAM_SAVE_FLAG_COMPRESS | RAM_SAVE_FLAG_PAGE):
            ret = _load_page(f, addr, flags, written)
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
