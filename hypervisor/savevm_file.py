"""The stream that a machine is saved to and loaded from: `QEMUFile`, a part of savevm.c.

A `QEMUFile` gathers 32 KiB and hands them to `put_buffer`, or asks `get_buffer` for up to 32 KiB. Where the
bytes go is up to those two: into a disk image behind the guest's data (`qemu_fopen_bdrv`), a socket
(`qemu_fopen_socket`), a command (`qemu_popen_cmd`), a descriptor (`qemu_fdopen`), or a rate-limited buffer
(`hypervisor.buffered_file`).

- `qemu_put_buffer`, `qemu_put_byte`, `qemu_put_be16/32/64` and their `get` counterparts.
- `reading(file)`: a stream out of a Python file.
- `qemu_fflush`, `qemu_fclose`, `qemu_ftell`, `qemu_file_has_error`.

Reading past the end gives zeros and sets `has_error`, which whoever reads has to ask for. The one-number
functions are the hottest of all and stay out of traces, as they do out of the recordings.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any
from zlib import crc32

from hypervisor.block import bdrv_load_vmstate, bdrv_save_vmstate
from hypervisor.block_int import BlockDriverState
from hypervisor.vl_state import state
from tracer import Struct, traced

if TYPE_CHECKING:
    import subprocess

C_FILE = "savevm.c"

IO_BUF_SIZE = 32768
SILENCE = 30.0
"""Seconds after which a source that sends nothing is given up; the real program waits for ever."""

QEMUFilePutBufferFunc = Callable[[Any, Any, int, int], int]
QEMUFileGetBufferFunc = Callable[[Any, memoryview, int, int], int]


class QEMUFile(Struct):
    """`struct QEMUFile`.

    Parameters
    ----------
    put_buffer, get_buffer
        `put_buffer(opaque, buf, pos, size)` and `get_buffer(opaque, buf, pos, size)`: bytes done or -errno.
    buf_offset : int
        Where in the stream the buffer begins when writing, where it ends when reading.
    """

    put_buffer: QEMUFilePutBufferFunc | None = None
    get_buffer: QEMUFileGetBufferFunc | None = None
    close: Callable[[Any], int] | None = None
    rate_limit: Callable[[Any], int] | None = None
    set_rate_limit: Callable[[Any, int], int] | None = None
    get_rate_limit: Callable[[Any], int] | None = None
    opaque: Any = None
    is_write: int = 0
    buf_offset: int = 0
    has_error: int = 0
    _buf: bytearray | None = None
    _index: int = 0
    _size: int = 0
    _why: str = ""


class QEMUFileStdio(Struct):
    """`QEMUFileStdio`: a command's input or output, or a descriptor."""

    stdio_file: subprocess.Popen[bytes] | int | None = None
    file: QEMUFile | None = None


class QEMUFileSocket(Struct):
    """`QEMUFileSocket`: a connection, by its descriptor."""

    fd: int = -1
    file: QEMUFile | None = None
    _checksum: int = 0


@traced
def qemu_fopen_ops(
    opaque: Any,
    put_buffer: QEMUFilePutBufferFunc | None,
    get_buffer: QEMUFileGetBufferFunc | None,
    close: Callable[[Any], int] | None,
    rate_limit: Callable[[Any], int] | None,
    set_rate_limit: Callable[[Any, int], int] | None,
    get_rate_limit: Callable[[Any], int] | None,
) -> QEMUFile:
    """Make a stream out of functions.

    Parameters
    ----------
    opaque : object
        Given to each function.
    put_buffer : callable
        `put_buffer(opaque, buf, pos, size)`: bytes taken or -errno; None for a stream that is read.
    get_buffer : callable
        `get_buffer(opaque, buf, pos, size)`: bytes read, 0 at the end, or -errno.
    close : callable
        `close(opaque)`: 0 or an error.
    rate_limit : callable
        Whether enough was sent for now; the two after it set and get the limit in bytes a second.
    """
    f = QEMUFile(
        opaque=opaque,
        put_buffer=put_buffer,
        get_buffer=get_buffer,
        close=close,
        rate_limit=rate_limit,
        set_rate_limit=set_rate_limit,
        get_rate_limit=get_rate_limit,
    )
    f._buf = bytearray(IO_BUF_SIZE)
    return f


