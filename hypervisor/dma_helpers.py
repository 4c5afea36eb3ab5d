"""Disk requests straight into the guest's memory: dma-helpers.c.

A device collects the pieces of memory that its descriptors name in a `QEMUSGList`; `dma_bdrv_read` maps them
and passes the views to the block layer, so no byte is copied on the way.

    dma_bdrv_read -> dma_bdrv_io -> dma_bdrv_cb(0)   maps, submits bdrv_aio_readv
                                    dma_bdrv_cb(ret) by its completion: unmaps, calls the device's cb
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, NamedTuple

from hypervisor.block import bdrv_aio_cancel, bdrv_aio_readv, bdrv_aio_writev, qemu_aio_get, qemu_aio_release
from hypervisor.block_int import AIOPool, BlockDriverAIOCB, BlockDriverCompletionFunc, BlockDriverState
from hypervisor.cutils import (
    QEMUIOVector,
    qemu_iovec_add,
    qemu_iovec_destroy,
    qemu_iovec_init,
    qemu_iovec_reset,
)
from hypervisor.exec import cpu_physical_memory_map, cpu_physical_memory_unmap
from tracer import Struct, symbol, traced

C_FILE = "dma-helpers.c"


class ScatterGatherEntry(NamedTuple):
    """`ScatterGatherEntry` (dma.h): `len` bytes of the guest's memory at `base`."""

    base: int
    len: int


class QEMUSGList(Struct):
    """`QEMUSGList` (dma.h): pieces of the guest's memory, `size` bytes together."""

    sg: list[ScatterGatherEntry] = field(default_factory=list)
    nsg: int = 0
    nalloc: int = 0
    size: int = 0


class DMAAIOCB(BlockDriverAIOCB):
    """`DMAAIOCB`: a request on its way; `acb` is the block layer's request for it."""

    acb: BlockDriverAIOCB | None = None
    sg: QEMUSGList | None = None
    sector_num: int = 0
    is_write: int = 0
    sg_cur_index: int = 0
    sg_cur_byte: int = 0
    iov: QEMUIOVector | None = None


@traced
def qemu_sglist_init(qsg: QEMUSGList, alloc_hint: int) -> None:
    """Empty a list."""
    qsg.sg = []
    qsg.nsg = qsg.size = 0
    qsg.nalloc = alloc_hint


@traced
def qemu_sglist_add(qsg: QEMUSGList, base: int, len: int) -> None:
    """Append a piece of memory."""
    if qsg.nsg == qsg.nalloc:
        qsg.nalloc = 2 * qsg.nalloc + 1
    qsg.sg.append(ScatterGatherEntry(base, len))
    qsg.size += len
    qsg.nsg += 1


@traced
def qemu_sglist_destroy(qsg: QEMUSGList) -> None:
    """Give up a list's entries."""
    qsg.sg = []


@traced
def dma_bdrv_unmap(dbs: DMAAIOCB) -> None:
    """Give the views of the last round back."""
    assert dbs.iov is not None
    for base, length in (dbs.iov.iov or [])[: dbs.iov.niov]:
        cpu_physical_memory_unmap(base, length, not dbs.is_write, length)


def _map(dbs: DMAAIOCB, iov: QEMUIOVector, sg: QEMUSGList) -> None:
    """View as much of the guest's memory as there is, from where the last round ended."""
    for entry in sg.sg[dbs.sg_cur_index : sg.nsg]:
        while dbs.sg_cur_byte < entry.len:
            start, left = entry.base + dbs.sg_cur_byte, entry.len - dbs.sg_cur_byte
            mem, length = cpu_physical_memory_map(start, left, not dbs.is_write)
            if mem is None:
                return
            qemu_iovec_add(iov, mem, length)
            dbs.sg_cur_byte += length
        dbs.sg_cur_byte = 0
        dbs.sg_cur_index += 1


@traced
def dma_bdrv_cb(opaque: DMAAIOCB, ret: int) -> None:
    """Go on with a request: map and submit, or tell the device that all is done.

    A descriptor that names no memory ends the request with what came before it; without any, it fails.
    """
    dbs = opaque
    assert dbs.iov is not None and dbs.sg is not None and dbs.cb is not None and dbs.bs is not None
    dbs.acb = None
    dbs.sector_num += dbs.iov.size // 512
    dma_bdrv_unmap(dbs)
    qemu_iovec_reset(dbs.iov)
    if dbs.sg_cur_index == dbs.sg.nsg or ret < 0:
        dbs.cb(dbs.opaque, ret)
        qemu_iovec_destroy(dbs.iov)
        qemu_aio_release(dbs)
        return
    _map(dbs, dbs.iov, dbs.sg)
    submit = bdrv_aio_writev if dbs.is_write else bdrv_aio_readv
    if dbs.iov.size:
        dbs.acb = submit(dbs.bs, dbs.sector_num, dbs.iov, dbs.iov.size // 512, dma_bdrv_cb, dbs)
    if dbs.acb is None:
        dma_bdrv_unmap(dbs)
        qemu_iovec_destroy(dbs.iov)


@traced
def dma_aio_cancel(acb: DMAAIOCB) -> None:
    """Cancel the block layer's request."""
    if acb.acb is not None:
        bdrv_aio_cancel(acb.acb)


dma_aio_pool = symbol(AIOPool(aiocb_size=DMAAIOCB, cancel=dma_aio_cancel), "dma_aio_pool")


@traced
def dma_bdrv_io(
    bs: BlockDriverState,
    sg: QEMUSGList,
    sector_num: int,
    cb: BlockDriverCompletionFunc,
    opaque: Any,
    is_write: int,
) -> BlockDriverAIOCB | None:
    """Start a request; None when the block layer refused it."""
    dbs: DMAAIOCB = qemu_aio_get(dma_aio_pool, bs, cb, opaque)
    dbs.acb = None
    dbs.sg = sg
    dbs.sector_num = sector_num
    dbs.sg_cur_index = dbs.sg_cur_byte = 0
    dbs.is_write = is_write
    dbs.iov = QEMUIOVector()
    qemu_iovec_init(dbs.iov, sg.nsg)
    dma_bdrv_cb(dbs, 0)
    if dbs.acb is None:
        qemu_aio_release(dbs)
        return None
    return dbs


@traced
def dma_bdrv_read(
    bs: BlockDriverState, sg: QEMUSGList, sector: int, cb: BlockDriverCompletionFunc, opaque: Any
) -> BlockDriverAIOCB | None:
    """Read from `sector` on into the guest's memory."""
    return dma_bdrv_io(bs, sg, sector, cb, opaque, 0)


@traced
def dma_bdrv_write(
    bs: BlockDriverState, sg: QEMUSGList, sector: int, cb: BlockDriverCompletionFunc, opaque: Any
) -> BlockDriverAIOCB | None:
    """Write the guest's memory from `sector` on."""
    return dma_bdrv_io(bs, sg, sector, cb, opaque, 1)
