"""The commands of qemu-io that only start a request: qemu-io.c.

- `aio_read_cmd`, `aio_write_cmd`: start one; its callback reports when it is done.
- `aio_flush_cmd`: wait for all that were started.

As in QEMU, a command succeeds once its request is under way, but the exit status knows of
requests that failed.
"""

import errno

from hypervisor.aio import qemu_aio_flush
from hypervisor.block import bdrv_aio_readv, bdrv_aio_writev, bdrv_pread, bdrv_pwrite
from hypervisor.cmd import cmdinfo_t, fail, tsub
from hypervisor.cutils import QEMUIOVector
from hypervisor.qemu_io_common import (
    Request,
    dump_buffer,
    parse_request,
    print_report,
    qemu_io_free,
    state,
)
from hypervisor.qemu_io_do import failed, now, unaligned, verify
from hypervisor.qemu_io_rw import vector
from hypervisor.wording import modern
from tracer import Struct, traced

C_FILE = "qemu-io.c"


class aio_ctx(Struct):
    """`struct aio_ctx`: a request under way; `t1` in microseconds."""

    qiov: QEMUIOVector | None = None
    offset: int = 0
    buf: memoryview | None = None
    qflag: int = 0
    vflag: int = 0
    Cflag: int = 0
    Pflag: int = 0
    pattern: int = 0
    t1: int = 0


@traced
def aio_write_done(opaque: aio_ctx, ret: int) -> None:
    """Report a write that is done."""
    t2 = now()
    state.in_flight -= 1
    assert opaque.buf is not None
    if ret < 0:
        failed("aio_write", ret)
    elif not opaque.qflag:
        size = len(opaque.buf)
        print_report("wrote", tsub(t2, opaque.t1), opaque.offset, size, size, 1, bool(opaque.Cflag))
    qemu_io_free(opaque.buf)


@traced
def aio_read_done(opaque: aio_ctx, ret: int) -> None:
    """Check and report a read that is done."""
    t2 = now()
    state.in_flight -= 1
    assert opaque.buf is not None
    if ret < 0:
        failed("readv", ret)
    else:
        size = len(opaque.buf)
        if opaque.Pflag:
            verify(opaque.buf, opaque.pattern, opaque.offset)
        if not opaque.qflag:
            if opaque.vflag:
                dump_buffer(opaque.buf, opaque.offset, size)
            print_report("read", tsub(t2, opaque.t1), opaque.offset, size, size, 1, bool(opaque.Cflag))
    qemu_io_free(opaque.buf)


def _context(request: Request | None, pattern: int) -> aio_ctx | None:
    qiov = QEMUIOVector()
    target = vector(request, qiov, pattern)
    if request is None or target is None:
        return None
    return aio_ctx(
        qiov=qiov,
        offset=target[0],
        buf=target[1],
        qflag=int("q" in request),
        vflag=int("v" in request),
        Cflag=int("C" in request),
        Pflag=int("P" in request),
        pattern=request.pattern,
        t1=now(),
    )


def _started(acb: object) -> int:
    """Give a command's result: without a request, 0.12.4 ends its loop."""
    if acb is not None:
        return 0
    state.in_flight -= 1
    fail()
    return -errno.EIO


@traced
def aio_read_help() -> None:
    """Print the long help of `aio_read`."""
    print(
        """
 asynchronously reads a range of bytes from the given offset

 Example:
 'aio_read -v 512 1k 1k ' - dumps 2 kilobytes read from 512 bytes into the file

 Reads a segment of the currently open file, optionally dumping it to the
 standard output stream (with -v option) for subsequent inspection.
 The read is performed asynchronously and should the aio_flush command
 should be used to ensure all outstanding aio requests have been completed
 -C, -- report statistics in a machine parsable format
 -P, -- use a pattern to verify read data
 -v, -- dump buffer to standard output
 -q, -- quite mode, do not show I/O statistics
"""
    )


@traced
def aio_read_f(argc: int, argv: list[str]) -> int:
    """`aio_read`: start a read."""
    request = parse_request(aio_read_cmd, argv, "CP:qv", 0, False)
    ctx = _context(request, 0xAB)
    if ctx is None:
        return 0
    assert ctx.qiov is not None and ctx.buf is not None
    state.in_flight += 1
    if unaligned(ctx.offset, ctx.qiov.size):
        aio_read_done(ctx, min(bdrv_pread(state.image, ctx.offset, ctx.buf, ctx.qiov.size), 0))
        return 0
    acb = bdrv_aio_readv(state.image, ctx.offset >> 9, ctx.qiov, ctx.qiov.size >> 9, aio_read_done, ctx)
    return _started(acb)


aio_read_cmd = cmdinfo_t(
    name="aio_read",
    cfunc=aio_read_f,
    argmin=2,
    argmax=-1,
    args="[-Cqv] [-P pattern ] off len [len..]",
    oneline="asynchronously reads a number of bytes",
    help=aio_read_help,
)


@traced
def aio_write_help() -> None:
    """Print the long help of `aio_write`."""
    print(
        """
 asynchronously writes a range of bytes from the given offset source
 from multiple buffers

 Example:
 'aio_write 512 1k 1k' - writes 2 kilobytes at 512 bytes into the open file

 Writes into a segment of the currently open file, using a buffer
 filled with a set pattern (0xcdcdcdcd).
 The write is performed asynchronously and should the aio_flush command
 should be used to ensure all outstanding aio requests have been completed
 -P, -- use different pattern to fill file
 -C, -- report statistics in a machine parsable format
 -q, -- quite mode, do not show I/O statistics
"""
    )


@traced
def aio_write_f(argc: int, argv: list[str]) -> int:
    """`aio_write`: start a write."""
    request = parse_request(aio_write_cmd, argv, "CfiqP:uz" if modern() else "CqP:", 0xCD, False)
    ctx = _context(request, 0 if request is None or "z" in request else request.pattern)
    if ctx is None:
        return 0
    assert ctx.qiov is not None and ctx.buf is not None
    state.in_flight += 1
    if unaligned(ctx.offset, ctx.qiov.size):
        aio_write_done(ctx, min(bdrv_pwrite(state.image, ctx.offset, ctx.buf, ctx.qiov.size), 0))
        return 0
    acb = bdrv_aio_writev(state.image, ctx.offset >> 9, ctx.qiov, ctx.qiov.size >> 9, aio_write_done, ctx)
    return _started(acb)


aio_write_cmd = cmdinfo_t(
    name="aio_write",
    cfunc=aio_write_f,
    argmin=2,
    argmax=-1,
    args="[-Cq] [-P pattern ] off len [len..]",
    oneline="asynchronously writes a number of bytes",
    help=aio_write_help,
)


@traced
def aio_flush_f(argc: int, argv: list[str]) -> int:
    """`aio_flush`: wait for all requests under way."""
    qemu_aio_flush()
    return 0


aio_flush_cmd = cmdinfo_t(
    name="aio_flush", cfunc=aio_flush_f, oneline="completes all outstanding aio requets"
)
