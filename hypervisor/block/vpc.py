"""Virtual PC disk images, dynamic ones: block/vpc.c.

Registered and probed as in 2010; opening one is refused, as not modelled.
"""

from __future__ import annotations

from hypervisor.block.bdrv_aio import bdrv_register
from hypervisor.block.not_modelled import never_open, refuse_format
from hypervisor.block_int import BlockDriver, BlockDriverState, ReadBuffer
from hypervisor.module import block_init
from tracer import symbol, traced

C_FILE = "block/vpc.c"


@traced
def vpc_probe(buf: ReadBuffer, buf_size: int, filename: str) -> int:
    """100 for "conectix", the copy of the footer that a dynamic image begins with."""
    return 100 if buf_size >= 8 and bytes(buf[:8]) == b"conectix" else 0


@traced
def vpc_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Refuse the image: -ENOTSUP."""
    return refuse_format(filename, "vpc")


bdrv_vpc = symbol(
    BlockDriver(
        format_name="vpc",
        bdrv_probe=vpc_probe,
        bdrv_open=vpc_open,
        bdrv_close=never_open,
    ),
    "bdrv_vpc",
)


@traced
def bdrv_vpc_init() -> None:
    """Register the driver."""
    bdrv_register(bdrv_vpc)


block_init(bdrv_vpc_init)
