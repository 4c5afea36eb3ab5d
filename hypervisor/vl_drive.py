"""Drives: from -hda and -drive to open images; a part of vl.c.

`-hda FILE` opens nothing: `drive_add` stores option text. When all options are read, main walks over the
stored groups (`qemu_opts_foreach` -> `drive_init_func` -> `drive_init`) and opens the images one by one. The
default CD-ROM, floppy and SD drives take the same way, without a file.

- `drive_add(file, fmt, *args) -> QemuOpts`, `drive_init(opts, opaque) -> (DriveInfo | None, fatal_error)`.
- `drive_get(type, bus, unit)`, `drive_get_by_id`, `drive_get_max_bus`, `drive_get_serial`,
  `drive_get_on_error`.
- `drives`: all `DriveInfo`, in the order of their making.
"""

from __future__ import annotations

import errno
import os
import sys
from enum import IntEnum
from typing import Any

from hypervisor import quirks
from hypervisor.block import (
    bdrv_delete,
    bdrv_find_whitelisted_format,
    bdrv_iterate_format,
    bdrv_key_required,
    bdrv_new,
    bdrv_open2,
    bdrv_set_geometry_hint,
    bdrv_set_read_only,
    bdrv_set_translation_hint,
    bdrv_set_type_hint,
)
from hypervisor.block_int import (
    BDRV_O_CACHE_WB,
    BDRV_O_NATIVE_AIO,
    BDRV_O_NOCACHE,
    BDRV_O_SNAPSHOT,
    BDRV_TYPE_CDROM,
    BDRV_TYPE_FLOPPY,
    BIOS_ATA_TRANSLATION_AUTO,
    BIOS_ATA_TRANSLATION_LBA,
    BIOS_ATA_TRANSLATION_NONE,
    BlockDriverState,
)
from hypervisor.cutils import pstrcpy
from hypervisor.program import on_reset
from hypervisor.qemu_config import qemu_device_opts, qemu_drive_opts
from hypervisor.qemu_option import (
    QemuOpts,
    qemu_opt_get,
    qemu_opt_get_bool,
    qemu_opt_get_number,
    qemu_opt_set,
    qemu_opts_create,
    qemu_opts_del,
    qemu_opts_id,
    qemu_opts_parse,
)
from hypervisor.vl_state import state
from tracer import Struct, traced

C_FILE = "vl.c"

HD_ALIAS = "index=%d,media=disk"
CDROM_ALIAS = "index=2,media=cdrom"
FD_ALIAS = "index=%d,if=floppy"
PFLASH_ALIAS = "if=pflash"
MTD_ALIAS = "if=mtd"
SD_ALIAS = "index=0,if=sd"
MAX_IDE_DEVS = 2
MAX_SCSI_DEVS = 7


class BlockInterfaceType(IntEnum):
    """`BlockInterfaceType` (sysemu.h): the bus a drive hangs on."""

    IF_NONE = 0
    IF_IDE = 1
    IF_SCSI = 2
    IF_FLOPPY = 3
    IF_PFLASH = 4
    IF_MTD = 5
    IF_SD = 6
    IF_VIRTIO = 7
    IF_XEN = 8


class BlockInterfaceErrorAction(IntEnum):
    """`BlockInterfaceErrorAction` (sysemu.h): what a failing request does to the guest."""

    BLOCK_ERR_REPORT = 0
    BLOCK_ERR_IGNORE = 1
    BLOCK_ERR_STOP_ENOSPC = 2
    BLOCK_ERR_STOP_ANY = 3


