"""Output to descriptors whose other end may be slow; not a part of QEMU.

0.12.4 writes again and again until everything is gone, and the machine stands until then. Here a write never
waits: what the other end does not take is kept, up to a limit, and goes out when select() says so.

- `put(fd, data) -> bool`: write now or later; False when the other end is gone, or `LIMIT` bytes wait.
- `pending(fd)`: how many bytes wait; `is_behind(fd)`: so many that nothing more should be asked for.
- `flush(fd) -> bool`: write what waits, as far as it goes; called when the descriptor is writable.
- `forget(fd)`: drop what waits, before the descriptor is closed.
- `drain(fd, seconds, down_to)`: give what waits a moment to leave, as at the program's end.
"""

from __future__ import annotations

import os
import select
import time
from typing import Final

from hypervisor.program import on_reset

LIMIT: Final = 1 << 18
"""Most bytes that wait for one descriptor: several screens of `info`, and no danger to memory."""
_BEHIND: Final = 1 << 16
_PATIENCE: Final = 0.5
"""Seconds that one write may wait for the other end to make room below the limit."""

_waiting: dict[int, bytearray] = {}


@on_reset
def _reset() -> None:
    _waiting.clear()


def _write(fd: int, data: bytes | bytearray | memoryview) -> int:
    """How many bytes the descriptor took; -1 when it takes no more at all."""
    try:
        return os.write(fd, data)
    except (BlockingIOError, InterruptedError):
        return 0
    except OSError:
        return -1


def put(fd: int, data: bytes | memoryview) -> bool:
    """Write now or later; False when the other end is gone or too slow."""
    if fd not in _waiting:
        done = _write(fd, data)
        if done < 0:
            return False
        if done == len(data):
            return True
        _waiting[fd] = bytearray()
        data = memoryview(data)[done:]
    if pending(fd) + len(data) > LIMIT:
        drain(fd, _PATIENCE, LIMIT - len(data))
    if pending(fd) + len(data) > LIMIT:
        return False
    _waiting.setdefault(fd, bytearray()).extend(data)
    return True


def pending(fd: int) -> int:
    """How many bytes wait for a descriptor."""
    return len(_waiting.get(fd, b""))


def is_behind(fd: int) -> bool:
    """Whether so much waits that the other end should be asked nothing more."""
    return pending(fd) > _BEHIND


def flush(fd: int) -> bool:
    """Write what waits, as far as it goes; False when the other end is gone."""
    queue = _waiting.get(fd)
    if queue is None:
        return True
    done = _write(fd, queue)
    if done < 0:
        forget(fd)
        return False
    del queue[:done]
    if not queue:
        forget(fd)
    return True


def forget(fd: int) -> None:
    """Drop what waits for a descriptor."""
    _waiting.pop(fd, None)


def drain(fd: int, seconds: float = 0.5, down_to: int = 0) -> None:
    """Write until no more than `down_to` bytes wait, for a moment at most."""
    end = time.monotonic() + seconds
    while pending(fd) > max(down_to, 0) and time.monotonic() < end:
        if select.select([], [fd], [], max(0, end - time.monotonic()))[1] and not flush(fd):
            return
