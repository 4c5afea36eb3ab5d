"""The screen: hw/vga.c, as far as text mode needs; IBM VGA, ports 3b4h to 3dah.

Registers hold what the guest writes. The screen's memory at a0000h to bffffh is plain memory of the machine,
which in text mode is what the guest sees of a real one: characters and colours, two bytes a cell, at b8000h.
Planes, graphics and fonts are not modelled: what a guest draws in them does not show.

- `screen_text(s)`, `text_cells(s)`: the text screen, as lines and as cells.
"""

from __future__ import annotations

from dataclasses import field
from mmap import mmap
from typing import Final

from hypervisor.exec import ram
from hypervisor.ioport import register_ioport_read, register_ioport_write
from hypervisor.program import on_reset
from hypervisor.trace_io import traced_io
from hypervisor.vl_loop import qemu_register_reset
from tracer import Struct, traced

C_FILE = "hw/vga.c"

ST01_V_RETRACE, ST01_DISP_ENABLE = 0x08, 0x01
MSR_COLOR_EMULATION = 0x01
VGA_RAM_SIZE = 8192 * 1024
sr_mask = bytes((0x03, 0x3D, 0x0F, 0x3F, 0x0E, 0x00, 0x00, 0xFF))
gr_mask = bytes((0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF)).ljust(16, b"\0")
_AR_MASKS = {0x10: 0xEF, 0x11: 0xFF, 0x12: 0x3F, 0x13: 0x0F, 0x14: 0x0F}
_COLOUR, _MONO = frozenset(range(0x3D0, 0x3E0)), frozenset(range(0x3B0, 0x3C0))
_TEXT, _TEXT_SIZE = 0xB8000, 0x8000
COLUMNS: Final = 80
ROWS: Final = 25


class VGACommonState(Struct):
    """`VGACommonState`: the registers of sequencer, graphics, attribute, CRT and colour controllers."""

    vram_ptr: mmap | None = None
    sr_index: int = 0
    sr: bytearray = field(default_factory=lambda: bytearray(256))
    gr_index: int = 0
    gr: bytearray = field(default_factory=lambda: bytearray(256))
    ar_index: int = 0
    ar: bytearray = field(default_factory=lambda: bytearray(21))
    ar_flip_flop: int = 0
    cr_index: int = 0
    cr: bytearray = field(default_factory=lambda: bytearray(256))
    msr: int = 0
    fcr: int = 0
    st00: int = 0
    st01: int = 0
    dac_state: int = 0
    dac_sub_index: int = 0
    dac_read_index: int = 0
    dac_write_index: int = 0
    dac_cache: bytearray = field(default_factory=lambda: bytearray(3))
    palette: bytearray = field(default_factory=lambda: bytearray(768))


the_vga: VGACommonState | None = None


@on_reset
def _reset() -> None:
    global the_vga
    the_vga = None


@traced_io
def vga_dumb_retrace(s: VGACommonState) -> int:
    """Have the beam seem to move between any two looks at it."""
    return s.st01 ^ (ST01_V_RETRACE | ST01_DISP_ENABLE)


@traced_io
def vga_ioport_invalid(s: VGACommonState, addr: int) -> int:
    """Whether a port belongs to the other of colour and monochrome."""
    return int(addr in (_MONO if s.msr & MSR_COLOR_EMULATION else _COLOUR))


def _read_colour(s: VGACommonState) -> int:
    val = s.palette[s.dac_read_index * 3 + s.dac_sub_index]
    s.dac_sub_index += 1
    if s.dac_sub_index == 3:
        s.dac_sub_index = 0
        s.dac_read_index = s.dac_read_index + 1 & 0xFF
    return val


@traced_io
def vga_ioport_read(opaque: VGACommonState, addr: int) -> int:
    """Read a register."""
    s = opaque
    if vga_ioport_invalid(s, addr):
        return 0xFF
    match addr:
        case 0x3C0:
            return 0 if s.ar_flip_flop else s.ar_index
        case 0x3C1:
            index = s.ar_index & 0x1F
            return s.ar[index] if index < len(s.ar) else 0
        case 0x3C2:
            return s.st00
        case 0x3C4:
            return s.sr_index
        case 0x3C5:
            return s.sr[s.sr_index]
        case 0x3C7:
            return s.dac_state
        case 0x3C8:
            return s.dac_write_index
        case 0x3C9:
            return _read_colour(s)
        case 0x3CA:
            return s.fcr
        case 0x3CC:
            return s.msr
        case 0x3CE:
            return s.gr_index
        case 0x3CF:
            return s.gr[s.gr_index]
        case 0x3B4 | 0x3D4:
            return s.cr_index
        case 0x3B5 | 0x3D5:
            return s.cr[s.cr_index]
        case 0x3BA | 0x3DA:
            s.st01 = vga_dumb_retrace(s)
            s.ar_flip_flop = 0
            return s.st01
    return 0


