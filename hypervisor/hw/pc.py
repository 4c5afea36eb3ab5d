"""The PC: hw/pc.c.

`pc_init1` makes the machine, in the order of the real one: processor, memory and BIOS, what the firmware is
told, interrupt controllers, chip set, screen, clock, timer, serial ports, IDE, keyboard, floppies, CMOS. It
leaves out APIC, HPET, USB and network; where a recording shows their calls, a comparison looks at the
functions that both know.
"""

from __future__ import annotations

import sys

from hypervisor import cpu_exec as cpu
from hypervisor.bios_file import read_bios
from hypervisor.block import bdrv_get_geometry_hint, bdrv_get_translation_hint
from hypervisor.block_int import BIOS_ATA_TRANSLATION_AUTO, BlockDriverState
from hypervisor.cpu_exec import CPUState
from hypervisor.errors import HypervisorError
from hypervisor.exec import IO_MEM_ROM, cpu_register_physical_memory, qemu_ram_alloc
from hypervisor.hw import fw_cfg as fw
from hypervisor.hw import loader
from hypervisor.hw import not_modelled as not_modelled
from hypervisor.hw.acpi import piix4_pm_init
from hypervisor.hw.acpi_hotplug import piix4_acpi_system_hot_add_init
from hypervisor.hw.fdc import (
    FDRIVE_DRV_120,
    FDRIVE_DRV_144,
    FDRIVE_DRV_288,
    FDRIVE_DRV_NONE,
    MAX_FD,
    FDCtrlISABus,
    fdctrl_get_drive_type,
    fdctrl_init_isa,
)
from hypervisor.hw.i8254 import pit_init
from hypervisor.hw.i8259 import i8259_init, pic_read_irq
from hypervisor.hw.ide import isa as isa
from hypervisor.hw.ide.piix import pci_piix3_ide_init
from hypervisor.hw.irq import IRQState, qemu_allocate_irqs, qemu_irq_lower, qemu_set_irq
from hypervisor.hw.isa_bus import isa_bus_irqs, isa_create_simple, isa_reserve_irq
from hypervisor.hw.mc146818rtc import RTCState, rtc_init, rtc_set_memory
from hypervisor.hw.pci import PCIBus
from hypervisor.hw.pcspk import pcspk_init
from hypervisor.hw.piix_pci import i440fx_init
from hypervisor.hw.qdev import qdev_create, qdev_init_nofail
from hypervisor.hw.qdev_properties import GlobalProperty, qdev_prop_set_ptr, qdev_prop_set_uint8
from hypervisor.hw.serial import serial_isa_init
from hypervisor.hw.vga_isa import isa_vga_init
from hypervisor.ioport import register_ioport_read, register_ioport_write
from hypervisor.kvm_all import kvm_enabled
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
from hypervisor.vl_machine import QEMUMachine, qemu_register_boot_set, qemu_register_machine
from hypervisor.vl_options import check_cpu_model
from hypervisor.vl_state import DT_NOGRAPHIC, state
from tracer import Struct, symbol, traced

C_FILE = "hw/pc.c"

MAX_IDE_BUS = 2
PC_MAX_BOOT_DEVICES = 3
_SHUTDOWN = b"Shutdown"
BIOS_CFG_IOPORT = 0x510
REG_EQUIPMENT_BYTE = 0x14
_4G, _1M = 1 << 32, 1 << 20
_ISA_BIOS = 128 << 10
_DEBUG_PORT, _DEBUG_ANSWER, _DEBUG_MOST = 0x402, 0xE9, 1 << 16
_shutdown_index = 0
floppy_controller: FDCtrlISABus | None = None
rtc_state: RTCState | None = None
ferr_irq: IRQState | None = None
debug_log = bytearray()
"""What the firmware wrote to its debug port."""


@on_reset
def _reset() -> None:
    global floppy_controller, rtc_state, ferr_irq, _shutdown_index
    floppy_controller = rtc_state = ferr_irq = None
    _shutdown_index = 0
    debug_log.clear()


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


@traced_io
def ioportF0_write(opaque: None, addr: int, data: int) -> None:
    """Take the coprocessor's error back."""
    qemu_irq_lower(ferr_irq)


@traced
def ioport_set_a20(enable: int) -> None:
    """Let address line 20 through, or hold it low."""
    assert state.first_cpu is not None
    cpu.cpu_x86_set_a20(state.first_cpu, enable)


