r"""How a qcow2 image looks on disk: header, extensions, tables, snapshot entries; no logic, no I/O.

All numbers are big-endian; every table and data cluster begins at a multiple of the cluster size.

::

    file    0        header, extensions, backing file name (all within the first cluster)
            n*cs     L1 table ─► L2 tables ─► data clusters        (the current disk)
                     refcount table ─► refcount blocks             (a 16-bit count for every cluster)
                     snapshot table ─► an L1 table for each snapshot

    header   0 magic "QFI\xfb"   4 version            32 crypt_method        72 incompatible_features
             8 backing_file_offset (u64)             36 l1_size             80 compatible_features
            16 backing_file_size  20 cluster_bits    40 l1_table_offset     88 autoclear_features
            24 size in bytes (u64)                   48 refcount_table_offset    96 refcount_order
                                                     56 refcount_table_clusters 100 header_length
                                                     60 nb_snapshots           (72.. in version 3 only)
                                                     64 snapshots_offset

    guest offset   ┌─ L1 index ─┬─ L2 index: cluster_bits - 3 ─┬─ cluster_bits ─┐
                   └────────────┴──────────────────────────────┴────────────────┘
    L1, L2 entry   63: COPIED, the refcount is exactly 1;  62: COMPRESSED;  61..0: offset (0: nothing there)
    compressed     62;  61..csize_shift: sectors used, less 1;  csize_shift-1..0: offset, in bytes

    extension      magic (u32)  length (u32)  data, padded to a multiple of 8
    snapshot       QCowSnapshotHeader, extra data, id, name; the next one at a multiple of 8

- `QCowHeader`, `QCowHeader3`: the header, ``unpack(raw)`` and ``pack()``
- `header_problem`, `version3_problem`: why a header cannot be used, as (-errno, text), or None
- `QCowSnapshotHeader`: the fixed part of a snapshot entry
- `words`, `counts`: big-endian tables to arrays in host order; `be_bytes` back
- `complain(filename, text)`: tell the user, on stderr

Facts from block/qcow2.h and docs/interop/qcow2.txt; the limits ``MAX_*`` are those of later versions,
0.12.4 has none and overflows instead.
"""

from __future__ import annotations

import errno
import struct
import sys
from array import array
from collections.abc import Iterable
from typing import NamedTuple

from hypervisor.complaints import say

QCOW_MAGIC = 0x514649FB
QCOW_VERSION = 2
QCOW_CRYPT_NONE = 0
QCOW_CRYPT_AES = 1

QCOW_OFLAG_COPIED = 1 << 63
QCOW_OFLAG_COMPRESSED = 1 << 62

REFCOUNT_SHIFT = 1
MIN_CLUSTER_BITS = 9
MAX_CLUSTER_BITS = 21
L2_CACHE_SIZE = 16

QCOW_EXT_MAGIC_END = 0
QCOW_EXT_MAGIC_BACKING_FORMAT = 0xE2792ACA
EXT_MAGIC_FEATURE_NAMES = 0x6803F857
EXT_MAGIC_BITMAPS = 0x23852875
EXTENSION = struct.Struct(">II")

MAX_L1_BYTES = 32 << 20
MAX_REFCOUNT_TABLE_BYTES = 8 << 20
MAX_SNAPSHOTS = 65536
MAX_SNAPSHOT_EXTRA = 1024
MAX_BACKING_NAME = 1023
MAX_EXTENSIONS = 256

_HEADER = struct.Struct(">IIQIIQIIQQIIQ")
HEADER_SIZE = _HEADER.size
_HEADER3 = struct.Struct(">QQQII")
HEADER3_SIZE = HEADER_SIZE + _HEADER3.size
TABLE_FIELDS = struct.Struct(">IQQIIQ")
"""l1_size, l1_table_offset, refcount table offset and clusters, nb_snapshots, snapshots_offset."""
OFFSET_L1_SIZE = 36
OFFSET_REFCOUNT_TABLE = 48
OFFSET_NB_SNAPSHOTS = 60
OFFSET_SNAPSHOTS = 64

_FEATURE_NAMES = {
    (0, 0): "dirty bit",
    (0, 1): "corrupt bit",
    (0, 2): "external data file",
    (0, 3): "compression type",
    (0, 4): "extended L2 entries",
    (1, 0): "lazy refcounts",
    (2, 0): "bitmaps",
    (2, 1): "raw external data",
}
CONVERT = "convert it with QEMU's own: qemu-img convert -O qcow2 -o compat=0.10"
_RESTORE = "restore the header from a copy of the image"


