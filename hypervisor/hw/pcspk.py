"""Port 61h, the speaker's: hw/pcspk.c. No sound is made; guests time themselves by its bits 4 and 5."""

from __future__ import annotations

from hypervisor.hw.i8254 import PITState, pit_get_gate, pit_get_out, pit_set_gate
from hypervisor.ioport import register_ioport_read, register_ioport_write
from hypervisor.trace_io import move, traced_io
from hypervisor.vl_timers import _clock_at_port
from tracer import Struct, traced

C_FILE = "hw/pcspk.c"


class PCSpkState(Struct):
    """`PCSpkState`, without the samples."""

    pit: PITState | None = None
    data_on: int = 0
    dummy_refresh_clock: int = 0


@traced_io
def pcspk_ioport_read(opaque: PCSpkState, addr: int) -> int:
    """Gate and output of the timer's channel 2; bit 4 changes with each read, as memory refresh would."""
    assert opaque.pit is not None
    move(opaque, "dummy_refresh_clock", opaque.dummy_refresh_clock ^ 1 << 4)
    out = pit_get_out(opaque.pit, 2, _clock_at_port()) << 5
    return pit_get_gate(opaque.pit, 2) | opaque.data_on << 1 | opaque.dummy_refresh_clock | out


@traced_io
def pcspk_ioport_write(opaque: PCSpkState, addr: int, val: int) -> None:
    """Set the gate of channel 2, and whether it is heard."""
    assert opaque.pit is not None
    opaque.data_on = val >> 1 & 1
    pit_set_gate(opaque.pit, 2, val & 1)


@traced
def pcspk_init(pit: PITState) -> None:
    """Take the port."""
    s = PCSpkState(pit=pit)
    register_ioport_read(0x61, 1, 1, pcspk_ioport_read, s)
    register_ioport_write(0x61, 1, 1, pcspk_ioport_write, s)
