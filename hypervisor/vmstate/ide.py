"""What is saved of the IDE controller and its drives: hw/ide/core.c, hw/ide/pci.c.

A drive in the middle of a transfer by port is saved with its buffer, where in it the transfer is, and the
number of the function that ends it. A transfer by DMA never is: all requests are finished before anything is
saved.
"""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING, Any

from hypervisor.hw.ide.internal import DRQ_STAT, IDE_BUF_SIZE, IDEState
from hypervisor.vmstate import VMStateDescription
from hypervisor.vmstate.fields import (
    VMSTATE_BUFFER,
    VMSTATE_BYTES,
    VMSTATE_INT32,
    VMSTATE_INT64,
    VMSTATE_STRUCT,
    VMSTATE_UINT8,
    VMSTATE_UINT32,
)
from hypervisor.vmstate.pci import VMSTATE_PCI_DEVICE
from tracer import symbol, traced

if TYPE_CHECKING:
    from hypervisor.hw.ide.pci import PCIIDEState

C_FILE = "hw/ide/core.c"


def _transfer_end_table() -> tuple[Any, ...]:
    from hypervisor.hw.ide import atapi, transfer

    return (
        transfer.ide_sector_read,
        transfer.ide_sector_write,
        transfer.ide_transfer_stop,
        atapi.ide_atapi_cmd_reply_end,
        atapi.ide_atapi_cmd,
    )


@traced
def transfer_end_table_idx(fn: Any) -> int:
    """Number of a function that ends a transfer, -1 for another."""
    table = _transfer_end_table()
    return table.index(fn) if fn in table else -1


@traced
def ide_drive_pre_save(opaque: IDEState) -> None:
    """Note where in its buffer a transfer by port is."""
    s = opaque
    s.cur_io_buffer_len = 0
    if not s.status & DRQ_STAT:
        return
    s.cur_io_buffer_offset = s.data_ptr
    s.cur_io_buffer_len = s.data_end - s.data_ptr
    s.end_transfer_fn_idx = transfer_end_table_idx(s.end_transfer_func)
    if s.end_transfer_fn_idx == -1:
        print("ide_drive_pre_save: invalid end_transfer_func for DRQ_STAT", file=sys.stderr)
        s.end_transfer_fn_idx = 2


@traced
def ide_drive_post_load(opaque: IDEState, version_id: int) -> int:
    """Go on with a transfer by port; -EINVAL when what was read leads out of the buffer."""
    s = opaque
    if s.cur_io_buffer_len:
        table = _transfer_end_table()
        end = s.cur_io_buffer_offset + s.cur_io_buffer_len
        known = s.end_transfer_fn_idx < len(table)
        if not known or s.cur_io_buffer_offset < 0 or not 0 <= end <= len(s.io_buffer):
            return -errno.EINVAL
        s.end_transfer_func = table[s.end_transfer_fn_idx]
        s.data_ptr, s.data_end = s.cur_io_buffer_offset, end
    return 0


@traced
def is_identify_set(opaque: Any, version_id: int) -> int:
    """Whether the drive was asked what it is."""
    return int(opaque.identify_set != 0)


@traced(file="hw/ide/pci.c")
def ide_pci_post_load(opaque: PCIIDEState, version_id: int) -> int:
    """Keep the bit that older versions counted further than."""
    for bm in opaque.bmdma:
        # quirk: 0.12.4 makes drive 1 out of none.
        bm.unit = -1 if bm.unit == 0xFF else bm.unit & 1
    return 0


_REGISTERS = (
    "sector",
    "lcyl",
    "hcyl",
    "hob_feature",
    "hob_sector",
    "hob_nsector",
    "hob_lcyl",
    "hob_hcyl",
    "select",
    "status",
    "lba48",
    "sense_key",
    "asc",
)
vmstate_ide_drive = symbol(
    VMStateDescription(
        name="ide_drive",
        version_id=4,
        pre_save=ide_drive_pre_save,
        post_load=ide_drive_post_load,
        fields=(
            VMSTATE_INT32("mult_sectors"),
            VMSTATE_INT32("identify_set"),
            VMSTATE_BUFFER("identify_data", 512, test=is_identify_set),
            VMSTATE_UINT8("feature"),
            VMSTATE_UINT8("error"),
            VMSTATE_UINT32("nsector"),
            *map(VMSTATE_UINT8, _REGISTERS),
            VMSTATE_UINT8("cdrom_changed", 3),
            VMSTATE_INT32("req_nb_sectors", 4),
            VMSTATE_BYTES("io_buffer", IDE_BUF_SIZE, 4),
            VMSTATE_INT32("cur_io_buffer_offset", 4),
            VMSTATE_INT32("cur_io_buffer_len", 4),
            VMSTATE_UINT8("end_transfer_fn_idx", 4),
            VMSTATE_INT32("elementary_transfer_size", 4),
            VMSTATE_INT32("packet_transfer_size", 4),
        ),
    ),
    "vmstate_ide_drive",
)
vmstate_ide_bus = symbol(
    VMStateDescription(
        name="ide_bus",
        version_id=1,
        minimum_version_id=1,
        fields=(VMSTATE_UINT8("cmd"), VMSTATE_UINT8("unit", within=range(2))),
    ),
    "vmstate_ide_bus",
)
vmstate_bmdma = symbol(
    VMStateDescription(
        name="ide bmdma",
        version_id=3,
        fields=(
            VMSTATE_UINT8("cmd"),
            VMSTATE_UINT8("status"),
            VMSTATE_UINT32("addr"),
            VMSTATE_INT64("sector_num"),
            VMSTATE_UINT32("nsector"),
            VMSTATE_UINT8("unit"),
        ),
    ),
    "vmstate_bmdma",
)
vmstate_ide_pci = symbol(
    VMStateDescription(
        name="ide",
        version_id=3,
        post_load=ide_pci_post_load,
        fields=(
            VMSTATE_PCI_DEVICE(),
            VMSTATE_STRUCT("bmdma", vmstate_bmdma, num=2),
            VMSTATE_STRUCT("bus", vmstate_ide_bus, attr="ide_bus", num=2),
            VMSTATE_STRUCT("bus[0].ifs", vmstate_ide_drive, 3, attr="ide_bus[0].ifs", num=2),
            VMSTATE_STRUCT("bus[1].ifs", vmstate_ide_drive, 3, attr="ide_bus[1].ifs", num=2),
        ),
    ),
    "vmstate_ide_pci",
)
