"""block.c, part two: synchronous reading and writing, and what a driver can do to an image.

Sectors have 512 bytes. Functions return 0 or a count, or -errno: -ENOMEDIUM without a medium, -EACCES for
a read-only one, -EIO out of range, -ENOTSUP where the driver has no such function.

- ``bdrv_read``, ``bdrv_write``: whole sectors; ``bdrv_pread``, ``bdrv_pwrite``: any bytes
- ``bdrv_getlength``, ``bdrv_truncate``, ``bdrv_flush``, ``bdrv_is_allocated``, ``bdrv_commit``
- ``bdrv_set_dirty_tracking``, ``bdrv_get_dirty``, ``bdrv_reset_dirty``: for block migration
- ``bdrv_snapshot_*``, ``bdrv_save_vmstate``, ``bdrv_load_vmstate``, ``bdrv_get_info``
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from hypervisor.block.bdrv_registry import devices
from hypervisor.block_int import (
    BDRV_SECTOR_BITS,
    BDRV_SECTOR_SIZE,
    BDRV_SECTORS_PER_DIRTY_CHUNK,
    BlockDriverInfo,
    BlockDriverState,
    QEMUSnapshotInfo,
    ReadBuffer,
    WriteBuffer,
)
from tracer import traced

C_FILE = "block.c"


@traced
def bdrv_is_inserted(bs: BlockDriverState) -> int:
    """1 if there is a medium."""
    drv = bs.drv
    if drv is None:
        return 0
    if drv.bdrv_is_inserted is None:
        return 1
    return drv.bdrv_is_inserted(bs)


@traced
def bdrv_is_removable(bs: BlockDriverState) -> int:
    """1 for a cdrom or a floppy drive."""
    return bs.removable


@traced
def bdrv_is_read_only(bs: BlockDriverState) -> int:
    """1 if the medium must not be written."""
    return bs.read_only


@traced
def bdrv_getlength(bs: BlockDriverState) -> int:
    """The length in bytes, or -errno."""
    drv = bs.drv
    if drv is None:
        return -errno.ENOMEDIUM
    if drv.bdrv_getlength is None:
        return bs.total_sectors * BDRV_SECTOR_SIZE
    return drv.bdrv_getlength(bs)


@traced
def bdrv_check_byte_request(bs: BlockDriverState, offset: int, size: int) -> int:
    """0 if `size` bytes at `offset` lie within the medium; what may grow has no end."""
    if not bdrv_is_inserted(bs):
        return -errno.ENOMEDIUM
    if bs.growable:
        return 0
    length = bdrv_getlength(bs)
    if offset < 0 or size < 0 or offset > length or length - offset < size:
        return -errno.EIO
    return 0


@traced
def bdrv_check_request(bs: BlockDriverState, sector_num: int, nb_sectors: int) -> int:
    """`bdrv_check_byte_request` in sectors."""
    return bdrv_check_byte_request(bs, sector_num * 512, nb_sectors * 512)


@traced
def bdrv_read(bs: BlockDriverState, sector_num: int, buf: WriteBuffer, nb_sectors: int) -> int:
    """Read sectors into `buf`.

    Returns
    -------
    int
        0 or -errno. A positive number is raw's short count: the file ended, the rest is zeros.
    """
    drv = bs.drv
    if drv is None:
        return -errno.ENOMEDIUM
    if bdrv_check_request(bs, sector_num, nb_sectors):
        return -errno.EIO
    assert drv.bdrv_read is not None
    return drv.bdrv_read(bs, sector_num, buf, nb_sectors)


@traced
def set_dirty_bitmap(bs: BlockDriverState, sector_num: int, nb_sectors: int, dirty: int) -> None:
    """Mark the chunks of 2048 sectors that a write touches, or clear them."""
    bitmap = bs.dirty_bitmap
    assert bitmap is not None
    start = sector_num // BDRV_SECTORS_PER_DIRTY_CHUNK
    end = (sector_num + nb_sectors - 1) // BDRV_SECTORS_PER_DIRTY_CHUNK
    for chunk in range(start, min(end, len(bitmap) * 8 - 1) + 1):
        if dirty:
            bitmap[chunk // 8] |= 1 << chunk % 8
        else:
            bitmap[chunk // 8] &= ~(1 << chunk % 8)


@traced
def bdrv_write(bs: BlockDriverState, sector_num: int, buf: ReadBuffer, nb_sectors: int) -> int:
    """Write sectors from `buf`; 0 or -errno."""
    drv = bs.drv
    if drv is None:
        return -errno.ENOMEDIUM
    if bs.read_only:
        return -errno.EACCES
    if bdrv_check_request(bs, sector_num, nb_sectors):
        return -errno.EIO
    if bs.dirty_bitmap is not None:
        set_dirty_bitmap(bs, sector_num, nb_sectors, 1)
    assert drv.bdrv_write is not None
    return drv.bdrv_write(bs, sector_num, buf, nb_sectors)


def _pieces(offset: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Cut a range of bytes into a part of a sector, whole sectors, and a part again: as many as there are.

    Yields the sector, where in it the piece begins, and its length: a multiple of 512 for whole ones.

    >>> list(_pieces(500, 1100))
    [(0, 500, 12), (1, 0, 1024), (3, 0, 64)]
    """
    end = offset + count
    while offset < end:
        sector, within = divmod(offset, BDRV_SECTOR_SIZE)
        left = end - offset
        whole = 0 if within else left - left % BDRV_SECTOR_SIZE
        length = whole or min(BDRV_SECTOR_SIZE - within, left)
        yield sector, within, length
        offset += length


