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

from collections.abc import Callable

from hypervisor.block import (
    bdrv_aio_flush,
    bdrv_get_geometry,
    bdrv_get_type_hint,
    bdrv_guess_geometry,
    bdrv_set_change_cb,
    qemu_blockalign,
)
from hypervisor.block_int import BDRV_TYPE_CDROM
from hypervisor.cutils import pstrcpy
from hypervisor.hw.ide import internal as ide
from hypervisor.hw.ide.atapi import ide_atapi_cmd
from hypervisor.hw.ide.identify import ide_atapi_identify, ide_identify, put_le16
from hypervisor.hw.ide.internal import IDEBus, IDEState, ide_set_irq, idebus_active_if
from hypervisor.hw.ide.transfer import (
    ide_abort_command,
    ide_sector_read,
    ide_sector_read_dma,
    ide_sector_write,
    ide_sector_write_dma,
    ide_sector_write_timer_cb,
    ide_set_sector,
    ide_transfer_start,
    ide_transfer_stop,
)
from hypervisor.hw.irq import IRQState, qemu_irq_lower
from hypervisor.ioport import register_ioport_read, register_ioport_write
from hypervisor.program import on_reset
from hypervisor.trace_io import traced_io
from hypervisor.version import QEMU_VERSION
from hypervisor.vl_drive import DriveInfo, drive_get_serial
from hypervisor.vl_timers import qemu_new_timer, vm_clock
from tracer import traced

C_FILE = "hw/ide/core.c"

_READY = ide.READY_STAT | ide.SEEK_STAT
_BUSY = ide.BUSY_STAT | ide.DRQ_STAT
_drive_serial = 1


@on_reset
def _reset() -> None:
    global _drive_serial
    _drive_serial = 1


@traced
def ide_set_signature(s: IDEState) -> None:
    """Show in the registers what kind of drive this is."""
    s.select &= 0xF0
    s.nsector = s.sector = 1
    if s.is_cdrom:
        s.lcyl, s.hcyl = 0x14, 0xEB
    elif s.bs is not None:
        s.lcyl, s.hcyl = 0, 0
    else:
        s.lcyl, s.hcyl = 0xFF, 0xFF


@traced
def ide_flush_cb(opaque: IDEState, ret: int) -> None:
    """End a flush."""
    opaque.status = _READY
    ide_set_irq(opaque.channel)


@traced
def cdrom_change_cb(opaque: IDEState) -> None:
    """Tell the guest that the medium has changed."""
    opaque.nb_sectors = bdrv_get_geometry(opaque.drive)
    opaque.sense_key = ide.SENSE_UNIT_ATTENTION
    opaque.asc = ide.ASC_MEDIUM_MAY_HAVE_CHANGED
    opaque.cdrom_changed = 1
    ide_set_irq(opaque.channel)


@traced
def ide_cmd_lba48_transform(s: IDEState, lba48: int) -> None:
    """Read the sector count of a 28-bit or 48-bit command, where 0 stands for the most."""
    s.lba48 = lba48
    if not lba48:
        s.nsector = s.nsector or 256
    else:
        s.nsector = s.hob_nsector << 8 | s.nsector & 0xFF or 65536


@traced_io
def ide_clear_hob(bus: IDEBus) -> None:
    """Forget that the guest wanted the high-order bytes."""
    for s in bus.ifs:
        s.select &= ~0x80


class _AbortError(Exception):
    """The drive does not know the command, or not with these registers."""


def _identify(s: IDEState, lba48: int) -> None:
    if s.bs is None or s.is_cdrom:
        if s.is_cdrom:
            ide_set_signature(s)
        raise _AbortError
    ide_identify(s)
    s.status = _READY
    ide_transfer_start(s, 0, 512, ide_transfer_stop)
    ide_set_irq(s.channel)


def _packet_identify(s: IDEState, lba48: int) -> None:
    if not s.is_cdrom:
        raise _AbortError
    ide_atapi_identify(s)
    s.status = _READY
    ide_transfer_start(s, 0, 512, ide_transfer_stop)
    ide_set_irq(s.channel)


def _well(s: IDEState, lba48: int) -> None:
    s.status = _READY
    ide_set_irq(s.channel)


