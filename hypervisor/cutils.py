"""C helpers the block layer uses: cutils.c, with the scatter-gather list ``QEMUIOVector``.

A ``char *`` that C fills is returned: ``bs.filename = pstrcpy(1024, filename)``. A pointer into a string
that C stores through an out-pointer comes second: ``ret, rest = strstart(name, "nbd:")``.

::

    QEMUIOVector ─ iov ─► [iovec(iov_base: memoryview, iov_len), ...]     size = sum of iov_len
"""

from __future__ import annotations

import os
from typing import NamedTuple

from hypervisor.block_int import ReadBuffer, WriteBuffer
from tracer import Struct, traced

C_FILE = "cutils.c"


class iovec(NamedTuple):
    """One piece of memory: a view of exactly `iov_len` bytes; readable is enough for a write."""

    iov_base: memoryview
    iov_len: int


class QEMUIOVector(Struct):
    """A list of memory pieces that one request reads into or writes from (qemu-common.h).

    `nalloc` is -1 for a vector whose `iov` belongs to the caller.
    """

    iov: list[iovec] | None = None
    niov: int = 0
    nalloc: int = 0
    size: int = 0


@traced
def pstrcpy(buf_size: int, str: str) -> str:
    """`str` cut to what fits into ``char buf[buf_size]`` with its NUL, measured in UTF-8.

    Examples
    --------
    >>> pstrcpy(5, "raw-posix")
    'raw-'
    """
    raw = os.fsencode(str)
    if len(raw) < buf_size:
        return str
    return os.fsdecode(raw[: max(buf_size - 1, 0)])


@traced
def pstrcat(buf: str, buf_size: int, s: str) -> str:
    """`buf` followed by as much of `s` as ``char buf[buf_size]`` holds."""
    used = len(os.fsencode(buf))
    return buf + pstrcpy(buf_size - used, s) if used < buf_size else buf


@traced
def strstart(str: str, val: str) -> tuple[int, str | None]:
    """(1, the rest of `str`) if `str` begins with `val`, else (0, None)."""
    if str.startswith(val):
        return 1, str[len(val) :]
    return 0, None


@traced
def qemu_fdatasync(fd: int) -> int:
    """Force a file's data to the disk; raises OSError where C gives -1 and errno."""
    os.fdatasync(fd)
    return 0


@traced
def qemu_iovec_init(qiov: QEMUIOVector, alloc_hint: int) -> None:
    """Make `qiov` an empty vector of its own."""
    qiov.iov = []
    qiov.niov = 0
    qiov.nalloc = alloc_hint
    qiov.size = 0


@traced
def qemu_iovec_init_external(qiov: QEMUIOVector, iov: list[iovec], niov: int) -> None:
    """Make `qiov` a vector over the caller's first `niov` pieces."""
    qiov.iov = iov
    qiov.niov = niov
    qiov.nalloc = -1
    qiov.size = sum(piece.iov_len for piece in iov[:niov])


@traced
def qemu_iovec_add(qiov: QEMUIOVector, base: ReadBuffer, len: int) -> None:
    """Append the first `len` bytes of `base`; nothing is copied."""
    iov = _own(qiov)
    if qiov.niov == qiov.nalloc:
        qiov.nalloc = 2 * qiov.nalloc + 1
    iov.append(iovec(memoryview(base)[:len], len))
    qiov.size += len
    qiov.niov += 1


@traced
def qemu_iovec_concat(dst: QEMUIOVector, src: QEMUIOVector, size: int) -> None:
    """Append pieces of `src` to `dst` until `size` bytes are there, cutting the last piece."""
    _own(dst)
    done = 0
    for base, length in _pieces(src):
        if done == size:
            break
        qemu_iovec_add(dst, base, min(length, size - done))
        done = min(done + length, size)


@traced
def qemu_iovec_destroy(qiov: QEMUIOVector) -> None:
    """Give up the vector's list; the memory it points to is the caller's."""
    _own(qiov)
    qiov.iov = None


@traced
def qemu_iovec_reset(qiov: QEMUIOVector) -> None:
    """Empty the vector for reuse."""
    _own(qiov).clear()
    qiov.niov = 0
    qiov.size = 0


@traced
def qemu_iovec_to_buffer(qiov: QEMUIOVector, buf: WriteBuffer) -> None:
    """Copy all pieces, one after the other, into `buf`."""
    view = memoryview(buf)
    at = 0
    for base, length in _pieces(qiov):
        view[at : at + length] = base
        at += length


@traced
def qemu_iovec_from_buffer(qiov: QEMUIOVector, buf: ReadBuffer, count: int) -> None:
    """Spread the first `count` bytes of `buf` over the pieces."""
    view = memoryview(buf)[:count]
    at = 0
    for base, length in _pieces(qiov):
        part = view[at : at + length]
        base[: len(part)] = part
        at += length


def _own(qiov: QEMUIOVector) -> list[iovec]:
    assert qiov.nalloc != -1 and qiov.iov is not None, "this vector's iov belongs to its caller"
    return qiov.iov


def _pieces(qiov: QEMUIOVector) -> list[iovec]:
    return (qiov.iov or [])[: qiov.niov]
