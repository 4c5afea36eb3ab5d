"""Waiting for asynchronous requests: aio.c.

Whoever completes requests out of sight (the worker threads of posix-aio-compat.c) registers a descriptor
here. `qemu_aio_wait` sleeps until one of them is readable and runs its handler; `qemu_aio_flush` until no
request is left.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from hypervisor.program import linked, on_reset
from tracer import Struct, traced

C_FILE = "aio.c"


class AioHandler(Struct):
    """One descriptor and what to do about it (aio.c)."""

    fd: int = -1
    io_read: Callable[[Any], None] | None = None
    io_write: Callable[[Any], None] | None = None
    io_flush: Callable[[Any], int] | None = None
    io_process_queue: Callable[[Any], int] | None = None
    deleted: int = 0
    opaque: Any = None


_aio_handlers: list[AioHandler] = []
_walking_handlers = False


@on_reset
def _reset() -> None:
    global _walking_handlers
    _aio_handlers.clear()
    _walking_handlers = False


@traced
def find_aio_handler(fd: int) -> AioHandler | None:
    """The live handler of `fd`."""
    for node in _aio_handlers:
        if node.fd == fd and not node.deleted:
            return node
    return None


def _forget(node: AioHandler) -> None:
    # Whoever goes through the list takes it out later.
    if _walking_handlers:
        node.deleted = 1
    else:
        _aio_handlers.remove(node)


@traced
def qemu_aio_set_fd_handler(
    fd: int,
    io_read: Callable[[Any], None] | None,
    io_write: Callable[[Any], None] | None,
    io_flush: Callable[[Any], int] | None,
    io_process_queue: Callable[[Any], int] | None,
    opaque: Any,
) -> int:
    """Register, change or (with neither `io_read` nor `io_write`) remove the handlers of `fd`.

    Parameters
    ----------
    io_flush
        Returns 1 while requests are outstanding.
    io_process_queue
        Runs the callbacks of completed requests that the active context allows; 1 if it ran any.
    """
    node = find_aio_handler(fd)
    if io_read or io_write:
        if node is None:
            node = AioHandler(fd=fd)
            _aio_handlers.insert(0, node)
        node.io_read, node.io_write, node.io_flush = io_read, io_write, io_flush
        node.io_process_queue, node.opaque = io_process_queue, opaque
    elif node is not None:
        _forget(node)
    linked.qemu_set_fd_handler2(fd, None, io_read, io_write, opaque)
    return 0


@traced
def qemu_aio_flush() -> None:
    """Wait until every request is complete or cancelled."""
    while True:
        ret = 0
        qemu_aio_wait()
        for node in list(_aio_handlers):
            assert node.io_flush is not None
            ret |= node.io_flush(node.opaque)
        if not (linked.qemu_bh_poll() or ret > 0):
            return


@traced
def qemu_aio_process_queue() -> int:
    """Run the callbacks of completed requests that the active context allows; 1 if any ran."""
    global _walking_handlers
    ret = 0
    _walking_handlers = True
    for node in list(_aio_handlers):
        if node.io_process_queue is not None and node.io_process_queue(node.opaque):
            ret = 1
    _walking_handlers = False
    return ret


@traced
def qemu_aio_wait() -> None:
    """Let something happen: run bottom halves, queued completions, or sleep until one comes."""
    global _walking_handlers
    if linked.qemu_bh_poll() or qemu_aio_process_queue():
        return
    waiter = select.poll()
    busy = False
    _walking_handlers = True
    for node in _aio_handlers:
        # Without this a wait with nothing outstanding would never end.
        if node.io_flush is not None and node.io_flush(node.opaque) == 0:
            continue
        mask = (select.POLLIN if node.io_read else 0) | (select.POLLOUT if node.io_write else 0)
        if not node.deleted and mask:
            waiter.register(node.fd, mask)
            busy = True
    _walking_handlers = False
    if not busy:
        return
    ready = dict(waiter.poll())
    _walking_handlers = True
    for node in list(_aio_handlers):
        events = ready.get(node.fd, 0)
        if not node.deleted and node.io_read is not None and events & ~select.POLLOUT:
            node.io_read(node.opaque)
        if not node.deleted and node.io_write is not None and events & select.POLLOUT:
            node.io_write(node.opaque)
        if node.deleted:
            _aio_handlers.remove(node)
    _walking_handlers = False