def _recalibrate(s: IDEState, lba48: int) -> None:
    s.error = 0
    _well(s, lba48)


def _set_multiple(s: IDEState, lba48: int) -> None:
    count = s.nsector & 0xFF
    if count and (count > ide.MAX_MULT_SECTORS or s.nsector & (s.nsector - 1)):
        raise _AbortError
    s.mult_sectors = count
    _well(s, lba48)


def _verify(s: IDEState, lba48: int) -> None:
    ide_cmd_lba48_transform(s, lba48)
    _well(s, lba48)


def _read(s: IDEState, lba48: int, multiple: int = 1) -> None:
    if s.bs is None or not multiple:
        raise _AbortError
    ide_cmd_lba48_transform(s, lba48)
    s.req_nb_sectors = multiple
    ide_sector_read(s)


def _read_multiple(s: IDEState, lba48: int) -> None:
    _read(s, lba48, s.mult_sectors)


def _write(s: IDEState, lba48: int, multiple: int = 1) -> None:
    if s.bs is None or not multiple:
        raise _AbortError
    ide_cmd_lba48_transform(s, lba48)
    s.error = 0
    s.status = _READY
    s.req_nb_sectors = multiple
    ide_transfer_start(s, 0, 512 * min(s.nsector, multiple), ide_sector_write)
    s.media_changed = 1


def _write_multiple(s: IDEState, lba48: int) -> None:
    _write(s, lba48, s.mult_sectors)


def _read_dma(s: IDEState, lba48: int) -> None:
    if s.bs is None:
        raise _AbortError
    ide_cmd_lba48_transform(s, lba48)
    ide_sector_read_dma(s)


def _write_dma(s: IDEState, lba48: int) -> None:
    if s.bs is None:
        raise _AbortError
    ide_cmd_lba48_transform(s, lba48)
    ide_sector_write_dma(s)
    s.media_changed = 1


def _native_max(s: IDEState, lba48: int) -> None:
    ide_cmd_lba48_transform(s, lba48)
    ide_set_sector(s, max(s.nb_sectors - 1, 0))
    _well(s, lba48)


def _power_mode(s: IDEState, lba48: int) -> None:
    s.nsector = 0xFF
    _well(s, lba48)


_PLAIN_FEATURES = {0xCC, 0x66, 0x02, 0x82, 0xAA, 0x55, 0x05, 0x85, 0x69, 0x67, 0x96, 0x9A, 0x42, 0xC2}


def _set_features(s: IDEState, lba48: int) -> None:
    if s.bs is None:
        raise _AbortError
    if s.feature == 0x03:
        words = {62: 0x07, 63: 0x07, 88: 0x3F}
        mode = s.nsector >> 3
        if mode not in (0, 1, 2, 4, 8):
            raise _AbortError
        if mode > 1:
            words[{2: 62, 4: 63, 8: 88}[mode]] |= 1 << (s.nsector & 7) + 8
        for word, value in words.items():
            put_le16(s.identify_data, word, value)
    elif s.feature not in _PLAIN_FEATURES:
        raise _AbortError
    _well(s, lba48)


def _flush(s: IDEState, lba48: int) -> None:
    if s.bs is not None:
        bdrv_aio_flush(s.bs, ide_flush_cb, s)
    else:
        ide_flush_cb(s, 0)


def _idle(s: IDEState, lba48: int) -> None:
    s.status = ide.READY_STAT
    ide_set_irq(s.channel)


def _seek(s: IDEState, lba48: int) -> None:
    if s.is_cdrom:
        raise _AbortError
    _well(s, lba48)


def _diagnose(s: IDEState, lba48: int) -> None:
    ide_set_signature(s)
    s.status = 0 if s.is_cdrom else _READY
    s.error = 0x01
    ide_set_irq(s.channel)


def _device_reset(s: IDEState, lba48: int) -> None:
    if not s.is_cdrom:
        raise _AbortError
    ide_set_signature(s)
    s.status = 0
    s.error = 0x01


def _packet(s: IDEState, lba48: int) -> None:
    if not s.is_cdrom or s.feature & 0x02:
        raise _AbortError
    s.status = _READY
    s.atapi_dma = s.feature & 1
    s.nsector = 1
    ide_transfer_start(s, 0, ide.ATAPI_PACKET_SIZE, ide_atapi_cmd)


