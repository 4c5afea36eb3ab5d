"""The qcow2 driver: block/qcow2.c, without its requests (`qcow2_aio`) and creation (`qcow2_create`).

`hypervisor.block.qcow2_format` draws the format.

::

    BlockDriverState ── opaque ──► BDRVQcowState ── hd ──► BlockDriverState (raw, the file itself)
           │                          ├ l1_table, l2_cache          qcow2_cluster
           └─ backing_hd              ├ refcount_table, one block   qcow2_refcount, qcow2_check
                                      └ snapshots                   qcow2_snapshot

- `qcow_probe`, `qcow_open`, `qcow_read_extensions`, `qcow_close`
- `qcow_write_compressed`, `qcow_make_empty`, `qcow_flush`, `qcow_get_info`, `qcow_check`, `qcow_set_key`
- `qcow_save_vmstate`, `qcow_load_vmstate`: a machine's state, behind the end of the disk

Images of version 3 are opened as well, if they use nothing that version 2 lacks; others are refused by the
name of the feature, since 0.12.4, which takes them for raw, would damage them. So are headers with
impossible numbers, and encryption.
"""

from __future__ import annotations

import errno
import os
import zlib
from array import array

from hypervisor.block import (
    bdrv_delete,
    bdrv_file_open,
    bdrv_flush,
    bdrv_getlength,
    bdrv_pread,
    bdrv_pwrite,
    bdrv_register,
    bdrv_truncate,
    bdrv_write,
)
from hypervisor.block.beneath import settle
from hypervisor.block.qcow2_aio import qcow_aio_readv, qcow_aio_writev, qcow_is_allocated
from hypervisor.block.qcow2_check import qcow2_check_refcounts
from hypervisor.block.qcow2_cluster import peek, qcow2_alloc_compressed_cluster_offset
from hypervisor.block.qcow2_create import qcow_create, qcow_create_options
from hypervisor.block.qcow2_format import (
    EXT_MAGIC_BITMAPS,
    EXT_MAGIC_FEATURE_NAMES,
    EXTENSION,
    HEADER3_SIZE,
    HEADER_SIZE,
    L2_CACHE_SIZE,
    MAX_EXTENSIONS,
    QCOW_EXT_MAGIC_BACKING_FORMAT,
    QCOW_EXT_MAGIC_END,
    QCOW_MAGIC,
    QCOW_OFLAG_COMPRESSED,
    QCOW_VERSION,
    QCowHeader,
    QCowHeader3,
    complain,
    feature_names,
    header_problem,
    version3_problem,
    words,
)
from hypervisor.block.qcow2_refcount import qcow2_refcount_close, qcow2_refcount_init
from hypervisor.block.qcow2_snapshot import (
    qcow2_free_snapshots,
    qcow2_read_snapshots,
    qcow2_snapshot_create,
    qcow2_snapshot_delete,
    qcow2_snapshot_goto,
    qcow2_snapshot_list,
)
from hypervisor.block.qcow2_state import (
    NO_OFFSET,
    BDRVQcowState,
    align_offset,
    empty_l2_cache,
    file_of,
    state,
)
from hypervisor.block_int import BlockDriver, BlockDriverInfo, BlockDriverState, ReadBuffer, WriteBuffer
from hypervisor.module import block_init
from hypervisor.quirks import note
from tracer import symbol, traced

C_FILE = "block/qcow2.c"

BACKING_FORMAT_SIZE = 16


@traced
def qcow_probe(buf: ReadBuffer, buf_size: int, filename: str) -> int:
    """100 if `buf`, the first bytes of a file, begins a qcow2 image of version 2 or later, else 0."""
    if buf_size < HEADER_SIZE:
        return 0
    header = QCowHeader.unpack(buf)
    return 100 if header.magic == QCOW_MAGIC and header.version >= QCOW_VERSION else 0


