"""Registers, structures and numbers of the IDE model: hw/ide/internal.h.

    PCIIDEState --bus[2]--> IDEBus --ifs[2]--> IDEState (one drive's registers) --bs--> BlockDriverState
         |                    |
         `--bmdma[2]--> BMDMAState (the bus master of one channel), known to its IDEBus once it has ports

In C the bus master's unit 0xff stands for none; here it is -1 as the code says it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any

from hypervisor.block_int import BlockDriverAIOCB, BlockDriverCompletionFunc, BlockDriverState
from hypervisor.cutils import QEMUIOVector
from hypervisor.dma_helpers import QEMUSGList
from hypervisor.hw.irq import IRQState, qemu_irq_raise
from hypervisor.hw.qdev import BusState, DeviceInfo, DeviceState
from hypervisor.trace_io import traced_io
from hypervisor.vl_drive import DriveInfo
from hypervisor.vl_timers import QEMUTimer
from tracer import Struct, traced

C_FILE = "hw/ide/internal.h"

ERR_STAT = 0x01
DRQ_STAT = 0x08
SEEK_STAT = 0x10
READY_STAT = 0x40
BUSY_STAT = 0x80
ABRT_ERR = 0x04
MC_ERR = 0x20

IDE_CMD_RESET = 0x04
IDE_CMD_DISABLE_IRQ = 0x02

BM_STATUS_DMAING = 0x01
BM_STATUS_ERROR = 0x02
BM_STATUS_INT = 0x04
BM_STATUS_DMA_RETRY = 0x08
BM_STATUS_PIO_RETRY = 0x10
BM_STATUS_RETRY_READ = 0x20
BM_CMD_START = 0x01
BM_CMD_READ = 0x08

MAX_MULT_SECTORS = 16
IDE_DMA_BUF_SECTORS = 256
IDE_BUF_SIZE = IDE_DMA_BUF_SECTORS * 512 + 4
ATAPI_PACKET_SIZE = 12
CD_MAX_SECTORS = 80 * 60 * 75 * 2048 // 512

ATAPI_INT_REASON_CD = 0x01
ATAPI_INT_REASON_IO = 0x02
ASC_ILLEGAL_OPCODE = 0x20
ASC_LOGICAL_BLOCK_OOR = 0x21
ASC_INV_FIELD_IN_CMD_PACKET = 0x24
ASC_MEDIUM_MAY_HAVE_CHANGED = 0x28
ASC_SAVING_PARAMETERS_NOT_SUPPORTED = 0x39
ASC_MEDIUM_NOT_PRESENT = 0x3A
ASC_MEDIA_REMOVAL_PREVENTED = 0x53
SENSE_NONE = 0
SENSE_NOT_READY = 2
SENSE_ILLEGAL_REQUEST = 5
SENSE_UNIT_ATTENTION = 6


class IDEState(Struct):
    """`IDEState`: one drive, or the place of a missing one.

    Parameters
    ----------
    data_ptr, data_end : int
        What the data port transfers next, as offsets into `io_buffer`.
    end_transfer_func
        Called when `data_ptr` has reached `data_end`.
    lba : int
        Next block of a CD-ROM read, -1 for a packet command that reads no disk.
    """

    bus: IDEBus | None = None
    unit: int = 0
    is_cdrom: int = 0
    cylinders: int = 0
    heads: int = 0
    sectors: int = 0
    nb_sectors: int = 0
    mult_sectors: int = 0
    identify_set: int = 0
    identify_data: bytearray = field(default_factory=lambda: bytearray(512))
    drive_serial: int = 0
    drive_serial_str: str = ""
    feature: int = 0
    error: int = 0
    nsector: int = 0
    sector: int = 0
    lcyl: int = 0
    hcyl: int = 0
    hob_feature: int = 0
    hob_nsector: int = 0
    hob_sector: int = 0
    hob_lcyl: int = 0
    hob_hcyl: int = 0
    select: int = 0
    status: int = 0
    lba48: int = 0
    bs: BlockDriverState | None = None
    version: str = ""
    sense_key: int = 0
    asc: int = 0
    cdrom_changed: int = 0
    packet_transfer_size: int = 0
    elementary_transfer_size: int = 0
    io_buffer_index: int = 0
    lba: int = 0
    cd_sector_size: int = 0
    atapi_dma: int = 0
    io_buffer_size: int = 0
    sg: QEMUSGList = field(default_factory=QEMUSGList)
    req_nb_sectors: int = 0
    end_transfer_func: Callable[[IDEState], None] | None = None
    data_ptr: int = 0
    data_end: int = 0
    io_buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(4)))
    sector_write_timer: QEMUTimer | None = None
    media_changed: int = 0
    is_read: int = 0
    smart_enabled: int = 0
    cur_io_buffer_offset: int = 0
    cur_io_buffer_len: int = 0
    end_transfer_fn_idx: int = 0

    @property
    def channel(self) -> IDEBus:
        """The channel the drive hangs on."""
        assert self.bus is not None
        return self.bus

    @property
    def drive(self) -> BlockDriverState:
        """The drive's block device, where the command needs one."""
        assert self.bs is not None
        return self.bs


class IDEBus(BusState):
    """`struct IDEBus`: one channel with its two drives."""

    master: IDEDevice | None = None
    slave: IDEDevice | None = None
    bmdma: BMDMAState | None = None
    ifs: list[IDEState] = field(default_factory=lambda: [IDEState(), IDEState()])
    unit: int = 0
    cmd: int = 0
    irq: IRQState | None = None


class IDEDevice(DeviceState):
    """`struct IDEDevice`: what -drive put on a channel."""

    unit: int = -1
    dinfo: DriveInfo | None = None
    version: str | None = None


class IDEDeviceInfo(DeviceInfo):
    """`struct IDEDeviceInfo`: its own init function takes the device only."""

    ide_init: Callable[[Any], int] | None = None


class BMDMAState(Struct):
    """`struct BMDMAState`: the bus master of one channel.

    Parameters
    ----------
    addr : int
        Where in memory the table of pieces is, 8 bytes an entry; `cur_addr` is the next entry.
    dma_cb
        Continues the running command.
    """

    cmd: int = 0
    status: int = 0
    addr: int = 0
    pci_dev: Any = None
    bus: IDEBus | None = None
    cur_addr: int = 0
    cur_prd_last: int = 0
    cur_prd_addr: int = 0
    cur_prd_len: int = 0
    unit: int = 0
    dma_cb: BlockDriverCompletionFunc | None = None
    aiocb: BlockDriverAIOCB | None = None
    qiov: QEMUIOVector = field(default_factory=QEMUIOVector)
    sector_num: int = 0
    nsector: int = 0
    bh: Any = None


@traced_io
def idebus_active_if(bus: IDEBus) -> IDEState:
    """The drive that the channel's registers belong to."""
    return bus.ifs[bus.unit]


@traced
def bmdma_active_if(bmdma: BMDMAState) -> IDEState:
    """The drive the bus master works for."""
    assert bmdma.unit != -1 and bmdma.bus is not None
    return bmdma.bus.ifs[bmdma.unit]


@traced
def ide_set_irq(bus: IDEBus) -> None:
    """Ask for an interrupt, unless the guest has switched that off."""
    if bus.cmd & IDE_CMD_DISABLE_IRQ:
        return
    if bus.bmdma is not None:
        bus.bmdma.status |= BM_STATUS_INT
    qemu_irq_raise(bus.irq)
