"""Disks that go with a migrating machine: block-migration.c, `migrate -b` and `migrate -i`.

    sector << 9 | DEVICE_BLOCK, len device_name, 1 MiB       a chunk of a disk
    percent << 9 | PROGRESS                                   how far the source is
    EOS                                                       ends each part

While the machine runs every chunk is sent once, read ahead asynchronously as far as the rate limit lets; what
the guest writes meanwhile is recorded and sent again, at the end, with the machine stopped. With -i ("shared
base") chunks are left out that only the backing file holds.

- `blk_mig_init()`: registers the section "block", which is empty without -b.
- `block_save_live(mon, f, stage, opaque)`, `block_load(f, opaque, version_id)`.
- `blk_mig_active`, `blk_mig_bytes_transferred/remaining/total`: for `info migrate`.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from typing import TYPE_CHECKING

from hypervisor import quirks
from hypervisor.block import (
    bdrv_aio_readv,
    bdrv_find,
    bdrv_get_dirty,
    bdrv_getlength,
    bdrv_is_allocated,
    bdrv_read,
    bdrv_reset_dirty,
    bdrv_set_dirty_tracking,
    bdrv_write,
)
from hypervisor.block_int import (
    BDRV_SECTOR_BITS,
    BDRV_SECTOR_SIZE,
    BDRV_SECTORS_PER_DIRTY_CHUNK,
    BlockDriverState,
)
from hypervisor.cutils import QEMUIOVector, iovec, qemu_iovec_init_external
from hypervisor.program import on_reset
from hypervisor.savevm import complain, register_savevm_live
from hypervisor.savevm_file import (
    QEMUFile,
    qemu_file_get_rate_limit,
    qemu_file_has_error,
    qemu_file_rate_limit,
    qemu_file_set_error,
    qemu_get_be64,
    qemu_get_buffer,
    qemu_get_byte,
    qemu_put_be64,
    qemu_put_buffer,
    qemu_put_byte,
)
from tracer import Struct, symbol, traced

if TYPE_CHECKING:
    from hypervisor.monitor import Monitor

C_FILE = "block-migration.c"

BLOCK_SIZE = BDRV_SECTORS_PER_DIRTY_CHUNK << BDRV_SECTOR_BITS
BLK_MIG_FLAG_DEVICE_BLOCK = 0x01
BLK_MIG_FLAG_EOS = 0x02
BLK_MIG_FLAG_PROGRESS = 0x04
MAX_IS_ALLOCATED_SEARCH = 65536
_BDRV_TYPE_HD = 0


class BlkMigDevState(Struct):
    """`BlkMigDevState`: how far one disk is, in sectors."""

    bs: BlockDriverState = BlockDriverState()
    bulk_completed: int = 0
    shared_base: int = 0
    cur_sector: int = 0
    completed_sectors: int = 0
    total_sectors: int = 0


class BlkMigBlock(Struct):
    """`BlkMigBlock`: one chunk that is read or was read."""

    buf: memoryview | None = None
    bmds: BlkMigDevState = BlkMigDevState()
    sector: int = 0
    qiov: QEMUIOVector | None = None
    ret: int = 0

    @property
    def data(self) -> memoryview:
        """The chunk's buffer."""
        assert self.buf is not None
        return self.buf


class BlkMigState(Struct):
    """`BlkMigState`: `submitted` chunks are being read, `read_done` wait to be sent."""

    blk_enable: int = 0
    shared_base: int = 0
    submitted: int = 0
    read_done: int = 0
    transferred: int = 0
    total_sector_sum: int = 0
    prev_progress: int = -1


block_mig_state = symbol(BlkMigState(), "block_mig_state")
_bmds_list: list[BlkMigDevState] = []
_blk_list: deque[BlkMigBlock] = deque()
_banner_printed = False


@on_reset
def _reset() -> None:
    global _banner_printed
    for name, value in vars(BlkMigState()).items():
        setattr(block_mig_state, name, value)
    _bmds_list.clear()
    _blk_list.clear()
    _banner_printed = False


@traced
def blk_send(f: QEMUFile, blk: BlkMigBlock) -> None:
    """Write a chunk."""
    name = blk.bmds.bs.device_name.encode()
    qemu_put_be64(f, blk.sector << BDRV_SECTOR_BITS | BLK_MIG_FLAG_DEVICE_BLOCK)
    qemu_put_byte(f, len(name))
    qemu_put_buffer(f, name, len(name))
    qemu_put_buffer(f, blk.data, BLOCK_SIZE)


