"""Bochs growing images: block/bochs.c.

Registered and probed as in 2010; opening one is refused, as not modelled.
"""

from __future__ import annotations

import struct

from hypervisor.block.bdrv_aio import bdrv_register
from hypervisor.block.not_modelled import never_open, refuse_format
from hypervisor.block_int import BlockDriver, BlockDriverState, ReadBuffer
from hypervisor.module import block_init
from tracer import symbol, traced

C_FILE = "block/bochs.c"

_HEADER = struct.Struct("<32s16s16sI")
_HEADER_SIZE = 512
_VERSIONS = (0x00020000, 0x00010000)


@traced
def bochs_probe(buf: ReadBuffer, buf_size: int, filename: str) -> int:
    """100 for a growing redolog of version 1 or 2."""
    if buf_size < _HEADER_SIZE:
        return 0
    *texts, version = _HEADER.unpack_from(buf)
    names = [text.split(b"\0")[0] for text in texts]
    known = [b"Bochs Virtual HD Image", b"Redolog", b"Growing"]
    return 100 if names == known and version in _VERSIONS else 0


@traced
def bochs_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Refuse the image: -ENOTSUP."""
    return refuse_format(filename, "bochs")


bdrv_bochs = symbol(
    BlockDriver(
        format_name="bochs",
        bdrv_probe=bochs_probe,
        bdrv_open=bochs_open,
        bdrv_close=never_open,
    ),
    "bdrv_bochs",
)


@traced
def bdrv_bochs_init() -> None:
    """Register the driver."""
    bdrv_register(bdrv_bochs)


block_init(bdrv_bochs_init)
