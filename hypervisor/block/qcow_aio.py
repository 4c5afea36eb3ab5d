"""Requests to a qcow image: the last third of block/qcow.c.

A request is cut at clusters. Each turn of a callback does one piece: it looks the cluster up and hands the
piece to the file or the backing file, whose completion calls the callback again; a read that need not wait
(zeros, a compressed cluster) goes on at once.

- `QCowAIOCB`: a request on its way
- `qcow_aio_readv` -> `qcow_aio_setup`, `qcow_aio_read_cb` -> ... -> the caller's `cb`
- `qcow_aio_writev` -> `qcow_aio_setup`, `qcow_aio_write_cb` -> ... -> the caller's `cb`
- `qcow_aio_cancel`
"""

from __future__ import annotations

import errno

from hypervisor.block import (
    bdrv_aio_cancel,
    bdrv_aio_readv,
    bdrv_aio_writev,
    qemu_aio_get,
    qemu_aio_release,
    qemu_blockalign,
)
from hypervisor.block.beneath import peek
from hypervisor.block.qcow_cluster import (
    NO_OFFSET,
    BDRVQcowState,
    decompress_cluster,
    failure,
    get_cluster_offset,
)
from hypervisor.block.qcow_format import MAX_OFFSET, QCOW_OFLAG_COMPRESSED
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
from hypervisor.osdep import qemu_vfree
from hypervisor.quirks import note
from tracer import symbol, traced

C_FILE = "block/qcow.c"


