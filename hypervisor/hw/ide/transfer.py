"""Reading and writing sectors, by the data port and by bus-master DMA: parts of hw/ide/core.c.

    ide_sector_read_dma -> ide_dma_start            waits for the guest to start the bus master
    bmdma_cmd_writeb -> ide_read_dma_cb(0)          first piece: dma_buf_prepare, dma_bdrv_read
    (completion)      -> ide_read_dma_cb(ret)       next piece, or status, interrupt and end

Failing requests go through `ide_handle_rw_error`: reported to the guest, or the machine stops (rerror=,
werror=) and tries again when it is started.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from hypervisor.block import bdrv_aio_cancel, bdrv_read, bdrv_write
from hypervisor.block_int import BlockDriverAIOCB, BlockDriverCompletionFunc, BlockDriverState
from hypervisor.disk_errors import disk_failed
from hypervisor.dma_helpers import (
    QEMUSGList,
    dma_bdrv_read,
    dma_bdrv_write,
    qemu_sglist_add,
    qemu_sglist_destroy,
    qemu_sglist_init,
)
from hypervisor.exec import cpu_physical_memory_read, cpu_physical_memory_write
from hypervisor.hw.ide.internal import (
    ABRT_ERR,
    BM_STATUS_DMA_RETRY,
    BM_STATUS_DMAING,
    BM_STATUS_INT,
    BM_STATUS_PIO_RETRY,
    BM_STATUS_RETRY_READ,
    BUSY_STAT,
    DRQ_STAT,
    ERR_STAT,
    READY_STAT,
    SEEK_STAT,
    BMDMAState,
    IDEState,
    bmdma_active_if,
    ide_set_irq,
)
from hypervisor.program import linked
from hypervisor.vl_drive import BlockInterfaceErrorAction, drive_get_on_error
from hypervisor.vl_loop import give_up, vm_stop
from tracer import traced

C_FILE = "hw/ide/core.c"


@traced
def ide_transfer_start(
    s: IDEState, buf: int, size: int, end_transfer_func: Callable[[IDEState], None]
) -> None:
    """Offer `size` bytes of the buffer from offset `buf` on at the data port."""
    s.end_transfer_func = end_transfer_func
    s.data_ptr = buf
    s.data_end = buf + size
    if not s.status & ERR_STAT:
        s.status |= DRQ_STAT


@traced
def ide_transfer_stop(s: IDEState) -> None:
    """End the transfer."""
    s.end_transfer_func = ide_transfer_stop
    s.data_ptr = s.data_end = 0
    s.status &= ~DRQ_STAT


@traced
def ide_abort_command(s: IDEState) -> None:
    """Refuse or fail a command."""
    s.status = READY_STAT | ERR_STAT
    s.error = ABRT_ERR


@traced
def ide_get_sector(s: IDEState) -> int:
    """Sector number that the registers name: 48 or 28 bits, or cylinder, head and sector."""
    return _sector(s)


def _sector(s: IDEState) -> int:
    if not s.select & 0x40:
        cylinder = s.hcyl << 8 | s.lcyl
        return (cylinder * s.heads + (s.select & 0x0F)) * s.sectors + s.sector - 1
    low = s.hcyl << 16 | s.lcyl << 8 | s.sector
    if s.lba48:
        return s.hob_hcyl << 40 | s.hob_lcyl << 32 | s.hob_sector << 24 | low
    return (s.select & 0x0F) << 24 | low


@traced
def ide_set_sector(s: IDEState, sector_num: int) -> None:
    """Put a sector number into the registers."""
    if not s.select & 0x40:
        # A missing drive has no geometry.
        heads, sectors = s.heads or 1, s.sectors or 1
        track, r = divmod(sector_num, sectors)
        cyl, head = divmod(track, heads)
        s.hcyl, s.lcyl = cyl >> 8 & 0xFF, cyl & 0xFF
        s.select = s.select & 0xF0 | head & 0x0F
        s.sector = r + 1 & 0xFF
        return
    s.sector = sector_num & 0xFF
    s.lcyl = sector_num >> 8 & 0xFF
    s.hcyl = sector_num >> 16 & 0xFF
    if s.lba48:
        s.hob_sector = sector_num >> 24 & 0xFF
        s.hob_lcyl = sector_num >> 32 & 0xFF
        s.hob_hcyl = sector_num >> 40 & 0xFF
    else:
        s.select = (s.select & 0xF0 | sector_num >> 24) & 0xFF


@traced
def ide_rw_error(s: IDEState) -> None:
    """Fail a transfer by the data port."""
    ide_abort_command(s)
    ide_set_irq(s.channel)


@traced
def ide_sector_read(s: IDEState) -> None:
    """Read the next sectors and offer them at the data port; the guest waits meanwhile."""
    s.status = READY_STAT | SEEK_STAT
    s.error = 0
    sector_num = ide_get_sector(s)
    n = min(s.nsector, s.req_nb_sectors)
    if n == 0:
        ide_transfer_stop(s)
        return
    ret = bdrv_read(s.drive, sector_num, s.io_buffer, n)
    if ret != 0 and ide_handle_rw_error(s, -ret, BM_STATUS_PIO_RETRY | BM_STATUS_RETRY_READ):
        return
    ide_transfer_start(s, 0, 512 * n, ide_sector_read)
    ide_set_irq(s.channel)
    ide_set_sector(s, sector_num + n)
    s.nsector -= n


@traced
def ide_sector_write(s: IDEState) -> None:
    """Write what came by the data port and ask for more; the guest waits meanwhile."""
    s.status = READY_STAT | SEEK_STAT
    sector_num = ide_get_sector(s)
    n = min(s.nsector, s.req_nb_sectors)
    ret = bdrv_write(s.drive, sector_num, s.io_buffer, n)
    if ret != 0 and ide_handle_rw_error(s, -ret, BM_STATUS_PIO_RETRY):
        return
    s.nsector -= n
    if s.nsector == 0:
        ide_transfer_stop(s)
    else:
        ide_transfer_start(s, 0, 512 * min(s.nsector, s.req_nb_sectors), ide_sector_write)
    ide_set_sector(s, sector_num + n)
    ide_set_irq(s.channel)


@traced
def ide_sector_write_timer_cb(opaque: IDEState) -> None:
    """Ask for the interrupt that -win2k-hack delays."""
    ide_set_irq(opaque.channel)


def _next_entry(bm: BMDMAState) -> bool:
    """Take the next entry of the bus master's table; False at its end."""
    if bm.cur_prd_last or bm.cur_addr - bm.addr >= 4096:
        return False
    entry = cpu_physical_memory_read(bm.cur_addr, 8)
    bm.cur_addr += 8
    size = int.from_bytes(entry[4:], "little")
    bm.cur_prd_len = size & 0xFFFE or 0x10000
    bm.cur_prd_addr = int.from_bytes(entry[:4], "little")
    bm.cur_prd_last = size & 0x80000000
    return True


