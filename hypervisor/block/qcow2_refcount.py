"""Reference counts and allocation: the first half of block/qcow2-refcount.c.

A cluster is free if its count is 0. Counts live in blocks of one cluster, which the refcount table names; one
block is in memory. Allocation takes the first free clusters from ``free_cluster_index`` on, and grows blocks
and table as needed, each describing itself where that is possible.

::

    cluster number ── refcount table index ──► refcount_table[i] ──► block ── index in the block ──► count
                        0: all counts of the block are 0

- `qcow2_refcount_init`, `qcow2_refcount_close`; `get_refcount`
- `qcow2_alloc_clusters`, `qcow2_alloc_bytes`, `qcow2_free_clusters`, `qcow2_free_any_clusters`
- `update_refcount` -> `alloc_refcount_block`, `write_refcount_block_entries`

Of 0.12.4's errors are corrected: a new block that another one describes was overwritten with that one's
counts; the space for a growing table was computed in entries instead of bytes; compressed data could go on in
a cluster never allocated, or freed since. An unreadable block is an error (C: "in use"), a failed free leaks
(C: abort), and clusters that the image's own tables occupy are not given out, whatever their count.
"""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

from hypervisor.block import bdrv_pread, bdrv_pwrite
from hypervisor.block.qcow2_format import (
    MAX_REFCOUNT_TABLE_BYTES,
    OFFSET_REFCOUNT_TABLE,
    QCOW_OFLAG_COMPRESSED,
    QCOW_OFLAG_COPIED,
    REFCOUNT_SHIFT,
    be_bytes,
    complain,
    counts,
    words,
)
from hypervisor.block.qcow2_held import from_disk, is_held, note_change, to_disk
from hypervisor.block.qcow2_shadow import header_bytes, is_reserved
from hypervisor.block.qcow2_state import (
    BDRVQcowState,
    compressed_range,
    file_of,
    l1_of,
    refcounts_of,
    size_to_clusters,
    state,
)
from hypervisor.block_int import BlockDriverState
from tracer import traced

C_FILE = "block/qcow2-refcount.c"

CHECK = "the image is damaged: check it, and convert it to a new one"
REFCOUNTS_PER_SECTOR = 512 >> REFCOUNT_SHIFT

_cache_refcount_updates = False


@contextmanager
def collected_updates() -> Iterator[None]:
    """Have changes of counts stay in memory until another block is needed: C's `cache_refcount_updates`."""
    global _cache_refcount_updates
    _cache_refcount_updates = True
    try:
        yield
    finally:
        _cache_refcount_updates = False


@traced
def write_refcount_block(s: BDRVQcowState) -> int:
    """Write the block that is in memory; 0 or -errno."""
    if s.refcount_block_cache_offset == 0:
        return 0
    _, cache = refcounts_of(s)
    data = be_bytes(to_disk(s, s.refcount_block_cache_offset, cache)[:])
    ret = bdrv_pwrite(file_of(s), s.refcount_block_cache_offset, data, len(data))
    return min(ret, 0)


@traced
def qcow2_refcount_init(bs: BlockDriverState) -> int:
    """Read the refcount table, whose place and size the header gave; 0 or -errno."""
    s = state(bs)
    s.refcount_block_cache = array("H", bytes(s.cluster_size))
    raw = bytearray(8 * s.refcount_table_size)
    s.refcount_table = array("Q", raw)
    if s.refcount_table_size > 0:
        ret = bdrv_pread(file_of(s), s.refcount_table_offset, raw, len(raw))
        if ret != len(raw):
            return -errno.EIO
        s.refcount_table = words(raw)
    return 0


@traced
def qcow2_refcount_close(bs: BlockDriverState) -> None:
    """Forget the refcounts; they are on the disk."""
    s = state(bs)
    s.refcount_block_cache = None
    s.refcount_table = None


@traced
def load_refcount_block(bs: BlockDriverState, refcount_block_offset: int) -> int:
    """Have the block at this offset in memory; 0 or -errno."""
    s = state(bs)
    if _cache_refcount_updates:
        ret = write_refcount_block(s)
        if ret < 0:
            return ret
    raw = bytearray(s.cluster_size)
    ret = bdrv_pread(file_of(s), refcount_block_offset, raw, s.cluster_size)
    if ret != s.cluster_size:
        return -errno.EIO
    s.refcount_block_cache = from_disk(s, refcount_block_offset, counts(raw))
    s.refcount_block_cache_offset = refcount_block_offset
    return 0


