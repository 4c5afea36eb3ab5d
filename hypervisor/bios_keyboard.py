"""The built-in BIOS's keyboard interrupt, INT 09h: scan codes of set 1 to keys in the buffer of INT 16h.

Which of shift, ctrl and alt are down stands where BIOS programs look for it, at 0040:0017; that 0xe0 came
last, at 0040:0096.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypervisor.exec import ram
from hypervisor.ioport import cpu_inb, cpu_outb

_DATA, _STATUS = 0x60, 0x64
_SHIFTS, _EXTENDED = 0x417, 0x496
_GREY = 0x02
_HELD: Final = {0x2A: 0x02, 0x36: 0x01, 0x1D: 0x04, 0x38: 0x08}
_ROWS = (
    (0x02, "1234567890-=", "!@#$%^&*()_+"),
    (0x10, "qwertyuiop[]", "QWERTYUIOP{}"),
    (0x1E, "asdfghjkl;'`", 'ASDFGHJKL:"~'),
    (0x2B, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
)
_KEYS = {first + at: pair for first, *rows in _ROWS for at, pair in enumerate(zip(*rows, strict=True))}
_KEYS |= {
    0x01: ("\x1b", "\x1b"),
    0x0E: ("\b", "\b"),
    0x0F: ("\t", "\0"),
    0x1C: ("\r", "\r"),
    0x39: (" ", " "),
}
_KEYS |= {0x37: ("*", "*"), 0x4A: ("-", "-"), 0x4E: ("+", "+")}
_WITHOUT_LETTER = (*range(0x3B, 0x45), *range(0x47, 0x54), 0x57, 0x58)


def set_up() -> None:
    """Have the keyboard's controller send codes of set 1 and interrupts."""
    cpu_outb(_STATUS, 0x60)
    cpu_outb(_DATA, 0x41)


def serve(put: Callable[[int, int], None]) -> None:
    """Take what the keyboard has; `put(letter, scan code)` gets the keys."""
    while cpu_inb(_STATUS) & 0x21 == 0x01:
        _take(cpu_inb(_DATA), put)


def _take(code: int, put: Callable[[int, int], None]) -> None:
    memory = ram()
    grey = memory[_EXTENDED] & _GREY
    memory[_EXTENDED] = memory[_EXTENDED] & ~_GREY | (_GREY if code == 0xE0 else 0)
    key, up = code & 0x7F, code & 0x80
    if key in _HELD:
        bit = _HELD[key]
        memory[_SHIFTS] = memory[_SHIFTS] & ~bit | (0 if up else bit)
    elif not up:
        letter = _letter(key, memory[_SHIFTS], bool(grey))
        if letter is not None:
            put(letter, key)


def _letter(key: int, shifts: int, grey: bool) -> int | None:
    """Code of the key's letter, 0 for a key without one, None for a key that says nothing."""
    if grey and key not in (0x1C, 0x35):
        return 0 if key in _WITHOUT_LETTER else None
    if key in _KEYS:
        plain, shifted = _KEYS[key]
        letter = ord(shifted if shifts & 0x03 else plain)
        if shifts & 0x08:
            return 0
        return letter & 0x1F if shifts & 0x04 and chr(letter).isalpha() else letter
    return 0 if key in _WITHOUT_LETTER else None
