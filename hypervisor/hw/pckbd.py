"""The keyboard controller: hw/pckbd.c; Intel 8042 and IBM PS/2 technical reference.

Port 64h takes commands and shows the status, port 60h carries bytes to and from keyboard and mouse
(`hypervisor.hw.ps2`). The controller's output port holds address line 20 and the reset line.
"""

from __future__ import annotations

import sys
from dataclasses import field

from hypervisor.hw.irq import IRQState, qemu_set_irq
from hypervisor.hw.isa_bus import ISADevice, ISADeviceInfo, isa_init_irq, isa_qdev_register
from hypervisor.hw.ps2 import (
    PS2KbdState,
    PS2MouseState,
    ps2_kbd_init,
    ps2_keyboard_set_translation,
    ps2_mouse_init,
    ps2_queue,
    ps2_read_data,
    ps2_write_keyboard,
    ps2_write_mouse,
)
from hypervisor.ioport import register_ioport_read, register_ioport_write
from hypervisor.module import device_init
from hypervisor.trace_io import traced_io
from hypervisor.vl_loop import qemu_register_reset, qemu_system_reset_request
from hypervisor.vmstate.absent import register_absent, vmstate_vmmouse
from hypervisor.vmstate.pc import vmstate_kbd_isa
from tracer import Struct, traced

C_FILE = "hw/pckbd.c"

KBD_CCMD_READ_MODE, KBD_CCMD_WRITE_MODE = 0x20, 0x60
KBD_CCMD_MOUSE_DISABLE, KBD_CCMD_MOUSE_ENABLE, KBD_CCMD_TEST_MOUSE = 0xA7, 0xA8, 0xA9
KBD_CCMD_SELF_TEST, KBD_CCMD_KBD_TEST, KBD_CCMD_KBD_DISABLE, KBD_CCMD_KBD_ENABLE = 0xAA, 0xAB, 0xAD, 0xAE
KBD_CCMD_READ_INPORT, KBD_CCMD_READ_OUTPORT, KBD_CCMD_WRITE_OUTPORT = 0xC0, 0xD0, 0xD1
KBD_CCMD_WRITE_OBUF, KBD_CCMD_WRITE_AUX_OBUF, KBD_CCMD_WRITE_MOUSE = 0xD2, 0xD3, 0xD4
KBD_CCMD_DISABLE_A20, KBD_CCMD_ENABLE_A20, KBD_CCMD_RESET, KBD_CCMD_NONE = 0xDD, 0xDF, 0xFE, 0xFF
KBD_STAT_OBF, KBD_STAT_SELFTEST, KBD_STAT_CMD, KBD_STAT_UNLOCKED, KBD_STAT_MOUSE_OBF = 1, 4, 8, 0x10, 0x20
KBD_MODE_KBD_INT, KBD_MODE_MOUSE_INT, KBD_MODE_DISABLE_KBD, KBD_MODE_DISABLE_MOUSE = 1, 2, 0x10, 0x20
KBD_MODE_KCC = 0x40
KBD_PENDING_KBD, KBD_PENDING_AUX = 1, 2
_WITH_BYTE = frozenset(
    (
        KBD_CCMD_WRITE_MODE,
        KBD_CCMD_WRITE_OBUF,
        KBD_CCMD_WRITE_AUX_OBUF,
        KBD_CCMD_WRITE_MOUSE,
        KBD_CCMD_WRITE_OUTPORT,
    )
)
_ANSWERS = {
    KBD_CCMD_TEST_MOUSE: 0x00,
    KBD_CCMD_SELF_TEST: 0x55,
    KBD_CCMD_KBD_TEST: 0,
    KBD_CCMD_READ_INPORT: 0,
}


class KBDState(Struct):
    """`KBDState`: the controller; `write_cmd` is the command whose byte is to come."""

    write_cmd: int = 0
    status: int = 0
    mode: int = 0
    pending: int = 0
    kbd: PS2KbdState = field(default_factory=PS2KbdState)
    mouse: PS2MouseState = field(default_factory=PS2MouseState)
    irq_kbd: IRQState | None = None
    irq_mouse: IRQState | None = None


class ISAKBDState(ISADevice):
    """`ISAKBDState`: the controller on the ISA bus."""

    kbd: KBDState = field(default_factory=KBDState)


@traced
def kbd_update_irq(s: KBDState) -> None:
    """Show in the status and on the interrupt lines whose byte waits; the keyboard's goes first."""
    keyboard = mouse = 0
    s.status &= ~(KBD_STAT_OBF | KBD_STAT_MOUSE_OBF)
    if s.pending:
        s.status |= KBD_STAT_OBF
        if s.pending == KBD_PENDING_AUX:
            s.status |= KBD_STAT_MOUSE_OBF
            mouse = int(bool(s.mode & KBD_MODE_MOUSE_INT))
        else:
            keyboard = int(s.mode & (KBD_MODE_KBD_INT | KBD_MODE_DISABLE_KBD) == KBD_MODE_KBD_INT)
    qemu_set_irq(s.irq_kbd, keyboard)
    qemu_set_irq(s.irq_mouse, mouse)


def _pending(s: KBDState, which: int, level: int) -> None:
    s.pending = s.pending | which if level else s.pending & ~which
    kbd_update_irq(s)


