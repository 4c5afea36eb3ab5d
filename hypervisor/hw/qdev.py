"""Devices and buses in general: hw/qdev.c.

A `DeviceInfo` describes a kind of device; `device_init` functions register them before the machine is made.
`qdev_create(bus, name)` makes a device, properties are set, `qdev_init(dev)` brings it to life:

    BusState --children--> [DeviceState --child_bus--> [BusState --children--> [...]]]
        |                       |
        `-- info: BusInfo       `-- info: DeviceInfo, parent_bus: BusState

A device's own structure is a subclass of `DeviceState`; `DeviceInfo.size`, in C its sizeof, is that class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any

from hypervisor.errors import HypervisorError
from hypervisor.hw.qdev_properties import (
    Property,
    qdev_prop_parse,
    qdev_prop_set_defaults,
    qdev_prop_set_globals,
)
from hypervisor.program import linked, on_reset
from hypervisor.qemu_option import QemuOpts, qemu_opt_foreach, qemu_opt_get, qemu_opts_id
from hypervisor.savevm import vmstate_register
from hypervisor.vl_loop import qemu_register_reset, qemu_unregister_reset
from hypervisor.vmstate import VMStateDescription
from tracer import Struct, traced

C_FILE = "hw/qdev.c"


class BusInfo(Struct):
    """`struct BusInfo`: a kind of bus."""

    name: str = ""
    size: type[BusState] | None = None
    props: list[Property] = field(default_factory=list)


class BusState(Struct):
    """`struct BusState`: a bus and the devices on it, the last made first."""

    parent: DeviceState | None = None
    info: BusInfo | None = None
    name: str = ""
    allow_hotplug: int = 0
    children: list[DeviceState] = field(default_factory=list)


class DeviceInfo(Struct):
    """`struct DeviceInfo`: a kind of device."""

    name: str = ""
    alias: str | None = None
    desc: str | None = None
    size: type[DeviceState] | None = None
    props: list[Property] = field(default_factory=list)
    no_user: int = 0
    vmsd: VMStateDescription | None = None
    reset: Callable[[Any], None] | None = None
    init: Callable[[Any, Any], int] | None = None
    unplug: Callable[[Any], int] | None = None
    exit: Callable[[Any], int] | None = None
    bus_info: BusInfo | None = None
    next: DeviceInfo | None = None


class DeviceState(Struct):
    """`struct DeviceState`: what all devices have."""

    id: str | None = None
    info: DeviceInfo = DeviceInfo()
    parent_bus: BusState = BusState()
    child_bus: list[BusState] = field(default_factory=list)
    state: str = "DEV_STATE_CREATED"
    hotplugged: int = 0


system_bus_info = BusInfo(name="System", size=BusState)
_device_info_list: DeviceInfo | None = None
_main_system_bus: BusState | None = None
_qdev_hotplug = 0
_ASKED_FOR = frozenset(("ide-drive",))
"""The kinds that the model makes by -device."""


@on_reset
def _reset() -> None:
    global _device_info_list, _main_system_bus, _qdev_hotplug
    _device_info_list = None
    _qdev_hotplug = 0
    _main_system_bus = None


@traced
def qdev_register(info: DeviceInfo) -> None:
    """Put a kind of device at the head of the list."""
    global _device_info_list
    info.next = _device_info_list
    _device_info_list = info


def device_infos() -> list[DeviceInfo]:
    """All kinds of devices, the last registered first."""
    found, info = [], _device_info_list
    while info is not None:
        found.append(info)
        info = info.next
    return found


@traced
def qdev_find_info(bus_info: BusInfo | None, name: str) -> DeviceInfo | None:
    """Find a kind of device for a bus by its name, else by its alias."""
    fitting = [info for info in device_infos() if bus_info is None or info.bus_info is bus_info]
    by_name = next((info for info in fitting if info.name == name), None)
    return by_name or next((info for info in fitting if info.alias == name), None)


@traced
def qbus_create_inplace(bus: BusState, info: BusInfo, parent: DeviceState | None, name: str | None) -> None:
    """Set up a bus; without a name it is called by its parent's id, or by its kind and a number."""
    bus.info = info
    bus.parent = parent
    bus.children = []
    if parent is None:
        bus.name = name or info.name.lower()
        return
    number = len(parent.child_bus)
    bus.name = name or (f"{parent.id}.{number}" if parent.id else f"{info.name.lower()}.{number}")
    parent.child_bus = [bus, *parent.child_bus]


