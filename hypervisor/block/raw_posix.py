"""Files and host devices as they are: block/raw-posix.c.

Four drivers share one state and most functions: ``raw`` (also the protocol under every format),
``host_device``, ``host_floppy`` and ``host_cdrom``, the last three found by the name or kind of the file.

::

    raw_read  ─► raw_pread  ─► raw_pread_aligned  ─► preadv     synchronous
    raw_aio_readv ─► raw_aio_submit ─► paio_submit               by a worker thread (posix_aio_compat)

With BDRV_O_NOCACHE the file is open with O_DIRECT; then what is not aligned to 512 bytes goes through
`aligned_buf`. The kernel's native AIO (``-k``) cannot be reached from Python: such requests go to
the worker threads too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from typing import Any

from hypervisor.block.bdrv_aio import bdrv_register, qemu_blockalign
from hypervisor.block_int import (
    BDRV_O_ACCESS,
    BDRV_O_CACHE_WB,
    BDRV_O_CREAT,
    BDRV_O_NATIVE_AIO,
    BDRV_O_NOCACHE,
    BDRV_O_RDWR,
    BDRV_TYPE_CDROM,
    BLOCK_OPT_SIZE,
    BlockDriver,
    BlockDriverCompletionFunc,
    BlockDriverState,
    ReadBuffer,
    WriteBuffer,
)
from hypervisor.cutils import QEMUIOVector, qemu_fdatasync, strstart
from hypervisor.module import block_init
from hypervisor.osdep import address, close_fd, qemu_open, qemu_vfree
from hypervisor.posix_aio_compat import (
    QEMU_AIO_FLUSH,
    QEMU_AIO_MISALIGNED,
    QEMU_AIO_READ,
    QEMU_AIO_WRITE,
    paio_init,
    paio_ioctl,
    paio_submit,
)
from hypervisor.program import linked
from hypervisor.qemu_option_parameter import OPT_SIZE, QEMUOptionParameter
from hypervisor.quirks import note
from tracer import Struct, symbol, traced

C_FILE = "block/raw-posix.c"

FTYPE_FILE = 0
FTYPE_CD = 1
FTYPE_FD = 2
ALIGNED_BUFFER_SIZE = 32 * 512
FD_OPEN_TIMEOUT = 1000

_FDEJECT = 0x025A
_CDROMEJECT = 0x5309
_CDROMCLOSETRAY = 0x5319
_CDROM_DRIVE_STATUS = 0x5326
_CDROM_LOCKDOOR = 0x5329
_CDSL_CURRENT = 0x7FFFFFFF
_CDS_DISC_OK = 4


class BDRVRawState(Struct):
    """An open file or device (block/raw-posix.c); times are in milliseconds."""

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
    if _is_fifo(filename):
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


def _is_fifo(filename: str) -> bool:
    """Whether opening would wait for somebody at the other end; it could not be read as a disk anyway."""
    try:
        return stat.S_ISFIFO(os.stat(filename).st_mode)
    except (OSError, ValueError):
        return False


@traced
def raw_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Open a file, made anew if the flags say BDRV_O_CREAT."""
    s: BDRVRawState = bs.opaque
    s.type = FTYPE_FILE
    open_flags = os.O_CREAT | os.O_TRUNC if flags & BDRV_O_CREAT else 0
    return raw_open_common(bs, filename, flags, open_flags)


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
    if ret < count:
        # quirk: a short count is passed up as it is; C leaves stale memory behind it
        view[ret:] = bytes(count - ret)
        if ret == 0 and bs.growable and offset >= raw_getlength(bs):
            return count
        note("short-read", "a read reached past the end of a file; the rest is zeros here (raw-posix.c)")
    return ret


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
def raw_truncate(bs: BlockDriverState, offset: int) -> int:
    """Cut or extend a file to `offset` bytes."""
    s: BDRVRawState = bs.opaque
    if s.type != FTYPE_FILE:
        return -errno.ENOTSUP
    try:
        os.ftruncate(s.fd, offset)
    except OSError as error:
        return -(error.errno or errno.EIO)
    except OverflowError:
        return -errno.EFBIG
    return 0


@traced
def raw_getlength(bs: BlockDriverState) -> int:
    """The size in bytes, or negative."""
    s: BDRVRawState = bs.opaque
    fd = s.fd
    ret = fd_open(bs)
    if ret < 0:
        return ret
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    except OSError:
        return -1


