"""The real-time clock and its 128 bytes of CMOS memory: hw/mc146818rtc.c; Motorola MC146818 data sheet.

The guest writes an index to port 70h and reads or writes that byte at port 71h. Bytes 0 to 9 are the time,
10 to 13 registers A to D, the rest is memory that the machine fills for the firmware (`hw/pc.c`).

    second_timer: a second is over, bit 7 of register A warns -> second_timer2, 10 ms later: the bytes change
"""

from __future__ import annotations

from dataclasses import field

from hypervisor.hw.irq import IRQState, qemu_irq_lower, qemu_irq_raise
from hypervisor.hw.isa_bus import ISADevice, ISADeviceInfo, isa_create, isa_init_irq, isa_qdev_register
from hypervisor.hw.qdev import qdev_init_nofail
from hypervisor.hw.qdev_properties import Property, qdev_prop_set_int32
from hypervisor.ioport import register_ioport_read, register_ioport_write
from hypervisor.module import device_init
from hypervisor.savevm import vmstate_register
from hypervisor.trace_io import traced_io
from hypervisor.vl_loop import qemu_register_reset
from hypervisor.vl_rtc import qemu_get_timedate, rtc_clock
from hypervisor.vl_timers import (
    QEMUTimer,
    qemu_del_timer,
    qemu_get_clock,
    qemu_mod_timer,
    qemu_new_timer,
)
from hypervisor.vmstate.pc import vmstate_rtc
from tracer import Struct, traced

C_FILE = "hw/mc146818rtc.c"

RTC_SECONDS, RTC_SECONDS_ALARM, RTC_MINUTES, RTC_MINUTES_ALARM, RTC_HOURS, RTC_HOURS_ALARM = range(6)
RTC_DAY_OF_WEEK, RTC_DAY_OF_MONTH, RTC_MONTH, RTC_YEAR = range(6, 10)
RTC_REG_A, RTC_REG_B, RTC_REG_C, RTC_REG_D = range(10, 14)
REG_A_UIP = 0x80
REG_B_SET, REG_B_PIE, REG_B_AIE, REG_B_UIE, REG_B_SQWE, REG_B_DM, REG_B_24H = 0x80, 0x40, 0x20, 0x10, 8, 4, 2
REG_C_IRQF, REG_C_PF, REG_C_AF, REG_C_UF = 0x80, 0x40, 0x20, 0x10
REG_IBM_CENTURY_BYTE, REG_IBM_PS2_CENTURY_BYTE = 0x32, 0x37
_TIME = frozenset((RTC_SECONDS, RTC_MINUTES, RTC_HOURS, *range(RTC_DAY_OF_WEEK, RTC_REG_A)))
_SECOND = 1_000_000_000
_CRYSTAL = 32768


class tm(Struct):
    """`struct tm`: months from 0, years from 1900, weekdays from Sunday."""

    tm_sec: int = 0
    tm_min: int = 0
    tm_hour: int = 0
    tm_wday: int = 0
    tm_mday: int = 1
    tm_mon: int = 0
    tm_year: int = 100


class RTCState(ISADevice):
    """`RTCState`: memory, time, and the timers that move it."""

    cmos_data: bytearray = field(default_factory=lambda: bytearray(128))
    cmos_index: int = 0
    current_tm: tm = field(default_factory=tm)
    base_year: int = 0
    irq: IRQState | None = None
    periodic_timer: QEMUTimer | None = None
    next_periodic_time: int = 0
    next_second_time: int = 0
    irq_coalesced: int = 0
    period: int = 0
    second_timer: QEMUTimer | None = None
    second_timer2: QEMUTimer | None = None


@traced
def rtc_irq_raise(irq: IRQState | None) -> None:
    """Ask for interrupt 8."""
    qemu_irq_raise(irq)


