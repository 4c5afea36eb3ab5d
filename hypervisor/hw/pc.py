"""The PC: hw/pc.c.

`pc_init1` makes the machine: processor, memory, interrupt controllers, chip set, serial ports, IDE, floppies.
What it leaves out of the real one (APIC, RTC, PIT, keyboard, VGA, USB, network, ACPI) is not modelled yet;
where a recording shows their calls, a comparison looks at the functions that both know.
"""

from __future__ import annotations

import sys

from hypervisor import cpu_exec as cpu
from hypervisor.block import bdrv_get_geometry_hint, bdrv_get_translation_hint
from hypervisor.block_int import BIOS_ATA_TRANSLATION_AUTO, BlockDriverState
from hypervisor.cpu_exec import CPUState
from hypervisor.errors import HypervisorError
from hypervisor.exec import qemu_ram_alloc
from hypervisor.hw.fdc import MAX_FD, FDCtrlISABus, fdctrl_get_drive_type, fdctrl_init_isa
from hypervisor.hw.i8259 import i8259_init, pic_read_irq
from hypervisor.hw.ide.piix import pci_piix3_ide_init
from hypervisor.hw.irq import IRQState, qemu_allocate_irqs, qemu_set_irq
from hypervisor.hw.isa_bus import isa_bus_irqs
from hypervisor.hw.piix_pci import i440fx_init
from hypervisor.hw.qdev_properties import GlobalProperty
from hypervisor.hw.serial import serial_isa_init
from hypervisor.ioport import register_ioport_write
from hypervisor.module import machine_init
from hypervisor.program import on_reset
from hypervisor.trace_io import traced_io
from hypervisor.vl_drive import (
    IF_FLOPPY,
    IF_IDE,
    IF_SCSI,
    MAX_IDE_DEVS,
    DriveInfo,
    drive_get,
    drive_get_max_bus,
)
from hypervisor.vl_loop import qemu_init_vcpu, qemu_register_reset, qemu_system_shutdown_request
from hypervisor.vl_machine import QEMUMachine, qemu_register_machine
from hypervisor.vl_state import state
from tracer import Struct, symbol, traced

C_FILE = "hw/pc.c"

MAX_IDE_BUS = 2
PC_MAX_BOOT_DEVICES = 3
_SHUTDOWN = b"Shutdown"
_shutdown_index = 0
floppy_controller: FDCtrlISABus | None = None


@on_reset
def _reset() -> None:
    global floppy_controller, _shutdown_index
    floppy_controller = None
    _shutdown_index = 0


class IsaIrqState(Struct):
    """`IsaIrqState`: where an ISA interrupt goes."""

    i8259: list[IRQState] | None = None


@traced
def isa_irq_handler(opaque: IsaIrqState, n: int, level: int) -> None:
    """Pass an ISA interrupt on to the interrupt controllers."""
    if n < 16 and opaque.i8259 is not None:
        qemu_set_irq(opaque.i8259[n], level)


@traced_io
def ioport80_write(opaque: None, addr: int, data: int) -> None:
    """Swallow the power-on self-test's codes."""


@traced
def pic_irq_request(opaque: None, irq: int, level: int) -> None:
    """Raise or withdraw the processor's interrupt."""
    env = state.first_cpu
    assert env is not None
    if level:
        cpu.cpu_interrupt(env, cpu.CPU_INTERRUPT_HARD)
    else:
        cpu.cpu_reset_interrupt(env, cpu.CPU_INTERRUPT_HARD)


@traced
def cpu_get_pic_interrupt(env: CPUState) -> int:
    """Ask the interrupt controllers for the vector; -1 if there is none."""
    from hypervisor.hw.i8259 import isa_pic

    return pic_read_irq(isa_pic) if isa_pic is not None else -1


@traced
def boot_device2nibble(boot_device: str) -> int:
    """Number of a boot device in the CMOS memory: 1 floppy, 2 disk, 3 CD-ROM, 4 network; 0 unknown."""
    return {"a": 1, "b": 1, "c": 2, "d": 3, "n": 4}.get(boot_device, 0)


@traced
def cmos_init_hd(type_ofs: int, info_ofs: int, hd: BlockDriverState) -> None:
    """Look up a disk's geometry for the CMOS memory."""
    bdrv_get_geometry_hint(hd)


@traced
def cmos_init(
    ram_size: int, above_4g_mem_size: int, boot_device: str, hd_table: list[DriveInfo | None]
) -> None:
    """Check the boot order, look at floppies and disks; the CMOS memory itself is not modelled."""
    if len(boot_device) > PC_MAX_BOOT_DEVICES:
        print("Too many boot devices for PC", file=sys.stderr)
        raise SystemExit(1)
    for device in boot_device:
        if boot_device2nibble(device) == 0:
            print(f"Invalid boot device for PC: '{device}'", file=sys.stderr)
            raise SystemExit(1)
    assert floppy_controller is not None
    for drive in range(MAX_FD):
        fdctrl_get_drive_type(floppy_controller, drive)
    disks = [dinfo.bdrv if dinfo is not None else None for dinfo in hd_table]
    for bdrv, type_ofs, info_ofs in zip(disks, (0x19, 0x1A), (0x1B, 0x24), strict=False):
        if bdrv is not None:
            cmos_init_hd(type_ofs, info_ofs, bdrv)
    for bdrv in disks:
        if bdrv is not None and bdrv_get_translation_hint(bdrv) == BIOS_ATA_TRANSLATION_AUTO:
            bdrv_get_geometry_hint(bdrv)