@traced
def ioport_get_a20() -> int:
    """Whether address line 20 is let through."""
    assert state.first_cpu is not None
    return state.first_cpu.a20_mask >> 20 & 1


@traced_io
def ioport92_write(opaque: None, addr: int, val: int) -> None:
    """Set address line 20 by bit 1."""
    ioport_set_a20(val >> 1 & 1)


@traced_io
def ioport92_read(opaque: None, addr: int) -> int:
    """Read address line 20."""
    return ioport_get_a20() << 1


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
def pc_boot_set(opaque: RTCState, boot_device: str) -> int:
    """Change the boot order, from the next reset on; 0, or 1 after a message."""
    from hypervisor import bios, monitor

    if len(boot_device) > PC_MAX_BOOT_DEVICES:
        monitor.monitor_printf(monitor.cur_mon, "Too many boot devices for PC\n")
        return 1
    bds = [0, 0, 0]
    for number, device in enumerate(boot_device):
        bds[number] = boot_device2nibble(device)
        if bds[number] == 0:
            monitor.monitor_printf(monitor.cur_mon, "Invalid boot device for PC: '%s'\n", device)
            return 1
    rtc_set_memory(opaque, 0x3D, bds[1] << 4 | bds[0])
    rtc_set_memory(opaque, 0x38, bds[2] << 4)
    if bios._current is not None:
        bios._current.boot_devices = boot_device
    return 0


@traced
def cmos_get_fd_drive_type(fd0: int) -> int:
    """Number of a floppy drive's type in the CMOS memory; 0 for none."""
    return {FDRIVE_DRV_144: 4, FDRIVE_DRV_288: 5, FDRIVE_DRV_120: 2}.get(fd0, 0)


def _store(addr: int, value: int, count: int) -> None:
    assert rtc_state is not None
    for number in range(count):
        rtc_set_memory(rtc_state, addr + number, value >> 8 * number & 0xFF)


@traced
def cmos_init_hd(type_ofs: int, info_ofs: int, hd: BlockDriverState) -> None:
    """Write a disk's type, which is "user defined", and its geometry."""
    cylinders, heads, sectors = bdrv_get_geometry_hint(hd)
    _store(type_ofs, 47, 1)
    _store(info_ofs, cylinders, 2)
    _store(info_ofs + 2, heads, 1)
    _store(info_ofs + 3, 0xFFFF, 2)
    _store(info_ofs + 5, 0xC0 | (heads > 8) << 3, 1)
    _store(info_ofs + 6, cylinders, 2)
    _store(info_ofs + 8, sectors, 1)


def _translation(bdrv: BlockDriverState) -> int:
    """How the firmware shows a disk: 0 as it is, 1 with more heads."""
    translation = bdrv_get_translation_hint(bdrv)
    if translation != BIOS_ATA_TRANSLATION_AUTO:
        return translation - 1
    cylinders, heads, sectors = bdrv_get_geometry_hint(bdrv)
    return 0 if cylinders <= 1024 and heads <= 16 and sectors <= 63 else 1


@traced
def cmos_init(
    ram_size: int, above_4g_mem_size: int, boot_device: str, hd_table: list[DriveInfo | None]
) -> None:
    """Write the CMOS memory that the firmware reads: memory, boot order, floppies, disks."""
    extended = min((ram_size >> 10) - 1024, 0xFFFF)
    _store(0x15, 640, 2)
    _store(0x17, extended, 2)
    _store(0x30, extended, 2)
    _store(0x34, min(max(ram_size - (16 << 20), 0) >> 16, 0xFFFF), 2)
    _store(0x5F, 0, 1)
    _store_boot_order(boot_device)
    assert floppy_controller is not None
    floppies = [fdctrl_get_drive_type(floppy_controller, drive) for drive in range(MAX_FD)]
    types = [cmos_get_fd_drive_type(drive) for drive in floppies]
    _store(0x10, types[0] << 4 | types[1], 1)
    count = sum(1 for drive in floppies if drive != FDRIVE_DRV_NONE)
    # Coprocessor and PS/2 mouse are there.
    _store(REG_EQUIPMENT_BYTE, (0x00, 0x01, 0x41)[count] | 0x06, 1)
    disks = [dinfo.bdrv if dinfo is not None else None for dinfo in hd_table]
    _store(0x12, (0xF0 if disks[0] else 0) | (0x0F if disks[1] else 0), 1)
    for bdrv, type_ofs, info_ofs in zip(disks, (0x19, 0x1A), (0x1B, 0x24), strict=False):
        if bdrv is not None:
            cmos_init_hd(type_ofs, info_ofs, bdrv)
    _store(0x39, sum(_translation(bdrv) << i * 2 for i, bdrv in enumerate(disks) if bdrv is not None), 1)


