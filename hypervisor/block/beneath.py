"""Reads and writes beneath the recorded calls, straight to an image's file; ours, nothing of it is in C.

0.12.4 writes some things in an order that a killed program does not survive. Its calls are kept as they are;
what the disk must hold before they come is written here.

- `fetch(hd, offset, length)`: whole sectors as they are on the disk
- `settle(hd, offset, data)`: have whole sectors on the disk now
- `settle_bytes(hd, offset, data)`: the same for any bytes, which keep the rest of their sectors

`hd` is the state of the file under a format. All raise OSError.
"""

from __future__ import annotations

import errno
import mmap
import os

from hypervisor.block_int import BlockDriverState


def descriptor(hd: BlockDriverState) -> int:
    """The file descriptor of an image's file."""
    fd: int = hd.opaque.fd
    return fd


def fetch(hd: BlockDriverState, offset: int, length: int) -> memoryview:
    """`length` bytes at `offset`; zeros behind the end of the file."""
    if offset >> 63:
        raise OSError(errno.EIO, f"a table is said to be at {offset:#x}")
    view = _aligned(length)
    done = 0
    while done < length:
        got = os.preadv(descriptor(hd), [view[done:]], offset + done)
        if not got:
            break
        done += got
    return view


def settle(hd: BlockDriverState, offset: int, data: bytes | bytearray | memoryview) -> None:
    """Have `data`, whole sectors, on the disk at `offset`."""
    view = _aligned(len(data))
    view[:] = data
    while view:
        done = os.pwritev(descriptor(hd), [view], offset)
        view = view[done:]
        offset += done


def settle_bytes(hd: BlockDriverState, offset: int, data: bytes) -> None:
    """Have `data`, which the format is about to write, on the disk at any `offset`.

    If that makes the file longer, reads behind its old end make the calls they would have made, until the
    format has written there.
    """
    length = os.fstat(descriptor(hd)).st_size
    start, end = offset & ~511, (offset + len(data) + 511) & ~511
    sectors = fetch(hd, start, end - start)
    sectors[offset - start :][: len(data)] = data
    settle(hd, start, sectors)
    hd.opaque._ahead = range(length, end)


def _aligned(length: int) -> memoryview:
    """Zeroed memory at a page boundary, as O_DIRECT wants it."""
    return memoryview(mmap.mmap(-1, length))
