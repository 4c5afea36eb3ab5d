"""Commands that add and remove devices of a running machine: of hw/pci-hotplug.c, hw/qdev.c, net.c, vl.c.

The model makes no device but those of the machine, so what is asked for rightly is refused by name; what is
asked for wrongly, as 0.12.4 refuses it. Drives that belong to no device, `drive_add 0 if=none,...`, are made.
"""

from __future__ import annotations

import re

from hypervisor.errors import HypervisorError
from hypervisor.hw import qdev
from hypervisor.hw.pci import PCIBus, PCIDevice, pci_find_device
from hypervisor.hw.qdev import qdev_device_add, qdev_find_recursive, qdev_unplug
from hypervisor.monitor import Arguments, Monitor, monitor_printf, qemu_error
from hypervisor.net import net_client_init
from hypervisor.qemu_config import qemu_device_opts, qemu_net_opts
from hypervisor.qemu_option import QemuOpts, qemu_opt_set, qemu_opts_del, qemu_opts_parse
from hypervisor.qemu_option_parameter import get_param_value, strtoll
from hypervisor.vl_drive import (
    IF_SCSI,
    BlockInterfaceType,
    DriveInfo,
    drive_add,
    drive_get_max_bus,
    drive_init,
    drive_uninit,
)
from hypervisor.vl_state import state
from tracer import traced

C_FILE = "hw/pci-hotplug.c"

_HEX = re.compile(r"(?:0[xX])?[0-9a-fA-F]+")
_NET = ("tap", "socket", "dump", "user")


def _root_bus() -> PCIBus | None:
    found = qdev.qbus_find_recursive(qdev.main_system_bus(), "pci.0", None)
    return found if isinstance(found, PCIBus) else None


@traced(file="hw/pci.c")
def pci_parse_devaddr(addr: str) -> tuple[int, int, int, int]:
    """Read [[DOMAIN:]BUS:]SLOT in hexadecimal; -1 or 0, and the three. There is bus 0 of domain 0.

    >>> pci_parse_devaddr("0:1f"), pci_parse_devaddr("20")[0]
    ((0, 0, 0, 31), -1)
    """
    parts = addr.split(":")
    if len(parts) > 3 or not all(map(_HEX.fullmatch, parts)):
        return -1, 0, 0, 0
    dom, bus, slot = [0] * (3 - len(parts)) + [int(part, 16) for part in parts]
    return (0, dom, bus, slot) if dom == bus == 0 and slot <= 0x1F else (-1, 0, 0, 0)


@traced(file="hw/pci.c")
def pci_read_devaddr(mon: Monitor, addr: str) -> tuple[int, int, int, int]:
    """`pci_parse_devaddr` for the monitor, also of "pci_addr=..."; -1 after a message."""
    found = pci_parse_devaddr(addr.removeprefix("pci_addr="))
    if found[0]:
        monitor_printf(mon, "Invalid pci address\n")
    return found


@traced(file="hw/device-hotplug.c")
def add_init_drive(optstr: str) -> DriveInfo | None:
    """Make a drive; None after a message on stderr."""
    opts = drive_add(None, "%s", optstr)
    if opts is None:
        return None
    try:
        dinfo, _ = drive_init(opts, state.current_machine)
    except HypervisorError:
        qemu_opts_del(opts)
        raise
    if dinfo is None:
        qemu_opts_del(opts)
    return dinfo


def _device_at(mon: Monitor, pci_addr: str, slot: int, bus: int) -> PCIDevice | None:
    root = _root_bus()
    dev = pci_find_device(root, bus, slot, 0) if root is not None else None
    if dev is None:
        monitor_printf(mon, "no pci device with address %s\n", pci_addr)
    return dev


@traced
def scsi_hot_add(adapter: PCIDevice, dinfo: DriveInfo, printinfo: int) -> int:
    """Put a drive onto an adapter; none of the model's devices is one."""
    qemu_error("Device is not a SCSI adapter\n")
    return -1


