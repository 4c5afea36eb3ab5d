"""block.c, part four: opening, probing and closing images.

`bdrv_open2` decides which driver an image gets, opens it, and opens its backing file the same way, into
a state of its own::

    bdrv_open2(top) ─ find_hdev_driver ─ find_image_format ─ drv.bdrv_open ─ bdrv_open2(backing) ─ ...

A backing file that is already open further up the chain is refused with -ELOOP (C opens it again and
again until it is out of memory), and so is a chain longer than `MAX_CHAIN`.
"""

from __future__ import annotations

import errno
import os
import sys

from hypervisor.block.bdrv_io import bdrv_getlength, bdrv_pread
from hypervisor.block.bdrv_registry import (
    bdrv_create,
    bdrv_find_format,
    bdrv_is_whitelisted,
    bdrv_new,
    drivers,
    find_hdev_driver,
    find_protocol,
    forget_device,
    get_tmp_filename,
    local_name,
    path_combine,
    remove_temporary,
    statics,
)
from hypervisor.block_int import (
    BDRV_O_CACHE_MASK,
    BDRV_O_CACHE_WB,
    BDRV_O_FILE,
    BDRV_O_NATIVE_AIO,
    BDRV_O_NOCACHE,
    BDRV_O_RDONLY,
    BDRV_O_RDWR,
    BDRV_O_SNAPSHOT,
    BDRV_SECTOR_BITS,
    BLOCK_OPT_BACKING_FILE,
    BLOCK_OPT_BACKING_FMT,
    BLOCK_OPT_SIZE,
    BlockDriver,
    BlockDriverState,
)
from hypervisor.cutils import pstrcpy
from hypervisor.program import on_reset
from hypervisor.qemu_option_parameter import (
    parse_option_parameters,
    set_option_parameter,
    set_option_parameter_int,
)
from hypervisor.quirks import note
from tracer import Struct, free, traced

C_FILE = "block.c"

PATH_MAX = 4096
MAX_CHAIN = 256
"""How many backing files may stand behind an image."""

_PROBE_SIZE = 2048
_chain: list[tuple[int, int] | str] = []
_explained: list[str] = []


@on_reset
def _reset() -> None:
    _chain.clear()
    _explained.clear()


@traced
def find_image_format(filename: str) -> BlockDriver | None:
    """The driver whose probe scores highest on the first 2048 bytes; the protocol's if none knows them."""
    drv = find_protocol(filename)
    if drv is not None and drv.format_name == "vvfat":
        return drv
    ret, bs = bdrv_file_open(filename, BDRV_O_RDONLY)
    if bs is None:
        return None
    buf = bytearray(_PROBE_SIZE)
    ret = bdrv_pread(bs, 0, buf, _PROBE_SIZE)
    bdrv_delete(bs)
    if ret < 0:
        return None
    scores = {f.format_name: f.bdrv_probe(buf, ret, filename) for f in drivers() if f.bdrv_probe is not None}
    best = max(scores.values(), default=0)
    if best > 0:
        return next(f for f in drivers() if scores.get(f.format_name) == best)
    # quirk: bad magic is no error
    note("probe-raw", "no format claims an image: it is taken as raw, whatever it holds (block.c)")
    return drv


@traced
def bdrv_file_open(filename: str, flags: int) -> tuple[int, BlockDriverState | None]:
    """Open a file by its protocol alone, allowed to grow: (0, state) or (-errno, None)."""
    bs = bdrv_new("")
    ret = bdrv_open2(bs, filename, flags | BDRV_O_FILE, None)
    if ret < 0:
        bdrv_delete(bs)
        return ret, None
    bs.growable = 1
    return 0, bs


