"""The commands of qemu-io that read and write and wait for it: qemu-io.c.

- `read_cmd`, `write_cmd`: one buffer, by `bdrv_read` and `bdrv_write`; with ``-p`` by
  `bdrv_pread` and `bdrv_pwrite`, with ``-b`` to and from the VM state.
- `readv_cmd`, `writev_cmd`: a list of buffers, by asynchronous requests that are waited for.

With 7.2's wording, requests that are not aligned to sectors go the way of ``-p``, and
``write`` knows ``-z`` (zeroes, always written out), ``-c`` (compressed) and ``-s FILE``.
"""

import errno
import sys

from hypervisor.block import (
    bdrv_flush,
    bdrv_get_info,
    bdrv_getlength,
    bdrv_write_compressed,
)
from hypervisor.block_int import BlockDriverInfo
from hypervisor.cmd import cmdinfo_t, command_usage, fail, tsub
from hypervisor.cutils import QEMUIOVector
from hypervisor.qemu_io_common import (
    REQUEST_MAX_BYTES,
    Request,
    complain,
    create_iovec,
    dump_buffer,
    number,
    parse_request,
    print_report,
    qemu_io_alloc,
    qemu_io_free,
    state,
)
from hypervisor.qemu_io_do import (
    UNALIGNED,
    do_aio_readv,
    do_aio_writev,
    do_load_vmstate,
    do_pread,
    do_pwrite,
    do_read,
    do_save_vmstate,
    do_write,
    failed,
    now,
    unaligned,
    verify,
)
from hypervisor.wording import modern
from tracer import traced

C_FILE = "qemu-io.c"


def _span(request: Request, unless: str = "") -> tuple[int, int] | None:
    """Read offset and length; None if they are wrong, which the user has then been told."""
    offset = number(request.operands[0])
    count = None if offset is None else number(request.operands[1])
    if offset is None or count is None:
        return None
    if modern():
        if count > REQUEST_MAX_BYTES:
            complain(f"length cannot exceed {REQUEST_MAX_BYTES}{unless}, given {request.operands[1]}")
            return None
    elif (count := (count + (1 << 31)) % (1 << 32) - (1 << 31)) < 0:
        # C keeps the length in an int, so from 2 GiB on it may come out negative.
        complain(f"non-numeric length argument -- {request.operands[1]}")
        return None
    return offset, count


def _aligned(offset: int, count: int) -> bool:
    """Check both for whole sectors, and tell the user."""
    for value, name in ((offset, "offset"), (count, "count")):
        if value & UNALIGNED:
            if modern():
                complain(f"{value} is not a sector-aligned value for '{name}'")
            else:
                complain(f"{name} {value} is not sector aligned")
            return False
    return True


@traced
def read_help() -> None:
    """Print the long help of `read`."""
    print(
        """
 reads a range of bytes from the given offset

 Example:
 'read -v 512 1k' - dumps 1 kilobyte read from 512 bytes into the file

 Reads a segment of the currently open file, optionally dumping it to the
 standard output stream (with -v option) for subsequent inspection.
 -b, -- read from the VM state rather than the virtual disk
 -C, -- report statistics in a machine parsable format
 -l, -- length for pattern verification (only with -P)
 -p, -- use bdrv_pread to read the file
 -P, -- use a pattern to verify read data
 -q, -- quite mode, do not show I/O statistics
 -s, -- start offset for pattern verification (only with -P)
 -v, -- dump buffer to standard output
"""
    )


def _pattern_range(request: Request, count: int) -> tuple[int, int] | None:
    """Give the part of a read that ``-P`` is held against, as start and end; None if it is wrong."""
    start = number(request.flags["s"]) if "s" in request else 0
    if start is None:
        return None
    length = number(request.flags["l"]) if "l" in request else count - start
    if length is None:
        return None
    if "P" not in request and ("l" in request or "s" in request):
        command_usage(read_cmd)
        return None
    if length < 0 or start + length > count:
        word = "verification" if modern() else "verfication"
        complain(f"pattern {word} range exceeds end of read data")
        return None
    return start, start + length


