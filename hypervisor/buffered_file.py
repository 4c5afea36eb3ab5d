"""A stream whose writer never waits and never sends more than so much a second: buffered_file.c.

What cannot be written now, because the other side does not take it or because this tenth of a second's share
is used up, is kept. A timer rings every 100 ms: the share begins anew, what was kept is written, and the
writer is told.

    QEMUFile --32 KiB--> buffered_put_buffer --> put_buffer: socket, pipe
                               |  -EAGAIN, or bytes_xfer > xfer_limit
                               v
                             buffer <-- buffered_rate_tick, buffered_put_buffer, buffered_close:
                             buffered_flush

- `qemu_fopen_ops_buffered(...)`: the stream.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any

from hypervisor import quirks
from hypervisor.savevm_file import SILENCE, QEMUFile, qemu_fopen_ops
from hypervisor.vl_timers import (
    QEMUTimer,
    qemu_del_timer,
    qemu_free_timer,
    qemu_get_clock,
    qemu_mod_timer,
    qemu_new_timer,
    rt_clock,
)
from tracer import Struct, traced

C_FILE = "buffered_file.c"

_TICK_MS = 100


class QEMUFileBuffered(Struct):
    """`QEMUFileBuffered`.

    Parameters
    ----------
    put_buffer
        `put_buffer(opaque, data, size)`: bytes written or -errno.
    put_ready
        `put_ready(opaque)`: more may be written.
    freeze_output : int
        The other side takes nothing now.
    bytes_xfer, xfer_limit : int
        Bytes written in this tenth of a second, and how many may be.
    """

    put_buffer: Callable[[Any, memoryview, int], int] | None = None
    put_ready: Callable[[Any], None] | None = None
    wait_for_unfreeze: Callable[[Any], None] | None = None
    close: Callable[[Any], int] | None = None
    opaque: Any = None
    file: QEMUFile | None = None
    has_error: int = 0
    freeze_output: int = 0
    bytes_xfer: int = 0
    xfer_limit: int = 0
    timer: QEMUTimer | None = None
    _kept: bytearray | None = None
    _moved: float = 0.0

    @property
    def kept(self) -> bytearray:
        """What could not be written yet."""
        assert self._kept is not None
        return self._kept

    @property
    def tick(self) -> QEMUTimer:
        """The timer of the tenths of a second."""
        assert self.timer is not None
        return self.timer


@traced
def buffered_append(s: QEMUFileBuffered, buf: memoryview, size: int) -> None:
    """Keep bytes for later."""
    s.kept.extend(buf[:size])


def _write(s: QEMUFileBuffered, data: memoryview) -> int:
    """Write some; 0 when there is nothing more to do, after noting why."""
    assert s.put_buffer is not None
    ret = s.put_buffer(s.opaque, data, len(data))
    if ret == -errno.EAGAIN:
        if not s.freeze_output:
            s._moved = time.monotonic()
        s.freeze_output = 1
        return 0
    if ret <= 0:
        s.has_error = 1
        return 0
    s._moved = time.monotonic()
    return ret


@traced
def buffered_flush(s: QEMUFileBuffered) -> None:
    """Write what was kept, as far as the other side takes it."""
    if s.has_error or not s.kept:
        return
    offset = 0
    with memoryview(s.kept) as kept:
        while offset < len(kept):
            done = _write(s, kept[offset:])
            if not done:
                break
            offset += done
    del s.kept[:offset]


@traced
def buffered_put_buffer(opaque: QEMUFileBuffered, buf: memoryview | None, pos: int, size: int) -> int:
    """Take bytes of the stream: write them or keep them."""
    s = opaque
    if s.has_error:
        return -errno.EINVAL
    s.freeze_output = 0
    buffered_flush(s)
    data = memoryview(b"") if buf is None else buf
    offset = 0
    while not s.freeze_output and offset < size and s.bytes_xfer <= s.xfer_limit:
        done = _write(s, data[offset:size])
        if s.has_error:
            return -errno.EINVAL
        offset += done
        s.bytes_xfer += done
    buffered_append(s, data[offset:], size - offset)
    return size


@traced
def buffered_close(opaque: QEMUFileBuffered) -> int:
    """Write all that was kept, waiting for the other side, and close."""
    s = opaque
    assert s.wait_for_unfreeze is not None and s.close is not None
    while not s.has_error and s.kept:
        buffered_flush(s)
        if s.freeze_output:
            s.wait_for_unfreeze(s.opaque)
    ret = s.close(s.opaque)
    qemu_del_timer(s.tick)
    qemu_free_timer(s.tick)
    return ret


@traced
def buffered_rate_limit(opaque: QEMUFileBuffered) -> int:
    """Whether no more should be written for now."""
    if opaque.has_error:
        return 0
    return int(opaque.freeze_output or opaque.bytes_xfer > opaque.xfer_limit)


@traced
def buffered_set_rate_limit(opaque: QEMUFileBuffered, new_rate: int) -> int:
    """Set how many bytes may be written in a second; what that is in a tenth."""
    if not opaque.has_error:
        opaque.xfer_limit = new_rate // 10
    return opaque.xfer_limit


@traced
def buffered_get_rate_limit(opaque: QEMUFileBuffered) -> int:
    """Bytes that may be written in a tenth of a second."""
    return opaque.xfer_limit


def is_stuck(s: QEMUFileBuffered) -> bool:
    """Whether the other side has taken nothing for long; the real program waits for ever."""
    return bool(s.freeze_output) and time.monotonic() - s._moved > SILENCE


@traced
def buffered_rate_tick(opaque: QEMUFileBuffered) -> None:
    """A new tenth of a second: go on writing."""
    s = opaque
    assert s.put_ready is not None
    if s.has_error:
        quirks.note(
            "buffered-error",
            "0.12.4 leaves a migration active for ever if its connection breaks between two ticks",
        )
        s.put_ready(s.opaque)
        return
    qemu_mod_timer(s.tick, qemu_get_clock(rt_clock) + _TICK_MS)
    if s.freeze_output:
        if is_stuck(s):
            s.has_error = 1
            s.put_ready(s.opaque)
        return
    s.bytes_xfer = 0
    buffered_flush(s)
    s.put_ready(s.opaque)


@traced
def qemu_fopen_ops_buffered(
    opaque: Any,
    bytes_per_sec: int,
    put_buffer: Callable[[Any, memoryview, int], int],
    put_ready: Callable[[Any], None],
    wait_for_unfreeze: Callable[[Any], None],
    close: Callable[[Any], int],
) -> QEMUFile:
    """Make a rate-limited stream."""
    s = QEMUFileBuffered(
        opaque=opaque,
        xfer_limit=bytes_per_sec // 10,
        put_buffer=put_buffer,
        put_ready=put_ready,
        wait_for_unfreeze=wait_for_unfreeze,
        close=close,
    )
    s._kept = bytearray()
    s._moved = time.monotonic()
    s.file = qemu_fopen_ops(
        s,
        buffered_put_buffer,
        None,
        buffered_close,
        buffered_rate_limit,
        buffered_set_rate_limit,
        buffered_get_rate_limit,
    )
    s.timer = qemu_new_timer(rt_clock, buffered_rate_tick, s)
    qemu_mod_timer(s.timer, qemu_get_clock(rt_clock) + _TICK_MS)
    return s.file
