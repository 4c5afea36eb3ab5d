"""The command line's options: a part of vl.c, and its table, qemu-options.hx.

- `qemu_options`: every option of qemu-kvm 0.12.4 for x86; those that the model lacks are known by name.
- `find_option(name)`, `version()`, `help(exitcode)`.
- `parse_bootdevices(devices)`, `qemu_uuid_parse(str)`, `parse_ram_size(text)`, `smp_parse(optarg)`,
  `select_vgahw(p)`: values with a syntax of their own.
"""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

from hypervisor.errors import HypervisorError
from hypervisor.qemu_option_parameter import get_param_value, strtoll
from hypervisor.version import QEMU_PKGVERSION, QEMU_VERSION
from hypervisor.vl_state import DEFAULT_RAM_SIZE, state
from tracer import traced

C_FILE = "vl.c"


CPU_MODELS = (
    "qemu64", "phenom", "core2duo", "kvm64", "qemu32", "coreduo", "486", "pentium", "pentium2", "pentium3",
    "athlon", "n270",
)  # fmt: skip


class QEMUOption(NamedTuple):
    """`QEMUOption`: `modelled` is ours."""

    name: str
    has_arg: bool
    modelled: bool
    usage: str = ""
    help: str = ""


_MODELLED = """
h||display this help and exit
help||display this help and exit
version||display version information and exit
M|machine|select emulated machine (-M ? for list)
fda|file|use 'file' as floppy disk 0 image
fdb|file|use 'file' as floppy disk 1 image
hda|file|use 'file' as IDE hard disk 0 image
hdb|file|use 'file' as IDE hard disk 1 image
hdc|file|use 'file' as IDE hard disk 2 image; the CD-ROM is IDE 2 too
hdd|file|use 'file' as IDE hard disk 3 image
cdrom|file|use 'file' as IDE cdrom image (cdrom is ide1 master)
drive|[file=file][,if=type][,bus=n][,unit=m][,media=d][,index=i][,cyls=c,heads=h,secs=s[,trans=t]]\
[,snapshot=on|off][,cache=writethrough|writeback|none][,format=f][,serial=s][,addr=A][,id=name]\
[,aio=threads|native][,readonly=on|off][,werror=ignore|stop|report|enospc][,rerror=ignore|stop|report]\
|use 'file' as a drive image
set|group.id.arg=value|set parameter 'arg' of item 'id' of a group, such as drive.d0.file
global|driver.property=value|set a global default for a driver property
mtdblock|file|use 'file' as on-board Flash memory image
sd|file|use 'file' as SecureDigital card image
pflash|file|use 'file' as a parallel flash image
boot|[order=drives][,once=drives][,menu=on|off]|'drives': floppy (a), hard disk (c), CD-ROM (d)
snapshot||write to temporary files instead of disk image files
m|megs|set virtual RAM size to megs MB [default=128]
name|string|set the name of the guest
startdate|date|the guest's clock starts at 'date', as 2006-06-17T16:01:21, or now
rtc|[base=utc|localtime|date][,clock=host|vm]|what the guest's clock starts with, and what moves it
localtime||the guest's clock starts with local time
cpu|model|the processor: qemu64, which the model always has
vga|[cirrus|std|none]|the screen: a plain VGA, or none
pidfile|file|write the number of the process to 'file'
uuid|%08x-%04x-%04x-%04x-%012x|specify machine UUID
bios|file|a BIOS instead of the built-in one: a file, or 'seabios' for Debian's package of that name
device|driver[,option[=value]][,...]|add a device; -device ? lists all kinds, most of which have names only
nographic||disable graphical output and redirect serial I/Os to console
no-fd-bootchk||disable boot signature checking for floppy disks
hdachs|c,h,s[,t]|force hard disk 0 physical geometry and the optional BIOS translation (t=none or lba)
net|none|use it alone to have zero network devices; the model has no others
chardev|backend,id=id[,path=path][,host=h][,port=p][,mux=on|off]\
|a character device: null, stdio, file, pipe, pty or socket
serial|dev|redirect the serial port to char device 'dev'
parallel|dev|redirect the parallel port to char device 'dev'
monitor|dev|redirect the monitor to char device 'dev'
qmp|dev|like -monitor, but a monitor for programs: it speaks QMP
mon|chardev=[name][,mode=readline|control][,default]|a monitor on a character device
S||freeze CPU at startup (use 'c' to start execution)
no-reboot||exit instead of rebooting
no-shutdown||stop before shutdown
echr|chr|set terminal escape character instead of ctrl-a
nodefaults||don't create default devices
readconfig|<file>|read config file
writeconfig|<file>|write config file
loadvm|[tag|id]|start right away with a saved state (loadvm in monitor)
incoming|p|prepare for migration, listen on port p: tcp:host:port, unix:path, exec:command, fd:n
enable-kvm||enable KVM full virtualization support
no-kvm||disable KVM hardware virtualization: the default of the model
no-kvm-irqchip||disable KVM kernel mode PIC/IOAPIC/LAPIC, which the model never uses
no-kvm-pit||disable KVM kernel mode PIT, which the model never uses
no-kvm-pit-reinjection||disable KVM kernel mode PIT interrupt reinjection
L|path|set the directory for the BIOS, VGA BIOS and keymaps: the model's BIOS is built in
no-acpi||leave out the power management
no-hpet||disable HPET, which the model only saves
win2k-hack||use it when installing Windows 2000: nothing in the model
icount|[N|auto]|time by counting instructions, 2^N ns each (auto: 2^3): a run repeats exactly
smp|n|set the number of CPUs: the model has one
"""
_LACKING_WITH = """
numa k soundhw usbdevice vnc balloon acpitable smbios tftp bootp redir smb netdev bt
kernel append initrd gdb d option-rom clock watchdog
watchdog-action virtioconsole tb-size chroot runas pcidevice nvram kvm-shadow-memory mem-path
"""
_LACKING_WITHOUT = """
audio-help usb curses no-frame alt-grab ctrl-grab no-quit sdl portrait full-screen rtc-td-hack singlestep s
daemonize show-cursor enable-nesting tdf mem-prealloc
"""


