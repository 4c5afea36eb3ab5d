"""From guest offsets to file offsets: block/qcow2-cluster.c, without its tables (`qcow2_table`).

- `qcow2_get_cluster_offset`: where is it, and how much of it lies in a row
- `qcow2_alloc_cluster_offset`: the same for a write, allocating; its `QCowL2Meta` is linked by
  `qcow2_alloc_cluster_link_l2` when the data is on the disk
- `qcow2_alloc_compressed_cluster_offset`, `qcow2_decompress_cluster`: compressed clusters

::

    guest offset ─► l1_table[L1 index] ─► L2 table, in one of 16 places of l2_cache ─► [L2 index] ─► entry
                       0: no table                                                0: not allocated

A write that allocates: count the new clusters, write the data, copy the rest of the first and last cluster
(`copy_sectors`), write the L2 entries, free what they named before. A crash in between leaks clusters.

Where 0.12.4 takes a failing read of a table for "not allocated", the result is negative here. It frees
compressed clusters before their successors are linked; on the disk their counts sink afterwards.
"""

from __future__ import annotations

import errno
import os
import zlib
from array import array

from hypervisor.block import bdrv_pread, bdrv_pwrite, bdrv_read, bdrv_write
from hypervisor.block.beneath import fetch_bytes, peek_backing, settle_bytes
from hypervisor.block.qcow2_format import (
    QCOW_OFLAG_COMPRESSED,
    QCOW_OFLAG_COPIED,
    be_bytes,
)
from hypervisor.block.qcow2_held import held_back
from hypervisor.block.qcow2_refcount import (
    holds_metadata,
    qcow2_alloc_bytes,
    qcow2_alloc_clusters,
    qcow2_free_any_clusters,
)
from hypervisor.block.qcow2_state import (
    BDRVQcowState,
    QCowL2Meta,
    compressed_range,
    file_of,
    l1_of,
    size_to_clusters,
    state,
)
from hypervisor.block.qcow2_table import get_cluster_table, l2_load, write_l2_entries
from hypervisor.block_int import BlockDriverState, WriteBuffer
from tracer import traced

C_FILE = "block/qcow2-cluster.c"

ENTRIES_PER_SECTOR = 512 // 8
_SECTOR = -ENTRIES_PER_SECTOR


@traced
def count_contiguous_clusters(
    nb_clusters: int, cluster_size: int, l2_table: memoryview, start: int, mask: int
) -> int:
    """How many of `nb_clusters` entries from `start` on continue the row that entry 0 begins.

    Bits of `mask` do not count; 0 if entry 0 is not allocated.
    """
    offset = l2_table[0] & ~mask
    if not offset:
        return 0
    for i in range(start, start + nb_clusters):
        if offset + i * cluster_size != l2_table[i] & ~mask:
            return i - start
    return nb_clusters


@traced
def count_contiguous_free_clusters(nb_clusters: int, l2_table: memoryview) -> int:
    """How many of the first `nb_clusters` entries are not allocated, up to the first that is."""
    for i in range(nb_clusters):
        if l2_table[i]:
            return i
    return nb_clusters


@traced
def qcow_read(bs: BlockDriverState, sector_num: int, buf: WriteBuffer, nb_sectors: int) -> int:
    """Read guest sectors in place, for copy on write; 0 or -errno."""
    from hypervisor.block.qcow2_aio import qcow2_backing_read1

    s = state(bs)
    view = memoryview(buf)
    while nb_sectors > 0:
        cluster_offset, n = qcow2_get_cluster_offset(bs, sector_num << 9, nb_sectors)
        if cluster_offset < 0:
            return cluster_offset
        within = (sector_num & (s.cluster_sectors - 1)) * 512
        part = view[: n * 512]
        if not cluster_offset:
            if bs.backing_hd is None:
                part[:] = bytes(len(part))
            else:
                n1 = qcow2_backing_read1(bs.backing_hd, sector_num, part, n)
                if n1 > 0 and bdrv_read(bs.backing_hd, sector_num, part[: n1 * 512], n1) < 0:
                    return -errno.EIO
        elif cluster_offset & QCOW_OFLAG_COMPRESSED:
            if qcow2_decompress_cluster(s, cluster_offset) < 0:
                return -errno.EIO
            assert s.cluster_cache is not None
            part[:] = memoryview(s.cluster_cache)[within : within + len(part)]
        elif bdrv_pread(file_of(s), cluster_offset + within, part, len(part)) != len(part):
            return -errno.EIO
        nb_sectors -= n
        sector_num += n
        view = view[n * 512 :]
    return 0


