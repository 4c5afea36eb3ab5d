"""Keyboard and mouse on their own side of the wire: hw/ps2.c.

Both answer the bytes that the controller (`hypervisor.hw.pckbd`) passes on by bytes in a queue of 256, and
raise its line while something is in there. Commands and answers: IBM PS/2 technical reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any

from hypervisor.savevm import vmstate_register
from hypervisor.trace_io import traced_io
from hypervisor.vl_input import qemu_add_kbd_event_handler, qemu_add_mouse_event_handler
from hypervisor.vl_loop import qemu_register_reset
from hypervisor.vmstate.pc import vmstate_ps2_keyboard, vmstate_ps2_mouse
from tracer import Struct, traced

C_FILE = "hw/ps2.c"

KBD_CMD_SET_LEDS, KBD_CMD_ECHO, KBD_CMD_SCANCODE, KBD_CMD_GET_ID, KBD_CMD_SET_RATE = (
    0xED,
    0xEE,
    0xF0,
    0xF2,
    0xF3,
)
KBD_CMD_ENABLE, KBD_CMD_RESET_DISABLE, KBD_CMD_RESET_ENABLE, KBD_CMD_RESET = 0xF4, 0xF5, 0xF6, 0xFF
KBD_REPLY_POR, KBD_REPLY_ID, KBD_REPLY_ACK, KBD_REPLY_RESEND = 0xAA, 0xAB, 0xFA, 0xFE
AUX_SET_SCALE11, AUX_SET_SCALE21, AUX_SET_RES, AUX_GET_SCALE, AUX_SET_STREAM, AUX_POLL = range(0xE6, 0xEC)
AUX_RESET_WRAP, AUX_SET_WRAP, AUX_SET_REMOTE, AUX_GET_TYPE, AUX_SET_SAMPLE = 0xEC, 0xEE, 0xF0, 0xF2, 0xF3
AUX_ENABLE_DEV, AUX_DISABLE_DEV, AUX_SET_DEFAULT, AUX_RESET, AUX_ACK = 0xF4, 0xF5, 0xF6, 0xFF, 0xFA
MOUSE_STATUS_REMOTE, MOUSE_STATUS_ENABLED, MOUSE_STATUS_SCALE21 = 0x40, 0x20, 0x10
PS2_QUEUE_SIZE = 256
IMPS2, IMEX = 3, 4

# Scan codes of set 2 by those of set 1.
ps2_raw_keycode = bytes.fromhex(
    "0076161e26252e363d3e46454e55660d151d242d2c353c43444d545b5a141c1b"
    "232b34333b424b4c520e125d1a22212a32313a41494a597c1129580506040c03"
    "0b020a0109777e6c757d7b6b73747969727a70717f606178070f171f272f373f"
    "474f565e08101820283038404850576f13193951535c5f6263646567686a6d6e"
)


class PS2Queue(Struct):
    """`PS2Queue`: a ring of bytes."""

    data: bytearray = field(default_factory=lambda: bytearray(PS2_QUEUE_SIZE))
    rptr: int = 0
    wptr: int = 0
    count: int = 0


class PS2State(Struct):
    """`PS2State`: what keyboard and mouse share; `write_cmd` is -1 unless a command's byte is to come."""

    queue: PS2Queue = field(default_factory=PS2Queue)
    write_cmd: int = -1
    update_irq: Callable[[Any, int], None] | None = None
    update_arg: Any = None


class PS2KbdState(Struct):
    """`PS2KbdState`: a keyboard; `translate` has it speak set 1."""

    common: PS2State = field(default_factory=PS2State)
    scan_enabled: int = 0
    translate: int = 0
    scancode_set: int = 0


class PS2MouseState(Struct):
    """`PS2MouseState`: a mouse, with a wheel once the guest has asked for it."""

    common: PS2State = field(default_factory=PS2State)
    mouse_status: int = 0
    mouse_resolution: int = 0
    mouse_sample_rate: int = 0
    mouse_wrap: int = 0
    mouse_type: int = 0
    mouse_detect_state: int = 0
    mouse_dx: int = 0
    mouse_dy: int = 0
    mouse_dz: int = 0
    mouse_buttons: int = 0


@traced
def ps2_queue(opaque: PS2State, b: int) -> None:
    """Put a byte into the queue, unless it is full."""
    s, q = opaque, opaque.queue
    assert s.update_irq is not None
    if q.count >= PS2_QUEUE_SIZE:
        return
    q.data[q.wptr] = b
    q.wptr = (q.wptr + 1) % PS2_QUEUE_SIZE
    q.count += 1
    s.update_irq(s.update_arg, 1)


@traced
def ps2_put_keycode(opaque: PS2KbdState, keycode: int) -> None:
    """Send a key, in the set of codes that the guest has chosen."""
    s = opaque
    if not s.translate and keycode < 0xE0 and s.scancode_set == 2:
        if keycode & 0x80:
            ps2_queue(s.common, 0xF0)
        keycode = ps2_raw_keycode[keycode & 0x7F]
    ps2_queue(s.common, keycode)


