"""Commands on the processor as such, and its watchers: a part of monitor.c.

nmi, mce, cpu_set, singlestep, gdbserver, watchdog_action.
"""

from __future__ import annotations

from hypervisor.cpu_exec import CPU_INTERRUPT_NMI, cpu_interrupt
from hypervisor.hw.acpi_hotplug import qemu_system_cpu_hot_add
from hypervisor.kvm_all import kvm_enabled
from hypervisor.monitor import Arguments, Monitor, monitor_printf
from hypervisor.vl_state import state
from tracer import traced

C_FILE = "monitor.c"

_WATCHDOG_ACTIONS = ("reset", "shutdown", "poweroff", "pause", "debug", "none")


@traced
def do_inject_nmi(mon: Monitor, qdict: Arguments) -> None:
    """Obey `nmi`: give a processor the interrupt that it cannot refuse."""
    env = state.first_cpu
    if env is None or env.cpu_index != qdict["cpu_index"]:
        return
    if kvm_enabled():
        from hypervisor.qemu_kvm_vcpu import kvm_inject_interrupt

        kvm_inject_interrupt(env, CPU_INTERRUPT_NMI)
    else:
        cpu_interrupt(env, CPU_INTERRUPT_NMI)


@traced
def do_inject_mce(mon: Monitor, qdict: Arguments) -> None:
    """Obey `mce`: a processor that is not there hears nothing, the model's cannot report errors."""
    if state.first_cpu is not None and state.first_cpu.cpu_index == qdict["cpu_index"]:
        monitor_printf(mon, "mce: the model's processor has no machine-check registers\n")


@traced
def do_cpu_set_nr(mon: Monitor, qdict: Arguments) -> None:
    """Obey `cpu_set`."""
    if qdict["state"] not in ("online", "offline"):
        monitor_printf(mon, "invalid status: %s\n", qdict["state"])
    elif qdict["cpu"] != 0:
        monitor_printf(mon, "cpu_set: the model has processor 0 only\n")
    else:
        qemu_system_cpu_hot_add(0, int(qdict["state"] == "online"))


@traced
def do_singlestep(mon: Monitor, qdict: Arguments) -> None:
    """Obey `singlestep`: `info status` tells of it; the model translates nothing, so nothing is slower."""
    option = qdict.get("option", "on")
    if option in ("on", "off"):
        state.singlestep = int(option == "on")
    else:
        monitor_printf(mon, "unexpected option %s\n", option)


@traced
def do_gdbserver(mon: Monitor, qdict: Arguments) -> None:
    """Obey `gdbserver`: the model has none, so that it can be switched off only."""
    device = qdict.get("device", "tcp::1234")
    if device == "none":
        monitor_printf(mon, "Disabled gdbserver\n")
    else:
        monitor_printf(mon, "the model has no gdbserver\n")
        monitor_printf(mon, "Could not open gdbserver on device '%s'\n", device)


@traced(file="hw/watchdog.c")
def select_watchdog_action(p: str) -> int:
    """Choose what an expired watchdog does, of which the model has none; 0, or -1 for no such action."""
    if p.lower() not in _WATCHDOG_ACTIONS:
        return -1
    state.watchdog_action = p.lower()
    return 0


@traced
def do_watchdog_action(mon: Monitor, qdict: Arguments) -> None:
    """Obey `watchdog_action`."""
    if select_watchdog_action(qdict["action"]) == -1:
        monitor_printf(mon, "Unknown watchdog action '%s'\n", qdict["action"])
