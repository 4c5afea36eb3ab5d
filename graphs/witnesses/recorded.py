"""The recording as a witness: which calls the real program made, on the functions that a trace would show.

- `recorded(recording, source, known) -> dict`: (caller, callee) -> `Made`.

Of the emulator only the complete part counts: up to its third `main_loop_wait`, or its first 760,000 entries
where everything was kept longer. Behind it a call may stand under one that is not its caller. A signal
handler and what it calls stand under whatever was interrupted, some of it as if called there itself: what the
handler reaches, and the function above it does not call in the source, is left out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphs.calls import Name

if TYPE_CHECKING:
    from graphs.recordings import Recording
    from graphs.witnesses.source import Source

_EVERYTHING, _TURNS = 760_000, 3
_LOOP = ("vl.c", "main_loop_wait")


@dataclass
class Made:
    """How often a call was recorded, and the functions on its way, the first time, that a trace lacks."""

    times: int
    through: tuple[Name, ...]


Calls = dict[tuple[Name | None, Name], Made]


def recorded(recording: Recording, source: Source, known: Collection[Name]) -> Calls:
    """Return the calls of a recording between `known` functions; the caller is None for what nobody calls."""
    walk = _Walk(source, known)
    system = "system" in recording.program
    turns = 0
    for line, (depth, name, thread) in enumerate(recording.calls, 1):
        turns += system and name == _LOOP
        if system and (line > _EVERYTHING or (turns >= _TURNS and "everything" not in recording.name)):
            break
        walk.add(depth, name, thread)
    return walk.calls


class _Walk:
    def __init__(self, source: Source, known: Collection[Name]) -> None:
        self.calls: Calls = {}
        self._source, self._known = source, known
        self._handlers: dict[Name, bool] = {}
        self._stacks: dict[int, list[Name]] = {}
        # by thread: the handler's depth and what it reaches
        self._struck: dict[int, tuple[int, Collection[Name]]] = {}

    def add(self, depth: int, name: Name, thread: int) -> None:
        stack = self._stacks.setdefault(thread, [])
        del stack[depth:]
        if name not in self._handlers:
            self._handlers[name] = self._source.is_signal_handler(name)
        if self._handlers[name]:
            self._struck[thread] = depth, self._source.reach(name)
            if name in self._known:
                self._note((None, name), ())
        elif name in self._known and not self._of_handler(depth, name, thread, stack):
            self._pair(stack, name)
        stack.append(name)

    def _of_handler(self, depth: int, name: Name, thread: int, stack: list[Name]) -> bool:
        struck, reached = self._struck.get(thread, (depth + 1, ()))
        if depth > struck:
            return True
        nominal = stack[-1] if stack else None
        if depth == struck and name in reached and not (nominal and self._source.calls(nominal, name)):
            return True
        self._struck.pop(thread, None)
        return False

    def _pair(self, stack: list[Name], name: Name) -> None:
        for above in range(len(stack) - 1, -1, -1):
            if stack[above] in self._known:
                self._note((stack[above], name), tuple(stack[above + 1 :]))
                return
        self._note((None, name), ())

    def _note(self, pair: tuple[Name | None, Name], through: tuple[Name, ...]) -> None:
        made = self.calls.get(pair)
        if made is None:
            self.calls[pair] = Made(1, through)
            return
        made.times += 1
        if len(through) < len(made.through):
            made.through = through
