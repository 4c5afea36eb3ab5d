"""Notes on the real program's oddities that a run met.

The model keeps what qemu-kvm 0.12.4 did, also where that was odd. Code that takes such a path calls
`note`, so that ``studykvm boot`` can tell its reader afterwards.

- ``note(key, text)``: remember a quirk once a run
- ``notes()``: key -> text, in the order they were met

Examples
--------
>>> reset()
>>> note("probe-raw", "no probe knows the image: it is taken as raw")
>>> note("probe-raw", "no probe knows the image: it is taken as raw")
>>> list(notes())
['probe-raw']
>>> reset()
"""

from __future__ import annotations

from hypervisor.program import on_reset

_notes: dict[str, str] = {}


def note(key: str, text: str) -> None:
    """Remember that the quirk `key` was met; the first text for a key stays."""
    _notes.setdefault(key, text)


def notes() -> dict[str, str]:
    """All quirks met since the program started, a copy."""
    return dict(_notes)


@on_reset
def reset() -> None:
    """Forget all notes; runs when a program starts."""
    _notes.clear()