@traced
def copy_sectors(bs: BlockDriverState, start_sect: int, cluster_offset: int, n_start: int, n_end: int) -> int:
    """Copy guest sectors `n_start` to `n_end` of a cluster to its new place; 0 or -errno."""
    s = state(bs)
    n = n_end - n_start
    if n <= 0:
        return 0
    buf = memoryview(bytearray(n * 512))
    ret = qcow_read(bs, start_sect + n_start, buf, n)
    if ret < 0:
        return ret
    return min(bdrv_write(file_of(s), (cluster_offset >> 9) + n_start, buf, n), 0)


@traced
def qcow2_get_cluster_offset(bs: BlockDriverState, offset: int, num: int) -> tuple[int, int]:
    """Where the guest's bytes at `offset` are in the file.

    Parameters
    ----------
    bs : BlockDriverState
    offset : int
        The guest's, in bytes.
    num : int
        Sectors wanted.

    Returns
    -------
    cluster_offset : int
        Of the cluster, in bytes; 0 if it is not allocated; the L2 entry if it is compressed; -EIO.
    num : int
        Sectors, of those wanted, that lie there in a row.
    """
    s = state(bs)
    within = (offset >> 9) & (s.cluster_sectors - 1)
    l1_bits = s.l2_bits + s.cluster_bits
    available = (((1 << l1_bits) - (offset & ((1 << l1_bits) - 1))) >> 9) + within
    needed = min(num + within, available)
    cluster_offset = 0
    l1_index = offset >> l1_bits
    l2_offset = l1_of(s)[l1_index] & ~QCOW_OFLAG_COPIED if l1_index < s.l1_size else 0
    if l2_offset:
        l2_table = l2_load(bs, l2_offset)
        if l2_table is None:
            return -errno.EIO, num
        l2_index = (offset >> s.cluster_bits) & (s.l2_size - 1)
        cluster_offset = l2_table[l2_index]
        nb_clusters = size_to_clusters(s, needed << 9)
        rest = memoryview(l2_table)[l2_index:]
        if not cluster_offset:
            count = count_contiguous_free_clusters(nb_clusters, rest)
        else:
            count = count_contiguous_clusters(nb_clusters, s.cluster_size, rest, 0, QCOW_OFLAG_COPIED)
            if cluster_offset & QCOW_OFLAG_COMPRESSED:
                count = 1
        available = count * s.cluster_sectors
    return cluster_offset & ~QCOW_OFLAG_COPIED, min(available, needed) - within


@traced
def qcow2_alloc_compressed_cluster_offset(bs: BlockDriverState, offset: int, compressed_size: int) -> int:
    """Make room for a compressed cluster and link it.

    Returns
    -------
    int
        The L2 entry; if the cluster is there uncompressed and ours alone, its offset; -errno where C has 0.

    Notes
    -----
    C links the cluster before it writes the data; `_packed`, the data, is on the disk here before.
    """
    s = state(bs)
    ret, l2_table, l2_offset, l2_index = get_cluster_table(bs, offset)
    if ret < 0:
        return ret
    old = l2_table[l2_index]
    if old & QCOW_OFLAG_COPIED:
        return old & ~QCOW_OFLAG_COPIED
    with held_back(s) as held:
        if old:
            qcow2_free_any_clusters(bs, old, 1)
        cluster_offset = qcow2_alloc_bytes(bs, compressed_size)
        if cluster_offset < 0:
            return cluster_offset
        nb_csectors = ((cluster_offset + compressed_size - 1) >> 9) - (cluster_offset >> 9)
        entry = cluster_offset | QCOW_OFLAG_COMPRESSED | nb_csectors << s.csize_shift
        try:
            settle_bytes(file_of(s), cluster_offset, s._packed)
        except OSError as error:
            return -(error.errno or errno.EIO)
        data = be_bytes(array("Q", [entry]))
        ret = bdrv_pwrite(file_of(s), l2_offset + 8 * l2_index, data, 8)
        if ret != 8:
            return min(ret, -1)
        l2_table[l2_index] = entry
        held.done = True
    return entry


