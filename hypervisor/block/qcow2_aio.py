"""Requests to a qcow2 image: the middle third of block/qcow2.c.

A request is cut into pieces that lie in a row in the file. Each turn of a callback ends one piece and starts
the next, whose completion calls the callback again.

- `qcow_aio_readv` -> `qcow_aio_setup`, `qcow_aio_read_cb` -> ... -> the caller's `cb`
- `qcow_aio_writev` -> `qcow_aio_setup`, `qcow_aio_write_cb` -> ... -> the caller's `cb`
- `run_dependent_requests`: go on with writes that waited for an allocation
- `qcow_is_allocated`, `qcow2_backing_read1`

::

    BDRVQcowState.cluster_allocs ─► QCowL2Meta ─ next_in_flight ─► QCowL2Meta ...   (inside of QCowAIOCBs)
                                        └ dependent_requests ─► QCowAIOCB ─ next_depend ─► QCowAIOCB ...

C ends a read successfully, without data, when a cluster cannot be decompressed or a backing file is shorter
than the image; here the first is an error, the second reads zeros.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from hypervisor.block import (
    bdrv_aio_cancel,
    bdrv_aio_readv,
    bdrv_aio_writev,
    qemu_aio_get,
    qemu_aio_release,
    qemu_blockalign,
)
from hypervisor.block.beneath import peek
from hypervisor.block.qcow2_cluster import (
    qcow2_alloc_cluster_link_l2,
    qcow2_alloc_cluster_offset,
    qcow2_decompress_cluster,
    qcow2_get_cluster_offset,
    remove_in_flight,
)
from hypervisor.block.qcow2_format import QCOW_OFLAG_COMPRESSED
from hypervisor.block.qcow2_state import NO_OFFSET, BDRVQcowState, QCowL2Meta, file_of, state
from hypervisor.block_int import (
    AIOPool,
    BlockDriverAIOCB,
    BlockDriverCompletionFunc,
    BlockDriverState,
)
from hypervisor.cutils import (
    QEMUIOVector,
    iovec,
    qemu_iovec_from_buffer,
    qemu_iovec_init_external,
    qemu_iovec_to_buffer,
)
from hypervisor.program import linked
from hypervisor.quirks import note
from tracer import symbol, traced

C_FILE = "block/qcow2.c"


class QCowAIOCB(BlockDriverAIOCB):
    """`QCowAIOCB` of block/qcow2.c: one request on its way.

    Notes
    -----
    ``sector_num``, ``nb_sectors`` and ``buf`` are what is left to do; ``n`` sectors of it are under way,
    at ``cluster_offset`` in the file (0: not allocated). ``orig_buf`` is the bounce buffer of a request
    with several pieces of memory.
    """

    sector_num: int = 0
    qiov: QEMUIOVector | None = None
    buf: memoryview | None = None
    orig_buf: memoryview | None = None
    nb_sectors: int = 0
    n: int = 0
    cluster_offset: int = 0
    cluster_data: bytearray | None = None
    hd_aiocb: BlockDriverAIOCB | None = None
    hd_iov: iovec | None = None
    hd_qiov: QEMUIOVector | None = None
    bh: Any = None
    l2meta: QCowL2Meta | None = None
    next_depend: QCowAIOCB | None = None


@traced
def qcow_is_allocated(bs: BlockDriverState, sector_num: int, nb_sectors: int) -> tuple[int, int]:
    """(1 if the image itself has this sector, how many of `nb_sectors` are alike)."""
    cluster_offset, pnum = qcow2_get_cluster_offset(bs, sector_num << 9, nb_sectors)
    return int(cluster_offset != 0), pnum


@traced
def qcow2_backing_read1(bs: BlockDriverState, sector_num: int, buf: memoryview, nb_sectors: int) -> int:
    """How many sectors the backing file `bs` has of these; the others are zeroed in `buf`."""
    n1 = min(max(bs.total_sectors - sector_num, 0), nb_sectors)
    if n1 < nb_sectors:
        buf[n1 * 512 : nb_sectors * 512] = bytes((nb_sectors - n1) * 512)
    return n1


@traced
def qcow_aio_cancel(blockacb: QCowAIOCB) -> None:
    """Give a request up: what it allocated is leaked, who waited for that goes on (in C it hangs)."""
    if blockacb.hd_aiocb is not None:
        bdrv_aio_cancel(blockacb.hd_aiocb)
    if blockacb.bh is not None:
        linked.qemu_bh_delete(blockacb.bh)
        blockacb.bh = None
    m = blockacb.l2meta
    assert m is not None
    _stop_waiting(blockacb, m)
    remove_in_flight(_disk(blockacb)[1], m)
    run_dependent_requests(m)
    qemu_aio_release(blockacb)


def _stop_waiting(acb: QCowAIOCB, m: QCowL2Meta) -> None:
    """Take a request off the list of those that wait for an allocation."""
    if m.depends_on is None:
        return
    at = m.depends_on.dependent_requests
    if at is acb:
        m.depends_on.dependent_requests = acb.next_depend
    while at is not None and at.next_depend is not acb:
        at = at.next_depend
    if at is not None:
        at.next_depend = acb.next_depend


qcow_aio_pool = symbol(AIOPool(aiocb_size=QCowAIOCB, cancel=qcow_aio_cancel), "qcow_aio_pool")


@traced
def qcow_aio_read_bh(opaque: QCowAIOCB) -> None:
    """Bottom half: go on with a read that needed no waiting."""
    linked.qemu_bh_delete(opaque.bh)
    opaque.bh = None
    qcow_aio_read_cb(opaque, 0)


@traced
def qcow_schedule_bh(cb: Callable[[Any], None], acb: QCowAIOCB) -> int:
    """Have `cb` run from the main loop; 0, or -EIO if one is scheduled already."""
    if acb.bh is not None:
        return -errno.EIO
    acb.bh = linked.qemu_bh_new(cb, acb)
    if acb.bh is None:
        return -errno.EIO
    linked.qemu_bh_schedule(acb.bh)
    return 0


@traced
def qcow_aio_read_cb(opaque: QCowAIOCB, ret: int) -> None:
    """End a piece of a read and start the next."""
    acb = opaque
    acb.hd_aiocb = None
    if ret >= 0:
        _advance(acb)
        if acb.nb_sectors:
            ret = _read_piece(acb)
            if ret == 0:
                return
        ret = min(ret, 0)
    assert acb.qiov is not None
    if acb.orig_buf is not None:
        qemu_iovec_from_buffer(acb.qiov, acb.orig_buf, acb.qiov.size)
    _complete(acb, ret)


def _read_piece(acb: QCowAIOCB) -> int:
    bs, s = _disk(acb)
    assert acb.buf is not None
    acb.cluster_offset, acb.n = qcow2_get_cluster_offset(bs, acb.sector_num << 9, acb.nb_sectors)
    if acb.cluster_offset < 0:
        return acb.cluster_offset
    within = acb.sector_num & (s.cluster_sectors - 1)
    piece = acb.buf[: acb.n * 512]
    if not acb.cluster_offset:
        if bs.backing_hd is None:
            piece[:] = bytes(len(piece))
            return qcow_schedule_bh(qcow_aio_read_bh, acb)
        n1 = qcow2_backing_read1(bs.backing_hd, acb.sector_num, piece, acb.n)
        if n1 < acb.n:
            note("qcow2-short-base", "a backing file is shorter than its overlay: the rest reads as zeros")
        if not n1:
            return qcow_schedule_bh(qcow_aio_read_bh, acb)
        # quirk: C asks for all of it, is refused, and ends the request with success and stale memory
        qiov = _vector(acb, piece)
        acb.hd_aiocb = bdrv_aio_readv(bs.backing_hd, acb.sector_num, qiov, acb.n, qcow_aio_read_cb, acb)
        if acb.hd_aiocb is None:
            return _read_rest(acb, bs)
    elif acb.cluster_offset & QCOW_OFLAG_COMPRESSED:
        if qcow2_decompress_cluster(s, acb.cluster_offset) < 0:
            return -errno.EIO
        assert s.cluster_cache is not None
        piece[:] = memoryview(s.cluster_cache)[within * 512 : within * 512 + len(piece)]
        return qcow_schedule_bh(qcow_aio_read_bh, acb)
    else:
        sector = (acb.cluster_offset >> 9) + within
        qiov = _vector(acb, piece)
        acb.hd_aiocb = bdrv_aio_readv(file_of(s), sector, qiov, acb.n, qcow_aio_read_cb, acb)
    return 0 if acb.hd_aiocb is not None else -errno.EIO


def _read_rest(acb: QCowAIOCB, bs: BlockDriverState) -> int:
    """Read all that is left at once, beneath the calls: 1, which ends the request, or -errno."""
    assert acb.buf is not None
    try:
        peek(bs, acb.sector_num, acb.buf[: acb.nb_sectors * 512])
    except OSError as error:
        return -(error.errno or errno.EIO)
    return 1


def _disk(acb: QCowAIOCB) -> tuple[BlockDriverState, BDRVQcowState]:
    assert acb.bs is not None
    return acb.bs, state(acb.bs)


def _advance(acb: QCowAIOCB) -> None:
    assert acb.buf is not None
    acb.nb_sectors -= acb.n
    acb.sector_num += acb.n
    acb.buf = acb.buf[acb.n * 512 :]


def _vector(acb: QCowAIOCB, piece: memoryview) -> QEMUIOVector:
    assert acb.hd_qiov is not None
    acb.hd_iov = iovec(piece, len(piece))
    qemu_iovec_init_external(acb.hd_qiov, [acb.hd_iov], 1)
    return acb.hd_qiov


def _complete(acb: QCowAIOCB, ret: int) -> None:
    acb.orig_buf = acb.buf = None
    assert acb.cb is not None
    acb.cb(acb.opaque, ret)
    qemu_aio_release(acb)


@traced
def qcow_aio_setup(
    bs: BlockDriverState,
    sector_num: int,
    qiov: QEMUIOVector,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: Any,
    is_write: int,
) -> QCowAIOCB:
    """A request with nothing done yet; several pieces of memory get one bounce buffer."""
    acb: QCowAIOCB = qemu_aio_get(qcow_aio_pool, bs, cb, opaque)
    assert qiov.iov is not None
    acb.hd_aiocb = None
    acb.sector_num = sector_num
    acb.qiov = qiov
    acb.orig_buf = None
    if qiov.niov > 1:
        acb.buf = acb.orig_buf = memoryview(qemu_blockalign(bs, qiov.size))
        if is_write:
            qemu_iovec_to_buffer(qiov, acb.buf)
    else:
        acb.buf = memoryview(qiov.iov[0].iov_base)
    acb.nb_sectors = nb_sectors
    acb.n = 0
    acb.cluster_offset = 0
    acb.l2meta = QCowL2Meta()
    acb.hd_qiov = QEMUIOVector()
    acb.next_depend = None
    return acb


@traced
def qcow_aio_readv(
    bs: BlockDriverState,
    sector_num: int,
    qiov: QEMUIOVector,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: Any,
) -> BlockDriverAIOCB | None:
    """Start a read."""
    acb = qcow_aio_setup(bs, sector_num, qiov, nb_sectors, cb, opaque, 0)
    qcow_aio_read_cb(acb, 0)
    return acb


@traced
def run_dependent_requests(m: QCowL2Meta) -> None:
    """Start the writes that waited for an allocation, done or failed; it is off the list by now."""
    request, m.dependent_requests = m.dependent_requests, None
    while request is not None:
        following, request.next_depend = request.next_depend, None
        qcow_aio_write_cb(request, 0)
        request = following


@traced
def qcow_aio_write_cb(opaque: QCowAIOCB, ret: int) -> None:
    """End a piece of a write, linking what it allocated, and start the next."""
    acb = opaque
    bs, s = _disk(acb)
    assert acb.l2meta is not None
    acb.hd_aiocb = None
    if ret >= 0:
        ret = qcow2_alloc_cluster_link_l2(bs, acb.l2meta)
    remove_in_flight(s, acb.l2meta)
    run_dependent_requests(acb.l2meta)
    if ret >= 0:
        _advance(acb)
        if acb.nb_sectors:
            ret = _write_piece(acb, acb.l2meta)
            if ret == 0:
                return
        else:
            ret = 0
    _complete(acb, ret)


def _write_piece(acb: QCowAIOCB, m: QCowL2Meta) -> int:
    bs, s = _disk(acb)
    within = acb.sector_num & (s.cluster_sectors - 1)
    ret, acb.n = qcow2_alloc_cluster_offset(bs, acb.sector_num << 9, within, within + acb.nb_sectors, m)
    if ret < 0:
        return ret
    acb.cluster_offset = m.cluster_offset
    if m.nb_clusters == 0 and m.depends_on is not None:
        acb.next_depend = m.depends_on.dependent_requests
        m.depends_on.dependent_requests = acb
        return 0
    assert acb.buf is not None
    qiov = _vector(acb, acb.buf[: acb.n * 512])
    sector = (acb.cluster_offset >> 9) + within
    acb.hd_aiocb = bdrv_aio_writev(file_of(s), sector, qiov, acb.n, qcow_aio_write_cb, acb)
    if acb.hd_aiocb is not None:
        return 0
    remove_in_flight(s, m)
    run_dependent_requests(m)
    return -errno.EIO


@traced
def qcow_aio_writev(
    bs: BlockDriverState,
    sector_num: int,
    qiov: QEMUIOVector,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: Any,
) -> BlockDriverAIOCB | None:
    """Start a write."""
    state(bs).cluster_cache_offset = NO_OFFSET
    acb = qcow_aio_setup(bs, sector_num, qiov, nb_sectors, cb, opaque, 1)
    qcow_aio_write_cb(acb, 0)
    return acb
