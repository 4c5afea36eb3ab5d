"""Files and host devices as they are: block/raw-posix.c.

Four drivers share one state and most functions (`hypervisor.block.raw_posix_io`): ``raw``, which is also
the protocol under every format, and ``host_device``, ``host_floppy`` and ``host_cdrom``, found by the name
or the kind of the file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from typing import Any

from hypervisor.block.bdrv_aio import bdrv_register
from hypervisor.block.raw_posix_io import (
    FTYPE_CD,
    FTYPE_FD,
    FTYPE_FILE,
    BDRVRawState,
    fd_open,
    is_fifo,
    peek,
    raw_aio_flush,
    raw_aio_readv,
    raw_aio_writev,
    raw_close,
    raw_flush,
    raw_getlength,
    raw_open_common,
    raw_read,
    raw_write,
)
from hypervisor.block_int import (
    BDRV_O_CREAT,
    BLOCK_OPT_SIZE,
    BlockDriver,
    BlockDriverCompletionFunc,
    BlockDriverState,
)
from hypervisor.cutils import strstart
from hypervisor.module import block_init
from hypervisor.osdep import close_fd
from hypervisor.posix_aio_compat import paio_ioctl
from hypervisor.qemu_option_parameter import OPT_SIZE, QEMUOptionParameter
from tracer import symbol, traced

C_FILE = "block/raw-posix.c"

_FDEJECT = 0x025A
_CDROMEJECT = 0x5309
_CDROMCLOSETRAY = 0x5319
_CDROM_DRIVE_STATUS = 0x5326
_CDROM_LOCKDOOR = 0x5329
_CDSL_CURRENT = 0x7FFFFFFF
_CDS_DISC_OK = 4


@traced
def raw_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Open a file, made anew if the flags say BDRV_O_CREAT."""
    s: BDRVRawState = bs.opaque
    s.type = FTYPE_FILE
    open_flags = os.O_CREAT | os.O_TRUNC if flags & BDRV_O_CREAT else 0
    return raw_open_common(bs, filename, flags, open_flags)


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
def raw_create(filename: str, options: list[QEMUOptionParameter] | None) -> int:
    """Make a sparse file of the option ``size``, cut to whole sectors; 0 or -errno."""
    if is_fifo(filename):
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
        _peek=peek,
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
    if is_fifo(filename):
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
        _peek=peek,
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
