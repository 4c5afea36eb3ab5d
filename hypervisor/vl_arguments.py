"""What each option of the command line does: a part of vl.c, the long `switch` of its main().

- `CommandLine(program).read(argv)`: obeys every option as soon as it is met. What can be said at once goes
  into the option groups, `vl_state.state` and the list of devices; the rest waits in the object for main.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from hypervisor import icount, kvm_all, quirks
from hypervisor import vl_drive as drive
from hypervisor import vl_options as options
from hypervisor.cutils import pstrcpy
from hypervisor.errors import HypervisorError
from hypervisor.net import net_client_parse
from hypervisor.qemu_config import (
    qemu_chardev_opts,
    qemu_config_parse,
    qemu_config_write,
    qemu_device_opts,
    qemu_global_option,
    qemu_mon_opts,
    qemu_net_opts,
    qemu_rtc_opts,
    qemu_set_option,
)
from hypervisor.qemu_option import QemuOpts, qemu_opt_set, qemu_opts_parse
from hypervisor.qemu_option_parameter import check_params, get_param_value, strtoll
from hypervisor.vl_devices import DEV_PARALLEL, DEV_SERIAL, add_device_config, monitor_parse
from hypervisor.vl_loop import qemu_register_reset
from hypervisor.vl_machine import QEMUMachine, find_machine, print_machines, restore_boot_devices
from hypervisor.vl_rtc import configure_rtc, configure_rtc_date_offset
from hypervisor.vl_state import DT_NOGRAPHIC, state

_MAX_ICOUNT_SHIFT = 10
_MOST_CPUS = 255
_IGNORED = frozenset(("no-kvm-pit-reinjection", "L", "win2k-hack"))
_DEFAULTS = ("serial", "parallel", "monitor", "floppy", "cdrom", "sdcard", "vga")


class CommandLine:
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
        self.cpu_model: str | None = None
        self.pid_file: str | None = None
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

    def refuse(self, complaint: str) -> NoReturn:
        """Leave the program with a message."""
        print(complaint, file=sys.stderr)
        raise SystemExit(1)


def _machine(line: CommandLine, value: str) -> None:
    line.machine = find_machine(value)
    if line.machine is None:
        print_machines()
        raise SystemExit(int(not value.startswith("?")))


def _hda(line: CommandLine, value: str) -> None:
    if line.chs is None:
        line.hda_opts = drive.drive_add(value, drive.HD_ALIAS, 0)
        return
    cyls, heads, secs, trans = line.chs
    trans = f",trans={trans}" if trans != "auto" else ""
    fmt = f"{drive.HD_ALIAS},cyls=%d,heads=%d,secs=%d%s"
    line.hda_opts = drive.drive_add(value, fmt, 0, cyls, heads, secs, trans)


def _hdachs(line: CommandLine, value: str) -> None:
    line.chs = options.parse_chs(value)
    if line.hda_opts is not None:
        for name, number in zip(("cyls", "heads", "secs"), line.chs, strict=False):
            qemu_opt_set(line.hda_opts, name, str(number))
        if line.chs[3] != "auto":
            qemu_opt_set(line.hda_opts, "trans", line.chs[3])


def _boot(line: CommandLine, value: str) -> None:
    if "=" not in value:
        order = pstrcpy(33, value)
        options.parse_bootdevices(order)
        line.boot_devices = order
        return
    ret, bad = check_params(33, ["order", "once", "menu"], value)
    if ret < 0:
        line.refuse(f"qemu: unknown boot parameter '{bad}' in '{value}'")
    length, order = get_param_value(33, "order", value)
    if length:
        options.parse_bootdevices(order)
        line.boot_devices = order
    length, once = get_param_value(33, "once", value)
    if length:
        options.parse_bootdevices(once)
        standard, line.boot_devices = line.boot_devices, once
        # quirk: the first reset is that before the machine starts, so that once= never comes to anything.
        quirks.note("boot-once", "-boot once= is taken back before the machine starts (vl.c)")
        qemu_register_reset(restore_boot_devices, standard)
    length, menu = get_param_value(33, "menu", value)
    if length and menu not in ("on", "off"):
        line.refuse(f"qemu: invalid option value '{menu}'")


def _bios(line: CommandLine, value: str) -> None:
    state.bios_name = value


def _device(line: CommandLine, value: str) -> None:
    if qemu_opts_parse(qemu_device_opts, value, "driver") is None:
        raise SystemExit(1)


def _name(line: CommandLine, value: str) -> None:
    state.qemu_name, comma, rest = value.partition(",")
    if comma and not rest.startswith("process="):
        line.refuse(f"Unknown subargument {rest} to -name")


def _serial(line: CommandLine, value: str) -> None:
    add_device_config(DEV_SERIAL, value)
    line.default["serial"] = 0
    if value.startswith("mon:"):
        line.default["monitor"] = 0


def _parallel(line: CommandLine, value: str) -> None:
    add_device_config(DEV_PARALLEL, value)
    line.default["parallel"] = 0
    if value.startswith("mon:"):
        line.default["monitor"] = 0


def _monitor(line: CommandLine, value: str) -> None:
    monitor_parse(value, "readline")
    line.default["monitor"] = 0


def _qmp(line: CommandLine, value: str) -> None:
    monitor_parse(value, "control")
    line.default["monitor"] = 0


def _uuid(line: CommandLine, value: str) -> None:
    ret, state.qemu_uuid = options.qemu_uuid_parse(value)
    if ret < 0:
        line.refuse("Fail to parse UUID string. Wrong format.")


def _mon(line: CommandLine, value: str) -> None:
    if qemu_opts_parse(qemu_mon_opts, value, "chardev") is None:
        line.refuse(f"parse error: {value}")
    line.default["monitor"] = 0


def _chardev(line: CommandLine, value: str) -> None:
    if qemu_opts_parse(qemu_chardev_opts, value, "backend") is None:
        line.refuse(f"parse error: {value}")


def _unless_zero(function: Callable[[str], int]) -> Callable[[CommandLine, str], None]:
    def obey(line: CommandLine, value: str) -> None:
        if function(value) != 0:
            raise SystemExit(1)

    return obey


def _net(line: CommandLine, value: str) -> None:
    if net_client_parse(qemu_net_opts, value) == -1:
        raise SystemExit(1)


def _echr(line: CommandLine, value: str) -> None:
    code, rest = strtoll(value)
    if rest == value:
        print("Bad argument to echr")
    state.term_escape_char = code


def _smp(line: CommandLine, value: str) -> None:
    smp_cpus, max_cpus = options.smp_parse(value)
    if smp_cpus < 1:
        line.refuse("Invalid number of CPUs")
    if max_cpus < smp_cpus:
        line.refuse("maxcpus must be equal to or greater than smp")
    if max_cpus > _MOST_CPUS:
        line.refuse("Unsupported number of maxcpus")
    if smp_cpus > 1:
        raise HypervisorError(f"the model has one processor: leave -smp {value} out")


def _startdate(line: CommandLine, value: str) -> None:
    configure_rtc_date_offset(value, 1)


def _rtc(line: CommandLine, value: str) -> None:
    opts = qemu_opts_parse(qemu_rtc_opts, value, None)
    if opts is None:
        line.refuse(f"parse error: {value}")
    configure_rtc(opts)


def _vga(line: CommandLine, value: str) -> None:
    options.select_vgahw(value)
    line.default["vga"] = 0


def _cpu(line: CommandLine, value: str) -> None:
    if value.startswith("?"):
        for name in options.CPU_MODELS:
            print(f"x86 {name:>16}")
        raise SystemExit(0)
    line.cpu_model = value


def _pidfile(line: CommandLine, value: str) -> None:
    line.pid_file = value


def _readconfig(line: CommandLine, value: str) -> None:
    try:
        with open(value) as fp:
            if qemu_config_parse(fp) != 0:
                raise SystemExit(1)
    except OSError as error:
        line.refuse(f"open {value}: {error.strerror}")


def _writeconfig(line: CommandLine, value: str) -> None:
    if value == "-":
        qemu_config_write(sys.stdout)
        return
    try:
        with open(value, "w") as fp:
            qemu_config_write(fp)
    except OSError as error:
        line.refuse(f"open {value}: {error.strerror}")


def _set(where: object = state, **values: int) -> Callable[[CommandLine, str], None]:
    def obey(line: CommandLine, value: str) -> None:
        for name, number in values.items():
            setattr(where, name, number)

    return obey


def _icount(line: CommandLine, value: str) -> None:
    shift = icount.AUTO_SHIFT if value == "auto" else strtoll(value)[0]
    if not 0 <= shift <= _MAX_ICOUNT_SHIFT:
        raise HypervisorError(f"-icount {value}: an instruction takes 2^0 to 2^{_MAX_ICOUNT_SHIFT} ns")
    icount.start(shift)


def _nodefaults(line: CommandLine, value: str) -> None:
    line.default = dict.fromkeys(_DEFAULTS, 0)
    state.vga_enabled = 0


def _snapshot(line: CommandLine, value: str) -> None:
    line.snapshot = True


def _ram(line: CommandLine, value: str) -> None:
    state.ram_size = options.parse_ram_size(value)


def _loadvm(line: CommandLine, value: str) -> None:
    line.loadvm = value


def _incoming(line: CommandLine, value: str) -> None:
    line.incoming = value


def _help(line: CommandLine, value: str) -> None:
    options.help(0)


def _version(line: CommandLine, value: str) -> None:
    options.version()
    raise SystemExit(0)


def _add(fmt: str, *args: int) -> Callable[[CommandLine, str], None]:
    def obey(line: CommandLine, value: str) -> None:
        drive.drive_add(value, fmt, *args)

    return obey


def _drive(line: CommandLine, value: str) -> None:
    drive.drive_add(None, "%s", value)


_OBEY: dict[str, Callable[[CommandLine, str], None]] = {
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
    "startdate": _startdate,
    "rtc": _rtc,
    "localtime": _set(rtc_utc=0),
    "vga": _vga,
    "cpu": _cpu,
    "pidfile": _pidfile,
    "no-hpet": _set(no_hpet=1),
    "no-acpi": _set(acpi_enabled=0),
    "no-reboot": _set(no_reboot=1),
    "no-shutdown": _set(no_shutdown=1),
    "echr": _echr,
    "smp": _smp,
    "nodefaults": _nodefaults,
    "icount": _icount,
    "enable-kvm": _set(kvm_all, kvm_allowed=1),
    "no-kvm": _set(kvm_all, kvm_allowed=0),
    "no-kvm-irqchip": _set(kvm_all, kvm_irqchip=0, kvm_pit=0),
    "no-kvm-pit": _set(kvm_all, kvm_pit=0),
    "readconfig": _readconfig,
    "writeconfig": _writeconfig,
}