def _smart(s: IDEState, lba48: int) -> None:
    if s.is_cdrom or (s.hcyl, s.lcyl) != (0xC2, 0x4F):
        raise _AbortError
    if s.feature not in (0xD8, 0xD9, 0xDA) or not (s.smart_enabled or s.feature == 0xD8):
        raise _AbortError
    if s.feature != 0xDA:
        s.smart_enabled = int(s.feature == 0xD8)
    _well(s, lba48)


WIN_DEVICE_RESET = 0x08
_COMMANDS: dict[int, tuple[Callable[[IDEState, int], None], int]] = {
    WIN_DEVICE_RESET: (_device_reset, 0),
    0x10: (_recalibrate, 0),
    **dict.fromkeys((0x20, 0x21), (_read, 0)),
    0x24: (_read, 1),
    0x25: (_read_dma, 1),
    0x27: (_native_max, 1),
    0x29: (_read_multiple, 1),
    **dict.fromkeys((0x30, 0x31, 0x38, 0x3C), (_write, 0)),
    0x34: (_write, 1),
    0x35: (_write_dma, 1),
    0x39: (_write_multiple, 1),
    **dict.fromkeys((0x40, 0x41), (_verify, 0)),
    0x42: (_verify, 1),
    0x70: (_seek, 0),
    0x90: (_diagnose, 0),
    0x91: (_recalibrate, 0),
    **dict.fromkeys((0x94, 0x95, 0x96, 0x97, 0x99, 0xE0, 0xE1, 0xE2, 0xE3, 0xE6), (_idle, 0)),
    **dict.fromkeys((0x98, 0xE5), (_power_mode, 0)),
    0xA0: (_packet, 0),
    0xA1: (_packet_identify, 0),
    0xB0: (_smart, 0),
    0xC4: (_read_multiple, 0),
    **dict.fromkeys((0xC5, 0xCD), (_write_multiple, 0)),
    0xC6: (_set_multiple, 0),
    **dict.fromkeys((0xC8, 0xC9), (_read_dma, 0)),
    **dict.fromkeys((0xCA, 0xCB), (_write_dma, 0)),
    **dict.fromkeys((0xE7, 0xEA), (_flush, 0)),
    0xEC: (_identify, 0),
    0xEF: (_set_features, 0),
    0xF8: (_native_max, 0),
}
"""ATA-6 command numbers, and whether the command counts sectors in 48 bits."""


def _command(bus: IDEBus, val: int) -> None:
    s = idebus_active_if(bus)
    if s is not bus.ifs[0] and s.bs is None:
        return
    if s.status & _BUSY and val != WIN_DEVICE_RESET:
        return
    command, lba48 = _COMMANDS.get(val, (None, 0))
    try:
        if command is None:
            raise _AbortError
        command(s, lba48)
    except _AbortError:
        ide_abort_command(s)
        ide_set_irq(s.channel)


_REGISTERS = {1: "feature", 2: "nsector", 3: "sector", 4: "lcyl", 5: "hcyl"}


@traced_io
def ide_ioport_write(opaque: IDEBus, addr: int, val: int) -> None:
    """Write a register of both drives, or give the chosen one a command."""
    bus = opaque
    addr &= 7
    if addr != 7 and idebus_active_if(bus).status & _BUSY:
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
        _command(bus, val)


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
    s = idebus_active_if(bus)
    if not s.status & ide.DRQ_STAT:
        return
    s.io_buffer[s.data_ptr : s.data_ptr + size] = val.to_bytes(size, "little")
    s.data_ptr += size
    if s.data_ptr >= s.data_end and s.end_transfer_func is not None:
        s.end_transfer_func(s)


def _data_read(bus: IDEBus, size: int) -> int:
    s = idebus_active_if(bus)
    if not s.status & ide.DRQ_STAT:
        return 0
    ret = int.from_bytes(s.io_buffer[s.data_ptr : s.data_ptr + size], "little")
    s.data_ptr += size
    if s.data_ptr >= s.data_end and s.end_transfer_func is not None:
        s.end_transfer_func(s)
    return ret


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