@traced
def get_refcount(bs: BlockDriverState, cluster_index: int) -> int:
    """The count of a cluster, or -errno if it cannot be read (C: 1)."""
    s = state(bs)
    table, cache = refcounts_of(s)
    shift = s.cluster_bits - REFCOUNT_SHIFT
    table_index = cluster_index >> shift
    if table_index >= s.refcount_table_size:
        return 0
    block_offset = table[table_index]
    if block_offset == 0:
        return 0
    if block_offset != s.refcount_block_cache_offset:
        ret = load_refcount_block(bs, block_offset)
        if ret < 0:
            return ret
        _, cache = refcounts_of(s)
    return cache[cluster_index & ((1 << shift) - 1)]


@traced
def next_refcount_table_size(s: BDRVQcowState, min_size: int) -> int:
    """A size, in entries and whole clusters, to grow the table to: by halves, so that it is rare."""
    shift = s.cluster_bits - 3
    min_clusters = (min_size >> shift) + 1
    clusters = max(1, s.refcount_table_size >> shift)
    while min_clusters > clusters:
        clusters = (clusters * 3 + 1) // 2
    return clusters << shift


@traced
def in_same_refcount_block(s: BDRVQcowState, offset_a: int, offset_b: int) -> bool:
    """Whether one block holds the counts of both offsets."""
    shift = 2 * s.cluster_bits - REFCOUNT_SHIFT
    return offset_a >> shift == offset_b >> shift


@traced
def alloc_refcount_block(bs: BlockDriverState, cluster_index: int) -> int:
    """Have the block with the count of this cluster in memory, making it if there is none.

    Returns
    -------
    int
        Its offset, or -errno.

    Notes
    -----
    A new block is written, with its own count in it or in another block, before the table names it.
    """
    s = state(bs)
    table, _ = refcounts_of(s)
    table_index = cluster_index >> (s.cluster_bits - REFCOUNT_SHIFT)
    if table_index < s.refcount_table_size and table[table_index]:
        block_offset = table[table_index]
        if block_offset & (s.cluster_size - 1):
            complain(
                s._filename, f"refcount table entry {table_index} is {block_offset:#x}, not aligned; {CHECK}"
            )
            return -errno.EIO
        if block_offset != s.refcount_block_cache_offset:
            ret = load_refcount_block(bs, block_offset)
            if ret < 0:
                return ret
        return block_offset
    if _cache_refcount_updates:
        ret = write_refcount_block(s)
        if ret < 0:
            return ret
    ret = _make_refcount_block(bs, s, cluster_index, table_index)
    if ret < 0:
        s.refcount_block_cache_offset = 0
    return ret


def _make_refcount_block(bs: BlockDriverState, s: BDRVQcowState, cluster_index: int, table_index: int) -> int:
    new_block = alloc_clusters_noref(bs, s.cluster_size)
    if new_block < 0:
        return new_block
    itself = in_same_refcount_block(s, new_block, cluster_index << s.cluster_bits)
    if not itself:
        ret = update_refcount(bs, new_block, s.cluster_size, 1)
        if ret < 0:
            return ret
    cache = array("H", bytes(s.cluster_size))
    if itself:
        cache[(new_block >> s.cluster_bits) & (len(cache) - 1)] = 1
    s.refcount_block_cache = cache
    s.refcount_block_cache_offset = new_block
    ret = bdrv_pwrite(file_of(s), new_block, be_bytes(cache[:]), s.cluster_size)
    if ret < 0:
        return ret
    if table_index >= s.refcount_table_size:
        return _grow_refcount_table(bs, s, table_index, new_block)
    ret = bdrv_pwrite(
        file_of(s), s.refcount_table_offset + 8 * table_index, be_bytes(array("Q", [new_block])), 8
    )
    if ret < 0:
        return ret
    table, _ = refcounts_of(s)
    table[table_index] = new_block
    note_metadata(s, new_block)
    return new_block


