"""The chip set: i440FX host bridge and PIIX3 PCI-to-ISA bridge; hw/piix_pci.c."""

from __future__ import annotations

from dataclasses import field

from hypervisor.hw import pci_regs as regs
from hypervisor.hw.irq import IRQState, qemu_set_irq
from hypervisor.hw.isa_bus import isa_bus_new
from hypervisor.hw.pci import (
    PCIBus,
    PCIDevice,
    PCIDeviceInfo,
    pci_bus_irqs,
    pci_bus_new,
    pci_config_set_class,
    pci_config_set_device_id,
    pci_config_set_vendor_id,
    pci_create_simple,
    pci_qdev_register_many,
)
from hypervisor.hw.pci_host import PCIHostState, pci_host_conf_register_ioport, pci_host_data_register_ioport
from hypervisor.hw.qdev import qdev_create, qdev_init_nofail
from hypervisor.hw.sysbus import SysBusDeviceInfo, sysbus_register_withprop
from hypervisor.module import device_init
from hypervisor.vl_loop import qemu_register_reset
from hypervisor.vmstate.pci import vmstate_i440fx, vmstate_piix3
from tracer import traced

C_FILE = "hw/piix_pci.c"

_PIIX3_RESET = {
    0x04: 0x07, 0x05: 0x00, 0x06: 0x00, 0x07: 0x02, 0x4C: 0x4D, 0x4E: 0x03, 0x4F: 0x00,
    0x60: 0x80, 0x61: 0x80, 0x62: 0x80, 0x63: 0x80, 0x69: 0x02, 0x70: 0x80, 0x76: 0x0C,
    0x77: 0x0C, 0x78: 0x02, 0x79: 0x00, 0x80: 0x00, 0x82: 0x00, 0xA0: 0x08, 0xA2: 0x00,
    0xA3: 0x00, 0xA4: 0x00, 0xA5: 0x00, 0xA6: 0x00, 0xA7: 0x00, 0xA8: 0x0F, 0xAA: 0x00,
    0xAB: 0x00, 0xAC: 0x00, 0xAE: 0x00,
}  # fmt: skip


class PIIX3State(PCIDevice):
    """`PIIX3State`: the bridge to ISA, which routes the PCI pins to interrupt numbers."""

    pci_irq_levels: list[int] = field(default_factory=lambda: [0] * 4)
    pic: list[IRQState] = field(default_factory=list)


class PCII440FXState(PCIDevice):
    """`PCII440FXState`: the memory controller; the model maps all of the first megabyte as memory."""

    piix3: PIIX3State | None = None


@traced
def pci_slot_get_pirq(pci_dev: PCIDevice, irq_num: int) -> int:
    """Which of the bridge's four pins a device's pin is wired to."""
    return irq_num + (pci_dev.devfn >> 3) - 1 & 3


@traced
def piix3_set_irq(opaque: PIIX3State, irq_num: int, level: int) -> None:
    """Set a pin; the interrupt line it is routed to is the OR of its pins."""
    opaque.pci_irq_levels[irq_num] = level
    pic_irq = opaque.config[0x60 + irq_num]
    if pic_irq < 16:
        routed = (opaque.pci_irq_levels[i] for i in range(4) if opaque.config[0x60 + i] == pic_irq)
        qemu_set_irq(opaque.pic[pic_irq], int(any(routed)))


@traced
def i440fx_pcihost_initfn(dev: PCIHostState) -> int:
    """Take the configuration ports."""
    pci_host_conf_register_ioport(0xCF8, dev)
    pci_host_data_register_ioport(0xCFC, dev)
    return 0


@traced
def i440fx_initfn(dev: PCII440FXState) -> int:
    """Fill the memory controller's configuration."""
    pci_config_set_vendor_id(dev.config, regs.PCI_VENDOR_ID_INTEL)
    pci_config_set_device_id(dev.config, regs.PCI_DEVICE_ID_INTEL_82441)
    dev.config[regs.PCI_REVISION_ID] = 0x02
    pci_config_set_class(dev.config, regs.PCI_CLASS_BRIDGE_HOST)
    dev.config[regs.PCI_HEADER_TYPE] = regs.PCI_HEADER_TYPE_NORMAL
    dev.config[0x72] = 0x02
    return 0


@traced
def i440fx_init(pic: list[IRQState]) -> tuple[PCIBus, PCII440FXState, int]:
    """Make the chip set.

    Returns
    -------
    PCIBus, PCII440FXState, int
        The bus, the memory controller, and the slot of the PIIX3.
    """
    host = qdev_create(None, "i440FX-pcihost")
    assert isinstance(host, PCIHostState)
    bus = pci_bus_new(host, None, 0)
    host.bus = bus
    qdev_init_nofail(host)
    i440fx = pci_create_simple(bus, 0, "i440FX")
    piix3 = pci_create_simple(bus, -1, "PIIX3")
    assert isinstance(i440fx, PCII440FXState) and isinstance(piix3, PIIX3State)
    piix3.pic = pic
    pci_bus_irqs(bus, piix3_set_irq, pci_slot_get_pirq, piix3, 4)
    i440fx.piix3 = piix3
    return bus, i440fx, piix3.devfn


@traced
def piix3_reset(opaque: PIIX3State) -> None:
    """Put the bridge's configuration back."""
    for offset, value in _PIIX3_RESET.items():
        opaque.config[offset] = value
    opaque.pci_irq_levels = [0] * 4


@traced
def piix3_initfn(dev: PIIX3State) -> int:
    """Make the ISA bus and fill the bridge's configuration."""
    isa_bus_new(dev)
    pci_config_set_vendor_id(dev.config, regs.PCI_VENDOR_ID_INTEL)
    pci_config_set_device_id(dev.config, regs.PCI_DEVICE_ID_INTEL_82371SB_0)
    pci_config_set_class(dev.config, regs.PCI_CLASS_BRIDGE_ISA)
    dev.config[regs.PCI_HEADER_TYPE] = regs.PCI_HEADER_TYPE_NORMAL | regs.PCI_HEADER_TYPE_MULTI_FUNCTION
    qemu_register_reset(piix3_reset, dev)
    return 0


i440fx_info = [
    PCIDeviceInfo(
        name="i440FX",
        desc="Host bridge",
        size=PCII440FXState,
        no_user=1,
        vmsd=vmstate_i440fx,
        pci_init=i440fx_initfn,
    ),
    PCIDeviceInfo(
        name="PIIX3",
        desc="ISA bridge",
        size=PIIX3State,
        no_user=1,
        vmsd=vmstate_piix3,
        pci_init=piix3_initfn,
    ),
]
i440fx_pcihost_info = SysBusDeviceInfo(
    name="i440FX-pcihost", size=PCIHostState, no_user=1, sysbus_init=i440fx_pcihost_initfn
)


@traced
def i440fx_register() -> None:
    """Register the chip set's devices."""
    sysbus_register_withprop(i440fx_pcihost_info)
    pci_qdev_register_many(i440fx_info)


device_init(i440fx_register)
