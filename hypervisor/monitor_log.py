"""`log` and `logfile`: a part of monitor.c.

What is logged: see `hypervisor.qemu_log`.
"""

from __future__ import annotations

from hypervisor import qemu_log as log
from hypervisor.cpu_exec import CPUState
from hypervisor.monitor import Arguments, Monitor, monitor_printf
from tracer import traced

C_FILE = "monitor.c"


def log_cpu_state(env: CPUState) -> None:
    """Write the processor into the log (a macro of qemu-log.h)."""
    from hypervisor.monitor_cpu import X86_DUMP_FPU, cpu_dump_state

    cpu_dump_state(env, None, lambda f, fmt, *args: log.qemu_log(fmt, *args), X86_DUMP_FPU)


@traced
def do_logfile(mon: Monitor, qdict: Arguments) -> None:
    """Obey `logfile`."""
    log.cpu_set_log_filename(qdict["filename"])


@traced
def do_log(mon: Monitor, qdict: Arguments) -> None:
    """Obey `log`."""
    from hypervisor.monitor_info import help_cmd

    items = qdict["items"]
    mask = 0 if items == "none" else log.cpu_str_to_log_mask(items)
    if not mask and items != "none":
        help_cmd(mon, "log")
        return
    if mask & ~log.CPU_LOG_RESET:
        monitor_printf(mon, "the model translates no code: of the items it logs cpu_reset alone\n")
    log.cpu_set_log(mask)