class QCowHeader(NamedTuple):
    """`QCowHeader` of block/qcow2.h: the 72 bytes of version 2, in host byte order.

    Examples
    --------
    >>> QCowHeader.unpack(QCowHeader(size=1 << 20).pack()).size
    1048576
    """

    magic: int = QCOW_MAGIC
    version: int = QCOW_VERSION
    backing_file_offset: int = 0
    backing_file_size: int = 0
    cluster_bits: int = 16
    size: int = 0
    crypt_method: int = QCOW_CRYPT_NONE
    l1_size: int = 0
    l1_table_offset: int = 0
    refcount_table_offset: int = 0
    refcount_table_clusters: int = 0
    nb_snapshots: int = 0
    snapshots_offset: int = 0

    @classmethod
    def unpack(cls, raw: bytes | bytearray | memoryview) -> QCowHeader:
        """Read a header from the first 72 bytes of `raw`."""
        return cls(*_HEADER.unpack_from(raw))

    def pack(self) -> bytes:
        """The 72 bytes on disk."""
        return _HEADER.pack(*self)


class QCowHeader3(NamedTuple):
    """The 32 bytes that version 3 has behind those of version 2 (docs/interop/qcow2.txt)."""

    incompatible_features: int = 0
    compatible_features: int = 0
    autoclear_features: int = 0
    refcount_order: int = 4
    header_length: int = HEADER3_SIZE

    @classmethod
    def unpack(cls, raw: bytes | bytearray | memoryview) -> QCowHeader3:
        """Read the fields from `raw`, which begins behind the header of version 2."""
        return cls(*_HEADER3.unpack_from(raw))


class QCowSnapshotHeader(NamedTuple):
    """`QCowSnapshotHeader` of block/qcow2-snapshot.c: 40 bytes, then extra data, id and name."""

    l1_table_offset: int = 0
    l1_size: int = 0
    id_str_size: int = 0
    name_size: int = 0
    date_sec: int = 0
    date_nsec: int = 0
    vm_clock_nsec: int = 0
    vm_state_size: int = 0
    extra_data_size: int = 0

    @classmethod
    def unpack(cls, raw: bytes | bytearray | memoryview) -> QCowSnapshotHeader:
        """Read the fixed part of an entry from the first 40 bytes of `raw`."""
        return cls(*SNAPSHOT_HEADER.unpack_from(raw))

    def pack(self) -> bytes:
        """The 40 bytes on disk."""
        return SNAPSHOT_HEADER.pack(*self)


SNAPSHOT_HEADER = struct.Struct(">QIHHIIQII")
SNAPSHOT_EXTRA = struct.Struct(">QQ")
"""The extra data that version 3 demands: VM state size and disk size, in bytes."""


def complain(filename: str, text: str) -> None:
    """Tell the user which image is meant, what is wrong with it and what to do."""
    say(f"qcow2: {filename}: {text}")


def words(raw: bytes | bytearray | memoryview) -> array[int]:
    r"""A table of big-endian 64-bit entries as an array in host order.

    >>> words(bytes(7) + b"\x05").tolist()
    [5]
    """
    return _host_order(array("Q", bytes(raw)))


def counts(raw: bytes | bytearray | memoryview) -> array[int]:
    """A block of big-endian 16-bit refcounts as an array in host order."""
    return _host_order(array("H", bytes(raw)))


def be_bytes(table: array[int]) -> bytes:
    """The big-endian bytes of a part of a table; the argument is used up."""
    return _host_order(table).tobytes()


def _host_order(table: array[int]) -> array[int]:
    if sys.byteorder == "little":
        table.byteswap()
    return table


