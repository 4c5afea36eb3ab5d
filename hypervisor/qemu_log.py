"""QEMU's own log, which the monitor's `log` and `logfile` set up: a part of exec.c, and qemu-log.h.

- `cpu_set_log(log_flags)`, `cpu_set_log_filename(filename)`, `cpu_str_to_log_mask(str)`.
- `qemu_loglevel_mask(b)`, `qemu_log(fmt, *args)`: for who writes it.

What the accelerator does not show is known by name: see `hypervisor.guest_log`. A file that takes no more, on
a full disk say, ends the log and not the machine.
"""

from __future__ import annotations

import contextlib
import sys
from typing import IO, NamedTuple

from hypervisor.program import on_exit, on_reset
from tracer import traced

C_FILE = "exec.c"

DEFAULT_LOGFILE = "/tmp/qemu.log"
CPU_LOG_TB_IN_ASM, CPU_LOG_INT, CPU_LOG_EXEC = 1 << 1, 1 << 4, 1 << 5
CPU_LOG_TB_CPU, CPU_LOG_RESET = 1 << 8, 1 << 9


class CPULogItem(NamedTuple):
    """`CPULogItem`: something that can be logged."""

    mask: int
    name: str
    help: str


cpu_log_items = [
    CPULogItem(1 << 0, "out_asm", "show generated host assembly code for each compiled TB"),
    CPULogItem(CPU_LOG_TB_IN_ASM, "in_asm", "show target assembly code for each compiled TB"),
    CPULogItem(1 << 2, "op", "show micro ops for each compiled TB"),
    CPULogItem(1 << 3, "op_opt", "show micro ops before eflags optimization and after liveness analysis"),
    CPULogItem(CPU_LOG_INT, "int", "show interrupts/exceptions in short format"),
    CPULogItem(CPU_LOG_EXEC, "exec", "show trace before each executed TB (lots of logs)"),
    CPULogItem(CPU_LOG_TB_CPU, "cpu", "show CPU state before block translation"),
    CPULogItem(1 << 6, "pcall", "show protected mode far calls/returns/exceptions"),
    CPULogItem(CPU_LOG_RESET, "cpu_reset", "show CPU state before CPU resets"),
]

_loglevel = 0
_filename = DEFAULT_LOGFILE
_file: IO[str] | None = None
_append = False


@on_reset
@on_exit
def _reset() -> None:
    global _loglevel, _filename, _append
    _close()
    _loglevel, _filename, _append = 0, DEFAULT_LOGFILE, False


def _close() -> None:
    """Close the file; what it does not take any more is lost."""
    global _file
    if _file is not None:
        file, _file = _file, None
        with contextlib.suppress(OSError):
            file.close()


def qemu_loglevel_mask(b: int) -> bool:
    """Whether an item is logged (a macro of qemu-log.h)."""
    return bool(_loglevel & b)


def qemu_log(fmt: str, *args: object) -> None:
    """Write to the log (a macro of qemu-log.h)."""
    global _loglevel
    if _file is None:
        return
    try:
        _file.write(fmt % args if args else fmt)
    except OSError as error:
        _loglevel = 0
        _close()
        print(f"studykvm: {_filename}: {error.strerror}; nothing more is logged", file=sys.stderr)


@traced
def cpu_set_log(log_flags: int) -> None:
    """Log these items, opening the file with the first of them; raises OSError."""
    global _loglevel, _file, _append
    if log_flags and _file is None:
        _file = open(_filename, "a" if _append else "w", buffering=1)
        _append = True
    elif not log_flags:
        _close()
    _loglevel = log_flags


@traced
def cpu_set_log_filename(filename: str) -> None:
    """Log to another file; raises OSError."""
    global _filename
    _filename = filename
    _close()
    cpu_set_log(_loglevel)


@traced
def cpu_str_to_log_mask(str: str) -> int:
    """Bits of a list of items, all for "all"; 0 if one is unknown."""
    mask = 0
    for name in str.split(","):
        found = [item.mask for item in cpu_log_items if name in (item.name, "all")]
        if not found:
            return 0
        for bit in found:
            mask |= bit
    return mask
