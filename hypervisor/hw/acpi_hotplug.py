"""The registers by which ACPI hears of devices that come and go: a part of hw/acpi.c.

    0xafe0 GPE status and enable    0xaf00 which processors there are    0xae00 slots that came, that go
    0xae08 the guest lets go of a slot

A guest that lets go of a device finds it there all the same: the model's devices stay.

- `qemu_system_cpu_hot_add(cpu, state)`: tell the guest of a processor.
"""

from __future__ import annotations

from dataclasses import field

from hypervisor.hw.acpi import pm_state
from hypervisor.hw.irq import qemu_set_irq
from hypervisor.hw.pci import PCIBus, PCIDevice, pci_bus_hotplug
from hypervisor.ioport import register_ioport_read, register_ioport_write
from hypervisor.program import on_reset
from hypervisor.trace_io import traced_io
from tracer import Struct, traced

C_FILE = "hw/acpi.c"

GPE_BASE, PROC_BASE, PCI_BASE, PCI_EJ_BASE = 0xAFE0, 0xAF00, 0xAE00, 0xAE08
_PROCESSORS = 32
_GPE_PCI, _GPE_CPU = 1 << 1, 1 << 2


class gpe_regs(Struct):
    """`struct gpe_regs`: general-purpose events, and a bit a processor."""

    sts: int = 0
    en: int = 0
    cpus_sts: bytearray = field(default_factory=lambda: bytearray(_PROCESSORS))


class pci_status(Struct):
    """`struct pci_status`: a bit a slot that was filled, that is to be emptied."""

    up: int = 0
    down: int = 0


gpe = gpe_regs()
pci0_status = pci_status()


@on_reset
def _reset() -> None:
    gpe.sts = gpe.en = pci0_status.up = pci0_status.down = 0
    gpe.cpus_sts[:] = bytes(_PROCESSORS)


@traced_io
def gpe_readb(opaque: gpe_regs, addr: int) -> int:
    """Read an event register, or which processors there are."""
    if PROC_BASE <= addr < PROC_BASE + _PROCESSORS:
        return opaque.cpus_sts[addr - PROC_BASE]
    return (opaque.sts | opaque.en << 16) >> 8 * (addr - GPE_BASE) & 0xFF


@traced_io
def gpe_writeb(opaque: gpe_regs, addr: int, val: int) -> None:
    """Clear events by writing 1s; enable them. Which processors there are cannot be written."""
    shift = 8 * (addr & 1)
    if addr in (GPE_BASE, GPE_BASE + 1):
        opaque.sts &= ~(val << shift)
    elif addr in (GPE_BASE + 2, GPE_BASE + 3):
        opaque.en = opaque.en & ~(0xFF << shift) | val << shift


@traced_io
def pcihotplug_read(opaque: pci_status, addr: int) -> int:
    """Read which slots were filled or are to be emptied."""
    return opaque.up if addr == PCI_BASE else opaque.down


@traced_io
def pcihotplug_write(opaque: pci_status, addr: int, val: int) -> None:
    """Take back what was read."""
    if addr == PCI_BASE:
        opaque.up = val
    else:
        opaque.down = val


@traced_io
def pciej_read(opaque: PCIBus, addr: int) -> int:
    """Nothing is to be read."""
    return 0


@traced_io
def pciej_write(opaque: PCIBus, addr: int, val: int) -> None:
    """Let go of a slot: the model's devices stay."""


@traced
def piix4_device_hotplug(dev: PCIDevice, state: int) -> int:
    """Tell the guest of a device that comes (1) or is to go (0)."""
    pci0_status.up = pci0_status.down = 0
    if state:
        pci0_status.up = 1 << (dev.devfn >> 3)
    else:
        pci0_status.down = 1 << (dev.devfn >> 3)
    _event(_GPE_PCI)
    return 0


def _event(bit: int) -> None:
    """Set an event, and interrupt a guest that wants to hear of it."""
    gpe.sts |= bit
    pm = pm_state()
    if gpe.en & bit and pm is not None:
        qemu_set_irq(pm.pm_irq, 1)
        qemu_set_irq(pm.pm_irq, 0)


@traced
def qemu_system_cpu_hot_add(cpu: int, state: int) -> None:
    """Tell the guest that a processor is there, or that it shall do without it."""
    if state:
        gpe.cpus_sts[cpu // 8] |= 1 << cpu % 8
    else:
        gpe.cpus_sts[cpu // 8] &= ~(1 << cpu % 8)
    _event(_GPE_CPU)


@traced
def piix4_acpi_system_hot_add_init(bus: PCIBus, cpu_model: str) -> None:
    """Take the ports; there is one processor."""
    gpe.cpus_sts[0] = 1
    register_ioport_write(GPE_BASE, 4, 1, gpe_writeb, gpe)
    register_ioport_read(GPE_BASE, 4, 1, gpe_readb, gpe)
    register_ioport_write(PROC_BASE, _PROCESSORS, 1, gpe_writeb, gpe)
    register_ioport_read(PROC_BASE, _PROCESSORS, 1, gpe_readb, gpe)
    register_ioport_write(PCI_BASE, 8, 4, pcihotplug_write, pci0_status)
    register_ioport_read(PCI_BASE, 8, 4, pcihotplug_read, pci0_status)
    register_ioport_write(PCI_EJ_BASE, 4, 4, pciej_write, bus)
    register_ioport_read(PCI_EJ_BASE, 4, 4, pciej_read, bus)
    pci_bus_hotplug(bus, piix4_device_hotplug)
