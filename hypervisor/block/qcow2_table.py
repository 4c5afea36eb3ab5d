"""The L1 and L2 tables of an open qcow2 image: the first third of block/qcow2-cluster.c.

The L1 table is in memory as a whole, of the L2 tables the 16 used last. A table that a snapshot shares is
copied before it is changed.

- `qcow2_grow_l1_table`, `write_l1_entry`
- `l2_load`, `l2_allocate`, `write_l2_entries`; `qcow2_l2_cache_reset`, `seek_l2_table`, `l2_cache_new_entry`
- `get_cluster_table`: the L2 table for a write, made or copied if need be

0.12.4 frees a shared L2 table before the L1 table names the copy; on the disk its count sinks afterwards.
"""

from __future__ import annotations

import errno
from array import array

from hypervisor.block import bdrv_pread, bdrv_pwrite
from hypervisor.block.qcow2_format import (
    MAX_L1_BYTES,
    OFFSET_L1_SIZE,
    QCOW_OFLAG_COPIED,
    be_bytes,
    complain,
    words,
)
from hypervisor.block.qcow2_held import held_back
from hypervisor.block.qcow2_refcount import (
    note_metadata,
    qcow2_alloc_clusters,
    qcow2_free_clusters,
)
from hypervisor.block.qcow2_shadow import fetch, header_bytes, settle_l2
from hypervisor.block.qcow2_state import (
    BDRVQcowState,
    align_offset,
    empty_l2_cache,
    entry_problem,
    file_of,
    l1_of,
    state,
)
from hypervisor.block_int import BlockDriverState
from tracer import traced

C_FILE = "block/qcow2-cluster.c"

ENTRIES_PER_SECTOR = 512 // 8
_SECTOR = -ENTRIES_PER_SECTOR


@traced
def qcow2_grow_l1_table(bs: BlockDriverState, min_size: int) -> int:
    """Move the L1 table to a place with room for at least `min_size` entries; 0 or -errno."""
    s = state(bs)
    if min_size <= s.l1_size:
        return 0
    new_size = max(s.l1_size, 1)
    while min_size > new_size:
        new_size = (new_size * 3 + 1) // 2
    length = 8 * new_size
    if length > MAX_L1_BYTES:
        complain(
            s._filename, f"an L1 table of {length} bytes is too large; convert it with a larger cluster_size"
        )
        return -errno.EFBIG
    new_table = array("Q", bytes(align_offset(length, 512)))
    new_table[: s.l1_size] = l1_of(s)[: s.l1_size]
    new_offset = qcow2_alloc_clusters(bs, length)
    if new_offset < 0:
        return new_offset
    hd = file_of(s)
    ret = bdrv_pwrite(hd, new_offset, be_bytes(new_table[:new_size]), length)
    if ret == length:
        data = new_size.to_bytes(4) + new_offset.to_bytes(8)
        ret = bdrv_pwrite(hd, OFFSET_L1_SIZE, header_bytes(s, OFFSET_L1_SIZE, data), len(data))
    if ret < 0:
        qcow2_free_clusters(bs, new_offset, length)
        return ret
    qcow2_free_clusters(bs, s.l1_table_offset, 8 * s.l1_size)
    s.l1_table_offset = new_offset
    s.l1_table = new_table
    s.l1_size = new_size
    s._metadata = None
    return 0


@traced
def qcow2_l2_cache_reset(bs: BlockDriverState) -> None:
    """Forget all L2 tables in memory."""
    empty_l2_cache(state(bs))


def _l2_cache(s: BDRVQcowState) -> tuple[list[array[int]], list[int], list[int]]:
    assert s.l2_cache is not None and s.l2_cache_offsets is not None and s.l2_cache_counts is not None
    return s.l2_cache, s.l2_cache_offsets, s.l2_cache_counts


@traced
def l2_cache_new_entry(bs: BlockDriverState) -> int:
    """The place of the L2 table that was used least."""
    counts = state(bs).l2_cache_counts
    assert counts is not None
    return counts.index(min(counts))


@traced
def seek_l2_table(s: BDRVQcowState, l2_offset: int) -> array[int] | None:
    """The L2 table of this offset if it is in memory, its use counted; all counts are halved at 2^32-1."""
    cache, offsets, counts = _l2_cache(s)
    if l2_offset not in offsets:
        return None
    place = offsets.index(l2_offset)
    counts[place] += 1
    if counts[place] == 0xFFFFFFFF:
        counts[:] = [count >> 1 for count in counts]
    return cache[place]


@traced
def l2_load(bs: BlockDriverState, l2_offset: int) -> array[int] | None:
    """The L2 table of this offset, read if need be; None if that fails or it is none of version 2."""
    s = state(bs)
    l2_table = seek_l2_table(s, l2_offset)
    if l2_table is not None:
        return l2_table
    place = l2_cache_new_entry(bs)
    l2_table = _read_l2(s, l2_offset)
    if l2_table is not None:
        _keep_l2(s, place, l2_offset, l2_table)
    return l2_table