def _accepts(mon: Monitor, dinfo: DriveInfo, pci_addr: str) -> bool:
    """Whether a new drive finds its place."""
    if dinfo.devaddr:
        monitor_printf(mon, "Parameter addr not supported\n")
        return False
    # quirk: asked for, and never used.
    drive_get_max_bus(dinfo.type)
    if dinfo.type == BlockInterfaceType.IF_NONE:
        monitor_printf(mon, "OK\n")
        return True
    elif dinfo.type == IF_SCSI:
        ret, _, bus, slot = pci_read_devaddr(mon, pci_addr)
        dev = _device_at(mon, pci_addr, slot, bus) if ret == 0 else None
        return dev is not None and scsi_hot_add(dev, dinfo, 1) == 0
    else:
        monitor_printf(mon, "Can't hot-add drive to type %d\n", int(dinfo.type))
    return False


@traced
def drive_hot_add(mon: Monitor, qdict: Arguments) -> None:
    """Obey `drive_add`."""
    dinfo = add_init_drive(qdict["opts"])
    if dinfo is not None and not _accepts(mon, dinfo, qdict["pci_addr"]):
        drive_uninit(dinfo)


def _knows_place(mon: Monitor, devaddr: str | None) -> bool:
    if devaddr is not None and pci_parse_devaddr(devaddr)[0]:
        monitor_printf(mon, "Invalid PCI device address %s\n", devaddr)
        return False
    return True


@traced
def qemu_pci_hot_add_nic(mon: Monitor, devaddr: str | None, opts_str: str) -> None:
    """Add a network card: the model has none."""
    if _knows_place(mon, devaddr):
        monitor_printf(mon, "the model has no network card\n")


@traced
def qemu_pci_hot_add_storage(mon: Monitor, devaddr: str | None, opts: str) -> None:
    """Add a disk with its controller: the model has none for the PCI bus."""
    kind = get_param_value(1024, "if", opts)[1]
    if not kind:
        monitor_printf(mon, "no if= specified\n")
    elif kind not in ("scsi", "virtio"):
        monitor_printf(mon, "type %s not a hotpluggable PCI device.\n", kind)
    elif _knows_place(mon, devaddr):
        if kind == "virtio" and not get_param_value(1024, "file", opts)[1]:
            monitor_printf(mon, "virtio requires a backing file/device.\n")
        else:
            monitor_printf(mon, "the model has no %s disk\n", kind)


@traced
def pci_device_hot_add(mon: Monitor, qdict: Arguments) -> None:
    """Obey `pci_add`."""
    addr, kind, opts = qdict["pci_addr"].removeprefix("pci_addr="), qdict["type"], qdict.get("opts", "")
    devaddr = None if addr == "auto" else addr
    if kind == "nic":
        qemu_pci_hot_add_nic(mon, devaddr, opts)
    elif kind == "storage":
        qemu_pci_hot_add_storage(mon, devaddr, opts)
    else:
        monitor_printf(mon, "invalid type: %s\n", kind)
    monitor_printf(mon, "failed to add %s\n", opts)


@traced
def pci_device_hot_remove(mon: Monitor, pci_addr: str) -> None:
    """Ask the guest to let go of a device, by ACPI."""
    ret, _, bus, slot = pci_read_devaddr(mon, pci_addr)
    if ret:
        return
    root = _root_bus()
    d = pci_find_device(root, bus, slot, 0) if root is not None else None
    if d is None:
        monitor_printf(mon, "slot %d empty\n", slot)
    else:
        qdev_unplug(d)


@traced
def do_pci_device_hot_remove(mon: Monitor, qdict: Arguments) -> None:
    """Obey `pci_del`."""
    pci_device_hot_remove(mon, qdict["pci_addr"])


@traced(file="hw/qdev.c")
def do_device_add(mon: Monitor, qdict: Arguments) -> None:
    """Obey `device_add`."""
    opts = qemu_opts_parse(qemu_device_opts, qdict["config"], "driver")
    if opts is not None:
        try:
            qdev_device_add(opts)
        finally:
            # 0.12.4 keeps them, and so takes an id once only.
            qemu_opts_del(opts)