@traced_io
def ps2_read_data(opaque: PS2State) -> int:
    """Take the next byte; the last one again when there is none."""
    s, q = opaque, opaque.queue
    assert s.update_irq is not None
    if q.count == 0:
        return q.data[q.rptr - 1]
    val = q.data[q.rptr]
    q.rptr = (q.rptr + 1) % PS2_QUEUE_SIZE
    q.count -= 1
    s.update_irq(s.update_arg, 0)
    s.update_irq(s.update_arg, int(q.count != 0))
    return val


@traced
def ps2_reset_keyboard(s: PS2KbdState) -> None:
    """Have the keyboard send, in set 2."""
    s.scan_enabled = 1
    s.scancode_set = 2


def _keyboard_command(s: PS2KbdState, val: int) -> bytes:
    """Obey a command; the answer."""
    match val:
        case 0x05:
            return bytes((KBD_REPLY_RESEND,))
        case 0xEE:
            return bytes((KBD_CMD_ECHO,))
        case 0xF2:
            return bytes((KBD_REPLY_ACK, KBD_REPLY_ID, 0x41 if s.translate else 0x83))
        case 0xF4:
            s.scan_enabled = 1
        case 0xF0 | 0xED | 0xF3:
            s.common.write_cmd = val
        case 0xF5 | 0xF6 | 0xFF:
            ps2_reset_keyboard(s)
            s.scan_enabled = int(val != KBD_CMD_RESET_DISABLE)
            if val == KBD_CMD_RESET:
                return bytes((KBD_REPLY_ACK, KBD_REPLY_POR))
    return bytes((KBD_REPLY_ACK,))


@traced
def ps2_write_keyboard(opaque: PS2KbdState, val: int) -> None:
    """Hear a byte from the controller."""
    s = opaque
    if s.common.write_cmd not in (KBD_CMD_SCANCODE, KBD_CMD_SET_LEDS, KBD_CMD_SET_RATE):
        for byte in _keyboard_command(s, val):
            ps2_queue(s.common, byte)
        return
    if s.common.write_cmd == KBD_CMD_SCANCODE and val == 0:
        if s.scancode_set:
            ps2_put_keycode(s, (0x43, 0x41, 0x3F)[s.scancode_set - 1])
    else:
        if s.common.write_cmd == KBD_CMD_SCANCODE and 1 <= val <= 3:
            s.scancode_set = val
        ps2_queue(s.common, KBD_REPLY_ACK)
    s.common.write_cmd = -1


@traced
def ps2_keyboard_set_translation(opaque: PS2KbdState, mode: int) -> None:
    """Have the keyboard speak set 1, or whatever the guest chooses."""
    opaque.translate = mode


def _clamp(value: int, most: int) -> int:
    return max(-most, min(most, value))


@traced
def ps2_mouse_send_packet(s: PS2MouseState) -> None:
    """Send as much of the movement as fits into a packet."""
    dx, dy = _clamp(s.mouse_dx, 127), _clamp(s.mouse_dy, 127)
    dz = _clamp(s.mouse_dz, 7 if s.mouse_type == IMEX else 127)
    packet = [0x08 | (dx < 0) << 4 | (dy < 0) << 5 | s.mouse_buttons & 0x07, dx & 0xFF, dy & 0xFF]
    if s.mouse_type == IMPS2:
        packet.append(dz & 0xFF)
    elif s.mouse_type == IMEX:
        packet.append(dz & 0x0F | (s.mouse_buttons & 0x18) << 1)
    for byte in packet:
        ps2_queue(s.common, byte)
    s.mouse_dx -= dx
    s.mouse_dy -= dy
    s.mouse_dz -= dz


@traced
def ps2_mouse_event(opaque: PS2MouseState, dx: int, dy: int, dz: int, buttons_state: int) -> None:
    """Move the mouse, press and let go its buttons."""
    s = opaque
    if not s.mouse_status & MOUSE_STATUS_ENABLED:
        return
    s.mouse_dx += dx
    s.mouse_dy -= dy
    s.mouse_dz += dz
    to_tell = buttons_state != s.mouse_buttons or _moved(s)
    s.mouse_buttons = buttons_state
    if s.mouse_status & MOUSE_STATUS_REMOTE or s.common.queue.count >= PS2_QUEUE_SIZE - 16:
        return
    while to_tell:
        ps2_mouse_send_packet(s)
        # A packet holds only so much of a movement.
        to_tell = _moved(s)


def _moved(s: PS2MouseState) -> bool:
    return any((s.mouse_dx, s.mouse_dy, s.mouse_dz))


def _mouse_defaults(s: PS2MouseState) -> None:
    s.mouse_sample_rate, s.mouse_resolution, s.mouse_status = 100, 2, 0