def header_problem(header: QCowHeader, file_size: int) -> tuple[int, str] | None:
    """Why the common part of a header cannot be used: a negative errno and a text, or None.

    Parameters
    ----------
    header
        With the right magic and a version of 2 or more.
    file_size
        In bytes; tables must lie within it, so that none makes us allocate more than the file has.

    Examples
    --------
    >>> header_problem(QCowHeader(cluster_bits=40), 1 << 20)[1]
    'cluster_bits is 40, possible are 9 to 21; restore the header from a copy of the image'
    """
    if header.version > 3:
        return -errno.ENOTSUP, f"version is {header.version}, known are 2 and 3; open it with a newer QEMU"
    bits = header.cluster_bits
    if not MIN_CLUSTER_BITS <= bits <= MAX_CLUSTER_BITS:
        possible = f"{MIN_CLUSTER_BITS} to {MAX_CLUSTER_BITS}"
        return -errno.EINVAL, f"cluster_bits is {bits}, possible are {possible}; {_RESTORE}"
    if header.crypt_method:
        return (
            -errno.ENOTSUP,
            f"the image is encrypted (crypt_method {header.crypt_method}) and encryption is not modelled;"
            " decrypt it with QEMU's own: qemu-img convert -O qcow2",
        )
    cluster_size = 1 << bits
    needed = -(-header.size >> (2 * bits - 3))
    for offset_field, count_field, unit, most in (
        ("l1_table_offset", "l1_size", 8, MAX_L1_BYTES),
        ("refcount_table_offset", "refcount_table_clusters", cluster_size, MAX_REFCOUNT_TABLE_BYTES),
        ("snapshots_offset", "nb_snapshots", SNAPSHOT_HEADER.size, MAX_SNAPSHOTS * SNAPSHOT_HEADER.size),
    ):
        offset, count = getattr(header, offset_field), getattr(header, count_field)
        if count * unit > most:
            code = -errno.EFBIG if count_field == "l1_size" else -errno.EINVAL
            return code, f"{count_field} is {count}, the most is {most // unit}; {_RESTORE}"
        if count and offset & (cluster_size - 1):
            text = f"{offset_field} is {offset:#x}, no multiple of the cluster size {cluster_size}"
            return -errno.EINVAL, f"{text}; {_RESTORE}"
        if count and offset + count * unit > file_size + cluster_size:
            text = f"{offset_field} is {offset:#x} and {count_field} {count}, the file ends at {file_size:#x}"
            return -errno.EINVAL, f"{text}; the file is cut short or the header is damaged: {_RESTORE}"
    if header.l1_size < needed:
        return -errno.EINVAL, f"l1_size is {header.l1_size}, size {header.size} needs {needed}; {_RESTORE}"
    if not header.refcount_table_clusters or not header.refcount_table_offset:
        return -errno.EINVAL, f"refcount_table_clusters is 0: the image has no refcounts; {_RESTORE}"
    if header.backing_file_offset:
        end = header.backing_file_offset + header.backing_file_size
        if header.backing_file_size > MAX_BACKING_NAME or end > cluster_size:
            text = f"backing_file_size is {header.backing_file_size} at {header.backing_file_offset:#x}"
            return -errno.EINVAL, f"{text}, beyond 1023 bytes or the first cluster; {_RESTORE}"
    return None


def version3_problem(
    header: QCowHeader3, cluster_size: int, names: dict[tuple[int, int], str]
) -> tuple[int, str] | None:
    """Why an image of version 3 is more than one of version 2: a negative errno and a text, or None.

    Parameters
    ----------
    header
        The fields of version 3.
    cluster_size
        In bytes.
    names
        What `feature_names` read from the image.

    Examples
    --------
    >>> version3_problem(QCowHeader3(compatible_features=1), 65536, {})[1].partition(";")[0]
    'feature "lazy refcounts" (compatible bit 0) is not in version 2, which is what 0.12.4 knows'
    """
    if not HEADER3_SIZE <= header.header_length <= cluster_size or header.header_length % 8:
        return -errno.EINVAL, f"header_length is {header.header_length}, the least is 104; {_RESTORE}"
    if header.refcount_order != 4:
        return -errno.ENOTSUP, f"refcount_order is {header.refcount_order}, version 2 has 4; {CONVERT}"
    for kind, field in enumerate(header[:3]):
        for bit in range(64):
            if field >> bit & 1:
                name = names.get((kind, bit)) or _FEATURE_NAMES.get((kind, bit), "unknown")
                where = ("incompatible", "compatible", "autoclear")[kind]
                text = f'feature "{name}" ({where} bit {bit}) is not in version 2, which is what 0.12.4 knows'
                return -errno.ENOTSUP, f"{text}; {CONVERT}"
    return None


def feature_names(raw: bytes) -> dict[tuple[int, int], str]:
    r"""The feature name table: (kind, bit) -> name, of 48-byte entries.

    >>> feature_names(b"\x00\x07" + b"quantum".ljust(46, b"\0"))
    {(0, 7): 'quantum'}
    """
    entries = (raw[at : at + 48] for at in range(0, len(raw) - 47, 48))
    return {(e[0], e[1]): e[2:].split(b"\0", 1)[0].decode("ascii", "replace") for e in entries}


def pack_extensions(extensions: Iterable[tuple[int, bytes]]) -> bytes:
    """Header extensions on disk, each padded, with the end mark."""
    parts = [EXTENSION.pack(magic, len(data)) + data + bytes(-len(data) % 8) for magic, data in extensions]
    return b"".join(parts) + EXTENSION.pack(QCOW_EXT_MAGIC_END, 0)