def _read_l2(s: BDRVQcowState, l2_offset: int) -> array[int] | None:
    raw = bytearray(s.cluster_size)
    ret = bdrv_pread(file_of(s), l2_offset, raw, s.cluster_size)
    if not l2_offset or l2_offset & (s.cluster_size - 1):
        complain(s._filename, f"the L1 table names an L2 table at {l2_offset:#x}; check the image")
        return None
    if ret != s.cluster_size:
        return None
    l2_table = words(raw)
    problem = entry_problem(s, l2_table)
    if problem is not None:
        complain(s._filename, problem)
        return None
    return l2_table


def _keep_l2(s: BDRVQcowState, place: int, l2_offset: int, l2_table: array[int]) -> None:
    cache, offsets, counts = _l2_cache(s)
    cache[place] = l2_table
    offsets[place] = l2_offset
    counts[place] = 1


@traced
def write_l1_entry(s: BDRVQcowState, l1_index: int) -> int:
    """Write the sector of the L1 table with this entry; 0 or -errno."""
    start = l1_index & _SECTOR
    data = be_bytes(l1_of(s)[start : start + ENTRIES_PER_SECTOR])
    ret = bdrv_pwrite(file_of(s), s.l1_table_offset + 8 * start, data, len(data))
    return min(ret, 0)


@traced
def l2_allocate(bs: BlockDriverState, l1_index: int) -> array[int] | None:
    """Make an L2 table for this entry of the L1 table: empty, or a copy of the one there; None on error.

    Notes
    -----
    C writes the L1 entry first and the table second; `settle_l2` puts the same table there before.
    """
    s = state(bs)
    l1_table = l1_of(s)
    old = l1_table[l1_index]
    old_offset = old & ~QCOW_OFLAG_COPIED
    l2_offset = qcow2_alloc_clusters(bs, s.cluster_size)
    if l2_offset < 0 or settle_l2(s, l2_offset, old_offset) < 0:
        return None
    note_metadata(s, l2_offset)
    l1_table[l1_index] = l2_offset | QCOW_OFLAG_COPIED
    if write_l1_entry(s, l1_index) < 0:
        l1_table[l1_index] = old
        return None
    place = l2_cache_new_entry(bs)
    l2_table = _read_l2(s, old_offset) if old else array("Q", bytes(s.cluster_size))
    if l2_table is None:
        return None
    if bdrv_pwrite(file_of(s), l2_offset, be_bytes(l2_table[:]), s.cluster_size) != s.cluster_size:
        return None
    _keep_l2(s, place, l2_offset, l2_table)
    return l2_table


def _is_sound(s: BDRVQcowState, l2_offset: int) -> bool:
    """Whether an L2 table can be copied; unlike C, which finds out when the L1 table names the copy."""
    try:
        if l2_offset & (s.cluster_size - 1):
            problem: str | None = f"the L1 table names an L2 table at {l2_offset:#x}; check the image"
        else:
            problem = entry_problem(s, words(fetch(s, l2_offset, s.cluster_size)))
    except OSError as error:
        problem = f"the L2 table at {l2_offset:#x} cannot be read: {error.strerror}"
    if problem is not None:
        complain(s._filename, problem)
    return problem is None


@traced
def get_cluster_table(bs: BlockDriverState, offset: int) -> tuple[int, array[int], int, int]:
    """The L2 table for a write at a guest offset, made or copied if it is missing or shared.

    Returns
    -------
    ret : int
        0 or -errno; the others mean nothing then.
    l2_table, l2_offset, l2_index
        The table, its offset in the file, and the index of the entry in question.
    """
    s = state(bs)
    l1_index = offset >> (s.l2_bits + s.cluster_bits)
    if l1_index >= s.l1_size:
        ret = qcow2_grow_l1_table(bs, l1_index + 1)
        if ret < 0:
            return ret, array("Q"), 0, 0
    old = l1_of(s)[l1_index]
    if old & QCOW_OFLAG_COPIED:
        l2_table = l2_load(bs, old & ~QCOW_OFLAG_COPIED)
    elif old and not _is_sound(s, old):
        return -errno.EIO, array("Q"), 0, 0
    else:
        with held_back(s) as held:
            if old:
                qcow2_free_clusters(bs, old, s.cluster_size)
            l2_table = l2_allocate(bs, l1_index)
            held.done = l2_table is not None
    if l2_table is None:
        return -errno.EIO, array("Q"), 0, 0
    l2_offset = l1_of(s)[l1_index] & ~QCOW_OFLAG_COPIED
    return 0, l2_table, l2_offset, (offset >> s.cluster_bits) & (s.l2_size - 1)


@traced
def write_l2_entries(s: BDRVQcowState, l2_table: array[int], l2_offset: int, l2_index: int, num: int) -> int:
    """Write the sectors of an L2 table with these entries; 0 or -errno."""
    start = l2_index & _SECTOR
    end = (l2_index + num + ENTRIES_PER_SECTOR - 1) & _SECTOR
    data = be_bytes(l2_table[start:end])
    ret = bdrv_pwrite(file_of(s), l2_offset + 8 * start, data, len(data))
    return min(ret, 0)
