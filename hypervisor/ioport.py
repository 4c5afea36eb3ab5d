"""I/O ports: who answers which address and width; ioport.c.

Three tables, for bytes, words and double words; an address without an entry falls to the default of its
width: bytes read 0xff, words are made of two bytes, double words read all ones.

- `register_ioport_read(start, length, size, func, opaque)`, `register_ioport_write`, `isa_unassign_ioport`.
- `register_block_read(port, func)`: ours, for REP INS.
- `cpu_inb(addr)` ... `cpu_outl(addr, val)`: what the processor executes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypervisor.errors import HypervisorError
from hypervisor.program import on_reset
from hypervisor.trace_io import traced_io
from tracer import traced

C_FILE = "ioport.c"

MAX_IOPORTS = 64 * 1024
IOPORTS_MASK = MAX_IOPORTS - 1

IOPortReadFunc = Callable[[Any, int], int]
IOPortWriteFunc = Callable[[Any, int, int], None]

BlockReadFunc = Callable[[Any, int, int], bytes]

_opaque: dict[int, Any] = {}
_block_read: dict[int, BlockReadFunc] = {}
_read_table: tuple[dict[int, IOPortReadFunc], ...] = ({}, {}, {})
_write_table: tuple[dict[int, IOPortWriteFunc], ...] = ({}, {}, {})


@on_reset
def _reset() -> None:
    _opaque.clear()
    _block_read.clear()
    for table in _read_table + _write_table:
        table.clear()


@traced_io
def ioport_read(index: int, address: int) -> int:
    """Read a port; `index` is 0, 1, 2 for 1, 2, 4 bytes."""
    func = _read_table[index].get(address) or _DEFAULT_READ[index]
    return func(_opaque.get(address), address)


@traced_io
def ioport_write(index: int, address: int, data: int) -> None:
    """Write a port; `index` is 0, 1, 2 for 1, 2, 4 bytes."""
    func = _write_table[index].get(address) or _DEFAULT_WRITE[index]
    func(_opaque.get(address), address, data)


@traced_io
def default_ioport_readb(opaque: Any, address: int) -> int:
    """Nobody is there: all ones."""
    return 0xFF


@traced_io
def default_ioport_writeb(opaque: Any, address: int, data: int) -> None:
    """Nobody is there: nothing happens."""


@traced_io
def default_ioport_readw(opaque: Any, address: int) -> int:
    """Two byte reads."""
    low = ioport_read(0, address)
    return low | ioport_read(0, (address + 1) & IOPORTS_MASK) << 8


@traced_io
def default_ioport_writew(opaque: Any, address: int, data: int) -> None:
    """Two byte writes."""
    ioport_write(0, address, data & 0xFF)
    ioport_write(0, (address + 1) & IOPORTS_MASK, data >> 8 & 0xFF)


@traced_io
def default_ioport_readl(opaque: Any, address: int) -> int:
    """Nobody is there: all ones."""
    return 0xFFFFFFFF


@traced_io
def default_ioport_writel(opaque: Any, address: int, data: int) -> None:
    """Nobody is there: nothing happens."""


_DEFAULT_READ = (default_ioport_readb, default_ioport_readw, default_ioport_readl)
_DEFAULT_WRITE = (default_ioport_writeb, default_ioport_writew, default_ioport_writel)


@traced
def ioport_bsize(size: int) -> tuple[int, int]:
    """0 and the table's index for a width of 1, 2 or 4 bytes; -1 for another."""
    return (0, {1: 0, 2: 1, 4: 2}[size]) if size in (1, 2, 4) else (-1, 0)


def _register(
    table: tuple[dict[int, Any], ...], start: int, length: int, size: int, func: Any, opaque: Any
) -> int:
    ret, bsize = ioport_bsize(size)
    if ret:
        raise HypervisorError(f"a port of {size} bytes does not exist: register 1, 2 or 4")
    for address in range(start, start + length, size):
        table[bsize][address] = func
        if _opaque.get(address) not in (None, opaque):
            raise HypervisorError(f"port {address:#x} has another owner already: unassign it first")
        _opaque[address] = opaque
    return 0


@traced
def register_ioport_read(start: int, length: int, size: int, func: IOPortReadFunc, opaque: Any) -> int:
    """Have `func(opaque, address)` answer reads of `size` bytes in [start, start + length)."""
    return _register(_read_table, start, length, size, func, opaque)


@traced
def register_ioport_write(start: int, length: int, size: int, func: IOPortWriteFunc, opaque: Any) -> int:
    """Have `func(opaque, address, data)` take writes of `size` bytes in [start, start + length)."""
    return _register(_write_table, start, length, size, func, opaque)


def register_block_read(port: int, func: BlockReadFunc) -> None:
    """Have `func(opaque, size, count)` answer a REP INS at once, where nobody watches single accesses.

    It returns at most `count` - 1 elements and leaves the last of a transfer, which may do more than be read;
    nothing when it is not worth while.
    """
    _block_read[port] = func


@traced
def isa_unassign_ioport(start: int, length: int) -> None:
    """Take the ports off whoever has them."""
    for address in range(start, start + length):
        for table in _read_table + _write_table:
            table.pop(address, None)
        _opaque.pop(address, None)


@traced_io
def cpu_outb(addr: int, val: int) -> None:
    """OUT of a byte."""
    ioport_write(0, addr, val)


@traced_io
def cpu_outw(addr: int, val: int) -> None:
    """OUT of a word."""
    ioport_write(1, addr, val)


@traced_io
def cpu_outl(addr: int, val: int) -> None:
    """OUT of a double word."""
    ioport_write(2, addr, val)


@traced_io
def cpu_inb(addr: int) -> int:
    """IN of a byte."""
    return ioport_read(0, addr)


@traced_io
def cpu_inw(addr: int) -> int:
    """IN of a word."""
    return ioport_read(1, addr)


@traced_io
def cpu_inl(addr: int) -> int:
    """IN of a double word."""
    return ioport_read(2, addr)