@traced
def rtc_timer_update(s: RTCState, current_time: int) -> None:
    """Set the periodic interrupt's timer as registers A and B say."""
    assert s.periodic_timer is not None
    code = s.cmos_data[RTC_REG_A] & 0x0F
    if not code or not s.cmos_data[RTC_REG_B] & REG_B_PIE:
        s.irq_coalesced = 0
        qemu_del_timer(s.periodic_timer)
        return
    period = 1 << (code + 7 if code <= 2 else code) - 1
    s.period = period
    now = current_time * _CRYSTAL // _SECOND
    s.next_periodic_time = ((now & ~(period - 1)) + period) * _SECOND // _CRYSTAL + 1
    qemu_mod_timer(s.periodic_timer, s.next_periodic_time)


@traced
def rtc_periodic_timer(opaque: RTCState) -> None:
    """A period is over."""
    rtc_timer_update(opaque, opaque.next_periodic_time)
    if opaque.cmos_data[RTC_REG_B] & REG_B_PIE:
        opaque.cmos_data[RTC_REG_C] |= REG_C_IRQF | REG_C_PF
        rtc_irq_raise(opaque.irq)


def _write_register_b(s: RTCState, data: int) -> None:
    if data & REG_B_SET:
        s.cmos_data[RTC_REG_A] &= ~REG_A_UIP
        data &= ~REG_B_UIE
    elif s.cmos_data[RTC_REG_B] & REG_B_SET:
        rtc_set_time(s)
    s.cmos_data[RTC_REG_B] = data
    rtc_timer_update(s, qemu_get_clock(rtc_clock()))


@traced_io
def cmos_ioport_write(opaque: RTCState, addr: int, data: int) -> None:
    """Choose a byte, or write the chosen one."""
    s, index = opaque, opaque.cmos_index
    if not addr & 1:
        s.cmos_index = data & 0x7F
    elif index in _TIME:
        s.cmos_data[index] = data
        if not s.cmos_data[RTC_REG_B] & REG_B_SET:
            rtc_set_time(s)
    elif index == RTC_REG_A:
        s.cmos_data[index] = data & ~REG_A_UIP | s.cmos_data[index] & REG_A_UIP
        rtc_timer_update(s, qemu_get_clock(rtc_clock()))
    elif index == RTC_REG_B:
        _write_register_b(s, data)
    elif index not in (RTC_REG_C, RTC_REG_D):
        s.cmos_data[index] = data


@traced
def rtc_to_bcd(s: RTCState, a: int) -> int:
    """A number as the clock shows it: two decimal digits, unless register B asks for binary."""
    return a if s.cmos_data[RTC_REG_B] & REG_B_DM else a // 10 << 4 | a % 10


@traced
def rtc_from_bcd(s: RTCState, a: int) -> int:
    """`rtc_to_bcd` the other way."""
    return a if s.cmos_data[RTC_REG_B] & REG_B_DM else (a >> 4) * 10 + (a & 0x0F)


@traced
def rtc_set_time(s: RTCState) -> None:
    """Take the time from the bytes."""
    now, data = s.current_tm, s.cmos_data
    now.tm_sec = rtc_from_bcd(s, data[RTC_SECONDS])
    now.tm_min = rtc_from_bcd(s, data[RTC_MINUTES])
    now.tm_hour = rtc_from_bcd(s, data[RTC_HOURS] & 0x7F)
    if not data[RTC_REG_B] & REG_B_24H and data[RTC_HOURS] & 0x80:
        now.tm_hour += 12
    now.tm_wday = rtc_from_bcd(s, data[RTC_DAY_OF_WEEK]) - 1
    now.tm_mday = rtc_from_bcd(s, data[RTC_DAY_OF_MONTH])
    now.tm_mon = rtc_from_bcd(s, data[RTC_MONTH]) - 1
    now.tm_year = rtc_from_bcd(s, data[RTC_YEAR]) + s.base_year - 1900


