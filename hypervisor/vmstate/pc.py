"""What is saved of the PC's small devices, each under the name and version that 0.12.4 gives it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from hypervisor.vmstate import VMStateDescription, VMStateField
from hypervisor.vmstate.fields import (
    VMSTATE_BUFFER,
    VMSTATE_INT32,
    VMSTATE_INT64,
    VMSTATE_STRUCT,
    VMSTATE_TIMER,
    VMSTATE_UINT8,
    VMSTATE_UINT16,
    VMSTATE_UINT32,
)
from tracer import symbol, traced

if TYPE_CHECKING:
    from hypervisor.hw.fw_cfg import FWCfgState
    from hypervisor.hw.i8259 import PicState
    from hypervisor.hw.mc146818rtc import RTCState
    from hypervisor.hw.ps2 import PS2KbdState
    from hypervisor.hw.serial import SerialState

C_FILE = "vl.c"

_UART_LSR_DR = 0x01
_UART_IIR_THRI = 0x02


def _bytes(names: str) -> tuple[VMStateField, ...]:
    return tuple(VMSTATE_UINT8(name) for name in names.split())


vmstate_timers = symbol(
    VMStateDescription(
        name="timer",
        version_id=2,
        minimum_version_id=1,
        fields=(
            VMSTATE_INT64("cpu_ticks_offset"),
            VMSTATE_INT64("dummy", missing=0),
            VMSTATE_INT64("cpu_clock_offset", 2),
        ),
    ),
    "vmstate_timers",
)


@traced(file="hw/i8259.c")
def pic_pre_save(opaque: PicState) -> None:
    """Nothing: the model's controllers are never the kernel's."""


@traced(file="hw/i8259.c")
def pic_post_load(opaque: PicState, version_id: int) -> int:
    """Nothing: the model's controllers are never the kernel's."""
    return 0


vmstate_pic = symbol(
    VMStateDescription(
        name="i8259",
        version_id=1,
        minimum_version_id=1,
        pre_save=pic_pre_save,
        post_load=pic_post_load,
        fields=_bytes(
            "last_irr irr imr isr priority_add irq_base read_reg_select poll special_mask init_state auto_eoi"
            " rotate_on_auto_eoi special_fully_nested_mode init4 single_mode elcr"
        ),
    ),
    "vmstate_pic",
)


@traced(file="hw/serial.c")
def serial_pre_save(opaque: SerialState) -> None:
    """Note what is in the FIFO's control register, and the byte that the guest reads next."""
    opaque.fcr_vmstate = opaque.fcr
    opaque.rbr = opaque.recv_fifo[0] if opaque.recv_fifo else 0


@traced(file="hw/serial.c")
def serial_post_load(opaque: SerialState, version_id: int) -> int:
    """Set the FIFO up; of what was in it, 0.12.4 saves the first byte at most."""
    if version_id < 3:
        opaque.fcr_vmstate = 0
    opaque.fcr = opaque.fcr_vmstate
    opaque.recv_fifo = deque([opaque.rbr] if opaque.lsr & _UART_LSR_DR else [])
    opaque.thr_ipending = int(opaque.iir & 0x06 == _UART_IIR_THRI)
    return 0


vmstate_serial = symbol(
    VMStateDescription(
        name="serial",
        version_id=3,
        minimum_version_id=2,
        pre_save=serial_pre_save,
        post_load=serial_post_load,
        fields=(
            VMSTATE_UINT16("divider", 2),
            *_bytes("rbr ier iir lcr mcr lsr msr scr"),
            VMSTATE_UINT8("fcr_vmstate", 3),
        ),
    ),
    "vmstate_serial",
)


@traced(file="hw/fw_cfg.c")
def is_version_1(opaque: FWCfgState, version_id: int) -> int:
    """Whether the offset has 16 bits only."""
    return int(version_id == 1)


vmstate_fw_cfg = symbol(
    VMStateDescription(
        name="fw_cfg",
        version_id=2,
        minimum_version_id=1,
        fields=(
            VMSTATE_UINT16("cur_entry"),
            VMSTATE_UINT16("cur_offset", test=is_version_1),
            VMSTATE_UINT32("cur_offset", 2),
        ),
    ),
    "vmstate_fw_cfg",
)


@traced(file="hw/mc146818rtc.c")
def rtc_post_load(opaque: RTCState, version_id: int) -> int:
    """Nothing: the model makes up for no interrupts that the guest missed."""
    return 0


