"""What is saved of the PCI bus and its bridges: hw/pci.c, hw/piix_pci.c."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

from hypervisor.hw import pci_regs as regs
from hypervisor.savevm_file import QEMUFile, qemu_get_be32, qemu_get_buffer, qemu_put_be32, qemu_put_buffer
from hypervisor.vmstate import VMStateDescription, VMStateField, VMStateInfo
from hypervisor.vmstate.fields import (
    VMSTATE_INT32,
    VMSTATE_INT32_EQUAL,
    VMSTATE_INT32_LE,
    VMSTATE_SINGLE,
    VMSTATE_STRUCT,
    VMSTATE_UINT8,
)
from tracer import symbol, traced

if TYPE_CHECKING:
    from hypervisor.hw.pci import PCIDevice

C_FILE = "hw/pci.c"

_PINS = 4


@traced
def get_pci_config_device(f: QEMUFile, pv: PCIDevice | None, size: int) -> tuple[int, bytes | PCIDevice]:
    """Read configuration space; another kind of device cannot be read over this one."""
    from hypervisor.hw.pci import pci_update_mappings

    config = bytearray(size)
    qemu_get_buffer(f, memoryview(config), size)
    if pv is None:
        return 0, bytes(config)
    for new, old, cmask, wmask in zip(config, pv.config, pv.cmask, pv.wmask, strict=True):
        if (new ^ old) & cmask & ~wmask:
            return -errno.EINVAL, pv
    pv.config[:] = config
    pci_update_mappings(pv)
    return 0, pv


@traced
def put_pci_config_device(f: QEMUFile, pv: PCIDevice | None, size: int) -> None:
    """Write configuration space."""
    qemu_put_buffer(f, bytes(pv.config) if pv is not None else bytes(size), size)


@traced
def get_pci_irq_state(f: QEMUFile, pv: PCIDevice | None, size: int) -> tuple[int, PCIDevice | list[int]]:
    """Read the levels of the four interrupt pins."""
    levels = [qemu_get_be32(f) for _ in range(_PINS)]
    if pv is None:
        return 0, levels
    for level in levels:
        if level not in (0, 1):
            print(f"irq state {level}: must be 0 or 1.", file=sys.stderr)
            return -errno.EINVAL, pv
    pv.irq_state = sum(level << pin for pin, level in enumerate(levels))
    return 0, pv


@traced
def put_pci_irq_state(f: QEMUFile, pv: PCIDevice | None, size: int) -> None:
    """Write the levels of the four interrupt pins."""
    for pin in range(_PINS):
        qemu_put_be32(f, pv.irq_state >> pin & 1 if pv is not None else 0)


_CONFIG = symbol(
    VMStateInfo(name="pci config", get=get_pci_config_device, put=put_pci_config_device),
    "vmstate_info_pci_config",
)
_IRQ_STATE = symbol(
    VMStateInfo(name="pci irq state", get=get_pci_irq_state, put=put_pci_irq_state),
    "vmstate_info_pci_irq_state",
)


vmstate_pcibus = symbol(
    VMStateDescription(
        name="PCIBUS",
        version_id=1,
        minimum_version_id=1,
        fields=(VMSTATE_INT32_EQUAL("nirq", missing=_PINS), VMSTATE_INT32("irq_count", num=_PINS)),
    ),
    "vmstate_pcibus",
)
vmstate_pci_device = symbol(
    VMStateDescription(
        name="PCIDevice",
        version_id=2,
        minimum_version_id=1,
        fields=(
            VMSTATE_INT32_LE("version_id", missing=2),
            VMSTATE_SINGLE("config", _CONFIG, regs.PCI_CONFIG_SPACE_SIZE, attr=""),
            VMSTATE_SINGLE("irq_state", _IRQ_STATE, 4 * _PINS, 2, attr=""),
        ),
    ),
    "vmstate_pci_device",
)


def VMSTATE_PCI_DEVICE(name: str = "dev") -> VMStateField:
    """What a device has because it is on the PCI bus."""
    return VMSTATE_STRUCT(name, vmstate_pci_device, attr="")


@traced(file="hw/piix_pci.c")
def i440fx_post_load(opaque: PCIDevice, version_id: int) -> int:
    """Nothing more: the first megabyte's mapping follows from the configuration."""
    return 0


vmstate_i440fx = symbol(
    VMStateDescription(
        name="I440FX",
        version_id=3,
        minimum_version_id=3,
        post_load=i440fx_post_load,
        fields=(VMSTATE_PCI_DEVICE(), VMSTATE_UINT8("smm_enabled", missing=0)),
    ),
    "vmstate_i440fx",
)
vmstate_piix3 = symbol(
    VMStateDescription(
        name="PIIX3",
        version_id=3,
        minimum_version_id=2,
        fields=(VMSTATE_PCI_DEVICE(), VMSTATE_INT32("pci_irq_levels", 3, num=_PINS)),
    ),
    "vmstate_piix3",
)