@traced
def bdrv_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Open an image, its format found by probing; 0 or -errno."""
    return bdrv_open2(bs, filename, flags, None)


@traced
def bdrv_open2(bs: BlockDriverState, filename: str, flags: int, drv: BlockDriver | None) -> int:
    """Open an image and its backing files into `bs`.

    Parameters
    ----------
    flags
        BDRV_O_*. Without BDRV_O_FILE the image is opened read-write, whatever the flags say, unless
        ``bs.read_only`` is set; when that is not permitted, read-only.
    drv
        The format, or None to find it out.

    Returns
    -------
    int
        0, or -errno with nothing left open.
    """
    filename = local_name(filename)
    bs.is_temporary = 0
    bs.encrypted = 0
    bs.valid_key = 0
    bs.buffer_alignment = 512
    # unlike C: what the last medium had for a backing file is not this one's
    if bs.backing_file or bs.backing_hd is not None:
        bs.backing_file = bs.backing_format = ""
        bs.backing_hd = None

    if flags & BDRV_O_SNAPSHOT:
        ret, filename, drv = _make_overlay(filename, drv)
        if ret < 0:
            return ret
        bs.is_temporary = 1

    bs.filename = pstrcpy(1024, filename)
    if flags & BDRV_O_FILE:
        drv = find_protocol(filename)
    elif drv is None:
        drv = find_hdev_driver(filename) or find_image_format(filename)
    if drv is None:
        return -errno.ENOENT
    bs.drv = drv
    bs.opaque = drv.instance_size() if drv.instance_size is not None else None
    if flags & (BDRV_O_CACHE_WB | BDRV_O_NOCACHE):
        bs.enable_write_cache = 1

    if flags & BDRV_O_FILE:
        open_flags = flags & ~(BDRV_O_FILE | BDRV_O_SNAPSHOT)
    else:
        try_rw = not bs.read_only or bs.is_temporary
        open_flags = (BDRV_O_RDWR if try_rw else 0) | flags & (BDRV_O_CACHE_MASK | BDRV_O_NATIVE_AIO)
    ret = _open_driver(bs, drv, filename, flags, open_flags)
    if ret < 0:
        bs.opaque = None
        bs.drv = None
        if bs.is_temporary:
            remove_temporary(filename)
        return ret
    if drv.bdrv_getlength is not None:
        bs.total_sectors = bdrv_getlength(bs) >> BDRV_SECTOR_BITS
    if bs.is_temporary:
        remove_temporary(filename)
    if bs.backing_file:
        ret = _open_backing(bs, filename, open_flags)
        if ret < 0:
            bdrv_close(bs)
            return ret

    if not bdrv_key_required(bs):
        bs.media_changed = 1
        if bs.change_cb is not None:
            bs.change_cb(bs.change_opaque)
    return 0


def _make_overlay(filename: str, drv: BlockDriver | None) -> tuple[int, str, BlockDriver | None]:
    """Make the temporary qcow2 overlay of ``-snapshot``: 0 or -errno, its name and its driver."""
    bs1 = bdrv_new("")
    ret = bdrv_open2(bs1, filename, 0, drv)
    if ret < 0:
        bdrv_delete(bs1)
        return ret, filename, drv
    total_size = bdrv_getlength(bs1) >> BDRV_SECTOR_BITS
    is_protocol = bs1.drv is not None and bs1.drv.protocol_name
    bdrv_delete(bs1)
    try:
        tmp_filename = get_tmp_filename(PATH_MAX)
    except OSError as error:
        print(f"cannot make a temporary overlay: {error.strerror}; set TMPDIR", file=sys.stderr)
        return -(error.errno or errno.EIO), filename, drv
    backing_filename = filename if is_protocol else os.path.realpath(filename)
    bdrv_qcow2 = bdrv_find_format("qcow2")
    assert bdrv_qcow2 is not None
    options = parse_option_parameters("", bdrv_qcow2.create_options, None)
    set_option_parameter_int(options, BLOCK_OPT_SIZE, total_size * 512)
    set_option_parameter(options, BLOCK_OPT_BACKING_FILE, backing_filename)
    if drv is not None:
        set_option_parameter(options, BLOCK_OPT_BACKING_FMT, drv.format_name)
    ret = bdrv_create(bdrv_qcow2, tmp_filename, options)
    if ret < 0:
        remove_temporary(tmp_filename)
    return ret, tmp_filename, bdrv_qcow2


def _open_driver(bs: BlockDriverState, drv: BlockDriver, filename: str, flags: int, open_flags: int) -> int:
    """Let the driver open the image, a second time without RDWR if that was not permitted."""
    assert drv.bdrv_open is not None
    if statics.use_bdrv_whitelist and not bdrv_is_whitelisted(drv):
        return -errno.ENOTSUP
    ret = drv.bdrv_open(bs, filename, open_flags)
    if ret in (-errno.EACCES, -errno.EPERM) and not flags & BDRV_O_FILE:
        if ret == -errno.EPERM:
            # quirk: a driver's -1, "not my format", reads as EPERM
            note(
                "eperm-retry",
                "a refused image is opened a second time, read-only: -1 reads as EPERM (block.c)",
            )
        ret = drv.bdrv_open(bs, filename, open_flags & ~BDRV_O_RDWR)
        bs.read_only = 1
    return ret


def _open_backing(bs: BlockDriverState, filename: str, open_flags: int) -> int:
    backing = bs.backing_hd = bdrv_new("")
    backing.read_only = bs.read_only
    backing_filename = path_combine(PATH_MAX, filename, bs.backing_file)
    back_drv = bdrv_find_format(bs.backing_format) if bs.backing_format else None
    if not _chain:
        _explained.clear()
    _chain.append(_identity(filename))
    try:
        if _identity(backing_filename) in _chain:
            print(f"{bs.filename}: its backing file {backing_filename} leads back to it", file=sys.stderr)
            _explained.append(backing_filename)
            return -errno.ELOOP
        if len(_chain) > MAX_CHAIN:
            print(
                f"{bs.filename}: more than {MAX_CHAIN} backing files in a row; commit some", file=sys.stderr
            )
            _explained.append(backing_filename)
            return -errno.ELOOP
        ret = bdrv_open2(backing, backing_filename, open_flags, back_drv)
        if ret < 0:
            _explain(bs, filename, backing_filename, ret)
        return ret
    finally:
        _chain.pop()


def _explain(bs: BlockDriverState, filename: str, backing_filename: str, ret: int) -> None:
    """Name the file of a chain that does not open: 0.12.4 names the overlay, and says no more.

    Of a chain the innermost is told, which is asked first.
    """
    if not _explained:
        why = f"{filename} needs its backing file {backing_filename}, which does not open"
        advice = "put it there"
        if bs.drv is not None and bs.drv.format_name == "qcow2":
            advice += f", or name another: studykvm img rebase -u -F FORMAT -b FILE {filename}"
        print(f"studykvm: {why}: {os.strerror(-ret)}; {advice}", file=sys.stderr)
    _explained.append(backing_filename)


def _identity(filename: str) -> tuple[int, int] | str:
    """What tells a file from others: device and inode, or the name of what has none."""
    try:
        status = os.stat(local_name(filename))
    except (OSError, ValueError):
        return filename
    return status.st_dev, status.st_ino


@traced
def bdrv_close(bs: BlockDriverState) -> None:
    """Close the medium and its backing files; the device stays."""
    if bs.drv is None:
        return
    if bs.backing_hd is not None:
        bdrv_delete(bs.backing_hd)
    assert bs.drv.bdrv_close is not None
    bs.drv.bdrv_close(bs)
    if isinstance(bs.opaque, Struct):
        free(bs.opaque)
    bs.opaque = None
    bs.drv = None
    bs.media_changed = 1
    if bs.change_cb is not None:
        bs.change_cb(bs.change_opaque)


@traced
def bdrv_delete(bs: BlockDriverState) -> None:
    """Close and forget a device or file."""
    forget_device(bs)
    bdrv_close(bs)
    free(bs)


@traced
def bdrv_key_required(bs: BlockDriverState) -> int:
    """1 if the image or its backing file is encrypted and still lacks its key."""
    backing_hd = bs.backing_hd
    if backing_hd is not None and backing_hd.encrypted and not backing_hd.valid_key:
        return 1
    return int(bs.encrypted and not bs.valid_key)


@traced
def bdrv_set_key(bs: BlockDriverState, key: str) -> int:
    """Give the image, and its backing file, the key of its encryption; 0 or negative."""
    if bs.backing_hd is not None and bs.backing_hd.encrypted:
        ret = bdrv_set_key(bs.backing_hd, key)
        if ret < 0 or not bs.encrypted:
            return min(ret, 0)
    if not bs.encrypted or bs.drv is None or bs.drv.bdrv_set_key is None:
        return -1
    ret = bs.drv.bdrv_set_key(bs, key)
    if ret < 0:
        bs.valid_key = 0
    elif not bs.valid_key:
        bs.valid_key = 1
        bs.media_changed = 1
        if bs.change_cb is not None:
            bs.change_cb(bs.change_opaque)
    return ret
