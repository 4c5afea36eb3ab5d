"""How the tools open images, and why one did not open in 7.2's words.

The block layer of 0.12.4 gives nothing but an errno. QEMU 7.2 says which of the chain's
files is meant and what is wrong with it, and its tests compare that.

- `why_not_open(filename, code, fmt) -> str`
- `explain(filename)`: the system's reason, under the words of 0.12.4.
- `complaints()`: hold back what drivers say on stderr, where 7.2 has one line for it all.
- `warn_if_guessed(bs, fmt)`: 7.2's warning about images without a known format.
- `open_quietly(filename, drv, read_only)`: open one file of a chain alone.
- `cache_flags(mode)`: the flags of a cache mode.
- `ragged(bs)`, `reaching(bs, end)`, `tail(bs)`: the last sector of a raw file whose length is odd.
"""

import contextlib
import errno
import io
import os
import re
import sys
from collections.abc import Iterator

from hypervisor.block import (
    after_protocol,
    bdrv_delete,
    bdrv_find_format,
    bdrv_getlength,
    bdrv_new,
    find_image_format,
    local_name,
    path_combine,
)
from hypervisor.block.bdrv_registry import drivers
from hypervisor.block.beneath import fetch_bytes
from hypervisor.block_int import BDRV_O_CACHE_WB, BDRV_O_NOCACHE, BDRV_O_RDWR, BlockDriver, BlockDriverState
from hypervisor.complaints import say
from hypervisor.wording import cause, modern

_MAX_L1_SIZE = (32 << 20) // 8
_CACHE = {
    "none": BDRV_O_NOCACHE,
    "off": BDRV_O_NOCACHE,
    "directsync": BDRV_O_NOCACHE,
    "writeback": BDRV_O_CACHE_WB,
    "unsafe": BDRV_O_CACHE_WB,
    "writethrough": 0,
}


def _odd_length(bs: BlockDriverState) -> int:
    """Give the length of a raw image's file if it ends within a sector, else 0."""
    if bs.drv is None or bs.drv.format_name != "raw":
        return 0
    size = os.fstat(bs.opaque.fd).st_size
    return size if size % 512 else 0


def ragged(bs: BlockDriverState) -> int:
    """1 if a raw image's file ends within a sector that counts; in 0.12.4 it does not."""
    return int(modern() and _odd_length(bs) > 0)


def tail(bs: BlockDriverState) -> bytes:
    """The bytes of a raw image's file behind its last whole sector."""
    size = _odd_length(bs)
    return fetch_bytes(bs, size - size % 512, size % 512) if size else b""


@contextlib.contextmanager
def reaching(bs: BlockDriverState, end: int, always: bool = False) -> Iterator[None]:
    """Let a request go on to byte `end`, within the sector in which a raw file ends; 0.12.4 refuses it."""
    size = _odd_length(bs) if always or modern() else 0
    start = size - size % 512
    if not size or not start < end <= start + 512:
        yield
        return
    growable, bs.growable = bs.growable, 1
    try:
        yield
    finally:
        bs.growable = growable


_GUESSED = """\
WARNING: Image format was not specified for '{}' and probing guessed raw.
         Automatically detecting the format is dangerous for raw images, write operations on block 0 \
will be restricted.
         Specify the 'raw' format explicitly to remove the restrictions."""


def warn_if_guessed(bs: BlockDriverState, fmt: str | None) -> None:
    """Say that an image to be written is taken for raw because nothing else was recognised."""
    if modern() and fmt is None and not bs.read_only and bs.drv and bs.drv.format_name == "raw":
        print(_GUESSED.format(bs.filename), file=sys.stderr)


def cache_flags(mode: str) -> int | None:
    """Give the BDRV_O_* bits of a cache mode; None for an unknown one."""
    return _CACHE.get(mode)


@contextlib.contextmanager
def complaints() -> Iterator[list[str]]:
    """Hold back what the drivers say on stderr, for 7.2 has one line for it all; give the lines.

    0.12.4's wording leaves them where they are.
    """
    lines: list[str] = []
    if not modern():
        yield lines
        return
    held = io.StringIO()
    try:
        with contextlib.redirect_stderr(held):
            yield lines
    except SystemExit:
        sys.stderr.write(held.getvalue())
        raise
    lines += held.getvalue().splitlines()


