"""The screen on the ISA bus: hw/vga-isa.c; it stands for the Cirrus card of the real machine."""

from __future__ import annotations

from hypervisor.hw.loader import rom_add_vga
from hypervisor.hw.vga import VGA_RAM_SIZE, VGACommonState, vga_common_init, vga_init
from hypervisor.vl_state import DT_NOGRAPHIC, state
from tracer import traced

C_FILE = "hw/vga-isa.c"

VGABIOS_FILENAME = "vgabios-isavga.bin"


@traced
def isa_vga_init() -> int:
    """Make the screen; without -nographic the firmware is given its BIOS."""
    s = VGACommonState()
    vga_common_init(s, VGA_RAM_SIZE)
    vga_init(s)
    if state.display_type != DT_NOGRAPHIC:
        rom_add_vga(VGABIOS_FILENAME)
    return 0
