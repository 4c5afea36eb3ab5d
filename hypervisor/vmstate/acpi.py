"""What is saved of the power management and its SMBus: hw/acpi.c, hw/i2c.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypervisor.vmstate import VMStateDescription
from hypervisor.vmstate.fields import (
    VMSTATE_INT64,
    VMSTATE_TIMER,
    VMSTATE_UINT8,
    VMSTATE_UINT16,
)
from hypervisor.vmstate.pci import VMSTATE_PCI_DEVICE
from tracer import symbol, traced

if TYPE_CHECKING:
    from hypervisor.hw.acpi import PIIX4PMState
    from hypervisor.hw.i2c import I2CBus

C_FILE = "hw/acpi.c"

_NOBODY = 0xFF


@traced
def vmstate_acpi_post_load(opaque: PIIX4PMState, version_id: int) -> int:
    """Put the ports where the guest had them."""
    from hypervisor.hw.acpi import pm_io_space_update

    pm_io_space_update(opaque)
    return 0


vmstate_acpi = symbol(
    VMStateDescription(
        name="piix4_pm",
        version_id=1,
        minimum_version_id=1,
        post_load=vmstate_acpi_post_load,
        fields=(
            VMSTATE_PCI_DEVICE(),
            *(VMSTATE_UINT16(name) for name in ("pmsts", "pmen", "pmcntrl")),
            VMSTATE_UINT8("apmc"),
            VMSTATE_UINT8("apms"),
            VMSTATE_TIMER("tmr_timer"),
            VMSTATE_INT64("tmr_overflow_time"),
        ),
    ),
    "vmstate_acpi",
)


@traced(file="hw/i2c.c")
def i2c_bus_pre_save(opaque: I2CBus) -> None:
    """Note whom the bus speaks to."""
    opaque.saved_address = opaque.current_dev.address if opaque.current_dev is not None else _NOBODY


@traced(file="hw/i2c.c")
def i2c_bus_post_load(opaque: I2CBus, version_id: int) -> int:
    """Speak to nobody; 0.12.4 has the devices find themselves, and saves none of them."""
    opaque.current_dev = None
    return 0


vmstate_i2c_bus = symbol(
    VMStateDescription(
        name="i2c_bus",
        version_id=1,
        minimum_version_id=1,
        pre_save=i2c_bus_pre_save,
        post_load=i2c_bus_post_load,
        fields=(VMSTATE_UINT8("saved_address"),),
    ),
    "vmstate_i2c_bus",
)
