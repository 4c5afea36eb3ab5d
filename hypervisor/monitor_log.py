"""`log` and `logfile`: a part of monitor.c.

What is logged: see `hypervisor.qemu_log`.
"""

from __future__ import annotations

from hypervisor import qemu_log as log
from hypervisor.cpu_exec import CPUState
from hypervisor.kvm_all import kvm_enabled
from hypervisor.monitor import Arguments, Monitor, mon_get_cpu, monitor_printf
from tracer import traced

C_FILE = "monitor.c"

_BY_KVM = log.CPU_LOG_RESET
_BY_UNICORN = _BY_KVM | log.CPU_LOG_TB_IN_ASM | log.CPU_LOG_INT | log.CPU_LOG_EXEC | log.CPU_LOG_TB_CPU


def log_cpu_state(env: CPUState, flags: int) -> None:
    """Write the processor into the log (a macro of qemu-log.h); `flags` as of `cpu_dump_state`."""
    from hypervisor.monitor_cpu import cpu_dump_state

    cpu_dump_state(env, None, lambda f, fmt, *args: log.qemu_log(fmt, *args), flags)


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
    env = mon_get_cpu()
    kvm = kvm_enabled()
    lacking = [
        item.name for item in log.cpu_log_items if item.mask & mask & ~(_BY_KVM if kvm else _BY_UNICORN)
    ]
    if lacking:
        name = "KVM" if kvm else "unicorn"
        monitor_printf(mon, "%s does not show what these log: %s\n", name, ", ".join(lacking))
    log.cpu_set_log(mask)
    if env is not None and not kvm:
        from hypervisor.guest_log import watch

        watch(env, mask)
