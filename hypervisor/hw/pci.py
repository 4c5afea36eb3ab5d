"""The PCI bus: configuration space, base addresses, interrupt pins; hw/pci.c.

A device asks for ports by `pci_register_bar`; they appear when the firmware has written an address into the
base address register and set the command bit, and then `map_func` is called:

    BIOS: outl(0xcf8), outl(0xcfc) -> pci_data_write -> pci_default_write_config -> pci_update_mappings ->
    bmdma_map

- `pci_bus_new(parent, name, devfn_min)`, `pci_bus_irqs(...)`: made and wired by the host bridge.
- `pci_create_simple(bus, devfn, name)`: a device on it; devfn -1 takes the first free slot.
- `pci_default_read_config`, `pci_default_write_config`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import field
from typing import Any

from hypervisor.cutils import pstrcpy
from hypervisor.errors import HypervisorError
from hypervisor.hw import pci_regs as regs
from hypervisor.hw.irq import IRQState, qemu_allocate_irqs
from hypervisor.hw.qdev import (
    BusInfo,
    BusState,
    DeviceInfo,
    DeviceState,
    qbus_create_inplace,
    qdev_create,
    qdev_get_parent_bus,
    qdev_init_nofail,
    qdev_register,
)
from hypervisor.hw.qdev_properties import Property, qdev_prop_set_uint32
from hypervisor.ioport import isa_unassign_ioport
from hypervisor.savevm import vmstate_register
from hypervisor.vl_loop import qemu_register_reset
from hypervisor.vmstate.pci import vmstate_pcibus
from tracer import Struct, traced

C_FILE = "hw/pci.c"

PCIMapIORegionFunc = Callable[[Any, int, int, int, int], None]
"""map_func(pci_dev, region_num, addr, size, type)"""


class PCIBus(BusState):
    """`struct PCIBus`: 32 slots of 8 functions, and the interrupt pins' levels."""

    devfn_min: int = 0
    set_irq: Callable[[Any, int, int], None] | None = None
    map_irq: Callable[[Any, int], int] | None = None
    irq_opaque: Any = None
    devices: list[PCIDevice | None] = field(default_factory=lambda: [None] * 256)
    nirq: int = 0
    irq_count: list[int] = field(default_factory=list)
    hotplug: Callable[[PCIDevice, int], int] | None = None


class PCIIORegion(Struct):
    """`PCIIORegion`: a range of ports or memory of a device, and where it is now."""

    addr: int = regs.PCI_BAR_UNMAPPED
    size: int = 0
    type: int = 0
    map_func: PCIMapIORegionFunc | None = None


class PCIDevice(DeviceState):
    """`struct PCIDevice`: configuration space, which of its bits can be written, and its regions."""

    config: bytearray = field(default_factory=bytearray)
    cmask: bytearray = field(default_factory=bytearray)
    wmask: bytearray = field(default_factory=bytearray)
    used: bytearray = field(default_factory=bytearray)
    bus: PCIBus | None = None
    devfn: int = -1
    name: str = ""
    io_regions: list[PCIIORegion] = field(default_factory=list)
    config_read: Callable[[Any, int, int], int] | None = None
    config_write: Callable[[Any, int, int, int], None] | None = None
    irq: list[IRQState] = field(default_factory=list)
    irq_state: int = 0
    romfile: str | None = None
    rom_bar: int = 0


class PCIDeviceInfo(DeviceInfo):
    """`PCIDeviceInfo`: its own init function takes the device only."""

    pci_init: Callable[[Any], int] | None = None
    config_read: Callable[[Any, int, int], int] | None = None
    config_write: Callable[[Any, int, int, int], None] | None = None


pci_bus_info = BusInfo(
    name="PCI",
    size=PCIBus,
    props=[
        Property(name="addr", type="pci-devfn", field="devfn", defval=-1),
        Property(name="romfile", type="string", field="romfile"),
        Property(name="rombar", type="uint32", field="rom_bar", defval=1),
    ],
)


