"""The monitor's commands: a part of monitor.c, and its table, qemu-monitor.hx.

A table entry says how the words after the name are cut: "device:B" a block device's name, "target:F" a file
name, "arg:s?" text that may be missing, "force:-f" a flag. Commands of 0.12.4 that the model lacks are in the
table without a function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hypervisor.block import (
    bdrv_close,
    bdrv_commit,
    bdrv_find,
    bdrv_find_whitelisted_format,
    bdrv_get_device_name,
    bdrv_info,
    bdrv_info_print,
    bdrv_info_stats,
    bdrv_is_inserted,
    bdrv_is_locked,
    bdrv_is_removable,
    bdrv_key_required,
    bdrv_open2,
    bdrv_stats_print,
)
from hypervisor.block_int import BlockDriverState
from hypervisor.migration import (
    do_info_migrate,
    do_info_migrate_print,
    do_migrate,
    do_migrate_cancel,
    do_migrate_set_downtime,
    do_migrate_set_speed,
)
from hypervisor.monitor import Arguments, Monitor, monitor_printf, qemu_error
from hypervisor.savevm_snapshots import do_delvm, do_info_snapshots, do_loadvm, do_savevm
from hypervisor.version import QEMU_PKGVERSION, QEMU_VERSION
from hypervisor.vl_drive import drives
from hypervisor.vl_loop import (
    qemu_system_powerdown_request,
    qemu_system_reset_request,
    vm_start,
    vm_stop,
)
from hypervisor.vl_state import state
from tracer import traced

C_FILE = "monitor.c"


class Command(NamedTuple):
    """`mon_cmd_t`: an entry of the table; several names are separated by `|`."""

    name: str
    args_type: str
    function: Callable[[Monitor, Arguments], None] | None
    params: str
    help: str


@traced
def compare_cmd(name: str, list: str) -> int:
    """Whether `name` is one of the names in `list`."""
    return int(name in list.split("|"))


def find_command(name: str) -> Command | None:
    """Find a command, also one the model lacks."""
    found = next((cmd for cmd in mon_cmds if compare_cmd(name, cmd.name)), None)
    if found is None and name in _LACKING.split():
        found = Command(name, "", None, "", "")
    return found


@traced
def help_cmd_dump(mon: Monitor, cmds: list[Command], prefix: str, name: str | None) -> None:
    """Print one line a command, or the one of `name`."""
    for cmd in cmds:
        if name is None or name == cmd.name:
            monitor_printf(mon, "%s%s %s -- %s\n", prefix, cmd.name, cmd.params, cmd.help)


@traced
def help_cmd(mon: Monitor, name: str | None) -> None:
    """Print the commands, or what can follow `info`."""
    if name == "info":
        help_cmd_dump(mon, info_cmds, "info ", None)
    else:
        help_cmd_dump(mon, mon_cmds, "", name)


@traced
def do_help_cmd(mon: Monitor, qdict: Arguments) -> None:
    """Obey `help`."""
    help_cmd(mon, qdict.get("name"))


@traced
def do_info(mon: Monitor, qdict: Arguments) -> None:
    """Obey `info`."""
    item = qdict.get("item")
    cmd = next((cmd for cmd in info_cmds if item is not None and compare_cmd(item, cmd.name)), None)
    if cmd is not None and cmd.function is not None:
        cmd.function(mon, qdict)
    elif item in _LACKING_INFO.split():
        monitor_printf(mon, "info %s: the model has no such command\n", item)
    else:
        help_cmd(mon, "info")


@traced
def do_info_version(mon: Monitor, qdict: Arguments) -> None:
    """Obey `info version`."""
    monitor_printf(mon, "%s%s\n", QEMU_VERSION, QEMU_PKGVERSION)


@traced
def do_info_name(mon: Monitor, qdict: Arguments) -> None:
    """Obey `info name`."""
    if state.qemu_name:
        monitor_printf(mon, "%s\n", state.qemu_name)


@traced
def do_info_status(mon: Monitor, qdict: Arguments) -> None:
    """Obey `info status`."""
    monitor_printf(mon, "VM status: %s\n", "running" if state.vm_running else "paused")


@traced
def do_info_kvm(mon: Monitor, qdict: Arguments) -> None:
    """Obey `info kvm`."""
    monitor_printf(mon, "kvm support: disabled\n")


def _info_block(mon: Monitor, qdict: Arguments) -> None:
    bdrv_info_print(mon, bdrv_info(mon))


def _info_snapshots(mon: Monitor, qdict: Arguments) -> None:
    do_info_snapshots(mon)


def _info_migrate(mon: Monitor, qdict: Arguments) -> None:
    data = do_info_migrate(mon)
    if data is not None:
        do_info_migrate_print(mon, data)


def _info_blockstats(mon: Monitor, qdict: Arguments) -> None:
    bdrv_stats_print(mon, bdrv_info_stats(mon))


@traced
def do_info_history(mon: Monitor, qdict: Arguments) -> None:
    """Obey `info history`."""
    for number, line in enumerate(mon.editor.history):
        monitor_printf(mon, "%d: '%s'\n", number, line)


@traced
def do_quit(mon: Monitor, qdict: Arguments) -> None:
    """End the program at once."""
    state.exit_reason = "quit"
    raise SystemExit(0)


@traced
def do_commit(mon: Monitor, qdict: Arguments) -> None:
    """Write what overlays hold into their backing files."""
    device = qdict["device"]
    for dinfo in drives:
        assert dinfo.bdrv is not None
        if device == "all" or bdrv_get_device_name(dinfo.bdrv) == device:
            bdrv_commit(dinfo.bdrv)


def _find(name: str) -> BlockDriverState | None:
    bs = bdrv_find(name)
    if bs is None:
        qemu_error("The %s device has not been found\n", name)
    return bs


@traced
def eject_device(mon: Monitor, bs: BlockDriverState, force: int) -> int:
    """Take the medium out of a drive; -1 after a message."""
    if bdrv_is_inserted(bs):
        if not force:
            if not bdrv_is_removable(bs):
                qemu_error("Device %s is not removable\n", bdrv_get_device_name(bs))
                return -1
            if bdrv_is_locked(bs):
                qemu_error("Device %s is locked\n", bdrv_get_device_name(bs))
                return -1
        bdrv_close(bs)
    return 0


@traced
def do_eject(mon: Monitor, qdict: Arguments) -> None:
    """Obey `eject`."""
    bs = _find(qdict["device"])
    if bs is not None:
        eject_device(mon, bs, qdict["force"])


@traced
def monitor_read_bdrv_key_start(
    mon: Monitor, bs: BlockDriverState, completion_cb: None, opaque: None
) -> None:
    """Ask for the key of an encrypted medium; the model opens none."""
    bdrv_key_required(bs)


@traced
def do_change_block(mon: Monitor, device: str, filename: str, fmt: str | None) -> None:
    """Put another medium into a drive; a file that does not open leaves it empty."""
    bs = _find(device)
    if bs is None:
        return
    drv = None
    if fmt is not None:
        drv = bdrv_find_whitelisted_format(fmt)
        if drv is None:
            qemu_error("Invalid block format %s\n", fmt)
            return
    if eject_device(mon, bs, 0) < 0:
        return
    bdrv_open2(bs, filename, 0, drv)
    monitor_read_bdrv_key_start(mon, bs, None, None)


@traced
def do_change(mon: Monitor, qdict: Arguments) -> None:
    """Obey `change`."""
    if qdict["device"] == "vnc":
        monitor_printf(mon, "change vnc: the model has no VNC server\n")
    else:
        do_change_block(mon, qdict["device"], qdict["target"], qdict.get("arg"))


@traced
def do_stop(mon: Monitor, qdict: Arguments) -> None:
    """Stop the machine."""
    vm_stop(0)


@traced
def do_cont(mon: Monitor, qdict: Arguments) -> None:
    """Let the machine go on."""
    vm_start()


@traced
def do_system_reset(mon: Monitor, qdict: Arguments) -> None:
    """Reset the machine."""
    qemu_system_reset_request()


@traced
def do_system_powerdown(mon: Monitor, qdict: Arguments) -> None:
    """Press the machine's power button."""
    qemu_system_powerdown_request()


