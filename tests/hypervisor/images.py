"""What tests of a format's images share: a program that has the drivers, an image opened, its content."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypervisor.block import bdrv_delete, bdrv_find_format, bdrv_init, bdrv_new, bdrv_open2, bdrv_read
from hypervisor.block_int import BDRV_O_CACHE_WB, BDRV_O_RDWR, BlockDriverState
from hypervisor.program import program

REAL = shutil.which("qemu-img")
needs_real = pytest.mark.skipif(REAL is None, reason="qemu-img is missing: apt-get install qemu-utils")


@contextlib.contextmanager
def drivers() -> Iterator[None]:
    """Run as qemu-io does, with every driver registered."""
    with program("qemu-io"):
        bdrv_init()
        yield


@contextlib.contextmanager
def opened_as(format_name: str, path: Path, status: int = 0) -> Iterator[BlockDriverState]:
    """An image open for writing; `status` is what opening it must give."""
    bs = bdrv_new("")
    flags = BDRV_O_RDWR | BDRV_O_CACHE_WB
    assert bdrv_open2(bs, str(path), flags, bdrv_find_format(format_name)) == status
    yield bs
    bdrv_delete(bs)


def content(bs: BlockDriverState, size: int) -> bytes:
    data = bytearray(b"\xee" * size)
    assert bdrv_read(bs, 0, data, size // 512) == 0
    return bytes(data)
