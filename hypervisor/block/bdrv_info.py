"""block.c, part five: geometry, drive hints, removable media, and what the monitor shows.

- ``bdrv_guess_geometry``: cylinders, heads and sectors, from a partition table or by rule
- ``bdrv_set_type_hint``, ``bdrv_get_translation_hint`` and their kin: what hardware wants to know
- ``bdrv_eject``, ``bdrv_media_changed``, ``bdrv_set_locked``: removable media
- ``bdrv_info``, ``bdrv_info_stats``: lists of dicts (C: QList of QDict), printed by ``bdrv_info_print``,
  ``bdrv_stats_print``
- ``bdrv_snapshot_dump``, ``get_human_readable_size``: text for the tools
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Callable
from typing import Any

from hypervisor.block.bdrv_io import bdrv_getlength, bdrv_read
from hypervisor.block.bdrv_open import bdrv_close
from hypervisor.block.bdrv_registry import devices
from hypervisor.block_int import (
    BDRV_SECTOR_BITS,
    BDRV_SECTOR_SIZE,
    BDRV_TYPE_CDROM,
    BDRV_TYPE_FLOPPY,
    BIOS_ATA_TRANSLATION_AUTO,
    BIOS_ATA_TRANSLATION_LARGE,
    BIOS_ATA_TRANSLATION_LBA,
    BIOS_ATA_TRANSLATION_NONE,
    BlockDriverState,
    QEMUSnapshotInfo,
)
from hypervisor.cutils import pstrcpy
from hypervisor.program import linked
from tracer import traced

C_FILE = "block.c"

_PARTITION = struct.Struct("<8BII")
_PARTITION_TABLE = 0x1BE


@traced
def bdrv_get_geometry(bs: BlockDriverState) -> int:
    """The number of sectors, 0 without a medium."""
    length = bdrv_getlength(bs)
    return 0 if length < 0 else length >> BDRV_SECTOR_BITS


@traced
def guess_disk_lchs(bs: BlockDriverState) -> tuple[int, int, int, int]:
    """(0, cylinders, heads, sectors) if the DOS partition table gives them away, else -1 and zeros."""
    nb_sectors = bdrv_get_geometry(bs)
    buf = bytearray(BDRV_SECTOR_SIZE)
    if bdrv_read(bs, 0, buf, 1) < 0 or buf[510:] != b"\x55\xaa":
        return -1, 0, 0, 0
    for i in range(4):
        entry = _PARTITION.unpack_from(buf, _PARTITION_TABLE + i * _PARTITION.size)
        end_head, end_sector, nr_sects = entry[5], entry[6], entry[9]
        heads, sectors = end_head + 1, end_sector & 63
        if nr_sects and end_head and sectors:
            cylinders = nb_sectors // (heads * sectors)
            if 1 <= cylinders <= 16383:
                return 0, cylinders, heads, sectors
    return -1, 0, 0, 0


@traced
def bdrv_guess_geometry(bs: BlockDriverState) -> tuple[int, int, int]:
    """(cylinders, heads, sectors): the hint if there is one, else a guess that becomes the hint."""
    nb_sectors = bdrv_get_geometry(bs)
    cylinders, heads, secs = bdrv_get_geometry_hint(bs)
    translation = bdrv_get_translation_hint(bs)
    if cylinders:
        return cylinders, heads, secs
    failed, cylinders, heads, secs = guess_disk_lchs(bs)
    if not failed and heads <= 16:
        if translation == BIOS_ATA_TRANSLATION_AUTO:
            bdrv_set_translation_hint(bs, BIOS_ATA_TRANSLATION_NONE)
    else:
        # More than 16 heads: a BIOS translated, so the disk has the default geometry.
        cylinders, heads, secs = min(max(nb_sectors // (16 * 63), 2), 16383), 16, 63
        if not failed and translation == BIOS_ATA_TRANSLATION_AUTO:
            large = cylinders * heads <= 131072
            bdrv_set_translation_hint(bs, BIOS_ATA_TRANSLATION_LARGE if large else BIOS_ATA_TRANSLATION_LBA)
    bdrv_set_geometry_hint(bs, cylinders, heads, secs)
    return cylinders, heads, secs


@traced
def bdrv_set_geometry_hint(bs: BlockDriverState, cyls: int, heads: int, secs: int) -> None:
    """Fix the drive's geometry."""
    bs.cyls = cyls
    bs.heads = heads
    bs.secs = secs


