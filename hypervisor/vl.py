"""The emulator's main program: vl.c, whose parts are the modules `hypervisor.vl_*`.

`main(argv) -> int` reads options, opens the images, makes the machine and runs it, in the order of the
original. The functions that other C files call are re-exported here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from hypervisor import icount, kvm_all, monitor
from hypervisor import vl_drive as drive
from hypervisor import vl_options as options
from hypervisor import vl_timers as timers
from hypervisor.block import bdrv_init_with_whitelist
from hypervisor.block_migration import blk_mig_init
from hypervisor.cutils import pstrcpy
from hypervisor.errors import HypervisorError
from hypervisor.hw.loader import rom_load_all
from hypervisor.hw.qdev import qdev_machine_creation_done
from hypervisor.hw.qdev_properties import qdev_prop_register_global_list
from hypervisor.migration import qemu_start_incoming_migration
from hypervisor.module import MODULE_INIT_DEVICE, MODULE_INIT_MACHINE, module_call_init
from hypervisor.monitor import qemu_errors_to_file
from hypervisor.net import net_check_clients, net_client_parse, net_init_clients
from hypervisor.qemu_config import (
    qemu_add_globals,
    qemu_chardev_opts,
    qemu_config_parse,
    qemu_config_write,
    qemu_device_opts,
    qemu_drive_opts,
    qemu_global_option,
    qemu_global_opts,
    qemu_mon_opts,
    qemu_net_opts,
    qemu_set_option,
)
from hypervisor.qemu_option import QemuOpts, qemu_opt_set, qemu_opts_foreach, qemu_opts_parse
from hypervisor.qemu_option_parameter import check_params, get_param_value, strtoll
from hypervisor.savevm import register_savevm_live, vmstate_register
from hypervisor.savevm_snapshots import load_vmstate
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
from hypervisor.vl_machine import QEMUMachine, _print_machines, find_default_machine, find_machine
from hypervisor.vl_ram import ram_load, ram_save_live
from hypervisor.vl_state import DEFAULT_RAM_SIZE, DT_NOGRAPHIC, state
from hypervisor.vl_timers import qemu_get_clock
from hypervisor.vmstate.pc import vmstate_timers
from tracer import traced

C_FILE = "vl.c"

__all__ = ["main", "main_loop_wait", "qemu_get_clock", "qemu_notify_event", "qemu_set_fd_handler2"]

_MAX_RAM = 4095 << 20
_MAX_ICOUNT_SHIFT = 10
_MIN_RAM = 2 << 20
_IGNORED = frozenset(("no-kvm-pit-reinjection", "L", "no-acpi", "no-hpet", "win2k-hack"))
_DEFAULTS = ("serial", "parallel", "monitor", "floppy", "cdrom", "sdcard", "vga")


class _CommandLine:
    """What the options ask for, until the machine is made; main's local variables."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.machine: QEMUMachine | None = None
        self.hda_opts: QemuOpts | None = None
        self.chs: tuple[int, int, int, str] | None = None
        self.snapshot = False
        self.loadvm: str | None = None
        self.incoming: str | None = None
        self.boot_devices = "cad"
        self.default = dict.fromkeys(_DEFAULTS, 1)

    def read(self, argv: list[str]) -> None:
        """Read all options, each as soon as it is met."""
        words = iter(argv)
        for word in words:
            if not word.startswith("-"):
                self.hda_opts = drive.drive_add(word, drive.HD_ALIAS, 0)
                continue
            option = options.find_option(self.program, word)
            value = ""
            if option.has_arg:
                given = next(words, None)
                if given is None:
                    print(f"{self.program}: option '-{option.name}' requires an argument", file=sys.stderr)
                    raise SystemExit(1)
                value = given
            if not option.modelled:
                raise HypervisorError(f"-{option.name} is an option of qemu-kvm 0.12.4 that the model lacks")
            if option.name not in _IGNORED:
                _OBEY[option.name](self, value)

    def refuse(self, complaint: str) -> None:
        """Leave the program with a message."""
        print(complaint, file=sys.stderr)
        raise SystemExit(1)


def _machine(line: _CommandLine, value: str) -> None:
    line.machine = find_machine(value)
    if line.machine is None:
        _print_machines()
        raise SystemExit(int(not value.startswith("?")))