@traced
def blk_mig_active() -> int:
    """Whether disks are under way."""
    return int(bool(_bmds_list))


@traced
def blk_mig_bytes_transferred() -> int:
    """Bytes of disks sent once."""
    return sum(bmds.completed_sectors for bmds in _bmds_list) << BDRV_SECTOR_BITS


@traced
def blk_mig_bytes_remaining() -> int:
    """Bytes of disks not sent yet."""
    return blk_mig_bytes_total() - blk_mig_bytes_transferred()


@traced
def blk_mig_bytes_total() -> int:
    """Bytes of all disks."""
    return sum(bmds.total_sectors for bmds in _bmds_list) << BDRV_SECTOR_BITS


@traced
def blk_mig_read_cb(opaque: BlkMigBlock, ret: int) -> None:
    """A chunk was read: it can be sent, unless its migration was given up meanwhile."""
    if opaque.bmds not in _bmds_list:
        return
    opaque.ret = ret
    _blk_list.append(opaque)
    block_mig_state.submitted -= 1
    block_mig_state.read_done += 1


def _refuse_sector(mon: Monitor | None, f: QEMUFile, sector: int) -> None:
    from hypervisor.monitor import monitor_printf

    monitor_printf(mon, "Error reading sector %d\n", sector)
    qemu_file_set_error(f, f"the disk's sector {sector} cannot be read")


def _begin_of_data(bmds: BlkMigDevState) -> int:
    """The sector to go on with: with a shared base, the next one that this image itself holds."""
    sector = bmds.cur_sector
    while bmds.shared_base and sector < bmds.total_sectors:
        allocated, alike = bdrv_is_allocated(bmds.bs, sector, MAX_IS_ALLOCATED_SEARCH)
        if allocated:
            break
        sector += max(alike, 1)
    return sector


def _chunk(bmds: BlkMigDevState, sector: int) -> tuple[BlkMigBlock, memoryview]:
    """An empty chunk, and the part of it that is on the disk: the last one may be shorter."""
    blk = BlkMigBlock(buf=memoryview(bytearray(BLOCK_SIZE)), bmds=bmds, sector=sector)
    sectors = min(bmds.total_sectors - sector, BDRV_SECTORS_PER_DIRTY_CHUNK)
    return blk, blk.data[: sectors * BDRV_SECTOR_SIZE]


def _read_later(blk: BlkMigBlock, part: memoryview) -> bool:
    """Begin to read a chunk; False when that cannot be."""
    blk.qiov = QEMUIOVector()
    qemu_iovec_init_external(blk.qiov, [iovec(part, len(part))], 1)
    block_mig_state.submitted += 1
    sectors = len(part) // BDRV_SECTOR_SIZE
    if bdrv_aio_readv(blk.bmds.bs, blk.sector, blk.qiov, sectors, blk_mig_read_cb, blk) is not None:
        return True
    block_mig_state.submitted -= 1
    return False


