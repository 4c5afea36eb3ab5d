"""The IDE controller of the PIIX3 chip: hw/ide/piix.c.

Two channels at the PC's traditional ports, and 16 ports for the bus masters where the firmware puts them:
8 a channel, command at +0, status at +2, address of the table at +4.
"""

from __future__ import annotations

from hypervisor.hw import pci_regs as regs
from hypervisor.hw.ide.core import ide_bus_reset, ide_init2, ide_init_ioport
from hypervisor.hw.ide.internal import BMDMAState
from hypervisor.hw.ide.pci import (
    PCIIDEState,
    bmdma_addr_readb,
    bmdma_addr_readl,
    bmdma_addr_readw,
    bmdma_addr_writeb,
    bmdma_addr_writel,
    bmdma_addr_writew,
    bmdma_cmd_writeb,
    pci_ide_create_devs,
)
from hypervisor.hw.ide.qdev import ide_bus_new
from hypervisor.hw.ide.transfer import ide_dma_reset, ide_dma_restart_cb
from hypervisor.hw.isa_bus import isa_reserve_irq
from hypervisor.hw.pci import (
    PCIBus,
    PCIDeviceInfo,
    pci_config_set_class,
    pci_config_set_device_id,
    pci_config_set_vendor_id,
    pci_create_simple,
    pci_qdev_register_many,
    pci_register_bar,
)
from hypervisor.ioport import register_ioport_read, register_ioport_write
from hypervisor.module import device_init
from hypervisor.savevm import vmstate_register
from hypervisor.trace_io import traced_io
from hypervisor.vl_drive import DriveInfo
from hypervisor.vl_loop import qemu_add_vm_change_state_handler, qemu_register_reset
from hypervisor.vmstate.ide import vmstate_ide_pci
from tracer import traced

C_FILE = "hw/ide/piix.c"

PCI_DEVICE_ID_INTEL_82371AB = 0x7111


@traced_io
def bmdma_readb(opaque: BMDMAState, addr: int) -> int:
    """Read the command or the status."""
    return {0: opaque.cmd, 2: opaque.status}.get(addr & 3, 0xFF)


@traced
def bmdma_writeb(opaque: BMDMAState, addr: int, val: int) -> None:
    """Write the status: bits 1 and 2 are cleared by writing them."""
    if addr & 3 == 2:
        opaque.status = (val & 0x60) | (opaque.status & 1) | (opaque.status & ~val & 0x06)


@traced
def bmdma_map(pci_dev: PCIIDEState, region_num: int, addr: int, size: int, type: int) -> None:
    """Take the ports the firmware chose, and have failed commands tried again when the machine starts."""
    for bm, bus in zip(pci_dev.bmdma, pci_dev.ide_bus, strict=True):
        bus.bmdma = bm
        bm.bus = bus
        bm.pci_dev = pci_dev
        qemu_add_vm_change_state_handler(ide_dma_restart_cb, bm)
        register_ioport_write(addr, 1, 1, bmdma_cmd_writeb, bm)
        register_ioport_write(addr + 1, 3, 1, bmdma_writeb, bm)
        register_ioport_read(addr, 4, 1, bmdma_readb, bm)
        register_ioport_write(addr + 4, 4, 1, bmdma_addr_writeb, bm)
        register_ioport_read(addr + 4, 4, 1, bmdma_addr_readb, bm)
        register_ioport_write(addr + 4, 4, 2, bmdma_addr_writew, bm)
        register_ioport_read(addr + 4, 4, 2, bmdma_addr_readw, bm)
        register_ioport_write(addr + 4, 4, 4, bmdma_addr_writel, bm)
        register_ioport_read(addr + 4, 4, 4, bmdma_addr_readl, bm)
        addr += 8


@traced
def piix3_reset(opaque: PCIIDEState) -> None:
    """Reset channels, bus masters and configuration."""
    for bus, bm in zip(opaque.ide_bus, opaque.bmdma, strict=True):
        ide_bus_reset(bus)
        ide_dma_reset(bm)
    opaque.config[0x04:0x08] = bytes((0x00, 0x00, 0x80, 0x02))
    opaque.config[0x20] = 0x01


@traced
def pci_piix_ide_initfn(d: PCIIDEState) -> int:
    """Make the controller's channels and take their ports."""
    d.config[regs.PCI_CLASS_PROG] = 0x80
    pci_config_set_class(d.config, regs.PCI_CLASS_STORAGE_IDE)
    d.config[regs.PCI_HEADER_TYPE] = regs.PCI_HEADER_TYPE_NORMAL
    qemu_register_reset(piix3_reset, d)
    pci_register_bar(d, 4, 0x10, regs.PCI_BASE_ADDRESS_SPACE_IO, bmdma_map)
    vmstate_register(0, vmstate_ide_pci, d)
    ide_bus_new(d.ide_bus[0], d)
    ide_bus_new(d.ide_bus[1], d)
    ide_init_ioport(d.ide_bus[0], 0x1F0, 0x3F6)
    ide_init_ioport(d.ide_bus[1], 0x170, 0x376)
    ide_init2(d.ide_bus[0], None, None, isa_reserve_irq(14))
    ide_init2(d.ide_bus[1], None, None, isa_reserve_irq(15))
    return 0


@traced
def pci_piix3_ide_initfn(dev: PCIIDEState) -> int:
    """Make the controller of a PIIX3."""
    pci_config_set_vendor_id(dev.config, regs.PCI_VENDOR_ID_INTEL)
    pci_config_set_device_id(dev.config, regs.PCI_DEVICE_ID_INTEL_82371SB_1)
    return pci_piix_ide_initfn(dev)


@traced
def pci_piix4_ide_initfn(dev: PCIIDEState) -> int:
    """Make the controller of a PIIX4."""
    pci_config_set_vendor_id(dev.config, regs.PCI_VENDOR_ID_INTEL)
    pci_config_set_device_id(dev.config, PCI_DEVICE_ID_INTEL_82371AB)
    return pci_piix_ide_initfn(dev)


@traced
def pci_piix3_ide_init(bus: PCIBus, hd_table: list[DriveInfo | None], devfn: int) -> None:
    """Make the machine's IDE controller and its drives; the table has four places."""
    dev = pci_create_simple(bus, devfn, "piix3-ide")
    assert isinstance(dev, PCIIDEState)
    pci_ide_create_devs(dev, hd_table)


piix_ide_info = [
    PCIDeviceInfo(name="piix3-ide", size=PCIIDEState, no_user=1, pci_init=pci_piix3_ide_initfn),
    PCIDeviceInfo(name="piix4-ide", size=PCIIDEState, no_user=1, pci_init=pci_piix4_ide_initfn),
]


@traced
def piix_ide_register() -> None:
    """Register the controllers."""
    pci_qdev_register_many(piix_ide_info)


device_init(piix_ide_register)
