"""Checking the reference counts of an image: the last third of block/qcow2-refcount.c.

Everything that the header, the L1 and L2 tables, the snapshots and the refcount table name is counted anew
and compared with the counts in the image; differences are told on stderr in 0.12.4's words.

- `qcow2_check_refcounts(bs)` -> `check_refcounts_l1` -> `check_refcounts_l2` -> `inc_refcounts`
- `CheckResult`: leaked clusters and corruptions apart, as later versions and the modern wording tell them

0.12.4 forgets what it finds wrong in snapshots.
"""

from __future__ import annotations

import errno
import sys
from collections import Counter

from hypervisor.block import bdrv_getlength, bdrv_pread
from hypervisor.block.qcow2_format import MAX_L1_BYTES, QCOW_OFLAG_COMPRESSED, QCOW_OFLAG_COPIED, words
from hypervisor.block.qcow2_refcount import get_refcount
from hypervisor.block.qcow2_state import (
    NO_OFFSET,
    BDRVQcowState,
    CheckResult,
    compressed_range,
    file_of,
    refcounts_of,
    size_to_clusters,
    state,
)
from hypervisor.block_int import BlockDriverState
from hypervisor.wording import modern
from tracer import traced

C_FILE = "block/qcow2-refcount.c"

MAX_CLUSTERS_ASKED = 1 << 21
"""In files with more clusters, 0.12.4's question for each one's count is left out where there are none."""


