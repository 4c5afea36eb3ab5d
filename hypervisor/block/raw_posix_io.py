"""Reading and writing of block/raw-posix.c, what its four drivers share.

::

    raw_read  ─► raw_pread  ─► raw_pread_aligned  ─► preadv     synchronous
    raw_aio_readv ─► raw_aio_submit ─► paio_submit               by a worker thread (posix_aio_compat)

With BDRV_O_NOCACHE the file is open with O_DIRECT; then what is not aligned to 512 bytes goes through
`aligned_buf`. The kernel's native AIO (``-k``) cannot be reached from Python: such requests go to
the worker threads too.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from hypervisor.block.bdrv_aio import qemu_blockalign
from hypervisor.block.beneath import fetch
from hypervisor.block_int import (
    BDRV_O_ACCESS,
    BDRV_O_CACHE_WB,
    BDRV_O_NATIVE_AIO,
    BDRV_O_NOCACHE,
    BDRV_O_RDWR,
    BDRV_TYPE_CDROM,
    BlockDriverCompletionFunc,
    BlockDriverState,
    ReadBuffer,
    WriteBuffer,
)
from hypervisor.cutils import QEMUIOVector, qemu_fdatasync
from hypervisor.osdep import address, close_fd, qemu_open, qemu_vfree
from hypervisor.posix_aio_compat import paio_init, paio_submit
from hypervisor.posix_aio_thread import (
    QEMU_AIO_FLUSH,
    QEMU_AIO_MISALIGNED,
    QEMU_AIO_READ,
    QEMU_AIO_WRITE,
)
from hypervisor.program import linked
from hypervisor.quirks import note
from tracer import Struct, traced

C_FILE = "block/raw-posix.c"

FTYPE_FILE = 0
FTYPE_CD = 1
FTYPE_FD = 2
ALIGNED_BUFFER_SIZE = 32 * 512
FD_OPEN_TIMEOUT = 1000
"""Milliseconds after which a floppy is opened anew, to notice that it was changed."""


class BDRVRawState(Struct):
    """An open file or device (block/raw-posix.c); times are in milliseconds.

    ``_ahead`` is ours: from where on, and up to where, the file is there only because
    `hypervisor.block.beneath` wrote it before its turn.
    """

    fd: int = 0
    type: int = 0
    lseek_err_cnt: int = 0
    open_flags: int = 0
    fd_open_time: int = 0
    fd_error_time: int = 0
    fd_got_error: int = 0
    fd_media_changed: int = 0
    use_aio: int = 0
    aio_ctx: None = None
    aligned_buf: memoryview | None = None
    _ahead: range = range(0)


@traced
def raw_open_common(bs: BlockDriverState, filename: str, bdrv_flags: int, open_flags: int) -> int:
    """Open `filename` with the host's flags for a cache mode; 0 or -errno."""
    s: BDRVRawState = bs.opaque
    s.lseek_err_cnt = 0
    if bdrv_flags & BDRV_O_ACCESS == BDRV_O_RDWR:
        flags = open_flags & ~os.O_ACCMODE | os.O_RDWR
    else:
        flags = open_flags & ~os.O_ACCMODE | os.O_RDONLY
        bs.read_only = 1
    if bdrv_flags & BDRV_O_NOCACHE:
        flags |= os.O_DIRECT
    elif not bdrv_flags & BDRV_O_CACHE_WB:
        flags |= os.O_DSYNC
    s.open_flags = flags
    s.fd = -1
    if is_fifo(filename):
        return -errno.ESPIPE
    try:
        s.fd = qemu_open(filename, flags, 0o644)
    except OSError as error:
        return -errno.EACCES if error.errno == errno.EROFS else -(error.errno or errno.EIO)
    except ValueError:
        return -errno.ENOENT
    s.aligned_buf = None
    if bdrv_flags & BDRV_O_NOCACHE:
        s.aligned_buf = qemu_blockalign(bs, ALIGNED_BUFFER_SIZE)
        if bdrv_flags & BDRV_O_NATIVE_AIO:
            note("native-aio", "native AIO is not modelled: requests go to the worker threads (linux-aio.c)")
    if paio_init() < 0:
        close_fd(s.fd)
        return -errno.EMFILE
    s.use_aio = 0
    return 0


def is_fifo(filename: str) -> bool:
    """Whether opening would wait for somebody at the other end; it could not be read as a disk anyway."""
    try:
        return stat.S_ISFIFO(os.stat(filename).st_mode)
    except (OSError, ValueError):
        return False


