"""The emulator's main program: vl.c, whose parts are the modules `hypervisor.vl_*`.

`main(argv) -> int` reads options, opens the images, makes the machine and runs it, in the order of the
original. The functions that other C files call are re-exported here.
"""

from __future__ import annotations

import sys

from hypervisor import icount, kvm_all, monitor
from hypervisor import vl_drive as drive
from hypervisor import vl_timers as timers
from hypervisor.block import bdrv_init_with_whitelist
from hypervisor.block_migration import blk_mig_init
from hypervisor.errors import HypervisorError
from hypervisor.hw.loader import rom_load_all
from hypervisor.hw.qdev import qdev_machine_creation_done
from hypervisor.hw.qdev_properties import qdev_prop_register_global_list
from hypervisor.migration import qemu_start_incoming_migration
from hypervisor.module import MODULE_INIT_DEVICE, MODULE_INIT_MACHINE, module_call_init
from hypervisor.monitor import qemu_errors_to_file
from hypervisor.net import net_check_clients, net_init_clients
from hypervisor.osdep import qemu_create_pidfile
from hypervisor.qemu_config import (
    qemu_add_globals,
    qemu_chardev_opts,
    qemu_device_opts,
    qemu_drive_opts,
    qemu_global_opts,
    qemu_mon_opts,
)
from hypervisor.qemu_option import qemu_opts_foreach
from hypervisor.savevm import register_savevm_live, vmstate_register
from hypervisor.savevm_snapshots import load_vmstate
from hypervisor.vl_arguments import CommandLine
from hypervisor.vl_devices import (
    DEV_BT,
    DEV_PARALLEL,
    DEV_SERIAL,
    DEV_VIRTCON,
    add_device_config,
    bt_parse,
    chardev_init_func,
    default_driver_check,
    device_init_func,
    foreach_device_config,
    mon_init_func,
    monitor_parse,
    parallel_parse,
    serial_parse,
    virtcon_parse,
)
from hypervisor.vl_loop import (
    main_loop,
    main_loop_wait,
    qemu_init_main_loop,
    qemu_notify_event,
    qemu_set_fd_handler2,
    qemu_system_reset,
    sighandler_setup,
    vm_start,
)
from hypervisor.vl_machine import QEMUMachine, find_default_machine
from hypervisor.vl_ram import ram_load, ram_save_live
from hypervisor.vl_state import DEFAULT_RAM_SIZE, DT_NOGRAPHIC, state
from hypervisor.vl_timers import qemu_get_clock
from hypervisor.vmstate.pc import vmstate_timers
from tracer import traced

C_FILE = "vl.c"

__all__ = ["main", "main_loop_wait", "qemu_get_clock", "qemu_notify_event", "qemu_set_fd_handler2"]

_MAX_RAM = 4095 << 20
_MIN_RAM = 2 << 20


def _default_devices(default: dict[str, int]) -> None:
    """Note serial port, parallel port and monitor, where no option spoke of them."""
    if state.display_type != DT_NOGRAPHIC:
        if default["serial"]:
            add_device_config(DEV_SERIAL, "vc:80Cx24C")
        if default["parallel"]:
            add_device_config(DEV_PARALLEL, "vc:80Cx24C")
        if default["monitor"]:
            monitor_parse("vc:80Cx24C", "readline")
        return
    if default["parallel"]:
        add_device_config(DEV_PARALLEL, "null")
    if default["serial"] and default["monitor"]:
        add_device_config(DEV_SERIAL, "mon:stdio")
    elif default["serial"]:
        add_device_config(DEV_SERIAL, "stdio")
    elif default["monitor"]:
        monitor_parse("stdio", "readline")


def _open_drives(line: CommandLine, machine: QEMUMachine) -> None:
    """Add the default drives, then open what all drives name."""
    if line.default["cdrom"]:
        drive.drive_add(None, drive.CDROM_ALIAS)
    if line.default["floppy"]:
        drive.drive_add(None, drive.FD_ALIAS, 0)
    if line.default["sdcard"]:
        drive.drive_add(None, drive.SD_ALIAS)
    if line.snapshot:
        qemu_opts_foreach(qemu_drive_opts, drive.drive_enable_snapshot, None, 0)
    if qemu_opts_foreach(qemu_drive_opts, drive.drive_init_func, machine, 1) != 0:
        raise SystemExit(1)