@traced
def bdrv_set_type_hint(bs: BlockDriverState, type: int) -> None:
    """Say what kind of drive it is, BDRV_TYPE_*, and so whether its medium can be removed."""
    bs.type = type
    bs.removable = int(type in (BDRV_TYPE_CDROM, BDRV_TYPE_FLOPPY))


@traced
def bdrv_set_translation_hint(bs: BlockDriverState, translation: int) -> None:
    """Fix the BIOS's translation, BIOS_ATA_TRANSLATION_*."""
    bs.translation = translation


@traced
def bdrv_get_geometry_hint(bs: BlockDriverState) -> tuple[int, int, int]:
    """(cylinders, heads, sectors), zeros if not known yet."""
    return bs.cyls, bs.heads, bs.secs


@traced
def bdrv_get_type_hint(bs: BlockDriverState) -> int:
    """BDRV_TYPE_*."""
    return bs.type


@traced
def bdrv_get_translation_hint(bs: BlockDriverState) -> int:
    """BIOS_ATA_TRANSLATION_*."""
    return bs.translation


@traced
def bdrv_set_read_only(bs: BlockDriverState, read_only: int) -> int:
    """Set whether the medium must not be written; what it was before."""
    ret = bs.read_only
    bs.read_only = read_only
    return ret


@traced
def bdrv_is_sg(bs: BlockDriverState) -> int:
    """1 for a generic SCSI device of the host."""
    return bs.sg


@traced
def bdrv_enable_write_cache(bs: BlockDriverState) -> int:
    """1 if the guest must be told of a volatile write cache."""
    return bs.enable_write_cache


@traced
def bdrv_set_change_cb(bs: BlockDriverState, change_cb: Callable[[Any], None] | None, opaque: Any) -> None:
    """Have ``change_cb(opaque)`` called when a medium comes or goes."""
    bs.change_cb = change_cb
    bs.change_opaque = opaque


@traced
def bdrv_is_encrypted(bs: BlockDriverState) -> int:
    """1 if the image or its backing file is encrypted."""
    if bs.backing_hd is not None and bs.backing_hd.encrypted:
        return 1
    return bs.encrypted


@traced
def bdrv_get_encrypted_filename(bs: BlockDriverState) -> str | None:
    """The file whose key is wanted."""
    if bs.backing_hd is not None and bs.backing_hd.encrypted:
        return bs.backing_file
    return bs.filename if bs.encrypted else None


@traced
def bdrv_get_backing_filename(bs: BlockDriverState, filename_size: int) -> str:
    """The name of the backing file as the image has it; empty without one."""
    return pstrcpy(filename_size, bs.backing_file if bs.backing_hd is not None else "")


@traced
def bdrv_get_format(bs: BlockDriverState, buf_size: int) -> str:
    """The name of the format; empty without a medium."""
    return pstrcpy(buf_size, bs.drv.format_name) if bs.drv is not None else ""


@traced
def bdrv_media_changed(bs: BlockDriverState) -> int:
    """1 if the medium changed since this was last asked."""
    drv = bs.drv
    ret = -errno.ENOTSUP
    if drv is not None and drv.bdrv_media_changed is not None:
        ret = drv.bdrv_media_changed(bs)
    if ret == -errno.ENOTSUP:
        ret = bs.media_changed
    bs.media_changed = 0
    return ret


@traced
def bdrv_eject(bs: BlockDriverState, eject_flag: int) -> int:
    """Open (1) or close (0) the tray; -EBUSY if the guest locked it."""
    drv = bs.drv
    if bs.locked:
        return -errno.EBUSY
    ret = -errno.ENOTSUP
    if drv is not None and drv.bdrv_eject is not None:
        ret = drv.bdrv_eject(bs, eject_flag)
    if ret == -errno.ENOTSUP:
        if eject_flag:
            bdrv_close(bs)
        ret = 0
    return ret


@traced
def bdrv_is_locked(bs: BlockDriverState) -> int:
    """1 while the guest forbids to eject."""
    return bs.locked


@traced
def bdrv_set_locked(bs: BlockDriverState, locked: int) -> None:
    """Forbid or allow to eject the medium by hand."""
    bs.locked = locked
    if bs.drv is not None and bs.drv.bdrv_set_locked is not None:
        bs.drv.bdrv_set_locked(bs, locked)


@traced
def bdrv_ioctl(bs: BlockDriverState, req: int, buf: Any) -> int:
    """Pass a request to a host device; -ENOTSUP for others."""
    if bs.drv is not None and bs.drv.bdrv_ioctl is not None:
        return bs.drv.bdrv_ioctl(bs, req, buf)
    return -errno.ENOTSUP


