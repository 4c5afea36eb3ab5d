"""Refcounts of whole images: the part of block/qcow2-refcount.c for snapshots and creation.

- `qcow2_update_snapshot_refcount`: add to the count of everything that an L1 table reaches
- `qcow2_create_refcount_update`: count in an image that is being made
"""

from __future__ import annotations

import errno

from hypervisor.block import bdrv_pread, bdrv_pwrite
from hypervisor.block.qcow2_format import (
    MAX_L1_BYTES,
    QCOW_OFLAG_COMPRESSED,
    QCOW_OFLAG_COPIED,
    be_bytes,
    complain,
    words,
)
from hypervisor.block.qcow2_refcount import (
    CHECK,
    collected_updates,
    get_refcount,
    update_cluster_refcount,
    update_refcount,
    write_refcount_block,
)
from hypervisor.block.qcow2_state import (
    BDRVQcowState,
    QCowCreateState,
    align_offset,
    compressed_range,
    entry_problem,
    file_of,
    l1_of,
    state,
)
from hypervisor.block.qcow2_table import qcow2_l2_cache_reset
from hypervisor.block_int import BlockDriverState
from tracer import traced

C_FILE = "block/qcow2-refcount.c"


@traced
def qcow2_create_refcount_update(s: QCowCreateState, offset: int, size: int) -> None:
    """Count the clusters of `size` bytes in an image that is being made."""
    assert s.refcount_block is not None
    for cluster in range(offset >> s.cluster_bits, -(-(offset + size) >> s.cluster_bits)):
        s.refcount_block[cluster] += 1


@traced
def qcow2_update_snapshot_refcount(
    bs: BlockDriverState, l1_table_offset: int, l1_size: int, addend: int
) -> int:
    """Add to the count of all that an L1 table reaches, and set or clear COPIED flags accordingly.

    Parameters
    ----------
    bs : BlockDriverState
    l1_table_offset, l1_size : int
        In bytes and entries; the current L1 table or that of a snapshot.
    addend : int
        1, -1, or 0 to see to the flags only.

    Returns
    -------
    int
        0 or -errno. Blocks of counts are written when another one is needed, and at the end.
    """
    s = state(bs)
    qcow2_l2_cache_reset(bs)
    with collected_updates():
        ret = _update_l1(bs, s, l1_table_offset, l1_size, addend)
    flushed = write_refcount_block(s)
    return ret if ret < 0 else flushed


def _update_l1(
    bs: BlockDriverState, s: BDRVQcowState, l1_table_offset: int, l1_size: int, addend: int
) -> int:
    hd = file_of(s)
    if l1_table_offset == s.l1_table_offset:
        l1_table = l1_of(s)
    else:
        if 8 * l1_size > MAX_L1_BYTES or l1_table_offset & (s.cluster_size - 1):
            complain(
                s._filename, f"a snapshot's L1 table has {l1_size} entries at {l1_table_offset:#x}; {CHECK}"
            )
            return -errno.EIO
        raw = bytearray(align_offset(8 * l1_size, 512)) if l1_size else bytearray()
        if bdrv_pread(hd, l1_table_offset, raw, 8 * l1_size) != 8 * l1_size:
            return -errno.EIO
        l1_table = words(raw)
    modified = False
    seen: set[int] = set()
    for i in range(l1_size):
        old = l1_table[i]
        if not old:
            continue
        l2_offset = old & ~QCOW_OFLAG_COPIED
        if l2_offset in seen or l2_offset & (s.cluster_size - 1):
            complain(s._filename, f"L1 entry {i} is {old:#x}, used twice or not aligned; {CHECK}")
            return -errno.EIO
        seen.add(l2_offset)
        ret = _update_l2(bs, s, l2_offset, addend)
        if ret < 0:
            return ret
        cluster = l2_offset >> s.cluster_bits
        count = update_cluster_refcount(bs, cluster, addend) if addend else get_refcount(bs, cluster)
        if count < 0:
            return count
        new = l2_offset | (QCOW_OFLAG_COPIED if count == 1 else 0)
        if new != old:
            l1_table[i] = new
            modified = True
    if modified:
        data = be_bytes(l1_table[:l1_size])
        return min(bdrv_pwrite(hd, l1_table_offset, data, len(data)), 0)
    return 0


def _update_l2(bs: BlockDriverState, s: BDRVQcowState, l2_offset: int, addend: int) -> int:
    hd = file_of(s)
    raw = bytearray(s.cluster_size)
    if bdrv_pread(hd, l2_offset, raw, s.cluster_size) != s.cluster_size:
        return -errno.EIO
    l2_table = words(raw)
    problem = entry_problem(s, l2_table)
    if problem is not None:
        complain(s._filename, problem)
        return -errno.EIO
    modified = False
    for j, old in enumerate(l2_table):
        if not old:
            continue
        offset = old & ~QCOW_OFLAG_COPIED
        if offset & QCOW_OFLAG_COMPRESSED:
            ret = update_refcount(bs, *compressed_range(s, offset), addend) if addend else 0
            if ret < 0:
                return ret
            count = 2  # compressed clusters never have the flag
        else:
            cluster = offset >> s.cluster_bits
            count = update_cluster_refcount(bs, cluster, addend) if addend else get_refcount(bs, cluster)
            if count < 0:
                return count
        new = offset | (QCOW_OFLAG_COPIED if count == 1 else 0)
        if new != old:
            l2_table[j] = new
            modified = True
    return min(bdrv_pwrite(hd, l2_offset, be_bytes(l2_table), s.cluster_size), 0) if modified else 0
