"""Reads and writes beneath the recorded calls, straight to an image's file; ours, nothing of it is in C.

0.12.4 writes some things in an order that a killed program does not survive. Its calls are kept as they are;
what the disk must hold before they come is written here.

- `peek(bs, sector_num, view)`: what a guest reads, through the formats and backing files of a chain
- `fetch(hd, offset, length)`: whole sectors as they are on the disk; `fetch_bytes`: any bytes
- `settle(hd, offset, data)`: have whole sectors on the disk now
- `settle_bytes(hd, offset, data)`: the same for any bytes, which keep the rest of their sectors

0.12.4 ends some requests early and leaves stale memory in the rest of the buffer: `peek` fills it.

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


def peek(bs: BlockDriverState, sector_num: int, view: memoryview) -> None:
    """Fill `view` with the guest's bytes from a sector on; zeros behind the end of the disk.

    Raises
    ------
    OSError
        Errno EIO where there is no medium or the format cannot be read like this, or what the host says.
    """
    while view:
        left = max(bs.total_sectors - sector_num, 0) * 512
        if not left:
            view[:] = bytes(len(view))
            return
        if bs.drv is None or bs.drv._peek is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        done = bs.drv._peek(bs, sector_num, view[:left])
        view = view[done:]
        sector_num += done // 512


def peek_backing(bs: BlockDriverState, sector_num: int, view: memoryview) -> None:
    """Fill `view` with what an image without these sectors shows of its backing file."""
    if bs.backing_hd is None:
        view[:] = bytes(len(view))
    else:
        peek(bs.backing_hd, sector_num, view)


def fetch(hd: BlockDriverState, offset: int, length: int) -> memoryview:
    """`length` bytes at `offset`; zeros behind the end of the file.

    Raises
    ------
    OSError
        Errno EIO for an offset beyond 2**63, or what the host says.
    """
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


def fetch_bytes(hd: BlockDriverState, offset: int, length: int) -> bytes:
    """`length` bytes at any `offset`; zeros behind the end of the file."""
    start, end = offset & ~511, (offset + length + 511) & ~511
    return bytes(fetch(hd, start, end - start)[offset - start :][:length])


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
