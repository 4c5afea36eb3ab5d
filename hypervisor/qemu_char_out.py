"""Output to descriptors whose other end may be slow; not a part of QEMU.

0.12.4 writes again and again until everything is gone, and the machine stands until then. Here a write never
waits: what the other end does not take is kept, up to a limit, and goes out when select() says so.

- `put(fd, data) -> bool`: write now or later; False when the other end is gone, or `LIMIT` bytes wait.
- `pending(fd)`: how many bytes wait.
- `flush(fd) -> bool`: write what waits, as far as it goes; called when the descriptor is writable.
- `forget(fd)`: drop what waits, before the descriptor is closed.
- `drain(fd, seconds)`: at the program's end, give the last words a moment to leave.
"""

from __future__ import annotations

import os
import select
import time
from typing import Final

from hypervisor.program import on_reset

LIMIT: Final = 1 << 20
"""Most bytes that wait for one descriptor: several screens of `info`, and no danger to memory."""

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
    queue = _waiting.get(fd)
    if queue is None:
        done = _write(fd, data)
        if done < 0:
            return False
        if done == len(data):
            return True
        queue = _waiting[fd] = bytearray()
        data = memoryview(data)[done:]
    if len(queue) + len(data) > LIMIT:
        return False
    queue += data
    return True


def pending(fd: int) -> int:
    """How many bytes wait for a descriptor."""
    return len(_waiting.get(fd, b""))


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


def drain(fd: int, seconds: float = 0.5) -> None:
    """Write what waits, for a moment at most."""
    end = time.monotonic() + seconds
    while pending(fd) and time.monotonic() < end:
        if select.select([], [fd], [], max(0, end - time.monotonic()))[1] and not flush(fd):
            return
