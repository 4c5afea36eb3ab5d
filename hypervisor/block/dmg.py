"""Apple disk images: block/dmg.c.

Registered and probed as in 2010; opening one is refused, as not modelled.
"""

from __future__ import annotations

from hypervisor.block.bdrv_aio import bdrv_register
from hypervisor.block.not_modelled import never_open, refuse_format
from hypervisor.block_int import BlockDriver, BlockDriverState, ReadBuffer
from hypervisor.module import block_init
from tracer import symbol, traced

C_FILE = "block/dmg.c"


@traced
def dmg_probe(buf: ReadBuffer, buf_size: int, filename: str) -> int:
    """2 for a name that ends in ".dmg"; the content is not looked at."""
    return 2 if len(filename) > 4 and filename.endswith(".dmg") else 0


@traced
def dmg_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Refuse the image: -ENOTSUP."""
    return refuse_format(filename, "dmg")


bdrv_dmg = symbol(
    BlockDriver(
        format_name="dmg",
        bdrv_probe=dmg_probe,
        bdrv_open=dmg_open,
        bdrv_close=never_open,
    ),
    "bdrv_dmg",
)


@traced
def bdrv_dmg_init() -> None:
    """Register the driver."""
    bdrv_register(bdrv_dmg)


block_init(bdrv_dmg_init)
