"""block.c, part three: asynchronous requests, and each kind of reading emulated by the other.

- ``bdrv_aio_readv``, ``bdrv_aio_writev``, ``bdrv_aio_flush``, ``bdrv_aio_multiwrite``, ``bdrv_aio_cancel``:
  the callback runs later as ``cb(opaque, ret)``; None instead of a request means it was refused
- ``qemu_aio_get``, ``qemu_aio_release``: requests, reused through their pool
- ``bdrv_register``: gives a driver the emulation of what it lacks

::

    driver without aio:   bdrv_aio_readv ─► bdrv_aio_readv_em ─► bdrv_read now, cb in a bottom half
    driver without read:  bdrv_read ─► bdrv_read_em ─► bdrv_aio_readv, then qemu_aio_wait until cb
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import cmp_to_key
from typing import Any

from hypervisor.aio import qemu_aio_wait
from hypervisor.block.bdrv_io import (
    bdrv_check_request,
    bdrv_flush,
    bdrv_read,
    bdrv_write,
    set_dirty_bitmap,
)
from hypervisor.block.bdrv_registry import drivers, statics
from hypervisor.block_int import (
    BDRV_SECTOR_SIZE,
    AIOPool,
    BlockDriver,
    BlockDriverAIOCB,
    BlockDriverCompletionFunc,
    BlockDriverState,
    BlockRequest,
    ReadBuffer,
    WriteBuffer,
)
from hypervisor.cutils import (
    QEMUIOVector,
    iovec,
    qemu_iovec_add,
    qemu_iovec_concat,
    qemu_iovec_destroy,
    qemu_iovec_from_buffer,
    qemu_iovec_init,
    qemu_iovec_init_external,
    qemu_iovec_to_buffer,
)
from hypervisor.osdep import qemu_memalign, qemu_vfree
from hypervisor.program import linked, on_exit, on_reset
from tracer import Struct, symbol, traced

C_FILE = "block.c"

IOV_MAX = 1024


class MultiwriteCallback(Struct):
    """What one request of a multiwrite gets back: an element of MultiwriteCB.callbacks (block.c)."""

    cb: BlockDriverCompletionFunc | None = None
    opaque: Any = None
    free_qiov: QEMUIOVector | None = None
    free_buf: memoryview | None = None


class MultiwriteCB(Struct):
    """A multiwrite under way (block.c)."""

    error: int = 0
    num_requests: int = 0
    num_callbacks: int = 0
    callbacks: list[MultiwriteCallback] | None = None


class BlockDriverAIOCBSync(BlockDriverAIOCB):
    """An asynchronous request served by a synchronous driver (block.c)."""

    bh: Any = None
    ret: int = 0
    qiov: QEMUIOVector | None = None
    bounce: memoryview | None = None
    is_write: int = 0


class _Result:
    """``int async_ret`` of an emulated synchronous request, to point at."""

    __slots__ = ("ret",)

    def __init__(self) -> None:
        self.ret: int | None = None


@traced
def qemu_blockalign(bs: BlockDriverState | None, size: int) -> memoryview:
    """`size` bytes aligned as the driver of `bs` wants its buffers."""
    return qemu_memalign((bs.buffer_alignment if bs is not None else 0) or 512, size)


@traced
def qemu_aio_get(
    pool: AIOPool, bs: BlockDriverState | None, cb: BlockDriverCompletionFunc, opaque: Any
) -> Any:
    """A request of `pool`'s kind; a reused one still has its driver's fields from the last time."""
    acb = pool.free_aiocb
    if acb is not None:
        pool.free_aiocb = acb.next
    else:
        assert pool.aiocb_size is not None
        acb = pool.aiocb_size()
        acb.pool = pool
        _pools[id(pool)] = pool
    acb.bs = bs
    acb.cb = cb
    acb.opaque = opaque
    if bs is not None:
        bs._in_flight += 1
    return acb


@traced
def qemu_aio_release(p: BlockDriverAIOCB) -> None:
    """Return a finished request to its pool."""
    pool = p.pool
    assert pool is not None
    p.next = pool.free_aiocb
    pool.free_aiocb = p
    if p.bs is not None:
        p.bs._in_flight -= 1


_pools: dict[int, AIOPool] = {}


@on_exit
def _empty_pools() -> None:
    for pool in _pools.values():
        pool.free_aiocb = None
    _pools.clear()


@traced
def bdrv_aio_readv(
    bs: BlockDriverState,
    sector_num: int,
    qiov: QEMUIOVector,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: Any,
) -> Any:
    """Begin to read sectors into `qiov`; the request, or None if it is refused."""
    drv = bs.drv
    if drv is None:
        return None
    if bdrv_check_request(bs, sector_num, nb_sectors):
        return None
    assert drv.bdrv_aio_readv is not None
    ret = drv.bdrv_aio_readv(bs, sector_num, qiov, nb_sectors, cb, opaque)
    if ret is not None:
        bs.rd_bytes += nb_sectors * BDRV_SECTOR_SIZE
        bs.rd_ops += 1
    return ret


@traced
def bdrv_aio_writev(
    bs: BlockDriverState,
    sector_num: int,
    qiov: QEMUIOVector,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: Any,
) -> Any:
    """Begin to write sectors from `qiov`; the request, or None if it is refused."""
    drv = bs.drv
    if drv is None or bs.read_only or bdrv_check_request(bs, sector_num, nb_sectors):
        return None
    if bs.dirty_bitmap is not None:
        set_dirty_bitmap(bs, sector_num, nb_sectors, 1)
    assert drv.bdrv_aio_writev is not None
    ret = drv.bdrv_aio_writev(bs, sector_num, qiov, nb_sectors, cb, opaque)
    if ret is not None:
        bs.wr_bytes += nb_sectors * BDRV_SECTOR_SIZE
        bs.wr_ops += 1
    return ret


@traced
def multiwrite_user_cb(mcb: MultiwriteCB) -> None:
    """Tell every caller how the merged requests ended, and free what the merging made."""
    for entry in mcb.callbacks or []:
        assert entry.cb is not None
        entry.cb(entry.opaque, mcb.error)
        if entry.free_qiov is not None:
            qemu_iovec_destroy(entry.free_qiov)
        qemu_vfree(entry.free_buf)


@traced
def multiwrite_cb(opaque: MultiwriteCB, ret: int) -> None:
    """One of the merged requests is done; the first error, or the last success, is reported."""
    mcb = opaque
    if ret < 0 and not mcb.error:
        mcb.error = ret
        multiwrite_user_cb(mcb)
    mcb.num_requests -= 1
    if mcb.num_requests == 0 and mcb.error == 0:
        multiwrite_user_cb(mcb)


@traced
def multiwrite_req_compare(a: BlockRequest, b: BlockRequest) -> int:
    """Order requests by their first sector, as qsort wants it."""
    return a.sector - b.sector


@traced
def multiwrite_merge(bs: BlockDriverState, reqs: list[BlockRequest], num_reqs: int, mcb: MultiwriteCB) -> int:
    """Sort the requests and join those that touch or overlap; how many are left."""
    reqs[:num_reqs] = sorted(reqs[:num_reqs], key=cmp_to_key(multiwrite_req_compare))
    outidx = 0
    for i in range(1, num_reqs):
        out, new = reqs[outidx], reqs[i]
        assert bs.drv is not None and out.qiov is not None and new.qiov is not None
        oldreq_last = out.sector + out.nb_sectors
        merge = int(new.sector <= oldreq_last)
        if not merge and bs.drv.bdrv_merge_requests is not None:
            merge = bs.drv.bdrv_merge_requests(bs, out, new)
        if out.qiov.niov + new.qiov.niov + 1 > IOV_MAX:
            merge = 0
        if not merge:
            outidx += 1
            reqs[outidx].sector = new.sector
            reqs[outidx].nb_sectors = new.nb_sectors
            reqs[outidx].qiov = new.qiov
            continue
        assert mcb.callbacks is not None
        qiov = QEMUIOVector()
        qemu_iovec_init(qiov, out.qiov.niov + new.qiov.niov + 1)
        qemu_iovec_concat(qiov, out.qiov, (new.sector - out.sector) << 9)
        if new.sector > oldreq_last:
            zero_bytes = (new.sector - oldreq_last) << 9
            buf = qemu_blockalign(bs, zero_bytes)
            qemu_iovec_add(qiov, buf, zero_bytes)
            mcb.callbacks[i].free_buf = buf
        tail = _beyond(out, new)
        qemu_iovec_concat(qiov, new.qiov, new.qiov.size)
        if tail is not None:
            qemu_iovec_add(qiov, tail, len(tail))
        # unlike C, whose sum is wrong when the requests overlap
        out.nb_sectors = qiov.size >> 9
        out.qiov = qiov
        mcb.callbacks[i].free_qiov = qiov
    return outidx + 1


def _beyond(out: BlockRequest, new: BlockRequest) -> memoryview | None:
    """What of `out` lies behind `new`: C forgets it, and would lose the data."""
    over = (out.sector + out.nb_sectors - new.sector - new.nb_sectors) << 9
    if over <= 0 or out.qiov is None:
        return None
    whole = bytearray(out.qiov.size)
    qemu_iovec_to_buffer(out.qiov, whole)
    return memoryview(whole)[-over:]


@traced
def bdrv_aio_multiwrite(bs: BlockDriverState, reqs: list[BlockRequest], num_reqs: int) -> int:
    """Begin several writes at once, merged where they touch.

    Returns
    -------
    int
        0: every callback will run. -1: those of requests whose `error` is set will not.
    """
    if num_reqs == 0:
        return 0
    mcb = MultiwriteCB()
    mcb.num_callbacks = num_reqs
    mcb.callbacks = [MultiwriteCallback(cb=req.cb, opaque=req.opaque) for req in reqs[:num_reqs]]
    num_reqs = multiwrite_merge(bs, reqs, num_reqs, mcb)
    # Held until all are submitted: a tool's bottom half may complete one at once.
    mcb.num_requests = 1
    for i in range(num_reqs):
        req = reqs[i]
        assert req.qiov is not None
        mcb.num_requests += 1
        if bdrv_aio_writev(bs, req.sector, req.qiov, req.nb_sectors, multiwrite_cb, mcb) is None:
            if i == 0:
                req.error = -errno.EIO
                return -1
            multiwrite_cb(mcb, -errno.EIO)
            break
    mcb.num_requests -= 1
    if mcb.num_requests == 0 and mcb.error == 0:
        multiwrite_user_cb(mcb)
    return 0


@traced
def bdrv_aio_flush(bs: BlockDriverState, cb: BlockDriverCompletionFunc, opaque: Any) -> Any:
    """Begin to flush; the driver sees to a backing file. None without a medium."""
    if bs.drv is None:
        return None
    assert bs.drv.bdrv_aio_flush is not None
    return bs.drv.bdrv_aio_flush(bs, cb, opaque)


@traced
def bdrv_aio_ioctl(
    bs: BlockDriverState, req: int, buf: Any, cb: BlockDriverCompletionFunc, opaque: Any
) -> Any:
    """Begin an ioctl of a host device; None where the driver has none."""
    if bs.drv is not None and bs.drv.bdrv_aio_ioctl is not None:
        return bs.drv.bdrv_aio_ioctl(bs, req, buf, cb, opaque)
    return None


@traced
def bdrv_aio_cancel(acb: BlockDriverAIOCB) -> None:
    """Drop a request, or wait for it; its callback does not run."""
    assert acb.pool is not None and acb.pool.cancel is not None
    acb.pool.cancel(acb)


@traced
def bdrv_aio_cancel_em(blockacb: BlockDriverAIOCBSync) -> None:
    """Cancel an emulated request: forget its bottom half."""
    linked.qemu_bh_delete(blockacb.bh)
    blockacb.bh = None
    qemu_aio_release(blockacb)


bdrv_em_aio_pool = symbol(
    AIOPool(aiocb_size=BlockDriverAIOCBSync, cancel=bdrv_aio_cancel_em), "bdrv_em_aio_pool"
)


@traced
def bdrv_aio_bh_cb(opaque: BlockDriverAIOCBSync) -> None:
    """Finish an emulated request from its bottom half."""
    acb = opaque
    if not acb.is_write:
        assert acb.qiov is not None and acb.bounce is not None
        qemu_iovec_from_buffer(acb.qiov, acb.bounce, acb.qiov.size)
    qemu_vfree(acb.bounce)
    assert acb.cb is not None
    acb.cb(acb.opaque, acb.ret)
    linked.qemu_bh_delete(acb.bh)
    acb.bh = None
    qemu_aio_release(acb)


@traced
def bdrv_aio_rw_vector(
    bs: BlockDriverState,
    sector_num: int,
    qiov: QEMUIOVector,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: Any,
    is_write: int,
) -> BlockDriverAIOCBSync:
    """Serve an asynchronous request synchronously; only its callback comes later."""
    acb: BlockDriverAIOCBSync = qemu_aio_get(bdrv_em_aio_pool, bs, cb, opaque)
    acb.is_write = is_write
    acb.qiov = qiov
    bounce = acb.bounce = qemu_blockalign(bs, qiov.size)
    if acb.bh is None:
        acb.bh = linked.qemu_bh_new(bdrv_aio_bh_cb, acb)
    if is_write:
        qemu_iovec_to_buffer(qiov, bounce)
        acb.ret = bdrv_write(bs, sector_num, bounce, nb_sectors)
    else:
        acb.ret = bdrv_read(bs, sector_num, bounce, nb_sectors)
    linked.qemu_bh_schedule(acb.bh)
    return acb


@traced
def bdrv_aio_readv_em(
    bs: BlockDriverState,
    sector_num: int,
    qiov: QEMUIOVector,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: Any,
) -> BlockDriverAIOCB:
    """Asynchronous read of a driver that has only a synchronous one."""
    return bdrv_aio_rw_vector(bs, sector_num, qiov, nb_sectors, cb, opaque, 0)


@traced
def bdrv_aio_writev_em(
    bs: BlockDriverState,
    sector_num: int,
    qiov: QEMUIOVector,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: Any,
) -> BlockDriverAIOCB:
    """Asynchronous write of a driver that has only a synchronous one."""
    return bdrv_aio_rw_vector(bs, sector_num, qiov, nb_sectors, cb, opaque, 1)


@traced
def bdrv_aio_flush_em(bs: BlockDriverState, cb: BlockDriverCompletionFunc, opaque: Any) -> BlockDriverAIOCB:
    """Asynchronous flush of a driver that has only a synchronous one."""
    acb: BlockDriverAIOCBSync = qemu_aio_get(bdrv_em_aio_pool, bs, cb, opaque)
    acb.is_write = 1
    acb.qiov = None
    acb.bounce = None
    acb.ret = 0
    if acb.bh is None:
        acb.bh = linked.qemu_bh_new(bdrv_aio_bh_cb, acb)
    bdrv_flush(bs)
    linked.qemu_bh_schedule(acb.bh)
    return acb


@traced
def bdrv_rw_em_cb(opaque: _Result, ret: int) -> None:
    """Note the result of an emulated synchronous request."""
    opaque.ret = ret


@traced
def bdrv_read_em(bs: BlockDriverState, sector_num: int, buf: WriteBuffer, nb_sectors: int) -> int:
    """Synchronous read of a driver that has only an asynchronous one: begin it and wait."""
    return _waited(bdrv_aio_readv, bs, sector_num, buf, nb_sectors)


@traced
def bdrv_write_em(bs: BlockDriverState, sector_num: int, buf: ReadBuffer, nb_sectors: int) -> int:
    """Synchronous write of a driver that has only an asynchronous one: begin it and wait."""
    return _waited(bdrv_aio_writev, bs, sector_num, buf, nb_sectors)


def _waited(
    begin: Callable[..., Any], bs: BlockDriverState, sector_num: int, buf: ReadBuffer, nb_sectors: int
) -> int:
    linked.async_context_push()
    result = _Result()
    if begin(bs, sector_num, _wrap(buf, nb_sectors), nb_sectors, bdrv_rw_em_cb, result) is None:
        result.ret = -1
    while result.ret is None:
        qemu_aio_wait()
    linked.async_context_pop()
    return result.ret


def _wrap(buf: ReadBuffer, nb_sectors: int) -> QEMUIOVector:
    size = nb_sectors * BDRV_SECTOR_SIZE
    qiov = QEMUIOVector()
    qemu_iovec_init_external(qiov, [iovec(memoryview(buf)[:size], size)], 1)
    return qiov


@traced
def bdrv_register(bdrv: BlockDriver) -> None:
    """Add a driver in front of the others, with emulations of what it lacks."""
    if bdrv.bdrv_aio_readv is None:
        bdrv.bdrv_aio_readv = bdrv_aio_readv_em
        bdrv.bdrv_aio_writev = bdrv_aio_writev_em
    elif bdrv.bdrv_read is None:
        bdrv.bdrv_read = bdrv_read_em
        bdrv.bdrv_write = bdrv_write_em
    if bdrv.bdrv_aio_flush is None:
        bdrv.bdrv_aio_flush = bdrv_aio_flush_em
    bdrv.next = statics.first_drv
    statics.first_drv = bdrv


@on_reset
def _unregister() -> None:
    """Take the emulations off again, so that the next program's registration is a first one."""
    emulated = {
        "bdrv_aio_readv": bdrv_aio_readv_em,
        "bdrv_aio_writev": bdrv_aio_writev_em,
        "bdrv_aio_flush": bdrv_aio_flush_em,
        "bdrv_read": bdrv_read_em,
        "bdrv_write": bdrv_write_em,
    }
    for drv in list(drivers()):
        for field, function in emulated.items():
            if getattr(drv, field) is function:
                setattr(drv, field, None)
        drv.next = None
