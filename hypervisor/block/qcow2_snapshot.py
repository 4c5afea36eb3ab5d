"""Internal snapshots: block/qcow2-snapshot.c.

A snapshot is an L1 table of its own; what both it and the disk reach has a refcount of 2 or more and is
copied when written. The snapshot table lists them; it is written anew, elsewhere, with every change.

- `qcow2_snapshot_create`, `qcow2_snapshot_goto`, `qcow2_snapshot_delete`, `qcow2_snapshot_list`
- `qcow2_read_snapshots`, `qcow_write_snapshots`, `qcow2_free_snapshots`
- `find_snapshot_by_id_or_name`, `find_snapshot_by_id`, `find_new_snapshot_id`

::

    disk       L1 ─┬─► L2 ─┬─► data           after create: the same L2 tables, refcount 2,
    snapshot   L1 ─┘       └─► data           no COPIED flags

Changes of many tables in place run within `guarded`. Extra data of entries that others wrote is kept; an
image of version 3 gets the 16 bytes it demands.
"""

from __future__ import annotations

import errno
import os
import re

from hypervisor.block import bdrv_pread, bdrv_pwrite
from hypervisor.block.qcow2_format import (
    MAX_L1_BYTES,
    MAX_SNAPSHOT_EXTRA,
    OFFSET_NB_SNAPSHOTS,
    OFFSET_SNAPSHOTS,
    SNAPSHOT_EXTRA,
    SNAPSHOT_HEADER,
    QCowSnapshotHeader,
    be_bytes,
    complain,
    words,
)
from hypervisor.block.qcow2_refcount import (
    qcow2_alloc_clusters,
    qcow2_free_clusters,
)
from hypervisor.block.qcow2_refcount_update import qcow2_update_snapshot_refcount
from hypervisor.block.qcow2_shadow import fetch_bytes, guarded, header_bytes, leave_out, settle
from hypervisor.block.qcow2_state import QCowSnapshot, align_offset, file_of, l1_of, state
from hypervisor.block.qcow2_table import qcow2_grow_l1_table
from hypervisor.block_int import BlockDriverState, QEMUSnapshotInfo
from hypervisor.cutils import pstrcpy
from tracer import traced

C_FILE = "block/qcow2-snapshot.c"

ID_STR_SIZE = 128
NAME_SIZE = 256


@traced
def qcow2_free_snapshots(bs: BlockDriverState) -> None:
    """Forget the snapshots."""
    s = state(bs)
    s.snapshots = None
    s.nb_snapshots = 0


@traced
def qcow2_read_snapshots(bs: BlockDriverState) -> int:
    """Read the snapshot table, whose place and number of entries the header gave.

    Returns
    -------
    int
        0, -EIO, or -EINVAL for an entry with more extra data than any known version writes.
    """
    s = state(bs)
    s.snapshots = None
    s.snapshots_size = 0
    if not s.nb_snapshots:
        return 0
    offset = s.snapshots_offset
    s.snapshots = []
    for i in range(s.nb_snapshots):
        offset = align_offset(offset, 8)
        raw = _read(bs, offset, SNAPSHOT_HEADER.size)
        if raw is None:
            return -errno.EIO
        offset += len(raw)
        h = QCowSnapshotHeader.unpack(raw)
        if h.extra_data_size > MAX_SNAPSHOT_EXTRA:
            text = (
                f"snapshot {i} has {h.extra_data_size} bytes of extra data, the most is {MAX_SNAPSHOT_EXTRA}"
            )
            complain(s._filename, f"{text}; the snapshot table is damaged: check the image")
            return -errno.EINVAL
        extra = _read_extra(bs, offset, h.extra_data_size)
        offset += h.extra_data_size
        id_str = _read(bs, offset, h.id_str_size)
        offset += h.id_str_size
        name = _read(bs, offset, h.name_size)
        offset += h.name_size
        if extra is None or id_str is None or name is None:
            return -errno.EIO
        s.snapshots.append(
            QCowSnapshot(
                l1_table_offset=h.l1_table_offset,
                l1_size=h.l1_size,
                id_str=os.fsdecode(id_str),
                name=os.fsdecode(name),
                vm_state_size=h.vm_state_size,
                date_sec=h.date_sec,
                date_nsec=h.date_nsec,
                vm_clock_nsec=h.vm_clock_nsec,
                extra_data=extra,
            )
        )
    s.snapshots_size = offset - s.snapshots_offset
    return 0


def _read(bs: BlockDriverState, offset: int, length: int) -> bytes | None:
    raw = bytearray(length)
    return bytes(raw) if bdrv_pread(file_of(state(bs)), offset, raw, length) == length else None


def _read_extra(bs: BlockDriverState, offset: int, length: int) -> bytes | None:
    """Extra data, which 0.12.4 skips: read below the level of calls."""
    try:
        return fetch_bytes(state(bs), offset, length) if length else b""
    except OSError:
        return None


