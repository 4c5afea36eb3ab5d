"""CD-ROM drives: the packet commands of hw/ide/core.c.

The guest sends WIN_PACKETCMD, writes a packet of 12 bytes to the data port, and gets the answer by the data
port, a sector an interrupt, or by DMA:

    ide_atapi_cmd -> ide_atapi_cmd_read -> ide_atapi_cmd_read_dma_cb -> bdrv_aio_readv
                  -> ide_atapi_cmd_reply -> ide_atapi_cmd_reply_end

Formats: MMC-2 and SFF-8090. Commands about DVD structures and tables of contents of sessions answer as an
unknown command does.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from hypervisor.block import (
    bdrv_aio_readv,
    bdrv_eject,
    bdrv_get_geometry,
    bdrv_is_inserted,
    bdrv_is_locked,
    bdrv_read,
    bdrv_set_locked,
)
from hypervisor.block_int import BlockDriverState
from hypervisor.cutils import iovec, qemu_iovec_init_external
from hypervisor.disk_errors import disk_failed
from hypervisor.hw.ide import internal as ide
from hypervisor.hw.ide.internal import BMDMAState, IDEState, bmdma_active_if, ide_set_irq
from hypervisor.hw.ide.transfer import (
    _end_of_dma,
    dma_buf_rw,
    ide_dma_start,
    ide_transfer_start,
    ide_transfer_stop,
)
from tracer import traced

C_FILE = "hw/ide/core.c"

_DONE = ide.READY_STAT | ide.SEEK_STAT
_REASON_DONE = ide.ATAPI_INT_REASON_IO | ide.ATAPI_INT_REASON_CD


def _be(data: memoryview | bytes) -> int:
    return int.from_bytes(data, "big")


@traced
def padstr8(buf: memoryview, buf_size: int, src: str) -> None:
    """Store a text padded with blanks."""
    buf[:buf_size] = src.encode("ascii", "replace")[:buf_size].ljust(buf_size)


@traced
def ide_atapi_cmd_ok(s: IDEState) -> None:
    """End a command well."""
    s.error = 0
    _done(s)


def _done(s: IDEState) -> None:
    s.status = _DONE
    s.nsector = s.nsector & ~7 | _REASON_DONE
    ide_set_irq(s.channel)


@traced
def ide_atapi_cmd_error(s: IDEState, sense_key: int, asc: int) -> None:
    """End a command badly; REQUEST SENSE will tell why."""
    s.error = sense_key << 4
    s.status = ide.READY_STAT | ide.ERR_STAT
    s.nsector = s.nsector & ~7 | _REASON_DONE
    s.sense_key = sense_key
    s.asc = asc
    ide_set_irq(s.channel)


@traced
def ide_atapi_cmd_check_status(s: IDEState) -> None:
    """End a command because the medium has changed."""
    s.error = ide.MC_ERR | ide.SENSE_UNIT_ATTENTION << 4
    s.status = ide.ERR_STAT
    s.nsector = 0
    ide_set_irq(s.channel)


@traced
def ide_atapi_io_error(s: IDEState, ret: int) -> None:
    """Tell the guest of a read that failed."""
    if ret == -errno.ENOMEDIUM:
        ide_atapi_cmd_error(s, ide.SENSE_NOT_READY, ide.ASC_MEDIUM_NOT_PRESENT)
    else:
        ide_atapi_cmd_error(s, ide.SENSE_ILLEGAL_REQUEST, ide.ASC_LOGICAL_BLOCK_OOR)


@traced
def cd_data_to_raw(buf: memoryview, lba: int) -> None:
    """Put sync bytes, address and an empty error correction around 2048 bytes at offset 16."""
    minute, rest = divmod(lba + 150, 75 * 60)
    buf[:16] = b"\0" + b"\xff" * 10 + b"\0" + bytes((minute & 0xFF, *divmod(rest, 75), 1))
    buf[16 + 2048 : 2352] = bytes(288)


@traced
def cd_read_sector(bs: BlockDriverState, lba: int, buf: memoryview, sector_size: int) -> int:
    """Read a block of the medium, as 2048 bytes or raw; 0 or a negative errno."""
    if sector_size == 2048:
        return bdrv_read(bs, lba << 2, buf, 4)
    ret = bdrv_read(bs, lba << 2, buf[16:], 4)
    if ret >= 0:
        cd_data_to_raw(buf, lba)
    return ret


@traced
def ide_atapi_cmd_reply_end(s: IDEState) -> None:
    """Offer the next part of an answer at the data port, or end the command."""
    if s.packet_transfer_size <= 0:
        ide_transfer_stop(s)
        _done(s)
    elif _has_block(s):
        begins = s.elementary_transfer_size <= 0
        if begins:
            _agree_on_size(s)
        _offer(s)
        if begins:
            ide_set_irq(s.channel)


def _has_block(s: IDEState) -> bool:
    """Read the next block when the last one is used up; False when the command has failed."""
    if s.lba == -1 or s.io_buffer_index < s.cd_sector_size:
        return True
    ret = cd_read_sector(s.drive, s.lba, s.io_buffer, s.cd_sector_size)
    if ret < 0:
        disk_failed(s.drive, s.lba << 2, 4, -ret, False)
        ide_transfer_stop(s)
        ide_atapi_io_error(s, ret)
        return False
    s.lba += 1
    s.io_buffer_index = 0
    return True


def _agree_on_size(s: IDEState) -> None:
    """Tell the guest how many bytes go with one interrupt: all, or an even number within its limit."""
    s.nsector = s.nsector & ~7 | ide.ATAPI_INT_REASON_IO
    size, limit = s.packet_transfer_size, min(s.lcyl | s.hcyl << 8, 0xFFFE)
    if size > limit:
        # A guest that asks for nothing would be asked forever.
        size = max(limit & ~1, 2)
    s.lcyl, s.hcyl = size & 0xFF, size >> 8 & 0xFF
    s.elementary_transfer_size = size


def _offer(s: IDEState) -> None:
    """Offer what is left for this interrupt, as far as it is in the buffer."""
    size = s.elementary_transfer_size
    if s.lba != -1:
        size = min(size, s.cd_sector_size - s.io_buffer_index)
    ide_transfer_start(s, s.io_buffer_index, size, ide_atapi_cmd_reply_end)
    s.packet_transfer_size -= size
    s.elementary_transfer_size -= size
    s.io_buffer_index += size


@traced
def ide_atapi_cmd_reply(s: IDEState, size: int, max_size: int) -> None:
    """Send `size` bytes of the buffer, no more than the guest asked for."""
    size = min(size, max_size)
    s.lba = -1
    s.packet_transfer_size = s.io_buffer_size = size
    s.elementary_transfer_size = s.io_buffer_index = 0
    if s.atapi_dma:
        s.status = _DONE | ide.DRQ_STAT
        ide_dma_start(s, ide_atapi_cmd_read_dma_cb)
    else:
        s.status = _DONE
        ide_atapi_cmd_reply_end(s)


@traced
def ide_atapi_cmd_read_pio(s: IDEState, lba: int, nb_sectors: int, sector_size: int) -> None:
    """Read blocks by the data port."""
    s.lba = lba
    s.packet_transfer_size = nb_sectors * sector_size
    s.elementary_transfer_size = 0
    s.io_buffer_index = sector_size
    s.cd_sector_size = sector_size
    s.status = _DONE
    ide_atapi_cmd_reply_end(s)


@traced
def ide_atapi_cmd_read_dma_cb(opaque: BMDMAState, ret: int) -> None:
    """Start or go on with an answer by DMA, 64 blocks at most in one request."""
    if not _dma_goes_on(opaque, bmdma_active_if(opaque), ret):
        _end_of_dma(opaque)


def _dma_goes_on(bm: BMDMAState, s: IDEState, ret: int) -> bool:
    """Hand over what was read and ask for more; False when the command has ended."""
    if ret < 0:
        disk_failed(s.drive, s.lba << 2, 4, -ret, False)
        ide_atapi_io_error(s, ret)
        return False
    if s.io_buffer_size > 0 and not _hand_over(bm, s):
        return False
    if s.packet_transfer_size <= 0:
        _done(s)
        return False
    return _ask_for_blocks(bm, s)


def _hand_over(bm: BMDMAState, s: IDEState) -> bool:
    """Copy the buffer into the guest's memory; False when the guest has no more room for it."""
    if s.lba != -1 and s.cd_sector_size == 2352:
        cd_data_to_raw(s.io_buffer, s.lba)
        s.lba += 1
    elif s.lba != -1:
        s.lba += s.io_buffer_size >> 11
    s.packet_transfer_size -= s.io_buffer_size
    return dma_buf_rw(bm, 1) != 0