@traced
def read_f(argc: int, argv: list[str]) -> int:
    """`read`: read one range of bytes."""
    request = parse_request(read_cmd, argv, "bCl:pP:qs:v", 0, True)
    if request is None:
        return 0
    if "b" in request and "p" in request and not modern():
        complain("-b and -p cannot be specified at the same time")
        return 0
    span = _span(request)
    if span is None:
        return 0
    offset, count = span
    checked = _pattern_range(request, count)
    if checked is None:
        return 0
    if modern():
        if "b" in request and not _aligned(offset, count):
            return 0
    elif "p" not in request and not _aligned(offset, 0):
        # quirk: an unaligned length is let through, and cut to whole sectors by do_read.
        return 0
    buf = qemu_io_alloc(count, 0xAB)
    t1 = now()
    if "b" in request:
        cnt, total = do_load_vmstate(buf, offset, count)
    elif "p" in request or (modern() and unaligned(offset, count)):
        cnt, total = do_pread(buf, offset, count)
    else:
        cnt, total = do_read(buf, offset, count)
    t2 = now()
    if cnt < 0:
        failed("read", cnt)
    else:
        if "P" in request:
            verify(buf[checked[0] : checked[1]], request.pattern, offset + checked[0])
        if "q" not in request:
            if "v" in request:
                dump_buffer(buf, offset, count)
            print_report("read", tsub(t2, t1), offset, count, total, cnt, "C" in request)
    qemu_io_free(buf)
    return 0


read_cmd = cmdinfo_t(
    name="read",
    altname="r",
    cfunc=read_f,
    argmin=2,
    argmax=-1,
    args="[-abCpqv] [-P pattern [-s off] [-l len]] off len",
    oneline="reads a number of bytes at a specified offset",
    help=read_help,
)


@traced
def readv_help() -> None:
    """Print the long help of `readv`."""
    print(
        """
 reads a range of bytes from the given offset into multiple buffers

 Example:
 'readv -v 512 1k 1k ' - dumps 2 kilobytes read from 512 bytes into the file

 Reads a segment of the currently open file, optionally dumping it to the
 standard output stream (with -v option) for subsequent inspection.
 Uses multiple iovec buffers if more than one byte range is specified.
 -C, -- report statistics in a machine parsable format
 -P, -- use a pattern to verify read data
 -v, -- dump buffer to standard output
 -q, -- quite mode, do not show I/O statistics
"""
    )


def vector(request: Request | None, qiov: QEMUIOVector, pattern: int) -> tuple[int, memoryview] | None:
    """Read a vectored request's operands into an offset, `qiov` and its buffer; None if wrong."""
    offset = number(request.operands[0]) if request is not None else None
    if request is None or offset is None:
        return None
    if offset & UNALIGNED and not modern():
        complain(f"offset {offset} is not sector aligned")
        return None
    lengths = request.operands[1:]
    buf = create_iovec(qiov, lengths, len(lengths), pattern)
    return None if buf is None else (offset, buf)


@traced
def readv_f(argc: int, argv: list[str]) -> int:
    """`readv`: read one range into several buffers."""
    request = parse_request(readv_cmd, argv, "CP:qv", 0, False)
    qiov = QEMUIOVector()
    target = vector(request, qiov, 0xAB)
    if request is None or target is None:
        return 0
    offset, buf = target
    t1 = now()
    if unaligned(offset, qiov.size):
        cnt, total = do_pread(buf, offset, qiov.size)
    else:
        cnt, total = do_aio_readv(qiov, offset)
    t2 = now()
    if cnt < 0:
        failed("readv", cnt)
    else:
        if "P" in request:
            verify(buf, request.pattern, offset)
        if "q" not in request:
            if "v" in request:
                dump_buffer(buf, offset, qiov.size)
            print_report("read", tsub(t2, t1), offset, qiov.size, total, cnt, "C" in request)
    qemu_io_free(buf)
    return 0


readv_cmd = cmdinfo_t(
    name="readv",
    cfunc=readv_f,
    argmin=2,
    argmax=-1,
    args="[-Cqv] [-P pattern ] off len [len..]",
    oneline="reads a number of bytes at a specified offset",
    help=readv_help,
)


@traced
def write_help() -> None:
    """Print the long help of `write`."""
    print(
        """
 writes a range of bytes from the given offset

 Example:
 'write 512 1k' - writes 1 kilobyte at 512 bytes into the open file

 Writes into a segment of the currently open file, using a buffer
 filled with a set pattern (0xcdcdcdcd).
 -b, -- write to the VM state rather than the virtual disk
 -p, -- use bdrv_pwrite to write the file
 -P, -- use different pattern to fill file
 -C, -- report statistics in a machine parsable format
 -q, -- quite mode, do not show I/O statistics
"""
    )


def _contradiction(request: Request) -> str | None:
    """Name the options of a `write` that do not go together."""
    if not modern():
        both = "b" in request and "p" in request
        return "-b and -p cannot be specified at the same time" if both else None
    if "b" in request and "z" in request:
        return "-b and -z cannot be specified at the same time"
    if "f" in request and ("b" in request or "c" in request):
        return "-f and -b or -c cannot be specified at the same time"
    for letter in "nu":
        if letter in request and "z" not in request:
            return f"-{letter} requires -z to be specified"
    if sum(letter in request for letter in "zPs") > 1:
        return "Only one of -z, -P, and -s can be specified at the same time"
    return None