IF_IDE = BlockInterfaceType.IF_IDE
IF_SCSI = BlockInterfaceType.IF_SCSI
IF_FLOPPY = BlockInterfaceType.IF_FLOPPY
IF_VIRTIO = BlockInterfaceType.IF_VIRTIO
_TYPES = {type.name[3:].lower(): type for type in BlockInterfaceType}
_MAX_DEVS = {IF_IDE: MAX_IDE_DEVS, IF_SCSI: MAX_SCSI_DEVS}
_TRANSLATIONS = {
    "none": BIOS_ATA_TRANSLATION_NONE,
    "lba": BIOS_ATA_TRANSLATION_LBA,
    "auto": BIOS_ATA_TRANSLATION_AUTO,
}
_CACHES = {"off": 0, "none": 0, "writethrough": 1, "writeback": 2}
_ERROR_ACTIONS = {
    "ignore": BlockInterfaceErrorAction.BLOCK_ERR_IGNORE,
    "enospc": BlockInterfaceErrorAction.BLOCK_ERR_STOP_ENOSPC,
    "stop": BlockInterfaceErrorAction.BLOCK_ERR_STOP_ANY,
    "report": BlockInterfaceErrorAction.BLOCK_ERR_REPORT,
}


class DriveInfo(Struct):
    """`DriveInfo` (sysemu.h): a drive of the machine, with or without a medium."""

    bdrv: BlockDriverState | None = None
    id: str = ""
    devaddr: str | None = None
    type: BlockInterfaceType = BlockInterfaceType.IF_NONE
    bus: int = 0
    unit: int = 0
    opts: QemuOpts | None = None
    on_read_error: BlockInterfaceErrorAction = BlockInterfaceErrorAction.BLOCK_ERR_REPORT
    on_write_error: BlockInterfaceErrorAction = BlockInterfaceErrorAction.BLOCK_ERR_REPORT
    serial: str = ""


drives: list[DriveInfo] = []
extboot_drive: DriveInfo | None = None


@on_reset
def _reset() -> None:
    global extboot_drive
    drives.clear()
    extboot_drive = None


class _RefusedError(Exception):
    """The drive's options contradict each other or ask for what there is not."""


@traced
def drive_add(file: str | None, fmt: str, *args: Any) -> QemuOpts | None:
    """Store the options of a drive; nothing is opened.

    Parameters
    ----------
    fmt
        Option text as of -drive, with `%` directives for `args`.
    """
    optstr = fmt % args
    opts = qemu_opts_parse(qemu_drive_opts, optstr, None)
    if opts is None:
        # quirk: the program goes on without the drive.
        quirks.note("drive-left-out", f"a drive whose options are wrong is just left out: {optstr} (vl.c)")
        print(f"drive_add: huh? duplicate? ({optstr})", file=sys.stderr)
        return None
    if file is not None:
        qemu_opt_set(opts, "file", file)
    return opts


@traced
def drive_get(type: BlockInterfaceType, bus: int, unit: int) -> DriveInfo | None:
    """Find a drive by its place."""
    return next((d for d in drives if d.type == type and d.bus == bus and d.unit == unit), None)


@traced
def drive_get_by_id(id: str) -> DriveInfo | None:
    """Find a drive by its name."""
    return next((dinfo for dinfo in drives if dinfo.id == id), None)


@traced
def drive_get_max_bus(type: BlockInterfaceType) -> int:
    """Highest bus number that a drive of this type has, -1 without one."""
    return max((dinfo.bus for dinfo in drives if dinfo.type == type), default=-1)


@traced
def drive_get_serial(bdrv: BlockDriverState) -> str:
    """Serial number given for the drive, or an empty one."""
    return next((dinfo.serial for dinfo in drives if dinfo.bdrv is bdrv), "")


@traced
def drive_get_on_error(bdrv: BlockDriverState, is_read: int) -> BlockInterfaceErrorAction:
    """What to do when a request of the drive fails."""
    for dinfo in drives:
        if dinfo.bdrv is bdrv:
            return dinfo.on_read_error if is_read else dinfo.on_write_error
    if is_read:
        return BlockInterfaceErrorAction.BLOCK_ERR_REPORT
    return BlockInterfaceErrorAction.BLOCK_ERR_STOP_ENOSPC


