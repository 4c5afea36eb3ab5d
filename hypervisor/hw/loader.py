"""Contents of ROMs, put back into memory at each reset: hw/loader.c."""

from __future__ import annotations

from hypervisor.exec import cpu_physical_memory_write_rom
from hypervisor.hw.fw_cfg import FWCfgState
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
_fw_cfg: FWCfgState | None = None


@on_reset
def _reset() -> None:
    global _fw_cfg
    _roms.clear()
    _fw_cfg = None


@traced
def rom_insert(rom: Rom) -> None:
    """Add a ROM, in the order of addresses."""
    _roms.append(rom)
    _roms.sort(key=lambda entry: entry.addr)


@traced
def rom_reset(unused: None) -> None:
    """Put all ROMs into memory."""
    for rom in _roms:
        cpu_physical_memory_write_rom(rom.addr, rom.data, len(rom.data))


@traced
def rom_set_fw(f: FWCfgState) -> None:
    """Note who tells the firmware of its ROMs."""
    global _fw_cfg
    _fw_cfg = f


@traced
def rom_load_all() -> int:
    """Have the ROMs put into memory at each reset."""
    qemu_register_reset(rom_reset, None)
    return 0