@traced
def qcow_write_snapshots(bs: BlockDriverState) -> int:
    """Write the snapshot table to new clusters, have the header name it, free the old one.

    Returns
    -------
    int
        0 or -errno; then the header names the old table still, or the new one with the old number of
        entries, which are the same.
    """
    s = state(bs)
    hd = file_of(s)
    entries = [(_header_of(sn), os.fsencode(sn.id_str), os.fsencode(sn.name), sn) for sn in s.snapshots or ()]
    size = 0
    for _, id_str, name, sn in entries:
        size = align_offset(size, 8) + SNAPSHOT_HEADER.size + len(sn.extra_data) + len(id_str) + len(name)
    snapshots_offset = offset = qcow2_alloc_clusters(bs, size)
    if offset < 0:
        return offset
    for header, id_str, name, sn in entries:
        offset = align_offset(offset, 8)
        for part, skip in ((header, len(sn.extra_data)), (id_str, 0), (name, 0)):
            ret = bdrv_pwrite(hd, offset, part, len(part))
            if ret < 0:
                return ret
            offset += len(part) + skip
    ret = _write_extra(bs, snapshots_offset)
    if ret < 0:
        return ret
    for at, data in (
        (OFFSET_SNAPSHOTS, snapshots_offset.to_bytes(8)),
        (OFFSET_NB_SNAPSHOTS, s.nb_snapshots.to_bytes(4)),
    ):
        ret = bdrv_pwrite(hd, at, header_bytes(s, at, data), len(data))
        if ret < 0:
            return ret
    qcow2_free_clusters(bs, s.snapshots_offset, s.snapshots_size)
    s.snapshots_offset = snapshots_offset
    s.snapshots_size = size
    return 0


def _write_extra(bs: BlockDriverState, offset: int) -> int:
    """Have the extra data, which 0.12.4 does not write, in its place; 0 or -errno."""
    s = state(bs)
    if not any(sn.extra_data for sn in s.snapshots or ()):
        return 0
    table = _table_of(s.snapshots or [])
    try:
        settle(s, offset, table + bytes(-len(table) % 512))
    except OSError as error:
        return -(error.errno or errno.EIO)
    return 0


def _table_of(snapshots: list[QCowSnapshot]) -> bytes:
    """A snapshot table, whole."""
    table = b""
    for sn in snapshots:
        table += bytes(-len(table) % 8) + _header_of(sn) + sn.extra_data
        table += os.fsencode(sn.id_str) + os.fsencode(sn.name)
    return table


def _header_of(sn: QCowSnapshot) -> bytes:
    return QCowSnapshotHeader(
        l1_table_offset=sn.l1_table_offset,
        l1_size=sn.l1_size,
        id_str_size=len(os.fsencode(sn.id_str)),
        name_size=len(os.fsencode(sn.name)),
        date_sec=sn.date_sec,
        date_nsec=sn.date_nsec,
        vm_clock_nsec=sn.vm_clock_nsec,
        vm_state_size=sn.vm_state_size,
        extra_data_size=len(sn.extra_data),
    ).pack()


@traced
def find_new_snapshot_id(bs: BlockDriverState) -> str:
    """One more than the largest number that is an id."""
    found = (re.match(r"\s*\d+", sn.id_str) for sn in state(bs).snapshots or ())
    return str(max((int(number[0]) for number in found if number), default=0) + 1)


@traced
def find_snapshot_by_id(bs: BlockDriverState, id_str: str) -> int:
    """The index of the snapshot with this id, or -1."""
    return next((i for i, sn in enumerate(state(bs).snapshots or ()) if sn.id_str == id_str), -1)


@traced
def find_snapshot_by_id_or_name(bs: BlockDriverState, name: str) -> int:
    """The index of the snapshot with this id, else of the first with this name, or -1."""
    ret = find_snapshot_by_id(bs, name)
    if ret >= 0:
        return ret
    return next((i for i, sn in enumerate(state(bs).snapshots or ()) if sn.name == name), -1)


@traced
def qcow2_snapshot_create(bs: BlockDriverState, sn_info: QEMUSnapshotInfo) -> int:
    """Make a snapshot of the disk as it is; an empty ``sn_info.id_str`` is filled in.

    Returns
    -------
    int
        0; -ENOENT if the id is taken; -errno, also if all is done but freeing the old table.
    """
    s = state(bs)
    s._free_error = 0
    if not sn_info.id_str:
        sn_info.id_str = find_new_snapshot_id(bs)
    if find_snapshot_by_id(bs, sn_info.id_str) >= 0:
        return -errno.ENOENT
    extra = SNAPSHOT_EXTRA.pack(sn_info.vm_state_size, bs.total_sectors * 512) if s._version >= 3 else b""
    sn = QCowSnapshot(
        id_str=sn_info.id_str,
        name=sn_info.name,
        vm_state_size=sn_info.vm_state_size & 0xFFFFFFFF,
        date_sec=sn_info.date_sec,
        date_nsec=sn_info.date_nsec,
        vm_clock_nsec=sn_info.vm_clock_nsec,
        extra_data=extra,
    )
    ret = guarded(bs, lambda: qcow2_update_snapshot_refcount(bs, s.l1_table_offset, s.l1_size, 1))
    if ret < 0:
        return ret
    length = 8 * s.l1_size
    sn.l1_table_offset = qcow2_alloc_clusters(bs, length)
    sn.l1_size = s.l1_size
    ret = sn.l1_table_offset
    if ret >= 0:
        ret = bdrv_pwrite(file_of(s), sn.l1_table_offset, be_bytes(l1_of(s)[: s.l1_size]), length)
    if ret >= 0:
        before = s.snapshots
        s.snapshots = [*(before or ()), sn]
        s.nb_snapshots += 1
        ret = qcow_write_snapshots(bs)
        if ret < 0:
            s.snapshots = before
            s.nb_snapshots -= 1
    return min(ret, 0) or s._free_error