@traced
def rtc_copy_date(s: RTCState) -> None:
    """Show the time in the bytes."""
    now, data = s.current_tm, s.cmos_data
    data[RTC_SECONDS] = rtc_to_bcd(s, now.tm_sec) & 0xFF
    data[RTC_MINUTES] = rtc_to_bcd(s, now.tm_min) & 0xFF
    if data[RTC_REG_B] & REG_B_24H:
        data[RTC_HOURS] = rtc_to_bcd(s, now.tm_hour) & 0xFF
    else:
        data[RTC_HOURS] = rtc_to_bcd(s, now.tm_hour % 12) & 0x7F | (0x80 if now.tm_hour >= 12 else 0)
    data[RTC_DAY_OF_WEEK] = rtc_to_bcd(s, now.tm_wday + 1) & 0xFF
    data[RTC_DAY_OF_MONTH] = rtc_to_bcd(s, now.tm_mday) & 0xFF
    data[RTC_MONTH] = rtc_to_bcd(s, now.tm_mon + 1) & 0xFF
    data[RTC_YEAR] = rtc_to_bcd(s, (now.tm_year - s.base_year) % 100) & 0xFF


@traced
def get_days_in_month(month: int, year: int) -> int:
    """Length of a month, counted from 0; 31 for one that does not exist."""
    if month == 1:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (3, 5, 8, 10) else 31


@traced
def rtc_next_second(tm: tm) -> None:
    """Move the time on; what the guest set out of range wraps too."""
    for hand, turn in (("tm_sec", 60), ("tm_min", 60), ("tm_hour", 24)):
        moved = getattr(tm, hand) + 1
        came_round = moved not in range(turn)
        setattr(tm, hand, 0 if came_round else moved)
        if not came_round:
            return
    tm.tm_wday = (tm.tm_wday + 1) % 7 if tm.tm_wday in range(7) else 0
    if tm.tm_mday < get_days_in_month(tm.tm_mon, tm.tm_year + 1900):
        tm.tm_mday = max(tm.tm_mday + 1, 1)
    else:
        tm.tm_mday = 1
        tm.tm_year += tm.tm_mon >= 11
        tm.tm_mon = 0 if tm.tm_mon >= 11 else tm.tm_mon + 1