def reading(file: IO[bytes]) -> QEMUFile:
    """A stream that is read out of a Python file."""

    def get_buffer(opaque: None, buf: memoryview, pos: int, size: int) -> int:
        data = file.read(size)
        buf[: len(data)] = data
        return len(data)

    return qemu_fopen_ops(None, None, get_buffer, None, None, None, None)


def qemu_file_has_error(f: QEMUFile) -> int:
    """Whether reading or writing has failed."""
    return f.has_error


def qemu_file_set_error(f: QEMUFile, why: str = "") -> None:
    """Note that the stream is no good; `why`, which the real program does not keep, is for messages."""
    f.has_error = 1
    f._why = f._why or why


@traced
def qemu_fflush(f: QEMUFile) -> None:
    """Hand on what was gathered."""
    if f.put_buffer is None or not f.is_write or f._index == 0:
        return
    size = f._index
    with memoryview(_buffer(f)) as view:
        done = f.put_buffer(f.opaque, view[:size], f.buf_offset, size)
    if done > 0:
        f.buf_offset += size
    else:
        f.has_error = 1
    f._index = 0


@traced
def qemu_fill_buffer(f: QEMUFile) -> None:
    """Ask for more; none is an error, except where it would only have to be waited for."""
    if f.get_buffer is None:
        return
    assert not f.is_write
    with memoryview(_buffer(f)) as view:
        done = f.get_buffer(f.opaque, view, f.buf_offset, IO_BUF_SIZE)
    if done > 0:
        f._index = 0
        f._size = done
        f.buf_offset += done
    elif done != -errno.EAGAIN:
        qemu_file_set_error(f, "the stream ended before its end mark" if done == 0 else os.strerror(-done))


@traced
def qemu_fclose(f: QEMUFile) -> int:
    """Hand on what was gathered and close what is behind the stream."""
    qemu_fflush(f)
    return f.close(f.opaque) if f.close is not None else 0


@traced
def qemu_file_put_notify(f: QEMUFile) -> None:
    """Tell the stream that writing is possible again."""
    assert f.put_buffer is not None
    f.put_buffer(f.opaque, None, 0, 0)


@traced
def qemu_put_buffer(f: QEMUFile, buf: bytes | bytearray | memoryview, size: int) -> None:
    """Write `size` bytes."""
    _put(f, buf[:size] if len(buf) != size else buf)


@traced
def qemu_get_buffer(f: QEMUFile, buf: memoryview, size1: int) -> int:
    """Read `size1` bytes into `buf`; how many there were."""
    assert not f.is_write
    return _get_into(f, buf[:size1])


@traced
def qemu_ftell(f: QEMUFile) -> int:
    """Bytes written or read so far."""
    return f.buf_offset - f._size + f._index


@traced
def qemu_file_rate_limit(f: QEMUFile) -> int:
    """Whether no more should be written for now."""
    return f.rate_limit(f.opaque) if f.rate_limit is not None else 0


@traced
def qemu_file_get_rate_limit(f: QEMUFile) -> int:
    """Bytes that may be written in a tenth of a second."""
    return f.get_rate_limit(f.opaque) if f.get_rate_limit is not None else 0


@traced
def qemu_file_set_rate_limit(f: QEMUFile | None, new_rate: int) -> int:
    """Set how many bytes may be written in a second; what that is in a tenth."""
    return f.set_rate_limit(f.opaque, new_rate) if f is not None and f.set_rate_limit is not None else 0


def _buffer(f: QEMUFile) -> bytearray:
    assert f._buf is not None
    return f._buf


def _put(f: QEMUFile, data: bytes | bytearray | memoryview) -> None:
    size = len(data)
    index = f._index
    if index + size < IO_BUF_SIZE and f.is_write:
        _buffer(f)[index : index + size] = data
        f._index = index + size
        return
    assert f.is_write or index == 0, "written to while it is read"
    done = 0
    while done < size and not f.has_error:
        take = min(IO_BUF_SIZE - f._index, size - done)
        _buffer(f)[f._index : f._index + take] = data[done : done + take]
        f.is_write = 1
        f._index += take
        done += take
        if f._index >= IO_BUF_SIZE:
            qemu_fflush(f)