def _mouse_command(s: PS2MouseState, val: int) -> bytes:
    """Obey a command; the answer."""
    match val:
        case 0xE6:
            s.mouse_status &= ~MOUSE_STATUS_SCALE21
        case 0xE7:
            s.mouse_status |= MOUSE_STATUS_SCALE21
        case 0xEA:
            s.mouse_status &= ~MOUSE_STATUS_REMOTE
        case 0xEE:
            s.mouse_wrap = 1
        case 0xF0:
            s.mouse_status |= MOUSE_STATUS_REMOTE
        case 0xF2:
            return bytes((AUX_ACK, s.mouse_type))
        case 0xE8 | 0xF3:
            s.common.write_cmd = val
        case 0xE9:
            return bytes((AUX_ACK, s.mouse_status, s.mouse_resolution, s.mouse_sample_rate))
        case 0xF4:
            s.mouse_status |= MOUSE_STATUS_ENABLED
        case 0xF5:
            s.mouse_status &= ~MOUSE_STATUS_ENABLED
        case 0xF6:
            _mouse_defaults(s)
        case 0xFF:
            _mouse_defaults(s)
            s.mouse_type = 0
            return bytes((AUX_ACK, 0xAA, s.mouse_type))
        case 0xEB:
            pass
        case _:
            return b""
    return bytes((AUX_ACK,))


def _detect_wheel(s: PS2MouseState, rate: int) -> None:
    """Rates of 200, 100, 80 in turn ask for a wheel; 200, 200, 80 for five buttons."""
    match s.mouse_detect_state, rate:
        case 0, 200:
            s.mouse_detect_state = 1
        case 1, 100:
            s.mouse_detect_state = 2
        case 1, 200:
            s.mouse_detect_state = 3
        case (2 | 3) as asked, 80:
            s.mouse_type = IMPS2 if asked == 2 else IMEX
            s.mouse_detect_state = 0
        case _:
            s.mouse_detect_state = 0


@traced
def ps2_write_mouse(opaque: PS2MouseState, val: int) -> None:
    """Hear a byte from the controller."""
    s = opaque
    if s.common.write_cmd in (AUX_SET_SAMPLE, AUX_SET_RES):
        if s.common.write_cmd == AUX_SET_SAMPLE:
            s.mouse_sample_rate = val
            _detect_wheel(s, val)
        else:
            s.mouse_resolution = val
        ps2_queue(s.common, AUX_ACK)
        s.common.write_cmd = -1
        return
    if s.mouse_wrap and val != AUX_RESET:
        if val == AUX_RESET_WRAP:
            s.mouse_wrap = 0
        ps2_queue(s.common, AUX_ACK if val == AUX_RESET_WRAP else val)
        return
    for byte in _mouse_command(s, val):
        ps2_queue(s.common, byte)
    if val == AUX_POLL:
        ps2_mouse_send_packet(s)


@traced
def ps2_common_reset(s: PS2State) -> None:
    """Empty the queue."""
    s.write_cmd = -1
    s.queue.rptr = s.queue.wptr = s.queue.count = 0
    assert s.update_irq is not None
    s.update_irq(s.update_arg, 0)


@traced
def ps2_kbd_reset(opaque: PS2KbdState) -> None:
    """Put the keyboard into the state after power-on."""
    ps2_common_reset(opaque.common)
    opaque.scan_enabled = opaque.translate = opaque.scancode_set = 0


@traced
def ps2_mouse_reset(opaque: PS2MouseState) -> None:
    """Put the mouse into the state after power-on."""
    s = opaque
    ps2_common_reset(s.common)
    s.mouse_status = s.mouse_resolution = s.mouse_sample_rate = s.mouse_wrap = s.mouse_type = 0
    s.mouse_detect_state = s.mouse_dx = s.mouse_dy = s.mouse_dz = s.mouse_buttons = 0


@traced
def ps2_kbd_init(update_irq: Callable[[Any, int], None], update_arg: Any) -> PS2KbdState:
    """Make the keyboard; what is typed goes there."""
    s = PS2KbdState(common=PS2State(update_irq=update_irq, update_arg=update_arg))
    s.scancode_set = 2
    vmstate_register(0, vmstate_ps2_keyboard, s)
    qemu_add_kbd_event_handler(ps2_put_keycode, s)
    qemu_register_reset(ps2_kbd_reset, s)
    return s


@traced
def ps2_mouse_init(update_irq: Callable[[Any, int], None], update_arg: Any) -> PS2MouseState:
    """Make the mouse."""
    s = PS2MouseState(common=PS2State(update_irq=update_irq, update_arg=update_arg))
    vmstate_register(0, vmstate_ps2_mouse, s)
    qemu_add_mouse_event_handler(ps2_mouse_event, s, 0, "QEMU PS/2 Mouse")
    qemu_register_reset(ps2_mouse_reset, s)
    return s
