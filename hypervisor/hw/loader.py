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
    """`Rom`: `data` belongs at physical address `addr`, or is the firmware's to place, in `fw_dir`."""

    name: str = ""
    data: bytes = b""
    addr: int = 0
    fw_dir: str = ""


_roms: list[Rom] = []
_carried: dict[str, bytes] = {}
_fw_cfg: FWCfgState | None = None


@on_reset
def _reset() -> None:
    global _fw_cfg
    _roms.clear()
    _carried.clear()
    _fw_cfg = None


def carry(name: str, data: bytes) -> None:
    """Have `rom_add_file` take this instead of a file of that name."""
    _carried[name] = data


def mirror(name: str, data: bytes, addr: int) -> None:
    """Put back at each reset what the real machine only maps a second time."""
    _insert(Rom(name=name, data=data, addr=addr))


def _insert(rom: Rom) -> None:
    _roms.append(rom)
    _roms.sort(key=lambda entry: entry.addr)


@traced
def rom_insert(rom: Rom) -> None:
    """Add a ROM, in the order of addresses."""
    _insert(rom)


@traced
def rom_add_file(file: str, fw_dir: str | None, addr: int) -> int:
    """Add a ROM from a file, at an address or as `fw_dir/file` of the firmware's; 0, or -1 without it."""
    path = qemu_find_file(QEMU_FILE_TYPE_BIOS, file)
    if file in _carried:
        data = _carried[file]
    elif path is not None:
        data = Path(path).read_bytes()
    else:
        return -1
    rom_insert(Rom(name=file, data=data, addr=addr, fw_dir=fw_dir or ""))
    if fw_dir is not None and _fw_cfg is not None:
        fw_cfg_add_file(_fw_cfg, fw_dir, file, bytearray(data), len(data))
    return 0


@traced
def rom_add_vga(file: str) -> int:
    """Add a screen's BIOS."""
    return rom_add_file(file, "vgaroms", 0)


@traced
def rom_reset(unused: None) -> None:
    """Put all ROMs into memory."""
    for rom in _roms:
        if not rom.fw_dir:
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
