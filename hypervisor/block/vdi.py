"""VirtualBox disk images: block/vdi.c.

Registered and probed as in 2010; opening one is refused, as not modelled.
"""

from __future__ import annotations

from hypervisor.block.bdrv_aio import bdrv_register
from hypervisor.block.not_modelled import never_open, refuse_format
from hypervisor.block_int import BlockDriver, BlockDriverState, ReadBuffer
from hypervisor.module import block_init
from tracer import symbol, traced

C_FILE = "block/vdi.c"

_HEADER_SIZE = 512
_SIGNATURE_OFFSET = 0x40
_SIGNATURE = (0xBEDA107F).to_bytes(4, "little")


@traced
def vdi_probe(buf: ReadBuffer, buf_size: int, filename: str) -> int:
    """100 for the signature behind the text at the start."""
    signature = bytes(buf[_SIGNATURE_OFFSET : _SIGNATURE_OFFSET + 4])
    return 100 if buf_size >= _HEADER_SIZE and signature == _SIGNATURE else 0


@traced
def vdi_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Refuse the image: -ENOTSUP."""
    return refuse_format(filename, "vdi")


bdrv_vdi = symbol(
    BlockDriver(
        format_name="vdi",
        bdrv_probe=vdi_probe,
        bdrv_open=vdi_open,
        bdrv_close=never_open,
    ),
    "bdrv_vdi",
)


@traced
def bdrv_vdi_init() -> None:
    """Register the driver."""
    bdrv_register(bdrv_vdi)


block_init(bdrv_vdi_init)