@traced(file="hw/pci.h")
def pci_set_word(config: bytearray, offset: int, val: int) -> None:
    """Store 16 bits; C passes the address, here base and offset."""
    config[offset : offset + 2] = (val & 0xFFFF).to_bytes(2, "little")


@traced(file="hw/pci.h")
def pci_set_long(config: bytearray, offset: int, val: int) -> None:
    """Store 32 bits; C passes the address, here base and offset."""
    config[offset : offset + 4] = (val & 0xFFFFFFFF).to_bytes(4, "little")


@traced(file="hw/pci.h")
def pci_get_word(config: bytearray, offset: int) -> int:
    """Load 16 bits."""
    return int.from_bytes(config[offset : offset + 2], "little")


@traced(file="hw/pci.h")
def pci_get_long(config: bytearray, offset: int) -> int:
    """Load 32 bits."""
    return int.from_bytes(config[offset : offset + 4], "little")


@traced(file="hw/pci.h")
def pci_config_set_vendor_id(pci_config: bytearray, val: int) -> None:
    """Set the vendor."""
    pci_set_word(pci_config, regs.PCI_VENDOR_ID, val)


@traced(file="hw/pci.h")
def pci_config_set_device_id(pci_config: bytearray, val: int) -> None:
    """Set the device number."""
    pci_set_word(pci_config, regs.PCI_DEVICE_ID, val)


@traced(file="hw/pci.h")
def pci_config_set_class(pci_config: bytearray, val: int) -> None:
    """Set class and subclass."""
    pci_set_word(pci_config, regs.PCI_CLASS_DEVICE, val)


@traced
def pci_bar(d: PCIDevice, reg: int) -> int:
    """Where in configuration space the address of a region is."""
    return regs.PCI_ROM_ADDRESS if reg == regs.PCI_ROM_SLOT else regs.PCI_BASE_ADDRESS_0 + reg * 4


@traced
def pci_update_irq_status(dev: PCIDevice) -> None:
    """Show in the status register whether the device asks for an interrupt."""
    if dev.irq_state:
        dev.config[regs.PCI_STATUS] |= regs.PCI_STATUS_INTERRUPT
    else:
        dev.config[regs.PCI_STATUS] &= ~regs.PCI_STATUS_INTERRUPT


@traced
def pci_device_reset(dev: PCIDevice) -> None:
    """Switch the device off the bus and forget its addresses."""
    dev.irq_state = 0
    pci_update_irq_status(dev)
    dev.config[regs.PCI_COMMAND] &= ~(regs.PCI_COMMAND_IO | regs.PCI_COMMAND_MEMORY | regs.PCI_COMMAND_MASTER)
    dev.config[regs.PCI_CACHE_LINE_SIZE] = 0
    dev.config[regs.PCI_INTERRUPT_LINE] = 0
    for number, region in enumerate(dev.io_regions):
        if region.size:
            pci_set_long(dev.config, pci_bar(dev, number), region.type)
    pci_update_mappings(dev)


@traced
def pci_bus_reset(opaque: PCIBus) -> None:
    """Reset all devices of the bus."""
    opaque.irq_count = [0] * opaque.nirq
    for device in opaque.devices:
        if device is not None:
            pci_device_reset(device)


@traced
def pci_host_bus_register(domain: int, bus: PCIBus) -> None:
    """Note the bus as the root of a domain; the model has one domain, and the bridge knows its bus."""


@traced
def pci_bus_new_inplace(bus: PCIBus, parent: DeviceState | None, name: str | None, devfn_min: int) -> None:
    """Set up a root bus."""
    qbus_create_inplace(bus, pci_bus_info, parent, name)
    bus.devfn_min = devfn_min
    pci_host_bus_register(0, bus)
    vmstate_register(-1, vmstate_pcibus, bus)
    qemu_register_reset(pci_bus_reset, bus)


