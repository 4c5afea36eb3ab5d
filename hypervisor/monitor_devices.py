"""What `info` shows of the machine's devices: parts of hw/i8259.c, pci.c, qdev.c, loader.c and others.

- `info pic`, `irq`, `pci`, `qtree`, `qdm`, `roms`, `mice`, `network`, ...; `mouse_move`, `mouse_button`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hypervisor import monitor
from hypervisor.hw import i8259, loader, qdev
from hypervisor.hw import pci_regs as regs
from hypervisor.hw.isa_bus import ISADevice
from hypervisor.hw.pci import PCIBus, PCIDevice, pci_get_word
from hypervisor.hw.qdev import BusState, DeviceInfo, DeviceState, device_infos
from hypervisor.hw.qdev_properties import Property
from hypervisor.monitor import Arguments, Monitor, monitor_printf
from hypervisor.program import on_reset
from hypervisor.qemu_option_parameter import strtoll
from hypervisor.vl_input import choose_mouse, kbd_mouse_event, mice
from tracer import traced

C_FILE = "hw/qdev.c"

_NO_BAR = (1 << 64) - 1
_INTERRUPT_PIN = 0x3D
_WAY = 0x7FFF
_CLASSES = {
    0x0100: "SCSI controller", 0x0101: "IDE controller", 0x0102: "Floppy controller",
    0x0103: "IPI controller", 0x0104: "RAID controller", 0x0106: "SATA controller",
    0x0107: "SAS controller", 0x0180: "Storage controller", 0x0200: "Ethernet controller",
    0x0201: "Token Ring controller", 0x0202: "FDDI controller", 0x0203: "ATM controller",
    0x0280: "Network controller", 0x0300: "VGA controller", 0x0301: "XGA controller",
    0x0302: "3D controller", 0x0380: "Display controller", 0x0400: "Video controller",
    0x0401: "Audio controller", 0x0402: "Phone", 0x0480: "Multimedia controller", 0x0500: "RAM controller",
    0x0501: "Flash controller", 0x0580: "Memory controller", 0x0600: "Host bridge", 0x0601: "ISA bridge",
    0x0602: "EISA bridge", 0x0603: "MC bridge", 0x0604: "PCI bridge", 0x0605: "PCMCIA bridge",
    0x0606: "NUBUS bridge", 0x0607: "CARDBUS bridge", 0x0608: "RACEWAY bridge", 0x0680: "Bridge",
    0x0C03: "USB controller",
}  # fmt: skip


_buttons = 0


@on_reset
def _reset() -> None:
    global _buttons
    _buttons = 0


@traced(file="hw/i8259.c")
def pic_info(mon: Monitor) -> None:
    """Obey `info pic`."""
    if i8259.isa_pic is None:
        return
    for number, s in enumerate(i8259.isa_pic.pics):
        monitor_printf(
            mon,
            "pic%d: irr=%02x imr=%02x isr=%02x hprio=%d irq_base=%02x rr_sel=%d elcr=%02x fnm=%d\n",
            number,
            s.irr,
            s.imr,
            s.isr,
            s.priority_add,
            s.irq_base,
            s.read_reg_select,
            s.elcr,
            s.special_fully_nested_mode,
        )


@traced(file="hw/i8259.c")
def irq_info(mon: Monitor) -> None:
    """Obey `info irq`, which 0.12.4 is built without."""
    monitor_printf(mon, "irq statistic code not compiled.\n")


def _buses() -> Iterator[BusState]:
    """Every bus of the machine, each before those behind its devices."""
    todo = [qdev._main_system_bus] if qdev._main_system_bus is not None else []
    while todo:
        bus = todo.pop(0)
        yield bus
        for dev in bus.children:
            todo.extend(dev.child_bus)


def _class_name(d: PCIDevice) -> str:
    number = pci_get_word(d.config, regs.PCI_CLASS_DEVICE)
    return _CLASSES.get(number, f"Class {number:04x}")


def _address(addr: int) -> int:
    """A region's address as the 64 bits of `pcibus_t`: all ones while it is nowhere."""
    return addr & _NO_BAR if addr != regs.PCI_BAR_UNMAPPED else _NO_BAR


