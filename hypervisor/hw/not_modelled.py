"""Devices of 0.12.4 that the model knows by name only: they are registered and listed, and cannot be made.

`KINDS`: by C file and init function, in the order of registration: name, bus, alias, description.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from hypervisor import module
from hypervisor.hw.isa_bus import isa_bus_info
from hypervisor.hw.pci import pci_bus_info
from hypervisor.hw.qdev import BusInfo, DeviceInfo, qdev_register, system_bus_info


class _Kind(NamedTuple):
    name: str
    bus: str = "PCI"
    alias: str | None = None
    desc: str | None = None


_EEPRO100 = "i82550 i82551 i82557a i82557b i82557c i82558a i82558b i82559a i82559b i82559c i82559er i82562"
_VIRTIO = "virtio-blk-pci virtio-net-pci virtio-console-pci virtio-balloon-pci"

KINDS: dict[tuple[str, str], list[_Kind]] = {
    ("hw/lsi53c895a.c", "lsi53c895a_register_devices"): [_Kind("lsi53c895a", alias="lsi")],
    ("hw/ne2000.c", "ne2000_register_devices"): [_Kind("ne2k_pci")],
    ("hw/wdt_i6300esb.c", "i6300esb_register_devices"): [_Kind("i6300esb")],
    ("hw/usb-bt.c", "usb_bt_register_devices"): [_Kind("usb-bt-dongle", "USB")],
    ("hw/usb-net.c", "usb_net_register_devices"): [_Kind("usb-net", "USB")],
    ("hw/usb-serial.c", "usb_serial_register_devices"): [
        _Kind("usb-serial", "USB"),
        _Kind("usb-braille", "USB"),
    ],
    ("hw/usb-wacom.c", "usb_wacom_register_devices"): [
        _Kind("usb-wacom-tablet", "USB", desc="QEMU PenPartner Tablet")
    ],
    ("hw/usb-msd.c", "usb_msd_register_devices"): [_Kind("usb-storage", "USB")],
    ("hw/usb-hid.c", "usb_hid_register_devices"): [
        _Kind(name, "USB") for name in ("usb-tablet", "usb-mouse", "usb-kbd")
    ],
    ("usb-linux.c", "usb_host_register_devices"): [_Kind("usb-host", "USB")],
    ("hw/usb-hub.c", "usb_hub_register_devices"): [_Kind("usb-hub", "USB")],
    ("hw/scsi-generic.c", "scsi_generic_register_devices"): [
        _Kind("scsi-generic", "SCSI", desc="pass through generic scsi device (/dev/sg*)")
    ],
    ("hw/scsi-disk.c", "scsi_disk_register_devices"): [
        _Kind("scsi-disk", "SCSI", desc="virtual scsi disk or cdrom")
    ],
    ("hw/testdev.c", "testdev_register_devices"): [_Kind("testdev", "ISA")],
    ("hw/ne2000-isa.c", "ne2000_isa_register_devices"): [_Kind("ne2k_isa", "ISA")],
    ("hw/wdt_ib700.c", "wdt_ib700_register_devices"): [_Kind("ib700", "ISA")],
    ("hw/vmware_vga.c", "vmsvga_register"): [_Kind("vmware-svga")],
    ("hw/usb-uhci.c", "uhci_register"): [_Kind("piix3-usb-uhci"), _Kind("piix4-usb-uhci")],
    ("hw/parallel.c", "parallel_register_devices"): [_Kind("isa-parallel", "ISA")],
    ("hw/cirrus_vga.c", "cirrus_vga_register"): [_Kind("cirrus-vga", desc="Cirrus CLGD 54xx VGA")],
    ("hw/vga-pci.c", "vga_register"): [_Kind("VGA")],
    ("hw/ac97.c", "ac97_register"): [_Kind("AC97", desc="Intel 82801AA AC97 Audio")],
    ("hw/es1370.c", "es1370_register"): [_Kind("ES1370", desc="ENSONIQ AudioPCI ES1370")],
    ("hw/sb16.c", "sb16_register"): [_Kind("sb16", "ISA", desc="Creative Sound Blaster 16")],
    ("hw/e1000.c", "e1000_register_devices"): [_Kind("e1000", desc="Intel Gigabit Ethernet")],
    ("hw/rtl8139.c", "rtl8139_register_devices"): [_Kind("rtl8139")],
    ("hw/pcnet.c", "pcnet_register_devices"): [_Kind("pcnet")],
    ("hw/eepro100.c", "eepro100_register_devices"): [_Kind(name) for name in _EEPRO100.split()],
    ("hw/virtio-pci.c", "virtio_pci_register_devices"): [_Kind(name) for name in _VIRTIO.split()],
    ("hw/pci.c", "pci_register_devices"): [_Kind("pci-bridge")],
}

_BUSES = {"PCI": pci_bus_info, "ISA": isa_bus_info, "System": system_bus_info}
_BUSES |= {name: BusInfo(name=name) for name in ("USB", "SCSI")}


def _register(kinds: list[_Kind]) -> None:
    for kind in kinds:
        qdev_register(DeviceInfo(name=kind.name, bus_info=_BUSES[kind.bus], alias=kind.alias, desc=kind.desc))


for _place, _kinds in KINDS.items():
    module.name_only(*_place, partial(_register, _kinds))