@traced
def qcow2_alloc_cluster_link_l2(bs: BlockDriverState, m: QCowL2Meta) -> int:
    """Give clusters that a write allocated their place: the data is on the disk by now; 0 or -errno.

    If another write has allocated the same clusters meanwhile, what it wrote is copied and its clusters
    are freed.
    """
    s = state(bs)
    if m.nb_clusters == 0:
        return 0
    start_sect = (m.offset & -s.cluster_size) >> 9
    if m.n_start:
        ret = copy_sectors(bs, start_sect, m.cluster_offset, 0, m.n_start)
        if ret < 0:
            return ret
    last = m.nb_available & (s.cluster_sectors - 1)
    if last:
        end = m.nb_available - last
        ret = copy_sectors(bs, start_sect + end, m.cluster_offset + (end << 9), last, s.cluster_sectors)
        if ret < 0:
            return ret
    ret, l2_table, l2_offset, l2_index = get_cluster_table(bs, m.offset)
    if ret < 0:
        return ret
    first = m.cluster_offset | QCOW_OFLAG_COPIED
    place = slice(l2_index, l2_index + m.nb_clusters)
    old = l2_table[place]
    l2_table[place] = array("Q", range(first, first + m.nb_clusters * s.cluster_size, s.cluster_size))
    ret = write_l2_entries(s, l2_table, l2_offset, l2_index, m.nb_clusters)
    if ret < 0:
        l2_table[place] = old
        return ret
    for entry in old:
        if entry:
            qcow2_free_any_clusters(bs, entry & ~QCOW_OFLAG_COPIED, 1)
    return 0


@traced
def qcow2_alloc_cluster_offset(
    bs: BlockDriverState, offset: int, n_start: int, n_end: int, m: QCowL2Meta
) -> tuple[int, int]:
    """Where to write the guest's bytes at `offset`, allocating clusters unless they are ours alone.

    Parameters
    ----------
    bs : BlockDriverState
    offset : int
        The guest's, in bytes.
    n_start, n_end : int
        Sectors, from the beginning of the first cluster, where the write begins and ends.
    m : QCowL2Meta
        Filled in. ``nb_clusters`` is 0 if nothing was allocated: then either ``depends_on`` is another
        write, allocating the same clusters, to wait for; or the clusters were there.

    Returns
    -------
    ret : int
        0 or -errno.
    num : int
        Sectors, of those wanted, that can be written there in a row.
    """
    s = state(bs)
    ret, l2_table, _, l2_index = get_cluster_table(bs, offset)
    if ret < 0:
        return ret, 0
    nb_clusters = min(size_to_clusters(s, n_end << 9), s.l2_size - l2_index)
    rest = memoryview(l2_table)[l2_index:]
    cluster_offset = rest[0]
    if cluster_offset & QCOW_OFLAG_COPIED:
        nb_clusters = count_contiguous_clusters(nb_clusters, s.cluster_size, rest, 0, 0)
        cluster_offset &= ~QCOW_OFLAG_COPIED
        m.nb_clusters = 0
        m.depends_on = None
        if holds_metadata(s, cluster_offset, nb_clusters):
            return -errno.EIO, 0
    else:
        nb_clusters = _unfinished(s, offset, _to_allocate(s, rest, nb_clusters), m)
        if nb_clusters == 0:
            m.nb_clusters = 0
            return 0, 0
        m.next_in_flight = s.cluster_allocs
        s.cluster_allocs = m
        cluster_offset = qcow2_alloc_clusters(bs, nb_clusters * s.cluster_size)
        if cluster_offset < 0:
            remove_in_flight(s, m)
            m.nb_clusters = 0
            return cluster_offset, 0
        m.offset = offset
        m.n_start = n_start
        m.nb_clusters = nb_clusters
    m.nb_available = min(nb_clusters << (s.cluster_bits - 9), n_end)
    m.cluster_offset = cluster_offset
    return 0, m.nb_available - n_start


