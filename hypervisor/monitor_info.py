"""`help`, `info` and what `info` knows of the program itself: a part of monitor.c.

`info ITEM` calls the item's function in `info_cmds`; QMP calls it as `query-ITEM`. Functions that return
their result have a second one beside them that prints it for humans.
"""

from __future__ import annotations

from typing import Any

from hypervisor.monitor import Arguments, Monitor, monitor_ctrl_mode, monitor_handler_ported, monitor_printf
from hypervisor.monitor import qemu_error_new as error
from hypervisor.monitor_commands import Command, info_cmds, mon_cmds
from hypervisor.monitor_parse import compare_cmd
from hypervisor.qerror import QERR_COMMAND_NOT_FOUND
from hypervisor.readline import readline_get_history
from hypervisor.version import QEMU_PKGVERSION, QEMU_VERSION
from hypervisor.vl_state import state
from tracer import traced

C_FILE = "monitor.c"


@traced
def monitor_user_noop(mon: Monitor, data: Any) -> None:
    """Print nothing."""


@traced
def help_cmd_dump(mon: Monitor, cmds: list[Command], prefix: str, name: str | None) -> None:
    """Print one line a command, or the one of `name`; those that the model lacks are marked."""
    for cmd in cmds:
        if name is None or name == cmd.name:
            lacking = "" if cmd.is_modelled() else " (not in the model)"
            monitor_printf(mon, "%s%s %s -- %s%s\n", prefix, cmd.name, cmd.params, cmd.help, lacking)


@traced
def help_cmd(mon: Monitor, name: str | None) -> None:
    """Print the commands, or what can follow `info`, or the items of `log`."""
    if name == "info":
        help_cmd_dump(mon, info_cmds, "info ", None)
        return
    help_cmd_dump(mon, mon_cmds, "", name)
    if name == "log":
        from hypervisor.qemu_log import cpu_log_items

        monitor_printf(mon, "Log items (comma separated):\n")
        monitor_printf(mon, "%-10s %s\n", "none", "remove all logs")
        for item in cpu_log_items:
            monitor_printf(mon, "%-10s %s\n", item.name, item.help)


@traced
def do_help_cmd(mon: Monitor, qdict: Arguments) -> None:
    """Obey `help`."""
    help_cmd(mon, qdict.get("name"))


@traced
def do_info(mon: Monitor, qdict: Arguments) -> Any:
    """Obey `info`, or `query-...` of QMP; the result, if the item has one."""
    item = qdict.get("item")
    if item is None:
        help_cmd(mon, "info")
        return None
    cmd = next((cmd for cmd in info_cmds if compare_cmd(item, cmd.name)), None)
    if monitor_ctrl_mode(mon):
        if cmd is None or not monitor_handler_ported(cmd) or not cmd.is_modelled():
            error(QERR_COMMAND_NOT_FOUND, name=item)
            return None
        return cmd.handler()(mon)
    if cmd is None:
        help_cmd(mon, "info")
    elif not cmd.is_modelled():
        monitor_printf(mon, "info %s: the model has no such command\n", item)
    elif not monitor_handler_ported(cmd):
        cmd.handler()(mon)
    else:
        data = cmd.handler()(mon)
        if data is not None and cmd.user_print is not None:
            cmd.user_print(mon, data)
        return data
    return None


@traced
def do_info_version_print(mon: Monitor, data: dict[str, Any]) -> None:
    """Print the version."""
    monitor_printf(mon, "%s%s\n", data["qemu"], data["package"])


@traced
def do_info_version(mon: Monitor) -> dict[str, Any]:
    """The version: keys qemu, package."""
    return {"qemu": QEMU_VERSION, "package": QEMU_PKGVERSION}


@traced
def do_info_name_print(mon: Monitor, data: dict[str, Any]) -> None:
    """Print the machine's name, if it has one."""
    if data:
        monitor_printf(mon, "%s\n", data["name"])


@traced
def do_info_name(mon: Monitor) -> dict[str, Any]:
    """The machine's name: key name, missing without one."""
    return {"name": state.qemu_name} if state.qemu_name else {}


@traced
def get_cmd_dict(name: str) -> dict[str, Any]:
    """A command of QMP: key name, the last of several."""
    return {"name": name.rpartition("|")[2]}


@traced
def do_info_commands(mon: Monitor) -> list[dict[str, Any]]:
    """All commands of QMP: key name each."""
    found = [cmd.name for cmd in mon_cmds if _in_qmp(cmd) and not compare_cmd(cmd.name, "info")]
    found += [f"query-{cmd.name}" for cmd in info_cmds if _in_qmp(cmd)]
    return [get_cmd_dict(name) for name in found]


def _in_qmp(cmd: Command) -> bool:
    return bool(monitor_handler_ported(cmd)) and cmd.is_modelled()


@traced
def do_info_hpet_print(mon: Monitor, data: dict[str, Any]) -> None:
    """Print whether there is a HPET."""
    monitor_printf(mon, "HPET is %s by QEMU\n", "enabled" if data["enabled"] else "disabled")


@traced
def do_info_hpet(mon: Monitor) -> dict[str, Any]:
    """Whether there is a HPET: key enabled. The model has none."""
    return {"enabled": False}


@traced
def do_info_uuid_print(mon: Monitor, data: dict[str, Any]) -> None:
    """Print the machine's UUID."""
    monitor_printf(mon, "%s\n", data["UUID"])


@traced
def do_info_uuid(mon: Monitor) -> dict[str, Any]:
    """The machine's UUID: key UUID; all zeros without one."""
    import uuid

    return {"UUID": str(uuid.UUID(bytes=state.qemu_uuid))}


@traced
def do_info_history(mon: Monitor) -> None:
    """Obey `info history`."""
    if mon.rs is None:
        return
    number = 0
    while (line := readline_get_history(mon.rs, number)) is not None:
        monitor_printf(mon, "%d: '%s'\n", number, line)
        number += 1


@traced
def do_info_status_print(mon: Monitor, data: dict[str, Any]) -> None:
    """Print whether the machine runs."""
    monitor_printf(mon, "VM status: ")
    if not data["running"]:
        monitor_printf(mon, "paused")
    else:
        monitor_printf(mon, "running (single step mode)" if data["singlestep"] else "running")
    monitor_printf(mon, "\n")


@traced
def do_info_status(mon: Monitor) -> dict[str, Any]:
    """Whether the machine runs: keys running, singlestep."""
    return {"running": bool(state.vm_running), "singlestep": bool(state.singlestep)}


@traced
def do_info_kvm_print(mon: Monitor, data: dict[str, Any]) -> None:
    """Print whether KVM executes the guest."""
    monitor_printf(mon, "kvm support: ")
    monitor_printf(mon, "%s\n", "enabled" if data["enabled"] else "disabled")


@traced
def do_info_kvm(mon: Monitor) -> dict[str, Any]:
    """Whether KVM executes the guest: keys enabled, present."""
    env = state.first_cpu
    enabled = env is not None and getattr(env.accel, "name", "") == "kvm"
    return {"enabled": enabled, "present": True}


@traced
def do_info_numa(mon: Monitor) -> None:
    """Obey `info numa`: the model has no nodes."""
    monitor_printf(mon, "%d nodes\n", 0)


@traced
def do_info_profile(mon: Monitor) -> None:
    """Obey `info profile`, which 0.12.4 is built without."""
    monitor_printf(mon, "Internal profiler not compiled\n")
