"""Keys that the monitor presses, and pictures that it takes of the screen: a part of monitor.c.

`sendkey ctrl-alt-f1` presses the keys in this order, and a timer of the guest's clock lets them go 100 ms
later.

- `key_defs`: (scan code of set 1, name); bit 7 of the code stands for a grey key, with 0xe0 before it.
- `do_sendkey`, `do_screen_dump`.
"""

from __future__ import annotations

from typing import Final

from hypervisor.monitor import Arguments, Monitor, monitor_printf
from hypervisor.program import on_reset
from hypervisor.screendump import vga_hw_screen_dump
from hypervisor.vl_input import kbd_put_keycode
from hypervisor.vl_timers import (
    QEMUTimer,
    qemu_del_timer,
    qemu_get_clock,
    qemu_mod_timer,
    qemu_new_timer,
    vm_clock,
)
from tracer import traced

C_FILE = "monitor.c"

MAX_KEYCODES: Final = 16
_NAME_SIZE = 16
_HOLD_MS = 100
_ROWS = (
    (0x02, "1 2 3 4 5 6 7 8 9 0 minus equal backspace tab q w e r t y u i o p"),
    (0x1E, "a s d f g h j k l"),
    (0x2C, "z x c v b n m comma dot slash"),
    (0x3A, "caps_lock f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 num_lock scroll_lock"),
    (0x47, "kp_7 kp_8 kp_9 kp_subtract kp_4 kp_5 kp_6 kp_add kp_1 kp_2 kp_3 kp_0 kp_decimal sysrq"),
)
_SINGLE = """
    2a shift 36 shift_r 38 alt b8 alt_r 64 altgr e4 altgr_r 1d ctrl 9d ctrl_r dd menu 01 esc 1c ret
    37 asterisk 39 spc b5 kp_divide 37 kp_multiply 9c kp_enter 56 < 57 f11 58 f12 b7 print
    c7 home c9 pgup d1 pgdn cf end cb left c8 up d0 down cd right d2 insert d3 delete
"""


def _keys() -> list[tuple[int, str]]:
    words = _SINGLE.split()
    keys = [(int(code, 16), name) for code, name in zip(words[::2], words[1::2], strict=True)]
    for first, names in _ROWS:
        keys += [(first + at, name) for at, name in enumerate(names.split())]
    return keys


key_defs = _keys()
_keycodes: list[int] = []
_timer: QEMUTimer | None = None


@on_reset
def _reset() -> None:
    global _timer
    _keycodes.clear()
    _timer = None


def make_timer() -> None:
    """Make the timer that lets keys go, with the first monitor."""
    global _timer
    _timer = qemu_new_timer(vm_clock, release_keys, None)


@traced
def get_keycode(key: str) -> int:
    """Scan code of a key by its name, or as a number like 0x1e; -1 for another.

    Examples
    --------
    >>> get_keycode("ret"), get_keycode("p"), get_keycode("0xff"), get_keycode("any")
    (28, 25, 255, -1)
    """
    for keycode, name in key_defs:
        if key == name:
            return keycode
    digits = key.removeprefix("0x")
    if digits != key and digits and all(letter in "0123456789abcdefABCDEF" for letter in digits):
        number = int(digits, 16)
        return number if 1 <= number <= 0xFF else -1
    return -1


def _put(keycode: int, code: int) -> None:
    if keycode & 0x80:
        kbd_put_keycode(0xE0)
    kbd_put_keycode(code)


@traced
def release_keys(opaque: None) -> None:
    """Let the keys go, the last pressed first."""
    while _keycodes:
        keycode = _keycodes.pop()
        _put(keycode, keycode | 0x80)


@traced
def do_sendkey(mon: Monitor, qdict: Arguments) -> None:
    """Obey `sendkey`."""
    assert _timer is not None
    if _keycodes:
        qemu_del_timer(_timer)
        release_keys(None)
    codes: list[int] = []
    for name in filter(None, qdict["string"].split("-")):
        if len(name) > _NAME_SIZE - 1:
            monitor_printf(mon, "invalid key: '%s...'\n", name[: _NAME_SIZE - 1])
            return
        if len(codes) == MAX_KEYCODES:
            monitor_printf(mon, "too many keys\n")
            return
        codes.append(get_keycode(name))
        if codes[-1] < 0:
            monitor_printf(mon, "unknown key: '%s'\n", name)
            return
    _keycodes.extend(codes)
    for keycode in codes:
        _put(keycode, keycode & 0x7F)
    hold_time = qdict.get("hold_time", _HOLD_MS)
    qemu_mod_timer(_timer, qemu_get_clock(vm_clock) + hold_time * 1_000_000)


@traced
def do_screen_dump(mon: Monitor, qdict: Arguments) -> None:
    """Obey `screendump`."""
    vga_hw_screen_dump(qdict["filename"])
