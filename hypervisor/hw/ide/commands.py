"""What a drive does when it is given a command: a part of hw/ide/core.c, there the arms of one switch.

ATA-6 command numbers. Commands of CompactFlash cards, and SMART beyond switching it on and off, are refused
as an unknown command is.

- `ide_exec_cmd(bus, val)`: ours by name; the real one is inside ide_ioport_write.
"""

from __future__ import annotations

from collections.abc import Callable

from hypervisor.block import bdrv_aio_flush
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
    ide_set_sector,
    ide_transfer_start,
    ide_transfer_stop,
)
from tracer import traced

C_FILE = "hw/ide/core.c"

_READY = ide.READY_STAT | ide.SEEK_STAT
BUSY = ide.BUSY_STAT | ide.DRQ_STAT


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
def ide_cmd_lba48_transform(s: IDEState, lba48: int) -> None:
    """Read the sector count of a 28-bit or 48-bit command, where 0 stands for the most."""
    s.lba48 = lba48
    if not lba48:
        s.nsector = s.nsector or 256
    else:
        s.nsector = s.hob_nsector << 8 | s.nsector & 0xFF or 65536


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


def ide_exec_cmd(bus: IDEBus, val: int) -> None:
    """Give the chosen drive a command, unless it is busy or missing."""
    s = idebus_active_if(bus)
    if s is not bus.ifs[0] and s.bs is None:
        return
    if s.status & BUSY and val != WIN_DEVICE_RESET:
        return
    command, lba48 = _COMMANDS.get(val, (None, 0))
    try:
        if command is None:
            raise _AbortError
        command(s, lba48)
    except _AbortError:
        ide_abort_command(s)
        ide_set_irq(s.channel)
