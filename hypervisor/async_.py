"""Bottom halves and the contexts that keep requests apart: async.c, linked into the emulator.

A bottom half is a callback to be run soon, from the main loop. A synchronous read emulated by an
asynchronous one (`bdrv_read_em`) enters a context of its own, so that waiting for it runs no callback of
others; completions of other contexts stay queued until theirs is active again.

::

    async_context ─► AsyncContext(id=1, first_bh ─► QEMUBH ─► ...) ─ parent ─► AsyncContext(id=0, ...)

The tools link the empty versions of qemu-tool.c: shared code calls ``linked.qemu_bh_new`` and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypervisor.aio import qemu_aio_process_queue
from hypervisor.program import linked, on_reset
from tracer import Struct, traced

C_FILE = "async.c"


class QEMUBH(Struct):
    """A bottom half (async.c)."""

    cb: Callable[[Any], None] | None = None
    opaque: Any = None
    scheduled: int = 0
    idle: int = 0
    deleted: int = 0
    next: QEMUBH | None = None


class AsyncContext(Struct):
    """One level of the stack of contexts (async.c)."""

    id: int = 0
    first_bh: QEMUBH | None = None
    parent: AsyncContext | None = None


_active = AsyncContext()


@on_reset
def _reset() -> None:
    global _active
    _active = AsyncContext()


@traced
def async_context_push() -> None:
    """Enter a new context: what is scheduled now waits until it is left."""
    global _active
    new = AsyncContext()
    new.parent = _active
    new.id = _active.id + 1
    _active = new


@traced
def bh_run_aio_completions(opaque: Any) -> None:
    """Run the completions that were kept back, once; `opaque` holds this bottom half."""
    qemu_bh_delete(opaque[0])
    qemu_aio_process_queue()


@traced
def async_context_pop() -> None:
    """Leave a context after running its bottom halves, and see to completions kept back."""
    global _active
    while qemu_bh_poll():
        pass
    assert _active.parent is not None, "async_context_pop() without async_context_push()"
    _active = _active.parent
    bh: list[QEMUBH] = []
    bh.append(qemu_bh_new(bh_run_aio_completions, bh))
    qemu_bh_schedule(bh[0])


@traced
def get_async_context_id() -> int:
    """The depth of the active context, 0 outside any."""
    return _active.id


@traced
def qemu_bh_new(cb: Callable[[Any], None], opaque: Any) -> QEMUBH:
    """A bottom half of the active context, not scheduled yet."""
    bh = QEMUBH()
    bh.cb = cb
    bh.opaque = opaque
    bh.next = _active.first_bh
    _active.first_bh = bh
    return bh


@traced
def qemu_bh_poll() -> int:
    """Run what is scheduled in the active context; 1 if anything other than idle work ran."""
    context = _active
    ret = 0
    bh = context.first_bh
    while bh is not None:
        if not bh.deleted and bh.scheduled:
            bh.scheduled = 0
            if not bh.idle:
                ret = 1
            bh.idle = 0
            assert bh.cb is not None
            bh.cb(bh.opaque)
        bh = bh.next
    _unlink_deleted(context)
    return ret


def _unlink_deleted(context: AsyncContext) -> None:
    before: QEMUBH | None = None
    bh = context.first_bh
    while bh is not None:
        if not bh.deleted:
            before = bh
        elif before is None:
            context.first_bh = bh.next
        else:
            before.next = bh.next
        bh = bh.next


@traced
def qemu_bh_schedule_idle(bh: QEMUBH) -> None:
    """Have `bh` run when there is time: within 10 ms."""
    if not bh.scheduled:
        bh.scheduled = 1
        bh.idle = 1


@traced
def qemu_bh_schedule(bh: QEMUBH) -> None:
    """Have `bh` run as soon as possible: the CPU is asked to stop for it."""
    if bh.scheduled:
        return
    bh.scheduled = 1
    bh.idle = 0
    linked.qemu_notify_event()


@traced
def qemu_bh_cancel(bh: QEMUBH) -> None:
    """Take back a schedule."""
    bh.scheduled = 0


@traced
def qemu_bh_delete(bh: QEMUBH) -> None:
    """Have the next poll remove `bh`."""
    bh.scheduled = 0
    bh.deleted = 1


@traced
def qemu_bh_update_timeout(timeout: int) -> int:
    """How long the main loop may sleep in ms, given `timeout` and what is scheduled."""
    bh = _active.first_bh
    while bh is not None:
        if not bh.deleted and bh.scheduled:
            if not bh.idle:
                return 0
            timeout = min(10, timeout)
        bh = bh.next
    return timeout