def _store_boot_order(boot_device: str) -> None:
    if len(boot_device) > PC_MAX_BOOT_DEVICES:
        print("Too many boot devices for PC", file=sys.stderr)
        raise SystemExit(1)
    numbers = []
    for device in boot_device:
        numbers.append(boot_device2nibble(device))
        if numbers[-1] == 0:
            print(f"Invalid boot device for PC: '{device}'", file=sys.stderr)
            raise SystemExit(1)
    numbers += [0] * (PC_MAX_BOOT_DEVICES - len(numbers))
    _store(0x3D, numbers[1] << 4 | numbers[0], 1)
    _store(0x38, numbers[2] << 4 | (0 if state.fd_bootchk else 1), 1)


@traced_io
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
    elif addr == _DEBUG_PORT and len(debug_log) < _DEBUG_MOST:
        debug_log.append(val & 0xFF)


def _debug_port_read(opaque: None, addr: int) -> int:
    """Tell SeaBIOS that somebody listens to what it says there; as QEMU's later isa-debugcon does."""
    return _DEBUG_ANSWER


@traced
def bochs_bios_init() -> fw.FWCfgState:
    """Take the ports by which the firmware speaks, and have it told about the machine."""
    ports = ((0x400, 2), (0x401, 2), (0x402, 1), (0x403, 1), (0x8900, 1))
    for port, size in (*ports, (0x501, 2), (0x502, 2), (0x500, 1), (0x503, 1)):
        register_ioport_write(port, 1, size, bochs_bios_write, None)
    fw_cfg = fw.fw_cfg_init(BIOS_CFG_IOPORT, BIOS_CFG_IOPORT + 1, 0, 0)
    fw.fw_cfg_add_i32(fw_cfg, fw.FW_CFG_ID, 1)
    fw.fw_cfg_add_i64(fw_cfg, fw.FW_CFG_RAM_SIZE, state.ram_size)
    fw.fw_cfg_add_bytes(fw_cfg, fw.FW_CFG_ACPI_TABLES, None, 0)
    fw.fw_cfg_add_bytes(fw_cfg, fw.FW_CFG_IRQ0_OVERRIDE, bytearray(b"\1"), 1)
    fw.fw_cfg_add_bytes(fw_cfg, fw.FW_CFG_NUMA, bytearray(16), 16)
    return fw_cfg


def _load_bios(env: CPUState, boot_device: str) -> None:
    """Put the BIOS, the built-in one or a file, below 4 GiB and below 1 MiB."""
    from hypervisor import bios

    if state.bios_name is None:
        rom = bios.install(env, boot_device)
    else:
        rom = read_bios(state.bios_name)
        register_ioport_read(_DEBUG_PORT, 1, 1, _debug_port_read, None)
    offset = qemu_ram_alloc(len(rom))
    name, low = state.bios_name or "bios.bin", rom[-_ISA_BIOS:]
    loader.carry(name, rom)
    loader.rom_add_file(name, None, _4G - len(rom))
    loader.mirror("isa-bios", low, _1M - len(low))
    cpu_register_physical_memory(_4G - len(rom), len(rom), offset | IO_MEM_ROM)


def _firmware_files(fw_cfg: fw.FWCfgState) -> None:
    """Have SeaBIOS show its screen on the serial line where there is no other."""
    if state.display_type == DT_NOGRAPHIC and state.serial_hds[0] is not None:
        port = bytearray((0x3F8).to_bytes(2, "little"))
        fw.tell_more(fw_cfg, "etc/sercon-port", port)


@traced
def pc_new_cpu(cpu_model: str) -> CPUState:
    """Make the processor."""
    from hypervisor.accel import make_accel
    from hypervisor.vmstate.absent import register_absent, vmstate_apic
    from hypervisor.vmstate.cpu import register_cpu

    env = CPUState()
    env._accel = make_accel("kvm" if kvm_enabled() else "unicorn")
    state.first_cpu = env
    register_cpu(env)
    check_cpu_model(cpu_model)
    register_absent(0, vmstate_apic)
    qemu_register_reset(cpu.cpu_reset, env)
    qemu_init_vcpu(env)
    return env


