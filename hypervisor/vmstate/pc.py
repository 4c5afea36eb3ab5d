"""What is saved of the PC's small devices, each under the name and version that 0.12.4 gives it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from hypervisor.vmstate import VMStateDescription, VMStateField
from hypervisor.vmstate.fields import VMSTATE_INT64, VMSTATE_UINT8, VMSTATE_UINT16
from tracer import symbol, traced

if TYPE_CHECKING:
    from hypervisor.hw.i8259 import PicState
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
