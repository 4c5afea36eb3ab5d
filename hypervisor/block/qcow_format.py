r"""The qcow image on disk: header, tables and compressed clusters, apart from any logic.

All numbers are big-endian. A table entry of 0 means "not allocated here": the bytes come from the backing
file, or are zeros without one.

::

    0        48 (or 48 + name, up to 8)           cluster_size * n
    ├────────┬──────────────┬──────────┬─────────────┬──────────────┬────── ─ ─
    │ header │ backing name │ L1 table │ L2 table    │ data cluster │ ...
    └────────┴──────────────┴────┬─────┴──────┬──────┴──────────────┴────── ─ ─
                                 └──── entry ─┘└─ entry ─►

    header (48 bytes)                       guest offset
     0  magic "QFI\xfb"  4  version 1        ┌── L1 index ──┬─ l2_bits ─┬─ cluster_bits ─┐
     8  backing_file_offset (u64)            └──────────────┴───────────┴────────────────┘
    16  backing_file_size  20  mtime        L2 entry of a compressed cluster
    24  size in bytes (u64)                  63  62 .. 63-cluster_bits   62-cluster_bits .. 0
    32  cluster_bits  33  l2_bits  34 -     ┌───┬───────────────────────┬────────────────────┐
    36  crypt_method  40  l1_table_offset   │ 1 │ compressed size       │ offset in the file │
                                            └───┴───────────────────────┴────────────────────┘

- `QCowHeader`: the header as a tuple; ``QCowHeader.unpack(raw)``, ``header.pack()``
- `l1_entries(size, cluster_bits, l2_bits)`: how many entries the L1 table needs
- `compress(data, cluster_size)`, `decompress(raw, cluster_size)`: raw deflate, window of 12 bits
- `complain(filename, text)`: tell the user, on stderr
- `header_problem(header)`: why a header of ours cannot be used, as (-errno, text), or None

Facts from block/qcow.c; the limits ``MIN_*`` and ``MAX_*`` are those of later versions: 0.12.4 has none and
overflows, or cuts a name, instead.
"""

from __future__ import annotations

import errno
import struct
import zlib
from typing import NamedTuple

from hypervisor.complaints import say

QCOW_MAGIC = 0x514649FB
QCOW_VERSION = 1
QCOW_CRYPT_NONE = 0
QCOW_CRYPT_AES = 1
QCOW_OFLAG_COMPRESSED = 1 << 63

MAX_CLUSTER_BITS = 16
MIN_L2_BITS = 6
MAX_L2_BITS = 13
MAX_L1_BYTES = 32 << 20
MAX_NAME = 1023
MAX_OFFSET = (1 << 62) - 1

_HEADER = struct.Struct(">IIQIIQBB2xIQ")
HEADER_SIZE = _HEADER.size


class QCowHeader(NamedTuple):
    """`QCowHeader` of block/qcow.c, in host byte order.

    Examples
    --------
    >>> QCowHeader.unpack(QCowHeader(size=1 << 20, cluster_bits=9, l2_bits=12).pack()).size
    1048576
    """

    magic: int = QCOW_MAGIC
    version: int = QCOW_VERSION
    backing_file_offset: int = 0
    backing_file_size: int = 0
    mtime: int = 0
    size: int = 0
    cluster_bits: int = 0
    l2_bits: int = 0
    crypt_method: int = QCOW_CRYPT_NONE
    l1_table_offset: int = 0

    @classmethod
    def unpack(cls, raw: bytes | bytearray | memoryview) -> QCowHeader:
        """Read a header from the first 48 bytes of `raw`."""
        return cls(*_HEADER.unpack_from(raw))

    def pack(self) -> bytes:
        """The 48 bytes on disk."""
        return _HEADER.pack(*self)


def round_up(offset: int, alignment: int) -> int:
    """`offset` rounded up to a multiple of `alignment`, a power of two.

    >>> round_up(320, 512), round_up(512, 512)
    (512, 512)
    """
    return (offset + alignment - 1) & -alignment


