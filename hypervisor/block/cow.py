"""User-mode Linux copy-on-write images: block/cow.c.

Registered and probed as in 2010; opening one is refused, as not modelled.
"""

from __future__ import annotations

import struct

from hypervisor.block.bdrv_aio import bdrv_register
from hypervisor.block.not_modelled import never_open, refuse_format
from hypervisor.block_int import BlockDriver, BlockDriverState, ReadBuffer
from hypervisor.module import block_init
from tracer import symbol, traced

C_FILE = "block/cow.c"

_HEADER = struct.Struct(">II")
_HEADER_SIZE = 1056
_COW_MAGIC = 0x4F4F4F4D
_COW_VERSION = 2


@traced
def cow_probe(buf: ReadBuffer, buf_size: int, filename: str) -> int:
    """100 for the magic "OOOM" and version 2."""
    if buf_size >= _HEADER_SIZE and _HEADER.unpack_from(buf) == (_COW_MAGIC, _COW_VERSION):
        return 100
    return 0


@traced
def cow_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Refuse the image: -ENOTSUP."""
    return refuse_format(filename, "cow")


bdrv_cow = symbol(
    BlockDriver(
        format_name="cow",
        bdrv_probe=cow_probe,
        bdrv_open=cow_open,
        bdrv_close=never_open,
    ),
    "bdrv_cow",
)


@traced
def bdrv_cow_init() -> None:
    """Register the driver."""
    bdrv_register(bdrv_cow)


block_init(bdrv_cow_init)