_LIMITS = (
    (r"cluster_bits is \d+, the", "Cluster size must be between 512 and 64k"),
    (r"l2_bits is", "L2 table size must be between 512 and 64k"),
    (r"size is \d+, needs an L1 table", "Image too large"),
    (r"the backing file name has", "Backing file name too long"),
)
"""What qcow.c's driver complains about, and how 7.2's says it."""


def _reason(filename: str, code: int, said: list[str]) -> str:
    """Turn a driver's complaint into the end of 7.2's message."""
    if not said:
        return f"Could not open '{filename}': {cause(code)}"
    needed = re.search(r"size \d+ needs (\d+)", said[0])
    if needed:
        return "Image is too big" if int(needed[1]) > _MAX_L1_SIZE else "L1 table is too small"
    text = said[0].partition(f"{filename}: ")[2] or said[0]
    if said[0].startswith("qcow: "):
        return next((words for pattern, words in _LIMITS if re.match(pattern, text)), text)
    return text


def open_quietly(filename: str, drv: BlockDriver, read_only: bool) -> tuple[int, BlockDriverState]:
    """Open an image without its backing file, as 7.2's BDRV_O_NO_BACKING does; 0 or -errno, and it."""
    filename = local_name(filename)
    bs = bdrv_new("")
    bs.drv, bs.filename = drv, filename
    bs.read_only = int(read_only)
    bs.opaque = drv.instance_size() if drv.instance_size else None
    assert drv.bdrv_open is not None
    ret = drv.bdrv_open(bs, filename, BDRV_O_CACHE_WB | (0 if read_only else BDRV_O_RDWR))
    if ret in (-errno.EACCES, -errno.EPERM) and not read_only:
        ret, read_only = drv.bdrv_open(bs, filename, BDRV_O_CACHE_WB), True
    bs.read_only = int(read_only)
    if ret < 0:
        bs.drv = None
    else:
        bs.total_sectors = bdrv_getlength(bs) // 512
    return ret, bs


def explain(filename: str) -> None:
    """Add to 0.12.4's message what the system has against opening a file, if that is the reason."""
    if modern():
        return
    protocol = filename[: after_protocol(filename)]
    if protocol and local_name(filename) == filename:
        if any(f"{drv.protocol_name}:" == protocol for drv in drivers()):
            return
        advice = f"for a file of that name say file:{filename}"
        say(f"studykvm: {filename}: {protocol} before the first slash is taken for a protocol; {advice}")
        return
    try:
        os.close(os.open(local_name(filename), os.O_RDONLY | os.O_NONBLOCK))
        if os.path.isdir(local_name(filename)):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as wrong:
        say(f"studykvm: {filename} does not open: {wrong.strerror}")


def why_not_open(filename: str, code: int, fmt: str | None) -> str:
    """Say why `filename` did not open.

    Parameters
    ----------
    filename : str
        The file, which may itself be fine while its backing file is not.
    code : int
        The negative errno that `bdrv_open2` gave.
    fmt : str or None
        The format that was asked for.
    """
    filename = local_name(filename)
    try:
        os.close(os.open(filename, os.O_RDONLY))
    except OSError as wrong:
        return f"Could not open '{filename}': {wrong.strerror}"
    if os.path.isdir(filename):
        return f"Could not open '{filename}': Is a directory" if fmt else "Is a directory"
    drv = bdrv_find_format(fmt) if fmt else find_image_format(filename)
    if drv is not None:
        with complaints() as said:
            ret, bs = open_quietly(filename, drv, True)
        if ret == 0:
            backing, backing_fmt = path_combine(1024, filename, bs.backing_file), bs.backing_format
            bdrv_delete(bs)
            if backing_fmt and bdrv_find_format(backing_fmt) is None:
                return f"Could not open backing file: Unknown driver '{backing_fmt}'"
            return f"Could not open backing file: {why_not_open(backing, code, backing_fmt or None)}"
        if said or drv.format_name != fmt:
            return _reason(filename, code, said)
    if fmt not in (None, "raw") and code in (-errno.EINVAL, -errno.EPERM):
        return f"Image is not in {fmt} format"
    return _reason(filename, code, [])