@traced
def pci_bus_new(parent: DeviceState | None, name: str | None, devfn_min: int) -> PCIBus:
    """Make a root bus."""
    bus = PCIBus()
    pci_bus_new_inplace(bus, parent, name, devfn_min)
    return bus


@traced
def pci_bus_irqs(
    bus: PCIBus,
    set_irq: Callable[[Any, int, int], None],
    map_irq: Callable[[Any, int], int],
    irq_opaque: Any,
    nirq: int,
) -> None:
    """Say who gets the bus's interrupts, and which pin leads where."""
    bus.set_irq = set_irq
    bus.map_irq = map_irq
    bus.irq_opaque = irq_opaque
    bus.nirq = nirq
    bus.irq_count = [0] * nirq


@traced
def pci_bus_hotplug(bus: PCIBus, hotplug: Callable[[PCIDevice, int], int]) -> None:
    """Say who hears of devices that come and go."""
    bus.allow_hotplug = 1
    bus.hotplug = hotplug


@traced
def pci_set_default_subsystem_id(pci_dev: PCIDevice) -> None:
    """Say that QEMU made the device."""
    vendor = regs.PCI_SUBVENDOR_ID_REDHAT_QUMRANET | regs.PCI_SUBDEVICE_ID_QEMU << 16
    pci_dev.config[regs.PCI_SUBSYSTEM_VENDOR_ID : regs.PCI_SUBSYSTEM_VENDOR_ID + 4] = vendor.to_bytes(
        4, "little"
    )


@traced
def pci_init_cmask(dev: PCIDevice) -> None:
    """Mark what a saved machine must agree in."""
    pci_set_word(dev.cmask, regs.PCI_VENDOR_ID, 0xFFFF)
    pci_set_word(dev.cmask, regs.PCI_DEVICE_ID, 0xFFFF)
    dev.cmask[regs.PCI_STATUS] = regs.PCI_STATUS_CAP_LIST
    dev.cmask[regs.PCI_REVISION_ID] = dev.cmask[regs.PCI_CLASS_PROG] = 0xFF
    pci_set_word(dev.cmask, regs.PCI_CLASS_DEVICE, 0xFFFF)
    dev.cmask[regs.PCI_HEADER_TYPE] = dev.cmask[regs.PCI_CAPABILITY_LIST] = 0xFF


@traced
def pci_init_wmask(dev: PCIDevice) -> None:
    """Mark what the guest may write."""
    dev.wmask[regs.PCI_CACHE_LINE_SIZE] = dev.wmask[regs.PCI_INTERRUPT_LINE] = 0xFF
    command = regs.PCI_COMMAND_IO | regs.PCI_COMMAND_MEMORY | regs.PCI_COMMAND_MASTER
    pci_set_word(dev.wmask, regs.PCI_COMMAND, command)
    dev.wmask[regs.PCI_CONFIG_HEADER_SIZE :] = b"\xff" * (len(dev.wmask) - regs.PCI_CONFIG_HEADER_SIZE)


@traced
def pci_config_alloc(pci_dev: PCIDevice) -> None:
    """Make the configuration space and its masks."""
    size = regs.PCI_CONFIG_SPACE_SIZE
    pci_dev.config, pci_dev.cmask = bytearray(size), bytearray(size)
    pci_dev.wmask, pci_dev.used = bytearray(size), bytearray(size)
    pci_dev.io_regions = [PCIIORegion() for _ in range(regs.PCI_NUM_REGIONS)]