def _get(f: QEMUFile, size: int) -> bytes:
    index = f._index
    if index + size <= f._size:
        f._index = index + size
        return bytes(_buffer(f)[index : index + size])
    found = bytearray(size)
    with memoryview(found) as view:
        _get_into(f, view)
    return bytes(found)


def _get_into(f: QEMUFile, buf: memoryview) -> int:
    """Read as many bytes as `buf` takes; how many there were."""
    done, size = 0, len(buf)
    with memoryview(_buffer(f)) as here:
        while done < size:
            if f._index >= f._size:
                qemu_fill_buffer(f)
                if f._index >= f._size:
                    break
            take = min(f._size - f._index, size - done)
            buf[done : done + take] = here[f._index : f._index + take]
            f._index += take
            done += take
    return done


def qemu_put_byte(f: QEMUFile, v: int) -> None:
    """Write a byte."""
    _put(f, (v & 0xFF).to_bytes(1, "big"))


def qemu_put_be16(f: QEMUFile, v: int) -> None:
    """Write 16 bits."""
    _put(f, (v & 0xFFFF).to_bytes(2, "big"))


def qemu_put_be32(f: QEMUFile, v: int) -> None:
    """Write 32 bits."""
    _put(f, (v & 0xFFFFFFFF).to_bytes(4, "big"))


