"""Answers as plain values: lists, dicts, texts and numbers, all that judges and the checker are given.

- `plain(answer)`: nothing in it runs code of the student's own, so that no answer is told what is right
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from studykvm.coursework.answers import BadAnswer, function, limited, text_of
from studykvm.coursework.sources import Name

_DEEPEST = 5
_ALL = 20_000
"""The most items of an answer together, however nested."""


def plain(answer: Any) -> Any:
    """Make an answer of plain values, so that no code of its own takes part in judging it.

    A function, a call of a trace and a (file, name) pair become "file:name", a graph its pairs, a set a
    sorted list; ``...`` is left out.

    >>> plain({"a": ("vl.c", "main"), "b": ..., "c": {2, 1}})
    {'a': 'vl.c:main', 'c': [1, 2]}
    """
    return _Plain().made(answer, 0)


class _Plain:
    """Counts what it makes, for an answer may be nested and endless."""

    def __init__(self) -> None:
        self.count = 0

    def made(self, answer: Any, depth: int) -> Any:
        self.count += 1
        if depth > _DEEPEST:
            raise BadAnswer("the answer is nested too deep to be read")
        if self.count > _ALL:
            raise BadAnswer(f"more than {_ALL:,} items are no answer: name those that the question asks for")
        # Arithmetic of the plain types, since a class of the student's own may have changed its own.
        if answer is None or isinstance(answer, bool):
            return answer
        if isinstance(answer, int):
            return int.__add__(answer, 0)
        if isinstance(answer, float):
            return float.__add__(answer, 0.0)
        if isinstance(answer, str):
            return str.__str__(text_of(answer))
        if type(answer).__module__ == "numpy" and not hasattr(answer, "__len__"):
            return self.made(answer.item(), depth + 1)
        if isinstance(answer, numbers.Real):
            return float(answer)
        return self._several(answer, depth)

    def _several(self, answer: Any, depth: int) -> Any:
        if isinstance(answer, bytes | bytearray | memoryview):
            raise BadAnswer("bytes are no answer: write names, numbers or lists of them")
        if hasattr(answer, "edges") and hasattr(answer, "nodes") and not isinstance(answer, type):
            return [[self.made(end, depth + 1) for end in edge[:2]] for edge in limited(iter(answer.edges()))]
        if isinstance(answer, Mapping):
            pairs = [(key, value) for key, value in limited(answer) if value is not ...]
            return {self._key(key, depth): self.made(value, depth + 1) for key, value in pairs}
        if isinstance(answer, tuple) and len(answer) == 2 and str(answer[0]).endswith((".c", ".h")):
            return f"{self.made(answer[0], depth + 1)}:{self.made(answer[1], depth + 1)}"
        if callable(answer) or (hasattr(answer, "function") and hasattr(answer, "file")):
            named = function(answer)
            return str(Name(self.made(named.file, depth + 1), self.made(named.name, depth + 1)))
        if isinstance(answer, set | frozenset):
            return sorted((self.made(item, depth + 1) for item in limited(answer)), key=repr)
        if isinstance(answer, Iterable):
            return [self.made(item, depth + 1) for item in limited(answer) if item is not ...]
        raise BadAnswer(f"{type(answer).__name__[:40]!r} is no answer: write names, numbers or lists of them")

    def _key(self, key: Any, depth: int) -> str:
        made = self.made(key, depth + 1)
        return made if isinstance(made, str) else str(made)