@traced
def raw_create(filename: str, options: list[QEMUOptionParameter] | None) -> int:
    """Make a sparse file of the option ``size``, cut to whole sectors; 0 or -errno."""
    if _is_fifo(filename):
        return -errno.ESPIPE
    try:
        fd = os.open(filename, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(fd, _size_option(options))
        finally:
            os.close(fd)
    except OSError as error:
        return -(error.errno or errno.EIO)
    except OverflowError:
        return -errno.EFBIG
    except ValueError:
        return -errno.ENOENT
    return 0


def _size_option(options: list[QEMUOptionParameter] | None) -> int:
    sizes = [option.n for option in options or [] if option.name == BLOCK_OPT_SIZE]
    return sizes[-1] // 512 * 512 if sizes else 0


@traced
def raw_flush(bs: BlockDriverState) -> None:
    """Force what was written to the disk; as in C, a failure is not told."""
    s: BDRVRawState = bs.opaque
    try:
        qemu_fdatasync(s.fd)
    except OSError as error:
        # quirk: bdrv_flush has no way to report this
        note("flush-error", f"fdatasync failed, and nobody is told: {error.strerror} (raw-posix.c)")


raw_create_options = [QEMUOptionParameter(name=BLOCK_OPT_SIZE, type=OPT_SIZE, help="Virtual disk size")]

bdrv_raw = symbol(
    BlockDriver(
        format_name="raw",
        instance_size=BDRVRawState,
        bdrv_open=raw_open,
        bdrv_read=raw_read,
        bdrv_write=raw_write,
        bdrv_close=raw_close,
        bdrv_create=raw_create,
        bdrv_flush=raw_flush,
        bdrv_aio_readv=raw_aio_readv,
        bdrv_aio_writev=raw_aio_writev,
        bdrv_aio_flush=raw_aio_flush,
        bdrv_truncate=raw_truncate,
        bdrv_getlength=raw_getlength,
        create_options=raw_create_options,
    ),
    "bdrv_raw",
)


@traced
def hdev_probe_device(filename: str) -> int:
    """100 for a device node, 50 for /dev/cdrom*, which host_cdrom may claim with more."""
    if strstart(filename, "/dev/cdrom")[0]:
        return 50
    try:
        mode = os.stat(filename).st_mode
    except (OSError, ValueError):
        return 0
    return 100 if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0


@traced
def hdev_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Open a host device."""
    s: BDRVRawState = bs.opaque
    s.type = FTYPE_FILE
    if strstart(filename, "/dev/sg")[0]:
        bs.sg = 1
    return raw_open_common(bs, filename, flags, 0)


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
def hdev_ioctl(bs: BlockDriverState, req: int, buf: Any) -> int:
    """Pass a request to the device; its result or -errno."""
    s: BDRVRawState = bs.opaque
    return _ioctl(s.fd, req, buf)


def _ioctl(fd: int, req: int, buf: Any = 0) -> int:
    try:
        ret = fcntl.ioctl(fd, req, buf)
    except OSError as error:
        return -(error.errno or errno.EIO)
    return ret if isinstance(ret, int) else 0


@traced
def hdev_aio_ioctl(
    bs: BlockDriverState, req: int, buf: Any, cb: BlockDriverCompletionFunc, opaque: Any
) -> Any:
    """Begin to pass a request to the device."""
    s: BDRVRawState = bs.opaque
    if fd_open(bs) < 0:
        return None
    return paio_ioctl(bs, s.fd, req, buf, cb, opaque)


@traced
def hdev_create(filename: str, options: list[QEMUOptionParameter] | None) -> int:
    """Check that an existing device is large enough: 0, -EIO or -ENOSPC."""
    if _is_fifo(filename):
        return -errno.EIO
    try:
        fd = os.open(filename, os.O_WRONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return -errno.EIO
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISBLK(mode) and not stat.S_ISCHR(mode):
            return -errno.EIO
        return -errno.ENOSPC if os.lseek(fd, 0, os.SEEK_END) < _size_option(options) else 0
    except OSError:
        return -errno.EIO
    finally:
        os.close(fd)


def _host_driver(name: str, **functions: Any) -> BlockDriver:
    driver = BlockDriver(
        format_name=name,
        instance_size=BDRVRawState,
        bdrv_close=raw_close,
        bdrv_create=hdev_create,
        create_options=raw_create_options,
        no_zero_init=1,
        bdrv_flush=raw_flush,
        bdrv_aio_readv=raw_aio_readv,
        bdrv_aio_writev=raw_aio_writev,
        bdrv_aio_flush=raw_aio_flush,
        bdrv_read=raw_read,
        bdrv_write=raw_write,
        bdrv_getlength=raw_getlength,
        **functions,
    )
    return symbol(driver, f"bdrv_{name}")


bdrv_host_device = _host_driver(
    "host_device",
    bdrv_probe_device=hdev_probe_device,
    bdrv_open=hdev_open,
    bdrv_ioctl=hdev_ioctl,
    bdrv_aio_ioctl=hdev_aio_ioctl,
)


@traced
def floppy_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Open a floppy drive, which need not hold a disk, and close it again until it is read."""
    s: BDRVRawState = bs.opaque
    s.type = FTYPE_FD
    ret = raw_open_common(bs, filename, flags, os.O_NONBLOCK)
    if ret:
        return ret
    close_fd(s.fd)
    s.fd = -1
    s.fd_media_changed = 1
    return 0


@traced
def floppy_probe_device(filename: str) -> int:
    """100 for /dev/fd*."""
    return 100 if strstart(filename, "/dev/fd")[0] else 0


@traced
def floppy_is_inserted(bs: BlockDriverState) -> int:
    """1 if a disk can be opened."""
    return int(fd_open(bs) >= 0)


@traced
def floppy_media_changed(bs: BlockDriverState) -> int:
    """1 if the disk was out since this was last asked."""
    s: BDRVRawState = bs.opaque
    fd_open(bs)
    ret = s.fd_media_changed
    s.fd_media_changed = 0
    return ret


@traced
def floppy_eject(bs: BlockDriverState, eject_flag: int) -> int:
    """Have the drive let go of the disk."""
    s: BDRVRawState = bs.opaque
    if s.fd >= 0:
        close_fd(s.fd)
        s.fd = -1
    try:
        fd = os.open(bs.filename, s.open_flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    _complain("FDEJECT", _ioctl(fd, _FDEJECT))
    os.close(fd)
    return 0


def _complain(what: str, ret: int) -> None:
    if ret < 0:
        print(f"{what}: {os.strerror(-ret)}", file=sys.stderr)


bdrv_host_floppy = _host_driver(
    "host_floppy",
    bdrv_probe_device=floppy_probe_device,
    bdrv_open=floppy_open,
    bdrv_is_inserted=floppy_is_inserted,
    bdrv_media_changed=floppy_media_changed,
    bdrv_eject=floppy_eject,
)


@traced
def cdrom_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Open a CD drive, which need not hold a disc."""
    s: BDRVRawState = bs.opaque
    s.type = FTYPE_CD
    return raw_open_common(bs, filename, flags, os.O_NONBLOCK)


@traced
def cdrom_probe_device(filename: str) -> int:
    """100 for /dev/cd*."""
    return 100 if strstart(filename, "/dev/cd")[0] else 0


@traced
def cdrom_is_inserted(bs: BlockDriverState) -> int:
    """1 if the drive says that it holds a disc."""
    s: BDRVRawState = bs.opaque
    return int(_ioctl(s.fd, _CDROM_DRIVE_STATUS, _CDSL_CURRENT) == _CDS_DISC_OK)


@traced
def cdrom_eject(bs: BlockDriverState, eject_flag: int) -> int:
    """Open or close the tray."""
    s: BDRVRawState = bs.opaque
    _complain("CDROMEJECT", _ioctl(s.fd, _CDROMEJECT if eject_flag else _CDROMCLOSETRAY))
    return 0


@traced
def cdrom_set_locked(bs: BlockDriverState, locked: int) -> int:
    """Lock the door; an error is expected where the host has the disc mounted."""
    s: BDRVRawState = bs.opaque
    _ioctl(s.fd, _CDROM_LOCKDOOR, locked)
    return 0


bdrv_host_cdrom = _host_driver(
    "host_cdrom",
    bdrv_probe_device=cdrom_probe_device,
    bdrv_open=cdrom_open,
    bdrv_is_inserted=cdrom_is_inserted,
    bdrv_eject=cdrom_eject,
    bdrv_set_locked=cdrom_set_locked,
    bdrv_ioctl=hdev_ioctl,
    bdrv_aio_ioctl=hdev_aio_ioctl,
)


@traced
def bdrv_raw_init() -> None:
    """Register the four drivers; the last one is probed first."""
    bdrv_register(bdrv_raw)
    bdrv_register(bdrv_host_device)
    bdrv_register(bdrv_host_floppy)
    bdrv_register(bdrv_host_cdrom)


block_init(bdrv_raw_init)