def _table() -> dict[str, QEMUOption]:
    rows = [line.split("|", 1)[0:1] + line.rsplit("|", 1) for line in _MODELLED.strip().splitlines()]
    table = {}
    for name, front, help in rows:
        usage = front[len(name) + 1 :]
        table[name] = QEMUOption(name, bool(usage), True, usage, help)
    table |= {name: QEMUOption(name, True, False) for name in _LACKING_WITH.split()}
    table |= {name: QEMUOption(name, False, False) for name in _LACKING_WITHOUT.split()}
    return table


qemu_options = _table()


def find_option(program: str, argument: str) -> QEMUOption:
    """Find the option that an argument names; leaves the program after QEMU's message if there is none."""
    name = argument.removeprefix("-").removeprefix("-")
    option = qemu_options.get(name)
    if option is None:
        print(f"{program}: invalid option -- '-{name}'", file=sys.stderr)
        raise SystemExit(1)
    return option


@traced
def version() -> None:
    """Print the version as the real program does."""
    print(
        f"QEMU PC emulator version {QEMU_VERSION}{QEMU_PKGVERSION}, Copyright (c) 2003-2008 Fabrice Bellard"
    )


_TAIL = """
The model has no window. Without -nographic the text screen is printed when the guest stops; with it, what
the BIOS prints also goes to the serial line, which shares the terminal with the monitor: ctrl-a c changes
between them, ctrl-a x ends.

STUDYKVM: --trace FILE records the run; --trace-io records port accesses, too. --modern has QMP greet and
negotiate as clients of today expect it.
The guest switches the machine off by "Shutdown" written to port 0x8900, or by int 15h, AX=5307h, BX=1,
CX=3."""


@traced
def help(exitcode: int) -> None:
    """Print all options and leave the program."""
    version()
    print(
        "usage: qemu [options] [disk_image]\n\n'disk_image' is a raw hard image image for IDE hard disk 0\n"
    )
    for option in qemu_options.values():
        if option.modelled:
            front = f"-{option.name} {option.usage}".rstrip()
            print(f"{front:<15} {option.help}" if len(front) < 16 else f"{front}\n{'':<15} {option.help}")
    lacking = " ".join(f"-{option.name}" for option in qemu_options.values() if not option.modelled)
    print(f"\nOptions of 0.12.4 that the model lacks:\n{lacking}")
    print(_TAIL)
    raise SystemExit(exitcode)