def _write_attribute(s: VGACommonState, val: int) -> None:
    index = s.ar_index & 0x1F
    if s.ar_flip_flop == 0:
        s.ar_index = val & 0x3F
    elif index < len(s.ar):
        s.ar[index] = val & _AR_MASKS.get(index, 0x3F)
    s.ar_flip_flop ^= 1


def _write_colour(s: VGACommonState, val: int) -> None:
    s.dac_cache[s.dac_sub_index] = val
    s.dac_sub_index += 1
    if s.dac_sub_index == 3:
        s.palette[s.dac_write_index * 3 : s.dac_write_index * 3 + 3] = s.dac_cache
        s.dac_sub_index = 0
        s.dac_write_index = s.dac_write_index + 1 & 0xFF


def _write_crt(s: VGACommonState, val: int) -> None:
    """Registers 0 to 7 can be protected, but for one bit."""
    if not s.cr[0x11] & 0x80 or s.cr_index > 7:
        s.cr[s.cr_index] = val
    elif s.cr_index == 7:
        s.cr[7] = s.cr[7] & ~0x10 | val & 0x10


@traced_io
def vga_ioport_write(opaque: VGACommonState, addr: int, val: int) -> None:
    """Write a register."""
    s = opaque
    if vga_ioport_invalid(s, addr):
        return
    match addr:
        case 0x3C0:
            _write_attribute(s, val)
        case 0x3C2:
            s.msr = val & ~0x10
        case 0x3C4:
            s.sr_index = val & 7
        case 0x3C5:
            s.sr[s.sr_index] = val & sr_mask[s.sr_index]
        case 0x3C7:
            s.dac_read_index, s.dac_sub_index, s.dac_state = val, 0, 3
        case 0x3C8:
            s.dac_write_index, s.dac_sub_index, s.dac_state = val, 0, 0
        case 0x3C9:
            _write_colour(s, val)
        case 0x3CE:
            s.gr_index = val & 0x0F
        case 0x3CF:
            s.gr[s.gr_index] = val & gr_mask[s.gr_index]
        case 0x3B4 | 0x3D4:
            s.cr_index = val
        case 0x3B5 | 0x3D5:
            _write_crt(s, val)
        case 0x3BA | 0x3DA:
            s.fcr = val & 0x10


@traced
def vga_common_reset(s: VGACommonState) -> None:
    """Put all registers back."""
    for name in ("sr", "gr", "ar", "cr", "dac_cache", "palette"):
        getattr(s, name)[:] = bytes(len(getattr(s, name)))
    s.sr_index = s.gr_index = s.ar_index = s.ar_flip_flop = s.cr_index = s.msr = s.fcr = s.st00 = s.st01 = 0
    s.dac_state = s.dac_sub_index = s.dac_read_index = s.dac_write_index = 0


@traced
def vga_reset(opaque: VGACommonState) -> None:
    """Reset the screen with the machine."""
    vga_common_reset(opaque)


@traced
def vga_common_init(s: VGACommonState, vga_ram_size: int) -> None:
    """Set the registers up; the memory is the machine's."""
    s.vram_ptr = ram()


@traced
def vga_init(s: VGACommonState) -> None:
    """Take the ports."""
    global the_vga
    the_vga = s
    qemu_register_reset(vga_reset, s)
    for start, length in ((0x3C0, 16), (0x3B4, 2), (0x3D4, 2), (0x3BA, 1), (0x3DA, 1)):
        register_ioport_write(start, length, 1, vga_ioport_write, s)
        register_ioport_read(start, length, 1, vga_ioport_read, s)


def text_cells(s: VGACommonState | None) -> tuple[bytes, int]:
    """What the text screen shows: two bytes a cell, character and attribute; and in how many columns."""
    columns, start = COLUMNS, 0
    if s is not None:
        columns = s.cr[1] + 1 if 40 <= s.cr[1] + 1 <= 132 else COLUMNS
        start = 2 * (s.cr[0x0C] << 8 | s.cr[0x0D]) % _TEXT_SIZE
    memory = ram()[_TEXT : _TEXT + _TEXT_SIZE]
    return (memory[start:] + memory[:start])[: 2 * columns * ROWS], columns


def screen_text(s: VGACommonState) -> str:
    """The text screen, without the blanks at its lines' ends."""
    cells, columns = text_cells(s)
    letters = "".join(c if c.isprintable() else " " for c in cells[::2].decode("cp437"))
    rows = (letters[at : at + columns].rstrip() for at in range(0, len(letters), columns))
    return "\n".join(rows).rstrip("\n")
