"""Making a qcow2 image: the part of block/qcow2.c from `get_bits_from_size` to `qcow_create`.

::

    0        cs              ...               ...              ...
    ├────────┼───────────────┼─────────────────┼────────────────┤     cs: cluster size
    │ header │ L1, all zeros │ refcount table  │ refcount blocks│     preallocated: L2 tables and
    └────────┴───────────────┴─────────────────┴────────────────┘     unwritten data clusters follow

- `qcow_create(filename, options)` -> `qcow_create2` -> `preallocate`

C ignores failing writes, and overflows a refcount table of one cluster; here a failure removes a file that
was not there before, tables take what they need, and the header is written last. C empties a file before it
looks at the options; here it is opened then, but emptied when they are found possible.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from array import array

from hypervisor.block import bdrv_close, bdrv_getlength, bdrv_new, bdrv_open, bdrv_write
from hypervisor.block.qcow2_aio import run_dependent_requests
from hypervisor.block.qcow2_cluster import (
    qcow2_alloc_cluster_link_l2,
    qcow2_alloc_cluster_offset,
    remove_in_flight,
)
from hypervisor.block.qcow2_format import (
    MAX_BACKING_NAME,
    MAX_CLUSTER_BITS,
    MAX_L1_BYTES,
    MAX_REFCOUNT_TABLE_BYTES,
    MIN_CLUSTER_BITS,
    QCOW_EXT_MAGIC_BACKING_FORMAT,
    REFCOUNT_SHIFT,
    QCowHeader,
    be_bytes,
    complain,
    pack_extensions,
)
from hypervisor.block.qcow2_refcount import qcow2_free_any_clusters
from hypervisor.block.qcow2_refcount_update import qcow2_create_refcount_update
from hypervisor.block.qcow2_shadow import settle_length
from hypervisor.block.qcow2_state import QCowCreateState, QCowL2Meta, align_offset, file_of, state
from hypervisor.block_int import (
    BDRV_O_CACHE_WB,
    BLOCK_FLAG_ENCRYPT,
    BLOCK_OPT_BACKING_FILE,
    BLOCK_OPT_BACKING_FMT,
    BLOCK_OPT_CLUSTER_SIZE,
    BLOCK_OPT_ENCRYPT,
    BLOCK_OPT_PREALLOC,
    BLOCK_OPT_SIZE,
    BlockDriverState,
)
from hypervisor.qemu_option_parameter import OPT_FLAG, OPT_SIZE, OPT_STRING, QEMUOptionParameter
from tracer import traced

C_FILE = "block/qcow2.c"

MAX_REQUEST_SECTORS = 0x7FFFFFFF >> 9


@traced
def get_bits_from_size(size: int) -> int:
    """The exponent of a power of two, -1 for another number.

    >>> get_bits_from_size(65536), get_bits_from_size(1000), get_bits_from_size(0)
    (16, -1, -1)
    """
    return size.bit_length() - 1 if size > 0 and size & (size - 1) == 0 else -1


@traced
def preallocate(bs: BlockDriverState) -> int:
    """Allocate all clusters of a new image, without writing data; 0 or -1."""
    s = state(bs)
    nb_sectors = bdrv_getlength(bs) >> 9
    offset = 0
    meta = QCowL2Meta()
    while nb_sectors:
        wanted = min(nb_sectors, MAX_REQUEST_SECTORS)
        ret, num = qcow2_alloc_cluster_offset(bs, offset, 0, wanted, meta)
        end = meta.cluster_offset + (meta.nb_clusters << s.cluster_bits)
        if ret < 0 or settle_length(s, end) < 0:
            return -1
        if qcow2_alloc_cluster_link_l2(bs, meta) < 0:
            qcow2_free_any_clusters(bs, meta.cluster_offset, meta.nb_clusters)
            return -1
        remove_in_flight(s, meta)
        run_dependent_requests(meta)
        nb_sectors -= num
        offset += num << 9
        if not nb_sectors and bdrv_write(file_of(s), (meta.cluster_offset >> 9) + num - 1, bytes(512), 1) < 0:
            return -1
    return 0


@traced
def qcow_create2(
    filename: str,
    total_size: int,
    backing_file: str | None,
    backing_format: str | None,
    flags: int,
    cluster_size: int,
    prealloc: int,
) -> int:
    """Make an image.

    Parameters
    ----------
    filename : str
    total_size : int
        In sectors.
    backing_file, backing_format : str or None
        As they go into the header; the format only with a file.
    flags : int
        BLOCK_FLAG_ENCRYPT is refused.
    cluster_size : int
        In bytes, 512 to 2 MiB.
    prealloc : int
        1: allocate all clusters.

    Returns
    -------
    int
        0; -EINVAL, -ENOTSUP or -EFBIG for options that cannot be, -errno of a failing write.
    """
    new = not os.path.lexists(filename)
    try:
        with open(filename, "wb", buffering=0, opener=_opener) as file:
            ret = _fill(
                file.fileno(), filename, total_size, backing_file, backing_format, flags, cluster_size
            )
    except OSError as error:
        complain(filename, f"cannot be created: {error.strerror}")
        ret = -(error.errno or errno.EIO)
    if ret < 0 and new:
        with contextlib.suppress(OSError):
            os.unlink(filename)
    if ret < 0 or not prealloc:
        return ret
    bs = bdrv_new("")
    ret = bdrv_open(bs, filename, BDRV_O_CACHE_WB)
    if ret >= 0:
        ret = preallocate(bs)
        bdrv_close(bs)
    return 0 if ret >= 0 else -errno.EIO


def _fill(
    fd: int,
    filename: str,
    total_size: int,
    backing_file: str | None,
    backing_format: str | None,
    flags: int,
    cluster_size: int,
) -> int:
    """Empty a file and make it an image; 0, or -errno if the options cannot be. Raises OSError."""
    s = QCowCreateState()
    name = os.fsencode(backing_file or "")
    extensions = b""
    if backing_file and backing_format:
        extensions = pack_extensions([(QCOW_EXT_MAGIC_BACKING_FORMAT, os.fsencode(backing_format))])[:-8]
    header_size = 72 + len(extensions) + len(name)
    s.cluster_bits = get_bits_from_size(cluster_size)
    if not MIN_CLUSTER_BITS <= s.cluster_bits <= MAX_CLUSTER_BITS:
        least, most = 1 << MIN_CLUSTER_BITS, 1 << (MAX_CLUSTER_BITS - 10)
        print(f"Cluster size must be a power of two between {least} and {most}k", file=sys.stderr)
        return -errno.EINVAL
    s.cluster_size = 1 << s.cluster_bits
    if len(name) > MAX_BACKING_NAME or header_size > s.cluster_size:
        complain(
            filename,
            f"the backing file name has {len(name)} bytes, too many for the header; use a shorter path",
        )
        return -errno.EINVAL
    if flags & BLOCK_FLAG_ENCRYPT:
        complain(filename, "encryption is not modelled; create the image without encryption=on")
        return -errno.ENOTSUP
    header = _lay_out(s, total_size * 512, (header_size + 7) & ~7)
    if header is None:
        complain(
            filename,
            f"{total_size * 512} bytes are too many for clusters of {s.cluster_size}; use larger ones",
        )
        return -errno.EFBIG
    if name:
        header = header._replace(backing_file_offset=72 + len(extensions), backing_file_size=len(name))
    if stat.S_ISREG(os.fstat(fd).st_mode):
        os.ftruncate(fd, 0)
    _write_tables(fd, s, header)
    _write_all(fd, header.pack() + extensions + name, 0)
    return 0


def _lay_out(s: QCowCreateState, size: int, header_size: int) -> QCowHeader | None:
    """Place and count the tables; None if they would be larger than any version takes."""
    l1_size = -(-size >> (2 * s.cluster_bits - 3))
    offset = s.l1_table_offset = align_offset(header_size, s.cluster_size)
    if 8 * l1_size > MAX_L1_BYTES:
        return None
    offset += align_offset(8 * l1_size, s.cluster_size)
    s.refcount_table_offset = offset
    per_block = s.cluster_size >> REFCOUNT_SHIFT
    table_clusters = blocks = 1
    while True:
        clusters = (offset >> s.cluster_bits) + table_clusters + blocks
        needed = clusters // per_block + 1
        if needed <= blocks and 8 * blocks <= table_clusters << s.cluster_bits:
            break
        blocks = max(blocks, needed)
        table_clusters = max(table_clusters, -(-8 * blocks >> s.cluster_bits))
    table_bytes = table_clusters << s.cluster_bits
    if table_bytes > MAX_REFCOUNT_TABLE_BYTES:
        return None
    s.refcount_block_offset = offset + table_bytes
    s.refcount_table = array("Q", bytes(table_bytes))
    for i in range(blocks):
        s.refcount_table[i] = s.refcount_block_offset + (i << s.cluster_bits)
    s.refcount_block = array("H", bytes(blocks << s.cluster_bits))
    qcow2_create_refcount_update(s, 0, header_size)
    qcow2_create_refcount_update(s, s.l1_table_offset, 8 * l1_size)
    qcow2_create_refcount_update(s, s.refcount_table_offset, table_bytes)
    qcow2_create_refcount_update(s, s.refcount_block_offset, blocks << s.cluster_bits)
    return QCowHeader(
        cluster_bits=s.cluster_bits,
        size=size,
        l1_size=l1_size,
        l1_table_offset=s.l1_table_offset,
        refcount_table_offset=s.refcount_table_offset,
        refcount_table_clusters=table_clusters,
    )


def _write_tables(fd: int, s: QCowCreateState, header: QCowHeader) -> None:
    assert s.refcount_table is not None and s.refcount_block is not None
    _write_all(fd, bytes(8 * header.l1_size), s.l1_table_offset)
    _write_all(fd, be_bytes(s.refcount_table[:]), s.refcount_table_offset)
    _write_all(fd, be_bytes(s.refcount_block[:]), s.refcount_block_offset)


def _opener(path: str, flags: int) -> int:
    # what is there stays for now, and a FIFO nobody reads must not keep us waiting
    return os.open(path, flags & ~os.O_TRUNC | os.O_NONBLOCK, 0o644)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view = view[done:]
        offset += done


@traced
def qcow_create(filename: str, options: list[QEMUOptionParameter] | None) -> int:
    """Make an image from the options of `qcow_create_options`; 0 or -errno."""
    sectors = 0
    backing_file = backing_fmt = None
    flags = 0
    cluster_size = 65536
    prealloc = 0
    for option in options or []:
        if option.name == BLOCK_OPT_SIZE:
            sectors = (option.n & 0xFFFFFFFFFFFFFFFF) // 512
        elif option.name == BLOCK_OPT_BACKING_FILE:
            backing_file = option.s
        elif option.name == BLOCK_OPT_BACKING_FMT:
            backing_fmt = option.s
        elif option.name == BLOCK_OPT_ENCRYPT:
            flags |= BLOCK_FLAG_ENCRYPT if option.n else 0
        elif option.name == BLOCK_OPT_CLUSTER_SIZE:
            cluster_size = option.n or cluster_size
        elif option.name == BLOCK_OPT_PREALLOC:
            if option.s not in (None, "off", "metadata"):
                print(f"Invalid preallocation mode: '{option.s}'", file=sys.stderr)
                return -errno.EINVAL
            prealloc = int(option.s == "metadata")
    if backing_file and prealloc:
        print("Backing file and preallocation cannot be used at the same time", file=sys.stderr)
        return -errno.EINVAL
    return qcow_create2(filename, sectors, backing_file, backing_fmt, flags, cluster_size, prealloc)


qcow_create_options = [
    QEMUOptionParameter(name=BLOCK_OPT_SIZE, type=OPT_SIZE, help="Virtual disk size"),
    QEMUOptionParameter(name=BLOCK_OPT_BACKING_FILE, type=OPT_STRING, help="File name of a base image"),
    QEMUOptionParameter(name=BLOCK_OPT_BACKING_FMT, type=OPT_STRING, help="Image format of the base image"),
    QEMUOptionParameter(name=BLOCK_OPT_ENCRYPT, type=OPT_FLAG, help="Encrypt the image"),
    QEMUOptionParameter(name=BLOCK_OPT_CLUSTER_SIZE, type=OPT_SIZE, help="qcow2 cluster size"),
    QEMUOptionParameter(
        name=BLOCK_OPT_PREALLOC,
        type=OPT_STRING,
        help="Preallocation mode (allowed values: off, metadata)",
    ),
]