def _power_management(pci_bus: PCIBus, devfn: int, cpu_model: str) -> None:
    """Make the power management, and on its SMBus the empty memories of eight memory modules."""
    bus = piix4_pm_init(pci_bus, devfn, 0xB100, isa_reserve_irq(9))
    memories = memoryview(bytearray(8 * 256))
    for number in range(8):
        eeprom = qdev_create(bus, "smbus-eeprom")
        qdev_prop_set_uint8(eeprom, "address", 0x50 + number)
        qdev_prop_set_ptr(eeprom, "data", memories[256 * number : 256 * (number + 1)])
        qdev_init_nofail(eeprom)
    piix4_acpi_system_hot_add_init(pci_bus, cpu_model)


@traced
def audio_init(pci_bus: PCIBus, pic: list[IRQState]) -> None:
    """Make the sound cards that -soundhw asks for; there are none."""


@traced
def cmos_set_s3_resume() -> None:
    """Tell the firmware that the machine wakes up from a sleep to RAM."""
    if rtc_state is not None:
        rtc_set_memory(rtc_state, 0xF, 0xFE)


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
    global floppy_controller, rtc_state, ferr_irq
    from hypervisor.vmstate import absent

    if kvm_enabled():
        from hypervisor.qemu_kvm import kvm_set_boot_cpu_id

        kvm_set_boot_cpu_id(0)
    env = pc_new_cpu(cpu_model or "qemu64")
    ram_addr = qemu_ram_alloc(ram_size)
    cpu_register_physical_memory(0, 0xA0000, ram_addr)
    cpu_register_physical_memory(_1M, ram_size - _1M, ram_addr + _1M)
    _load_bios(env, boot_device)
    fw_cfg = bochs_bios_init()
    loader.rom_set_fw(fw_cfg)
    _firmware_files(fw_cfg)
    cpu_irq = qemu_allocate_irqs(pic_irq_request, None, 1)
    i8259 = i8259_init(cpu_irq[0])
    isa_irq = qemu_allocate_irqs(isa_irq_handler, IsaIrqState(i8259=i8259), 24)
    pci_bus, _, piix3_devfn = i440fx_init(isa_irq)
    isa_bus_irqs(isa_irq)
    ferr_irq = isa_reserve_irq(13)
    if state.vga_enabled:
        absent.register_absent(-1, absent.vmstate_pci_cirrus_vga)
    register_ioport_write(0x80, 1, 1, ioport80_write, None)
    register_ioport_write(0xF0, 1, 1, ioportF0_write, None)
    if state.vga_enabled:
        isa_vga_init()
    rtc_state = rtc_init(2000)
    qemu_register_boot_set(pc_boot_set, rtc_state)
    absent.register_absent(0, absent.vmstate_ioapic)
    register_ioport_read(0x92, 1, 1, ioport92_read, None)
    register_ioport_write(0x92, 1, 1, ioport92_write, None)
    pcspk_init(pit_init(0x40, isa_reserve_irq(0)))
    if not state.no_hpet:
        absent.register_absent(-1, absent.vmstate_hpet)
    for index, chr in enumerate(state.serial_hds):
        if chr is not None:
            serial_isa_init(index, chr)
    if drive_get_max_bus(IF_IDE) >= MAX_IDE_BUS:
        print("qemu: too many IDE bus", file=sys.stderr)
        raise SystemExit(1)
    hd = [drive_get(IF_IDE, i // MAX_IDE_DEVS, i % MAX_IDE_DEVS) for i in range(MAX_IDE_BUS * MAX_IDE_DEVS)]
    pci_piix3_ide_init(pci_bus, hd, piix3_devfn + 1)
    isa_create_simple("i8042")
    absent.register_absent(0, absent.vmstate_dma)
    absent.register_absent(1, absent.vmstate_dma)
    audio_init(pci_bus, isa_irq)
    floppy_controller = fdctrl_init_isa([drive_get(IF_FLOPPY, 0, i) for i in range(MAX_FD)])
    cmos_init(ram_size, 0, boot_device, hd)
    if state.acpi_enabled:
        _power_management(pci_bus, piix3_devfn + 3, cpu_model or "qemu64")
    if drive_get_max_bus(IF_SCSI) >= 0:
        raise HypervisorError("the model has no SCSI controller: use if=ide or if=floppy")


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