mon_cmds: list[Command] = [
    Command("help|?", "name:s?", do_help_cmd, "[cmd]", "show the help"),
    Command(
        "commit",
        "device:B",
        do_commit,
        "device|all",
        "commit changes to the disk images (if -snapshot is used) or backing files",
    ),
    Command("info", "item:s?", do_info, "[subcommand]", "show various information about the system state"),
    Command("q|quit", "", do_quit, "", "quit the emulator"),
    Command(
        "eject", "force:-f,device:B", do_eject, "[-f] device", "eject a removable medium (use -f to force it)"
    ),
    Command(
        "change",
        "device:B,target:F,arg:s?",
        do_change,
        "device filename [format]",
        "change a removable medium, optional format",
    ),
    Command("stop", "", do_stop, "", "stop emulation"),
    Command("c|cont", "", do_cont, "", "resume emulation"),
    Command(
        "savevm",
        "name:s?",
        do_savevm,
        "[tag|id]",
        "save a VM snapshot. If no tag or id are provided, a new snapshot is created",
    ),
    Command("loadvm", "name:s", do_loadvm, "tag|id", "restore a VM snapshot from its tag or id"),
    Command("delvm", "name:s", do_delvm, "tag|id", "delete a VM snapshot from its tag or id"),
    Command("migrate", "detach:-d,blk:-b,inc:-i,uri:s", do_migrate, "[-d] [-b] [-i] uri", "migrate to URI"),
    Command("migrate_cancel", "", do_migrate_cancel, "", "cancel the current VM migration"),
    Command("migrate_set_speed", "value:s", do_migrate_set_speed, "value", "set maximum speed (in bytes)"),
    Command("migrate_set_downtime", "value:s", do_migrate_set_downtime, "value", "set maximum downtime"),
    Command("system_reset", "", do_system_reset, "", "reset the system"),
    Command("system_powerdown", "", do_system_powerdown, "", "send system power down event"),
]