@traced
def do_pci_register_device(
    pci_dev: PCIDevice,
    bus: PCIBus,
    name: str,
    devfn: int,
    config_read: Callable[[Any, int, int], int] | None,
    config_write: Callable[[Any, int, int, int], None] | None,
    header_type: int,
) -> PCIDevice | None:
    """Put a device into its slot; None after a message when that is taken."""
    if devfn < 0:
        free = [n for n in range(bus.devfn_min, 256, 8) if bus.devices[n] is None]
        if not free:
            print(f"PCI: no devfn available for {name}, all in use", file=sys.stderr)
            return None
        devfn = free[0]
    elif (other := bus.devices[devfn]) is not None:
        print(f"PCI: devfn {devfn} not available for {name}, in use by {other.name}", file=sys.stderr)
        return None
    pci_dev.bus = bus
    pci_dev.devfn = devfn
    pci_dev.name = pstrcpy(64, name)
    pci_dev.irq_state = 0
    pci_config_alloc(pci_dev)
    pci_set_default_subsystem_id(pci_dev)
    pci_init_cmask(pci_dev)
    pci_init_wmask(pci_dev)
    pci_dev.config_read = config_read or pci_default_read_config
    pci_dev.config_write = config_write or pci_default_write_config
    bus.devices[devfn] = pci_dev
    pci_dev.irq = qemu_allocate_irqs(pci_set_irq, pci_dev, regs.PCI_NUM_PINS)
    return pci_dev


@traced
def pci_register_device(
    bus: PCIBus,
    name: str,
    instance_size: type[PCIDevice],
    devfn: int,
    config_read: Callable[[Any, int, int], int] | None,
    config_write: Callable[[Any, int, int, int], None] | None,
) -> PCIDevice:
    """Make a device and put it into its slot, without properties and without a place in `info qtree`."""
    pci_dev = do_pci_register_device(
        instance_size(), bus, name, devfn, config_read, config_write, regs.PCI_HEADER_TYPE_NORMAL
    )
    if pci_dev is None:
        raise HypervisorError("PCI: can't register device")
    return pci_dev


@traced
def pci_register_bar(
    pci_dev: PCIDevice, region_num: int, size: int, type: int, map_func: PCIMapIORegionFunc
) -> None:
    """Ask for `size` ports or bytes, a power of two, which appear where the firmware puts them."""
    region = pci_dev.io_regions[region_num]
    region.addr = regs.PCI_BAR_UNMAPPED
    region.size = size
    region.type = type
    region.map_func = map_func
    addr = pci_bar(pci_dev, region_num)
    pci_set_long(pci_dev.config, addr, type)
    pci_set_long(pci_dev.wmask, addr, ~(size - 1))
    pci_set_long(pci_dev.cmask, addr, 0xFFFFFFFF)


@traced
def pci_bar_address(d: PCIDevice, reg: int, type: int, size: int) -> int:
    """Address the firmware gave a region of ports, or PCI_BAR_UNMAPPED."""
    bar = pci_bar(d, reg)
    cmd = pci_get_word(d.config, regs.PCI_COMMAND)
    if not type & regs.PCI_BASE_ADDRESS_SPACE_IO or not cmd & regs.PCI_COMMAND_IO:
        return regs.PCI_BAR_UNMAPPED
    new_addr = pci_get_long(d.config, bar) & ~(size - 1)
    if new_addr == 0 or new_addr + size - 1 > 0xFFFF:
        return regs.PCI_BAR_UNMAPPED
    return new_addr


@traced
def pci_update_mappings(d: PCIDevice) -> None:
    """Move the device's regions to where its registers say."""
    for number, region in enumerate(d.io_regions):
        if not region.size:
            continue
        new_addr = pci_bar_address(d, number, region.type, region.size)
        if new_addr == region.addr:
            continue
        if region.addr != regs.PCI_BAR_UNMAPPED:
            isa_unassign_ioport(region.addr, region.size)
        region.addr = new_addr
        if new_addr != regs.PCI_BAR_UNMAPPED:
            assert region.map_func is not None
            region.map_func(d, number, new_addr, region.size, region.type)


@traced
def pci_default_read_config(d: PCIDevice, address: int, len: int) -> int:
    """Read 1, 2 or 4 bytes of configuration space."""
    return int.from_bytes(d.config[address : address + len], "little")