@traced
def get_human_readable_size(buf_size: int, size: int) -> str:
    """A number of bytes in at most four digits.

    Examples
    --------
    >>> [get_human_readable_size(128, n) for n in (999, 1000, 65536, 1 << 30)]
    ['999', '1.0K', '64K', '1.0G']
    """
    if size <= 999:
        return str(size)
    base = 1024
    for suffix in "KMGT":
        if size < 10 * base:
            return f"{size / base:.1f}{suffix}"
        if size < 1000 * base:
            break
        base *= 1024
    else:
        base //= 1024
    return f"{(size + (base >> 1)) // base}{suffix}"


@traced
def bdrv_snapshot_dump(buf_size: int, sn: QEMUSnapshotInfo | None) -> str:
    """One line of a list of snapshots, local time; the heading for None."""
    if sn is None:
        return f"{'ID':<10}{'TAG':<20}{'VM SIZE':>7}{'DATE':>20}{'VM CLOCK':>15}"[: buf_size - 1]
    date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(sn.date_sec))
    secs, nsec = divmod(sn.vm_clock_nsec, 1_000_000_000)
    clock = f"{secs // 3600:02d}:{secs // 60 % 60:02d}:{secs % 60:02d}.{nsec // 1_000_000:03d}"
    size = get_human_readable_size(128, sn.vm_state_size)
    return f"{sn.id_str:<10}{sn.name:<20}{size:>7}{date:>20}{clock:>15}"[: buf_size - 1]


@traced
def bdrv_print_dict(obj: dict[str, Any], opaque: Any) -> None:
    """Print one device of `bdrv_info` on the monitor `opaque`."""
    put = linked.monitor_printf
    put(opaque, "%s: type=%s removable=%d", obj["device"], obj["type"], obj["removable"])
    if obj["removable"]:
        put(opaque, " locked=%d", obj["locked"])
    medium = obj.get("inserted")
    if medium is None:
        put(opaque, " [not inserted]")
    else:
        put(opaque, " file=")
        linked.monitor_print_filename(opaque, medium["file"])
        if "backing_file" in medium:
            put(opaque, " backing_file=")
            linked.monitor_print_filename(opaque, medium["backing_file"])
        put(opaque, " ro=%d drv=%s encrypted=%d", medium["ro"], medium["drv"], medium["encrypted"])
    put(opaque, "\n")


@traced
def bdrv_info_print(mon: Any, data: list[dict[str, Any]]) -> None:
    """Print what `bdrv_info` returned: ``info block``."""
    for obj in data:
        bdrv_print_dict(obj, mon)


@traced
def bdrv_info(mon: Any) -> list[dict[str, Any]]:
    """Every device with its medium: keys device, type, removable, locked, inserted."""
    data = []
    for bs in devices():
        kind = ("hd", "cdrom", "floppy")[bs.type] if 0 <= bs.type <= 2 else "unknown"
        device: dict[str, Any] = {
            "device": bs.device_name,
            "type": kind,
            "removable": bool(bs.removable),
            "locked": bool(bs.locked),
        }
        if bs.drv is not None:
            medium: dict[str, Any] = {
                "file": bs.filename,
                "ro": bool(bs.read_only),
                "drv": bs.drv.format_name,
                "encrypted": bool(bdrv_is_encrypted(bs)),
            }
            if bs.backing_file:
                medium["backing_file"] = bs.backing_file
            device["inserted"] = medium
        data.append(device)
    return data


@traced
def bdrv_stats_iter(data: dict[str, Any], opaque: Any) -> None:
    """Print one device of `bdrv_info_stats` on the monitor `opaque`."""
    linked.monitor_printf(opaque, "%s:", data["device"])
    stats = data["stats"]
    linked.monitor_printf(
        opaque,
        " rd_bytes=%d wr_bytes=%d rd_operations=%d wr_operations=%d\n",
        stats["rd_bytes"],
        stats["wr_bytes"],
        stats["rd_operations"],
        stats["wr_operations"],
    )


@traced
def bdrv_stats_print(mon: Any, data: list[dict[str, Any]]) -> None:
    """Print what `bdrv_info_stats` returned: ``info blockstats``."""
    for obj in data:
        bdrv_stats_iter(obj, mon)


@traced
def bdrv_info_stats(mon: Any) -> list[dict[str, Any]]:
    """How much every device read and wrote: keys device, stats."""
    return [
        {
            "device": bs.device_name,
            "stats": {
                "rd_bytes": bs.rd_bytes,
                "wr_bytes": bs.wr_bytes,
                "rd_operations": bs.rd_ops,
                "wr_operations": bs.wr_ops,
            },
        }
        for bs in devices()
    ]
