"""Reading a saved machine without one: what is in a stream, section by section.

Works for streams of the model and of qemu-kvm 0.12.4, whose sections have the same names, versions and
fields.

- `read_stream(file) -> list[Section]`: raises HypervisorError, with the place, at what cannot be read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from hypervisor.block_int import BDRV_SECTOR_BITS, BDRV_SECTOR_SIZE
from hypervisor.block_migration import (
    BLK_MIG_FLAG_DEVICE_BLOCK,
    BLK_MIG_FLAG_EOS,
    BLK_MIG_FLAG_PROGRESS,
    BLOCK_SIZE,
)
from hypervisor.errors import HypervisorError
from hypervisor.exec import TARGET_PAGE_SIZE
from hypervisor.savevm import (
    QEMU_VM_EOF,
    QEMU_VM_FILE_MAGIC,
    QEMU_VM_FILE_VERSION,
    QEMU_VM_SECTION_FULL,
    QEMU_VM_SECTION_START,
)
from hypervisor.savevm_file import (
    QEMUFile,
    _get,
    qemu_ftell,
    qemu_get_be32,
    qemu_get_be64,
    qemu_get_byte,
    reading,
)
from hypervisor.vl_ram_runs import (
    RAM_SAVE_FLAG_COMPRESS,
    RAM_SAVE_FLAG_EOS,
    RAM_SAVE_FLAG_MEM_SIZE,
    RAM_SAVE_FLAG_PAGE,
)
from hypervisor.vmstate import VMStateDescription, parse

KINDS = {1: "start", 2: "part", 3: "end", 4: "full"}


@dataclass
class Section:
    """One section, or one part of a live one.

    Parameters
    ----------
    kind : str
        "start", "part", "end" or "full".
    offset, size : int
        Where in the stream it begins, and how many bytes it has, its head included.
    pages : dict
        Of memory: "memory" bytes, "whole" and "one byte" pages; of disks: "chunks".
    fields : list of (str, object)
        Of a device.
    """

    kind: str
    section_id: int
    idstr: str
    instance_id: int
    version_id: int
    offset: int
    size: int = 0
    pages: dict[str, int] = field(default_factory=dict)
    fields: list[tuple[str, Any]] = field(default_factory=list)


def descriptions() -> dict[str, VMStateDescription]:
    """The descriptions of all sections that are written at once, by name."""
    from hypervisor.vmstate import absent, acpi, bios, cpu, ide, pc, pci

    modules = (absent, acpi, bios, cpu, ide, pc, pci)
    found = {
        value.name: value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, VMStateDescription)
    }
    # Those that have the name of a structure within them.
    return found | {"pckbd": pc.vmstate_kbd_isa, "cirrus_vga": absent.vmstate_pci_cirrus_vga}


def _read_memory(f: QEMUFile) -> dict[str, int]:
    found = {"memory": 0, "whole": 0, "one byte": 0}
    flags = 0
    while not flags & RAM_SAVE_FLAG_EOS and not f.has_error:
        address = qemu_get_be64(f)
        flags = address & (TARGET_PAGE_SIZE - 1)
        if flags & RAM_SAVE_FLAG_MEM_SIZE:
            found["memory"] = address - flags
        if flags & RAM_SAVE_FLAG_COMPRESS:
            qemu_get_byte(f)
            found["one byte"] += 1
        elif flags & RAM_SAVE_FLAG_PAGE:
            _get(f, TARGET_PAGE_SIZE)
            found["whole"] += 1
    return {name: number for name, number in found.items() if number}


def _read_disks(f: QEMUFile) -> dict[str, int]:
    found = {"chunks": 0, "percent": 0}
    flags = 0
    while not flags & BLK_MIG_FLAG_EOS and not f.has_error:
        address = qemu_get_be64(f)
        flags = address & (BDRV_SECTOR_SIZE - 1)
        if flags & BLK_MIG_FLAG_DEVICE_BLOCK:
            _get(f, qemu_get_byte(f))
            _get(f, BLOCK_SIZE)
            found["chunks"] += 1
        elif flags & BLK_MIG_FLAG_PROGRESS:
            found["percent"] = address >> BDRV_SECTOR_BITS
    return {name: number for name, number in found.items() if number}


def _read_tpr(f: QEMUFile) -> list[tuple[str, Any]]:
    """Section "kvm-tpr-opt" of qemu-kvm: the patched ROM's 31 words and five numbers."""
    return [("words", list(struct.unpack(">36I", _get(f, 144))))]


_LIVE = {"ram": _read_memory, "block": _read_disks}


def _sections(f: QEMUFile) -> Iterator[Section]:
    known, heads = descriptions(), dict[int, Section]()
    while True:
        offset = qemu_ftell(f)
        kind = qemu_get_byte(f)
        if kind == QEMU_VM_EOF or f.has_error:
            break
        if kind not in KINDS:
            raise HypervisorError(f"byte {offset:,} of the stream is {kind}, which begins no section")
        number = qemu_get_be32(f)
        if kind in (QEMU_VM_SECTION_START, QEMU_VM_SECTION_FULL):
            name = _get(f, qemu_get_byte(f)).decode("utf-8", "backslashreplace")
            instance_id, version_id = qemu_get_be32(f), qemu_get_be32(f)
            heads[number] = Section(KINDS[kind], number, name, instance_id, version_id, offset)
        elif number not in heads:
            raise HypervisorError(
                f"byte {offset:,} of the stream goes on with section {number}, which never began"
            )
        head = heads[number]
        section = Section(KINDS[kind], number, head.idstr, head.instance_id, head.version_id, offset)
        if head.idstr in _LIVE:
            section.pages = _LIVE[head.idstr](f)
        elif head.idstr == "kvm-tpr-opt":
            section.fields = _read_tpr(f)
        elif head.idstr in known:
            section.fields = parse(f, known[head.idstr], head.version_id)
        elif not f.has_error:
            raise HypervisorError(
                f"byte {offset:,} of the stream begins section '{head.idstr}', which the model does not"
                " know: how long it is stands nowhere, so what follows cannot be read"
            )
        section.size = qemu_ftell(f) - offset
        if not f.has_error:
            yield section


def read_stream(file: IO[bytes]) -> Iterator[Section]:
    """Yield the sections of a stream in their order.

    Raises
    ------
    HypervisorError
        No saved machine, one of another version, a section nobody knows, or an early end.
    """
    f = reading(file)
    if qemu_get_be32(f) != QEMU_VM_FILE_MAGIC:
        raise HypervisorError(
            'no saved machine: it does not begin with QEVM, as what `migrate "exec:cat > FILE"` writes does'
        )
    version = qemu_get_be32(f)
    if version != QEMU_VM_FILE_VERSION:
        raise HypervisorError(
            f"a stream of version {version}; the model reads version {QEMU_VM_FILE_VERSION}"
        )
    yield from _sections(f)
    if f.has_error:
        raise HypervisorError(f"the stream ends after {qemu_ftell(f):,} bytes, before its end mark")
