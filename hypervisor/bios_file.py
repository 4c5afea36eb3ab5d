"""A BIOS from a file, `-bios FILE`, instead of the built-in one; ours, but for `qemu_find_file` of vl.c.

- `read_bios(name)`: the ROM's bytes. `seabios` stands for Debian's package of that name.

A ROM fills the last addresses below 4 GiB; its last 128 KiB appear below 1 MiB too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypervisor.errors import HypervisorError
from tracer import traced

C_FILE = "vl.c"

QEMU_FILE_TYPE_BIOS = 0
DATA_DIRS = ("/usr/share/seabios", "/usr/share/qemu")
_SEABIOS = ("bios-256k.bin", "bios.bin")
_UNIT, _MOST = 0x10000, 16 << 20


@traced
def qemu_find_file(type: int, name: str) -> str | None:
    """Find a file that comes with the emulator; a name with a slash is a path."""
    if "/" in name and os.access(name, os.R_OK):
        return name
    folders = (".", *DATA_DIRS)
    return next((path for d in folders if os.access(path := os.path.join(d, name), os.R_OK)), None)


def read_bios(name: str) -> bytes:
    """Read a BIOS.

    Raises
    ------
    HypervisorError
        SeaBIOS is not installed.
    SystemExit
        As QEMU does it: there is no such file, or its size is not whole 64 KiB.
    """
    if name == "seabios":
        found = next((p for n in _SEABIOS if (p := qemu_find_file(QEMU_FILE_TYPE_BIOS, n)) is not None), None)
        if found is None:
            raise HypervisorError("SeaBIOS is not here: apt-get install seabios")
        name = found
    path = qemu_find_file(QEMU_FILE_TYPE_BIOS, name)
    rom = Path(path).read_bytes()[: _MOST + 1] if path is not None and os.path.isfile(path) else b""
    if not rom or len(rom) % _UNIT or len(rom) > _MOST:
        print(f"qemu: could not load PC BIOS '{name}'", file=sys.stderr)
        raise SystemExit(1)
    return rom
