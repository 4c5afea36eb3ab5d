"""The interval timer: hw/i8254.c. Three counters at 1,193,182 Hz; Intel 8254 data sheet.

Channel 0 makes interrupt 0, channel 2 the speaker's tone (`hypervisor.hw.pcspk`). Nothing counts: what a
counter holds, and its output, follow from the guest's clock and the moment it was loaded.

    count loaded          output of mode 2 ... 3
    |----- count -----|   the timer calls at each change
"""

from __future__ import annotations

from dataclasses import field

from hypervisor.hw.irq import IRQState, qemu_set_irq
from hypervisor.ioport import register_ioport_read, register_ioport_write
from hypervisor.savevm import vmstate_register
from hypervisor.trace_io import traced_io
from hypervisor.vl_loop import qemu_register_reset
from hypervisor.vl_timers import (
    QEMUTimer,
    _clock_at_port,
    qemu_del_timer,
    qemu_get_clock,
    qemu_mod_timer,
    qemu_new_timer,
    vm_clock,
)
from hypervisor.vmstate.pc import vmstate_pit
from tracer import Struct, traced

C_FILE = "hw/i8254.c"

PIT_FREQ = 1193182
RW_STATE_LSB, RW_STATE_MSB, RW_STATE_WORD0, RW_STATE_WORD1 = 1, 2, 3, 4
_SECOND = 1_000_000_000
_FASTEST = 120
"""Ticks of the shortest period of which every interrupt is made: 0.1 ms."""


class PITChannelState(Struct):
    """`PITChannelState`: one counter."""

    count: int = 0x10000
    latched_count: int = 0
    count_latched: int = 0
    status_latched: int = 0
    status: int = 0
    read_state: int = 0
    write_state: int = 0
    write_latch: int = 0
    rw_mode: int = 0
    mode: int = 3
    bcd: int = 0
    gate: int = 0
    count_load_time: int = 0
    next_transition_time: int = 0
    irq_timer: QEMUTimer | None = None
    irq: IRQState | None = None


class PITState(Struct):
    """`PITState`: all three."""

    flags: int = 0
    channels: list[PITChannelState] = field(default_factory=list)


def _ticks(s: PITChannelState, time: int) -> int:
    """Clock ticks of a counter since it was loaded."""
    return max(time - s.count_load_time, 0) * PIT_FREQ // _SECOND


@traced_io
def pit_get_count(s: PITChannelState) -> int:
    """What a counter holds now."""
    d = _ticks(s, _clock_at_port())
    if s.mode in (0, 1, 4, 5):
        return s.count - d & 0xFFFF
    if s.mode == 3:
        return s.count - 2 * d % s.count
    return s.count - d % s.count


@traced_io
def pit_get_out1(s: PITChannelState, current_time: int) -> int:
    """A counter's output."""
    d = _ticks(s, current_time)
    match s.mode:
        case 1:
            return int(d < s.count)
        case 2:
            return int(d % s.count == 0 and d != 0)
        case 3:
            return int(d % s.count < s.count + 1 >> 1)
        case 4 | 5:
            return int(d == s.count)
    return int(d >= s.count)


@traced_io
def pit_get_out(pit: PITState, channel: int, current_time: int) -> int:
    """`pit_get_out1` by the channel's number."""
    return pit_get_out1(pit.channels[channel], current_time)


