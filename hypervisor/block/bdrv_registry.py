"""block.c, part one: the drivers, the named devices, and names of files and protocols.

- ``statics``: block.c's static variables: ``bdrv_first`` heads the named devices, ``first_drv`` the
  drivers, the last registered first, which is the order of probing
- ``bdrv_new``, ``bdrv_find``, ``bdrv_iterate``: devices
- ``bdrv_find_format``, ``bdrv_iterate_format``, ``find_protocol``, ``find_hdev_driver``: drivers
- ``path_combine``, ``get_tmp_filename``: names
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from hypervisor import icount
from hypervisor.block_int import BlockDriver, BlockDriverState
from hypervisor.cutils import pstrcat, pstrcpy
from hypervisor.module import MODULE_INIT_BLOCK, module_call_init
from hypervisor.program import on_exit, on_reset
from hypervisor.qemu_option_parameter import QEMUOptionParameter
from tracer import Struct, symbol, traced

C_FILE = "block.c"

CONFIG_BDRV_WHITELIST: tuple[str, ...] = ()
"""Formats the emulator may open, as configure was told; empty, as usual, means all."""


class BlockStatics(Struct):
    """The static variables of block.c."""

    bdrv_first: BlockDriverState | None = None
    first_drv: BlockDriver | None = None
    use_bdrv_whitelist: int = 0


statics = symbol(BlockStatics(), "block.c")
_temporary: set[str] = set()


@on_reset
def _reset() -> None:
    statics.bdrv_first = None
    statics.first_drv = None
    statics.use_bdrv_whitelist = 0


@on_exit
def _remove_temporary_files() -> None:
    for filename in list(_temporary):
        remove_temporary(filename)


def drivers() -> Iterator[BlockDriver]:
    """The registered drivers in the order of probing."""
    drv = statics.first_drv
    while drv is not None:
        yield drv
        drv = drv.next


def devices() -> Iterator[BlockDriverState]:
    """The named devices in the order of their creation."""
    bs = statics.bdrv_first
    while bs is not None:
        yield bs
        bs = bs.next


def after_protocol(filename: str) -> int:
    """Where a name begins behind its protocol's colon; 0 without one.

    A colon behind a slash is part of a name, as later versions have it; for 0.12.4 the first colon is one.

    >>> after_protocol("nbd:localhost:10809"), after_protocol("./a:b.img"), after_protocol("disk.img")
    (4, 0, 0)
    """
    return filename.partition("/")[0].find(":") + 1


def local_name(filename: str) -> str:
    """The name that ``file:`` stands before, as later versions take it; others as they are.

    >>> local_name("file:/images/a.img"), local_name("file:a:b.img"), local_name("fat:dir")
    ('/images/a.img', './a:b.img', 'fat:dir')
    """
    name = filename.removeprefix("file:")
    return f"./{name}" if name != filename and after_protocol(name) else name


@traced
def path_is_absolute(path: str) -> int:
    """1 if what follows a protocol, or the whole `path` without one, begins with a slash."""
    return int(path[after_protocol(path) :].startswith("/"))


@traced
def path_combine(dest_size: int, base_path: str, filename: str) -> str:
    """`filename` as seen from the folder of `base_path`, cut to `dest_size`; protocols are kept.

    A `filename` with a protocol is left alone, as later versions do; 0.12.4 puts the folder before it.

    Examples
    --------
    >>> path_combine(1024, "/images/overlay.img", "base.img")
    '/images/base.img'
    >>> path_combine(1024, "fat:overlay.img", "base.img")
    'fat:base.img'
    """
    if path_is_absolute(filename) or after_protocol(filename):
        return pstrcpy(dest_size, filename)
    base_path = local_name(base_path)
    start = max(after_protocol(base_path), base_path.rfind("/") + 1)
    return pstrcat(base_path[:start][: dest_size - 1], dest_size, filename)


@traced
def bdrv_new(device_name: str) -> BlockDriverState:
    """A state without a medium; with a name it joins the end of the device list."""
    bs = BlockDriverState()
    bs.device_name = pstrcpy(32, device_name)
    if device_name:
        last = None
        for last in devices():  # noqa: B007
            pass
        if last is None:
            statics.bdrv_first = bs
        else:
            last.next = bs
    return bs


def forget_device(bs: BlockDriverState) -> None:
    """Take `bs` off the device list, if it is on it."""
    if statics.bdrv_first is bs:
        statics.bdrv_first = bs.next
    for before in devices():
        if before.next is bs:
            before.next = bs.next


@traced
def bdrv_find_format(format_name: str) -> BlockDriver | None:
    """The driver of that name."""
    for drv1 in drivers():
        if drv1.format_name == format_name:
            return drv1
    return None


@traced
def bdrv_is_whitelisted(drv: BlockDriver) -> int:
    """1 if the emulator may use `drv`."""
    return int(not CONFIG_BDRV_WHITELIST or drv.format_name in CONFIG_BDRV_WHITELIST)


@traced
def bdrv_find_whitelisted_format(format_name: str) -> BlockDriver | None:
    """The driver of that name, if the emulator may use it."""
    drv = bdrv_find_format(format_name)
    return drv if drv is not None and bdrv_is_whitelisted(drv) else None


@traced
def bdrv_create(drv: BlockDriver, filename: str, options: list[QEMUOptionParameter] | None) -> int:
    """Make an image file; -ENOTSUP for a format that cannot."""
    if drv.bdrv_create is None:
        return -errno.ENOTSUP
    return drv.bdrv_create(local_name(filename), options)


@traced
def get_tmp_filename(size: int) -> str:
    """The name of a new private file under $TMPDIR or /tmp, removed when the program ends.

    Raises
    ------
    OSError
        When no file can be made there; C does not look.
    """
    folder = os.environ.get("TMPDIR") or "/tmp"
    if icount.enabled():
        filename = _first_free(folder)
    else:
        fd, filename = tempfile.mkstemp(prefix="vl.", dir=folder)
        os.close(fd)
    _temporary.add(filename)
    return filename


def _first_free(folder: str) -> str:
    """Make the first file that is not there yet: where instructions are counted, names repeat, too."""
    for number in itertools.count():
        filename = os.path.join(folder, f"vl.{number:06}")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(filename, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            break
    return filename


def remove_temporary(filename: str) -> None:
    """Unlink a file of `get_tmp_filename`; what has it open keeps it."""
    _temporary.discard(filename)
    with contextlib.suppress(OSError):
        os.unlink(filename)


@traced
def find_protocol(filename: str) -> BlockDriver | None:
    """The driver of the protocol before the first colon; without one, and for ``file:``, raw."""
    filename = local_name(filename)
    protocol = filename[: after_protocol(filename)].removesuffix(":")
    if not after_protocol(filename):
        return bdrv_find_format("raw")
    for drv1 in drivers():
        if drv1.protocol_name and drv1.protocol_name == protocol[:127]:
            return drv1
    return None


@traced
def find_hdev_driver(filename: str) -> BlockDriver | None:
    """The host-device driver that claims `filename` with the highest score."""
    score_max = 0
    drv = None
    for d in drivers():
        if d.bdrv_probe_device is not None:
            score = d.bdrv_probe_device(filename)
            if score > score_max:
                score_max = score
                drv = d
    return drv


@traced
def bdrv_iterate_format(it: Callable[[Any, str], None], opaque: Any) -> None:
    """Call ``it(opaque, name)`` for every driver."""
    for drv in drivers():
        it(opaque, drv.format_name)


@traced
def bdrv_find(name: str) -> BlockDriverState | None:
    """The device of that name."""
    for bs in devices():
        if bs.device_name == name:
            return bs
    return None


@traced
def bdrv_iterate(it: Callable[[Any, BlockDriverState], None], opaque: Any) -> None:
    """Call ``it(opaque, bs)`` for every device."""
    for bs in devices():
        it(opaque, bs)


@traced
def bdrv_get_device_name(bs: BlockDriverState) -> str:
    """The device's name; empty for a file under another."""
    return bs.device_name


@traced
def bdrv_init() -> None:
    """Have every block driver register itself."""
    module_call_init(MODULE_INIT_BLOCK)


@traced
def bdrv_init_with_whitelist() -> None:
    """`bdrv_init`, with the emulator's restriction to whitelisted formats."""
    statics.use_bdrv_whitelist = 1
    bdrv_init()