@traced
def write_f(argc: int, argv: list[str]) -> int:
    """`write`: write one range of bytes."""
    request = parse_request(write_cmd, argv, "bcCfnpP:qs:uz" if modern() else "bCpP:q", 0xCD, True)
    if request is None:
        return 0
    wrong = _contradiction(request)
    if wrong:
        complain(wrong)
        return 0
    span = _span(request, " without -n")
    if span is None:
        return 0
    offset, count = span
    whole = "b" in request or "c" in request if modern() else "p" not in request
    if whole and not _aligned(offset, count):
        return 0
    buf = qemu_io_alloc(count, 0 if "z" in request else request.pattern)
    if "s" in request and not _fill_from_file(buf, request.flags["s"]):
        return 0
    t1 = now()
    if "n" in request:
        cnt, total = -errno.ENOTSUP, 0
    elif "b" in request:
        cnt, total = do_save_vmstate(buf, offset, count)
    elif "c" in request:
        cnt, total = _write_compressed(buf, offset, count)
    elif "p" in request or (modern() and unaligned(offset, count)):
        cnt, total = do_pwrite(buf, offset, count)
    else:
        cnt, total = do_write(buf, offset, count)
    if "f" in request and cnt >= 0:
        bdrv_flush(state.image)
    t2 = now()
    if cnt < 0:
        failed("write", cnt)
    elif "q" not in request:
        print_report("wrote", tsub(t2, t1), offset, count, total, cnt, "C" in request)
    qemu_io_free(buf)
    return 0


def _fill_from_file(buf: memoryview, name: str) -> bool:
    """Fill `buf` with a file's beginning, again and again."""
    try:
        with open(name, "rb") as file:
            data = file.read(len(buf))
    except OSError as error:
        print(f"{name}: {error.strerror}", file=sys.stderr)
        fail()
        return False
    if not data:
        print(f"{name}: file is empty", file=sys.stderr)
        fail()
        return False
    buf[:] = (data * (len(buf) // len(data) + 1))[: len(buf)]
    return True


def _write_compressed(buf: memoryview, offset: int, count: int) -> tuple[int, int]:
    """Write compressed, a cluster at a time, the image's last one filled up with zeros."""
    bdi = BlockDriverInfo()
    drv = state.image.drv
    if drv is None:
        return -errno.ENOMEDIUM, 0
    if drv.bdrv_write_compressed is None or bdrv_get_info(state.image, bdi) < 0:
        return -errno.ENOTSUP, 0
    size = bdi.cluster_size
    if offset % size or (count % size and offset + count != bdrv_getlength(state.image)):
        return -errno.EINVAL, 0
    for at in range(0, count, size):
        data = bytes(buf[at : at + size]).ljust(size, b"\0")
        ret = bdrv_write_compressed(state.image, (offset + at) >> 9, data, size >> 9)
        if ret < 0:
            return ret, 0
    bdrv_write_compressed(state.image, 0, None, 0)
    return 1, count


write_cmd = cmdinfo_t(
    name="write",
    altname="w",
    cfunc=write_f,
    argmin=2,
    argmax=-1,
    args="[-abCpq] [-P pattern ] off len",
    oneline="writes a number of bytes at a specified offset",
    help=write_help,
)


@traced
def writev_help() -> None:
    """Print the long help of `writev`."""
    print(
        """
 writes a range of bytes from the given offset source from multiple buffers

 Example:
 'write 512 1k 1k' - writes 2 kilobytes at 512 bytes into the open file

 Writes into a segment of the currently open file, using a buffer
 filled with a set pattern (0xcdcdcdcd).
 -P, -- use different pattern to fill file
 -C, -- report statistics in a machine parsable format
 -q, -- quite mode, do not show I/O statistics
"""
    )


@traced
def writev_f(argc: int, argv: list[str]) -> int:
    """`writev`: write one range from several buffers."""
    request = parse_request(writev_cmd, argv, "CfqP:" if modern() else "CqP:", 0xCD, False)
    qiov = QEMUIOVector()
    target = vector(request, qiov, request.pattern if request else 0)
    if request is None or target is None:
        return 0
    offset, buf = target
    t1 = now()
    if unaligned(offset, qiov.size):
        cnt, total = do_pwrite(buf, offset, qiov.size)
    else:
        cnt, total = do_aio_writev(qiov, offset)
    t2 = now()
    if cnt < 0:
        failed("writev", cnt)
    elif "q" not in request:
        print_report("wrote", tsub(t2, t1), offset, qiov.size, total, cnt, "C" in request)
    qemu_io_free(buf)
    return 0


writev_cmd = cmdinfo_t(
    name="writev",
    cfunc=writev_f,
    argmin=2,
    argmax=-1,
    args="[-Cq] [-P pattern ] off len [len..]",
    oneline="writes a number of bytes at a specified offset",
    help=writev_help,
)