def _hda(line: _CommandLine, value: str) -> None:
    if line.chs is None:
        line.hda_opts = drive.drive_add(value, drive.HD_ALIAS, 0)
        return
    cyls, heads, secs, trans = line.chs
    trans = f",trans={trans}" if trans != "auto" else ""
    fmt = f"{drive.HD_ALIAS},cyls=%d,heads=%d,secs=%d%s"
    line.hda_opts = drive.drive_add(value, fmt, 0, cyls, heads, secs, trans)


def _hdachs(line: _CommandLine, value: str) -> None:
    line.chs = options.parse_chs(value)
    if line.hda_opts is not None:
        for name, number in zip(("cyls", "heads", "secs"), line.chs, strict=False):
            qemu_opt_set(line.hda_opts, name, str(number))
        if line.chs[3] != "auto":
            qemu_opt_set(line.hda_opts, "trans", line.chs[3])


def _boot(line: _CommandLine, value: str) -> None:
    if "=" not in value:
        order = pstrcpy(33, value)
        options.parse_bootdevices(order)
        line.boot_devices = order
        return
    ret, bad = check_params(33, ["order", "once", "menu"], value)
    if ret < 0:
        line.refuse(f"qemu: unknown boot parameter '{bad}' in '{value}'")
    for name in ("order", "once"):
        length, order = get_param_value(33, name, value)
        if length:
            options.parse_bootdevices(order)
            line.boot_devices = order
    length, menu = get_param_value(33, "menu", value)
    if length and menu not in ("on", "off"):
        line.refuse(f"qemu: invalid option value '{menu}'")


def _bios(line: _CommandLine, value: str) -> None:
    state.bios_name = value


def _device(line: _CommandLine, value: str) -> None:
    if qemu_opts_parse(qemu_device_opts, value, "driver") is None:
        raise SystemExit(1)


def _name(line: _CommandLine, value: str) -> None:
    state.qemu_name, comma, rest = value.partition(",")
    if comma and not rest.startswith("process="):
        line.refuse(f"Unknown subargument {rest} to -name")


def _serial(line: _CommandLine, value: str) -> None:
    add_device_config(DEV_SERIAL, value)
    line.default["serial"] = 0
    if value.startswith("mon:"):
        line.default["monitor"] = 0


def _parallel(line: _CommandLine, value: str) -> None:
    add_device_config(DEV_PARALLEL, value)
    line.default["parallel"] = 0
    if value.startswith("mon:"):
        line.default["monitor"] = 0


def _monitor(line: _CommandLine, value: str) -> None:
    monitor_parse(value, "readline")
    line.default["monitor"] = 0


def _qmp(line: _CommandLine, value: str) -> None:
    monitor_parse(value, "control")
    line.default["monitor"] = 0


def _uuid(line: _CommandLine, value: str) -> None:
    ret, state.qemu_uuid = options.qemu_uuid_parse(value)
    if ret < 0:
        line.refuse("Fail to parse UUID string. Wrong format.")


def _mon(line: _CommandLine, value: str) -> None:
    if qemu_opts_parse(qemu_mon_opts, value, "chardev") is None:
        line.refuse(f"parse error: {value}")
    line.default["monitor"] = 0


def _chardev(line: _CommandLine, value: str) -> None:
    if qemu_opts_parse(qemu_chardev_opts, value, "backend") is None:
        line.refuse(f"parse error: {value}")


def _unless_zero(function: Callable[[str], int]) -> Callable[[_CommandLine, str], None]:
    def obey(line: _CommandLine, value: str) -> None:
        if function(value) != 0:
            raise SystemExit(1)

    return obey


def _net(line: _CommandLine, value: str) -> None:
    if net_client_parse(qemu_net_opts, value) == -1:
        raise SystemExit(1)


def _echr(line: _CommandLine, value: str) -> None:
    code, rest = strtoll(value)
    if rest == value:
        print("Bad argument to echr")
    state.term_escape_char = code


def _smp(line: _CommandLine, value: str) -> None:
    if strtoll(value)[0] < 1:
        line.refuse("Invalid number of CPUs")
    if strtoll(value)[0] > 1:
        raise HypervisorError(f"the model has one processor: leave -smp {value} out")


def _readconfig(line: _CommandLine, value: str) -> None:
    try:
        with open(value) as fp:
            if qemu_config_parse(fp) != 0:
                raise SystemExit(1)
    except OSError as error:
        line.refuse(f"open {value}: {error.strerror}")