@traced
def kbd_update_kbd_irq(opaque: KBDState, level: int) -> None:
    """The keyboard has a byte, or none any more."""
    _pending(opaque, KBD_PENDING_KBD, level)


@traced
def kbd_update_aux_irq(opaque: KBDState, level: int) -> None:
    """The mouse has a byte, or none any more."""
    _pending(opaque, KBD_PENDING_AUX, level)


@traced_io
def kbd_read_status(opaque: KBDState, addr: int) -> int:
    """Read the status."""
    return opaque.status


@traced
def kbd_queue(s: KBDState, b: int, aux: int) -> None:
    """Answer as if the keyboard, or the mouse, had sent a byte."""
    ps2_queue(s.mouse.common if aux else s.kbd.common, b)


def _output_port(s: KBDState) -> int:
    from hypervisor.hw.pc import ioport_get_a20

    waiting = (s.status & KBD_STAT_OBF) << 4 | (s.status & KBD_STAT_MOUSE_OBF)
    return 0x01 | ioport_get_a20() << 1 | waiting


@traced
def kbd_write_command(opaque: KBDState, addr: int, val: int) -> None:
    """Obey a command."""
    from hypervisor.hw.pc import ioport_set_a20

    s = opaque
    if val in _WITH_BYTE:
        s.write_cmd = val
    elif val in _ANSWERS:
        if val == KBD_CCMD_SELF_TEST:
            s.status |= KBD_STAT_SELFTEST
        kbd_queue(s, _ANSWERS[val], 0)
    elif val == KBD_CCMD_READ_MODE:
        kbd_queue(s, s.mode, 0)
    elif val == KBD_CCMD_READ_OUTPORT:
        kbd_queue(s, _output_port(s), 0)
    elif val == KBD_CCMD_MOUSE_DISABLE:
        s.mode |= KBD_MODE_DISABLE_MOUSE
    elif val == KBD_CCMD_MOUSE_ENABLE:
        s.mode &= ~KBD_MODE_DISABLE_MOUSE
    elif val == KBD_CCMD_KBD_DISABLE:
        s.mode |= KBD_MODE_DISABLE_KBD
        kbd_update_irq(s)
    elif val == KBD_CCMD_KBD_ENABLE:
        s.mode &= ~KBD_MODE_DISABLE_KBD
        kbd_update_irq(s)
    elif val in (KBD_CCMD_ENABLE_A20, KBD_CCMD_DISABLE_A20):
        ioport_set_a20(int(val == KBD_CCMD_ENABLE_A20))
    elif val == KBD_CCMD_RESET:
        qemu_system_reset_request()
    elif val != KBD_CCMD_NONE:
        print(f"qemu: unsupported keyboard cmd=0x{val:02x}", file=sys.stderr)


@traced_io
def kbd_read_data(opaque: KBDState, addr: int) -> int:
    """Read the byte that waits."""
    return ps2_read_data((opaque.mouse if opaque.pending == KBD_PENDING_AUX else opaque.kbd).common)


@traced
def kbd_write_data(opaque: KBDState, addr: int, val: int) -> None:
    """Take a command's byte, or pass one on to the keyboard."""
    from hypervisor.hw.pc import ioport_set_a20

    s = opaque
    command, s.write_cmd = s.write_cmd, 0
    match command:
        case 0x00:
            ps2_write_keyboard(s.kbd, val)
        case 0x60:
            s.mode = val
            ps2_keyboard_set_translation(s.kbd, int(bool(val & KBD_MODE_KCC)))
            kbd_update_irq(s)
        case 0xD2 | 0xD3:
            kbd_queue(s, val, int(command == KBD_CCMD_WRITE_AUX_OBUF))
        case 0xD1:
            ioport_set_a20(val >> 1 & 1)
            if not val & 1:
                qemu_system_reset_request()
        case 0xD4:
            ps2_write_mouse(s.mouse, val)


@traced
def kbd_reset(opaque: KBDState) -> None:
    """Put the controller into the state after power-on."""
    opaque.mode = KBD_MODE_KBD_INT | KBD_MODE_MOUSE_INT
    opaque.status = KBD_STAT_CMD | KBD_STAT_UNLOCKED


@traced
def i8042_initfn(dev: ISAKBDState) -> int:
    """Take the interrupts and the ports, and connect keyboard and mouse."""
    s = dev.kbd
    s.irq_kbd = isa_init_irq(dev, 1)
    s.irq_mouse = isa_init_irq(dev, 12)
    register_ioport_read(0x60, 1, 1, kbd_read_data, s)
    register_ioport_write(0x60, 1, 1, kbd_write_data, s)
    register_ioport_read(0x64, 1, 1, kbd_read_status, s)
    register_ioport_write(0x64, 1, 1, kbd_write_command, s)
    s.kbd = ps2_kbd_init(kbd_update_kbd_irq, s)
    s.mouse = ps2_mouse_init(kbd_update_aux_irq, s)
    register_absent(0, vmstate_vmmouse)
    qemu_register_reset(kbd_reset, s)
    return 0


i8042_info = ISADeviceInfo(
    name="i8042", size=ISAKBDState, no_user=1, vmsd=vmstate_kbd_isa, isa_init=i8042_initfn
)


@traced
def i8042_register() -> None:
    """Register the controller."""
    isa_qdev_register(i8042_info)


device_init(i8042_register)