_UNITS = ("sec", "min", "hour", "wday", "mday", "mon", "year")
vmstate_rtc = symbol(
    VMStateDescription(
        name="mc146818rtc",
        version_id=2,
        minimum_version_id=1,
        post_load=rtc_post_load,
        fields=(
            VMSTATE_BUFFER("cmos_data", 128),
            VMSTATE_UINT8("cmos_index", within=range(128)),
            *(VMSTATE_INT32(f"current_tm.tm_{name}") for name in _UNITS),
            VMSTATE_TIMER("periodic_timer"),
            VMSTATE_INT64("next_periodic_time"),
            VMSTATE_INT64("next_second_time"),
            VMSTATE_TIMER("second_timer"),
            VMSTATE_TIMER("second_timer2"),
            VMSTATE_UINT32("irq_coalesced", 2),
            VMSTATE_UINT32("period", 2),
        ),
    ),
    "vmstate_rtc",
)
vmstate_pit_channel = symbol(
    VMStateDescription(
        name="pit channel",
        version_id=2,
        minimum_version_id=2,
        fields=(
            VMSTATE_INT32("count", within=range(1, 0x10001)),
            VMSTATE_UINT16("latched_count"),
            *_bytes(
                "count_latched status_latched status read_state write_state write_latch rw_mode mode bcd gate"
            ),
            VMSTATE_INT64("count_load_time"),
            VMSTATE_INT64("next_transition_time"),
        ),
    ),
    "vmstate_pit_channel",
)
vmstate_pit = symbol(
    VMStateDescription(
        name="i8254",
        version_id=2,
        minimum_version_id=2,
        fields=(
            VMSTATE_UINT32("flags"),
            VMSTATE_STRUCT("channels", vmstate_pit_channel, 2, num=3),
            VMSTATE_TIMER("channels[0].irq_timer"),
        ),
    ),
    "vmstate_pit",
)
vmstate_ps2_common = symbol(
    VMStateDescription(
        name="PS2 Common State",
        version_id=3,
        minimum_version_id=2,
        fields=(
            VMSTATE_INT32("write_cmd"),
            VMSTATE_INT32("queue.rptr", within=range(256)),
            VMSTATE_INT32("queue.wptr", within=range(256)),
            VMSTATE_INT32("queue.count", within=range(257)),
            VMSTATE_BUFFER("queue.data", 256),
        ),
    ),
    "vmstate_ps2_common",
)


@traced(file="hw/ps2.c")
def ps2_kbd_post_load(opaque: PS2KbdState, version_id: int) -> int:
    """Take the usual scan codes where an old version did not say which."""
    if version_id == 2:
        opaque.scancode_set = 2
    return 0


vmstate_ps2_keyboard = symbol(
    VMStateDescription(
        name="ps2kbd",
        version_id=3,
        minimum_version_id=2,
        post_load=ps2_kbd_post_load,
        fields=(
            VMSTATE_STRUCT("common", vmstate_ps2_common),
            VMSTATE_INT32("scan_enabled"),
            VMSTATE_INT32("translate"),
            VMSTATE_INT32("scancode_set", 3, within=range(4)),
        ),
    ),
    "vmstate_ps2_keyboard",
)
vmstate_ps2_mouse = symbol(
    VMStateDescription(
        name="ps2mouse",
        version_id=2,
        minimum_version_id=2,
        fields=(
            VMSTATE_STRUCT("common", vmstate_ps2_common),
            *_bytes(
                "mouse_status mouse_resolution mouse_sample_rate mouse_wrap mouse_type mouse_detect_state"
            ),
            VMSTATE_INT32("mouse_dx"),
            VMSTATE_INT32("mouse_dy"),
            VMSTATE_INT32("mouse_dz"),
            VMSTATE_UINT8("mouse_buttons"),
        ),
    ),
    "vmstate_ps2_mouse",
)
vmstate_kbd = symbol(
    VMStateDescription(
        name="pckbd", version_id=3, minimum_version_id=3, fields=_bytes("write_cmd status mode pending")
    ),
    "vmstate_kbd",
)
vmstate_kbd_isa = symbol(
    VMStateDescription(
        name="pckbd", version_id=3, minimum_version_id=3, fields=(VMSTATE_STRUCT("kbd", vmstate_kbd),)
    ),
    "vmstate_kbd_isa",
)
