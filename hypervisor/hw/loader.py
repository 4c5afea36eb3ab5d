"""Contents of ROMs, put back into memory at each reset: hw/loader.c."""

from __future__ import annotations

from hypervisor.exec import ram
from hypervisor.program import on_reset
from hypervisor.vl_loop import qemu_register_reset
from tracer import Struct, traced

C_FILE = "hw/loader.c"


class Rom(Struct):
    """`Rom`: `data` belongs at physical address `addr`."""

    name: str = ""
    data: bytes = b""
    addr: int = 0


_roms: list[Rom] = []


@on_reset
def _reset() -> None:
    _roms.clear()


@traced
def rom_insert(rom: Rom) -> None:
    """Add a ROM, in the order of addresses."""
    _roms.append(rom)
    _roms.sort(key=lambda entry: entry.addr)


@traced
def rom_reset(unused: None) -> None:
    """Put all ROMs into memory."""
    memory = ram()
    for rom in _roms:
        memory[rom.addr : rom.addr + len(rom.data)] = rom.data


@traced
def rom_load_all() -> int:
    """Have the ROMs put into memory at each reset."""
    qemu_register_reset(rom_reset, None)
    return 0