@traced
def qcow2_snapshot_goto(bs: BlockDriverState, snapshot_id: str) -> int:
    """Make the disk what it was at a snapshot, given by id or name.

    Returns
    -------
    int
        0; -ENOENT; -ENOTSUP if the disk had another size then; -EIO.
    """
    s = state(bs)
    index = find_snapshot_by_id_or_name(bs, snapshot_id)
    if index < 0 or s.snapshots is None:
        return -errno.ENOENT
    sn = s.snapshots[index]
    if len(sn.extra_data) >= SNAPSHOT_EXTRA.size:
        size = SNAPSHOT_EXTRA.unpack_from(sn.extra_data)[1]
        if size != bs.total_sectors * 512:
            complain(
                s._filename, f"at snapshot {sn.id_str} the disk had {size} bytes; resize it to that first"
            )
            return -errno.ENOTSUP
    return -errno.EIO if guarded(bs, lambda: _goto(bs, sn)) < 0 else 0


def _goto(bs: BlockDriverState, sn: QCowSnapshot) -> int:
    s = state(bs)
    if not _usable(bs, sn):
        return -errno.EINVAL
    ret = qcow2_update_snapshot_refcount(bs, s.l1_table_offset, s.l1_size, -1)
    if ret < 0:
        return ret
    ret = qcow2_grow_l1_table(bs, sn.l1_size)
    if ret < 0:
        return ret
    hd = file_of(s)
    raw = bytearray(8 * s.l1_size)
    if bdrv_pread(hd, sn.l1_table_offset, raw, 8 * sn.l1_size) != 8 * sn.l1_size:
        return -errno.EIO
    if bdrv_pwrite(hd, s.l1_table_offset, raw, len(raw)) != len(raw):
        return -errno.EIO
    l1_of(s)[: s.l1_size] = words(raw)
    s._metadata = None
    return qcow2_update_snapshot_refcount(bs, s.l1_table_offset, s.l1_size, 1)


def _usable(bs: BlockDriverState, sn: QCowSnapshot) -> bool:
    """Whether a snapshot's L1 table has possible numbers, and covers the disk."""
    s = state(bs)
    if (
        sn.l1_table_offset & (s.cluster_size - 1) == 0
        and s.l1_vm_state_index <= sn.l1_size <= MAX_L1_BYTES // 8
    ):
        return True
    where = f"L1 table has {sn.l1_size} entries at {sn.l1_table_offset:#x}"
    complain(s._filename, f"snapshot {sn.id_str}: its {where}; check the image, or use another snapshot")
    return False


@traced
def qcow2_snapshot_delete(bs: BlockDriverState, snapshot_id: str) -> int:
    """Delete a snapshot, given by id or name; 0, -ENOENT or -errno."""
    s = state(bs)
    index = find_snapshot_by_id_or_name(bs, snapshot_id)
    if index < 0 or s.snapshots is None:
        return -errno.ENOENT
    return guarded(bs, lambda: _delete(bs, index), s.snapshots_size)


def _delete(bs: BlockDriverState, index: int) -> int:
    s = state(bs)
    assert s.snapshots is not None
    s._free_error = 0
    sn = s.snapshots[index]
    ret = qcow2_update_snapshot_refcount(bs, sn.l1_table_offset, sn.l1_size, -1)
    if ret < 0:
        return ret
    ret = qcow2_update_snapshot_refcount(bs, s.l1_table_offset, s.l1_size, 0)
    if ret < 0:
        return ret
    qcow2_free_clusters(bs, sn.l1_table_offset, 8 * sn.l1_size)
    remaining = s.snapshots[:index] + s.snapshots[index + 1 :]
    ret = s._free_error or leave_out(s, remaining, _table_of(remaining))
    if ret < 0:
        return ret
    s.snapshots = remaining
    s.nb_snapshots -= 1
    return qcow_write_snapshots(bs) or s._free_error


@traced
def qcow2_snapshot_list(bs: BlockDriverState) -> tuple[int, list[QEMUSnapshotInfo]]:
    """(their number, the snapshots)."""
    infos = []
    for sn in state(bs).snapshots or ():
        info = QEMUSnapshotInfo()
        info.id_str = pstrcpy(ID_STR_SIZE, sn.id_str)
        info.name = pstrcpy(NAME_SIZE, sn.name)
        info.vm_state_size = sn.vm_state_size
        info.date_sec = sn.date_sec
        info.date_nsec = sn.date_nsec
        info.vm_clock_nsec = sn.vm_clock_nsec
        infos.append(info)
    return len(infos), infos