@traced
def pci_default_write_config(d: PCIDevice, addr: int, val: int, l: int) -> None:  # noqa: E741
    """Write the writable bits of 1, 2 or 4 bytes of configuration space."""
    before = bytes(d.config)
    for offset in range(addr, min(addr + l, regs.PCI_CONFIG_SPACE_SIZE)):
        wmask = d.wmask[offset]
        d.config[offset] = (d.config[offset] & ~wmask) | (val & wmask)
        val >>= 8
    bars = slice(regs.PCI_BASE_ADDRESS_0, regs.PCI_BASE_ADDRESS_0 + 24)
    command = slice(regs.PCI_COMMAND, regs.PCI_COMMAND + 1)
    if before[bars] != d.config[bars] or before[command] != d.config[command]:
        pci_update_mappings(d)


@traced
def pci_set_irq(opaque: PCIDevice, irq_num: int, level: int) -> None:
    """Set an interrupt pin of a device; the bus's line is the OR of all devices'."""
    change = level - (opaque.irq_state >> irq_num & 1)
    if not change:
        return
    opaque.irq_state ^= 1 << irq_num
    pci_update_irq_status(opaque)
    bus = opaque.bus
    assert bus is not None and bus.map_irq is not None and bus.set_irq is not None
    irq_num = bus.map_irq(opaque, irq_num)
    bus.irq_count[irq_num] += change
    bus.set_irq(bus.irq_opaque, irq_num, int(bus.irq_count[irq_num] != 0))


@traced
def pci_find_device(bus: PCIBus, bus_num: int, slot: int, function: int) -> PCIDevice | None:
    """Find a device by its place."""
    return bus.devices[slot << 3 | function] if bus_num == 0 else None


@traced
def pci_add_option_rom(pdev: PCIDevice) -> int:
    """Give the device a ROM, if its kind has one; none of the model's has."""
    return 0


@traced
def pci_qdev_init(qdev: PCIDevice, base: PCIDeviceInfo) -> int:
    """Put a device into its slot and call its kind's own init function."""
    bus = qdev_get_parent_bus(qdev)
    assert isinstance(bus, PCIBus) and base.pci_init is not None
    pci_dev = do_pci_register_device(
        qdev, bus, base.name, qdev.devfn, base.config_read, base.config_write, regs.PCI_HEADER_TYPE_NORMAL
    )
    if pci_dev is None:
        return -1
    rc = base.pci_init(pci_dev)
    if rc != 0:
        return rc
    pci_add_option_rom(pci_dev)
    return 0


@traced
def pci_unplug_device(qdev: PCIDevice) -> int:
    """Have the guest asked to let go of a device."""
    assert qdev.bus is not None and qdev.bus.hotplug is not None
    return qdev.bus.hotplug(qdev, 0)


@traced
def pci_qdev_register(info: PCIDeviceInfo) -> None:
    """Register a kind of device for the PCI bus."""
    info.init = pci_qdev_init
    info.unplug = pci_unplug_device
    info.bus_info = pci_bus_info
    qdev_register(info)


@traced
def pci_qdev_register_many(info: list[PCIDeviceInfo]) -> None:
    """Register several kinds."""
    for entry in info:
        pci_qdev_register(entry)


@traced
def pci_create(bus: PCIBus, devfn: int, name: str) -> PCIDevice:
    """Make a device, which `qdev_init` brings to life."""
    dev = qdev_create(bus, name)
    qdev_prop_set_uint32(dev, "addr", devfn)
    assert isinstance(dev, PCIDevice)
    return dev


@traced
def pci_create_simple(bus: PCIBus, devfn: int, name: str) -> PCIDevice:
    """Make a device and bring it to life."""
    dev = pci_create(bus, devfn, name)
    qdev_init_nofail(dev)
    return dev