@traced
def bochs_bios_write(opaque: None, addr: int, val: int) -> None:
    """Hear the firmware: "Shutdown" written to port 0x8900 switches the machine off."""
    global _shutdown_index
    if addr in (0x400, 0x401):
        print(f"BIOS panic at rombios.c, line {val}", file=sys.stderr)
        raise SystemExit(1)
    if addr in (0x501, 0x502):
        print(f"VGA BIOS panic, line {val}", file=sys.stderr)
        raise SystemExit(1)
    if addr == 0x8900:
        _shutdown_index = _shutdown_index + 1 if val == _SHUTDOWN[_shutdown_index] else 0
        if _shutdown_index == len(_SHUTDOWN):
            _shutdown_index = 0
            state.exit_reason = "guest"
            qemu_system_shutdown_request()


@traced
def bochs_bios_init() -> None:
    """Take the ports by which the firmware speaks."""
    ports = ((0x400, 2), (0x401, 2), (0x402, 1), (0x403, 1), (0x8900, 1))
    for port, size in (*ports, (0x501, 2), (0x502, 2), (0x500, 1), (0x503, 1)):
        register_ioport_write(port, 1, size, bochs_bios_write, None)


@traced
def pc_new_cpu(cpu_model: str) -> CPUState:
    """Make the processor."""
    from hypervisor.accel import make_accel

    env = CPUState()
    env._accel = make_accel()
    state.first_cpu = env
    qemu_register_reset(cpu.cpu_reset, env)
    qemu_init_vcpu(env)
    return env


@traced
def pc_init1(
    ram_size: int,
    boot_device: str,
    kernel_filename: str | None,
    kernel_cmdline: str,
    initrd_filename: str | None,
    cpu_model: str | None,
    pci_enabled: int,
) -> None:
    """Make the machine."""
    global floppy_controller
    from hypervisor import bios

    env = pc_new_cpu(cpu_model or "qemu64")
    qemu_ram_alloc(ram_size)
    env.accel.map_ram()
    bochs_bios_init()
    cpu_irq = qemu_allocate_irqs(pic_irq_request, None, 1)
    i8259 = i8259_init(cpu_irq[0])
    isa_irq = qemu_allocate_irqs(isa_irq_handler, IsaIrqState(i8259=i8259), 24)
    pci_bus, _, piix3_devfn = i440fx_init(isa_irq)
    isa_bus_irqs(isa_irq)
    register_ioport_write(0x80, 1, 1, ioport80_write, None)
    for index, chr in enumerate(state.serial_hds):
        if chr is not None:
            serial_isa_init(index, chr)
    if drive_get_max_bus(IF_IDE) >= MAX_IDE_BUS:
        print("qemu: too many IDE bus", file=sys.stderr)
        raise SystemExit(1)
    hd = [drive_get(IF_IDE, i // MAX_IDE_DEVS, i % MAX_IDE_DEVS) for i in range(MAX_IDE_BUS * MAX_IDE_DEVS)]
    pci_piix3_ide_init(pci_bus, hd, piix3_devfn + 1)
    floppy_controller = fdctrl_init_isa([drive_get(IF_FLOPPY, 0, i) for i in range(MAX_FD)])
    cmos_init(ram_size, 0, boot_device, hd)
    if drive_get_max_bus(IF_SCSI) >= 0:
        raise HypervisorError("the model has no SCSI controller: use if=ide or if=floppy")
    bios.install(env, boot_device)


@traced
def pc_init_pci(
    ram_size: int,
    boot_device: str,
    kernel_filename: str | None,
    kernel_cmdline: str,
    initrd_filename: str | None,
    cpu_model: str | None,
) -> None:
    """Make a PC with a PCI bus."""
    pc_init1(ram_size, boot_device, kernel_filename, kernel_cmdline, initrd_filename, cpu_model, 1)


def _pc(name: str, desc: str, version: str) -> QEMUMachine:
    compat = [
        GlobalProperty(driver="ide-drive", property="ver", value=version),
        GlobalProperty(driver="PCI", property="rombar", value="0"),
    ]
    machine = QEMUMachine(name=name, desc=desc, init=pc_init_pci, max_cpus=255, compat_props=compat)
    return symbol(machine, f"pc_machine_v{version.replace('.', '_')}")


pc_machine = symbol(
    QEMUMachine(name="pc-0.12", alias="pc", desc="Standard PC", init=pc_init_pci, max_cpus=255, is_default=1),
    "pc_machine",
)
pc_machine_v0_11 = _pc("pc-0.11", "Standard PC, qemu 0.11", "0.11")
pc_machine_v0_10 = _pc("pc-0.10", "Standard PC, qemu 0.10", "0.10")
isapc_machine = symbol(QEMUMachine(name="isapc", desc="ISA-only PC"), "isapc_machine")


@traced
def pc_machine_init() -> None:
    """Register the PCs; the one without PCI is known and not modelled."""
    for machine in (pc_machine, pc_machine_v0_11, pc_machine_v0_10, isapc_machine):
        qemu_register_machine(machine)


machine_init(pc_machine_init)