@traced
def pit_get_next_transition_time(s: PITChannelState, current_time: int) -> int:
    """When the output changes next, in nanoseconds; -1 for never."""
    d = _ticks(s, current_time)
    match s.mode:
        case 2:
            into = d % s.count
            ahead = d - into + s.count + (0 if into == 0 and d else 1)
        case 3:
            into, half = d % s.count, s.count + 1 >> 1
            ahead = d - into + (half if into < half else s.count)
        case 4 | 5 if d == s.count:
            ahead = s.count + 1
        case _:
            if d >= s.count:
                return -1
            ahead = s.count
    return max(s.count_load_time + ahead * _SECOND // PIT_FREQ, current_time + 1)


@traced_io
def pit_set_gate(pit: PITState, channel: int, val: int) -> None:
    """Set a counter's gate; in modes 1, 2, 3 and 5 its rise starts the count again."""
    s = pit.channels[channel]
    if s.mode in (1, 2, 3, 5) and s.gate < val:
        s.count_load_time = qemu_get_clock(vm_clock)
        pit_irq_timer_update(s, s.count_load_time)
    s.gate = val


@traced_io
def pit_get_gate(pit: PITState, channel: int) -> int:
    """A counter's gate."""
    return pit.channels[channel].gate


@traced
def pit_load_count(s: PITState, val: int, chan: int) -> None:
    """Load a counter; 0 stands for 65,536."""
    channel = s.channels[chan]
    channel.count_load_time = qemu_get_clock(vm_clock)
    channel.count = val or 0x10000
    pit_irq_timer_update(channel, channel.count_load_time)


@traced_io
def pit_latch_count(s: PITChannelState) -> None:
    """Hold what the counter shows until it is read."""
    if not s.count_latched:
        s.latched_count = pit_get_count(s)
        s.count_latched = s.rw_mode


def _read_back(pit: PITState, val: int) -> None:
    for number, s in enumerate(pit.channels):
        if not val & 2 << number:
            continue
        if not val & 0x20:
            pit_latch_count(s)
        if not val & 0x10 and not s.status_latched:
            out = pit_get_out1(s, qemu_get_clock(vm_clock))
            s.status = out << 7 | s.rw_mode << 4 | s.mode << 1 | s.bcd
            s.status_latched = 1


def _control(pit: PITState, val: int) -> None:
    if val >> 6 == 3:
        _read_back(pit, val)
        return
    s, access = pit.channels[val >> 6], val >> 4 & 3
    if access == 0:
        pit_latch_count(s)
        return
    s.rw_mode = s.read_state = s.write_state = access
    s.mode = val >> 1 & 7
    s.bcd = val & 1


@traced_io
def pit_ioport_write(opaque: PITState, addr: int, val: int) -> None:
    """Write a counter or the control word."""
    addr &= 3
    if addr == 3:
        _control(opaque, val)
        return
    s = opaque.channels[addr]
    if s.write_state == RW_STATE_WORD0:
        s.write_latch = val
        s.write_state = RW_STATE_WORD1
    elif s.write_state == RW_STATE_WORD1:
        s.write_state = RW_STATE_WORD0
        pit_load_count(opaque, s.write_latch | val << 8, addr)
    else:
        pit_load_count(opaque, val << 8 if s.write_state == RW_STATE_MSB else val, addr)


@traced_io
def pit_ioport_read(opaque: PITState, addr: int) -> int:
    """Read a counter: latched status, latched count, or the count itself."""
    s = opaque.channels[addr & 3]
    if s.status_latched:
        s.status_latched = 0
        return s.status
    if s.count_latched:
        high = s.count_latched == RW_STATE_MSB
        s.count_latched = RW_STATE_MSB if s.count_latched == RW_STATE_WORD0 else 0
        return s.latched_count >> 8 & 0xFF if high else s.latched_count & 0xFF
    count = pit_get_count(s)
    high = s.read_state in (RW_STATE_MSB, RW_STATE_WORD1)
    if s.read_state >= RW_STATE_WORD0:
        s.read_state ^= RW_STATE_WORD0 ^ RW_STATE_WORD1
    return count >> 8 & 0xFF if high else count & 0xFF


@traced
def pit_irq_timer_update(s: PITChannelState, current_time: int) -> None:
    """Show the output on the interrupt line, and come back when it changes."""
    if s.irq_timer is None:
        return
    expire_time = pit_get_next_transition_time(s, current_time)
    qemu_set_irq(s.irq, pit_get_out1(s, current_time))
    s.next_transition_time = expire_time
    if expire_time != -1:
        qemu_mod_timer(s.irq_timer, expire_time)
    else:
        qemu_del_timer(s.irq_timer)


@traced
def pit_irq_timer(opaque: PITChannelState) -> None:
    """The output of channel 0 changes."""
    at = opaque.next_transition_time
    if opaque.count < _FASTEST:
        # Faster than this loop: what was missed stays missed, or nothing else would ever run.
        at = max(at, qemu_get_clock(vm_clock))
    pit_irq_timer_update(opaque, at)


@traced
def pit_reset(opaque: PITState) -> None:
    """Have all counters make a square wave of the longest period."""
    for number, s in enumerate(opaque.channels):
        s.mode = 3
        s.gate = int(number != 2)
        pit_load_count(opaque, 0, number)


@traced
def pit_init(base: int, irq: IRQState) -> PITState:
    """Make the timer and take its ports."""
    pit = PITState(channels=[PITChannelState() for _ in range(3)])
    pit.channels[0].irq_timer = qemu_new_timer(vm_clock, pit_irq_timer, pit.channels[0])
    pit.channels[0].irq = irq
    vmstate_register(base, vmstate_pit, pit)
    qemu_register_reset(pit_reset, pit)
    register_ioport_write(base, 4, 1, pit_ioport_write, pit)
    register_ioport_read(base, 3, 1, pit_ioport_read, pit)
    return pit