def _writeconfig(line: _CommandLine, value: str) -> None:
    if value == "-":
        qemu_config_write(sys.stdout)
        return
    try:
        with open(value, "w") as fp:
            qemu_config_write(fp)
    except OSError as error:
        line.refuse(f"open {value}: {error.strerror}")


def _set(**values: Any) -> Callable[[_CommandLine, str], None]:
    def obey(line: _CommandLine, value: str) -> None:
        for name, number in values.items():
            setattr(state, name, number)

    return obey


def _icount(line: _CommandLine, value: str) -> None:
    shift = icount.AUTO_SHIFT if value == "auto" else strtoll(value)[0]
    if not 0 <= shift <= _MAX_ICOUNT_SHIFT:
        raise HypervisorError(f"-icount {value}: an instruction takes 2^0 to 2^{_MAX_ICOUNT_SHIFT} ns")
    icount.start(shift)


def _set_kvm(**values: int) -> Callable[[_CommandLine, str], None]:
    def obey(line: _CommandLine, value: str) -> None:
        for name, number in values.items():
            setattr(kvm_all, name, number)

    return obey


def _nodefaults(line: _CommandLine, value: str) -> None:
    line.default = dict.fromkeys(_DEFAULTS, 0)


def _snapshot(line: _CommandLine, value: str) -> None:
    line.snapshot = True


def _ram(line: _CommandLine, value: str) -> None:
    state.ram_size = options.parse_ram_size(value)


def _loadvm(line: _CommandLine, value: str) -> None:
    line.loadvm = value


def _incoming(line: _CommandLine, value: str) -> None:
    line.incoming = value


def _help(line: _CommandLine, value: str) -> None:
    options.help(0)


def _version(line: _CommandLine, value: str) -> None:
    options.version()
    raise SystemExit(0)


def _add(fmt: str, *args: int) -> Callable[[_CommandLine, str], None]:
    def obey(line: _CommandLine, value: str) -> None:
        drive.drive_add(value, fmt, *args)

    return obey


def _drive(line: _CommandLine, value: str) -> None:
    drive.drive_add(None, "%s", value)


_OBEY: dict[str, Callable[[_CommandLine, str], None]] = {
    "h": _help,
    "help": _help,
    "version": _version,
    "M": _machine,
    "hda": _hda,
    **{f"hd{letter}": _add(drive.HD_ALIAS, index) for index, letter in enumerate("bcd", 1)},
    "fda": _add(drive.FD_ALIAS, 0),
    "fdb": _add(drive.FD_ALIAS, 1),
    "cdrom": _add(drive.CDROM_ALIAS),
    "mtdblock": _add(drive.MTD_ALIAS),
    "sd": _add(drive.SD_ALIAS),
    "pflash": _add(drive.PFLASH_ALIAS),
    "drive": _drive,
    "set": _unless_zero(qemu_set_option),
    "global": _unless_zero(qemu_global_option),
    "hdachs": _hdachs,
    "bios": _bios,
    "boot": _boot,
    "device": _device,
    "snapshot": _snapshot,
    "loadvm": _loadvm,
    "incoming": _incoming,
    "m": _ram,
    "name": _name,
    "uuid": _uuid,
    "nographic": _set(display_type=DT_NOGRAPHIC),
    "no-fd-bootchk": _set(fd_bootchk=0),
    "net": _net,
    "chardev": _chardev,
    "serial": _serial,
    "parallel": _parallel,
    "monitor": _monitor,
    "qmp": _qmp,
    "mon": _mon,
    "S": _set(autostart=0),
    "no-reboot": _set(no_reboot=1),
    "no-shutdown": _set(no_shutdown=1),
    "echr": _echr,
    "smp": _smp,
    "nodefaults": _nodefaults,
    "icount": _icount,
    "enable-kvm": _set_kvm(kvm_allowed=1),
    "no-kvm": _set_kvm(kvm_allowed=0),
    "no-kvm-irqchip": _set_kvm(kvm_irqchip=0, kvm_pit=0),
    "no-kvm-pit": _set_kvm(kvm_pit=0),
    "readconfig": _readconfig,
    "writeconfig": _writeconfig,
}


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


def _open_drives(line: _CommandLine, machine: QEMUMachine) -> None:
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
    line = _CommandLine(argv[0])
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
    machine.init(state.ram_size, line.boot_devices, None, "", None, None)
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
