"""What the built-in BIOS keeps outside the guest's memory: a section of our own, "studykvm-bios".

A service that waits, for a key or for a disk, cannot be saved where it is. Saved is what the guest asked
for; the machine that loads it begins anew, which does no harm: no key was taken yet, and the same sectors
go the same way.
"""

from __future__ import annotations

import dataclasses
import errno
import math
import struct
from typing import TYPE_CHECKING

from hypervisor.accel import Registers
from hypervisor.savevm import SaveStateEntry, _add
from hypervisor.vl_state import state
from hypervisor.vmstate import VMStateDescription
from hypervisor.vmstate.fields import VMSTATE_STRUCT, VMSTATE_UINT8, VMSTATE_UINT32, VMSTATE_UINT64
from tracer import Struct

if TYPE_CHECKING:
    from hypervisor.bios import Bios

_CALLS, _DISKS = 4, 5
_REGISTERS = tuple(each.name for each in dataclasses.fields(Registers))
_DISK = ("iobase", "bm", "unit", "sectors_total", "cylinders", "heads", "sectors")


@dataclasses.dataclass
class _SavedCall:
    """A service that waits."""

    registers: list[int] = dataclasses.field(default_factory=lambda: [0] * len(_REGISTERS))
    vector: int = 0
    returns: int = 0


@dataclasses.dataclass
class _SavedDisk:
    """A disk that the BIOS found; number 0 is none."""

    number: int = 0
    iobase: int = 0
    bm: int = 0
    unit: int = 0
    sectors_total: int = 0
    cylinders: int = 0
    heads: int = 0
    sectors: int = 0


class SavedBios(Struct):
    """The BIOS between its own form and that of the stream."""

    bios: Bios | None = None
    disk_status: int = 0
    ticks_at_zero: int = 0
    waiting: int = 0
    calls: list[_SavedCall] = dataclasses.field(default_factory=lambda: [_SavedCall() for _ in range(_CALLS)])
    disks: list[_SavedDisk] = dataclasses.field(default_factory=lambda: [_SavedDisk() for _ in range(_DISKS)])


def _pre_save(opaque: SavedBios) -> None:
    bios = opaque.bios
    assert bios is not None
    opaque.disk_status = bios.disk_status
    opaque.ticks_at_zero = int.from_bytes(struct.pack(">d", bios._ticks_at_zero), "big")
    opaque.waiting = min(len(bios._pending), _CALLS)
    for saved, (call, _) in zip(opaque.calls, bios._pending[-_CALLS:], strict=False):
        saved.registers = list(dataclasses.astuple(call.r))
        saved.vector, saved.returns = call.vector, int(call.returns)
    known = [*bios.disks, *([bios.cdrom] if bios.cdrom is not None else [])]
    opaque.disks = [_SavedDisk(**dataclasses.asdict(disk)) for disk in known[:_DISKS]]
    opaque.disks += [_SavedDisk() for _ in range(_DISKS - len(opaque.disks))]


def _post_load(opaque: SavedBios, version_id: int) -> int:
    from hypervisor.bios_call import Call
    from hypervisor.bios_disk import CD_DRIVE, Disk
    from hypervisor.bios_services import SERVICES, boot

    bios = opaque.bios
    assert bios is not None
    (ticks,) = struct.unpack(">d", opaque.ticks_at_zero.to_bytes(8, "big"))
    if opaque.waiting > _CALLS or not math.isfinite(ticks):
        return -errno.EINVAL
    bios.disk_status = opaque.disk_status
    bios._ticks_at_zero = ticks
    disks = [Disk(**dataclasses.asdict(saved)) for saved in opaque.disks if saved.number]
    bios.disks = [disk for disk in disks if disk.number != CD_DRIVE]
    bios.cdrom = next((disk for disk in disks if disk.number == CD_DRIVE), None)
    bios._pending.clear()
    if opaque.waiting and state.first_cpu is not None:
        # The service begins when the guest asks again, which it does whenever it is woken.
        state.first_cpu.halted = 0
    for saved in opaque.calls[: opaque.waiting]:
        call = Call(Registers(*saved.registers), saved.vector, returns=bool(saved.returns))
        service = SERVICES.get(call.vector) if call.returns else boot
        if service is None:
            return -errno.EINVAL
        bios._pending.append((call, service(bios, call) or (None for _ in ())))
    return 0


vmstate_bios = VMStateDescription(
    name="studykvm-bios",
    version_id=1,
    minimum_version_id=1,
    pre_save=_pre_save,
    post_load=_post_load,
    fields=(
        VMSTATE_UINT8("disk_status"),
        VMSTATE_UINT64("ticks_at_zero"),
        VMSTATE_UINT8("waiting"),
        VMSTATE_STRUCT(
            "calls",
            VMStateDescription(
                name="call",
                version_id=1,
                fields=(
                    VMSTATE_UINT32("registers", num=len(_REGISTERS)),
                    VMSTATE_UINT8("vector"),
                    VMSTATE_UINT8("returns"),
                ),
            ),
            num=_CALLS,
        ),
        VMSTATE_STRUCT(
            "disks",
            VMStateDescription(
                name="disk",
                version_id=1,
                fields=(VMSTATE_UINT8("number"), *(VMSTATE_UINT32(name) for name in _DISK)),
            ),
            num=_DISKS,
        ),
    ),
)


def register_bios(bios: Bios) -> None:
    """Have the built-in BIOS saved; not by a function of QEMU, which has no such section."""
    _add(
        SaveStateEntry(idstr=vmstate_bios.name, version_id=1, vmsd=vmstate_bios, opaque=SavedBios(bios=bios)),
        0,
    )