@traced
def qbus_create(info: BusInfo, parent: DeviceState | None, name: str | None) -> BusState:
    """Make a bus."""
    assert info.size is not None
    bus = info.size()
    qbus_create_inplace(bus, info, parent, name)
    return bus


@traced
def qdev_create(bus: BusState | None, name: str) -> DeviceState:
    """Make a device, which `qdev_init` brings to life after its properties are set.

    Parameters
    ----------
    bus
        None stands for the main system bus.
    """
    global _main_system_bus
    if bus is None:
        if _main_system_bus is None:
            _main_system_bus = qbus_create(system_bus_info, None, "main-system-bus")
        bus = _main_system_bus
    assert bus.info is not None
    info = qdev_find_info(bus.info, name)
    if info is None or info.size is None:
        raise HypervisorError(f"there is no device '{name}' for bus '{bus.info.name}'")
    dev = info.size(info=info, parent_bus=bus, child_bus=[])
    qdev_prop_set_defaults(dev, info.props)
    qdev_prop_set_defaults(dev, bus.info.props)
    qdev_prop_set_globals(dev)
    bus.children.insert(0, dev)
    dev.state = "DEV_STATE_CREATED"
    return dev


@traced
def qdev_print_devinfo(info: DeviceInfo) -> str:
    """Describe a kind of device in a line; in C the line is written into the caller's memory."""
    line = f'name "{info.name}", bus {info.bus_info.name if info.bus_info else ""}'
    line += f', alias "{info.alias}"' if info.alias else ""
    line += f', desc "{info.desc}"' if info.desc else ""
    return line + (", no-user" if info.no_user else "")


def main_system_bus() -> BusState:
    """The bus that all others hang on."""
    assert _main_system_bus is not None
    return _main_system_bus


@traced
def qbus_find_recursive(bus: BusState, name: str | None, info: BusInfo | None) -> BusState | None:
    """Find a bus by its name or its kind, or both: this one, else one behind its devices."""
    if name in (None, bus.name) and info in (None, bus.info):
        return bus
    found = (qbus_find_recursive(child, name, info) for dev in bus.children for child in dev.child_bus)
    return next(filter(None, found), None)


@traced
def qdev_find_recursive(bus: BusState, id: str) -> DeviceState | None:
    """Find a device by its id, on this bus or behind its devices."""
    for dev in bus.children:
        if dev.id == id:
            return dev
        found = next(filter(None, (qdev_find_recursive(child, id) for child in dev.child_bus)), None)
        if found is not None:
            return found
    return None


@traced
def qbus_find(path: str) -> BusState | None:
    """Find a bus by its name, None after a message; in C by a path of devices, too."""
    if "/" in path:
        raise HypervisorError(f"the model finds a bus by its name, as ide.1, and not by a path: {path}")
    bus = qbus_find_recursive(main_system_bus(), path, None)
    if bus is None:
        linked.qemu_error('bus "%s" not found\n', path)
    return bus


def _bus_for(found: DeviceInfo, path: str | None) -> BusState | None:
    """Find a bus for a new device; if there is none, a message tells why."""
    bus = qbus_find(path) if path else qbus_find_recursive(main_system_bus(), None, found.bus_info)
    if bus is None:
        kind = found.bus_info.name if found.bus_info else ""
        linked.qemu_error("Did not find %s bus for %s\n", path or kind, found.name)
    elif _qdev_hotplug and not bus.allow_hotplug:
        linked.qemu_error("Bus %s does not support hotplugging\n", bus.name)
    else:
        return bus
    return None


