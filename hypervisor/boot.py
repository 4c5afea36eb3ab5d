"""Running the emulator from Python.

- `run_boot(argv, timeout=None) -> BootResult`: one run of the emulator, from its options to its end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hypervisor import bios, disk_errors, quirks, vl
from hypervisor import vl_timers as timers
from hypervisor.program import program
from hypervisor.vl_state import state

PROGRAM = "qemu-system-x86_64"


@dataclass(frozen=True)
class BootResult:
    """How a run ended.

    Parameters
    ----------
    status : int
        What the program's exit status would be.
    reason : str
        "guest" (it switched the machine off), "quit" (the monitor), "signal", "timeout",
        "stuck" (nothing to boot, or a full disk, and no monitor), or "options" when the machine never ran.
    screen : str
        The text screen, as it was at the end.
    notes : dict
        Oddities of the real program that the run met, key to text.
    failures : tuple of str
        Disk requests that failed, see `hypervisor.disk_errors`; then `status` is 1.
    """

    status: int
    reason: str
    screen: str
    notes: dict[str, str]
    failures: tuple[str, ...] = ()


def run_boot(argv: list[str], timeout: float | None = None) -> BootResult:
    """Run the emulator.

    Parameters
    ----------
    argv
        Options in QEMU's spelling, without the program's name.
    timeout
        Seconds after which the machine is switched off.

    Raises
    ------
    HypervisorError
        An option or a guest that the model is not up to.
    """
    with program(PROGRAM), _deadline(timeout):
        try:
            status = vl.main([PROGRAM, *argv])
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
        reason = state.exit_reason or "options"
        failures = tuple(disk_errors.report())
        if reason == "stuck" or failures:
            status = status or 1
        return BootResult(status, reason, bios.screen_text(), quirks.notes(), failures)


@contextmanager
def _deadline(timeout: float | None) -> Iterator[None]:
    if timeout is None:
        yield
        return

    def give_up() -> None:
        state.exit_reason = "timeout"
        state.shutdown_requested = 1
        if state.first_cpu is not None:
            state.first_cpu.exit_request = 1
        timers._wake()

    timer = threading.Timer(timeout, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
