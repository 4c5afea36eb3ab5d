"""Values as events hold them: short, plain, and without a reference to the program's objects.

- `make_encoder(reference)`: the function that turns any object into an encoded value.
- `show(value)`: an encoded value as text, in the notation of a C programmer; `escape(text)`: its strings.

Encoded values, all of them plain data that msgpack can hold::

    None, bool, int, float, str     themselves (a str is cut at STR_LIMIT characters)
    ("@", "BlockDriverState#3")     a reference to a structure
    ("&", "qcow_open")              the address of a function or of a static object
    ("b", "bytes[512]")             a buffer: its type and its length
    ("(", ...), ("[", ...)          a short tuple or list of encoded values
    ("{", key, value, ...)          a short dict
    ("?", "socket")                 anything else: its type's name

No method of the program's classes is called: neither `__repr__`, `__str__`, `__len__` nor `__class__`. So no
broken one can hurt, and none can make the recording slow.
"""

from __future__ import annotations

from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final, TypeAlias

Value: TypeAlias = Any
"""An encoded value (see the module's docstring)."""

STR_LIMIT: Final = 200
ITEM_LIMIT: Final = 8
DEPTH_LIMIT: Final = 3
ATOMS: Final = frozenset({int, bool, float, type(None)})
"""Types whose objects are their own encoding; a str is one too, when it is short."""

type_name: Callable[[type], str] = type.__dict__["__name__"].__get__
_BUILTIN_FUNCTIONS = frozenset({BuiltinFunctionType, type(str.join), type(object().__str__)})


def make_encoder(reference: Callable[[Any, type], Value | None]) -> Callable[[Any], Value]:
    """Return the encoding function of one recording.

    Parameters
    ----------
    reference
        Called as ``reference(object, type)`` for objects that are no plain data; gives the encoded
        reference of a structure or a named object, or None.

    Examples
    --------
    >>> encode = make_encoder(lambda obj, kind: None)
    >>> encode(bytearray(512)), encode(("a", 1)), encode(object())
    (('b', 'bytearray[512]'), ('(', 'a', 1), ('?', 'object'))
    """

    def encode(value: Any, depth: int = 0) -> Value:
        kind = type(value)
        if kind is str:
            return value if len(value) <= STR_LIMIT else value[: STR_LIMIT - 1] + "…"
        if kind in ATOMS:
            return value
        if kind is tuple or kind is list or kind is dict:
            return _container(value, kind, depth)
        if kind is bytes or kind is bytearray:
            return ("b", f"{type_name(kind)}[{len(value)}]")
        found = reference(value, kind)
        if found is not None:
            return found
        return _plain(value, kind)

    def _container(value: Any, kind: type, depth: int) -> Value:
        size = len(value)
        if size > ITEM_LIMIT or depth >= DEPTH_LIMIT:
            return ("?", f"{type_name(kind)}[{size}]")
        if kind is dict:
            flat = [encode(part, depth + 1) for pair in list(value.items()) for part in pair]
            return ("{", *flat)
        return ("(" if kind is tuple else "[", *[encode(part, depth + 1) for part in list(value)])

    return encode


def _plain(value: Any, kind: type) -> Value:
    """Encode an object that is neither atom, container nor structure."""
    if kind is MethodType:
        return _plain(value.__func__, type(value.__func__))
    if kind is FunctionType:
        traced = value.__dict__.get("__traced__")
        return ("&", value.__name__ if traced is None else traced.name)
    if kind in _BUILTIN_FUNCTIONS:
        return ("&", value.__name__)
    if kind is memoryview:
        try:
            return ("b", f"memoryview[{value.nbytes}]")
        except ValueError:
            return ("b", "memoryview[released]")
    # a subclass's data, by the base's own methods
    if issubclass_exact(kind, int):
        return int.__pos__(value)
    if issubclass_exact(kind, str):
        return str.__getitem__(value, slice(0, STR_LIMIT))
    if issubclass_exact(kind, float):
        return float.__pos__(value)
    return ("?", type_name(kind))


def issubclass_exact(kind: type, base: type) -> bool:
    """Whether `kind` derives from `base`, without asking any metaclass."""
    return base in type.__dict__["__mro__"].__get__(kind)


def show(value: Value) -> str:
    r"""Return an encoded value as text.

    Examples
    --------
    >>> show(("@", "BlockDriverState#3")), show(("&", "qcow_open")), show(None), show("a\n")
    ('BlockDriverState#3', '&qcow_open', 'NULL', '"a\\n"')
    >>> show(("(", -2, None)), show(("{", "index", 1)), show(("b", "bytes[512]")), show(True)
    ('(-2, NULL)', '{"index": 1}', 'bytes[512]', '1')
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, str):
        return '"' + escape(value) + '"'
    if not isinstance(value, tuple) or not value:
        return str(value)
    tag, items = value[0], value[1:]
    if tag == "(":
        return "(" + ", ".join(map(show, items)) + ")"
    if tag == "[":
        return "[" + ", ".join(map(show, items)) + "]"
    if tag == "{":
        pairs = zip(items[::2], items[1::2], strict=False)
        return "{" + ", ".join(f"{show(key)}: {show(item)}" for key, item in pairs) + "}"
    text = escape(str(items[0])) if items else ""
    if tag == "&":
        return "&" + text
    return f"<{text}>" if tag == "?" else text


def escape(text: str) -> str:
    r"""Return `text` with quotes, backslashes and what cannot be printed as C escapes.

    >>> print(escape('a"b\n\udc80'))
    a\"b\n\udc80
    """
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else char.encode("unicode_escape").decode()