@traced
def dma_buf_prepare(bm: BMDMAState, is_write: int) -> int:
    """Collect the pieces of memory the table names; 0 if there are none left."""
    s = bmdma_active_if(bm)
    qemu_sglist_init(s.sg, s.nsector // 8 + 1)
    s.io_buffer_size = 0
    while bm.cur_prd_len or _next_entry(bm):
        length = bm.cur_prd_len
        qemu_sglist_add(s.sg, bm.cur_prd_addr, length)
        bm.cur_prd_addr += length
        bm.cur_prd_len = 0
        s.io_buffer_size += length
    return int(s.io_buffer_size != 0)


@traced
def dma_buf_commit(s: IDEState, is_write: int) -> None:
    """Give up the list of pieces."""
    qemu_sglist_destroy(s.sg)


@traced
def dma_buf_rw(bm: BMDMAState, is_write: int) -> int:
    """Copy the buffer to or from the pieces of memory; 0 if the table was too short."""
    s = bmdma_active_if(bm)
    while (rest := s.io_buffer_size - s.io_buffer_index) > 0:
        if bm.cur_prd_len == 0 and not _next_entry(bm):
            return 0
        length = min(rest, bm.cur_prd_len)
        piece = s.io_buffer[s.io_buffer_index : s.io_buffer_index + length]
        if is_write:
            cpu_physical_memory_write(bm.cur_prd_addr, piece, length)
        else:
            piece[:] = cpu_physical_memory_read(bm.cur_prd_addr, length)
        bm.cur_prd_addr += length
        bm.cur_prd_len -= length
        s.io_buffer_index += length
    return 1


@traced
def ide_dma_error(s: IDEState) -> None:
    """Fail a transfer by DMA."""
    ide_transfer_stop(s)
    s.error = ABRT_ERR
    s.status = READY_STAT | ERR_STAT
    ide_set_irq(s.channel)


@traced
def ide_handle_rw_error(s: IDEState, error: int, op: int) -> int:
    """Do with a failed request as rerror= or werror= say; 0 if the guest shall not notice."""
    is_read = op & BM_STATUS_RETRY_READ
    action = drive_get_on_error(s.drive, is_read)
    if action == BlockInterfaceErrorAction.BLOCK_ERR_IGNORE:
        return 0
    stop_on_full = action == BlockInterfaceErrorAction.BLOCK_ERR_STOP_ENOSPC and error == errno.ENOSPC
    bm = s.channel.bmdma
    if bm is not None and (stop_on_full or action == BlockInterfaceErrorAction.BLOCK_ERR_STOP_ANY):
        bm.unit = s.unit
        bm.status |= op
        vm_stop(0)
        give_up(f"a disk request failed: {os.strerror(error)}", "mend that, then say cont in the monitor")
        return 1
    disk_failed(s.drive, _sector(s), max(s.nsector, 1), error, not is_read)
    if op & BM_STATUS_DMA_RETRY:
        dma_buf_commit(s, 0)
        ide_dma_error(s)
    else:
        ide_rw_error(s)
    return 1


@traced
def ide_dma_submit_check(s: IDEState, dma_cb: BlockDriverCompletionFunc, bm: BMDMAState) -> None:
    """Fail the command if the block layer refused its request."""
    if bm.aiocb is None:
        dma_cb(bm, -1)


def _end_of_dma(bm: BMDMAState) -> None:
    bm.status = bm.status & ~BM_STATUS_DMAING | BM_STATUS_INT
    bm.dma_cb = None
    bm.unit = -1
    bm.aiocb = None


_Submit = Callable[
    [BlockDriverState, QEMUSGList, int, BlockDriverCompletionFunc, Any], "BlockDriverAIOCB | None"
]


def _go_on(bm: BMDMAState, is_read: int, dma_cb: BlockDriverCompletionFunc, submit: _Submit) -> None:
    """Account for the last piece of a transfer and start the next."""
    s = bmdma_active_if(bm)
    n = s.io_buffer_size >> 9
    sector_num = ide_get_sector(s)
    if n > 0:
        dma_buf_commit(s, is_read)
        sector_num += n
        ide_set_sector(s, sector_num)
        # A table longer than the command moves more sectors than were asked for.
        s.nsector = (s.nsector - n) & 0xFFFFFFFF
    if s.nsector == 0:
        s.status = READY_STAT | SEEK_STAT
        ide_set_irq(s.channel)
        _end_of_dma(bm)
        return
    s.io_buffer_index = 0
    s.io_buffer_size = s.nsector * 512
    if dma_buf_prepare(bm, is_read) == 0:
        _end_of_dma(bm)
        return
    bm.aiocb = submit(s.drive, s.sg, sector_num, dma_cb, bm)
    ide_dma_submit_check(s, dma_cb, bm)


@traced
def ide_read_dma_cb(opaque: BMDMAState, ret: int) -> None:
    """Start or go on with a read by DMA."""
    bm = opaque
    op = BM_STATUS_DMA_RETRY | BM_STATUS_RETRY_READ
    if ret < 0 and ide_handle_rw_error(bmdma_active_if(bm), -ret, op):
        return
    _go_on(bm, 1, ide_read_dma_cb, dma_bdrv_read)


@traced
def ide_write_dma_cb(opaque: BMDMAState, ret: int) -> None:
    """Start or go on with a write by DMA."""
    bm = opaque
    if ret < 0 and ide_handle_rw_error(bmdma_active_if(bm), -ret, BM_STATUS_DMA_RETRY):
        return
    _go_on(bm, 0, ide_write_dma_cb, dma_bdrv_write)


@traced
def ide_sector_read_dma(s: IDEState) -> None:
    """Get a read by DMA ready."""
    s.status = READY_STAT | SEEK_STAT | DRQ_STAT | BUSY_STAT
    s.io_buffer_index = s.io_buffer_size = 0
    s.is_read = 1
    ide_dma_start(s, ide_read_dma_cb)


@traced
def ide_sector_write_dma(s: IDEState) -> None:
    """Get a write by DMA ready."""
    s.status = READY_STAT | SEEK_STAT | DRQ_STAT | BUSY_STAT
    s.io_buffer_index = s.io_buffer_size = 0
    s.is_read = 0
    ide_dma_start(s, ide_write_dma_cb)


@traced
def ide_dma_start(s: IDEState, dma_cb: BlockDriverCompletionFunc) -> None:
    """Hand a command to the bus master; it starts at once if the guest has started that before."""
    bm = s.channel.bmdma
    if bm is None:
        return
    bm.unit = s.unit
    bm.dma_cb = dma_cb
    bm.cur_prd_last = bm.cur_prd_addr = bm.cur_prd_len = 0
    bm.sector_num = ide_get_sector(s)
    bm.nsector = s.nsector
    if bm.status & BM_STATUS_DMAING:
        dma_cb(bm, 0)


@traced
def ide_dma_restart(s: IDEState, is_read: int) -> None:
    """Try a command again from its beginning."""
    bm = s.channel.bmdma
    assert bm is not None
    ide_set_sector(s, bm.sector_num)
    s.io_buffer_index = s.io_buffer_size = 0
    s.nsector = bm.nsector
    bm.cur_addr = bm.addr
    ide_dma_start(s, ide_read_dma_cb if is_read else ide_write_dma_cb)


@traced
def ide_dma_restart_bh(opaque: BMDMAState) -> None:
    """Try the command again at which the machine stopped."""
    bm = opaque
    linked.qemu_bh_delete(bm.bh)
    bm.bh = None
    is_read = bm.status & BM_STATUS_RETRY_READ
    if bm.status & BM_STATUS_DMA_RETRY:
        bm.status &= ~(BM_STATUS_DMA_RETRY | BM_STATUS_RETRY_READ)
        ide_dma_restart(bmdma_active_if(bm), is_read)
    elif bm.status & BM_STATUS_PIO_RETRY:
        bm.status &= ~(BM_STATUS_PIO_RETRY | BM_STATUS_RETRY_READ)
        (ide_sector_read if is_read else ide_sector_write)(bmdma_active_if(bm))


@traced
def ide_dma_restart_cb(opaque: BMDMAState, running: int, reason: int) -> None:
    """When the machine starts, see later whether a command waits to be tried again."""
    if running and opaque.bh is None:
        opaque.bh = linked.qemu_bh_new(ide_dma_restart_bh, opaque)
        linked.qemu_bh_schedule(opaque.bh)


@traced
def ide_dma_cancel(bm: BMDMAState) -> None:
    """Drop the running command."""
    if bm.status & BM_STATUS_DMAING:
        bm.status &= ~BM_STATUS_DMAING
        bm.unit = -1
        bm.dma_cb = None
        if bm.aiocb is not None:
            bdrv_aio_cancel(bm.aiocb)
            bm.aiocb = None


@traced
def ide_dma_reset(bm: BMDMAState) -> None:
    """Put the bus master's registers back."""
    ide_dma_cancel(bm)
    bm.cmd = bm.status = bm.addr = bm.cur_addr = 0
    bm.cur_prd_last = bm.cur_prd_addr = bm.cur_prd_len = 0
    bm.sector_num = bm.nsector = 0
