"""Which constructors each program of qemu-kvm 0.12.4 runs before main(), in the order of its 2010 link.

Facts of the recordings: ``.ctors`` is run last to first, so probing later goes cow ... nbd, host_cdrom,
host_floppy, host_device, raw. qemu-img and qemu-io link the block drivers only.
"""

from __future__ import annotations

from hypervisor.module import MODULE_INIT_BLOCK, MODULE_INIT_DEVICE, MODULE_INIT_MACHINE

_DEVICE = MODULE_INIT_DEVICE

BLOCK = (
    ("block/raw-posix.c", "bdrv_raw_init", MODULE_INIT_BLOCK),
    ("block/nbd.c", "bdrv_nbd_init", MODULE_INIT_BLOCK),
    ("block/parallels.c", "bdrv_parallels_init", MODULE_INIT_BLOCK),
    ("block/qcow2.c", "bdrv_qcow2_init", MODULE_INIT_BLOCK),
    ("block/vvfat.c", "bdrv_vvfat_init", MODULE_INIT_BLOCK),
    ("block/vpc.c", "bdrv_vpc_init", MODULE_INIT_BLOCK),
    ("block/bochs.c", "bdrv_bochs_init", MODULE_INIT_BLOCK),
    ("block/dmg.c", "bdrv_dmg_init", MODULE_INIT_BLOCK),
    ("block/cloop.c", "bdrv_cloop_init", MODULE_INIT_BLOCK),
    ("block/vmdk.c", "bdrv_vmdk_init", MODULE_INIT_BLOCK),
    ("block/vdi.c", "bdrv_vdi_init", MODULE_INIT_BLOCK),
    ("block/qcow.c", "bdrv_qcow_init", MODULE_INIT_BLOCK),
    ("block/cow.c", "bdrv_cow_init", MODULE_INIT_BLOCK),
)
"""(C file, init function, MODULE_INIT_*) of the block drivers."""

SYSTEM = (
    ("hw/isa-bus.c", "isabus_register_devices", _DEVICE),
    ("hw/lsi53c895a.c", "lsi53c895a_register_devices", _DEVICE),
    ("hw/ne2000.c", "ne2000_register_devices", _DEVICE),
    ("hw/wdt_i6300esb.c", "i6300esb_register_devices", _DEVICE),
    ("hw/usb-bt.c", "usb_bt_register_devices", _DEVICE),
    ("hw/usb-net.c", "usb_net_register_devices", _DEVICE),
    ("hw/usb-serial.c", "usb_serial_register_devices", _DEVICE),
    ("hw/usb-wacom.c", "usb_wacom_register_devices", _DEVICE),
    ("hw/usb-msd.c", "usb_msd_register_devices", _DEVICE),
    ("hw/usb-hid.c", "usb_hid_register_devices", _DEVICE),
    ("usb-linux.c", "usb_host_register_devices", _DEVICE),
    ("hw/usb-hub.c", "usb_hub_register_devices", _DEVICE),
    ("hw/scsi-generic.c", "scsi_generic_register_devices", _DEVICE),
    ("hw/scsi-disk.c", "scsi_disk_register_devices", _DEVICE),
    ("hw/smbus_eeprom.c", "smbus_eeprom_register_devices", _DEVICE),
    *BLOCK,
    ("hw/testdev.c", "testdev_register_devices", _DEVICE),
    ("hw/ne2000-isa.c", "ne2000_isa_register_devices", _DEVICE),
    ("hw/wdt_ib700.c", "wdt_ib700_register_devices", _DEVICE),
    ("hw/vmware_vga.c", "vmsvga_register", _DEVICE),
    ("hw/usb-uhci.c", "uhci_register", _DEVICE),
    ("hw/piix_pci.c", "i440fx_register", _DEVICE),
    ("hw/parallel.c", "parallel_register_devices", _DEVICE),
    ("hw/cirrus_vga.c", "cirrus_vga_register", _DEVICE),
    ("hw/pc.c", "pc_machine_init", MODULE_INIT_MACHINE),
    ("hw/serial.c", "serial_register_devices", _DEVICE),
    ("hw/mc146818rtc.c", "mc146818rtc_register", _DEVICE),
    ("hw/fdc.c", "fdc_register_devices", _DEVICE),
    ("hw/vga-pci.c", "vga_register", _DEVICE),
    ("hw/ac97.c", "ac97_register", _DEVICE),
    ("hw/es1370.c", "es1370_register", _DEVICE),
    ("hw/sb16.c", "sb16_register", _DEVICE),
    ("hw/pckbd.c", "i8042_register", _DEVICE),
    ("hw/ide/piix.c", "piix_ide_register", _DEVICE),
    ("hw/ide/isa.c", "isa_ide_register_devices", _DEVICE),
    ("hw/ide/qdev.c", "ide_drive_register", _DEVICE),
    ("hw/e1000.c", "e1000_register_devices", _DEVICE),
    ("hw/rtl8139.c", "rtl8139_register_devices", _DEVICE),
    ("hw/pcnet.c", "pcnet_register_devices", _DEVICE),
    ("hw/eepro100.c", "eepro100_register_devices", _DEVICE),
    ("hw/virtio-pci.c", "virtio_pci_register_devices", _DEVICE),
    ("hw/pci.c", "pci_register_devices", _DEVICE),
)
"""The same of qemu-system-x86_64, devices and the machine among them."""