@traced
def bdrv_format_print(opaque: None, name: str) -> None:
    """Print one format of -drive format=?."""
    print(f" {name}", end="", file=sys.stderr)


@traced
def drive_uninit(dinfo: DriveInfo) -> None:
    """Close and forget a drive."""
    assert dinfo.opts is not None and dinfo.bdrv is not None
    qemu_opts_del(dinfo.opts)
    bdrv_delete(dinfo.bdrv)
    drives.remove(dinfo)


@traced
def parse_block_error_action(buf: str, is_read: int) -> int:
    """Read a werror= or rerror= value; -1 after a message."""
    action = _ERROR_ACTIONS.get(buf)
    if action is None or (is_read and buf == "enospc"):
        print(f"qemu: '{buf}' invalid {'read' if is_read else 'write'} error action", file=sys.stderr)
        return -1
    return action


def _choose(table: dict[str, Any], value: str, complaint: str) -> Any:
    if value not in table:
        raise _RefusedError(complaint)
    return table[value]


def _check_geometry(type: BlockInterfaceType, buf: str | None, cyls: int, heads: int, secs: int) -> None:
    # quirk: the message names the text of if=, or (null), instead of the bad number.
    name = "(null)" if buf is None else buf
    ide = type == IF_IDE
    for value, most, what in ((cyls, 16383, "cyls"), (heads, 16, "heads"), (secs, 63, "secs")):
        if value < 1 or (ide and value > most):
            raise _RefusedError(f"qemu: '{name}' invalid physical {what} number")


def _error_action(opts: QemuOpts, name: str, type: BlockInterfaceType, is_read: int, default: int) -> int:
    buf = qemu_opt_get(opts, name)
    if buf is None:
        return default
    if type not in (IF_IDE, IF_VIRTIO) and (is_read or type != IF_SCSI):
        raise _RefusedError(f"{name} is no supported by this format")
    action = parse_block_error_action(buf, is_read)
    if action < 0:
        raise _RefusedError("")
    return action


def _find_format(opts: QemuOpts) -> Any:
    buf = qemu_opt_get(opts, "format")
    if buf is None:
        return None
    if buf == "?":
        print("qemu: Supported formats:", end="", file=sys.stderr)
        bdrv_iterate_format(bdrv_format_print, None)
        raise _RefusedError("\n")
    drv = bdrv_find_whitelisted_format(buf)
    if drv is None:
        raise _RefusedError(f"qemu: '{buf}' invalid format")
    return drv


def _place(type: BlockInterfaceType, index: int, bus_id: int, unit_id: int) -> tuple[int, int]:
    max_devs = _MAX_DEVS.get(type, 0)
    if index != -1:
        if bus_id != 0 or unit_id != -1:
            raise _RefusedError("qemu: index cannot be used with bus and unit")
        bus_id, unit_id = divmod(index, max_devs) if max_devs else (0, index)
    if unit_id == -1:
        unit_id = 0
        while drive_get(type, bus_id, unit_id) is not None:
            unit_id += 1
            if max_devs and unit_id >= max_devs:
                unit_id -= max_devs
                bus_id += 1
    if max_devs and unit_id >= max_devs:
        raise _RefusedError(f"qemu: unit {unit_id} too big (max is {max_devs - 1})")
    return bus_id, unit_id


def _name(type: BlockInterfaceType, devname: str, media: str, bus_id: int, unit_id: int) -> str:
    mediastr = {"cdrom": "-cd", "disk": "-hd"}[media] if type in (IF_IDE, IF_SCSI) else ""
    bus = str(bus_id) if type in _MAX_DEVS else ""
    return f"{devname}{bus}{mediastr}{unit_id}"[:31]