def l1_entries(size: int, cluster_bits: int, l2_bits: int) -> int:
    """The number of L1 entries for `size` bytes: one for each full L2 table's worth, rounded up.

    >>> l1_entries(64 << 20, 9, 12)
    32
    """
    shift = cluster_bits + l2_bits
    return (size + (1 << shift) - 1) >> shift


def complain(filename: str, text: str) -> None:
    """Tell the user which image is meant, what is wrong with it and what to do."""
    say(f"qcow: {filename}: {text}")


def header_problem(header: QCowHeader) -> tuple[int, str] | None:
    """Why a qcow header cannot be opened: a negative errno and a text with field, value and next step.

    -EPERM (C's -1) where 0.12.4 refuses too; -EINVAL, -EFBIG and -ENOTSUP are ours.

    Examples
    --------
    >>> header_problem(QCowHeader(size=512, cluster_bits=31))
    (-22, 'cluster_bits is 31, the largest is 16; restore the header from a copy of the image')
    """
    restore = "restore the header from a copy of the image"
    if header.size <= 1:
        return -errno.EPERM, f"size is {header.size}, the smallest is 2; {restore}"
    if header.cluster_bits < 9:
        return -errno.EPERM, f"cluster_bits is {header.cluster_bits}, the smallest is 9; {restore}"
    if header.crypt_method > QCOW_CRYPT_AES:
        return -errno.EPERM, f"crypt_method is {header.crypt_method}, known are 0 and 1; {restore}"
    if header.crypt_method == QCOW_CRYPT_AES:
        return -errno.ENOTSUP, ENCRYPTION_REFUSED
    if header.cluster_bits > MAX_CLUSTER_BITS:
        text = f"cluster_bits is {header.cluster_bits}, the largest is {MAX_CLUSTER_BITS}"
        return -errno.EINVAL, f"{text}; {restore}"
    if not MIN_L2_BITS <= header.l2_bits <= MAX_L2_BITS:
        text = f"l2_bits is {header.l2_bits}, the least is {MIN_L2_BITS}, the most {MAX_L2_BITS}"
        return -errno.EINVAL, f"{text}; {restore}"
    for field in ("l1_table_offset", "backing_file_offset"):
        value = getattr(header, field)
        if value > MAX_OFFSET:
            return -errno.EINVAL, f"{field} is {value:#x}, beyond any file; {restore}"
    table = 8 * l1_entries(header.size, header.cluster_bits, header.l2_bits)
    if table > MAX_L1_BYTES:
        text = f"size is {header.size}, needs an L1 table of {table} bytes, the largest is {MAX_L1_BYTES}"
        return -errno.EFBIG, f"{text}; {restore}, or use a larger cluster"
    if header.backing_file_offset and header.backing_file_size > MAX_NAME:
        text = f"the backing file name has {header.backing_file_size} bytes, the most is {MAX_NAME}"
        return -errno.EINVAL, f"{text}; {restore}"
    return None


ENCRYPTION_REFUSED = (
    "the image is encrypted (crypt_method 1, AES) and encryption is not modelled;"
    " decrypt it with QEMU's own: qemu-img convert -O qcow"
)


def compress(data: bytes | bytearray | memoryview, cluster_size: int) -> bytes | None:
    """Deflate one cluster, or None if it does not get smaller than `cluster_size`."""
    deflate = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -12, 9, zlib.Z_DEFAULT_STRATEGY)
    out = deflate.compress(data) + deflate.flush()
    return out if len(out) < cluster_size else None


def decompress(raw: bytes | bytearray | memoryview, cluster_size: int) -> bytes | None:
    """Inflate one cluster, or None if `raw` does not hold exactly that much.

    >>> decompress(compress(bytes(512), 512) or b"", 512) == bytes(512), decompress(b"junk", 512)
    (True, None)
    """
    try:
        out = zlib.decompressobj(-12).decompress(raw, cluster_size)
    except zlib.error:
        return None
    return out if len(out) == cluster_size else None