def _tell(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


@traced
def inc_refcounts(
    bs: BlockDriverState,
    refcount_table: Counter[int],
    refcount_table_size: int,
    offset: int,
    size: int,
) -> int:
    """Count the clusters of `size` bytes; how many of them are not in the file."""
    if size <= 0:
        return 0
    s = state(bs)
    errors = 0
    for k in range(offset >> s.cluster_bits, ((offset + size - 1) >> s.cluster_bits) + 1):
        if k >= refcount_table_size:
            errors += _tell(f"ERROR: invalid cluster offset=0x{k << s.cluster_bits:x}")
            continue
        refcount_table[k] += 1
        if refcount_table[k] == 0x10000:
            errors += _tell(f"ERROR: overflow cluster offset=0x{k << s.cluster_bits:x}")
    return errors


@traced
def check_refcounts_l2(
    bs: BlockDriverState,
    refcount_table: Counter[int],
    refcount_table_size: int,
    l2_offset: int,
    check_copied: int,
) -> int:
    """Count what an L2 table names; the number of errors, or -EIO."""
    s = state(bs)
    raw = bytearray(s.cluster_size)
    if bdrv_pread(file_of(s), l2_offset, raw, s.cluster_size) != s.cluster_size:
        _tell("ERROR: I/O error in check_refcounts_l1")
        return -errno.EIO
    errors = 0
    for entry in words(raw):
        if not entry:
            continue
        offset = entry & ~QCOW_OFLAG_COPIED
        if entry & QCOW_OFLAG_COMPRESSED:
            if entry & QCOW_OFLAG_COPIED:
                cluster = entry >> s.cluster_bits
                errors += _tell(
                    f"ERROR: cluster {cluster}: copied flag must never be set for compressed clusters"
                )
            errors += inc_refcounts(bs, refcount_table, refcount_table_size, *compressed_range(s, offset))
            continue
        if check_copied:
            refcount = get_refcount(bs, offset >> s.cluster_bits)
            if (refcount == 1) != (entry != offset):
                errors += _tell(f"ERROR OFLAG_COPIED: offset={entry:x} refcount={refcount}")
        errors += inc_refcounts(bs, refcount_table, refcount_table_size, offset, s.cluster_size)
        if offset & (s.cluster_size - 1):
            errors += _tell(f"ERROR offset={offset:x}: Cluster is not properly aligned; L2 entry corrupted.")
    return errors


@traced
def check_refcounts_l1(
    bs: BlockDriverState,
    refcount_table: Counter[int],
    refcount_table_size: int,
    l1_table_offset: int,
    l1_size: int,
    check_copied: int,
) -> int:
    """Count an L1 table and what it reaches; the number of errors, or -EIO."""
    s = state(bs)
    length = 8 * l1_size
    if length > MAX_L1_BYTES:
        return _tell(f"ERROR: L1 table at 0x{l1_table_offset:x} has {l1_size} entries")
    errors = inc_refcounts(bs, refcount_table, refcount_table_size, l1_table_offset, length)
    raw = bytearray(length)
    if length and bdrv_pread(file_of(s), l1_table_offset, raw, length) != length:
        _tell("ERROR: I/O error in check_refcounts_l1")
        return -errno.EIO
    seen = set()
    for entry in words(raw):
        if not entry:
            continue
        l2_offset = entry & ~QCOW_OFLAG_COPIED
        if check_copied:
            refcount = get_refcount(bs, l2_offset >> s.cluster_bits)
            if (refcount == 1) != (entry != l2_offset):
                errors += _tell(f"ERROR OFLAG_COPIED: l2_offset={entry:x} refcount={refcount}")
        errors += inc_refcounts(bs, refcount_table, refcount_table_size, l2_offset, s.cluster_size)
        if l2_offset & (s.cluster_size - 1):
            errors += _tell(
                f"ERROR l2_offset={l2_offset:x}: Table is not cluster aligned; L1 entry corrupted"
            )
        if l2_offset in seen:  # one table named a million times would be read a million times
            errors += _tell(f"ERROR l2_offset={l2_offset:x}: Table is named twice; L1 entry corrupted")
            continue
        seen.add(l2_offset)
        ret = check_refcounts_l2(bs, refcount_table, refcount_table_size, l2_offset, check_copied)
        if ret < 0:
            _tell("ERROR: I/O error in check_refcounts_l1")
            return -errno.EIO
        errors += ret
    return errors


@traced
def qcow2_check_refcounts(bs: BlockDriverState) -> int:
    """Compare all counts of an image with what it uses; the number of errors, or -errno.

    ``bs.opaque._check`` has leaked clusters, which are only lost space, and corruptions apart.
    """
    s = state(bs)
    s._check = result = _check(bs, s)
    return result.error or result.corruptions + result.leaks


def _check(bs: BlockDriverState, s: BDRVQcowState) -> CheckResult:
    size = bdrv_getlength(file_of(s))
    nb_clusters = size_to_clusters(s, size)
    used: Counter[int] = Counter()
    errors = inc_refcounts(bs, used, nb_clusters, 0, s.cluster_size)
    tables = [(s.l1_table_offset, s.l1_size, 1)]
    tables += [(sn.l1_table_offset, sn.l1_size, 0) for sn in s.snapshots or ()]
    for offset, entries, check_copied in tables:
        ret = check_refcounts_l1(bs, used, nb_clusters, offset, entries, check_copied)
        if ret < 0:
            return CheckResult(error=ret)
        errors += ret
    errors += inc_refcounts(bs, used, nb_clusters, s.snapshots_offset, s.snapshots_size)
    errors += inc_refcounts(bs, used, nb_clusters, s.refcount_table_offset, 8 * s.refcount_table_size)
    table, _ = refcounts_of(s)
    for offset in table:
        if offset:
            errors += inc_refcounts(bs, used, nb_clusters, offset & NO_OFFSET, s.cluster_size)
    leaks = 0
    per_block = s.cluster_size // 2
    blocks_used = {cluster // per_block for cluster in used}
    for block in range(-(-nb_clusters // per_block)):
        empty = block not in blocks_used and (block >= len(table) or not table[block])
        if empty and nb_clusters > MAX_CLUSTERS_ASKED:
            continue
        for cluster in range(block * per_block, min((block + 1) * per_block, nb_clusters)):
            count = get_refcount(bs, cluster)
            if count < 0:
                return CheckResult(errors, leaks, count)
            if count != used[cluster]:
                leaked = count > used[cluster]
                kind = "Leaked" if leaked and modern() else "ERROR"
                _tell(f"{kind} cluster {cluster} refcount={count} reference={used[cluster]}")
                leaks += leaked
                errors += not leaked
    return CheckResult(errors, leaks)
