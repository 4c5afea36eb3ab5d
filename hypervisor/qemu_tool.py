"""What qemu-img and qemu-io link instead of the emulator's functions: qemu-tool.c.

The tools have no main loop, so a bottom half runs where it is scheduled, and contexts are nothing.
Shared code reaches these through ``hypervisor.program.linked``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from tracer import Struct, traced

C_FILE = "qemu-tool.c"

rt_clock = None
"""There is one clock, whichever is asked for."""


class QEMUBH(Struct):
    """A bottom half of the tools (qemu-tool.c)."""

    cb: Callable[[Any], None] | None = None
    opaque: Any = None


@traced
def monitor_printf(mon: Any, fmt: str, *args: Any) -> None:
    """Print on the monitor: the tools have none."""


@traced
def monitor_print_filename(mon: Any, filename: str) -> None:
    """Print a file name on the monitor: the tools have none."""


@traced
def async_context_push() -> None:
    """Nothing: the tools have one context."""


@traced
def async_context_pop() -> None:
    """Nothing: the tools have one context."""


@traced
def get_async_context_id() -> int:
    """Always 0."""
    return 0


@traced
def qemu_bh_new(cb: Callable[[Any], None], opaque: Any) -> QEMUBH:
    """A bottom half, to be scheduled."""
    bh = QEMUBH()
    bh.cb = cb
    bh.opaque = opaque
    return bh


@traced
def qemu_bh_poll() -> int:
    """Always 0: nothing is ever left to run."""
    return 0


@traced
def qemu_bh_schedule(bh: QEMUBH) -> None:
    """Run the bottom half at once."""
    assert bh.cb is not None
    bh.cb(bh.opaque)


@traced
def qemu_bh_cancel(bh: QEMUBH) -> None:
    """Nothing: it has run already."""


@traced
def qemu_bh_delete(bh: QEMUBH) -> None:
    """Free the bottom half."""


@traced
def qemu_set_fd_handler2(
    fd: int,
    fd_read_poll: Callable[[Any], int] | None,
    fd_read: Callable[[Any], None] | None,
    fd_write: Callable[[Any], None] | None,
    opaque: Any,
) -> int:
    """Nothing: there is no main loop to watch `fd`."""
    return 0


@traced
def qemu_get_clock(clock: Any) -> int:
    """Wall time in milliseconds."""
    return time.time_ns() // 1_000_000


@traced
def qemu_error(fmt: str, *args: Any) -> None:
    """Print an error on stderr."""
    sys.stderr.write(fmt % args if args else fmt)
