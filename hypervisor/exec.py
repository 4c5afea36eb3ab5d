"""The guest's memory as devices see it: the part of exec.c that DMA uses.

- `qemu_ram_alloc(size)`: the machine's memory, one piece, which the accelerator executes from directly.
- `cpu_physical_memory_rw(addr, buf, is_write)`, `cpu_physical_memory_read/write`.
- `cpu_physical_memory_map(addr, plen, is_write)`: a view into memory, nothing is copied.
"""

from __future__ import annotations

import mmap

from hypervisor.program import on_exit, on_reset
from tracer import traced

C_FILE = "exec.c"

_ram: mmap.mmap | None = None


@on_reset
@on_exit
def _forget() -> None:
    # Views and the accelerator's mapping may outlive the run, so the pages go when the last of them does.
    global _ram
    _ram = None


def ram() -> mmap.mmap:
    """All memory of the machine, from physical address 0."""
    assert _ram is not None
    return _ram


def _size() -> int:
    return len(ram())


@traced
def qemu_ram_alloc(size: int) -> int:
    """Give the machine `size` bytes of zeroed memory; its offset."""
    global _ram
    _ram = mmap.mmap(-1, size)
    return 0


@traced
def cpu_physical_memory_rw(addr: int, buf: bytearray | memoryview, len: int, is_write: int) -> None:
    """Copy between memory and `buf`; addresses outside read zeros and swallow writes."""
    memory = ram()
    view = memoryview(buf)
    count = max(0, min(len, _size() - addr))
    if is_write:
        memory[addr : addr + count] = view[:count].tobytes()
    else:
        view[:count] = memory[addr : addr + count]
        view[count:len] = bytes(len - count)


def cpu_physical_memory_read(addr: int, len: int) -> bytes:
    """`len` bytes of memory at `addr` (an inline function of cpu-common.h)."""
    buf = bytearray(len)
    cpu_physical_memory_rw(addr, buf, len, 0)
    return bytes(buf)


def cpu_physical_memory_write(addr: int, buf: bytes | bytearray | memoryview, len: int) -> None:
    """Store `len` bytes of `buf` at `addr` (an inline function of cpu-common.h)."""
    cpu_physical_memory_rw(addr, memoryview(buf)[:len], len, 1)


@traced
def cpu_physical_memory_map(addr: int, plen: int, is_write: int) -> tuple[memoryview | None, int]:
    """View `plen` bytes of memory at `addr`.

    Returns
    -------
    memoryview or None, int
        None where there is no memory; how many bytes are in one piece.
    """
    memory = ram()
    if addr >= _size():
        return None, 0
    plen = min(plen, _size() - addr)
    return memoryview(memory)[addr : addr + plen], plen


@traced
def cpu_physical_memory_unmap(buffer: memoryview, len: int, is_write: int, access_len: int) -> None:
    """Give a view back; it was memory itself, so nothing has to be stored."""
