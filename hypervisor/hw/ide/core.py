"""A channel's registers and commands, and its drives' coming to life: hw/ide/core.c.

- `ide_init_ioport(bus, iobase, iobase2)`, `ide_init2(bus, hd0, hd1, irq)`: ports and two empty places.
- `ide_init_drive(s, dinfo, version)`: a drive gets its image; here QEMU reads sector 0 before the guest does,
  to guess the geometry.
- `ide_ioport_write(bus, addr, val)` and its kin: what the guest does to the registers. Traced with --trace-io
  only.

Commands of CompactFlash cards, and SMART beyond switching it on and off, are refused as an unknown command
is.
"""

from __future__ import annotations

from hypervisor.block import (
    bdrv_get_geometry,
    bdrv_get_type_hint,
    bdrv_guess_geometry,
    bdrv_set_change_cb,
    qemu_blockalign,
)
from hypervisor.block_int import BDRV_TYPE_CDROM
from hypervisor.cutils import pstrcpy
from hypervisor.hw.ide import internal as ide
from hypervisor.hw.ide.commands import BUSY, ide_exec_cmd, ide_set_signature
from hypervisor.hw.ide.internal import IDEBus, IDEState, ide_set_irq, idebus_active_if
from hypervisor.hw.ide.transfer import ide_sector_write_timer_cb
from hypervisor.hw.irq import IRQState, qemu_irq_lower
from hypervisor.ioport import register_block_read, register_ioport_read, register_ioport_write
from hypervisor.program import on_reset
from hypervisor.trace_io import move, traced_io
from hypervisor.version import QEMU_VERSION
from hypervisor.vl_drive import DriveInfo, drive_get_serial
from hypervisor.vl_timers import qemu_new_timer, vm_clock
from tracer import traced

C_FILE = "hw/ide/core.c"

_READY = ide.READY_STAT | ide.SEEK_STAT
_drive_serial = 1


@on_reset
def _reset() -> None:
    global _drive_serial
    _drive_serial = 1


@traced
def cdrom_change_cb(opaque: IDEState) -> None:
    """Tell the guest that the medium has changed."""
    opaque.nb_sectors = bdrv_get_geometry(opaque.drive)
    opaque.sense_key = ide.SENSE_UNIT_ATTENTION
    opaque.asc = ide.ASC_MEDIUM_MAY_HAVE_CHANGED
    opaque.cdrom_changed = 1
    ide_set_irq(opaque.channel)


@traced_io
def ide_clear_hob(bus: IDEBus) -> None:
    """Forget that the guest wanted the high-order bytes."""
    for s in bus.ifs:
        s.select &= ~0x80


_REGISTERS = {1: "feature", 2: "nsector", 3: "sector", 4: "lcyl", 5: "hcyl"}


@traced_io
def ide_ioport_write(opaque: IDEBus, addr: int, val: int) -> None:
    """Write a register of both drives, or give the chosen one a command."""
    bus = opaque
    addr &= 7
    if addr != 7 and idebus_active_if(bus).status & BUSY:
        return
    if addr in _REGISTERS:
        ide_clear_hob(bus)
        register = _REGISTERS[addr]
        for s in bus.ifs:
            setattr(s, f"hob_{register}", getattr(s, register))
            setattr(s, register, val)
    elif addr == 6:
        bus.ifs[0].select = val & ~0x10 | 0xA0
        bus.ifs[1].select = val | 0x10 | 0xA0
        bus.unit = val >> 4 & 1
    elif addr == 7:
        ide_exec_cmd(bus, val)


def _absent(bus: IDEBus, s: IDEState) -> bool:
    return (bus.ifs[0].bs is None and bus.ifs[1].bs is None) or (s is not bus.ifs[0] and s.bs is None)


@traced_io
def ide_ioport_read(opaque: IDEBus, addr1: int) -> int:
    """Read a register of the chosen drive; reading the status takes the interrupt back."""
    bus = opaque
    s = idebus_active_if(bus)
    addr = addr1 & 7
    if addr == 0:
        return 0xFF
    if addr == 7:
        qemu_irq_lower(bus.irq)
        return 0 if _absent(bus, s) else s.status
    if addr == 1:
        return 0 if _absent(bus, s) else s.error
    if bus.ifs[0].bs is None and bus.ifs[1].bs is None:
        return 0
    if addr == 6:
        return s.select
    return int(getattr(s, _REGISTERS[addr])) & 0xFF


@traced_io
def ide_status_read(opaque: IDEBus, addr: int) -> int:
    """Read the status without taking the interrupt back."""
    s = idebus_active_if(opaque)
    return 0 if _absent(opaque, s) else s.status


@traced
def ide_cmd_write(opaque: IDEBus, addr: int, val: int) -> None:
    """Write the control register: reset both drives by its bit 2, switch interrupts off by its bit 1."""
    if not opaque.cmd & ide.IDE_CMD_RESET and val & ide.IDE_CMD_RESET:
        for s in opaque.ifs:
            s.status = ide.BUSY_STAT | ide.SEEK_STAT
            s.error = 0x01
    elif opaque.cmd & ide.IDE_CMD_RESET and not val & ide.IDE_CMD_RESET:
        for s in opaque.ifs:
            s.status = 0 if s.is_cdrom else _READY
            ide_set_signature(s)
    opaque.cmd = val


def _data_write(bus: IDEBus, val: int, size: int) -> None:
    s = bus.ifs[bus.unit]
    if not s.status & ide.DRQ_STAT:
        return
    end = s.data_ptr + size
    s.io_buffer[s.data_ptr : end] = val.to_bytes(size, "little")
    move(s, "data_ptr", end)
    if end >= s.data_end and s.end_transfer_func is not None:
        s.end_transfer_func(s)