@traced
def fd_open(bs: BlockDriverState) -> int:
    """See to it that a floppy is open: it is closed after a second and opened again when needed.

    Returns
    -------
    int
        0, or -EIO while there is none. Always 0 for what is no floppy.
    """
    s: BDRVRawState = bs.opaque
    if s.type != FTYPE_FD:
        return 0
    last_media_present = s.fd >= 0
    if s.fd >= 0 and linked.qemu_get_clock(linked.rt_clock) - s.fd_open_time >= FD_OPEN_TIMEOUT:
        close_fd(s.fd)
        s.fd = -1
    if s.fd < 0:
        if s.fd_got_error and linked.qemu_get_clock(linked.rt_clock) - s.fd_error_time < FD_OPEN_TIMEOUT:
            return -errno.EIO
        try:
            s.fd = qemu_open(bs.filename, s.open_flags & ~os.O_NONBLOCK)
        except OSError:
            s.fd_error_time = linked.qemu_get_clock(linked.rt_clock)
            s.fd_got_error = 1
            if last_media_present:
                s.fd_media_changed = 1
            return -errno.EIO
    if not last_media_present:
        s.fd_media_changed = 1
    s.fd_open_time = linked.qemu_get_clock(linked.rt_clock)
    s.fd_got_error = 0
    return 0


@traced
def raw_pread_aligned(bs: BlockDriverState, offset: int, buf: WriteBuffer, count: int) -> int:
    """Read at `offset`; with O_DIRECT all three must be aligned.

    Returns
    -------
    int
        The count read or -errno. What lies beyond the end of the file reads as zeros; behind the end of
        a file that may grow they count as read.
    """
    s: BDRVRawState = bs.opaque
    ret = fd_open(bs)
    if ret < 0:
        return ret
    if not 0 <= offset < 1 << 63:
        s.lseek_err_cnt += 1
        return -1
    view = memoryview(buf)[:count]
    try:
        ret = os.preadv(s.fd, [view], offset)
        for _ in range(2):
            if ret == count or bs.type != BDRV_TYPE_CDROM or (not ret and bs.growable):
                break
            ret = os.preadv(s.fd, [view], offset)
    except OSError as error:
        return -(error.errno or errno.EIO)
    if ret == 0 < count and not _can_seek(s.fd, offset):
        s.lseek_err_cnt += 1
        return -1
    if ret < count:
        # quirk: a short count is passed up as it is; C leaves stale memory behind it
        view[ret:] = bytes(count - ret)
        if ret == 0 and bs.growable and offset >= raw_getlength(bs):
            return count
        note("short-read", "a read reached past the end of a file; the rest is zeros here (raw-posix.c)")
    elif offset in s._ahead and bs.growable:
        raw_getlength(bs)  # as C does, which finds nothing here yet
    return ret


def _can_seek(fd: int, offset: int) -> bool:
    """Whether the file system has such offsets at all; C's lseek fails at others, preadv does not."""
    try:
        os.lseek(fd, offset, os.SEEK_SET)
    except OSError:
        return False
    return True


def peek(bs: BlockDriverState, sector_num: int, view: memoryview) -> int:
    """Read beneath the calls, as `BlockDriver` says."""
    view[:] = fetch(bs, sector_num * 512, len(view))
    return len(view)


@traced
def raw_pwrite_aligned(bs: BlockDriverState, offset: int, buf: ReadBuffer, count: int) -> int:
    """Write at `offset`; with O_DIRECT all three must be aligned. The count written or -errno."""
    s: BDRVRawState = bs.opaque
    ret = fd_open(bs)
    if ret < 0:
        return ret
    if not 0 <= offset < 1 << 63:
        s.lseek_err_cnt += 1
        return -errno.EIO
    view = memoryview(buf)[:count]
    done = 0
    try:
        # unlike C, which takes a short write on a full disk for success
        while done < count:
            done += os.pwrite(s.fd, view[done:] if done else view, offset + done)
    except OSError as error:
        return -(error.errno or errno.EIO)
    s._ahead = range(max(s._ahead.start, offset + done), s._ahead.stop)
    return done


@traced
def raw_pread(bs: BlockDriverState, offset: int, buf: WriteBuffer, count: int) -> int:
    """Read any bytes at any `offset`, through the aligned buffer where O_DIRECT needs it."""
    s: BDRVRawState = bs.opaque
    aligned = s.aligned_buf
    if aligned is None:
        return raw_pread_aligned(bs, offset, buf, count)
    view = memoryview(buf)[:count]
    done = 0
    shift = offset & 0x1FF
    if shift:
        size = min((shift + count + 0x1FF) & ~0x1FF, ALIGNED_BUFFER_SIZE)
        ret = raw_pread_aligned(bs, offset - shift, aligned, size)
        if ret < 0:
            return ret
        done = min(512 - shift, count)
        view[:done] = aligned[shift : shift + done]
        if done == count:
            return done
    if (count - done) & 0x1FF or address(view[done:]) & 0x1FF:
        while done < count:
            size = min((count - done + 0x1FF) & ~0x1FF, ALIGNED_BUFFER_SIZE)
            ret = raw_pread_aligned(bs, offset + done, aligned, size)
            if ret < 0:
                return ret
            if ret == 0:
                # unlike C, which would try for ever
                view[done:] = bytes(count - done)
                return done
            size = min(ret, count - done)
            view[done : done + size] = aligned[:size]
            done += size
        return done
    return _plus(done, raw_pread_aligned(bs, offset + done, view[done:], count - done))


def _plus(done: int, ret: int) -> int:
    return ret if ret < 0 else done + ret