def _read_and_send(f: QEMUFile, blk: BlkMigBlock, part: memoryview) -> bool:
    """Read a chunk and write it into the stream; False when it cannot be read."""
    if bdrv_read(blk.bmds.bs, blk.sector, part, len(part) // BDRV_SECTOR_SIZE) < 0:
        return False
    blk_send(f, blk)
    return True


@traced
def mig_save_device_bulk(mon: Monitor | None, f: QEMUFile, bmds: BlkMigDevState, is_async: int) -> int:
    """Read the next chunk of a disk, to be sent later, or at once without `is_async`; 1 after the last."""
    sector = _begin_of_data(bmds)
    if sector >= bmds.total_sectors:
        bmds.cur_sector = bmds.completed_sectors = bmds.total_sectors
        return 1
    bmds.completed_sectors = sector
    blk, part = _chunk(bmds, sector & -BDRV_SECTORS_PER_DIRTY_CHUNK)
    if not (_read_later(blk, part) if is_async else _read_and_send(f, blk, part)):
        _refuse_sector(mon, f, blk.sector)
        return 0
    bdrv_reset_dirty(bmds.bs, blk.sector, len(part) // BDRV_SECTOR_SIZE)
    bmds.cur_sector = blk.sector + len(part) // BDRV_SECTOR_SIZE
    return int(bmds.cur_sector >= bmds.total_sectors)


@traced
def set_dirty_tracking(enable: int) -> None:
    """Record on all disks what the guest writes, or cease to."""
    for bmds in _bmds_list:
        bdrv_set_dirty_tracking(bmds.bs, enable)


@traced
def init_blk_migration(mon: Monitor | None, f: QEMUFile) -> None:
    """List the disks."""
    from hypervisor.block.bdrv_registry import devices
    from hypervisor.monitor import monitor_printf

    s = block_mig_state
    s.submitted = s.read_done = s.transferred = s.total_sector_sum = 0
    s.prev_progress = -1
    for bs in devices():
        sectors = bdrv_getlength(bs) >> BDRV_SECTOR_BITS if bs.type == _BDRV_TYPE_HD else 0
        if sectors <= 0:
            continue
        _bmds_list.append(BlkMigDevState(bs=bs, total_sectors=sectors, shared_base=s.shared_base))
        s.total_sector_sum += sectors
        what = "migration for %s with shared base image" if s.shared_base else "full migration for %s"
        monitor_printf(mon, f"Start {what}\n", bs.device_name)


@traced
def blk_mig_save_bulked_block(mon: Monitor | None, f: QEMUFile, is_async: int) -> int:
    """Read one more chunk and say how far it is; 0 when all were read."""
    from hypervisor.monitor import monitor_flush, monitor_printf

    s, completed_sector_sum, ret = block_mig_state, 0, 0
    for bmds in _bmds_list:
        if not bmds.bulk_completed:
            bmds.bulk_completed = mig_save_device_bulk(mon, f, bmds, is_async)
            ret = 1
        completed_sector_sum += bmds.completed_sectors
        if ret:
            break
    progress = completed_sector_sum * 100 // s.total_sector_sum if s.total_sector_sum else 100
    if progress != s.prev_progress:
        s.prev_progress = progress
        qemu_put_be64(f, progress << BDRV_SECTOR_BITS | BLK_MIG_FLAG_PROGRESS)
        monitor_printf(mon, "Completed %d %%\r", progress)
        monitor_flush(mon)
    return 0 if qemu_file_has_error(f) else ret


@traced
def blk_mig_save_dirty_blocks(mon: Monitor | None, f: QEMUFile) -> None:
    """Send again what the guest wrote meanwhile."""
    for bmds in _bmds_list:
        for sector in range(0, bmds.cur_sector, BDRV_SECTORS_PER_DIRTY_CHUNK):
            if not bdrv_get_dirty(bmds.bs, sector):
                continue
            blk, part = _chunk(bmds, sector)
            if not _read_and_send(f, blk, part):
                _refuse_sector(mon, f, sector)
                return
            bdrv_reset_dirty(bmds.bs, sector, len(part) // BDRV_SECTOR_SIZE)


@traced
def flush_blks(f: QEMUFile) -> None:
    """Send the chunks that were read, as far as the rate limit lets."""
    while _blk_list:
        if qemu_file_rate_limit(f):
            break
        if _blk_list[0].ret < 0:
            qemu_file_set_error(f, os.strerror(-_blk_list[0].ret))
            break
        blk_send(f, _blk_list.popleft())
        block_mig_state.read_done -= 1
        block_mig_state.transferred += 1


@traced
def is_stage2_completed() -> int:
    """Whether every chunk was sent once."""
    return int(block_mig_state.submitted == 0 and all(bmds.bulk_completed for bmds in _bmds_list))


@traced
def blk_mig_cleanup(mon: Monitor | None) -> None:
    """Forget disks and chunks."""
    from hypervisor.monitor import monitor_printf

    for bmds in _bmds_list:
        # quirk: 0.12.4 empties the list first, and so goes on recording writes for ever.
        bmds.bs.dirty_bitmap = None
    _bmds_list.clear()
    _blk_list.clear()
    set_dirty_tracking(0)
    monitor_printf(mon, "\n")


def _flushed(mon: Monitor | None, f: QEMUFile) -> bool:
    """Write the chunks that were read; False when the stream has failed, after giving up."""
    flush_blks(f)
    if qemu_file_has_error(f):
        blk_mig_cleanup(mon)
        return False
    return True


def _finished(mon: Monitor | None, f: QEMUFile) -> bool:
    """Write all that is left, while the machine stands; False when the stream has failed."""
    from hypervisor.monitor import monitor_printf

    while blk_mig_save_bulked_block(mon, f, 0):
        pass
    _send_the_rest(f)
    blk_mig_save_dirty_blocks(mon, f)
    blk_mig_cleanup(mon)
    qemu_put_be64(f, 100 << BDRV_SECTOR_BITS | BLK_MIG_FLAG_PROGRESS)
    if qemu_file_has_error(f):
        return False
    monitor_printf(mon, "Block migration completed\n")
    return True


@traced
def block_save_live(mon: Monitor | None, f: QEMUFile, stage: int, opaque: BlkMigState) -> int:
    """Write a part of the disks; returns 1 when stage 2 has sent every chunk once, or without disks."""
    s = block_mig_state
    if stage < 0:
        blk_mig_cleanup(mon)
        return 0
    if s.blk_enable != 1:
        qemu_put_be64(f, BLK_MIG_FLAG_EOS)
        return 1
    if stage == 1:
        init_blk_migration(mon, f)
        set_dirty_tracking(1)
    if not _flushed(mon, f):
        return 0
    while (s.submitted + s.read_done) * BLOCK_SIZE < qemu_file_get_rate_limit(f):
        if not blk_mig_save_bulked_block(mon, f, 1):
            break
    if not _flushed(mon, f) or (stage == 3 and not _finished(mon, f)):
        return 0
    qemu_put_be64(f, BLK_MIG_FLAG_EOS)
    return int(stage == 2 and is_stage2_completed())


def _send_the_rest(f: QEMUFile) -> None:
    """Send chunks that the rate limit held back; the real program forgets them."""
    if _blk_list:
        quirks.note(
            "block-rest",
            "0.12.4 loses the chunks of a disk that its rate limit holds back at the end; here they go",
        )
    while _blk_list and not qemu_file_has_error(f):
        blk = _blk_list.popleft()
        if blk.ret < 0:
            qemu_file_set_error(f, os.strerror(-blk.ret))
            return
        blk_send(f, blk)


@traced
def block_load(f: QEMUFile, opaque: BlkMigState, version_id: int) -> int:
    """Read a part of the disks and write it to those of this machine.

    Errors
    ------
    -EINVAL : a disk that this machine has not, or that is shorter; damaged data.
    -EIO, -ENOSPC ... : it cannot be written.
    """
    flags = 0
    while not flags & BLK_MIG_FLAG_EOS:
        addr = qemu_get_be64(f)
        flags, addr = addr & (BDRV_SECTOR_SIZE - 1), addr >> BDRV_SECTOR_BITS
        if qemu_file_has_error(f):
            return -errno.EIO
        if flags & BLK_MIG_FLAG_DEVICE_BLOCK:
            ret = _load_chunk(f, addr)
            if ret < 0:
                return ret
        elif flags & BLK_MIG_FLAG_PROGRESS:
            _show_progress(addr)
        elif not flags & BLK_MIG_FLAG_EOS:
            complain("Unknown flags")
            return -errno.EINVAL
        if qemu_file_has_error(f):
            return -errno.EIO
    return 0


def _load_chunk(f: QEMUFile, sector: int) -> int:
    name = bytearray(qemu_get_byte(f))
    qemu_get_buffer(f, memoryview(name), len(name))
    device = name.decode("utf-8", "backslashreplace")
    bs = bdrv_find(device)
    if bs is None:
        complain(f"Error unknown block device {device}")
        return -errno.EINVAL
    buf = bytearray(BLOCK_SIZE)
    qemu_get_buffer(f, memoryview(buf), BLOCK_SIZE)
    if qemu_file_has_error(f):
        return -errno.EIO
    left = bs.total_sectors - sector
    if left <= 0:
        complain(f"studykvm: {device} here is shorter than sector {sector:,}")
        return -errno.EINVAL
    # quirk: 0.12.4 writes whole chunks and does not ask how that went, so a disk's last part is lost if it is
    # shorter.
    nr_sectors = min(left, BDRV_SECTORS_PER_DIRTY_CHUNK)
    ret = bdrv_write(bs, sector, memoryview(buf)[: nr_sectors * BDRV_SECTOR_SIZE], nr_sectors)
    if ret < 0:
        complain(f"studykvm: {device} cannot be written at sector {sector:,}: {os.strerror(-ret)}")
    return ret


def _show_progress(percent: int) -> None:
    global _banner_printed
    if not _banner_printed:
        print("Receiving block device images")
        _banner_printed = True
    print(f"Completed {percent} %", end="\n" if percent == 100 else "\r", flush=True)


@traced
def block_set_params(blk_enable: int, shared_base: int, opaque: BlkMigState) -> None:
    """Say whether disks go with it, and whether without what is in backing files."""
    block_mig_state.blk_enable = blk_enable | shared_base
    block_mig_state.shared_base = shared_base


@traced
def blk_mig_init() -> None:
    """Have disks saved, where asked for."""
    register_savevm_live("block", 0, 1, block_set_params, block_save_live, None, block_load, block_mig_state)
