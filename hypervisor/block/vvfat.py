"""A folder shown as a FAT disk, ``fat:FOLDER``: block/vvfat.c.

Registered as in 2010; opening one is refused, as not modelled.
"""

from __future__ import annotations

from hypervisor.block.bdrv_aio import bdrv_register
from hypervisor.block.not_modelled import never_open, refuse
from hypervisor.block_int import BlockDriver, BlockDriverState
from hypervisor.module import block_init
from tracer import symbol, traced

C_FILE = "block/vvfat.c"


@traced
def vvfat_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Refuse the protocol: -ENOTSUP."""
    return refuse(filename, "the fat: protocol", "put the files into an image")


bdrv_vvfat = symbol(
    BlockDriver(
        format_name="vvfat",
        protocol_name="fat",
        bdrv_open=vvfat_open,
        bdrv_close=never_open,
    ),
    "bdrv_vvfat",
)


@traced
def bdrv_vvfat_init() -> None:
    """Register the driver."""
    bdrv_register(bdrv_vvfat)


block_init(bdrv_vvfat_init)
