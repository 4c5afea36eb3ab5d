"""Clusters of a qcow image: the second third of block/qcow.c.

- `BDRVQcowState`: what an open image keeps in memory
- `get_cluster_offset`: guest offset to file offset, allocating if asked to
- `qcow_is_allocated`: that, as a question
- `decompress_buffer`, `decompress_cluster`, `qcow_write_compressed`: compressed clusters
- `peek`: read beneath the calls

::

    guest offset ── L1 index ──► l1_table[i] ── the L2 table, in l2_cache ──► entry ──► file offset
                       0: no L2 table yet                         0: cluster not allocated
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from array import array

from hypervisor.block import bdrv_getlength, bdrv_pread, bdrv_pwrite, bdrv_truncate, bdrv_write
from hypervisor.block.beneath import fetch_bytes, peek_backing, settle_bytes
from hypervisor.block.qcow_format import MAX_OFFSET, QCOW_OFLAG_COMPRESSED, compress, decompress, round_up
from hypervisor.block_int import BlockDriverState, ReadBuffer
from hypervisor.quirks import note
from tracer import Struct, recording, traced

C_FILE = "block/qcow.c"

L2_CACHE_SIZE = 16
NO_OFFSET = (1 << 64) - 1
_ENTRY = struct.Struct(">Q")


class BDRVQcowState(Struct):
    """`BDRVQcowState` of block/qcow.c, without the AES keys.

    Notes
    -----
    ``l1_table`` holds host-order numbers, ``l2_cache`` 16 tables as they are on disk; ``l2_cache_offsets``
    names them (0: slot free) and ``l2_cache_counts`` counts their hits. ``cluster_cache`` is the cluster
    decompressed last, the one at ``cluster_cache_offset``. ``_tables_end`` is ours: no cluster is allocated
    below it, since an L1 entry points there although the file is shorter (see `get_cluster_offset`).
    ``_packed`` is ours as well: the compressed cluster about to be linked.
    """

    hd: BlockDriverState | None = None
    cluster_bits: int = 0
    cluster_size: int = 0
    cluster_sectors: int = 0
    l2_bits: int = 0
    l2_size: int = 0
    l1_size: int = 0
    cluster_offset_mask: int = 0
    l1_table_offset: int = 0
    l1_table: array[int] | None = None
    l2_cache: bytearray | None = None
    l2_cache_offsets: array[int] | None = None
    l2_cache_counts: array[int] | None = None
    cluster_cache: bytearray | None = None
    cluster_data: bytearray | None = None
    cluster_cache_offset: int = 0
    crypt_method: int = 0
    crypt_method_header: int = 0
    _tables_end: int = 0
    _packed: bytes = b""


def failure(ret: int) -> int:
    """The errno of a transfer that was not complete; -EIO for a short one."""
    return ret if ret < 0 else -errno.EIO


def set_l1_table(s: BDRVQcowState, raw: bytes | bytearray, length: int) -> None:
    """Take over an L1 table as it is in a file of `length` bytes.

    An entry just behind the end is an L2 table that a program killed too early never wrote.
    """
    s.l1_table = array("Q", raw)
    if sys.byteorder == "little":
        s.l1_table.byteswap()
    size = 8 * s.l2_size
    last = round_up(length + 512, s.cluster_size)
    ends = (entry + size for entry in s.l1_table if entry and length - size < entry <= last)
    s._tables_end = round_up(max(ends, default=0), s.cluster_size)


def empty_l2_cache(s: BDRVQcowState) -> None:
    """Make all 16 slots of the cache free."""
    s.l2_cache = bytearray(8 * s.l2_size * L2_CACHE_SIZE)
    s.l2_cache_offsets = array("Q", bytes(8 * L2_CACHE_SIZE))
    s.l2_cache_counts = array("I", bytes(4 * L2_CACHE_SIZE))


@traced
def get_cluster_offset(
    bs: BlockDriverState, offset: int, allocate: int, compressed_size: int, n_start: int, n_end: int
) -> int:
    """Where in the file the cluster of a guest offset is.

    Parameters
    ----------
    bs : BlockDriverState
    offset : int
        Guest offset in bytes.
    allocate : int
        0: only look; 1: make a normal cluster of an unallocated or compressed one; 2: give the
        `compressed_size` bytes of a compressed cluster a place at the end of the file.
    compressed_size : int
        Bytes, less than a cluster.
    n_start, n_end : int
        The sectors of the cluster about to be written; the others of a compressed one are kept.

    Returns
    -------
    int
        0 if not allocated, the offset in bytes, or the L2 entry of a compressed cluster (bit 63 set).
        Negative on error, where C has 0 or UINT64_MAX.

    Notes
    -----
    Writes in this order: L1 entry, L2 table, length of the file, L2 entry. After a crash behind the first,
    L1 names a table that the file is too short for; ``_tables_end`` keeps other clusters off that place.
    The data of a compressed cluster is on the disk before it is linked, which C does first; and it gets a
    new place if the cluster was compressed before, where C writes over the old one, whatever its size.
    """
    s: BDRVQcowState = bs.opaque
    hd, l1_table, l2_cache = s.hd, s.l1_table, s.l2_cache
    offsets, counts = s.l2_cache_offsets, s.l2_cache_counts
    assert hd and l1_table is not None and l2_cache is not None and offsets is not None and counts is not None
    l1_index = offset >> (s.l2_bits + s.cluster_bits)
    if not 0 <= l1_index < s.l1_size:
        return 0  # C reads memory behind the table; only qcow_is_allocated is called unchecked
    l2_offset = l1_table[l1_index]
    new_l2_table = False
    if not l2_offset:
        if not allocate:
            return 0
        l2_offset = _end_of_file(s, hd, s.cluster_size)
        if l2_offset < 0:
            return l2_offset
        ret = bdrv_pwrite(hd, s.l1_table_offset + 8 * l1_index, _ENTRY.pack(l2_offset), 8)
        if ret != 8:
            return failure(ret)
        l1_table[l1_index] = l2_offset
        new_l2_table = True
    elif l2_offset > MAX_OFFSET:
        return -errno.EIO
    if l2_offset in offsets:
        slot = offsets.index(l2_offset)
        if counts[slot] < 0xFFFFFFFE:
            counts[slot] += 1
        else:
            for j, count in enumerate(counts):
                counts[j] = count >> 1
    else:
        slot = counts.index(min(counts))
        counts[slot] = offsets[slot] = 0
        size = 8 * s.l2_size
        table = memoryview(l2_cache)[slot * size : (slot + 1) * size]
        if new_l2_table:
            table[:] = bytes(size)
            ret = bdrv_pwrite(hd, l2_offset, table, size)
            if ret != size:
                _forget_l2_table(s, hd, l1_index)
                return failure(ret)
        else:
            ret = bdrv_pread(hd, l2_offset, table, size)
            if ret != size:
                return failure(ret)
        offsets[slot] = l2_offset
        counts[slot] = 1
    l2_index = (offset >> s.cluster_bits) & (s.l2_size - 1)
    at = 8 * ((slot << s.l2_bits) + l2_index)
    entry: int = _ENTRY.unpack_from(l2_cache, at)[0]
    if entry and not (entry & QCOW_OFLAG_COMPRESSED and allocate):
        return entry
    if not allocate:
        return 0
    keep = allocate == 1 and entry & QCOW_OFLAG_COMPRESSED and n_end - n_start < s.cluster_sectors
    if keep and decompress_cluster(s, entry) < 0:
        return -errno.EIO
    cluster_offset = _end_of_file(s, hd, s.cluster_size if allocate == 1 else 1)
    if cluster_offset < 0:
        return cluster_offset
    if keep:
        assert s.cluster_cache is not None
        ret = bdrv_pwrite(hd, cluster_offset, s.cluster_cache, s.cluster_size)
        if ret != s.cluster_size:
            return failure(ret)
    elif allocate == 1:
        if bs.backing_hd is not None and n_end - n_start < s.cluster_sectors:
            # quirk: nothing is copied up; `qcow_create` gives overlays clusters of one sector instead
            note("qcow-no-copy-up", "a large cluster written in part loses the backing file's other sectors")
        ret = bdrv_truncate(hd, cluster_offset + s.cluster_size)
        if ret < 0:
            return ret
    else:
        try:
            settle_bytes(hd, cluster_offset, s._packed)
        except OSError as error:
            return -(error.errno or errno.EIO)
        cluster_offset |= QCOW_OFLAG_COMPRESSED | compressed_size << (63 - s.cluster_bits)
    ret = bdrv_pwrite(hd, l2_offset + 8 * l2_index, _ENTRY.pack(cluster_offset), 8)
    if ret != 8:
        return failure(ret)
    _ENTRY.pack_into(l2_cache, at, cluster_offset)
    return cluster_offset


def _end_of_file(s: BDRVQcowState, hd: BlockDriverState, alignment: int) -> int:
    length = bdrv_getlength(hd)
    return length if length < 0 else max(round_up(length, alignment), s._tables_end)


def _forget_l2_table(s: BDRVQcowState, hd: BlockDriverState, l1_index: int) -> None:
    """Take back an L1 entry whose table could not be written; keep its place free if that fails too."""
    assert s.l1_table is not None
    if bdrv_pwrite(hd, s.l1_table_offset + 8 * l1_index, bytes(8), 8) == 8:
        s.l1_table[l1_index] = 0
    else:
        s._tables_end = round_up(s.l1_table[l1_index] + 8 * s.l2_size, s.cluster_size)


@traced
def qcow_is_allocated(bs: BlockDriverState, sector_num: int, nb_sectors: int) -> tuple[int, int]:
    """Whether `sector_num` is in this image, and for how many sectors (to the end of its cluster)."""
    s: BDRVQcowState = bs.opaque
    cluster_offset = get_cluster_offset(bs, sector_num << 9, 0, 0, 0, 0)
    index_in_cluster = sector_num & (s.cluster_sectors - 1)
    n = s.cluster_sectors - index_in_cluster
    if not cluster_offset and not recording():
        n = max(n, _hole(s, sector_num << 9) >> 9)  # a recording shows C's steps, a cluster each
    return int(cluster_offset != 0), min(n, nb_sectors)


def _hole(s: BDRVQcowState, offset: int) -> int:
    """How many bytes from an unallocated cluster on no table in memory gives a place."""
    assert s.l1_table is not None and s.l2_cache is not None and s.l2_cache_offsets is not None
    shift = s.l2_bits + s.cluster_bits
    l1_index = offset >> shift
    if l1_index >= s.l1_size:
        return 0
    l2_offset = s.l1_table[l1_index]
    if not l2_offset:
        end = next((i for i in range(l1_index, s.l1_size) if s.l1_table[i]), s.l1_size) << shift
    else:
        l2_index = (offset >> s.cluster_bits) & (s.l2_size - 1)
        start = (s.l2_cache_offsets.index(l2_offset) << s.l2_bits) + l2_index
        rest = s.l2_cache[8 * start : 8 * (start - l2_index + s.l2_size)]
        free = (len(rest) - len(rest.lstrip(b"\0"))) // 8
        end = ((offset >> s.cluster_bits) + free) << s.cluster_bits
    return end - offset


@traced
def decompress_buffer(out_buf: bytearray, out_buf_size: int, buf: ReadBuffer, buf_size: int) -> int:
    """Inflate one cluster; 0, or -1 if `buf` does not hold exactly `out_buf_size` bytes."""
    out = decompress(memoryview(buf)[:buf_size], out_buf_size)
    if out is None:
        return -1
    out_buf[:out_buf_size] = out
    return 0


@traced
def decompress_cluster(s: BDRVQcowState, cluster_offset: int) -> int:
    """Make ``cluster_cache`` the content of a compressed cluster; `cluster_offset` is its L2 entry."""
    assert s.hd is not None and s.cluster_data is not None and s.cluster_cache is not None
    coffset = cluster_offset & s.cluster_offset_mask
    if s.cluster_cache_offset != coffset:
        csize = (cluster_offset >> (63 - s.cluster_bits)) & (s.cluster_size - 1)
        if bdrv_pread(s.hd, coffset, memoryview(s.cluster_data)[:csize], csize) != csize:
            return -1
        if decompress_buffer(s.cluster_cache, s.cluster_size, s.cluster_data, csize) < 0:
            return -1
        s.cluster_cache_offset = coffset
    return 0


def peek(bs: BlockDriverState, sector_num: int, view: memoryview) -> int:
    """Read beneath the calls up to the end of a cluster, as `BlockDriver` says.

    Returns
    -------
    int
        Bytes of `view` that were filled, at least one sector.

    Raises
    ------
    OSError
        When a table or the data cannot be read.
    """
    s: BDRVQcowState = bs.opaque
    assert s.hd is not None and s.l1_table is not None
    offset = sector_num << 9
    within = offset & (s.cluster_size - 1)
    view = view[: s.cluster_size - within]
    entry = l2_offset = s.l1_table[offset >> (s.l2_bits + s.cluster_bits)]
    if l2_offset:
        l2_index = (offset >> s.cluster_bits) & (s.l2_size - 1)
        entry = _ENTRY.unpack(fetch_bytes(s.hd, l2_offset + 8 * l2_index, 8))[0]
    if not entry:
        peek_backing(bs, sector_num, view)
    elif entry & QCOW_OFLAG_COMPRESSED:
        size = (entry >> (63 - s.cluster_bits)) & (s.cluster_size - 1)
        out = decompress(fetch_bytes(s.hd, entry & s.cluster_offset_mask, size), s.cluster_size)
        if out is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view[:] = out[within:][: len(view)]
    else:
        view[:] = fetch_bytes(s.hd, entry + within, len(view))
    return len(view)


@traced
def qcow_write_compressed(
    bs: BlockDriverState, sector_num: int, buf: ReadBuffer | None, nb_sectors: int
) -> int:
    """Write one whole cluster, compressed unless that makes it no smaller.

    Returns
    -------
    int
        0; -EINVAL if `nb_sectors` is not a cluster; or the errno of the failing write. A cluster that is
        there uncompressed is written plainly; C puts compressed bytes over it.
    """
    s: BDRVQcowState = bs.opaque
    if nb_sectors != s.cluster_sectors or buf is None:
        return -errno.EINVAL
    assert s.hd is not None
    out = compress(memoryview(buf)[: s.cluster_size], s.cluster_size)
    if out is None:
        return min(bdrv_write(bs, sector_num, buf, s.cluster_sectors), 0)
    s._packed = out
    cluster_offset = get_cluster_offset(bs, sector_num << 9, 2, len(out), 0, 0)
    s._packed = b""
    if cluster_offset <= 0:
        return failure(cluster_offset)
    if not cluster_offset & QCOW_OFLAG_COMPRESSED:
        return min(bdrv_write(bs, sector_num, buf, s.cluster_sectors), 0)
    s.cluster_cache_offset = NO_OFFSET
    ret = bdrv_pwrite(s.hd, cluster_offset & s.cluster_offset_mask, out, len(out))
    return 0 if ret == len(out) else failure(ret)