def qemu_put_be64(f: QEMUFile, v: int) -> None:
    """Write 64 bits."""
    _put(f, (v & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big"))


def qemu_get_byte(f: QEMUFile) -> int:
    """Read a byte."""
    return _get(f, 1)[0]


def qemu_get_be16(f: QEMUFile) -> int:
    """Read 16 bits."""
    return int.from_bytes(_get(f, 2), "big")


def qemu_get_be32(f: QEMUFile) -> int:
    """Read 32 bits."""
    return int.from_bytes(_get(f, 4), "big")


def qemu_get_be64(f: QEMUFile) -> int:
    """Read 64 bits."""
    return int.from_bytes(_get(f, 8), "big")


@traced
def block_put_buffer(opaque: BlockDriverState, buf: memoryview, pos: int, size: int) -> int:
    """Write behind the guest's data in a disk image.

    A format that cannot keep it, or an empty drive, swallows it: only `bdrv_snapshot_create` will tell. The
    real program drops any other error as well, so that a savevm onto a full disk seems to succeed.
    """
    ret = bdrv_save_vmstate(opaque, buf, pos, size)
    return ret if ret < 0 and ret not in (-errno.ENOTSUP, -errno.ENOMEDIUM) else size


@traced
def block_get_buffer(opaque: BlockDriverState, buf: memoryview, pos: int, size: int) -> int:
    """Read from behind the guest's data in a disk image."""
    return bdrv_load_vmstate(opaque, buf, pos, size)


@traced
def bdrv_fclose(opaque: BlockDriverState) -> int:
    """Nothing: the image stays open."""
    return 0


@traced
def qemu_fopen_bdrv(bs: BlockDriverState, is_writable: int) -> QEMUFile:
    """Make a stream that is kept in a disk image."""
    if is_writable:
        return qemu_fopen_ops(bs, block_put_buffer, None, bdrv_fclose, None, None, None)
    return qemu_fopen_ops(bs, None, block_get_buffer, bdrv_fclose, None, None, None)


def _wait_for_bytes(fd: int) -> bool:
    """Wait until a descriptor can be read; False when nothing came for long or the program is to end."""
    deadline = time.monotonic() + SILENCE
    while time.monotonic() < deadline and not state.shutdown_requested:
        if select.select([fd], [], [], 0.2)[0]:
            return True
    return False


@traced
def socket_get_buffer(opaque: QEMUFileSocket, buf: memoryview, pos: int, size: int) -> int:
    """Read from a connection."""
    if not _wait_for_bytes(opaque.fd):
        return -errno.ETIMEDOUT
    try:
        done = os.readv(opaque.fd, [buf[:size]])
    except OSError as error:
        return -(error.errno or errno.EIO)
    opaque._checksum = crc32(buf[:done], opaque._checksum)
    return done


@traced
def socket_close(opaque: QEMUFileSocket) -> int:
    """Nothing: whoever accepted the connection closes it."""
    return 0


@traced
def qemu_fopen_socket(fd: int) -> QEMUFile:
    """Make a stream that is read from a connection."""
    s = QEMUFileSocket(fd=fd)
    s.file = qemu_fopen_ops(s, None, socket_get_buffer, socket_close, None, None, None)
    return s.file


def _stdio_fd(s: QEMUFileStdio) -> int:
    if isinstance(s.stdio_file, int):
        return s.stdio_file
    assert s.stdio_file is not None
    pipe = s.stdio_file.stdout or s.stdio_file.stdin
    assert pipe is not None
    return pipe.fileno()


@traced
def stdio_put_buffer(opaque: QEMUFileStdio, buf: memoryview, pos: int, size: int) -> int:
    """Write to a command's input or a descriptor."""
    try:
        return os.writev(_stdio_fd(opaque), [buf[:size]])
    except OSError as error:
        return -(error.errno or errno.EIO)


@traced
def stdio_get_buffer(opaque: QEMUFileStdio, buf: memoryview, pos: int, size: int) -> int:
    """Read from a command's output or a descriptor."""
    fd, done = _stdio_fd(opaque), 0
    while done < size:
        if not _wait_for_bytes(fd):
            return -errno.ETIMEDOUT
        try:
            count = os.readv(fd, [buf[done:size]])
        except OSError as error:
            return -(error.errno or errno.EIO)
        if count == 0:
            break
        done += count
    return done


@traced
def stdio_pclose(opaque: QEMUFileStdio) -> int:
    """Close the pipe and wait for the command to end; a command that does not is told to."""
    import subprocess

    process = opaque.stdio_file
    assert isinstance(process, subprocess.Popen)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        return process.wait(SILENCE)
    except subprocess.TimeoutExpired:
        process.terminate()
        return process.wait()


@traced
def stdio_fclose(opaque: QEMUFileStdio) -> int:
    """Close the descriptor."""
    assert isinstance(opaque.stdio_file, int)
    os.close(opaque.stdio_file)
    return 0


@traced
def qemu_popen(stdio_file: subprocess.Popen[bytes], mode: str) -> QEMUFile:
    """Make a stream of a running command's output ("r") or input ("w")."""
    s = QEMUFileStdio(stdio_file=stdio_file)
    if mode == "r":
        s.file = qemu_fopen_ops(s, None, stdio_get_buffer, stdio_pclose, None, None, None)
    else:
        s.file = qemu_fopen_ops(s, stdio_put_buffer, None, stdio_pclose, None, None, None)
    return s.file


def _popen(command: str, mode: str) -> subprocess.Popen[bytes]:
    """popen(): run a command by the shell with a pipe to or from it."""
    import subprocess

    pipe = {"stdout" if mode == "r" else "stdin": subprocess.PIPE}
    return subprocess.Popen(command, shell=True, bufsize=0, **pipe)  # type: ignore[call-overload,no-any-return]


@traced
def qemu_popen_cmd(command: str, mode: str) -> QEMUFile:
    """Run a command and make a stream of its output or input."""
    return qemu_popen(_popen(command, mode), mode)


@traced
def qemu_stdio_fd(f: QEMUFile) -> int:
    """The descriptor behind a stream of a command or a descriptor."""
    return _stdio_fd(f.opaque)


@traced
def qemu_fdopen(fd: int, mode: str) -> QEMUFile | None:
    """Make a stream of an open descriptor, "rb" or "wb"; None if it is not open."""
    if mode not in ("rb", "wb"):
        print("qemu_fdopen: Argument validity check failed", file=sys.stderr)
        return None
    try:
        os.fstat(fd)
    except OSError:
        return None
    s = QEMUFileStdio(stdio_file=fd)
    if mode == "rb":
        s.file = qemu_fopen_ops(s, None, stdio_get_buffer, stdio_fclose, None, None, None)
    else:
        s.file = qemu_fopen_ops(s, stdio_put_buffer, None, stdio_fclose, None, None, None)
    return s.file
