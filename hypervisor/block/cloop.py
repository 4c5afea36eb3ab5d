"""Compressed loop images of live CDs: block/cloop.c.

Registered and probed as in 2010; opening one is refused, as not modelled.
"""

from __future__ import annotations

from hypervisor.block.bdrv_aio import bdrv_register
from hypervisor.block.not_modelled import never_open, refuse_format
from hypervisor.block_int import BlockDriver, BlockDriverState, ReadBuffer
from hypervisor.module import block_init
from tracer import symbol, traced

C_FILE = "block/cloop.c"

_MAGIC = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"


@traced
def cloop_probe(buf: ReadBuffer, buf_size: int, filename: str) -> int:
    """2 for the shell script of version 2.0 that such an image begins with."""
    length = min(len(_MAGIC), buf_size)
    return 2 if bytes(buf[:length]) == _MAGIC[:length] else 0


@traced
def cloop_open(bs: BlockDriverState, filename: str, flags: int) -> int:
    """Refuse the image: -ENOTSUP."""
    return refuse_format(filename, "cloop")


bdrv_cloop = symbol(
    BlockDriver(
        format_name="cloop",
        bdrv_probe=cloop_probe,
        bdrv_open=cloop_open,
        bdrv_close=never_open,
    ),
    "bdrv_cloop",
)


@traced
def bdrv_cloop_init() -> None:
    """Register the driver."""
    bdrv_register(bdrv_cloop)


block_init(bdrv_cloop_init)