@traced
def rtc_update_second(opaque: RTCState) -> None:
    """A second is over: warn the guest, and change the bytes a little later."""
    s = opaque
    assert s.second_timer is not None and s.second_timer2 is not None
    if s.cmos_data[RTC_REG_A] & 0x70 != 0x20:
        s.next_second_time += _SECOND
        qemu_mod_timer(s.second_timer, s.next_second_time)
        return
    rtc_next_second(s.current_tm)
    if not s.cmos_data[RTC_REG_B] & REG_B_SET:
        s.cmos_data[RTC_REG_A] |= REG_A_UIP
    qemu_mod_timer(s.second_timer2, s.next_second_time + _SECOND // 100)


def _alarm_is_now(s: RTCState) -> bool:
    now = s.current_tm
    # quirk: the minutes of the alarm are held against the month.
    pairs = ((RTC_SECONDS_ALARM, now.tm_sec), (RTC_MINUTES_ALARM, now.tm_mon), (RTC_HOURS_ALARM, now.tm_hour))
    return all(s.cmos_data[at] & 0xC0 == 0xC0 or s.cmos_data[at] == value for at, value in pairs)


@traced
def rtc_update_second2(opaque: RTCState) -> None:
    """Show the new second, and interrupt where that is asked for."""
    s = opaque
    assert s.second_timer is not None
    if not s.cmos_data[RTC_REG_B] & REG_B_SET:
        rtc_copy_date(s)
    if s.cmos_data[RTC_REG_B] & REG_B_AIE and _alarm_is_now(s):
        s.cmos_data[RTC_REG_C] |= REG_C_IRQF | REG_C_AF
        rtc_irq_raise(s.irq)
    s.cmos_data[RTC_REG_C] |= REG_C_UF
    if s.cmos_data[RTC_REG_B] & REG_B_UIE:
        s.cmos_data[RTC_REG_C] |= REG_C_IRQF
        rtc_irq_raise(s.irq)
    s.cmos_data[RTC_REG_A] &= ~REG_A_UIP
    s.next_second_time += _SECOND
    qemu_mod_timer(s.second_timer, s.next_second_time)


@traced_io
def cmos_ioport_read(opaque: RTCState, addr: int) -> int:
    """Read the chosen byte; reading register C ends its interrupt."""
    s = opaque
    if not addr & 1:
        return 0xFF
    ret = s.cmos_data[s.cmos_index]
    if s.cmos_index == RTC_REG_C:
        qemu_irq_lower(s.irq)
        s.cmos_data[RTC_REG_C] = 0
    return ret


@traced
def rtc_set_memory(s: RTCState, addr: int, val: int) -> None:
    """Set a byte of CMOS memory."""
    if 0 <= addr < 128:
        s.cmos_data[addr] = val & 0xFF


@traced
def rtc_set_date(s: RTCState, tm: tm) -> None:
    """Set the time."""
    s.current_tm = tm
    rtc_copy_date(s)


@traced
def rtc_set_date_from_host(s: RTCState) -> None:
    """Set the time to the host's, in UTC unless told otherwise."""
    now = qemu_get_timedate(0)
    date = tm(tm_sec=now.tm_sec, tm_min=now.tm_min, tm_hour=now.tm_hour, tm_wday=(now.tm_wday + 1) % 7)
    date.tm_mday, date.tm_mon, date.tm_year = now.tm_mday, now.tm_mon - 1, now.tm_year - 1900
    rtc_set_date(s, date)
    century = rtc_to_bcd(s, date.tm_year // 100 + 19)
    rtc_set_memory(s, REG_IBM_CENTURY_BYTE, century)
    rtc_set_memory(s, REG_IBM_PS2_CENTURY_BYTE, century)


@traced
def rtc_reset(opaque: RTCState) -> None:
    """Switch the interrupts off; time and memory stay, for a battery keeps them."""
    opaque.cmos_data[RTC_REG_B] &= ~(REG_B_PIE | REG_B_AIE | REG_B_SQWE)
    opaque.cmos_data[RTC_REG_C] = 0
    qemu_irq_lower(opaque.irq)


@traced
def rtc_initfn(dev: RTCState) -> int:
    """Take the interrupt and the ports, set the time and start the seconds."""
    s = dev
    s.irq = isa_init_irq(dev, 8)
    s.cmos_data[RTC_REG_A : RTC_REG_D + 1] = bytes((0x26, REG_B_24H, 0x00, 0x80))
    rtc_set_date_from_host(s)
    s.periodic_timer = qemu_new_timer(rtc_clock(), rtc_periodic_timer, s)
    s.second_timer = qemu_new_timer(rtc_clock(), rtc_update_second, s)
    s.second_timer2 = qemu_new_timer(rtc_clock(), rtc_update_second2, s)
    s.next_second_time = qemu_get_clock(rtc_clock()) + _SECOND * 99 // 100
    qemu_mod_timer(s.second_timer2, s.next_second_time)
    vmstate_register(0x70, vmstate_rtc, s)
    register_ioport_write(0x70, 2, 1, cmos_ioport_write, s)
    register_ioport_read(0x70, 2, 1, cmos_ioport_read, s)
    qemu_register_reset(rtc_reset, s)
    return 0


@traced
def rtc_init(base_year: int) -> RTCState:
    """Make the machine's clock."""
    dev = isa_create("mc146818rtc")
    qdev_prop_set_int32(dev, "base_year", base_year)
    qdev_init_nofail(dev)
    assert isinstance(dev, RTCState)
    return dev


mc146818rtc_info = ISADeviceInfo(
    name="mc146818rtc",
    size=RTCState,
    no_user=1,
    isa_init=rtc_initfn,
    props=[Property(name="base_year", type="int32", field="base_year", defval=1980)],
)


@traced
def mc146818rtc_register() -> None:
    """Register the clock."""
    isa_qdev_register(mc146818rtc_info)


device_init(mc146818rtc_register)
