"""The guest's physical memory as devices see it: the part of exec.c about it.

    physical 0          640K   768K      1M        ram_size          4G - size of the ROM      4G
             [ RAM      | VGA's | ROMs    | RAM      )   nothing     [ the firmware's ROM       )

- `qemu_ram_alloc(size)`: a piece of memory; the first is the machine's RAM, later ones are ROMs.
- `cpu_register_physical_memory(start, size, offset)`: where a piece appears.
- `cpu_register_io_memory(read, write, opaque)`: a device's functions, to be registered like a piece.
- `cpu_physical_memory_rw(addr, buf, is_write)`, `cpu_physical_memory_read/write`.
- `cpu_physical_memory_map(addr, plen, is_write)`: a view into memory, nothing is copied.

The first megabyte is RAM throughout: ROMs are copied there at reset, and the guest may write to them.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import mmap
from collections.abc import Callable
from typing import Any

from hypervisor.errors import HypervisorError
from hypervisor.program import on_exit, on_reset
from hypervisor.vl_state import state
from tracer import Struct, traced

C_FILE = "exec.c"

TARGET_PAGE_SIZE = 4096
IO_MEM_ROM = 1 << 3
IO_MEM_UNASSIGNED = 2 << 3
_IO_MEM_FIRST = 1 << 40
_LOW = 1 << 20

CPUReadMemoryFunc = Callable[[Any, int], int]
CPUWriteMemoryFunc = Callable[[Any, int, int], None]


class RAMBlock(Struct):
    """`RAMBlock`: a piece of memory and its offset in the space of all pieces."""

    host: Any = None
    offset: int = 0
    length: int = 0


_blocks: list[RAMBlock] = []
_roms: list[tuple[int, mmap.mmap]] = []
_io_mem: list[tuple[list[CPUReadMemoryFunc], list[CPUWriteMemoryFunc], Any]] = []
_ram: mmap.mmap | None = None


@on_reset
@on_exit
def _forget() -> None:
    # Views and the accelerator's mapping may outlive the run, so the pages go when the last of them does.
    global _ram
    _ram = None
    _blocks.clear()
    _roms.clear()
    _io_mem.clear()


def ram() -> mmap.mmap:
    """All RAM of the machine, from physical address 0."""
    assert _ram is not None
    return _ram


def _size() -> int:
    return len(ram())


@traced
def qemu_ram_alloc(size: int) -> int:
    """Make a piece of zeroed memory; its offset."""
    global _ram
    offset = _blocks[-1].offset + _blocks[-1].length if _blocks else 0
    size = -(-size // TARGET_PAGE_SIZE) * TARGET_PAGE_SIZE
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):
        # Whoever reads all of it, as a migration does, takes hundreds of page faults fewer.
        memory.madvise(mmap.MADV_HUGEPAGE)
    if _ram is None:
        _ram = memory
    _blocks.append(RAMBlock(host=memory, offset=offset, length=size))
    return offset


@traced
def qemu_get_ram_ptr(addr: int) -> memoryview:
    """View a piece of memory from its offset on.

    Raises
    ------
    HypervisorError
        When no memory is there; 0.12.4 aborts.
    """
    for block in _blocks:
        if 0 <= addr - block.offset < block.length:
            return memoryview(block.host)[addr - block.offset :]
    raise HypervisorError(f"Bad ram offset {addr:x}")


@traced
def cpu_register_io_memory(
    mem_read: list[CPUReadMemoryFunc], mem_write: list[CPUWriteMemoryFunc], opaque: Any
) -> int:
    """Note a device's functions for 1, 2 and 4 bytes; a number that stands for them."""
    _io_mem.append((mem_read, mem_write, opaque))
    return _IO_MEM_FIRST + len(_io_mem) - 1


@traced
def cpu_register_physical_memory_offset(
    start_addr: int, size: int, phys_offset: int, region_offset: int
) -> None:
    """Have memory or a device appear at a physical address; RAM itself always begins at 0.

    Parameters
    ----------
    start_addr : int
        Physical address, in bytes.
    size : int
        In bytes.
    phys_offset : int
        Offset in memory, or a number from `cpu_register_io_memory`.
    region_offset : int
        Added to the address that a device is told.
    """
    assert state.first_cpu is not None
    accel = state.first_cpu.accel
    if phys_offset >= _IO_MEM_FIRST:
        mem_read, mem_write, opaque = _io_mem[phys_offset - _IO_MEM_FIRST]

        def read(address: int, width: int) -> int:
            return mem_read[width.bit_length() - 1](opaque, address - start_addr + region_offset)

        def write(address: int, width: int, value: int) -> None:
            mem_write[width.bit_length() - 1](opaque, address - start_addr + region_offset, value)

        accel.map_mmio(start_addr, size, read, write)
    elif phys_offset & IO_MEM_ROM and start_addr >= _LOW:
        memory = next(b.host for b in _blocks if b.offset == phys_offset & ~(TARGET_PAGE_SIZE - 1))
        _roms.append((start_addr, memory))
        accel.map_memory(start_addr, memory, False)
    elif start_addr == phys_offset == 0:
        accel.map_ram()


@traced(file="cpu-common.h")
def cpu_register_physical_memory(start_addr: int, size: int, phys_offset: int) -> None:
    """`cpu_register_physical_memory_offset` from a device's or a piece's beginning."""
    cpu_register_physical_memory_offset(start_addr, size, phys_offset, 0)


def _rom_at(addr: int) -> tuple[int, mmap.mmap] | None:
    return next(((start, rom) for start, rom in _roms if start <= addr < start + len(rom)), None)


@traced
def cpu_physical_memory_rw(addr: int, buf: bytearray | memoryview, len: int, is_write: int) -> None:
    """Copy between memory and `buf`; addresses outside read zeros and swallow writes."""
    view = memoryview(buf)
    if is_write:
        _store(addr, view, len)
        return
    count = max(0, min(len, _size() - addr))
    view[:count] = ram()[addr : addr + count]
    view[count:len] = bytes(len - count)
    rom = _rom_at(addr)
    if rom is not None:
        piece = rom[1][addr - rom[0] : addr - rom[0] + len]
        view[: builtins.len(piece)] = piece


def _store(addr: int, buf: bytes | memoryview, len: int) -> None:
    count = max(0, min(len, _size() - addr))
    ram()[addr : addr + count] = bytes(buf[:count])
    _written(addr, count)


def _written(addr: int, size: int) -> None:
    if size and state.first_cpu is not None:
        state.first_cpu.accel.memory_written(addr, size)


@traced
def cpu_physical_memory_write_rom(addr: int, buf: bytes, len: int) -> None:
    """Write to memory, ROMs included."""
    rom = _rom_at(addr)
    if rom is None:
        _store(addr, buf, len)
    else:
        at = addr - rom[0]
        rom[1][at : at + len] = buf[:len]
        _written(addr, len)


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
    """Give a view back; it was memory itself, so only the processor must hear what was written."""
    if is_write and access_len:
        _written(_address(buffer) - _address(memoryview(ram())), access_len)


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