class QCowAIOCB(BlockDriverAIOCB):
    """`QCowAIOCB` of block/qcow.c: one request on its way, cluster by cluster.

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
    hd_iov: list[iovec] | None = None
    hd_qiov: QEMUIOVector | None = None
    hd_aiocb: BlockDriverAIOCB | None = None


@traced
def qcow_aio_cancel(blockacb: BlockDriverAIOCB) -> None:
    """Cancel what is under way for a request, and free it."""
    assert isinstance(blockacb, QCowAIOCB)
    if blockacb.hd_aiocb:
        bdrv_aio_cancel(blockacb.hd_aiocb)
    qemu_aio_release(blockacb)


qcow_aio_pool = symbol(AIOPool(aiocb_size=QCowAIOCB, cancel=qcow_aio_cancel), "qcow_aio_pool")


@traced
def qcow_aio_setup(
    bs: BlockDriverState,
    sector_num: int,
    qiov: QEMUIOVector,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: object,
    is_write: int,
) -> QCowAIOCB | None:
    """A request ready for its first turn; several pieces of memory go through one bounce buffer."""
    acb = qemu_aio_get(qcow_aio_pool, bs, cb, opaque)
    if acb is None:
        return None
    assert isinstance(acb, QCowAIOCB) and qiov.iov is not None
    acb.hd_aiocb = None
    acb.sector_num = sector_num
    acb.qiov = qiov
    if qiov.niov > 1:
        acb.buf = acb.orig_buf = memoryview(qemu_blockalign(bs, qiov.size))
        if is_write:
            qemu_iovec_to_buffer(qiov, acb.buf)
    else:
        acb.buf = qiov.iov[0].iov_base
    acb.nb_sectors = nb_sectors
    acb.n = 0
    acb.cluster_offset = 0
    return acb


def _next_piece(acb: QCowAIOCB, s: BDRVQcowState) -> int:
    """Step over the ``n`` sectors just done, set the next ``n``; where in its cluster that begins."""
    assert acb.buf is not None
    acb.nb_sectors -= acb.n
    acb.sector_num += acb.n
    acb.buf = acb.buf[acb.n * 512 :]
    index_in_cluster = acb.sector_num & (s.cluster_sectors - 1)
    acb.n = min(s.cluster_sectors - index_in_cluster, acb.nb_sectors)
    return index_in_cluster


def _prepare_iov(acb: QCowAIOCB) -> QEMUIOVector:
    assert acb.buf is not None
    if acb.hd_qiov is None:
        acb.hd_qiov = QEMUIOVector()
    acb.hd_iov = [iovec(acb.buf[: acb.n * 512], acb.n * 512)]
    qemu_iovec_init_external(acb.hd_qiov, acb.hd_iov, 1)
    return acb.hd_qiov


def _complete(acb: QCowAIOCB, ret: int) -> None:
    if acb.orig_buf is not None:
        qemu_vfree(acb.orig_buf)
    acb.buf = acb.orig_buf = acb.hd_iov = None
    assert acb.cb is not None
    acb.cb(acb.opaque, ret)
    qemu_aio_release(acb)


@traced
def qcow_aio_read_cb(opaque: QCowAIOCB, ret: int) -> None:
    """Go on with a read: called first by `qcow_aio_readv`, then as each piece completes."""
    acb = opaque
    assert acb.bs is not None
    acb.hd_aiocb = None
    if ret == 0:
        ret = _read_pieces(acb, acb.bs)
    if acb.hd_aiocb is None:
        assert acb.qiov is not None
        if acb.orig_buf is not None:
            qemu_iovec_from_buffer(acb.qiov, acb.orig_buf, acb.qiov.size)
        _complete(acb, ret)


def _read_pieces(acb: QCowAIOCB, bs: BlockDriverState) -> int:
    """Read on until something must be waited for (``hd_aiocb``) or all is done; 0 or -errno."""
    s: BDRVQcowState = bs.opaque
    while True:
        index_in_cluster = _next_piece(acb, s)
        if acb.nb_sectors == 0:
            return 0
        assert acb.buf is not None
        piece = acb.buf[: acb.n * 512]
        acb.cluster_offset = get_cluster_offset(bs, acb.sector_num << 9, 0, 0, 0, 0)
        if acb.cluster_offset < 0:
            return acb.cluster_offset
        if not acb.cluster_offset:
            if bs.backing_hd is None:
                piece[:] = bytes(len(piece))
            else:
                return _read_backing(acb, bs.backing_hd)
        elif acb.cluster_offset & QCOW_OFLAG_COMPRESSED:
            if decompress_cluster(s, acb.cluster_offset) < 0:
                return -errno.EIO
            assert s.cluster_cache is not None
            at = index_in_cluster * 512
            piece[:] = memoryview(s.cluster_cache)[at : at + len(piece)]
        else:
            if acb.cluster_offset & 511 or acb.cluster_offset > MAX_OFFSET:
                return -errno.EIO
            assert s.hd is not None
            sector = (acb.cluster_offset >> 9) + index_in_cluster
            acb.hd_aiocb = bdrv_aio_readv(s.hd, sector, _prepare_iov(acb), acb.n, qcow_aio_read_cb, acb)
            return 0 if acb.hd_aiocb else -errno.EIO


def _read_backing(acb: QCowAIOCB, backing_hd: BlockDriverState) -> int:
    """Ask the backing file for the next piece; if it is too short, read the rest of the request at once."""
    assert acb.bs is not None and acb.buf is not None
    acb.hd_aiocb = bdrv_aio_readv(backing_hd, acb.sector_num, _prepare_iov(acb), acb.n, qcow_aio_read_cb, acb)
    if acb.hd_aiocb is not None:
        return 0
    # quirk: C ends the request here with success and leaves the rest of the buffer as it was
    note(
        "qcow-short-base",
        "a read beyond the end of the backing file: 0.12.4 leaves stale memory, here zeros",
    )
    try:
        peek(acb.bs, acb.sector_num, acb.buf[: acb.nb_sectors * 512])
    except OSError as error:
        return -(error.errno or errno.EIO)
    return 0


@traced
def qcow_aio_readv(
    bs: BlockDriverState,
    sector_num: int,
    qiov: QEMUIOVector,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: object,
) -> BlockDriverAIOCB | None:
    """Start a read; `cb` may be called before this returns."""
    acb = qcow_aio_setup(bs, sector_num, qiov, nb_sectors, cb, opaque, 0)
    if acb is not None:
        qcow_aio_read_cb(acb, 0)
    return acb


@traced
def qcow_aio_write_cb(opaque: QCowAIOCB, ret: int) -> None:
    """Go on with a write: called first by `qcow_aio_writev`, then as each cluster completes."""
    acb = opaque
    assert acb.bs is not None
    acb.hd_aiocb = None
    if ret == 0:
        ret = _write_piece(acb, acb.bs)
    if acb.hd_aiocb is None:
        _complete(acb, ret)


def _write_piece(acb: QCowAIOCB, bs: BlockDriverState) -> int:
    """Write up to the end of the next cluster (``hd_aiocb``), or find all done; 0 or -errno."""
    s: BDRVQcowState = bs.opaque
    index_in_cluster = _next_piece(acb, s)
    if acb.nb_sectors == 0:
        return 0
    cluster_offset = get_cluster_offset(
        bs, acb.sector_num << 9, 1, 0, index_in_cluster, index_in_cluster + acb.n
    )
    if cluster_offset <= 0 or cluster_offset & 511 or cluster_offset > MAX_OFFSET:
        return failure(cluster_offset)
    assert s.hd is not None
    sector = (cluster_offset >> 9) + index_in_cluster
    acb.hd_aiocb = bdrv_aio_writev(s.hd, sector, _prepare_iov(acb), acb.n, qcow_aio_write_cb, acb)
    return 0 if acb.hd_aiocb else -errno.EIO


@traced
def qcow_aio_writev(
    bs: BlockDriverState,
    sector_num: int,
    qiov: QEMUIOVector,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: object,
) -> BlockDriverAIOCB | None:
    """Start a write; `cb` may be called before this returns."""
    s: BDRVQcowState = bs.opaque
    s.cluster_cache_offset = NO_OFFSET
    acb = qcow_aio_setup(bs, sector_num, qiov, nb_sectors, cb, opaque, 1)
    if acb is not None:
        qcow_aio_write_cb(acb, 0)
    return acb