@traced(file="hw/pci.c")
def pci_info_device(bus: PCIBus, d: PCIDevice) -> None:
    """Print one device."""
    mon = monitor.cur_mon
    monitor_printf(mon, "  Bus %2d, device %3d, function %d:\n", 0, d.devfn >> 3, d.devfn & 7)
    monitor_printf(mon, "    ")
    monitor_printf(mon, "%s", _class_name(d))
    vendor, device = pci_get_word(d.config, regs.PCI_VENDOR_ID), pci_get_word(d.config, regs.PCI_DEVICE_ID)
    monitor_printf(mon, ": PCI device %04x:%04x\n", vendor, device)
    if d.config[_INTERRUPT_PIN]:
        monitor_printf(mon, "      IRQ %d.\n", d.config[regs.PCI_INTERRUPT_LINE])
    for number, r in enumerate(d.io_regions):
        if not r.size:
            continue
        monitor_printf(mon, "      BAR%d: ", number)
        addr = _address(r.addr)
        last = addr + r.size - 1 & _NO_BAR
        if r.type & regs.PCI_BASE_ADDRESS_SPACE_IO:
            monitor_printf(mon, "I/O at 0x%04x [0x%04x].\n", addr, last)
        else:
            kind = "64 bit" if r.type & 4 else "32 bit"
            kind += " prefetchable" if r.type & 8 else ""
            monitor_printf(mon, "%s memory at 0x%08x [0x%08x].\n", kind, addr, last)
    monitor_printf(mon, '      id "%s"\n', d.id or "")


@traced(file="hw/pci.c")
def pci_for_each_device_under_bus(bus: PCIBus, fn: Callable[[PCIBus, PCIDevice], None]) -> None:
    """Call `fn(bus, device)` for each device of a bus."""
    for d in bus.devices:
        if d is not None:
            fn(bus, d)


@traced(file="hw/pci.c")
def pci_for_each_device(bus: PCIBus, bus_num: int, fn: Callable[[PCIBus, PCIDevice], None]) -> None:
    """Call `fn(bus, device)` for each device of the bus with a number; the model has bus 0 only."""
    if bus_num == 0:
        pci_for_each_device_under_bus(bus, fn)


@traced(file="hw/pci.c")
def pci_info(mon: Monitor) -> None:
    """Obey `info pci`."""
    for bus in _buses():
        if isinstance(bus, PCIBus):
            pci_for_each_device(bus, 0, pci_info_device)


@traced(file="hw/pci.c")
def pcibus_dev_print(mon: Monitor, dev: PCIDevice, indent: int) -> None:
    """Print what is special about a PCI device."""
    word = [
        pci_get_word(dev.config, offset)
        for offset in (
            regs.PCI_VENDOR_ID,
            regs.PCI_DEVICE_ID,
            regs.PCI_SUBSYSTEM_VENDOR_ID,
            regs.PCI_SUBSYSTEM_ID,
        )
    ]
    place = (0, dev.devfn >> 3, dev.devfn & 7)
    line = "%sclass %s, addr %02x:%02x.%x, pci id %04x:%04x (sub %04x:%04x)\n"
    monitor_printf(mon, line, " " * indent, _class_name(dev), *place, *word)
    for number, r in enumerate(dev.io_regions):
        if r.size:
            kind = "i/o" if r.type & regs.PCI_BASE_ADDRESS_SPACE_IO else "mem"
            addr = _address(r.addr)
            last = addr + r.size - 1 & _NO_BAR
            monitor_printf(mon, "%sbar %d: %s at 0x%x [0x%x]\n", " " * indent, number, kind, addr, last)


@traced(file="hw/isa-bus.c")
def isabus_dev_print(mon: Monitor, dev: ISADevice, indent: int) -> None:
    """Print an ISA device's interrupts."""
    irqs = [irq for irq in dev.isairq if irq != -1]
    if irqs:
        numbers = ",".join(map(str, irqs))
        monitor_printf(mon, "%sisa irq%s %s\n", " " * indent, "s" if len(irqs) > 1 else "", numbers)


def _value(dev: DeviceState, prop: Property) -> str:
    value = getattr(dev, prop.field)
    if prop.type == "pci-devfn":
        return f"{value >> 3:02x}.{value & 7:x}" if value != -1 else "<unset>"
    if value is None:
        return "<null>"
    if prop.type == "string":
        return f'"{value}"'
    if prop.type == "drive":
        return str(value.id)
    if prop.type == "chr":
        return str(value.label)
    return f"{value:#x}" if prop.type.startswith("hex") else str(value)


@traced
def qdev_print_props(mon: Monitor, dev: DeviceState, props: list[Property], prefix: str, indent: int) -> None:
    """Print properties and their values."""
    for prop in props:
        monitor_printf(mon, "%s%s-prop: %s = %s\n", " " * indent, prefix, prop.name, _value(dev, prop))


@traced
def qdev_print(mon: Monitor, dev: DeviceState, indent: int) -> None:
    """Print a device and the buses behind it."""
    monitor_printf(mon, '%sdev: %s, id "%s"\n', " " * indent, dev.info.name, dev.id or "")
    indent += 2
    qdev_print_props(mon, dev, dev.info.props, "dev", indent)
    if dev.parent_bus.info is not None:
        qdev_print_props(mon, dev, dev.parent_bus.info.props, "bus", indent)
    if isinstance(dev, PCIDevice):
        pcibus_dev_print(mon, dev, indent)
    elif isinstance(dev, ISADevice):
        isabus_dev_print(mon, dev, indent)
    for child in dev.child_bus:
        qbus_print(mon, child, indent)


