"""How the processor reaches PCI configuration space, by an address and a data port: hw/pci_host.c.

outl(0xcf8, 0x80000000 | bus << 16 | devfn << 8 | offset); inl(0xcfc)
"""

from __future__ import annotations

from hypervisor.hw import pci_regs as regs
from hypervisor.hw.pci import PCIBus, PCIDevice, pci_find_device
from hypervisor.hw.qdev import DeviceState
from hypervisor.ioport import register_ioport_read, register_ioport_write
from hypervisor.trace_io import traced_io
from tracer import traced

C_FILE = "hw/pci_host.c"


class PCIHostState(DeviceState):
    """`PCIHostState`: the bridge between processor and bus."""

    config_reg: int = 0
    bus: PCIBus | None = None


@traced_io
def pci_dev_find_by_addr(bus: PCIBus, addr: int) -> PCIDevice | None:
    """The device an address names."""
    return pci_find_device(bus, addr >> 16 & 0xFF, addr >> 11 & 0x1F, addr >> 8 & 7)


@traced
def pci_data_write(s: PCIBus, addr: int, val: int, len: int) -> None:
    """Write configuration space; without a device nothing happens."""
    pci_dev = pci_dev_find_by_addr(s, addr)
    if pci_dev is not None and pci_dev.config_write is not None:
        pci_dev.config_write(pci_dev, addr & (regs.PCI_CONFIG_SPACE_SIZE - 1), val, len)


@traced
def pci_data_read(s: PCIBus, addr: int, len: int) -> int:
    """Read configuration space; without a device all ones."""
    pci_dev = pci_dev_find_by_addr(s, addr)
    if pci_dev is None or pci_dev.config_read is None:
        return (1 << 8 * len) - 1
    return pci_dev.config_read(pci_dev, addr & (regs.PCI_CONFIG_SPACE_SIZE - 1), len)


@traced_io
def pci_host_config_writel_ioport(opaque: PCIHostState, addr: int, val: int) -> None:
    """Set the address."""
    opaque.config_reg = val


@traced_io
def pci_host_config_readl_ioport(opaque: PCIHostState, addr: int) -> int:
    """Read the address back."""
    return opaque.config_reg


def host_write(opaque: PCIHostState, addr: int, val: int, len: int) -> None:
    """Write a port of the data window: configuration space at the address last chosen, if that is enabled."""
    if opaque.config_reg & 1 << 31 and opaque.bus is not None:
        pci_data_write(opaque.bus, opaque.config_reg | (addr & 3), val, len)


def host_read(opaque: PCIHostState, addr: int, len: int) -> int:
    """Read a port of the data window; all ones where the address chosen is not enabled."""
    if not opaque.config_reg & 1 << 31 or opaque.bus is None:
        return (1 << 8 * len) - 1
    return pci_data_read(opaque.bus, opaque.config_reg | (addr & 3), len)


@traced
def pci_host_conf_register_ioport(ioport: int, s: PCIHostState) -> None:
    """Take the address port."""
    register_ioport_write(ioport, 4, 4, pci_host_config_writel_ioport, s)
    register_ioport_read(ioport, 4, 4, pci_host_config_readl_ioport, s)


@traced
def pci_host_data_register_ioport(ioport: int, s: PCIHostState) -> None:
    """Take the data port, in all widths."""
    from hypervisor.hw import pci_host_template as template

    register_ioport_write(ioport, 4, 1, template.pci_host_data_writeb_ioport, s)
    register_ioport_write(ioport, 4, 2, template.pci_host_data_writew_ioport, s)
    register_ioport_write(ioport, 4, 4, template.pci_host_data_writel_ioport, s)
    register_ioport_read(ioport, 4, 1, template.pci_host_data_readb_ioport, s)
    register_ioport_read(ioport, 4, 2, template.pci_host_data_readw_ioport, s)
    register_ioport_read(ioport, 4, 4, template.pci_host_data_readl_ioport, s)
