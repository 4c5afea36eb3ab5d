"""One image as an NBD server sees it: ranges of bytes, each request served by the traced block layer.

- ``Export(bs, read_only)``: an open image; ``size`` in bytes, ``flags`` for the handshake
- ``read``, ``write``, ``flush``: 0 or -errno
- ``zero(offset, length, punch)``: writes zeros, a piece at each step, so that others get their turn
- ``status(offset, length, one)``: which bytes are stored, which are holes

Whole sectors go through `bdrv_read` and `bdrv_write`, as in 0.12.4's qemu-nbd; anything else through
`bdrv_pread` and `bdrv_pwrite`.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator

from hypervisor import nbd_format as f
from hypervisor.block import bdrv_flush, bdrv_is_allocated, bdrv_pread, bdrv_pwrite, bdrv_read, bdrv_write
from hypervisor.block_int import BDRV_SECTOR_SIZE, BlockDriverState, ReadBuffer, WriteBuffer
from hypervisor.errors import HypervisorError

PIECE = 1 << 20
"""How many zeros are written at a time, in bytes."""
MAX_EXTENTS = 256
MAX_QUESTIONS = 1024
"""How often the driver is asked for one block status; an answer may cover less than was asked."""

_ZEROS = bytes(PIECE)
_HOLE = f.STATE_HOLE | f.STATE_ZERO


class Export:
    """An image and what clients may do with it.

    Parameters
    ----------
    bs : BlockDriverState *
        The open image.
    """

    def __init__(self, bs: BlockDriverState) -> None:
        self.bs = bs
        self.read_only = bool(bs.read_only)
        self.size = bs.total_sectors * BDRV_SECTOR_SIZE
        self.flags = f.FLAG_HAS_FLAGS | f.FLAG_SEND_FLUSH | f.FLAG_SEND_FUA | f.FLAG_CAN_MULTI_CONN
        if self.read_only:
            self.flags |= f.FLAG_READ_ONLY
        else:
            self.flags |= f.FLAG_SEND_TRIM | f.FLAG_SEND_WRITE_ZEROES

    def refuse(self, command: int, offset: int, length: int) -> int:
        """Give the -errno for a request that must not be begun, else 0."""
        writing = command in (f.CMD_WRITE, f.CMD_TRIM, f.CMD_WRITE_ZEROES)
        if writing and self.read_only:
            return -errno.EPERM
        if offset > self.size or length > self.size - offset:
            return -errno.ENOSPC if command in (f.CMD_WRITE, f.CMD_WRITE_ZEROES) else -errno.EINVAL
        return 0

    def read(self, offset: int, buf: WriteBuffer, length: int) -> int:
        """Fill `buf` with `length` bytes from `offset`."""
        try:
            if (offset | length) % BDRV_SECTOR_SIZE:
                return min(bdrv_pread(self.bs, offset, buf, length), 0)
            return min(bdrv_read(self.bs, offset // 512, buf, length // 512), 0)
        except (OSError, HypervisorError, MemoryError) as error:
            return _failed("read", error)

    def write(self, offset: int, buf: ReadBuffer, length: int) -> int:
        """Write `length` bytes of `buf` at `offset`."""
        try:
            if (offset | length) % BDRV_SECTOR_SIZE:
                return min(bdrv_pwrite(self.bs, offset, buf, length), 0)
            return min(bdrv_write(self.bs, offset // 512, buf, length // 512), 0)
        except (OSError, HypervisorError, MemoryError) as error:
            return _failed("write", error)

    def flush(self) -> int:
        """Force to the disk what was written; as in C, bdrv_flush does not tell a failure."""
        bdrv_flush(self.bs)
        return 0

    def zero(self, offset: int, length: int, punch: bool) -> Iterator[int]:
        """Write zeros, giving 0 or -errno after each piece.

        Parameters
        ----------
        punch : bool
            Holes may stay holes: what reads as zeros already is left alone.
        """
        end = offset + length
        while offset < end:
            size = min(end - offset, PIECE - offset % PIECE)
            if punch and not offset % 512 and size >= 512:
                state, alike = _state(self.bs, offset // 512, size // 512)
                if state & f.STATE_ZERO:
                    offset += alike * 512
                    yield 0
                    continue
                size = min(size, alike * 512) or size
            ret = self.write(offset, memoryview(_ZEROS)[:size], size)
            offset += size
            yield ret

    def status(self, offset: int, length: int, one: bool) -> list[tuple[int, int]]:
        """Say of a range which bytes are stored: pairs of length in bytes and state.

        Parameters
        ----------
        one : bool
            Only the first extent is wanted.
        """
        extents: list[tuple[int, int]] = []
        sector, skip = divmod(offset, 512)
        left = (skip + length + 511) // 512
        for _ in range(MAX_QUESTIONS):
            if left <= 0:
                break
            state, alike = _state(self.bs, sector, left)
            if extents and extents[-1][1] == state:
                extents[-1] = (extents[-1][0] + alike * 512, state)
            elif len(extents) == (1 if one else MAX_EXTENTS):
                break
            else:
                extents.append((alike * 512, state))
            sector += alike
            left -= alike
        first, state = extents[0]
        extents[0] = (first - skip, state)
        extra = sum(size for size, _ in extents) - length
        if extra > 0:
            last, state = extents[-1]
            extents[-1] = (last - extra, state)
        return extents


def _state(bs: BlockDriverState, sector: int, count: int) -> tuple[int, int]:
    """The state of a sector, and how many from it on, at least 1 and at most `count`, are alike."""
    allocated, alike = bdrv_is_allocated(bs, sector, count)
    if allocated < 0 or alike <= 0:
        return 0, 1
    backing = bs.backing_hd
    if allocated or backing is None:
        return (0 if allocated else _HOLE), min(alike, count)
    within = backing.total_sectors - sector
    if within <= 0:
        return _HOLE, min(alike, count)
    return _state(backing, sector, min(alike, count, within))


def _failed(what: str, error: Exception) -> int:
    print(f"nbd: {what} failed: {error}", file=sys.stderr, flush=True)
    return -(getattr(error, "errno", None) or errno.EIO)
