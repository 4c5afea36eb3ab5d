"""Objects to JSON text, as 0.12.4 writes it: qjson.c, with the order of members of qdict.c.

`QObject` is one of Python's dict, list, str, int, float and bool. A QDict is a hash table, and its members
are written in the order of the table: `tdb_hash` of the name modulo 512, of equal ones the latest first.

- `qobject_to_json(obj) -> str`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

from tracer import traced

C_FILE = "qjson.c"

QObject: TypeAlias = Any
QDICT_HASH_SIZE = 512

_MARKED = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@cache
def _bucket(name: str) -> int:
    """`tdb_hash` of qdict.c, modulo the table's size."""
    raw = name.encode("utf-8", "surrogateescape")
    value = 0x238F13AF * len(raw)
    for place, byte in enumerate(raw):
        value += byte << place * 5 % 24
    return (1103515243 * value + 12345 & 0xFFFFFFFF) % QDICT_HASH_SIZE


def _letter(letter: str) -> str:
    if letter in _MARKED:
        return _MARKED[letter]
    code = ord(letter)
    # Other control characters go out as they are in 0.12.4, which no reader of JSON takes.
    if code < 32:
        return f"\\u{code:04X}"
    if code < 127:
        return letter
    if code < 0x10000:
        return f"\\u{code:04X}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04X}\\u{0xDC00 + (code & 0x3FF):04X}"


@traced
def to_json(obj: QObject) -> str:
    """Text of one object and what is in it."""
    if isinstance(obj, dict):
        names = sorted(reversed(obj), key=_bucket)
        return "{" + ", ".join(f"{to_json(name)}: {to_json(obj[name])}" for name in names) + "}"
    if isinstance(obj, list):
        return "[" + ", ".join(map(to_json, obj)) + "]"
    if isinstance(obj, bool):
        return "true" if obj else "false"
    if isinstance(obj, int):
        return str(obj)
    if isinstance(obj, float):
        return f"{obj:f}".rstrip("0").rstrip(".")
    return '"' + "".join(map(_letter, str(obj))) + '"'


@traced
def qobject_to_json(obj: QObject) -> str:
    """JSON text of an object.

    Examples
    --------
    >>> qobject_to_json({"QMP": {"capabilities": []}, "n": 2.5, "b": True})
    '{"n": 2.5, "QMP": {"capabilities": []}, "b": true}'
    """
    return to_json(obj)