@traced
def bdrv_pread(bs: BlockDriverState, offset: int, buf: WriteBuffer, count1: int) -> int:
    """Read `count1` bytes at any `offset` into `buf`; `count1` or -errno."""
    wanted, scratch = memoryview(buf), bytearray(BDRV_SECTOR_SIZE)
    for sector, within, length in _pieces(offset, count1):
        piece, wanted = wanted[:length], wanted[length:]
        if length % BDRV_SECTOR_SIZE:
            ret = bdrv_read(bs, sector, scratch, 1)
            if ret >= 0:
                piece[:] = scratch[within : within + length]
        else:
            ret = bdrv_read(bs, sector, piece, length // BDRV_SECTOR_SIZE)
        if ret < 0:
            return ret
    return count1


@traced
def bdrv_pwrite(bs: BlockDriverState, offset: int, buf: ReadBuffer, count1: int) -> int:
    """Write `count1` bytes of `buf` at any `offset`; `count1` or -errno.

    A sector that is written in part is read first.
    """
    given, scratch = memoryview(buf), bytearray(BDRV_SECTOR_SIZE)
    for sector, within, length in _pieces(offset, count1):
        piece, given = given[:length], given[length:]
        if length % BDRV_SECTOR_SIZE:
            ret = bdrv_read(bs, sector, scratch, 1)
            if ret >= 0:
                scratch[within : within + length] = piece
                ret = bdrv_write(bs, sector, scratch, 1)
        else:
            ret = bdrv_write(bs, sector, piece, length // BDRV_SECTOR_SIZE)
        if ret < 0:
            return ret
    return count1


def _cannot(bs: BlockDriverState, name: str) -> int:
    """-ENOMEDIUM without a medium, -ENOTSUP where its driver lacks a function; 0 where it has it."""
    if bs.drv is None:
        return -errno.ENOMEDIUM
    return -errno.ENOTSUP if getattr(bs.drv, name) is None else 0


def _by_driver(bs: BlockDriverState, name: str, *args: object) -> int:
    """Have the driver do it, or say that it cannot."""
    return _cannot(bs, name) or getattr(bs.drv, name)(bs, *args)


@traced
def bdrv_truncate(bs: BlockDriverState, offset: int) -> int:
    """Cut or extend the medium to `offset` bytes."""
    if wrong := _cannot(bs, "bdrv_truncate"):
        return wrong
    if bs.read_only:
        return -errno.EACCES
    return _by_driver(bs, "bdrv_truncate", offset)


@traced
def bdrv_flush(bs: BlockDriverState) -> None:
    """Force what was written to the disk, the backing file's too."""
    if bs.drv is None:
        return
    if bs.drv.bdrv_flush is not None:
        bs.drv.bdrv_flush(bs)
    if bs.backing_hd is not None:
        bdrv_flush(bs.backing_hd)


@traced
def bdrv_flush_all() -> None:
    """`bdrv_flush` every device that has something to flush."""
    for bs in devices():
        if (
            bs.drv is not None
            and not bdrv_is_read_only(bs)
            and (not bdrv_is_removable(bs) or bdrv_is_inserted(bs))
        ):
            bdrv_flush(bs)


@traced
def bdrv_is_allocated(bs: BlockDriverState, sector_num: int, nb_sectors: int) -> tuple[int, int]:
    """Whether a sector is in the image itself, and how many from it on, up to `nb_sectors`, are alike.

    A driver without the function holds all its sectors. Without a medium: -ENOMEDIUM, where C crashes.
    """
    if bs.drv is None:
        return -errno.ENOMEDIUM, 0
    if bs.drv.bdrv_is_allocated is None:
        if sector_num >= bs.total_sectors:
            return 0, 0
        return 1, min(bs.total_sectors - sector_num, nb_sectors)
    return bs.drv.bdrv_is_allocated(bs, sector_num, nb_sectors)


@traced
def bdrv_check(bs: BlockDriverState) -> int:
    """The number of errors found in the image, or -errno."""
    assert bs.drv is not None
    if bs.drv.bdrv_check is None:
        return -errno.ENOTSUP
    return bs.drv.bdrv_check(bs)


@traced
def bdrv_commit(bs: BlockDriverState) -> int:
    """Write every allocated sector into the backing file, one at a time, and empty the image."""
    drv = bs.drv
    if drv is None:
        return -errno.ENOMEDIUM
    if bs.read_only:
        return -errno.EACCES
    if bs.backing_hd is None:
        return -errno.ENOTSUP
    sector = bytearray(BDRV_SECTOR_SIZE)
    total_sectors = bdrv_getlength(bs) >> BDRV_SECTOR_BITS
    i = 0
    while i < total_sectors:
        assert drv.bdrv_is_allocated is not None
        allocated, n = drv.bdrv_is_allocated(bs, i, 65536)
        if n <= 0:
            return -errno.EIO
        if not allocated:
            i += n
            continue
        for _ in range(n):
            if bdrv_read(bs, i, sector, 1) != 0 or bdrv_write(bs.backing_hd, i, sector, 1) != 0:
                return -errno.EIO
            i += 1
    if drv.bdrv_make_empty is not None:
        return drv.bdrv_make_empty(bs)
    return 0


@traced
def bdrv_write_compressed(
    bs: BlockDriverState, sector_num: int, buf: ReadBuffer | None, nb_sectors: int
) -> int:
    """Write a cluster compressed; with `nb_sectors` 0, finish a compressed image."""
    if wrong := _cannot(bs, "bdrv_write_compressed"):
        return wrong
    if bdrv_check_request(bs, sector_num, nb_sectors):
        return -errno.EIO
    if bs.dirty_bitmap is not None:
        set_dirty_bitmap(bs, sector_num, nb_sectors, 1)
    return _by_driver(bs, "bdrv_write_compressed", sector_num, buf, nb_sectors)


@traced
def bdrv_get_info(bs: BlockDriverState, bdi: BlockDriverInfo) -> int:
    """Fill `bdi` with the cluster size and where a VM state would go."""
    if wrong := _cannot(bs, "bdrv_get_info"):
        return wrong
    bdi.cluster_size = bdi.vm_state_offset = 0
    return _by_driver(bs, "bdrv_get_info", bdi)


@traced
def bdrv_save_vmstate(bs: BlockDriverState, buf: ReadBuffer, pos: int, size: int) -> int:
    """Write `size` bytes of a VM state at `pos` within it; the count or -errno."""
    return _by_driver(bs, "bdrv_save_vmstate", buf, pos, size)


@traced
def bdrv_load_vmstate(bs: BlockDriverState, buf: WriteBuffer, pos: int, size: int) -> int:
    """Read `size` bytes of a VM state at `pos` within it; the count or -errno."""
    return _by_driver(bs, "bdrv_load_vmstate", buf, pos, size)


@traced
def bdrv_snapshot_create(bs: BlockDriverState, sn_info: QEMUSnapshotInfo) -> int:
    """Take an internal snapshot."""
    return _by_driver(bs, "bdrv_snapshot_create", sn_info)


@traced
def bdrv_snapshot_goto(bs: BlockDriverState, snapshot_id: str) -> int:
    """Return the image to a snapshot, named by id or by name."""
    return _by_driver(bs, "bdrv_snapshot_goto", snapshot_id)


@traced
def bdrv_snapshot_delete(bs: BlockDriverState, snapshot_id: str) -> int:
    """Delete a snapshot, named by id or by name."""
    return _by_driver(bs, "bdrv_snapshot_delete", snapshot_id)


@traced
def bdrv_snapshot_list(bs: BlockDriverState) -> tuple[int, list[QEMUSnapshotInfo]]:
    """The number of snapshots or -errno, and the snapshots."""
    if wrong := _cannot(bs, "bdrv_snapshot_list"):
        return wrong, []
    assert bs.drv is not None and bs.drv.bdrv_snapshot_list is not None
    return bs.drv.bdrv_snapshot_list(bs)


@traced
def bdrv_set_dirty_tracking(bs: BlockDriverState, enable: int) -> None:
    """Begin (with all clean) or end recording which chunks are written."""
    if not enable:
        bs.dirty_bitmap = None
    elif bs.dirty_bitmap is None:
        chunk_bits = BDRV_SECTORS_PER_DIRTY_CHUNK * 8
        sectors = max(bdrv_getlength(bs), 0) >> BDRV_SECTOR_BITS
        bs.dirty_bitmap = bytearray((sectors + chunk_bits - 1) // chunk_bits)


@traced
def bdrv_get_dirty(bs: BlockDriverState, sector: int) -> int:
    """Not 0 if the chunk of `sector` was written since it was last reset."""
    chunk = sector // BDRV_SECTORS_PER_DIRTY_CHUNK
    if bs.dirty_bitmap is not None and sector << BDRV_SECTOR_BITS < bdrv_getlength(bs):
        return bs.dirty_bitmap[chunk // 8] & 1 << chunk % 8
    return 0


@traced
def bdrv_reset_dirty(bs: BlockDriverState, cur_sector: int, nr_sectors: int) -> None:
    """Mark chunks clean."""
    set_dirty_bitmap(bs, cur_sector, nr_sectors, 0)