@traced
def parse_bootdevices(devices: str) -> int:
    """Check a boot order, letters a to p, each once; the set of bits. Leaves the program after a message."""
    bitmap = 0
    for letter in devices:
        if not "a" <= letter <= "p":
            print(f"Invalid boot device '{letter}'", file=sys.stderr)
            raise SystemExit(1)
        bit = 1 << ord(letter) - ord("a")
        if bitmap & bit:
            print(f"Boot device '{letter}' was given twice", file=sys.stderr)
            raise SystemExit(1)
        bitmap |= bit
    return bitmap


@traced
def qemu_uuid_parse(str: str) -> tuple[int, bytes]:
    """Read a UUID; 0 or -1, and its bytes.

    >>> qemu_uuid_parse("550e8400-e29b-41d4-a716-446655440000")[1].hex()
    '550e8400e29b41d4a716446655440000'
    """
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", str):
        return -1, bytes(16)
    return 0, bytes.fromhex(str.replace("-", ""))


def parse_ram_size(text: str) -> int:
    """Read -m's value, in MiB or with a suffix; bytes. Leaves the program after a message.

    >>> parse_ram_size("32"), parse_ram_size("1G"), parse_ram_size("")
    (33554432, 1073741824, 134217728)
    """
    match = re.match(r"\s*\+?(\d*)([MmGg]?)", text)
    assert match is not None
    rest = text[match.end() - len(match[2]) :]
    if rest and rest[0] not in "MmGg":
        print(f"qemu: invalid ram size: {text}", file=sys.stderr)
        raise SystemExit(1)
    size = int(match[1] or "0") << (30 if match[2] in ("G", "g") else 20)
    return size or DEFAULT_RAM_SIZE << 20


@traced
def smp_parse(optarg: str) -> tuple[int, int]:
    """Read -smp's value; how many processors there are and how many there may be."""
    smp, rest = strtoll(optarg)
    if rest != optarg:
        rest = rest.removeprefix(",")
    sockets, cores, threads, most = (
        _number_in(rest, name) for name in ("sockets", "cores", "threads", "maxcpus")
    )
    smp = smp or max(sockets, 1) * max(cores, 1) * max(threads, 1)
    return smp, most or smp


def _number_in(text: str, name: str) -> int:
    length, value = get_param_value(128, name, text)
    return strtoll(value)[0] if length else 0


@traced
def select_vgahw(p: str) -> None:
    """Choose the screen; leaves the program after a message."""
    kind, _, retrace = p.partition(",")
    if kind not in ("std", "cirrus", "vmware", "xenfb", "none") or retrace not in (
        "", "retrace=dumb", "retrace=precise"
    ):  # fmt: skip
        print(f"Unknown vga type: {p}", file=sys.stderr)
        raise SystemExit(1)
    if kind in ("vmware", "xenfb"):
        raise HypervisorError(f"the model's screen is a plain VGA: -vga {kind} is none of it")
    state.vga_enabled = int(kind != "none")


def check_cpu_model(name: str) -> None:
    """See whether there is such a processor; leaves the program after a message."""
    if name.partition(",")[0] not in CPU_MODELS:
        print("Unable to find x86 CPU definition", file=sys.stderr)
        raise SystemExit(1)
    if name != "qemu64":
        raise HypervisorError(f"the model's processor is qemu64: it cannot be a {name}")


def parse_chs(text: str) -> tuple[int, int, int, str]:
    """Read -hdachs's value; leaves the program after a message.

    >>> parse_chs("32,16,63,lba")
    (32, 16, 63, 'lba')
    """
    match = re.fullmatch(r"(\d+),(\d+),(\d+)(?:,(none|lba|auto))?", text)
    chs = [int(match[i]) for i in (1, 2, 3)] if match else [0, 0, 0]
    if match is None or not all(1 <= n <= most for n, most in zip(chs, (16383, 16, 63), strict=True)):
        print("qemu: invalid physical CHS format", file=sys.stderr)
        raise SystemExit(1)
    return chs[0], chs[1], chs[2], match[4] or "auto"