def _ask_for_blocks(bm: BMDMAState, s: IDEState) -> bool:
    """Begin to read: one raw block or as many plain ones as fit; False without a medium."""
    s.io_buffer_index = 0
    raw = s.cd_sector_size == 2352
    n = 1 if raw else min(s.packet_transfer_size >> 11, ide.IDE_DMA_BUF_SECTORS // 4)
    s.io_buffer_size = s.cd_sector_size if raw else n * 2048
    data = s.io_buffer[16 if raw else 0 :][: n * 2048]
    qemu_iovec_init_external(bm.qiov, [iovec(data, n * 2048)], 1)
    bm.aiocb = bdrv_aio_readv(s.drive, s.lba << 2, bm.qiov, n * 4, ide_atapi_cmd_read_dma_cb, bm)
    if bm.aiocb is None:
        ide_atapi_cmd_error(s, ide.SENSE_NOT_READY, ide.ASC_MEDIUM_NOT_PRESENT)
    return bm.aiocb is not None


@traced
def ide_atapi_cmd_read_dma(s: IDEState, lba: int, nb_sectors: int, sector_size: int) -> None:
    """Read blocks by DMA."""
    s.lba = lba
    s.packet_transfer_size = nb_sectors * sector_size
    s.io_buffer_index = s.io_buffer_size = 0
    s.cd_sector_size = sector_size
    s.status = _DONE | ide.DRQ_STAT | ide.BUSY_STAT
    ide_dma_start(s, ide_atapi_cmd_read_dma_cb)


@traced
def ide_atapi_cmd_read(s: IDEState, lba: int, nb_sectors: int, sector_size: int) -> None:
    """Read blocks the way the guest asked for."""
    (ide_atapi_cmd_read_dma if s.atapi_dma else ide_atapi_cmd_read_pio)(s, lba, nb_sectors, sector_size)


def _blocks(s: IDEState) -> int:
    """Blocks of 2048 bytes on the medium; without one, the command ends here with 0."""
    total = bdrv_get_geometry(s.drive) >> 2
    if total == 0:
        ide_atapi_cmd_error(s, ide.SENSE_NOT_READY, ide.ASC_MEDIUM_NOT_PRESENT)
    return total


def _test_unit_ready(s: IDEState, packet: bytes) -> None:
    if bdrv_is_inserted(s.drive) and not s.cdrom_changed:
        ide_atapi_cmd_ok(s)
        return
    s.cdrom_changed = 0
    ide_atapi_cmd_error(s, ide.SENSE_NOT_READY, ide.ASC_MEDIUM_NOT_PRESENT)


def _mode_sense(s: IDEState, packet: bytes) -> None:
    max_len = _be(packet[7:9]) if packet[0] == 0x5A else packet[4]
    action, code = packet[2] >> 6, packet[2] & 0x3F
    if action == 3:
        ide_atapi_cmd_error(s, ide.SENSE_ILLEGAL_REQUEST, ide.ASC_SAVING_PARAMETERS_NOT_SUPPORTED)
        return
    if action != 0 or code not in (0x01, 0x0E, 0x2A):
        _invalid_field(s)
        return
    page = {
        0x01: bytes((0x01, 0x06, 0, 0x05, 0, 0, 0, 0)),
        0x0E: bytes(16),
        0x2A: bytes((0x2A, 0x12, 0, 0, 0x71, 3 << 5, 0x29, 0, 706 >> 8, 706 & 0xFF, 0, 2, 2, 0))
        + bytes((706 >> 8, 706 & 0xFF, 0, 0, 0, 0)),
    }[code]
    size = 8 + len(page)
    answer = bytearray((size + 6).to_bytes(2, "big") + b"\x70" + bytes(5) + page)
    if code == 0x2A and bdrv_is_locked(s.drive):
        answer[6] |= 1 << 1
    s.io_buffer[:size] = answer
    ide_atapi_cmd_reply(s, size, max_len)


def _invalid_field(s: IDEState) -> None:
    ide_atapi_cmd_error(s, ide.SENSE_ILLEGAL_REQUEST, ide.ASC_INV_FIELD_IN_CMD_PACKET)


def _request_sense(s: IDEState, packet: bytes) -> None:
    s.io_buffer[:18] = bytes((0xF0, 0, s.sense_key, 0, 0, 0, 0, 10, 0, 0, 0, 0, s.asc, 0, 0, 0, 0, 0))
    if s.sense_key == ide.SENSE_UNIT_ATTENTION:
        s.sense_key = ide.SENSE_NONE
    ide_atapi_cmd_reply(s, 18, packet[4])


def _prevent_removal(s: IDEState, packet: bytes) -> None:
    if bdrv_is_inserted(s.drive):
        bdrv_set_locked(s.drive, packet[4] & 1)
        ide_atapi_cmd_ok(s)
    else:
        ide_atapi_cmd_error(s, ide.SENSE_NOT_READY, ide.ASC_MEDIUM_NOT_PRESENT)


def _read(s: IDEState, packet: bytes) -> None:
    nb_sectors = _be(packet[7:9]) if packet[0] == 0x28 else _be(packet[6:10])
    if nb_sectors == 0:
        ide_atapi_cmd_ok(s)
    else:
        ide_atapi_cmd_read(s, _be(packet[2:6]), nb_sectors, 2048)


def _read_cd(s: IDEState, packet: bytes) -> None:
    nb_sectors, what = _be(packet[6:9]), packet[9] & 0xF8
    if nb_sectors == 0 or what == 0:
        ide_atapi_cmd_ok(s)
    elif what in (0x10, 0xF8):
        ide_atapi_cmd_read(s, _be(packet[2:6]), nb_sectors, 2048 if what == 0x10 else 2352)
    else:
        _invalid_field(s)


def _seek(s: IDEState, packet: bytes) -> None:
    total = _blocks(s)
    if total and _be(packet[2:6]) >= total:
        ide_atapi_cmd_error(s, ide.SENSE_ILLEGAL_REQUEST, ide.ASC_LOGICAL_BLOCK_OOR)
    elif total:
        ide_atapi_cmd_ok(s)


def _start_stop(s: IDEState, packet: bytes) -> None:
    start, eject = packet[4] & 1, packet[4] >> 1 & 1
    err = bdrv_eject(s.drive, int(not start)) if eject else 0
    if err == 0:
        ide_atapi_cmd_ok(s)
    elif err == -errno.EBUSY:
        ide_atapi_cmd_error(s, ide.SENSE_NOT_READY, ide.ASC_MEDIA_REMOVAL_PREVENTED)
    else:
        ide_atapi_cmd_error(s, ide.SENSE_NOT_READY, ide.ASC_MEDIUM_NOT_PRESENT)


def _mechanism_status(s: IDEState, packet: bytes) -> None:
    s.io_buffer[:8] = bytes((0, 0, 0, 0, 0, 1, 0, 0))
    ide_atapi_cmd_reply(s, 8, _be(packet[8:10]))


def _read_toc(s: IDEState, packet: bytes) -> None:
    total = _blocks(s)
    if not total:
        return
    if packet[9] >> 6 == 1:
        answer = bytes((0, 0x0A, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0))
    elif packet[9] >> 6 == 0:
        answer = _toc(total, packet[1] >> 1 & 1, packet[6])
    else:
        answer = b""
    if not answer:
        _invalid_field(s)
        return
    s.io_buffer[: len(answer)] = answer
    ide_atapi_cmd_reply(s, len(answer), _be(packet[7:9]))


def _toc(total: int, msf: int, start_track: int) -> bytes:
    """Return the table of contents of a disc with one data track; empty for a track it has not."""
    if start_track > 1 and start_track != 0xAA:
        return b""

    def address(lba: int) -> bytes:
        if not msf:
            return lba.to_bytes(4, "big")
        minute, rest = divmod(lba + 150, 75 * 60)
        return bytes((0, minute & 0xFF, *divmod(rest, 75)))

    first = bytes((0, 0x14, 1, 0)) + address(0) if start_track <= 1 else b""
    tracks = b"\x01\x01" + first + bytes((0, 0x16, 0xAA, 0)) + address(total)
    return len(tracks).to_bytes(2, "big") + tracks


def _capacity(s: IDEState, packet: bytes) -> None:
    total = _blocks(s)
    if total:
        s.io_buffer[:8] = (total - 1).to_bytes(4, "big") + (2048).to_bytes(4, "big")
        ide_atapi_cmd_reply(s, 8, 8)


def _set_speed(s: IDEState, packet: bytes) -> None:
    ide_atapi_cmd_ok(s)


def _inquiry(s: IDEState, packet: bytes) -> None:
    s.io_buffer[:8] = bytes((0x05, 0x80, 0, 0x21, 31, 0, 0, 0))
    padstr8(s.io_buffer[8:], 8, "QEMU")
    padstr8(s.io_buffer[16:], 16, "QEMU DVD-ROM")
    padstr8(s.io_buffer[32:], 4, s.version)
    ide_atapi_cmd_reply(s, 36, packet[4])


def _configuration(s: IDEState, packet: bytes) -> None:
    if packet[2] or packet[3]:
        _invalid_field(s)
        return
    dvd, cd = 0x0010, 0x0008
    current = 0 if s.nb_sectors <= 0 else dvd if s.nb_sectors > ide.CD_MAX_SECTORS else cd
    profiles = b"".join(p.to_bytes(2, "big") + bytes((p == current, 0)) for p in (dvd, cd))
    answer = (8 + 4 + len(profiles) - 4).to_bytes(4, "big") + current.to_bytes(4, "big")
    answer += bytes((0, 0, 3, len(profiles))) + profiles
    s.io_buffer[: len(answer)] = answer
    ide_atapi_cmd_reply(s, len(answer), min(_be(packet[7:9]), 512))


_COMMANDS: dict[int, Callable[[IDEState, bytes], None]] = {
    0x00: _test_unit_ready,
    0x03: _request_sense,
    0x12: _inquiry,
    0x1A: _mode_sense,
    0x1B: _start_stop,
    0x1E: _prevent_removal,
    0x25: _capacity,
    0x28: _read,
    0x2B: _seek,
    0x43: _read_toc,
    0x46: _configuration,
    0x5A: _mode_sense,
    0xA8: _read,
    0xBB: _set_speed,
    0xBD: _mechanism_status,
    0xBE: _read_cd,
}


@traced
def ide_atapi_cmd(s: IDEState) -> None:
    """Execute the packet in the buffer."""
    packet = bytes(s.io_buffer[: ide.ATAPI_PACKET_SIZE])
    if s.sense_key == ide.SENSE_UNIT_ATTENTION and packet[0] not in (0x03, 0x12):
        ide_atapi_cmd_check_status(s)
        return
    command = _COMMANDS.get(packet[0])
    if command is None:
        ide_atapi_cmd_error(s, ide.SENSE_ILLEGAL_REQUEST, ide.ASC_ILLEGAL_OPCODE)
    else:
        command(s, packet)
