"""What an open qcow2 image keeps in memory: the structures of block/qcow2.h, and its two inline functions.

- `BDRVQcowState`: the driver's state, behind ``bs.opaque``
- `QCowL2Meta`: clusters that a write has allocated and not linked yet
- `QCowSnapshot`, `QCowCreateState`
- `size_to_clusters`, `align_offset`: the header's inline functions, which the recordings show as calls

Tables are arrays in host byte order (in C big-endian memory); lists that C threads through QLIST_ENTRY are
threaded through the same fields here.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

from hypervisor.block.qcow2_format import CONVERT, L2_CACHE_SIZE, QCOW_OFLAG_COMPRESSED, QCOW_OFLAG_COPIED
from hypervisor.block_int import BlockDriverState
from tracer import Struct, traced

if TYPE_CHECKING:
    from hypervisor.block.qcow2_aio import QCowAIOCB
    from hypervisor.block.qcow2_held import Held
    from hypervisor.block.qcow2_shadow import Shadow

C_FILE = "block/qcow2.h"

NO_OFFSET = (1 << 64) - 1
"""-1 as a uint64_t: no cluster is in the cache."""


class CheckResult(NamedTuple):
    """What a check found, in clusters; `error` is 0 or the -errno that ended it early."""

    corruptions: int = 0
    leaks: int = 0
    error: int = 0


class QCowSnapshot(Struct):
    """`QCowSnapshot` of block/qcow2.h; sizes in bytes, `l1_size` in entries.

    `extra_data` is ours: kept as it was read, so that rewriting the table loses nothing.
    """

    l1_table_offset: int = 0
    l1_size: int = 0
    id_str: str = ""
    name: str = ""
    vm_state_size: int = 0
    date_sec: int = 0
    date_nsec: int = 0
    vm_clock_nsec: int = 0
    extra_data: bytes = b""


class QCowL2Meta(Struct):
    """`QCowL2Meta` of block/qcow2.h: an allocation in flight.

    `offset` is the guest's, in bytes; `n_start` and `nb_available` count sectors from the first cluster.
    `depends_on` is the allocation that this request waits for, `dependent_requests` those waiting for it.
    """

    offset: int = 0
    cluster_offset: int = 0
    n_start: int = 0
    nb_available: int = 0
    nb_clusters: int = 0
    depends_on: QCowL2Meta | None = None
    dependent_requests: QCowAIOCB | None = None
    next_in_flight: QCowL2Meta | None = None


class BDRVQcowState(Struct):
    """`BDRVQcowState` of block/qcow2.h: an open image.

    Notes
    -----
    Fields with an underscore are ours: the image's version and name for messages, `guarded`'s copies, what
    `held_back` holds, the compressed cluster to be linked, the clusters with tables, the last failure to
    free some, and what the last check found. ``l1_size`` and ``refcount_table_size`` count entries. C makes
    ``cluster_data`` larger, for encryption.
    """

    hd: BlockDriverState | None = None
    cluster_bits: int = 0
    cluster_size: int = 0
    cluster_sectors: int = 0
    l2_bits: int = 0
    l2_size: int = 0
    l1_size: int = 0
    l1_vm_state_index: int = 0
    csize_shift: int = 0
    csize_mask: int = 0
    cluster_offset_mask: int = 0
    l1_table_offset: int = 0
    l1_table: array[int] | None = None
    l2_cache: list[array[int]] | None = None
    l2_cache_offsets: list[int] | None = None
    l2_cache_counts: list[int] | None = None
    cluster_cache: bytearray | None = None
    cluster_data: bytearray | None = None
    cluster_cache_offset: int = 0
    cluster_allocs: QCowL2Meta | None = None
    refcount_table: array[int] | None = None
    refcount_table_offset: int = 0
    refcount_table_size: int = 0
    refcount_block_cache_offset: int = 0
    refcount_block_cache: array[int] | None = None
    free_cluster_index: int = 0
    free_byte_offset: int = 0
    crypt_method: int = 0
    crypt_method_header: int = 0
    snapshots_offset: int = 0
    snapshots_size: int = 0
    nb_snapshots: int = 0
    snapshots: list[QCowSnapshot] | None = None
    _version: int = 2
    _filename: str = ""
    _shadow: Shadow | None = None
    _held: Held | None = None
    _packed: bytes = b""
    _metadata: set[int] | None = None
    _free_error: int = 0
    _check: CheckResult = CheckResult()


class QCowCreateState(Struct):
    """`QCowCreateState` of block/qcow2.h: the refcounts of an image that is being made."""

    cluster_size: int = 0
    cluster_bits: int = 0
    refcount_block: array[int] | None = None
    refcount_table: array[int] | None = None
    l1_table_offset: int = 0
    refcount_table_offset: int = 0
    refcount_block_offset: int = 0


@traced
def size_to_clusters(s: BDRVQcowState, size: int) -> int:
    """How many clusters hold `size` bytes."""
    return (size + s.cluster_size - 1) >> s.cluster_bits


@traced
def align_offset(offset: int, n: int) -> int:
    """`offset` rounded up to a multiple of `n`, a power of two.

    >>> align_offset(72, 65536)
    65536
    """
    return (offset + n - 1) & -n


def state(bs: BlockDriverState) -> BDRVQcowState:
    """The state of an open qcow2 image: C's ``bs->opaque``."""
    s: BDRVQcowState = bs.opaque
    return s


def file_of(s: BDRVQcowState) -> BlockDriverState:
    """The image file below: C's ``s->hd``, which an open image always has."""
    assert s.hd is not None
    return s.hd


def l1_of(s: BDRVQcowState) -> array[int]:
    """The L1 table: C's ``s->l1_table``; padded to whole sectors."""
    assert s.l1_table is not None
    return s.l1_table


def refcounts_of(s: BDRVQcowState) -> tuple[array[int], array[int]]:
    """The refcount table and the one refcount block that is in memory."""
    assert s.refcount_table is not None and s.refcount_block_cache is not None
    return s.refcount_table, s.refcount_block_cache


def compressed_range(s: BDRVQcowState, entry: int) -> tuple[int, int]:
    """(offset, bytes) of the whole sectors that hold a compressed cluster."""
    sectors = ((entry >> s.csize_shift) & s.csize_mask) + 1
    return entry & s.cluster_offset_mask & ~511, sectors * 512


def empty_l2_cache(s: BDRVQcowState) -> None:
    """No L2 table is in memory."""
    s.l2_cache_offsets = [0] * L2_CACHE_SIZE
    s.l2_cache_counts = [0] * L2_CACHE_SIZE


def entry_problem(s: BDRVQcowState, l2_table: array[int]) -> str | None:
    """What is wrong with an L2 table as a table of version 2, or None."""
    bits = ~(QCOW_OFLAG_COPIED | ((1 << 56) - s.cluster_size))
    both = QCOW_OFLAG_COPIED | QCOW_OFLAG_COMPRESSED
    for index, entry in enumerate(l2_table):
        if entry & both == both or entry == QCOW_OFLAG_COPIED:
            return f"L2 entry {index} is {entry:#x}, which has no meaning; check the image"
        if entry & bits and not entry & QCOW_OFLAG_COMPRESSED:
            if s._version >= 3 and not entry & (bits & ~1):
                text = f'L2 entry {index} is {entry:#x}: feature "zero clusters" is not in version 2'
                return f"{text}, which is what 0.12.4 knows; {CONVERT}"
            return f"L2 entry {index} is {entry:#x}, not aligned to a cluster; check the image"
    return None