@traced
def qbus_print(mon: Monitor, bus: BusState, indent: int) -> None:
    """Print a bus and the devices on it."""
    monitor_printf(mon, "%sbus: %s\n", " " * indent, bus.name)
    indent += 2
    assert bus.info is not None
    monitor_printf(mon, "%stype %s\n", " " * indent, bus.info.name)
    for dev in bus.children:
        qdev_print(mon, dev, indent)


@traced
def do_info_qtree(mon: Monitor) -> None:
    """Obey `info qtree`."""
    if qdev._main_system_bus is not None:
        qbus_print(mon, qdev._main_system_bus, 0)


@traced
def qdev_print_devinfo(info: DeviceInfo) -> str:
    """A line about a kind of device."""
    assert info.bus_info is not None
    line = f'name "{info.name}", bus {info.bus_info.name}'
    line += f', alias "{info.alias}"' if info.alias else ""
    line += f', desc "{info.desc}"' if info.desc else ""
    return line + (", no-user" if info.no_user else "")


@traced
def do_info_qdm(mon: Monitor) -> None:
    """Obey `info qdm`."""
    for info in device_infos():
        monitor_printf(mon, "%s\n", qdev_print_devinfo(info))


@traced(file="hw/loader.c")
def do_info_roms(mon: Monitor) -> None:
    """Obey `info roms`."""
    for rom in loader._roms:
        monitor_printf(
            mon, 'addr=%016x size=0x%06x mem=%s name="%s" \n', rom.addr, len(rom.data), "rom", rom.name
        )


@traced(file="vl.c")
def do_info_mice(mon: Monitor) -> list[dict[str, Any]]:
    """All mice: keys name, index, current."""
    return [
        {"name": mouse.qemu_put_mouse_event_name, "index": number, "current": current}
        for number, (mouse, current) in enumerate(mice())
    ]


@traced(file="vl.c")
def info_mice_iter(data: dict[str, Any], opaque: Monitor) -> None:
    """Print one mouse."""
    mark = "*" if data["current"] else " "
    monitor_printf(opaque, "%s Mouse #%d: %s\n", mark, data["index"], data["name"])


@traced(file="vl.c")
def do_info_mice_print(mon: Monitor, data: list[dict[str, Any]]) -> None:
    """Print what `do_info_mice` returned."""
    if not data:
        monitor_printf(mon, "No mouse devices connected\n")
    for obj in data:
        info_mice_iter(obj, mon)


@traced(file="monitor.c")
def do_mouse_move(mon: Monitor, qdict: Arguments) -> None:
    """Obey `mouse_move`; a mouse sends its way in small steps, so it is limited."""
    way = (strtoll(qdict.get(name, "0"))[0] for name in ("dx_str", "dy_str", "dz_str"))
    dx, dy, dz = (max(-_WAY, min(step, _WAY)) for step in way)
    kbd_mouse_event(dx, dy, dz, _buttons)


@traced(file="monitor.c")
def do_mouse_button(mon: Monitor, qdict: Arguments) -> None:
    """Obey `mouse_button`."""
    global _buttons
    _buttons = qdict["button_state"]
    kbd_mouse_event(0, 0, 0, _buttons)


@traced(file="vl.c")
def do_mouse_set(mon: Monitor, qdict: Arguments) -> None:
    """Obey `mouse_set`."""
    if not mice():
        monitor_printf(mon, "No mouse devices connected\n")
    elif not choose_mouse(qdict["index"]):
        monitor_printf(mon, "Mouse at given index not found\n")


@traced(file="hw/usb-bus.c")
def usb_info(mon: Monitor) -> None:
    """Obey `info usb`: the model has no USB."""
    monitor_printf(mon, "USB support not enabled\n")


@traced(file="vl.c")
def pcmcia_info(mon: Monitor) -> None:
    """Obey `info pcmcia`: a PC has none."""
    monitor_printf(mon, "No PCMCIA sockets\n")


@traced(file="vnc.c")
def do_info_vnc(mon: Monitor) -> dict[str, Any]:
    """Whether there is a VNC server: key status. The model has none."""
    return {"status": "disabled"}


@traced(file="vnc.c")
def do_info_vnc_print(mon: Monitor, data: dict[str, Any]) -> None:
    """Print what `do_info_vnc` returned."""
    monitor_printf(mon, "Server: %s\n", data["status"])


@traced(file="net.c")
def do_info_network(mon: Monitor) -> None:
    """Obey `info network`: the model has no network devices."""
    from hypervisor.qemu_config import qemu_net_opts

    if qemu_net_opts.head:
        monitor_printf(mon, "VLAN %d devices:\n", 0)
    monitor_printf(mon, "Devices not on any VLAN:\n")
