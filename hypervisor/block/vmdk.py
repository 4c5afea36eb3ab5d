"""VMware disk images: block/vmdk.c.

Registered and probed as in 2010; opening one is refused, as not modelled.
"""

from __future__ import annotations

from hypervisor.block.bdrv_aio import bdrv_register
from hypervisor.block.not_modelled import never_open, refuse_format
from hypervisor.block_int import BlockDriver, BlockDriverState, ReadBuffer
from hypervisor.module import block_init
from tracer import symbol, traced

C_FILE = "block/vmdk.c"

_MAGICS = (b"COWD", b"KDMV")


@traced
def vmdk_probe(buf: ReadBuffer, buf_size: int, filename: str) -> int:
    """100 for the magic of version 3 or 4."""
    return 100 if buf_size >= 4 and bytes(buf[:4]) in _MAGICS else 0


@traced
def vmdk_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Refuse the image: -ENOTSUP."""
    return refuse_format(filename, "vmdk")


bdrv_vmdk = symbol(
    BlockDriver(
        format_name="vmdk",
        bdrv_probe=vmdk_probe,
        bdrv_open=vmdk_open,
        bdrv_close=never_open,
    ),
    "bdrv_vmdk",
)


@traced
def bdrv_vmdk_init() -> None:
    """Register the driver."""
    bdrv_register(bdrv_vmdk)


block_init(bdrv_vmdk_init)
