"""Descriptors and aligned memory: osdep.c as far as used.

- ``qemu_open(name, flags, mode)``: a descriptor; raises OSError where C returns -1
- ``qemu_memalign(alignment, size)``: a zeroed, writable, aligned memoryview, fit for O_DIRECT
- ``close_fd(fd)``: ours; what is opened here and not closed is closed when the program ends
- ``address(view)``: ours; where a writable buffer lies, to see whether it is aligned
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os

from hypervisor.block_int import ReadBuffer
from hypervisor.program import on_exit
from tracer import traced

C_FILE = "osdep.c"

_open_fds: set[int] = set()


class _Aligned(bytearray):
    """Memory of `qemu_memalign`."""


@traced
def qemu_memalign(alignment: int, size: int) -> memoryview:
    """`size` zero bytes at an address that is a multiple of `alignment` (a power of two)."""
    if alignment <= 16:
        return memoryview(bytearray(size))
    block = _Aligned(size + alignment)
    start = -address(block) % alignment
    return memoryview(block)[start : start + size]


@traced
def qemu_vfree(ptr: object) -> None:
    """Free aligned memory; Python does, when the last view of it goes."""


@traced
def qemu_set_cloexec(fd: int) -> None:
    """Have `fd` closed in programs that this one starts."""
    fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.fcntl(fd, fcntl.F_GETFD) | fcntl.FD_CLOEXEC)


@traced
def qemu_create_pidfile(filename: str) -> int:
    """Write the number of this process to a file that stays locked as long as it runs.

    Raises
    ------
    OSError
        Where C returns -1 and sets errno.
    """
    fd = qemu_open(filename, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.write(fd, f"{os.getpid()}\n".encode())
    return 0


@traced
def qemu_open(name: str, flags: int, mode: int = 0) -> int:
    """Open a file with FD_CLOEXEC set.

    Raises
    ------
    OSError
        Where C returns -1 and sets errno.
    """
    fd = os.open(name, flags | os.O_CLOEXEC, mode)
    _open_fds.add(fd)
    return fd


def close_fd(fd: int) -> None:
    """Close a descriptor that came from here."""
    _open_fds.discard(fd)
    os.close(fd)


def adopt_fd(fd: int) -> int:
    """Have `fd` closed at the end of the program too; returns it."""
    _open_fds.add(fd)
    return fd


def address(buffer: ReadBuffer) -> int:
    """The address of a buffer's first byte; 1 (never aligned) for memory that C would have from malloc."""
    view = memoryview(buffer)
    if view.readonly or not view.nbytes or not isinstance(view.obj, (_Aligned, mmap.mmap)):
        return 1
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


@on_exit
def _close_leftovers() -> None:
    while _open_fds:
        with contextlib.suppress(OSError):
            os.close(_open_fds.pop())
