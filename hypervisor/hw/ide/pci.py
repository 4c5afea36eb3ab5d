"""The bus master's registers as PCI IDE controllers have them: hw/ide/pci.c."""

from __future__ import annotations

from dataclasses import field

from hypervisor.hw.ide.internal import BM_CMD_START, BM_STATUS_DMAING, BMDMAState, IDEBus
from hypervisor.hw.ide.qdev import ide_create_drive
from hypervisor.hw.ide.transfer import ide_dma_cancel
from hypervisor.hw.pci import PCIDevice
from hypervisor.trace_io import traced_io
from hypervisor.vl_drive import DriveInfo
from tracer import traced

C_FILE = "hw/ide/pci.c"


class PCIIDEState(PCIDevice):
    """`PCIIDEState` (hw/ide/pci.h): a controller with two channels."""

    ide_bus: list[IDEBus] = field(default_factory=lambda: [IDEBus(), IDEBus()])
    bmdma: list[BMDMAState] = field(default_factory=lambda: [BMDMAState(), BMDMAState()])


@traced
def bmdma_cmd_writeb(opaque: BMDMAState, addr: int, val: int) -> None:
    """Start or stop the bus master."""
    bm = opaque
    if not val & BM_CMD_START:
        ide_dma_cancel(bm)
    elif not bm.status & BM_STATUS_DMAING:
        bm.status |= BM_STATUS_DMAING
        if bm.dma_cb is not None:
            bm.dma_cb(bm, 0)
    bm.cmd = val & 0x09


def _addr_read(bm: BMDMAState, addr: int, size: int) -> int:
    return bm.addr >> (addr & 3) * 8 & (1 << 8 * size) - 1


def _addr_write(bm: BMDMAState, addr: int, val: int, size: int) -> None:
    shift, mask = (addr & 3) * 8, (1 << 8 * size) - 1
    bm.addr = (bm.addr & ~(mask << shift) | (val & mask) << shift & ~3) & 0xFFFFFFFF
    bm.cur_addr = bm.addr


@traced_io
def bmdma_addr_readb(opaque: BMDMAState, addr: int) -> int:
    """Read a byte of the table's address."""
    return _addr_read(opaque, addr, 1)


@traced_io
def bmdma_addr_readw(opaque: BMDMAState, addr: int) -> int:
    """Read a word of the table's address."""
    return _addr_read(opaque, addr, 2)


@traced_io
def bmdma_addr_readl(opaque: BMDMAState, addr: int) -> int:
    """Read the table's address."""
    return opaque.addr


@traced
def bmdma_addr_writeb(opaque: BMDMAState, addr: int, val: int) -> None:
    """Write a byte of the table's address."""
    _addr_write(opaque, addr, val, 1)


@traced
def bmdma_addr_writew(opaque: BMDMAState, addr: int, val: int) -> None:
    """Write a word of the table's address."""
    _addr_write(opaque, addr, val, 2)


@traced
def bmdma_addr_writel(opaque: BMDMAState, addr: int, val: int) -> None:
    """Write the table's address."""
    opaque.addr = opaque.cur_addr = val & ~3


@traced
def pci_ide_create_devs(dev: PCIIDEState, hd_table: list[DriveInfo | None]) -> None:
    """Put the machine's IDE drives into their places."""
    for place, dinfo in enumerate(hd_table):
        if dinfo is not None:
            ide_create_drive(dev.ide_bus[place >> 1], place & 1, dinfo)