def _choose_accelerator() -> None:
    """Start KVM if it is wanted; without it memory is limited."""
    if kvm_all.kvm_enabled():
        from hypervisor.qemu_kvm import kvm_init

        if icount.enabled():
            raise HypervisorError("under KVM nobody counts instructions: use -icount or -enable-kvm")
        if kvm_init(1) < 0:
            print("Could not initialize KVM, will disable KVM support", file=sys.stderr)
            kvm_all.kvm_allowed = 0
    if state.ram_size > _MAX_RAM:
        print("qemu: without kvm support at most 4095 MB RAM can be simulated", file=sys.stderr)
        raise SystemExit(1)


def _write_pid(file: str) -> None:
    try:
        qemu_create_pidfile(file)
    except OSError as error:
        print(f"Could not acquire pid file: {error.strerror}", file=sys.stderr)
        raise SystemExit(1) from error


@traced
def main(argv: list[str]) -> int:
    """Run the emulator.

    Parameters
    ----------
    argv : list of str
        The program's name and its arguments, in QEMU's spelling.

    Returns
    -------
    int
        0 when the guest or a signal ended the run. QEMU's `exit(n)` is `SystemExit(n)`: the monitor's quit,
        wrong options, images that do not open.
    """
    timers.init_clocks()
    qemu_errors_to_file(sys.stderr)
    module_call_init(MODULE_INIT_MACHINE)
    line = CommandLine(argv[0])
    line.machine = find_default_machine()
    line.read(argv[1:])
    machine = line.machine
    assert machine is not None
    if machine.init is None:
        raise HypervisorError(f"the model has no machine '{machine.name}': use -M pc")

    qemu_opts_foreach(qemu_device_opts, default_driver_check, line.default, 0)
    qemu_opts_foreach(qemu_global_opts, default_driver_check, line.default, 0)
    _default_devices(line.default)
    if qemu_opts_foreach(qemu_chardev_opts, chardev_init_func, None, 1) != 0:
        return 1
    _choose_accelerator()
    qemu_init_main_loop()
    timers.init_timer_alarm()
    if net_init_clients() < 0:
        return 1
    if foreach_device_config(DEV_BT, bt_parse):
        return 1
    if line.pid_file is not None:
        _write_pid(line.pid_file)
    # Real mode reaches 64 KiB beyond the first megabyte.
    state.ram_size = max(state.ram_size or DEFAULT_RAM_SIZE << 20, _MIN_RAM)
    bdrv_init_with_whitelist()
    blk_mig_init()
    _open_drives(line, machine)
    vmstate_register(0, vmstate_timers, timers.timers_state)
    register_savevm_live("ram", 0, 3, None, ram_save_live, None, ram_load, None)
    if foreach_device_config(DEV_SERIAL, serial_parse) < 0:
        return 1
    if foreach_device_config(DEV_PARALLEL, parallel_parse) < 0:
        return 1
    if foreach_device_config(DEV_VIRTCON, virtcon_parse) < 0:
        return 1
    module_call_init(MODULE_INIT_DEVICE)
    if machine.compat_props:
        qdev_prop_register_global_list(machine.compat_props)
    qemu_add_globals()
    machine.init(state.ram_size, line.boot_devices, None, "", None, line.cpu_model)
    sighandler_setup()
    state.current_machine = machine
    if qemu_opts_foreach(qemu_device_opts, device_init_func, None, 1) != 0:
        return 1
    net_check_clients()
    timers._start_nographic_timer()
    if qemu_opts_foreach(qemu_mon_opts, mon_init_func, None, 1) != 0:
        return 1
    qdev_machine_creation_done()
    rom_load_all()
    qemu_system_reset()
    if line.loadvm is not None and load_vmstate(monitor.cur_mon, line.loadvm) < 0:
        state.autostart = 0
    if line.incoming is not None:
        qemu_start_incoming_migration(line.incoming)
    elif state.autostart:
        vm_start()
    main_loop()
    timers.quit_timers()
    return 0
