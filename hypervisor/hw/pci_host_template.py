"""The data port of PCI configuration space, width by width: hw/pci_host_template.h, which C includes twice.

- `pci_host_data_{read,write}{b,w,l}_ioport`: what the ports of `hypervisor.hw.pci_host` do.
"""

from __future__ import annotations

from hypervisor.hw.pci_host import PCIHostState, host_read, host_write
from hypervisor.trace_io import traced_io

C_FILE = "hw/pci_host_template.h"


@traced_io
def pci_host_data_writeb_ioport(opaque: PCIHostState, addr: int, val: int) -> None:
    """Write a byte of what the address names."""
    host_write(opaque, addr, val, 1)


@traced_io
def pci_host_data_writew_ioport(opaque: PCIHostState, addr: int, val: int) -> None:
    """Write a word of what the address names."""
    host_write(opaque, addr, val, 2)


@traced_io
def pci_host_data_writel_ioport(opaque: PCIHostState, addr: int, val: int) -> None:
    """Write a double word of what the address names."""
    host_write(opaque, addr, val, 4)


@traced_io
def pci_host_data_readb_ioport(opaque: PCIHostState, addr: int) -> int:
    """Read a byte of what the address names."""
    return host_read(opaque, addr, 1)


@traced_io
def pci_host_data_readw_ioport(opaque: PCIHostState, addr: int) -> int:
    """Read a word of what the address names."""
    return host_read(opaque, addr, 2)


@traced_io
def pci_host_data_readl_ioport(opaque: PCIHostState, addr: int) -> int:
    """Read a double word of what the address names."""
    return host_read(opaque, addr, 4)
