"""A disk served over the network, ``nbd:HOST:PORT``: block/nbd.c.

Registered as in 2010; opening one is refused, as not modelled.
"""

from __future__ import annotations

from hypervisor.block.bdrv_aio import bdrv_register
from hypervisor.block.not_modelled import never_open, refuse
from hypervisor.block_int import BlockDriver, BlockDriverState
from hypervisor.module import block_init
from tracer import symbol, traced

C_FILE = "block/nbd.c"


@traced
def nbd_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Refuse the protocol: -ENOTSUP."""
    return refuse(filename, "the nbd: protocol", "give a local file")


bdrv_nbd = symbol(
    BlockDriver(
        format_name="nbd",
        protocol_name="nbd",
        bdrv_open=nbd_open,
        bdrv_close=never_open,
    ),
    "bdrv_nbd",
)


@traced
def bdrv_nbd_init() -> None:
    """Register the driver."""
    bdrv_register(bdrv_nbd)


block_init(bdrv_nbd_init)