@traced
def qcow_read_extensions(bs: BlockDriverState, start_offset: int, end_offset: int) -> int:
    """Read the header extensions between two offsets; unknown ones are skipped.

    Returns
    -------
    int
        0; 1 to 3 if one cannot be read or is too long; -ENOTSUP for bitmaps, which would become stale.
    """
    s = state(bs)
    hd = file_of(s)
    offset = start_offset
    for _ in range(MAX_EXTENSIONS):
        if offset >= end_offset:
            return 0
        raw = bytearray(EXTENSION.size)
        if bdrv_pread(hd, offset, raw, len(raw)) != len(raw):
            complain(s._filename, f"the header extension at {offset:#x} cannot be read; check the file")
            return 1
        magic, length = EXTENSION.unpack(raw)
        offset += len(raw)
        if magic == QCOW_EXT_MAGIC_END:
            return 0
        if length > end_offset - offset:
            complain(s._filename, f"the header extension {magic:#x} is {length} bytes long; {_RESTORE}")
            return 2
        if magic == QCOW_EXT_MAGIC_BACKING_FORMAT:
            if length >= BACKING_FORMAT_SIZE:
                complain(s._filename, f"ext_backing_format: len={length} too large (>={BACKING_FORMAT_SIZE})")
                return 2
            raw = bytearray(length)
            if bdrv_pread(hd, offset, raw, length) != length:
                return 3
            bs.backing_format = os.fsdecode(bytes(raw).split(b"\0", 1)[0])
        elif magic == EXT_MAGIC_BITMAPS:
            complain(s._filename, 'feature "bitmaps" is not known to 0.12.4; remove them: qemu-img bitmap')
            return -errno.ENOTSUP
        offset += (length + 7) & ~7
    complain(s._filename, f"there are more than {MAX_EXTENSIONS} header extensions; {_RESTORE}")
    return 2


_RESTORE = "restore the header from a copy of the image"