def _data_read(bus: IDEBus, size: int) -> int:
    s = bus.ifs[bus.unit]
    if not s.status & ide.DRQ_STAT:
        return 0
    end = s.data_ptr + size
    ret = int.from_bytes(s.io_buffer[s.data_ptr : end], "little")
    move(s, "data_ptr", end)
    if end >= s.data_end and s.end_transfer_func is not None:
        s.end_transfer_func(s)
    return ret


def _data_read_block(bus: IDEBus, size: int, count: int) -> bytes:
    """What so many reads of the data port would give, but for the last one of a transfer."""
    s = bus.ifs[bus.unit]
    count = min(count, (s.data_end - s.data_ptr) // size) - 1
    if count < 2 or not s.status & ide.DRQ_STAT:
        return b""
    end = s.data_ptr + count * size
    data = bytes(s.io_buffer[s.data_ptr : end])
    move(s, "data_ptr", end)
    return data


@traced_io
def ide_data_writew(opaque: IDEBus, addr: int, val: int) -> None:
    """Write two bytes of a transfer."""
    _data_write(opaque, val, 2)


@traced_io
def ide_data_readw(opaque: IDEBus, addr: int) -> int:
    """Read two bytes of a transfer."""
    return _data_read(opaque, 2)


@traced_io
def ide_data_writel(opaque: IDEBus, addr: int, val: int) -> None:
    """Write four bytes of a transfer."""
    _data_write(opaque, val, 4)


@traced_io
def ide_data_readl(opaque: IDEBus, addr: int) -> int:
    """Read four bytes of a transfer."""
    return _data_read(opaque, 4)


@traced
def ide_dummy_transfer_stop(s: IDEState) -> None:
    """Have the data port read all ones."""
    s.data_ptr = s.data_end = 0
    s.io_buffer[:4] = b"\xff\xff\xff\xff"


@traced
def ide_reset(s: IDEState) -> None:
    """Put a drive's registers back."""
    s.mult_sectors = ide.MAX_MULT_SECTORS
    s.feature = s.error = s.nsector = s.sector = s.lcyl = s.hcyl = 0
    s.hob_feature = s.hob_sector = s.hob_nsector = s.hob_lcyl = s.hob_hcyl = 0
    s.select = 0xA0
    s.status = _READY
    s.lba48 = 0
    s.sense_key = s.asc = s.cdrom_changed = 0
    s.packet_transfer_size = s.elementary_transfer_size = 0
    s.io_buffer_index = s.cd_sector_size = s.atapi_dma = 0
    s.io_buffer_size = s.req_nb_sectors = 0
    ide_set_signature(s)
    s.end_transfer_func = ide_dummy_transfer_stop
    ide_dummy_transfer_stop(s)
    s.media_changed = 0


@traced
def ide_bus_reset(bus: IDEBus) -> None:
    """Put a channel's registers back."""
    bus.unit = bus.cmd = 0
    ide_reset(bus.ifs[0])
    ide_reset(bus.ifs[1])
    ide_clear_hob(bus)


@traced
def ide_init_drive(s: IDEState, dinfo: DriveInfo | None, version: str | None) -> None:
    """Give a place its drive, whose geometry is guessed from its sector 0; without one, make it empty."""
    if dinfo is not None and dinfo.bdrv is not None:
        s.bs = dinfo.bdrv
        nb_sectors = bdrv_get_geometry(s.bs)
        s.cylinders, s.heads, s.sectors = bdrv_guess_geometry(s.bs)
        s.nb_sectors = nb_sectors
        s.smart_enabled = 1
        if bdrv_get_type_hint(s.bs) == BDRV_TYPE_CDROM:
            s.is_cdrom = 1
            bdrv_set_change_cb(s.bs, cdrom_change_cb, s)
        s.drive_serial_str = drive_get_serial(s.bs)[:21]
    if not s.drive_serial_str:
        s.drive_serial_str = f"QM{s.drive_serial:05d}"
    s.version = pstrcpy(9, version or QEMU_VERSION)
    ide_reset(s)


@traced
def ide_init2(bus: IDEBus, hd0: DriveInfo | None, hd1: DriveInfo | None, irq: IRQState) -> None:
    """Make a channel's two places."""
    global _drive_serial
    for unit, (s, dinfo) in enumerate(zip(bus.ifs, (hd0, hd1), strict=True)):
        s.bus = bus
        s.unit = unit
        s.drive_serial = _drive_serial
        _drive_serial += 1
        s.io_buffer = qemu_blockalign(s.bs, ide.IDE_BUF_SIZE)
        # A drive's self-test log; the model keeps none.
        qemu_blockalign(s.bs, 512)
        s.sector_write_timer = qemu_new_timer(vm_clock, ide_sector_write_timer_cb, s)
        ide_init_drive(s, dinfo, None)
    bus.irq = irq


@traced
def ide_init_ioport(bus: IDEBus, iobase: int, iobase2: int) -> None:
    """Take a channel's ports."""
    register_ioport_write(iobase, 8, 1, ide_ioport_write, bus)
    register_ioport_read(iobase, 8, 1, ide_ioport_read, bus)
    if iobase2:
        register_ioport_read(iobase2, 1, 1, ide_status_read, bus)
        register_ioport_write(iobase2, 1, 1, ide_cmd_write, bus)
    register_ioport_write(iobase, 2, 2, ide_data_writew, bus)
    register_ioport_read(iobase, 2, 2, ide_data_readw, bus)
    register_ioport_write(iobase, 4, 4, ide_data_writel, bus)
    register_ioport_read(iobase, 4, 4, ide_data_readl, bus)
    register_block_read(iobase, _data_read_block)
