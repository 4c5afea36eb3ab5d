"""Contents of ROMs, put back into memory at each reset: hw/loader.c."""

from __future__ import annotations

from pathlib import Path

from hypervisor.bios_file import QEMU_FILE_TYPE_BIOS, qemu_find_file
from hypervisor.exec import cpu_physical_memory_write_rom
from hypervisor.hw.fw_cfg import FWCfgState, fw_cfg_add_file
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
def rom_add_file(file: str, fw_dir: str | None, addr: int) -> int:
    """Have the firmware find a ROM's file as `fw_dir/file`, where such a file is at hand; 0 or -1."""
    path = qemu_find_file(QEMU_FILE_TYPE_BIOS, file)
    if path is None or _fw_cfg is None or fw_dir is None:
        return -1
    data = bytearray(Path(path).read_bytes())
    fw_cfg_add_file(_fw_cfg, fw_dir, file, data, len(data))
    return 0


@traced
def rom_add_vga(file: str) -> int:
    """Add a screen's BIOS."""
    return rom_add_file(file, "vgaroms", 0)


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
