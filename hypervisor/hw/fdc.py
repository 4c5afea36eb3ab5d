"""Floppy disks: hw/fdc.c, as far as drives and their formats.

The controller's registers are not modelled. The built-in BIOS reads and writes sectors by `_transfer`, which
calls the block layer as the real controller's transfer handler does: `bdrv_read`, `bdrv_write`, a sector at a
time.
"""

from __future__ import annotations

from dataclasses import field
from typing import NamedTuple

from hypervisor.block import (
    bdrv_get_geometry,
    bdrv_get_geometry_hint,
    bdrv_is_inserted,
    bdrv_is_read_only,
    bdrv_read,
    bdrv_write,
)
from hypervisor.block_int import BlockDriverState
from hypervisor.hw.isa_bus import ISADevice, ISADeviceInfo, isa_create, isa_init_irq, isa_qdev_register
from hypervisor.hw.qdev import qdev_init
from hypervisor.hw.qdev_properties import Property, qdev_prop_set_drive
from hypervisor.hw.sysbus import SysBusDeviceInfo, sysbus_register_withprop
from hypervisor.module import device_init
from hypervisor.vl_drive import DriveInfo
from hypervisor.vmstate.absent import register_absent, vmstate_fdc
from tracer import Struct, traced

C_FILE = "hw/fdc.c"

MAX_FD = 2
FDRIVE_DRV_144, FDRIVE_DRV_288, FDRIVE_DRV_120, FDRIVE_DRV_NONE = 0, 1, 2, 3
FDISK_DBL_SIDES = 0x01


class FdFormat(NamedTuple):
    """`fd_format_t`: a disk that a drive type takes."""

    drive: int
    last_sect: int
    max_track: int
    max_head: int


_144 = [(18, 80), (20, 80), (21, 80), (21, 82), (21, 83), (22, 80), (23, 80), (24, 80)]
_288 = [(36, 80), (39, 80), (40, 80), (44, 80), (48, 80)]
_720 = [(9, 80), (10, 80), (10, 82), (10, 83), (13, 80), (14, 80)]
_120 = [(15, 80), (18, 80), (18, 82), (18, 83), (20, 80), (9, 80), (11, 80), (9, 40)]
fd_formats = [
    *(FdFormat(FDRIVE_DRV_144, sect, track, 1) for sect, track in _144),
    *(FdFormat(FDRIVE_DRV_288, sect, track, 1) for sect, track in _288),
    *(FdFormat(FDRIVE_DRV_144, sect, track, 1) for sect, track in _720),
    *(FdFormat(FDRIVE_DRV_120, sect, track, 1) for sect, track in _120),
    FdFormat(FDRIVE_DRV_120, 9, 40, 0),
    FdFormat(FDRIVE_DRV_120, 10, 41, 1),
    FdFormat(FDRIVE_DRV_120, 10, 42, 1),
    FdFormat(FDRIVE_DRV_120, 8, 40, 1),
    FdFormat(FDRIVE_DRV_120, 8, 40, 0),
    FdFormat(FDRIVE_DRV_144, 9, 80, 0),
]
"""In the order of QEMU's table; the first of a size wins."""


class FDrive(Struct):
    """`fdrive_t`: one drive and the format of its disk; `last_sect` 0 means no disk."""

    bs: BlockDriverState | None = None
    drive: int = FDRIVE_DRV_NONE
    last_sect: int = 0
    max_track: int = 0
    flags: int = 0
    ro: int = 0


class FDCtrlISABus(ISADevice):
    """`fdctrl_isabus_t`: the controller with its two drives."""

    drive_a: DriveInfo | None = None
    drive_b: DriveInfo | None = None
    drives: list[FDrive] = field(default_factory=lambda: [FDrive(), FDrive()])


@traced
def fd_init(drv: FDrive, dinfo: DriveInfo | None) -> None:
    """Give a drive its block device; in C the drive knows its `DriveInfo`."""
    drv.bs = dinfo.bdrv if dinfo is not None else None
    drv.drive = FDRIVE_DRV_NONE
    drv.last_sect = drv.max_track = 0


