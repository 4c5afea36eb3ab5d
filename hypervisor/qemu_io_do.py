"""What qemu-io asks of the block layer to read and write: the do_* functions of qemu-io.c.

- `do_read`, `do_write`: whole sectors; `do_pread`, `do_pwrite`: bytes.
- `do_load_vmstate`, `do_save_vmstate`: the VM state behind the disk.
- `do_aio_readv`, `do_aio_writev`: start a request and wait; `aio_rw_done` is their callback.
- `now`, `failed`, `verify`, `unaligned`: what the commands need around that.

All give 1 or -errno, and how many bytes were done.
"""

import errno
import time
from collections.abc import Callable
from typing import Any

from hypervisor.aio import qemu_aio_wait
from hypervisor.block import (
    bdrv_aio_readv,
    bdrv_aio_writev,
    bdrv_load_vmstate,
    bdrv_pread,
    bdrv_pwrite,
    bdrv_read,
    bdrv_save_vmstate,
    bdrv_write,
)
from hypervisor.cutils import QEMUIOVector
from hypervisor.qemu_io_common import complain, state
from hypervisor.tool_open import reaching
from hypervisor.wording import cause
from tracer import Struct, traced

C_FILE = "qemu-io.c"

NOT_DONE = 0x7FFFFFFF
UNALIGNED = 0x1FF


def now() -> int:
    """Give the time in microseconds, as `gettimeofday` does."""
    return time.time_ns() // 1000


@traced
def do_read(buf: memoryview, offset: int, count: int) -> tuple[int, int]:
    """Read whole sectors.

    Returns
    -------
    int, int
        1 or -errno, and the bytes moved: `count`, or 0.
    """
    with reaching(state.image, offset + count):
        ret = bdrv_read(state.image, offset >> 9, buf, count >> 9)
    return (ret, 0) if ret < 0 else (1, count)


@traced
def do_write(buf: memoryview, offset: int, count: int) -> tuple[int, int]:
    """Write whole sectors.

    Returns
    -------
    int, int
        1 or -errno, and the bytes moved: `count`, or 0.
    """
    with reaching(state.image, offset + count):
        ret = bdrv_write(state.image, offset >> 9, buf, count >> 9)
    return (ret, 0) if ret < 0 else (1, count)


@traced
def do_pread(buf: memoryview, offset: int, count: int) -> tuple[int, int]:
    """Read bytes.

    Returns
    -------
    int, int
        1 or -errno, and the bytes moved or that -errno again.
    """
    with reaching(state.image, offset + count):
        total = bdrv_pread(state.image, offset, buf, count)
    return (total if total < 0 else 1), total


@traced
def do_pwrite(buf: memoryview, offset: int, count: int) -> tuple[int, int]:
    """Write bytes.

    Returns
    -------
    int, int
        1 or -errno, and the bytes moved or that -errno again.
    """
    with reaching(state.image, offset + count):
        total = bdrv_pwrite(state.image, offset, buf, count)
    return (total if total < 0 else 1), total


@traced
def do_load_vmstate(buf: memoryview, offset: int, count: int) -> tuple[int, int]:
    """Read from the VM state.

    Returns
    -------
    int, int
        1 or -errno, and the bytes moved or that -errno again.
    """
    total = bdrv_load_vmstate(state.image, buf, offset, count)
    return (total if total < 0 else 1), total


@traced
def do_save_vmstate(buf: memoryview, offset: int, count: int) -> tuple[int, int]:
    """Write to the VM state.

    Returns
    -------
    int, int
        1 or -errno, and the bytes moved or that -errno again.
    """
    total = bdrv_save_vmstate(state.image, buf, offset, count)
    return (total if total < 0 else 1), total


class _AsyncRet(Struct):
    """The `int async_ret` that a waiting request's callback sets."""

    value: int = NOT_DONE


@traced
def aio_rw_done(opaque: _AsyncRet, ret: int) -> None:
    """Tell the waiting `do_aio_readv` or `do_aio_writev` that its request is done."""
    opaque.value = ret


@traced
def do_aio_readv(qiov: QEMUIOVector, offset: int) -> tuple[int, int]:
    """Read into a vector and wait.

    Returns
    -------
    int, int
        1 or -errno, and the bytes asked for.
    """
    return _wait(bdrv_aio_readv, qiov, offset)


@traced
def do_aio_writev(qiov: QEMUIOVector, offset: int) -> tuple[int, int]:
    """Write from a vector and wait.

    Returns
    -------
    int, int
        1 or -errno, and the bytes asked for.
    """
    return _wait(bdrv_aio_writev, qiov, offset)


def _wait(submit: Callable[..., Any], qiov: QEMUIOVector, offset: int) -> tuple[int, int]:
    async_ret = _AsyncRet()
    if submit(state.image, offset >> 9, qiov, qiov.size >> 9, aio_rw_done, async_ret) is None:
        return -errno.EIO, 0
    while async_ret.value == NOT_DONE:
        qemu_aio_wait()
    return (async_ret.value if async_ret.value < 0 else 1), qiov.size


def failed(what: str, ret: int) -> None:
    """Report a request's error."""
    complain(f"{what} failed: {cause(ret)}")


def verify(buf: memoryview, pattern: int, offset: int) -> None:
    """Tell the user if `buf` is not full of `pattern`."""
    if bytes(buf) != bytes((pattern,)) * len(buf):
        complain(f"Pattern verification failed at offset {offset}, {len(buf)} bytes")


def unaligned(offset: int, count: int) -> bool:
    """Tell whether a range does not begin and end at sectors; only 7.2's wording lets it through."""
    return bool((offset | count) & UNALIGNED)
