"""Parallels disk images: block/parallels.c.

Registered and probed as in 2010; opening one is refused, as not modelled.
"""

from __future__ import annotations

import struct

from hypervisor.block.bdrv_aio import bdrv_register
from hypervisor.block.not_modelled import never_open, refuse_format
from hypervisor.block_int import BlockDriver, BlockDriverState, ReadBuffer
from hypervisor.module import block_init
from tracer import symbol, traced

C_FILE = "block/parallels.c"

_HEADER = struct.Struct("<16sI")
_HEADER_SIZE = 64


@traced
def parallels_probe(buf: ReadBuffer, buf_size: int, filename: str) -> int:
    """100 for the magic "WithoutFreeSpace" and version 2."""
    if buf_size >= _HEADER_SIZE and _HEADER.unpack_from(buf) == (b"WithoutFreeSpace", 2):
        return 100
    return 0


@traced
def parallels_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Refuse the image: -ENOTSUP."""
    return refuse_format(filename, "parallels")


bdrv_parallels = symbol(
    BlockDriver(
        format_name="parallels",
        bdrv_probe=parallels_probe,
        bdrv_open=parallels_open,
        bdrv_close=never_open,
    ),
    "bdrv_parallels",
)


@traced
def bdrv_parallels_init() -> None:
    """Register the driver."""
    bdrv_register(bdrv_parallels)


block_init(bdrv_parallels_init)
