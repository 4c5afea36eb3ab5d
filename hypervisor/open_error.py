"""Why an image did not open, in 7.2's words, and 7.2's names of cache modes.

The block layer of 0.12.4 gives nothing but an errno. QEMU 7.2 says which of the chain's
files is meant and what is wrong with it, and its tests compare that.

- `why_not_open(filename, code, fmt) -> str`
- `cache_flags(mode) -> int or None`
"""

import errno
import os

from hypervisor.block_int import BDRV_O_CACHE_WB, BDRV_O_NOCACHE
from hypervisor.wording import cause

_CACHE = {
    "none": BDRV_O_NOCACHE,
    "off": BDRV_O_NOCACHE,
    "directsync": BDRV_O_NOCACHE,
    "writeback": BDRV_O_CACHE_WB,
    "unsafe": BDRV_O_CACHE_WB,
    "writethrough": 0,
}


def cache_flags(mode: str) -> int | None:
    """Give the BDRV_O_* bits of a cache mode; None for an unknown one."""
    return _CACHE.get(mode)


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
    try:
        os.close(os.open(filename, os.O_RDONLY))
    except OSError as wrong:
        return f"Could not open '{filename}': {wrong.strerror}"
    if os.path.isdir(filename):
        return "A regular file was expected, but a directory was given"
    if fmt not in (None, "raw") and code in (-errno.EINVAL, -errno.EPERM):
        return f"Image is not in {fmt} format"
    return f"Could not open '{filename}': {cause(code)}"
