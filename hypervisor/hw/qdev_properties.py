"""Properties of devices: hw/qdev-properties.c.

A `Property` says which field of a device can be set from outside, of which type, and its default. In C it is
an offset into the device's structure; here it is the field's name.

- `qdev_prop_set_uint32(dev, name, value)` and its kin: for the machine's own code.
- `qdev_prop_parse(dev, name, text)`: for -device, -global and the compatibility lists of old machines.
- `qdev_prop_set_defaults`, `qdev_prop_set_globals`: what `qdev_create` does to a new device.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from hypervisor.errors import HypervisorError
from hypervisor.program import on_reset
from hypervisor.qemu_option_parameter import strtoll
from tracer import Struct, traced

if TYPE_CHECKING:
    from hypervisor.hw.qdev import DeviceState

C_FILE = "hw/qdev-properties.c"

_INTEGERS = {"uint8": 8, "uint16": 16, "uint32": 32, "int32": 32, "uint64": 64, "pci-devfn": 32, "hex32": 32}


class Property(Struct):
    """`Property`: `type` is the name of QEMU's PropertyInfo, `field` the device's field."""

    name: str = ""
    type: str = ""
    field: str = ""
    defval: Any = None


class GlobalProperty(Struct):
    """`GlobalProperty`: a value for every device of one driver."""

    driver: str = ""
    property: str = ""
    value: str = ""


_global_props: list[GlobalProperty] = []


@on_reset
def _reset() -> None:
    _global_props.clear()


@traced
def qdev_get_prop_ptr(dev: DeviceState, prop: Property) -> str:
    """Name the field that holds a property; it stands for C's pointer."""
    return prop.field


@traced
def qdev_prop_walk(props: list[Property], name: str) -> Property | None:
    """Find a property in one list."""
    return next((prop for prop in props if prop.name == name), None)


@traced
def qdev_prop_find(dev: DeviceState, name: str) -> Property | None:
    """Find a property of the device, or of the bus it hangs on."""
    found = qdev_prop_walk(dev.info.props, name)
    if found is None and dev.parent_bus.info is not None:
        found = qdev_prop_walk(dev.parent_bus.info.props, name)
    return found


def _parse(prop: Property, value: str) -> Any:
    if prop.type == "string":
        return value
    if prop.type == "pci-devfn":
        slot, _, function = value.partition(".")
        return int(slot, 16) << 3 | int(function or "0", 16)
    if prop.type in _INTEGERS:
        number, rest = strtoll(value)
        if not rest:
            return number & (1 << _INTEGERS[prop.type]) - 1
    raise ValueError(value)


@traced
def parse_drive(dev: DeviceState, prop: Property, str: str) -> int:
    """Set a property that names a drive; 0, or -1 if there is none of this name."""
    from hypervisor.vl_drive import drive_get_by_id

    dinfo = drive_get_by_id(str)
    setattr(dev, qdev_get_prop_ptr(dev, prop), dinfo)
    return 0 if dinfo is not None else -1


@traced
def qdev_prop_parse(dev: DeviceState, name: str, value: str) -> int:
    """Set a property from text; 0, or -1 after a message."""
    prop = qdev_prop_find(dev, name)
    if prop is None:
        print(f'property "{dev.info.name}.{name}" not found', file=sys.stderr)
        return -1
    try:
        if prop.type == "drive":
            if parse_drive(dev, prop, value) != 0:
                raise ValueError(value)
            return 0
        parsed = _parse(prop, value)
    except ValueError:
        print(f'property "{dev.info.name}.{name}": failed to parse "{value}"', file=sys.stderr)
        return -1
    setattr(dev, qdev_get_prop_ptr(dev, prop), parsed)
    return 0


@traced
def qdev_prop_set(dev: DeviceState, name: str, src: Any, type: str) -> None:
    """Set a property of a known type."""
    prop = qdev_prop_find(dev, name)
    if prop is None or (prop.type != type and not {prop.type, type} <= _INTEGERS.keys()):
        raise HypervisorError(f'device {dev.info.name} has no property "{name}" of type {type}')
    setattr(dev, qdev_get_prop_ptr(dev, prop), src)


@traced
def qdev_prop_set_uint8(dev: DeviceState, name: str, value: int) -> None:
    """Set an 8-bit property."""
    qdev_prop_set(dev, name, value, "uint8")


@traced
def qdev_prop_set_uint32(dev: DeviceState, name: str, value: int) -> None:
    """Set a 32-bit property."""
    qdev_prop_set(dev, name, value, "uint32")


@traced
def qdev_prop_set_int32(dev: DeviceState, name: str, value: int) -> None:
    """Set a signed 32-bit property."""
    qdev_prop_set(dev, name, value, "int32")


@traced
def qdev_prop_set_ptr(dev: DeviceState, name: str, value: Any) -> None:
    """Set a property that points to anything."""
    qdev_prop_set(dev, name, value, "ptr")


@traced
def qdev_prop_set_drive(dev: DeviceState, name: str, value: Any) -> None:
    """Set a property that points to a `DriveInfo`."""
    qdev_prop_set(dev, name, value, "drive")


@traced
def qdev_prop_set_chr(dev: DeviceState, name: str, value: Any) -> None:
    """Set a property that points to a `CharDriverState`."""
    qdev_prop_set(dev, name, value, "chr")


@traced
def qdev_prop_set_defaults(dev: DeviceState, props: list[Property]) -> None:
    """Give the device the defaults of a property list."""
    for prop in props:
        if prop.defval is not None:
            setattr(dev, qdev_get_prop_ptr(dev, prop), prop.defval)


@traced
def qdev_prop_register_global(prop: GlobalProperty) -> None:
    """Remember a value for devices made from now on."""
    _global_props.append(prop)


@traced
def qdev_prop_register_global_list(props: list[GlobalProperty]) -> None:
    """Remember the values that an old machine type needs."""
    for prop in props:
        qdev_prop_register_global(prop)


@traced
def qdev_prop_set_globals(dev: DeviceState) -> None:
    """Give the device what -global and the machine type ask for."""
    assert dev.info.bus_info is not None
    for prop in _global_props:
        wanted = prop.driver in (dev.info.name, dev.info.bus_info.name)
        if wanted and qdev_prop_parse(dev, prop.property, prop.value) != 0:
            raise SystemExit(1)
