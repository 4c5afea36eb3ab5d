"""-icount: time by counting the guest's instructions, so that a run repeats exactly. Ours but for the option.

In 0.12.4 the option makes the guest's clock count instructions, while the host's clocks and threads go on as
they like. Here all clocks come from the count, and a request to the disk is done before its submission
returns: two runs from the same images with the same input make the same calls with the same arguments.
While the guest waits, time passes as fast as the host's, but in steps that the next timer says.

- `start(shift)`: count, 2 ** `shift` nanoseconds an instruction; "auto" is `AUTO_SHIFT`, and stays so.
- `enabled()`, `now()`, `pass_by(nanoseconds)`.
- `monotonic_ns()`, `time_ns()`: the host's clocks, or what stands in for them.
- `settle()`: wait until no worker has anything to do.
"""

from __future__ import annotations

import time

from hypervisor.program import on_reset
from hypervisor.vl_state import state

AUTO_SHIFT = 3
_EPOCH_NS = 1_274_000_000 * 10**9
_LOOK_SECONDS = 0.00002

_shift = -1
_passed = 0


@on_reset
def _reset() -> None:
    global _shift, _passed
    _shift, _passed = -1, 0


def start(shift: int) -> None:
    """Count from now on."""
    global _shift
    _shift = shift


def enabled() -> bool:
    """Whether time is counted."""
    return _shift >= 0


def now() -> int:
    """Nanoseconds since the start: those of the instructions, and those that passed by."""
    cpu = state.first_cpu
    executed = getattr(cpu.accel, "executed", 0) if cpu is not None and cpu._accel is not None else 0
    return (executed << _shift) + _passed


def pass_by(nanoseconds: int) -> None:
    """Let time pass without instructions."""
    global _passed
    _passed += nanoseconds


def monotonic_ns() -> int:
    """The host's monotonic clock, in nanoseconds."""
    return now() if enabled() else time.monotonic_ns()


def time_ns() -> int:
    """The host's time of day, in nanoseconds since 1970; when counting, always from the same moment on."""
    return _EPOCH_NS + now() if enabled() else time.time_ns()


def settle() -> None:
    """Wait, when counting, until all workers wait for requests."""
    from hypervisor.posix_aio_thread import cond, pool

    while enabled() and not pool.stopping and (pool.request_list or len(cond.waiters) < pool.cur_threads):
        time.sleep(_LOOK_SECONDS)