info_cmds: list[Command] = [
    Command("version", "", do_info_version, "", "show the version of QEMU"),
    Command("block", "", _info_block, "", "show the block devices"),
    Command("blockstats", "", _info_blockstats, "", "show block device statistics"),
    Command("snapshots", "", _info_snapshots, "", "show the currently saved VM snapshots"),
    Command("migrate", "", _info_migrate, "", "show migration status"),
    Command("history", "", do_info_history, "", "show the command line history"),
    Command("kvm", "", do_info_kvm, "", "show KVM information"),
    Command("status", "", do_info_status, "", "show the current VM status (running|paused)"),
    Command("name", "", do_info_name, "", "show the current VM name"),
]

_LACKING = """
    screendump logfile log singlestep gdbserver x xp p print i o sendkey sum
    usb_add usb_del device_add device_del cpu mouse_move mouse_button mouse_set wavcapture stopcapture
    memsave pmemsave boot_set nmi
    drive_add pci_add pci_del host_net_add host_net_remove hostfwd_add hostfwd_remove balloon set_link
    watchdog_action acl_show acl_policy acl_add acl_remove acl_reset mce getfd closefd block_passwd cpu_set
"""
_LACKING_INFO = """
    commands network chardev registers cpus irq pic pci tlb mem hpet jit numa usb usbhost profile capture
    pcmcia mice vnc uuid cpustats usernet balloon qtree qdm roms
"""
