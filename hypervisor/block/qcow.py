"""The qcow driver, version 1 of the format: block/qcow.c of qemu-kvm 0.12.4.

A qcow image maps guest clusters to file offsets by two levels of tables (`hypervisor.block.qcow_format`
draws them) and grows at its end. There are no reference counts and no snapshots: a cluster once allocated
stays where it is until `qcow_make_empty`, which commit calls.

::

    BlockDriverState ── opaque ──► BDRVQcowState ── hd ──► BlockDriverState (raw, the file itself)
           │                          l1_table   all of level 1, host order
           └─ backing_hd              l2_cache   16 tables of level 2, as on disk, least used goes first

- `qcow_probe`, `qcow_open`, `qcow_close`, `qcow_create`: the image as a whole
- `qcow_make_empty`, `qcow_get_info`, `qcow_flush`, `qcow_set_key`: the driver's small functions
- `hypervisor.block.qcow_cluster`: where clusters are; `hypervisor.block.qcow_aio`: requests

Differences from C, none of them visible while all goes well. Encryption is refused, so there is neither
`encrypt_sectors` nor its branches. Where 0.12.4 takes an error for "not allocated", hands out stale memory
or goes on after a failed table write, the request ends with an error and the tables in memory stay as they
are on disk. Numbers of a header that would overflow or eat the memory are refused.
"""

from __future__ import annotations

import errno
import os

from hypervisor.block import (
    bdrv_delete,
    bdrv_file_open,
    bdrv_flush,
    bdrv_pread,
    bdrv_pwrite,
    bdrv_register,
    bdrv_truncate,
)
from hypervisor.block.qcow_aio import qcow_aio_readv, qcow_aio_writev
from hypervisor.block.qcow_cluster import (
    NO_OFFSET,
    BDRVQcowState,
    empty_l2_cache,
    failure,
    peek,
    qcow_is_allocated,
    qcow_write_compressed,
    set_l1_table,
)
from hypervisor.block.qcow_format import (
    ENCRYPTION_REFUSED,
    HEADER_SIZE,
    MAX_L1_BYTES,
    MAX_NAME,
    QCOW_MAGIC,
    QCOW_VERSION,
    QCowHeader,
    complain,
    header_problem,
    l1_entries,
    round_up,
)
from hypervisor.block_int import (
    BDRV_O_RDWR,
    BLOCK_OPT_BACKING_FILE,
    BLOCK_OPT_ENCRYPT,
    BLOCK_OPT_SIZE,
    BlockDriver,
    BlockDriverInfo,
    BlockDriverState,
    ReadBuffer,
)
from hypervisor.module import block_init
from hypervisor.qemu_option_parameter import OPT_FLAG, OPT_SIZE, OPT_STRING, QEMUOptionParameter
from tracer import symbol, traced

C_FILE = "block/qcow.c"


@traced
def qcow_probe(buf: ReadBuffer, buf_size: int, filename: str) -> int:
    """100 if `buf`, the first bytes of a file, begins a qcow image of version 1, else 0."""
    if buf_size < HEADER_SIZE:
        return 0
    header = QCowHeader.unpack(buf)
    return 100 if (header.magic, header.version) == (QCOW_MAGIC, QCOW_VERSION) else 0