@traced
def raw_read(bs: BlockDriverState, sector_num: int, buf: WriteBuffer, nb_sectors: int) -> int:
    """Read sectors; 0, -errno, or the short count when the file ends within them."""
    ret = raw_pread(bs, sector_num * 512, buf, nb_sectors * 512)
    return 0 if ret == nb_sectors * 512 else ret


@traced
def raw_pwrite(bs: BlockDriverState, offset: int, buf: ReadBuffer, count: int) -> int:
    """Write any bytes at any `offset`, through the aligned buffer where O_DIRECT needs it."""
    s: BDRVRawState = bs.opaque
    aligned = s.aligned_buf
    if aligned is None:
        return raw_pwrite_aligned(bs, offset, buf, count)
    view = memoryview(buf)[:count]
    done = 0
    shift = offset & 0x1FF
    if shift:
        ret = raw_pread_aligned(bs, offset - shift, aligned, 512)
        if ret < 0:
            return ret
        done = min(512 - shift, count)
        aligned[shift : shift + done] = view[:done]
        ret = raw_pwrite_aligned(bs, offset - shift, aligned, 512)
        if ret < 0:
            return ret
        if done == count:
            return done
    if (count - done) & 0x1FF or address(view[done:]) & 0x1FF:
        while size := min((count - done) & ~0x1FF, ALIGNED_BUFFER_SIZE):
            aligned[:size] = view[done : done + size]
            ret = raw_pwrite_aligned(bs, offset + done, aligned, size)
            if ret < 0:
                return ret
            done += ret
        if done < count:
            ret = raw_pread_aligned(bs, offset + done, aligned, 512)
            if ret < 0:
                return ret
            aligned[: count - done] = view[done:]
            ret = raw_pwrite_aligned(bs, offset + done, aligned, 512)
            if ret < 0:
                return ret
        return count
    return _plus(done, raw_pwrite_aligned(bs, offset + done, view[done:], count - done))


@traced
def raw_write(bs: BlockDriverState, sector_num: int, buf: ReadBuffer, nb_sectors: int) -> int:
    """Write sectors; 0 or -errno."""
    ret = raw_pwrite(bs, sector_num * 512, buf, nb_sectors * 512)
    return 0 if ret == nb_sectors * 512 else ret


@traced
def qiov_is_aligned(qiov: QEMUIOVector) -> int:
    """1 if every piece of memory begins at a multiple of 512."""
    return int(not any(address(piece.iov_base) % 512 for piece in (qiov.iov or [])[: qiov.niov]))


@traced
def raw_aio_submit(
    bs: BlockDriverState,
    sector_num: int,
    qiov: QEMUIOVector,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: Any,
    type: int,
) -> Any:
    """Give a read or write to the worker threads; None if there is no medium."""
    s: BDRVRawState = bs.opaque
    if fd_open(bs) < 0:
        return None
    if s.aligned_buf is not None and not qiov_is_aligned(qiov):
        type |= QEMU_AIO_MISALIGNED
    return paio_submit(bs, s.fd, sector_num, qiov, nb_sectors, cb, opaque, type)


@traced
def raw_aio_readv(
    bs: BlockDriverState,
    sector_num: int,
    qiov: QEMUIOVector,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: Any,
) -> Any:
    """Begin to read sectors."""
    return raw_aio_submit(bs, sector_num, qiov, nb_sectors, cb, opaque, QEMU_AIO_READ)


@traced
def raw_aio_writev(
    bs: BlockDriverState,
    sector_num: int,
    qiov: QEMUIOVector,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: Any,
) -> Any:
    """Begin to write sectors."""
    return raw_aio_submit(bs, sector_num, qiov, nb_sectors, cb, opaque, QEMU_AIO_WRITE)


@traced
def raw_aio_flush(bs: BlockDriverState, cb: BlockDriverCompletionFunc, opaque: Any) -> Any:
    """Begin to force what was written to the disk."""
    s: BDRVRawState = bs.opaque
    if fd_open(bs) < 0:
        return None
    return paio_submit(bs, s.fd, 0, None, 0, cb, opaque, QEMU_AIO_FLUSH)


@traced
def raw_close(bs: BlockDriverState) -> None:
    """Close the file."""
    s: BDRVRawState = bs.opaque
    if s.fd >= 0:
        close_fd(s.fd)
        s.fd = -1
        if s.aligned_buf is not None:
            qemu_vfree(s.aligned_buf)


@traced
def raw_getlength(bs: BlockDriverState) -> int:
    """The size in bytes, or negative."""
    s: BDRVRawState = bs.opaque
    ret = fd_open(bs)
    if ret < 0:
        return ret
    try:
        return os.lseek(s.fd, 0, os.SEEK_END)
    except OSError:
        return -1


@traced
def raw_flush(bs: BlockDriverState) -> None:
    """Force what was written to the disk; as in C, a failure is not told."""
    s: BDRVRawState = bs.opaque
    try:
        qemu_fdatasync(s.fd)
    except OSError as error:
        # quirk: bdrv_flush has no way to report this
        note("flush-error", f"fdatasync failed, and nobody is told: {error.strerror} (raw-posix.c)")
