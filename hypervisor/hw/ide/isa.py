"""A channel on the ISA bus, for a machine without PCI: hw/ide/isa.c, of which the model has the name."""

from hypervisor.hw.isa_bus import ISADeviceInfo, isa_qdev_register
from hypervisor.module import device_init
from tracer import traced

C_FILE = "hw/ide/isa.c"

isa_ide_info = ISADeviceInfo(name="isa-ide")


@traced
def isa_ide_register_devices() -> None:
    """Register the channel."""
    isa_qdev_register(isa_ide_info)


device_init(isa_ide_register_devices)