def _format_of(drv: FDrive, nb_sectors: int) -> FdFormat:
    """The first format of a size; the drive's most common one, when a disk has another size."""
    fitting = [f for f in fd_formats if drv.drive in (f.drive, FDRIVE_DRV_NONE)]
    sized = (f for f in fitting if (f.max_head + 1) * f.max_track * f.last_sect == nb_sectors)
    return next(sized, fitting[0])


def _layout(drv: FDrive, bs: BlockDriverState) -> tuple[int, int, int]:
    """Sides, tracks and sectors of a track: what somebody asked for, else what the disk's size tells."""
    # quirk: the hint's cylinders are taken for heads and its heads for tracks.
    hint = bdrv_get_geometry_hint(bs)
    if all(hint):
        return hint
    found = _format_of(drv, bdrv_get_geometry(bs))
    drv.drive = found.drive
    return found.max_head + 1, found.max_track, found.last_sect


@traced
def fd_revalidate(drv: FDrive) -> None:
    """Look which disk is in the drive; its size decides the format."""
    sides = drv.max_track = drv.last_sect = 0
    if drv.bs is not None and bdrv_is_inserted(drv.bs):
        drv.ro = bdrv_is_read_only(drv.bs)
        sides, drv.max_track, drv.last_sect = _layout(drv, drv.bs)
    drv.flags = drv.flags & ~FDISK_DBL_SIDES | (FDISK_DBL_SIDES if sides > 1 else 0)


@traced
def fdctrl_connect_drives(fdctrl: FDCtrlISABus) -> None:
    """Look into both drives."""
    for drv, dinfo in zip(fdctrl.drives, (fdctrl.drive_a, fdctrl.drive_b), strict=True):
        fd_init(drv, dinfo)
        fd_revalidate(drv)


@traced
def fdctrl_init_common(fdctrl: FDCtrlISABus) -> int:
    """Set the controller up."""
    fdctrl_connect_drives(fdctrl)
    register_absent(0x3F0, vmstate_fdc)
    return 0


@traced
def isabus_fdc_init1(dev: FDCtrlISABus) -> int:
    """Take the controller's interrupt."""
    isa_init_irq(dev, 6)
    return fdctrl_init_common(dev)


@traced
def fdctrl_init_isa(fds: list[DriveInfo | None]) -> FDCtrlISABus:
    """Make the machine's floppy controller."""
    dev = isa_create("isa-fdc")
    if fds[0] is not None:
        qdev_prop_set_drive(dev, "driveA", fds[0])
    if fds[1] is not None:
        qdev_prop_set_drive(dev, "driveB", fds[1])
    qdev_init(dev)
    assert isinstance(dev, FDCtrlISABus)
    return dev


@traced
def fdctrl_get_drive_type(fdctrl: FDCtrlISABus, drive_num: int) -> int:
    """Type of a drive, FDRIVE_DRV_*."""
    return fdctrl.drives[drive_num].drive


def _transfer(drv: FDrive, sector: int, buf: memoryview, is_write: bool) -> int:
    """Move whole sectors; 0 or a negative errno of the first that failed."""
    assert drv.bs is not None
    move = bdrv_write if is_write else bdrv_read
    for at in range(0, len(buf), 512):
        ret = move(drv.bs, sector + at // 512, buf[at : at + 512], 1)
        if ret < 0:
            return ret
    return 0


isa_fdc_info = ISADeviceInfo(
    name="isa-fdc",
    size=FDCtrlISABus,
    no_user=1,
    isa_init=isabus_fdc_init1,
    props=[
        Property(name="driveA", type="drive", field="drive_a"),
        Property(name="driveB", type="drive", field="drive_b"),
    ],
)


@traced
def fdc_register_devices() -> None:
    """Register the controller; its kinds for other machines have names only."""
    isa_qdev_register(isa_fdc_info)
    for name in ("sysbus-fdc", "SUNW,fdtwo"):
        sysbus_register_withprop(SysBusDeviceInfo(name=name))


device_init(fdc_register_devices)
