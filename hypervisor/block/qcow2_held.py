"""Counts that sink on the disk later than in memory; ours, nothing of it is in C.

0.12.4 frees some clusters before the table that names them is changed. Killed in between, it leaves clusters
with a count that is too low, and two owners some day. Here the calls come in its order, but within
`held_back` the disk keeps the higher counts::

    in memory   count ──► count - 1                        `update_refcount` notes the difference
    on disk     count ────────────────────► count - 1      when the tables that matter are on the disk

- `held_back(s)`: free in this block of code; counts sink on the disk at its end, or rise again in memory
- `note_change`, `to_disk`, `from_disk`: how `qcow2_refcount` keeps the two apart
- `is_held(s, cluster)`: such a cluster is not to be given out, whatever its count
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager

from hypervisor.block.qcow2_format import REFCOUNT_SHIFT, be_bytes, complain, counts
from hypervisor.block.qcow2_shadow import fetch, settle
from hypervisor.block.qcow2_state import BDRVQcowState, refcounts_of


class Held:
    """The clusters whose counts are higher on the disk, and by how much; `done` decides their fate."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.done = False


@contextmanager
def held_back(s: BDRVQcowState) -> Iterator[Held]:
    """Free clusters before what names them has changed; set ``done`` once that is on the disk.

    Unless it is set, the clusters are as they were in the end. If the disk fails then, they are leaked.
    """
    held = s._held = Held()
    try:
        yield held
    finally:
        s._held = None
        for cluster, count in held.counts.items():
            if not held.done or not _sink(s, cluster, count):
                _rise(s, cluster, count)


def note_change(s: BDRVQcowState, cluster: int, addend: int) -> None:
    """The count of a cluster has changed in memory; hold it on the disk if it has sunk."""
    if s._held is None:
        return
    held = s._held.counts
    if addend < 0 or cluster in held:
        held[cluster] = held.get(cluster, 0) - addend
        if held[cluster] <= 0:
            del held[cluster]


def is_held(s: BDRVQcowState, cluster: int) -> bool:
    """Whether the disk counts more owners of a cluster than memory does."""
    return s._held is not None and cluster in s._held.counts


def to_disk(s: BDRVQcowState, block_offset: int, block: array[int]) -> array[int]:
    """The counts of a whole block as the disk is to have them."""
    return _shifted(s, block_offset, block, 1)


def from_disk(s: BDRVQcowState, block_offset: int, block: array[int]) -> array[int]:
    """The counts of a whole block as memory is to have them."""
    return _shifted(s, block_offset, block, -1)


def _shifted(s: BDRVQcowState, block_offset: int, block: array[int], sign: int) -> array[int]:
    if s._held is None or not s._held.counts:
        return block
    block = block[:]
    for cluster, count in s._held.counts.items():
        offset, index = _place(s, cluster)
        if offset == block_offset:
            block[index] = max(block[index] + sign * count, 0)
    return block


def _place(s: BDRVQcowState, cluster: int) -> tuple[int, int]:
    """(the block that holds the count of a cluster, the index in it)."""
    shift = s.cluster_bits - REFCOUNT_SHIFT
    table, _ = refcounts_of(s)
    return table[cluster >> shift], cluster & ((1 << shift) - 1)


def _sink(s: BDRVQcowState, cluster: int, count: int) -> bool:
    offset, index = _place(s, cluster)
    at = offset + (index << REFCOUNT_SHIFT & ~511)
    within = index % (512 >> REFCOUNT_SHIFT)
    try:
        sector = counts(fetch(s, at, 512))
        sector[within] = max(sector[within] - count, 0)
        settle(s, at, be_bytes(sector))
    except OSError as error:
        complain(s._filename, f"cluster {cluster} is leaked: {error.strerror}; check the image")
        return False
    return True


def _rise(s: BDRVQcowState, cluster: int, count: int) -> None:
    offset, index = _place(s, cluster)
    if offset == s.refcount_block_cache_offset:
        _, cache = refcounts_of(s)
        cache[index] += count
