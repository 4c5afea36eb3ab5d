"""Who gets what is typed and where the mouse moves: a part of vl.c.

- `kbd_put_keycode(keycode)`: a key goes down, or up with bit 7; codes of set 1, 0xe0 before the grey keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypervisor.program import on_reset
from tracer import Struct, traced

C_FILE = "vl.c"

QEMUPutKBDEvent = Callable[[Any, int], None]
QEMUPutMouseEvent = Callable[[Any, int, int, int, int], None]


class QEMUPutMouseEntry(Struct):
    """`QEMUPutMouseEntry`: a mouse."""

    qemu_put_mouse_event: QEMUPutMouseEvent | None = None
    qemu_put_mouse_event_opaque: Any = None
    qemu_put_mouse_event_absolute: int = 0
    qemu_put_mouse_event_name: str = ""


_keyboard: tuple[QEMUPutKBDEvent, Any] | None = None
_mice: list[QEMUPutMouseEntry] = []
_current: QEMUPutMouseEntry | None = None


@on_reset
def _reset() -> None:
    global _keyboard, _current
    _keyboard = _current = None
    _mice.clear()


@traced
def qemu_add_kbd_event_handler(func: QEMUPutKBDEvent, opaque: Any) -> None:
    """Have `func(opaque, keycode)` get the keys."""
    global _keyboard
    _keyboard = (func, opaque)


@traced
def qemu_add_mouse_event_handler(
    func: QEMUPutMouseEvent, opaque: Any, absolute: int, name: str
) -> QEMUPutMouseEntry:
    """Have `func(opaque, dx, dy, dz, buttons)` get the mouse's movements, from now on alone."""
    global _current
    entry = QEMUPutMouseEntry(
        qemu_put_mouse_event=func,
        qemu_put_mouse_event_opaque=opaque,
        qemu_put_mouse_event_absolute=absolute,
        qemu_put_mouse_event_name=name,
    )
    _mice.append(entry)
    _current = entry
    return entry


def mice() -> list[tuple[QEMUPutMouseEntry, bool]]:
    """All mice, and whether each is the chosen one."""
    return [(mouse, mouse is _current) for mouse in _mice]


def choose_mouse(index: int) -> bool:
    """Give movements to this mouse; False if there is none of that number."""
    global _current
    if not 0 <= index < len(_mice):
        return False
    _current = _mice[index]
    return True


@traced
def kbd_put_keycode(keycode: int) -> None:
    """Give a scan code to the keyboard."""
    if _keyboard is not None:
        func, opaque = _keyboard
        func(opaque, keycode)


@traced
def kbd_mouse_event(dx: int, dy: int, dz: int, buttons_state: int) -> None:
    """Give a movement to the chosen mouse."""
    entry = _current
    if entry is not None:
        assert entry.qemu_put_mouse_event is not None
        entry.qemu_put_mouse_event(entry.qemu_put_mouse_event_opaque, dx, dy, dz, buttons_state)