@traced
def qcow_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Open an image: header, L1 table, refcount table, extensions, backing file name, snapshots.

    Returns
    -------
    int
        0, or -errno: -1 for a file that is no qcow2 image, which `bdrv_open2` takes for EPERM; -EINVAL,
        -EFBIG, -ENOTSUP for what `header_problem` and `version3_problem` say.
    """
    s = state(bs)
    ret, s.hd = bdrv_file_open(filename, flags)
    if ret < 0:
        return ret
    s._filename = filename
    ret = _load(bs, s, file_of(s))
    if ret < 0:
        qcow2_free_snapshots(bs)
        qcow2_refcount_close(bs)
        _forget_tables(s)
        bdrv_delete(file_of(s))
    return ret


def _load(bs: BlockDriverState, s: BDRVQcowState, hd: BlockDriverState) -> int:
    raw = bytearray(HEADER_SIZE)
    if bdrv_pread(hd, 0, raw, HEADER_SIZE) != HEADER_SIZE:
        return -1
    header = QCowHeader.unpack(raw)
    if header.magic != QCOW_MAGIC or header.version < QCOW_VERSION:
        note(
            "qcow2-eperm",
            "the -1 of a file that is no qcow2 image reads as EPERM: it is tried again read-only",
        )
        return -1  # quirk: reads as EPERM, so bdrv_open2 tries again read-only
    problem = header_problem(header, hd.total_sectors * 512)
    extensions = HEADER_SIZE
    if problem is None and header.version >= 3:
        problem, extensions = _version3(s, hd, header)
    if problem is not None:
        complain(s._filename, problem[1])
        return problem[0]
    _set_geometry(bs, s, header)

    if s.l1_size > 0:
        table = bytearray(align_offset(8 * s.l1_size, 512))
        if bdrv_pread(hd, s.l1_table_offset, table, 8 * s.l1_size) != 8 * s.l1_size:
            complain(s._filename, f"the L1 table at {s.l1_table_offset:#x} cannot be read; check the file")
            return -errno.EIO
        s.l1_table = words(table)
    else:
        s.l1_table = array("Q")
    s.l2_cache = [array("Q") for _ in range(L2_CACHE_SIZE)]
    empty_l2_cache(s)
    s.cluster_cache = bytearray(s.cluster_size)
    s.cluster_data = bytearray(2 * s.cluster_size + 512)
    s.cluster_cache_offset = NO_OFFSET
    if qcow2_refcount_init(bs) < 0:
        complain(s._filename, f"the refcount table at {s.refcount_table_offset:#x} cannot be read")
        return -errno.EIO
    s.cluster_allocs = None

    ret = qcow_read_extensions(bs, extensions, header.backing_file_offset or s.cluster_size)
    if ret:
        return min(ret, 0) or -errno.EINVAL
    if header.backing_file_offset:
        name = bytearray(header.backing_file_size)
        if bdrv_pread(hd, header.backing_file_offset, name, len(name)) != len(name):
            return -errno.EIO
        bs.backing_file = os.fsdecode(bytes(name).split(b"\0", 1)[0])
    return qcow2_read_snapshots(bs)


def _version3(
    s: BDRVQcowState, hd: BlockDriverState, header: QCowHeader
) -> tuple[tuple[int, str] | None, int]:
    """(what forbids to open this image of version 3, where its extensions begin)."""
    length = min(1 << header.cluster_bits, hd.total_sectors * 512)
    raw = bytearray(length)
    if length < HEADER3_SIZE or bdrv_pread(hd, 0, raw, length) != length:
        return (-errno.EINVAL, f"the header of version 3 is cut short; {_RESTORE}"), 0
    s._version = 3
    more = QCowHeader3.unpack(raw[HEADER_SIZE:])
    names: dict[tuple[int, int], str] = {}
    at = more.header_length
    while at + EXTENSION.size <= length:
        magic, size = EXTENSION.unpack_from(raw, at)
        at += EXTENSION.size
        if magic == QCOW_EXT_MAGIC_END:
            break
        if magic == EXT_MAGIC_FEATURE_NAMES:
            names = feature_names(bytes(raw[at : at + size]))
        at += (size + 7) & ~7
    return version3_problem(more, 1 << header.cluster_bits, names), more.header_length


def _set_geometry(bs: BlockDriverState, s: BDRVQcowState, header: QCowHeader) -> None:
    s.cluster_bits = header.cluster_bits
    s.cluster_size = 1 << s.cluster_bits
    s.cluster_sectors = 1 << (s.cluster_bits - 9)
    s.l2_bits = s.cluster_bits - 3
    s.l2_size = 1 << s.l2_bits
    bs.total_sectors = header.size // 512
    s.csize_shift = 62 - (s.cluster_bits - 8)
    s.csize_mask = (1 << (s.cluster_bits - 8)) - 1
    s.cluster_offset_mask = (1 << s.csize_shift) - 1
    s.refcount_table_offset = header.refcount_table_offset
    s.refcount_table_size = header.refcount_table_clusters << (s.cluster_bits - 3)
    s.snapshots_offset = header.snapshots_offset
    s.nb_snapshots = header.nb_snapshots
    s.l1_size = header.l1_size
    s.l1_vm_state_index = -(-header.size >> (s.cluster_bits + s.l2_bits))
    s.l1_table_offset = header.l1_table_offset


def _forget_tables(s: BDRVQcowState) -> None:
    s.l1_table = None
    s.l2_cache = None
    s.cluster_cache = None
    s.cluster_data = None


@traced
def qcow_set_key(bs: BlockDriverState, key: str) -> int:
    """Refused: `qcow_open` lets no encrypted image in."""
    return -errno.ENOTSUP


@traced
def qcow_close(bs: BlockDriverState) -> None:
    """Close the file; nothing is kept back that would have to be written."""
    s = state(bs)
    _forget_tables(s)
    qcow2_refcount_close(bs)
    bdrv_delete(file_of(s))


@traced
def qcow_make_empty(bs: BlockDriverState) -> int:
    """After a commit: nothing, the clusters stay allocated."""
    return 0


@traced
def qcow_write_compressed(
    bs: BlockDriverState, sector_num: int, buf: ReadBuffer | None, nb_sectors: int
) -> int:
    """Compress one cluster, or write it plainly if that is no gain or its place is taken.

    Parameters
    ----------
    bs : BlockDriverState
    sector_num : int
        The first sector of the cluster.
    buf : bytes-like or None
        The cluster; None with 0 sectors.
    nb_sectors : int
        A cluster, or less at the end of the disk; 0 after the last one, to end the file at a sector.

    Returns
    -------
    int
        0 or -errno.
    """
    s = state(bs)
    hd = file_of(s)
    if nb_sectors == 0:
        return min(bdrv_truncate(hd, (bdrv_getlength(hd) + 511) & ~511), 0)
    tail = s.cluster_sectors - nb_sectors
    if buf is None or tail < 0 or (tail and sector_num + nb_sectors != bs.total_sectors):
        return -errno.EINVAL
    deflate = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -12, 9, zlib.Z_DEFAULT_STRATEGY)
    out = deflate.compress(buf) + deflate.compress(bytes(tail * 512)) + deflate.flush()
    size = len(out)
    if size >= s.cluster_size:
        return bdrv_write(bs, sector_num, buf, nb_sectors)
    s._packed = out
    cluster_offset = qcow2_alloc_compressed_cluster_offset(bs, sector_num << 9, size)
    s._packed = b""
    if cluster_offset < 0:
        return cluster_offset
    if not cluster_offset & QCOW_OFLAG_COMPRESSED:
        # unlike C, which puts compressed bytes there, the cluster itself; its call writes the first of them
        out = bytes(buf) + bytes(tail * 512)
        try:
            settle(hd, cluster_offset, out)
        except OSError as error:
            return -(error.errno or errno.EIO)
        out = out[:size]
    s.cluster_cache_offset = NO_OFFSET
    ret = bdrv_pwrite(hd, cluster_offset & s.cluster_offset_mask, out, len(out))
    return 0 if ret == len(out) else min(ret, -1)


@traced
def qcow_flush(bs: BlockDriverState) -> None:
    """Flush the file."""
    bdrv_flush(file_of(state(bs)))


@traced
def qcow_vm_state_offset(s: BDRVQcowState) -> int:
    """The guest offset, behind the end of the disk, where a machine's state begins."""
    return s.l1_vm_state_index << (s.cluster_bits + s.l2_bits)