@traced
def set_property(name: str, value: str | None, opaque: DeviceState) -> int:
    """Set one property that -device gives; 0, or -1 after a message."""
    if name in ("driver", "bus"):
        return 0
    if qdev_prop_parse(opaque, name, value or "") == -1:
        linked.qemu_error('can\'t set property "%s" to "%s" for "%s"\n', name, value, opaque.info.name)
        return -1
    return 0


@traced
def qdev_device_add(opts: QemuOpts) -> DeviceState | None:
    """Make a device that -device asks for; `?` lists the kinds, the last registered first."""
    driver = qemu_opt_get(opts, "driver")
    if driver is None:
        linked.qemu_error("-device: no driver specified\n")
        return None
    if driver == "?":
        for info in device_infos():
            linked.qemu_error("%s\n", qdev_print_devinfo(info))
        return None
    found = qdev_find_info(None, driver)
    if found is None:
        linked.qemu_error("The %s device has not been found\n", driver)
        return None
    if found.no_user:
        linked.qemu_error('device "%s" can\'t be added via command line\n', found.name)
        return None
    bus = _bus_for(found, qemu_opt_get(opts, "bus"))
    if bus is None:
        return None
    if found.name not in _ASKED_FOR:
        raise HypervisorError(
            f"the model makes no '{driver}' by -device: disks by -hda or -drive if=ide, ports by -serial"
        )
    dev = qdev_create(bus, driver)
    dev.id = qemu_opts_id(opts)
    if qemu_opt_foreach(opts, set_property, dev, 1) != 0:
        qdev_free(dev)
        return None
    if qdev_init(dev) < 0:
        linked.qemu_error("Error initializing device %s\n", driver)
        return None
    return dev


@traced
def qdev_reset(opaque: DeviceState) -> None:
    """Reset a device, if its kind has a function for it."""
    if opaque.info.reset is not None:
        opaque.info.reset(opaque)


@traced
def qdev_free(dev: DeviceState) -> None:
    """Take a device off its bus."""
    if dev.state == "DEV_STATE_INITIALIZED" and dev.info.exit is not None:
        dev.info.exit(dev)
    qemu_unregister_reset(qdev_reset, dev)
    dev.parent_bus.children.remove(dev)


@traced
def qdev_init(dev: DeviceState) -> int:
    """Bring a device to life; 0 or a negative value, and then it is gone."""
    assert dev.info.init is not None
    rc = dev.info.init(dev, dev.info)
    if rc < 0:
        qdev_free(dev)
        return rc
    qemu_register_reset(qdev_reset, dev)
    if dev.info.vmsd is not None:
        vmstate_register(-1, dev.info.vmsd, dev)
    dev.state = "DEV_STATE_INITIALIZED"
    return 0


@traced
def qdev_unplug(dev: DeviceState) -> int:
    """Have a device go; 0, or -1 after a message."""
    if not dev.parent_bus.allow_hotplug or dev.info.unplug is None:
        linked.qemu_error("Bus %s does not support hotplugging\n", dev.parent_bus.name)
        return -1
    return dev.info.unplug(dev)


@traced
def qdev_init_nofail(dev: DeviceState) -> None:
    """`qdev_init` of a device the machine cannot do without."""
    if qdev_init(dev) < 0:
        raise HypervisorError(f"device {dev.info.name} did not come to life")


@traced
def qdev_get_parent_bus(dev: DeviceState) -> BusState:
    """The bus a device hangs on."""
    return dev.parent_bus


@traced
def qdev_machine_creation_done() -> None:
    """Devices that are asked for from now on come into a running machine."""
    global _qdev_hotplug
    _qdev_hotplug = 1
