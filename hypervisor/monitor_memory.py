"""Commands on memory, ports and numbers: x, xp, p, i, o, sum, memsave, pmemsave; a part of monitor.c.

- `memory_dump(mon, count, format, wsize, addr, is_physical)`: what x and xp print.
- `monitor_printc(mon, c)`: a character as C writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypervisor.exec import cpu_physical_memory_rw
from hypervisor.ioport import IOPORTS_MASK, cpu_inb, cpu_inl, cpu_inw, cpu_outb, cpu_outl, cpu_outw
from hypervisor.monitor import Arguments, Monitor, mon_get_cpu, monitor_printf
from hypervisor.monitor_cpu import cpu_memory_rw_debug
from tracer import traced

C_FILE = "monitor.c"

DUMP_LIMIT: Final = 1 << 16
SUM_LIMIT: Final = 1 << 24
_PIECE: Final = 1 << 16
_MASK = (1 << 64) - 1
_ESCAPES = {"'": "\\'", "\\": "\\\\", "\n": "\\n", "\r": "\\r"}


def _octal(value: int) -> str:
    return f"0{value:o}" if value else "0"


def _signed(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


@traced
def monitor_printc(mon: Monitor, c: int) -> None:
    """Print a character as C writes it."""
    letter = chr(c) if 32 <= c <= 126 or c in (10, 13) else ""
    text = _ESCAPES.get(letter, letter) or f"\\x{c & 0xFFFFFFFF:02x}"
    monitor_printf(mon, "'%s'", text)


_FORMATS: dict[str, Callable[[int, int], str]] = {
    "o": lambda v, wsize: f"{_octal(v):>{(wsize * 8 + 2) // 3}}",
    "x": lambda v, wsize: f"0x{v:0{wsize * 2}x}",
    "u": lambda v, wsize: f"{v:{(wsize * 80 + 32) // 33}d}",
    "d": lambda v, wsize: f"{_signed(v):{(wsize * 80 + 32) // 33}d}",
}


def _disassemble(mon: Monitor, count: int, wsize: int, addr: int, is_physical: int) -> None:
    """Print instructions, of 16 or 32 bits if the format says so, else as the processor would read them."""
    from hypervisor import disas

    env = mon_get_cpu()
    if count > DUMP_LIMIT // disas.LONGEST:
        most = DUMP_LIMIT // disas.LONGEST
        monitor_printf(mon, "the model reads at most %d instructions at a time\n", most)
    elif env is not None:
        asked = {2: disas.BITS_16, 4: disas.BITS_32}.get(wsize)
        flags = disas.code_flags(env) if asked is None else asked
        disas.monitor_disas(mon, env, addr & _MASK, count, is_physical, flags)


@traced
def memory_dump(mon: Monitor, count: int, format: int, wsize: int, addr: int, is_physical: int) -> None:
    """Print `count` units of `wsize` bytes; `format` is one of the letters of a format."""
    if format == ord("i"):
        _disassemble(mon, count, wsize, addr, is_physical)
        return
    length = wsize * count
    if length > DUMP_LIMIT:
        monitor_printf(mon, "the model dumps at most %d bytes at a time\n", DUMP_LIMIT)
        return
    line_size = 8 if wsize == 1 else 16
    wsize = 1 if format == ord("c") else wsize
    while length > 0:
        addr &= _MASK
        monitor_printf(mon, "%016x:", addr)
        size = min(length, line_size)
        buf = bytearray(size)
        if is_physical:
            cpu_physical_memory_rw(addr, buf, size, 0)
        else:
            env = mon_get_cpu()
            if env is None:
                return
            if cpu_memory_rw_debug(env, addr, memoryview(buf), size, 0) < 0:
                monitor_printf(mon, " Cannot access memory\n")
                return
        for at in range(0, size, wsize):
            value = int.from_bytes(buf[at : at + wsize], "little")
            monitor_printf(mon, " ")
            if format == ord("c"):
                monitor_printc(mon, value)
            else:
                monitor_printf(mon, "%s", _FORMATS[chr(format)](value, wsize))
        monitor_printf(mon, "\n")
        addr += size
        length -= size


@traced
def do_memory_dump(mon: Monitor, qdict: Arguments) -> None:
    """Obey `x`."""
    memory_dump(mon, qdict["count"], qdict["format"], qdict["size"], qdict["addr"], 0)


@traced
def do_physical_memory_dump(mon: Monitor, qdict: Arguments) -> None:
    """Obey `xp`."""
    memory_dump(mon, qdict["count"], qdict["format"], qdict["size"], qdict["addr"], 1)


@traced
def do_print(mon: Monitor, qdict: Arguments) -> None:
    """Obey `print`."""
    format, val = chr(qdict["format"]), qdict["val"] & _MASK
    if format == "c":
        monitor_printc(mon, _signed(val << 32) >> 32)
    elif format == "o":
        monitor_printf(mon, "%s", _octal(val))
    elif format == "x":
        monitor_printf(mon, "%s", f"{val:#x}" if val else "0")
    else:
        monitor_printf(mon, "%d", val if format == "u" else _signed(val))
    monitor_printf(mon, "\n")


def _room(count: int) -> memoryview:
    return memoryview(bytearray(min(count, _PIECE)))


@traced
def do_memory_save(mon: Monitor, qdict: Arguments) -> None:
    """Obey `memsave`: memory by virtual address; where no page is, what came before is repeated."""
    env = mon_get_cpu()
    if env is None:
        return
    addr = qdict["val"]
    _save(mon, qdict, lambda at, buf: cpu_memory_rw_debug(env, addr + at, buf, len(buf), 0))


@traced
def do_physical_memory_save(mon: Monitor, qdict: Arguments) -> None:
    """Obey `pmemsave`."""
    addr = qdict["val"]
    _save(mon, qdict, lambda at, buf: cpu_physical_memory_rw(addr + at & _MASK, buf, len(buf), 0))


def _save(mon: Monitor, qdict: Arguments, read: Callable[[int, memoryview], object]) -> None:
    size = qdict["size"] & 0xFFFFFFFF
    try:
        with open(qdict["filename"], "wb") as f:
            buf = _room(size)
            for at in range(0, size, _PIECE):
                piece = buf[: size - at]
                read(at, piece)
                f.write(piece)
    except (OSError, ValueError):
        monitor_printf(mon, "could not open '%s'\n", qdict["filename"])


@traced
def do_sum(mon: Monitor, qdict: Arguments) -> None:
    """Obey `sum`: the checksum of BSD's program of that name, of physical memory."""
    start, size = qdict["start"] & 0xFFFFFFFF, qdict["size"] & 0xFFFFFFFF
    if size > SUM_LIMIT:
        monitor_printf(mon, "the model sums at most %d bytes at a time\n", SUM_LIMIT)
        return
    total, buf = 0, bytearray(size)
    cpu_physical_memory_rw(start, buf, size, 0)
    for byte in buf:
        total = ((total >> 1 | total << 15) + byte) & 0xFFFF
    monitor_printf(mon, "%05d\n", total)


@traced
def do_ioport_read(mon: Monitor, qdict: Arguments) -> None:
    """Obey `i`: read a port; with an index, write that to the port and read the next."""
    addr, size = qdict["addr"], qdict["size"]
    if "index" in qdict:
        cpu_outb(addr & IOPORTS_MASK, qdict["index"] & 0xFF)
        addr += 1
    addr &= IOPORTS_MASK
    suffix, read = {2: ("w", cpu_inw), 4: ("l", cpu_inl)}.get(size, ("b", cpu_inb))
    val, width = read(addr), max(2 * size, 0)
    text = f"{val:#0{width}x}" if val else "0" * max(width, 1)
    monitor_printf(mon, "port%s[0x%04x] = %s\n", suffix, addr, text)


@traced
def do_ioport_write(mon: Monitor, qdict: Arguments) -> None:
    """Obey `o`: write a port."""
    size = qdict["size"]
    write = {2: cpu_outw, 4: cpu_outl}.get(size, cpu_outb)
    width = {2: 16, 4: 32}.get(size, 8)
    write(qdict["addr"] & IOPORTS_MASK, qdict["val"] & (1 << width) - 1)