@traced
def drive_init(opts: QemuOpts, opaque: Any) -> tuple[DriveInfo | None, int]:
    """Make a drive of its options, and open its image.

    Parameters
    ----------
    opaque : QEMUMachine or None
        Says whether drives go to SCSI by default.

    Returns
    -------
    DriveInfo or None, int
        None also for a drive without medium or defined twice; then fatal_error is 0.
    """
    try:
        return _drive_init(opts, opaque)
    except _RefusedError as refused:
        complaint = str(refused)
        if complaint:
            print(complaint, end="" if complaint == "\n" else "\n", file=sys.stderr)
        return None, 1


def _drive_init(opts: QemuOpts, opaque: Any) -> tuple[DriveInfo | None, int]:
    global extboot_drive
    type = IF_SCSI if opaque is not None and opaque.use_scsi else IF_IDE
    devname = pstrcpy(128, type.name[3:].lower())
    translation, media, cache, aio = BIOS_ATA_TRANSLATION_AUTO, "disk", 1, 0

    bus_id = qemu_opt_get_number(opts, "bus", 0)
    unit_id = qemu_opt_get_number(opts, "unit", -1)
    index = qemu_opt_get_number(opts, "index", -1)
    cyls = qemu_opt_get_number(opts, "cyls", 0)
    heads = qemu_opt_get_number(opts, "heads", 0)
    secs = qemu_opt_get_number(opts, "secs", 0)
    snapshot = qemu_opt_get_bool(opts, "snapshot", 0)
    ro = qemu_opt_get_bool(opts, "readonly", 0)
    file = qemu_opt_get(opts, "file")
    serial = qemu_opt_get(opts, "serial")

    buf = qemu_opt_get(opts, "if")
    if buf is not None:
        devname = pstrcpy(128, buf)
        type = _choose(_TYPES, buf, f"qemu: unsupported bus type '{buf}'")
    if cyls or heads or secs:
        _check_geometry(type, buf, cyls, heads, secs)
    if (buf := qemu_opt_get(opts, "trans")) is not None:
        if not cyls:
            raise _RefusedError(f"qemu: '{buf}' trans must be used with cyls,heads and secs")
        translation = _choose(_TRANSLATIONS, buf, f"qemu: '{buf}' invalid translation type")
    if (buf := qemu_opt_get(opts, "media")) is not None:
        if buf not in ("disk", "cdrom"):
            raise _RefusedError(f"qemu: '{buf}' invalid media")
        if buf == "cdrom" and (cyls or secs or heads):
            raise _RefusedError(f"qemu: '{buf}' invalid physical CHS format")
        media = buf
    if (buf := qemu_opt_get(opts, "cache")) is not None:
        cache = _choose(_CACHES, buf, "qemu: invalid cache option")
    if (buf := qemu_opt_get(opts, "aio")) is not None:
        aio = _choose({"threads": 0, "native": 1}, buf, "qemu: invalid aio option")
    drv = _find_format(opts)
    is_extboot = qemu_opt_get_bool(opts, "boot", 0)
    if is_extboot and extboot_drive is not None:
        raise _RefusedError("qemu: two bootable drives specified")
    on_write_error = _error_action(opts, "werror", type, 0, BlockInterfaceErrorAction.BLOCK_ERR_STOP_ENOSPC)
    on_read_error = _error_action(opts, "rerror", type, 1, BlockInterfaceErrorAction.BLOCK_ERR_REPORT)
    devaddr = qemu_opt_get(opts, "addr")
    if devaddr is not None and type != IF_VIRTIO:
        raise _RefusedError("addr is not supported")

    bus_id, unit_id = _place(type, index, bus_id, unit_id)
    if drive_get(type, bus_id, unit_id) is not None:
        return None, 0

    dinfo = DriveInfo()
    dinfo.id = qemu_opts_id(opts) or _name(type, devname, media, bus_id, unit_id)
    dinfo.bdrv = bdrv_new(dinfo.id)
    dinfo.devaddr = devaddr
    dinfo.type = type
    dinfo.bus = bus_id
    dinfo.unit = unit_id
    dinfo.on_read_error = BlockInterfaceErrorAction(on_read_error)
    dinfo.on_write_error = BlockInterfaceErrorAction(on_write_error)
    dinfo.opts = opts
    if serial is not None:
        # quirk: sizeof(serial) is that of a pointer, so eight characters arrive.
        dinfo.serial = serial[:8]
    drives.append(dinfo)
    if is_extboot:
        extboot_drive = dinfo
    _give_hints(dinfo, media, (cyls, heads, secs), translation)
    if file is None:
        return None, 0
    _open(dinfo, file, cache=2 if snapshot else cache, snapshot=snapshot, aio=aio, ro=ro, drv=drv)
    return dinfo, 0