def _grow_refcount_table(bs: BlockDriverState, s: BDRVQcowState, table_index: int, new_block: int) -> int:
    """Move the table to a larger place, behind all that is allocated, with blocks that describe the move."""
    per_block = s.cluster_size >> REFCOUNT_SHIFT
    in_use = s.free_cluster_index if s._shadow is None else max(s.free_cluster_index, s._shadow.end)
    blocks_used = -(-in_use // per_block)
    table_size = next_refcount_table_size(s, blocks_used + 1)
    while True:
        table_clusters = size_to_clusters(s, 8 * table_size)
        blocks_clusters = 1 + -(-table_clusters // per_block)
        meta_clusters = table_clusters + blocks_clusters
        last_table_size = table_size
        table_size = next_refcount_table_size(s, blocks_used + -(-meta_clusters // per_block))
        if table_size == last_table_size:
            break
    if 8 * table_size > MAX_REFCOUNT_TABLE_BYTES:
        complain(s._filename, "the refcount table cannot grow any more; use a larger cluster_size")
        return -errno.EFBIG
    if table_index >= table_size:
        complain(s._filename, f"a table entry points far behind the end of the file; {CHECK}")
        return -errno.EIO
    meta_offset = blocks_used * per_block * s.cluster_size
    table_offset = meta_offset + blocks_clusters * s.cluster_size
    table, _ = refcounts_of(s)
    new_table = table + array("Q", bytes(8 * (table_size - len(table))))
    new_table[table_index] = new_block
    for i in range(blocks_clusters):
        new_table[blocks_used + i] = meta_offset + i * s.cluster_size
    new_blocks = array("H", bytes(blocks_clusters * s.cluster_size))
    for i in range(table_clusters + blocks_clusters):
        new_blocks[i] = 1
    hd = file_of(s)
    ret = bdrv_pwrite(hd, meta_offset, be_bytes(new_blocks), blocks_clusters * s.cluster_size)
    if ret < 0:
        return ret
    ret = bdrv_pwrite(hd, table_offset, be_bytes(new_table[:]), 8 * table_size)
    if ret < 0:
        return ret
    data = table_offset.to_bytes(8) + table_clusters.to_bytes(4)
    ret = bdrv_pwrite(hd, OFFSET_REFCOUNT_TABLE, header_bytes(s, OFFSET_REFCOUNT_TABLE, data), len(data))
    if ret < 0:
        return ret
    old_offset, old_size = s.refcount_table_offset, s.refcount_table_size
    s.refcount_table = new_table
    s.refcount_table_size = table_size
    s.refcount_table_offset = table_offset
    s._metadata = None
    free_cluster_index = s.free_cluster_index
    qcow2_free_clusters(bs, old_offset, 8 * old_size)
    s.free_cluster_index = free_cluster_index
    ret = load_refcount_block(bs, new_block)
    return ret if ret < 0 else new_block


@traced
def write_refcount_block_entries(
    s: BDRVQcowState, refcount_block_offset: int, first_index: int, last_index: int
) -> int:
    """Write the sectors of the block in memory that hold these counts; 0 or -errno.

    Nothing is written while `qcow2_update_snapshot_refcount` collects changes.
    """
    if _cache_refcount_updates:
        return 0
    _, cache = refcounts_of(s)
    first = first_index & -REFCOUNTS_PER_SECTOR
    last = (last_index + REFCOUNTS_PER_SECTOR) & -REFCOUNTS_PER_SECTOR
    data = be_bytes(to_disk(s, refcount_block_offset, cache)[first:last])
    ret = bdrv_pwrite(file_of(s), refcount_block_offset + (first << REFCOUNT_SHIFT), data, len(data))
    return min(ret, 0)


@traced
def update_refcount(bs: BlockDriverState, offset: int, length: int, addend: int) -> int:
    """Add to the counts of all clusters that `length` bytes at `offset` touch; 0 or -errno.

    On an error the changes made so far are taken back.
    """
    s = state(bs)
    if length < 0:
        return -errno.EINVAL
    if length == 0:
        return 0
    shift = s.cluster_bits - REFCOUNT_SHIFT
    mask = (1 << shift) - 1
    cluster = first = offset >> s.cluster_bits
    block_offset = first_index = last_index = 0
    table_index = -1
    ret = 0
    for cluster in range(first, ((offset + length - 1) >> s.cluster_bits) + 1):
        if cluster >> shift != table_index:
            if table_index >= 0:
                ret = write_refcount_block_entries(s, block_offset, first_index, last_index)
                if ret < 0:
                    return ret
            first_index = last_index = -1
            table_index = cluster >> shift
        ret = alloc_refcount_block(bs, cluster)
        if ret < 0:
            break
        block_offset, ret = ret, 0
        _, cache = refcounts_of(s)
        index = cluster & mask
        count = cache[index] + addend
        if not 0 <= count <= 0xFFFF:
            ret = -errno.EINVAL
            break
        if first_index < 0:
            first_index = index
        last_index = index
        if count == 0:
            s.free_cluster_index = min(s.free_cluster_index, cluster)
            if s.free_byte_offset >> s.cluster_bits == cluster:
                s.free_byte_offset = 0
        cache[index] = count
        note_change(s, cluster, addend)
    if last_index >= 0 and block_offset:
        written = write_refcount_block_entries(s, block_offset, first_index, last_index)
        if written < 0:
            return ret or written
    if ret < 0:
        update_refcount(bs, first << s.cluster_bits, (cluster - first) << s.cluster_bits, -addend)
    return ret


@traced
def update_cluster_refcount(bs: BlockDriverState, cluster_index: int, addend: int) -> int:
    """Add 1 or -1 to the count of a cluster; the new count, or -errno."""
    s = state(bs)
    ret = update_refcount(bs, cluster_index << s.cluster_bits, 1, addend)
    return ret if ret < 0 else get_refcount(bs, cluster_index)


@traced
def alloc_clusters_noref(bs: BlockDriverState, size: int) -> int:
    """Find `size` bytes of free clusters in a row, without counting them; the offset, or -errno."""
    s = state(bs)
    nb_clusters = size_to_clusters(s, size)
    found = 0
    while found < nb_clusters:
        cluster = s.free_cluster_index
        s.free_cluster_index = cluster + 1
        count = get_refcount(bs, cluster)
        if count < 0:
            return count
        free = count == 0 and not is_reserved(s, cluster) and not is_held(s, cluster)
        found = found + 1 if free else 0
    first = s.free_cluster_index - nb_clusters
    offset = first << s.cluster_bits
    return -errno.EIO if holds_metadata(s, offset, nb_clusters) else offset


def holds_metadata(s: BDRVQcowState, offset: int, nb_clusters: int) -> bool:
    """Whether a damaged image has its own tables where data is about to be written; says so."""
    first = offset >> s.cluster_bits
    wanted = range(first, first + nb_clusters)
    if s._metadata is not None and s._metadata.isdisjoint(wanted):
        return False
    table, _ = refcounts_of(s)
    l1 = l1_of(s)
    used = {(entry & ~QCOW_OFLAG_COPIED) >> s.cluster_bits for entry in l1 if entry}
    used.update(offset >> s.cluster_bits for offset in table if offset)
    for offset, entries in (
        (s.l1_table_offset, s.l1_size),
        (s.refcount_table_offset, s.refcount_table_size),
    ):
        used.update(range(offset >> s.cluster_bits, -(-(offset + 8 * entries) >> s.cluster_bits)))
    used.add(0)
    s._metadata = used
    if used.isdisjoint(wanted):
        return False
    complain(
        s._filename, f"its own tables are among the {nb_clusters} clusters for data at {offset:#x}; {CHECK}"
    )
    return True


def note_metadata(s: BDRVQcowState, offset: int) -> None:
    """Remember that a new table lies at `offset`."""
    if s._metadata is not None:
        s._metadata.add(offset >> s.cluster_bits)


@traced
def qcow2_alloc_clusters(bs: BlockDriverState, size: int) -> int:
    """Allocate clusters in a row for `size` bytes, each with a count of 1; the offset, or -errno."""
    offset = alloc_clusters_noref(bs, size)
    if offset < 0:
        return offset
    ret = update_refcount(bs, offset, size, 1)
    return ret if ret < 0 else offset


@traced
def qcow2_alloc_bytes(bs: BlockDriverState, size: int) -> int:
    """Allocate `size` bytes, at most a cluster, for compressed data; the offset, or -errno.

    The count of a cluster is the number of compressed pieces in it.
    """
    s = state(bs)
    assert 0 < size <= s.cluster_size
    if s.free_byte_offset == 0:
        ret = qcow2_alloc_clusters(bs, s.cluster_size)
        if ret < 0:
            return ret
        s.free_byte_offset = ret
    ret = 0
    while True:
        offset = s.free_byte_offset
        within = offset & (s.cluster_size - 1)
        if size <= s.cluster_size - within:
            if within:
                ret = update_cluster_refcount(bs, offset >> s.cluster_bits, 1)
            break
        ret = new = qcow2_alloc_clusters(bs, s.cluster_size)
        if new < 0:
            return new
        if offset - within + s.cluster_size == new:
            ret = update_cluster_refcount(bs, offset >> s.cluster_bits, 1)
            break
        s.free_byte_offset = new
    if ret < 0:
        return ret
    end = offset + size
    s.free_byte_offset = end if end & (s.cluster_size - 1) else 0
    return offset


@traced
def qcow2_free_clusters(bs: BlockDriverState, offset: int, size: int) -> None:
    """Take 1 from the count of the clusters of `size` bytes; if that fails they are leaked."""
    ret = update_refcount(bs, offset, size, -1)
    if ret < 0:
        s = state(bs)
        s._free_error = ret
        complain(
            s._filename,
            f"qcow2_free_clusters failed: {os.strerror(-ret)} ({size} bytes at {offset:#x}); check the image",
        )


@traced
def qcow2_free_any_clusters(bs: BlockDriverState, cluster_offset: int, nb_clusters: int) -> None:
    """Free what an L2 entry (without its COPIED flag) names: normal clusters or a compressed one."""
    s = state(bs)
    if cluster_offset & QCOW_OFLAG_COMPRESSED:
        qcow2_free_clusters(bs, *compressed_range(s, cluster_offset))
        return
    qcow2_free_clusters(bs, cluster_offset, nb_clusters << s.cluster_bits)