@traced
def qcow_get_info(bs: BlockDriverState, bdi: BlockDriverInfo) -> int:
    """Fill in the cluster size and where a machine's state begins, in bytes."""
    s = state(bs)
    bdi.cluster_size = s.cluster_size
    bdi.vm_state_offset = qcow_vm_state_offset(s)
    return 0


@traced
def qcow_check(bs: BlockDriverState) -> int:
    """Check the image: the number of errors, or -errno."""
    return qcow2_check_refcounts(bs)


@traced
def qcow_save_vmstate(bs: BlockDriverState, buf: ReadBuffer, pos: int, size: int) -> int:
    """Write `size` bytes of a machine's state at `pos`; their number or -errno."""
    growable, bs.growable = bs.growable, 1
    ret = bdrv_pwrite(bs, qcow_vm_state_offset(state(bs)) + pos, buf, size)
    bs.growable = growable
    return ret


@traced
def qcow_load_vmstate(bs: BlockDriverState, buf: WriteBuffer, pos: int, size: int) -> int:
    """Read `size` bytes of a machine's state from `pos`; their number or -errno."""
    growable, bs.growable = bs.growable, 1
    ret = bdrv_pread(bs, qcow_vm_state_offset(state(bs)) + pos, buf, size)
    bs.growable = growable
    return ret


bdrv_qcow2 = symbol(
    BlockDriver(
        format_name="qcow2",
        instance_size=BDRVQcowState,
        bdrv_probe=qcow_probe,
        bdrv_open=qcow_open,
        bdrv_close=qcow_close,
        bdrv_create=qcow_create,
        bdrv_flush=qcow_flush,
        bdrv_is_allocated=qcow_is_allocated,
        bdrv_set_key=qcow_set_key,
        bdrv_make_empty=qcow_make_empty,
        bdrv_aio_readv=qcow_aio_readv,
        bdrv_aio_writev=qcow_aio_writev,
        bdrv_write_compressed=qcow_write_compressed,
        bdrv_snapshot_create=qcow2_snapshot_create,
        bdrv_snapshot_goto=qcow2_snapshot_goto,
        bdrv_snapshot_delete=qcow2_snapshot_delete,
        bdrv_snapshot_list=qcow2_snapshot_list,
        bdrv_get_info=qcow_get_info,
        bdrv_save_vmstate=qcow_save_vmstate,
        bdrv_load_vmstate=qcow_load_vmstate,
        create_options=qcow_create_options,
        bdrv_check=qcow_check,
        _peek=peek,
    ),
    "bdrv_qcow2",
)


@traced
def bdrv_qcow2_init() -> None:
    """Register the driver."""
    bdrv_register(bdrv_qcow2)


block_init(bdrv_qcow2_init)
