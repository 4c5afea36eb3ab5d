"""The structures of the block layer: block_int.h and block.h.

Field names are QEMU's. What has no C counterpart in Python is spelled so:

- a pointer to a structure is a reference or None; a ``char[n]`` is a str; a function pointer is a
  callable or None;
- "inheritance" by a first member (``BlockDriverAIOCB common``) is a subclass: ``acb.cb``, not
  ``acb.common.cb``;
- ``instance_size`` and ``aiocb_size``, in C a sizeof, hold the class of the driver's state or request:
  ``bdrv_open2`` makes the state with ``drv.instance_size()`` as C does with ``qemu_mallocz``.

::

    BlockDriverState ─ drv ────────► BlockDriver (static: &bdrv_qcow2)
         │  │  └────── opaque ─────► the driver's own state (BDRVQcowState ─ hd ─► BlockDriverState)
         │  └───────── backing_hd ─► BlockDriverState of the backing file
         └──────────── next ───────► the next named device on bdrv_first
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from tracer import Struct

if TYPE_CHECKING:
    from hypervisor.cutils import QEMUIOVector
    from hypervisor.qemu_option_parameter import QEMUOptionParameter

ReadBuffer: TypeAlias = "bytes | bytearray | memoryview"
"""``const uint8_t *``: what is written to a disk."""
WriteBuffer: TypeAlias = "bytearray | memoryview"
"""``uint8_t *``: where a read goes."""
BlockDriverCompletionFunc: TypeAlias = Callable[[Any, int], None]
"""``void (*)(void *opaque, int ret)``; ret is 0 or -errno."""

BLOCK_FLAG_ENCRYPT = 1
BLOCK_FLAG_COMPRESS = 2
BLOCK_FLAG_COMPAT6 = 4

BLOCK_OPT_SIZE = "size"
BLOCK_OPT_ENCRYPT = "encryption"
BLOCK_OPT_COMPAT6 = "compat6"
BLOCK_OPT_BACKING_FILE = "backing_file"
BLOCK_OPT_BACKING_FMT = "backing_fmt"
BLOCK_OPT_CLUSTER_SIZE = "cluster_size"
BLOCK_OPT_PREALLOC = "preallocation"

BDRV_O_RDONLY = 0x0000
BDRV_O_RDWR = 0x0002
BDRV_O_ACCESS = 0x0003
BDRV_O_CREAT = 0x0004
BDRV_O_SNAPSHOT = 0x0008
BDRV_O_FILE = 0x0010
BDRV_O_NOCACHE = 0x0020
BDRV_O_CACHE_WB = 0x0040
BDRV_O_NATIVE_AIO = 0x0080
BDRV_O_CACHE_MASK = BDRV_O_NOCACHE | BDRV_O_CACHE_WB

BDRV_SECTOR_BITS = 9
BDRV_SECTOR_SIZE = 1 << BDRV_SECTOR_BITS
BDRV_SECTOR_MASK = ~(BDRV_SECTOR_SIZE - 1)
BDRV_SECTORS_PER_DIRTY_CHUNK = 2048

BDRV_TYPE_HD = 0
BDRV_TYPE_CDROM = 1
BDRV_TYPE_FLOPPY = 2
BIOS_ATA_TRANSLATION_AUTO = 0
BIOS_ATA_TRANSLATION_NONE = 1
BIOS_ATA_TRANSLATION_LBA = 2
BIOS_ATA_TRANSLATION_LARGE = 3
BIOS_ATA_TRANSLATION_RECHS = 4


class QEMUSnapshotInfo(Struct):
    """An internal snapshot (block.h).

    Sizes are in bytes, dates in UTC seconds and nanoseconds, ``vm_clock_nsec`` counts from boot.
    """

    id_str: str = ""
    name: str = ""
    vm_state_size: int = 0
    date_sec: int = 0
    date_nsec: int = 0
    vm_clock_nsec: int = 0


class BlockDriverInfo(Struct):
    """What ``bdrv_get_info`` fills (block.h): both in bytes, 0 if there is no such thing."""

    cluster_size: int = 0
    vm_state_offset: int = 0


class BlockRequest(Struct):
    """One write of a ``bdrv_aio_multiwrite`` (block.h); `error` is filled by the callee."""

    sector: int = 0
    nb_sectors: int = 0
    qiov: QEMUIOVector | None = None
    cb: BlockDriverCompletionFunc | None = None
    opaque: Any = None
    error: int = 0


class AIOPool(Struct):
    """The requests of one kind that are free for reuse, and how to cancel one (block_int.h)."""

    cancel: Callable[[Any], None] | None = None
    aiocb_size: type[BlockDriverAIOCB] | None = None
    free_aiocb: BlockDriverAIOCB | None = None


class BlockDriverAIOCB(Struct):
    """The part common to all asynchronous requests (block_int.h); drivers subclass it."""

    pool: AIOPool | None = None
    bs: BlockDriverState | None = None
    cb: BlockDriverCompletionFunc | None = None
    opaque: Any = None
    next: Any = None


class BlockDriver(Struct):
    """A format or protocol: a table of functions, each None if it has none (block_int.h).

    Notes
    -----
    Signatures follow C, out-pointers being returned after the result: ``bdrv_is_allocated(bs,
    sector_num, nb_sectors) -> (ret, pnum)``, ``bdrv_snapshot_list(bs) -> (count, list)``.
    ``_peek`` is ours: it reads sectors into a view beneath the recorded calls, up to the end of a cluster
    perhaps, and returns the bytes read (`hypervisor.block.beneath.peek`).
    """

    format_name: str = ""
    instance_size: type[Any] | None = None
    bdrv_probe: Callable[[ReadBuffer, int, str], int] | None = None
    bdrv_probe_device: Callable[[str], int] | None = None
    bdrv_open: Callable[[BlockDriverState, str, int], int] | None = None
    bdrv_read: Callable[[BlockDriverState, int, WriteBuffer, int], int] | None = None
    bdrv_write: Callable[[BlockDriverState, int, ReadBuffer, int], int] | None = None
    bdrv_close: Callable[[BlockDriverState], None] | None = None
    bdrv_create: Callable[[str, list[QEMUOptionParameter] | None], int] | None = None
    bdrv_flush: Callable[[BlockDriverState], None] | None = None
    bdrv_is_allocated: Callable[[BlockDriverState, int, int], tuple[int, int]] | None = None
    bdrv_set_key: Callable[[BlockDriverState, str], int] | None = None
    bdrv_make_empty: Callable[[BlockDriverState], int] | None = None
    bdrv_aio_readv: _AioVector | None = None
    bdrv_aio_writev: _AioVector | None = None
    bdrv_aio_flush: Callable[[BlockDriverState, BlockDriverCompletionFunc, Any], Any] | None = None
    bdrv_aio_multiwrite: Callable[[BlockDriverState, list[BlockRequest], int], int] | None = None
    bdrv_merge_requests: Callable[[BlockDriverState, BlockRequest, BlockRequest], int] | None = None
    protocol_name: str | None = None
    bdrv_truncate: Callable[[BlockDriverState, int], int] | None = None
    bdrv_getlength: Callable[[BlockDriverState], int] | None = None
    bdrv_write_compressed: Callable[[BlockDriverState, int, ReadBuffer | None, int], int] | None = None
    bdrv_snapshot_create: Callable[[BlockDriverState, QEMUSnapshotInfo], int] | None = None
    bdrv_snapshot_goto: Callable[[BlockDriverState, str], int] | None = None
    bdrv_snapshot_delete: Callable[[BlockDriverState, str], int] | None = None
    bdrv_snapshot_list: Callable[[BlockDriverState], tuple[int, list[QEMUSnapshotInfo]]] | None = None
    bdrv_get_info: Callable[[BlockDriverState, BlockDriverInfo], int] | None = None
    bdrv_save_vmstate: Callable[[BlockDriverState, ReadBuffer, int, int], int] | None = None
    bdrv_load_vmstate: Callable[[BlockDriverState, WriteBuffer, int, int], int] | None = None
    bdrv_is_inserted: Callable[[BlockDriverState], int] | None = None
    bdrv_media_changed: Callable[[BlockDriverState], int] | None = None
    bdrv_eject: Callable[[BlockDriverState, int], int] | None = None
    bdrv_set_locked: Callable[[BlockDriverState, int], int] | None = None
    bdrv_ioctl: Callable[[BlockDriverState, int, Any], int] | None = None
    bdrv_aio_ioctl: Callable[[BlockDriverState, int, Any, BlockDriverCompletionFunc, Any], Any] | None = None
    create_options: list[QEMUOptionParameter] | None = None
    bdrv_check: Callable[[BlockDriverState], int] | None = None
    no_zero_init: int = 0
    _peek: Callable[[BlockDriverState, int, memoryview], int] | None = None
    next: BlockDriver | None = None


class BlockDriverState(Struct):
    """A drive, an image file or a medium: whatever can be opened (block_int.h).

    Notes
    -----
    ``total_sectors`` counts 512-byte sectors; ``drv`` is None without a medium; ``rd_bytes`` and its
    kin count asynchronous requests only, at submission.
    """

    total_sectors: int = 0
    read_only: int = 0
    removable: int = 0
    locked: int = 0
    encrypted: int = 0
    valid_key: int = 0
    sg: int = 0
    change_cb: Callable[[Any], None] | None = None
    change_opaque: Any = None
    drv: BlockDriver | None = None
    opaque: Any = None
    filename: str = ""
    backing_file: str = ""
    backing_format: str = ""
    is_temporary: int = 0
    media_changed: int = 0
    backing_hd: BlockDriverState | None = None
    sync_aiocb: Any = None
    rd_bytes: int = 0
    wr_bytes: int = 0
    rd_ops: int = 0
    wr_ops: int = 0
    growable: int = 0
    buffer_alignment: int = 0
    enable_write_cache: int = 0
    cyls: int = 0
    heads: int = 0
    secs: int = 0
    translation: int = 0
    type: int = 0
    device_name: str = ""
    dirty_bitmap: bytearray | None = None
    next: BlockDriverState | None = None
    private: Any = None
    _in_flight: int = 0


_AioVector: TypeAlias = (
    "Callable[[BlockDriverState, int, QEMUIOVector, int, BlockDriverCompletionFunc, Any],"
    " BlockDriverAIOCB | None]"
)