def _give_hints(dinfo: DriveInfo, media: str, chs: tuple[int, int, int], translation: int) -> None:
    bdrv = dinfo.bdrv
    assert bdrv is not None
    match dinfo.type.name:
        case "IF_IDE" | "IF_SCSI" | "IF_XEN" | "IF_NONE":
            if media == "cdrom":
                bdrv_set_type_hint(bdrv, BDRV_TYPE_CDROM)
            elif chs[0] != 0:
                bdrv_set_geometry_hint(bdrv, *chs)
                bdrv_set_translation_hint(bdrv, translation)
        case "IF_SD" | "IF_FLOPPY":
            bdrv_set_type_hint(bdrv, BDRV_TYPE_FLOPPY)
        case "IF_VIRTIO":
            opts = qemu_opts_create(qemu_device_opts, None, 0)
            assert opts is not None
            qemu_opt_set(opts, "driver", "virtio-blk-pci")
            qemu_opt_set(opts, "drive", dinfo.id)
            if dinfo.devaddr is not None:
                qemu_opt_set(opts, "addr", dinfo.devaddr)


_WITHOUT_SYSTEM = frozenset((errno.EPERM, errno.EINVAL, errno.ENOTSUP))
"""What formats return by themselves when they refuse an image."""


def _last_errno(file: str, code: int) -> int:
    """What C's errno holds after a failed open: the last system call's, whatever bdrv_open2 returned."""
    try:
        os.close(os.open(file, os.O_RDONLY))
    except OSError as error:
        return error.errno or code
    if os.path.isdir(file):
        return errno.EISDIR
    # quirk: the message then tells what went wrong long before.
    return state.last_errno if code in _WITHOUT_SYSTEM and state.last_errno else code


def _open(dinfo: DriveInfo, file: str, *, cache: int, snapshot: int, aio: int, ro: int, drv: Any) -> None:
    bdrv = dinfo.bdrv
    assert bdrv is not None
    bdrv_flags = BDRV_O_SNAPSHOT if snapshot else 0
    bdrv_flags |= {0: BDRV_O_NOCACHE, 1: 0, 2: BDRV_O_CACHE_WB}[cache]
    if aio == 1:
        bdrv_flags |= BDRV_O_NATIVE_AIO
    if ro == 1:
        if dinfo.type == IF_IDE:
            raise _RefusedError("qemu: readonly flag not supported for drive with ide interface")
        bdrv_set_read_only(bdrv, 1)
    ret = bdrv_open2(bdrv, file, bdrv_flags, drv)
    if ret < 0:
        raise _RefusedError(f"qemu: could not open disk image {file}: {os.strerror(_last_errno(file, -ret))}")
    if bdrv_key_required(bdrv):
        state.autostart = 0


@traced
def drive_init_func(opts: QemuOpts, opaque: Any) -> int:
    """Make one drive; 1 if that failed and the program cannot go on."""
    dinfo, fatal_error = drive_init(opts, opaque)
    return int(dinfo is None and bool(fatal_error))


@traced
def drive_enable_snapshot(opts: QemuOpts, opaque: None) -> int:
    """Give a drive snapshot=on, unless its options speak of it."""
    if qemu_opt_get(opts, "snapshot") is None:
        qemu_opt_set(opts, "snapshot", "on")
    return 0