@traced
def qcow_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Open an image: header, L1 table and backing file name, three reads through ``s->hd``.

    Returns
    -------
    int
        0, or -errno: -1 for what 0.12.4 refuses too (`bdrv_open2` takes it for EPERM and tries again
        read-only), else what `header_problem` says or the failing read gave.
    """
    s: BDRVQcowState = bs.opaque
    ret, hd = bdrv_file_open(filename, flags)
    if ret < 0 or hd is None:
        return ret
    s.hd = hd
    ret = _load_tables(bs, s, hd, filename, flags)
    if ret < 0:
        bdrv_delete(hd)
    return ret


def _load_tables(
    bs: BlockDriverState, s: BDRVQcowState, hd: BlockDriverState, filename: str, flags: int
) -> int:
    raw = bytearray(HEADER_SIZE)
    ret = bdrv_pread(hd, 0, raw, HEADER_SIZE)
    if ret != HEADER_SIZE:
        return failure(ret)
    header = QCowHeader.unpack(raw)
    if (header.magic, header.version) != (QCOW_MAGIC, QCOW_VERSION):
        return -1  # quirk: reads as EPERM, so bdrv_open2 tries again read-only
    problem = header_problem(header)
    if problem is not None:
        ret, text = problem
        if ret != -errno.EPERM or flags & BDRV_O_RDWR or bs.read_only:
            complain(filename, text)
        return ret
    s.cluster_bits = header.cluster_bits
    s.cluster_size = 1 << s.cluster_bits
    s.cluster_sectors = 1 << (s.cluster_bits - 9)
    s.l2_bits = header.l2_bits
    s.l2_size = 1 << s.l2_bits
    bs.total_sectors = header.size // 512
    s.cluster_offset_mask = (1 << (63 - s.cluster_bits)) - 1

    s.l1_size = l1_entries(header.size, s.cluster_bits, s.l2_bits)
    s.l1_table_offset = header.l1_table_offset
    table = bytearray(8 * s.l1_size)
    ret = bdrv_pread(hd, s.l1_table_offset, table, len(table))
    if ret != len(table):
        return failure(ret)
    set_l1_table(s, table, hd.total_sectors * 512)
    empty_l2_cache(s)
    s.cluster_cache = bytearray(s.cluster_size)
    s.cluster_data = bytearray(s.cluster_size)
    s.cluster_cache_offset = NO_OFFSET

    if header.backing_file_offset:
        name = bytearray(header.backing_file_size)
        ret = bdrv_pread(hd, header.backing_file_offset, name, len(name))
        if ret != len(name):
            return failure(ret)
        bs.backing_file = os.fsdecode(bytes(name).split(b"\0", 1)[0])
    return 0


@traced
def qcow_set_key(bs: BlockDriverState, key: str) -> int:
    """Refused: `qcow_open` lets no encrypted image in."""
    complain(bs.filename, ENCRYPTION_REFUSED)
    return -errno.ENOTSUP


@traced
def qcow_close(bs: BlockDriverState) -> None:
    """Close the file; nothing is kept back that would have to be written."""
    s: BDRVQcowState = bs.opaque
    if s.hd is not None:
        bdrv_delete(s.hd)


@traced
def qcow_create(filename: str, options: list[QEMUOptionParameter] | None) -> int:
    """Make an image: 512-byte clusters over a backing file (nothing to copy on a write), else 4 KiB.

    Returns
    -------
    int
        0; -ENOTSUP with encryption, -EFBIG if the L1 table would be too large, -EINVAL for a backing file
        name over 1023 bytes, or the errno of the failing system call.
    """
    total_size = 0
    backing_file = None
    for option in options or []:
        if option.name == BLOCK_OPT_SIZE:
            total_size = (option.n & NO_OFFSET) // 512
        elif option.name == BLOCK_OPT_BACKING_FILE:
            backing_file = option.s
        elif option.name == BLOCK_OPT_ENCRYPT and option.n:
            complain(filename, "encryption is not modelled; create the image without encryption=on")
            return -errno.ENOTSUP
    if backing_file == "fat:":  # C's special case for vvfat, which is its own backing file
        backing_file = None
    name = b"" if backing_file is None else os.fsencode(backing_file)
    if len(name) > MAX_NAME:
        text = f"the backing file name has {len(name)} bytes, the most is {MAX_NAME}; use a shorter path"
        complain(filename, text)
        return -errno.EINVAL
    cluster_bits, l2_bits = (12, 9) if backing_file is None else (9, 12)
    l1_table_offset = round_up(HEADER_SIZE + len(name), 8)
    l1_length = 8 * l1_entries(total_size * 512, cluster_bits, l2_bits)
    if l1_length > MAX_L1_BYTES:
        return -errno.EFBIG
    header = QCowHeader(
        backing_file_offset=0 if backing_file is None else HEADER_SIZE,
        backing_file_size=len(name),
        size=total_size * 512,
        cluster_bits=cluster_bits,
        l2_bits=l2_bits,
        l1_table_offset=l1_table_offset,
    )
    try:
        with open(filename, "wb", buffering=0, opener=_opener) as file:
            _write_all(file.fileno(), header.pack() + name)
            os.lseek(file.fileno(), l1_table_offset, os.SEEK_SET)
            _write_all(file.fileno(), bytes(l1_length))
    except OSError as error:
        complain(filename, f"cannot be created: {error.strerror}")
        return -(error.errno or errno.EIO)
    return 0


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK, 0o644)  # a FIFO nobody reads must not keep us waiting


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@traced
def qcow_make_empty(bs: BlockDriverState) -> int:
    """Forget all clusters: a zeroed L1 table, and the file cut off behind it."""
    s: BDRVQcowState = bs.opaque
    assert s.hd is not None
    l1_length = 8 * s.l1_size
    ret = bdrv_pwrite(s.hd, s.l1_table_offset, bytes(l1_length), l1_length)
    if ret < 0:
        return ret
    set_l1_table(s, bytes(l1_length), 0)
    empty_l2_cache(s)
    s.cluster_cache_offset = NO_OFFSET
    return min(bdrv_truncate(s.hd, s.l1_table_offset + l1_length), 0)


@traced
def qcow_flush(bs: BlockDriverState) -> None:
    """Flush the file."""
    s: BDRVQcowState = bs.opaque
    assert s.hd is not None
    bdrv_flush(s.hd)


@traced
def qcow_get_info(bs: BlockDriverState, bdi: BlockDriverInfo) -> int:
    """Fill in the cluster size, in bytes."""
    s: BDRVQcowState = bs.opaque
    bdi.cluster_size = s.cluster_size
    return 0


qcow_create_options = [
    QEMUOptionParameter(name=BLOCK_OPT_SIZE, type=OPT_SIZE, help="Virtual disk size"),
    QEMUOptionParameter(name=BLOCK_OPT_BACKING_FILE, type=OPT_STRING, help="File name of a base image"),
    QEMUOptionParameter(name=BLOCK_OPT_ENCRYPT, type=OPT_FLAG, help="Encrypt the image"),
]

bdrv_qcow = symbol(
    BlockDriver(
        format_name="qcow",
        instance_size=BDRVQcowState,
        bdrv_probe=qcow_probe,
        bdrv_open=qcow_open,
        bdrv_close=qcow_close,
        bdrv_create=qcow_create,
        bdrv_flush=qcow_flush,
        bdrv_is_allocated=qcow_is_allocated,
        bdrv_set_key=qcow_set_key,
        bdrv_make_empty=qcow_make_empty,
        bdrv_aio_readv=qcow_aio_readv,
        bdrv_aio_writev=qcow_aio_writev,
        bdrv_write_compressed=qcow_write_compressed,
        bdrv_get_info=qcow_get_info,
        create_options=qcow_create_options,
        _peek=peek,
    ),
    "bdrv_qcow",
)


@traced
def bdrv_qcow_init() -> None:
    """Register the driver."""
    bdrv_register(bdrv_qcow)


block_init(bdrv_qcow_init)