def _to_allocate(s: BDRVQcowState, rest: memoryview, nb_clusters: int) -> int:
    """How many clusters in a row one allocation can replace: a compressed one, or free and shared ones."""
    if rest[0] & QCOW_OFLAG_COMPRESSED:
        nb_clusters = 1
    i = 0
    while i < nb_clusters:
        i += count_contiguous_clusters(nb_clusters - i, s.cluster_size, rest, i, 0)
        if i >= nb_clusters or rest[i]:
            break
        i += count_contiguous_free_clusters(nb_clusters - i, rest[i:])
        if i >= nb_clusters or rest[i] & (QCOW_OFLAG_COPIED | QCOW_OFLAG_COMPRESSED):
            break
    return i


def _unfinished(s: BDRVQcowState, offset: int, nb_clusters: int, m: QCowL2Meta) -> int:
    """How many clusters no other write is allocating; if 0, ``m.depends_on`` is the one that does."""
    old = s.cluster_allocs
    while old is not None:
        end = offset + nb_clusters * s.cluster_size
        if end >= old.offset and offset <= old.offset + old.nb_clusters * s.cluster_size:
            nb_clusters = (old.offset - offset) >> s.cluster_bits if offset < old.offset else 0
            if nb_clusters == 0:
                m.depends_on = old
                break
        old = old.next_in_flight
    return nb_clusters


def remove_in_flight(s: BDRVQcowState, m: QCowL2Meta) -> None:
    """Take an allocation off the list: C's ``QLIST_REMOVE(m, next_in_flight)``."""
    before: QCowL2Meta | None = None
    at = s.cluster_allocs
    while at is not None and at is not m:
        before, at = at, at.next_in_flight
    if at is None:
        return
    if before is None:
        s.cluster_allocs = m.next_in_flight
    else:
        before.next_in_flight = m.next_in_flight
    m.next_in_flight = None


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
    s, hd, offset = state(bs), file_of(state(bs)), sector_num << 9
    within = offset & (s.cluster_size - 1)
    view = view[: s.cluster_size - within]
    l1_index = offset >> (s.l2_bits + s.cluster_bits)
    l2_offset = l1_of(s)[l1_index] & ~QCOW_OFLAG_COPIED if l1_index < s.l1_size else 0
    entry = 0
    if l2_offset:
        l2_index = (offset >> s.cluster_bits) & (s.l2_size - 1)
        entry = int.from_bytes(fetch_bytes(hd, l2_offset + 8 * l2_index, 8)) & ~QCOW_OFLAG_COPIED
    if not entry:
        peek_backing(bs, sector_num, view)
    elif entry & QCOW_OFLAG_COMPRESSED:
        start, length = entry & s.cluster_offset_mask, compressed_range(s, entry)[1] - (entry & 511)
        out = _inflate(fetch_bytes(hd, start, length), s.cluster_size)
        if out is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view[:] = out[within:][: len(view)]
    else:
        view[:] = fetch_bytes(hd, entry + within, len(view))
    return len(view)


@traced
def decompress_buffer(out_buf: bytearray, out_buf_size: int, buf: memoryview, buf_size: int) -> int:
    """Inflate one cluster: raw deflate, window of 12 bits; 0, or -1 if it is not exactly that much."""
    out = _inflate(buf[:buf_size], out_buf_size)
    if out is None:
        return -1
    out_buf[:] = out
    return 0


def _inflate(data: bytes | memoryview, size: int) -> bytes | None:
    try:
        out = zlib.decompressobj(-12).decompress(data, size)
    except zlib.error:
        return None
    return out if len(out) == size else None


@traced
def qcow2_decompress_cluster(s: BDRVQcowState, cluster_offset: int) -> int:
    """Have the compressed cluster of this L2 entry in ``s.cluster_cache``; 0 or -1."""
    coffset = cluster_offset & s.cluster_offset_mask
    if s.cluster_cache_offset == coffset:
        return 0
    assert s.cluster_data is not None and s.cluster_cache is not None
    nb_csectors = ((cluster_offset >> s.csize_shift) & s.csize_mask) + 1
    within = coffset & 511
    data = memoryview(s.cluster_data)
    if bdrv_read(file_of(s), coffset >> 9, data[: nb_csectors * 512], nb_csectors) < 0:
        return -1
    if decompress_buffer(s.cluster_cache, s.cluster_size, data[within:], nb_csectors * 512 - within) < 0:
        s.cluster_cache_offset = (1 << 64) - 1
        return -1
    s.cluster_cache_offset = coffset
    return 0