@traced(file="hw/qdev.c")
def do_device_del(mon: Monitor, qdict: Arguments) -> None:
    """Obey `device_del`."""
    dev = qdev_find_recursive(qdev.main_system_bus(), qdict["id"])
    if dev is None:
        qemu_error("Device '%s' not found\n", qdict["id"])
    else:
        qdev_unplug(dev)


@traced(file="vl.c")
def do_usb_add(mon: Monitor, qdict: Arguments) -> None:
    """Obey `usb_add`: the model has no USB."""
    qemu_error("could not add USB device '%s'\n", qdict["devname"])


@traced(file="vl.c")
def do_usb_del(mon: Monitor, qdict: Arguments) -> None:
    """Obey `usb_del`: the model has no USB."""
    qemu_error("could not delete USB device '%s'\n", qdict["devname"])


@traced(file="net.c")
def qemu_find_vlan_client_by_name(mon: Monitor, vlan_id: int, client_str: str) -> None:
    """Find a network device: there is none on the one network there is."""
    if vlan_id != 0:
        monitor_printf(mon, "unknown VLAN %d\n", vlan_id)
    else:
        monitor_printf(mon, "can't find device %s on VLAN %d\n", client_str, vlan_id)


@traced(file="net.c")
def net_host_check_device(device: str) -> int:
    """Whether there is such a kind of network device in 0.12.4."""
    return int(device.startswith(_NET))


def _network_options(mon: Monitor, text: str, kind: str) -> QemuOpts | None:
    opts = qemu_opts_parse(qemu_net_opts, text, None)
    if opts is None:
        monitor_printf(mon, "parsing network options '%s' failed\n", text)
        return None
    qemu_opt_set(opts, "type", kind)
    return opts


@traced(file="net.c")
def net_host_device_add(mon: Monitor, qdict: Arguments) -> None:
    """Obey `host_net_add`: the model has no network."""
    device = qdict["device"]
    if not net_host_check_device(device):
        monitor_printf(mon, "invalid host network device %s\n", device)
        return
    opts = _network_options(mon, qdict.get("opts", ""), device)
    if opts is None:
        return
    try:
        net_client_init(None, opts, 0)
    except HypervisorError:
        monitor_printf(mon, "the model has no network\n")
    qemu_opts_del(opts)
    monitor_printf(mon, "adding host network device %s failed\n", device)


@traced(file="net.c")
def net_host_device_remove(mon: Monitor, qdict: Arguments) -> None:
    """Obey `host_net_remove`."""
    qemu_find_vlan_client_by_name(mon, qdict["vlan_id"], qdict["device"])


@traced(file="net/slirp.c")
def slirp_lookup(mon: Monitor, vlan: str | None, stack: str | None) -> None:
    """Find a user network: there is none."""
    if vlan is not None and stack is not None:
        qemu_find_vlan_client_by_name(mon, strtoll(vlan)[0], stack)
    else:
        monitor_printf(mon, "user mode network stack not in use\n")


@traced(file="net/slirp.c")
def net_slirp_hostfwd_add(mon: Monitor, qdict: Arguments) -> None:
    """Obey `hostfwd_add`."""
    _look_up_user_network(mon, qdict)


@traced(file="net/slirp.c")
def net_slirp_hostfwd_remove(mon: Monitor, qdict: Arguments) -> None:
    """Obey `hostfwd_remove`."""
    _look_up_user_network(mon, qdict)


def _look_up_user_network(mon: Monitor, qdict: Arguments) -> None:
    named = "arg2" in qdict
    slirp_lookup(mon, qdict["arg1"] if named else None, qdict.get("arg2"))


@traced(file="net/slirp.c")
def do_info_usernet(mon: Monitor) -> None:
    """Obey `info usernet`: there are no user networks."""
