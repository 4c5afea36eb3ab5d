"""What keeps a qcow2 image sound when the process is killed between two writes; ours, nothing of it is in C.

0.12.4 writes some tables in an order that a crash does not survive. Its calls are kept; what the disk needs
to hold before they come is written by `hypervisor.block.beneath`.

- `settle(s, offset, data)`: have these bytes on the disk now
- `settle_l2(s, offset, old)`: the same for a new L2 table that the L1 table is about to name
- `settle_length(s, length)`: have the file at least this long
- `guarded(bs, operation)`: run an operation that changes tables in place. Meanwhile the header names copies::

      header ─► L1, L2, refcounts (copies, behind the end of the file): the state before, and leaks
         ╎      L1, L2, refcounts (in place): being changed by `operation`
         └╌╌► one write of the header makes the new state valid

- `leave_out(s, snapshots, table)`: within `guarded`, let the state before have these snapshots only
- `header_bytes(s, offset, data)`: what a write into the header may write just now
- `is_reserved(s, cluster)`: does the state before, or a copy, lie there?

Both versions of `qemu-img check` find at worst leaked clusters after a kill within `guarded`.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from hypervisor.block import beneath
from hypervisor.block.qcow2_format import (
    HEADER_SIZE,
    OFFSET_L1_SIZE,
    QCOW_OFLAG_COPIED,
    TABLE_FIELDS,
    be_bytes,
    complain,
    counts,
    words,
)
from hypervisor.block.qcow2_state import (
    BDRVQcowState,
    QCowSnapshot,
    empty_l2_cache,
    entry_problem,
    file_of,
    l1_of,
    refcounts_of,
    state,
)
from hypervisor.block_int import BlockDriverState

_PIECE = 4 << 20
_BLOCKS = 3


@dataclass
class Shadow:
    """The copies that the header names during an operation; clusters `start` to `end`.

    `file_size` is what to cut the file to afterwards, 0 for a device; nothing from cluster `first_free` on
    was in use before. At `spare` there is room for a snapshot table; once that is used, what only the
    snapshots left out had is `given_up`.
    """

    first_free: int
    start: int = 0
    end: int = 0
    spare: int = 0
    given_up: bool = False
    file_size: int = 0
    header: bytes = b""
    l1_table: array[int] = field(default_factory=lambda: array("Q"))
    l1_offset: int = 0
    table: array[int] = field(default_factory=lambda: array("Q"))
    table_offset: int = 0
    blocks: dict[int, array[int]] = field(default_factory=dict)
    snapshots: list[QCowSnapshot] | None = None
    snapshots_at: tuple[int, int] = (0, 0)


def guarded(bs: BlockDriverState, operation: Callable[[], int], room: int = 0) -> int:
    """Run `operation` so that it takes effect on the disk as a whole, or not at all.

    Parameters
    ----------
    bs : BlockDriverState
    operation : callable
        Returns 0 or -errno.
    room : int
        Bytes that `leave_out` needs for a snapshot table, and the operation for another.

    Returns
    -------
    int
        What `operation` returns, or the errno of a write of ours. After a failure of `operation` the image,
        on disk and in memory, is as before, but for leaked clusters and what `leave_out` left out.
    """
    s = state(bs)
    try:
        _switch_header(s, _make_copies(s, room).header)
    except OSError as error:
        _abandon(s)
        complain(s._filename, f"its tables cannot be copied: {error.strerror}; nothing was changed")
        return -(error.errno or errno.EIO)
    ret = operation()
    if ret >= 0:
        try:
            _switch_header(s, _final_header(s))
        except OSError as error:
            ret = -(error.errno or errno.EIO)
    if ret < 0:
        _adopt(s)
        return ret
    return _abandon(s) or ret


def header_bytes(s: BDRVQcowState, offset: int, data: bytes) -> bytes:
    """`data`, or what the header has at `offset` now if its fields change only when all is done."""
    if s._shadow is None:
        return data
    at = offset - OFFSET_L1_SIZE
    return s._shadow.header[at : at + len(data)]


def leave_out(s: BDRVQcowState, snapshots: list[QCowSnapshot], table: bytes) -> int:
    """Take snapshots out of the state before, so that clusters which only they had can be given out.

    Parameters
    ----------
    s : BDRVQcowState
    snapshots : list of QCowSnapshot
        Those that stay; the operation has freed all that the others had, and nothing else.
    table : bytes
        The snapshot table that holds them.

    Returns
    -------
    int
        0 or -errno.
    """
    shadow = s._shadow
    assert shadow is not None
    offset = shadow.spare if snapshots else 0
    fields = (*TABLE_FIELDS.unpack(shadow.header)[:-2], len(snapshots), offset)
    try:
        if table:
            settle(s, shadow.spare, table + bytes(-len(table) % 512))
        _switch_header(s, TABLE_FIELDS.pack(*fields))
    except OSError as error:
        return -(error.errno or errno.EIO)
    shadow.header = TABLE_FIELDS.pack(*fields)
    shadow.snapshots, shadow.snapshots_at = snapshots, (offset, len(table))
    shadow.given_up = True
    return 0


def is_reserved(s: BDRVQcowState, cluster: int) -> bool:
    """Whether the state before, or a copy of its tables, lies in this cluster, whatever its count is now."""
    shadow = s._shadow
    if shadow is None or shadow.start <= cluster < shadow.end:
        return shadow is not None
    if shadow.given_up:
        return False
    index, within = divmod(cluster, s.cluster_size // 2)
    block = shadow.blocks.get(index)
    return block is not None and block[within] != 0


def settle(s: BDRVQcowState, offset: int, data: bytes | bytearray | memoryview) -> None:
    """Have `data`, whole sectors, on the disk at `offset`; raises OSError."""
    beneath.settle(file_of(s), offset, data)


def settle_l2(s: BDRVQcowState, offset: int, old: int) -> int:
    """Have a sound L2 table at `offset`: a copy of the one at `old`, or an empty one if that is 0."""
    try:
        settle(s, offset, fetch(s, old, s.cluster_size) if old else bytes(s.cluster_size))
    except OSError as error:
        return -(error.errno or errno.EIO)
    return 0


def settle_length(s: BDRVQcowState, length: int) -> int:
    """Have a file of at least `length` bytes, so that a table may name clusters not written yet."""
    try:
        if os.fstat(_fd(s)).st_size < length:
            os.ftruncate(_fd(s), length)
    except OSError as error:
        return -(error.errno or errno.EIO)
    return 0


def _fd(s: BDRVQcowState) -> int:
    return beneath.descriptor(file_of(s))


def fetch_bytes(s: BDRVQcowState, offset: int, length: int) -> bytes:
    """`length` bytes at any `offset`; zeros behind the end of the file. Raises OSError."""
    return beneath.fetch_bytes(file_of(s), offset, length)


def fetch(s: BDRVQcowState, offset: int, length: int) -> memoryview:
    """`length` bytes at `offset`; zeros behind the end of the file. Raises OSError."""
    return beneath.fetch(file_of(s), offset, length)


def _first_free(s: BDRVQcowState, file_size: int) -> int:
    """The first cluster behind the end of the file and all that is counted as used."""
    table, _ = refcounts_of(s)
    last = -1
    for index in reversed(range(len(table))):
        if table[index]:
            block = counts(fetch(s, table[index], s.cluster_size))
            last = max((i for i, count in enumerate(block) if count), default=-1)
            if last >= 0:
                last += index * len(block)
                break
    return max(-(-file_size // s.cluster_size), last + 1)


def _make_copies(s: BDRVQcowState, room: int) -> Shadow:
    """Write copies of the L1 table, all L2 tables and all refcounts behind the end of the file.

    With `room` for a snapshot table among them, and before them for another and the blocks that count it.
    """
    info = os.fstat(_fd(s))
    size = info.st_size if stat.S_ISREG(info.st_mode) else 0
    table, _ = refcounts_of(s)
    l1 = l1_of(s)
    per_block = s.cluster_size // 2
    shadow = s._shadow = Shadow(_first_free(s, size), file_size=size)
    spare = -(-room // s.cluster_size)
    shadow.start = shadow.first_free + (spare + _BLOCKS if room else 0)
    l2_tables = sum(1 for entry in l1 if entry)
    l1_clusters = -(-8 * len(l1) // s.cluster_size)
    blocks = {index for index, offset in enumerate(table) if offset}
    entries = len(table)
    while True:
        table_clusters = -(-8 * entries // s.cluster_size)
        end = shadow.start + l1_clusters + l2_tables + table_clusters + len(blocks) + spare
        needed = blocks | set(range(shadow.start // per_block, -(-end // per_block)))
        if needed == blocks and max(needed) < entries:
            break
        blocks, entries = needed, max(entries, max(needed) + 1)
    shadow.end = end

    at = shadow.start * s.cluster_size
    shadow.l1_offset = at
    at += l1_clusters * s.cluster_size
    shadow.l1_table = array("Q", l1)
    seen: set[int] = set()
    for index, entry in enumerate(l1):
        if entry:
            offset = entry & ~QCOW_OFLAG_COPIED
            l2_table = fetch(s, offset, s.cluster_size)
            problem = entry_problem(s, words(l2_table))
            if problem is None and (offset in seen or offset & (s.cluster_size - 1)):
                problem = f"L1 entry {index} is {entry:#x}, named twice or not aligned; check the image"
            if problem is not None:
                raise OSError(errno.EIO, problem)
            seen.add(offset)
            settle(s, at, l2_table)
            shadow.l1_table[index] = at | QCOW_OFLAG_COPIED
            at += s.cluster_size
    _settle_table(s, shadow.l1_offset, shadow.l1_table)

    shadow.table_offset = at
    at += table_clusters * s.cluster_size
    shadow.table = array("Q", bytes(table_clusters * s.cluster_size))
    for index in sorted(blocks):
        old = table[index] if index < len(table) else 0
        block = counts(fetch(s, old, s.cluster_size) if old else bytes(s.cluster_size))
        first = index * per_block
        for cluster in range(max(shadow.start, first), min(shadow.end, first + per_block)):
            block[cluster - first] = 1
        shadow.blocks[index] = block
        settle(s, at, be_bytes(block[:]))
        shadow.table[index] = at
        at += s.cluster_size
    shadow.spare = at
    _settle_table(s, shadow.table_offset, shadow.table)

    shadow.snapshots = None if s.snapshots is None else list(s.snapshots)
    shadow.snapshots_at = (s.snapshots_offset, s.snapshots_size)
    shadow.header = TABLE_FIELDS.pack(
        s.l1_size, shadow.l1_offset, shadow.table_offset, table_clusters, s.nb_snapshots, s.snapshots_offset
    )
    return shadow


def _settle_table(s: BDRVQcowState, offset: int, table: array[int]) -> None:
    data = be_bytes(table[:])
    data += bytes(-len(data) % s.cluster_size)
    for at in range(0, len(data), _PIECE):
        settle(s, offset + at, data[at : at + _PIECE])


def _switch_header(s: BDRVQcowState, fields: bytes) -> None:
    sector = bytearray(fetch(s, 0, 512))
    sector[OFFSET_L1_SIZE:HEADER_SIZE] = fields
    settle(s, 0, sector)


def _final_header(s: BDRVQcowState) -> bytes:
    clusters = (8 * s.refcount_table_size) >> s.cluster_bits
    return TABLE_FIELDS.pack(
        s.l1_size,
        s.l1_table_offset,
        s.refcount_table_offset,
        clusters,
        s.nb_snapshots,
        s.snapshots_offset,
    )


def _abandon(s: BDRVQcowState) -> int:
    """Give the copies' place back, unless something was allocated behind it; 0 or -errno."""
    shadow, s._shadow = s._shadow, None
    if shadow is None or not shadow.file_size:
        return 0
    try:
        first_free = _first_free(s, 0)
        if first_free <= shadow.first_free:
            os.ftruncate(_fd(s), shadow.file_size)
        elif first_free <= shadow.start:
            os.ftruncate(_fd(s), first_free * s.cluster_size)
    except OSError as error:
        complain(s._filename, f"is changed, but has unused space at its end now: {error.strerror}")
        return -(error.errno or errno.EIO)
    return 0


def _adopt(s: BDRVQcowState) -> None:
    """Go on with the copies, which hold the state before the operation; what was in place is leaked."""
    shadow, s._shadow = s._shadow, None
    assert shadow is not None
    s.l1_table, s.l1_table_offset = shadow.l1_table, shadow.l1_offset
    s.l1_size = TABLE_FIELDS.unpack(shadow.header)[0]
    s.refcount_table, s.refcount_table_offset = shadow.table, shadow.table_offset
    s.refcount_table_size = len(shadow.table)
    s.refcount_block_cache_offset = 0
    s.snapshots = shadow.snapshots
    s.nb_snapshots = len(shadow.snapshots or ())
    s.snapshots_offset, s.snapshots_size = shadow.snapshots_at
    s.free_byte_offset = 0
    s._metadata = None
    empty_l2_cache(s)
