"""Values as events hold them: short, plain, and without a reference to the program's objects.

- `make_encoder(...)`: the function that turns any object into an encoded value.
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
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodType, NoneType
from typing import Any, Final, TypeAlias

Value: TypeAlias = Any
"""An encoded value (see the module's docstring)."""

STR_LIMIT: Final = 200
ITEM_LIMIT: Final = 8
DEPTH_LIMIT: Final = 3
BUFFER_SIZES: Final = 4096

type_name: Callable[[type], str] = type.__dict__["__name__"].__get__
_mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__


def make_encoder(
    struct_type: type, serial: int, announce: Callable[[Any], Value], names: dict[int, tuple[Any, str]]
) -> Callable[[Any], Value]:
    """Return the encoding function of one recording.

    Parameters
    ----------
    struct_type
        Metaclass of structures; one that this recording knows has ``_trace_ref = (serial, encoded value)``.
    serial
        Number of the recording.
    announce
        Makes a structure known; gives its encoded value.
    names
        Other objects that have a name: id -> (weak reference, name).

    Examples
    --------
    >>> encode = make_encoder(type("Marker", (type,), {}), 1, lambda obj: None, {})
    >>> encode(bytearray(512)), encode(("a", 1)), encode(object())
    (('b', 'bytearray[512]'), ('(', 'a', 1), ('?', 'object'))
    """
    buffers: dict[type, dict[int, Value]] = {bytes: {}, bytearray: {}, memoryview: {}}

    def encode(value: Any, depth: int = 0) -> Value:
        # `is` only: `==` and hashes of classes can be their metaclass's
        kind = type(value)
        if kind is str:
            return value if len(value) <= STR_LIMIT else value[: STR_LIMIT - 1] + "…"
        if type(kind) is struct_type:
            try:
                known, ref = value._trace_ref
                if known == serial:
                    return ref
            except AttributeError:
                pass
            return announce(value)
        if kind is int or kind is bool or kind is NoneType or kind is float:
            return value
        if kind is bytearray or kind is bytes or kind is memoryview:
            return _buffer(value, kind)
        if kind is tuple or kind is list or kind is dict:
            return _container(value, kind, depth)
        if names and id(value) in names:
            return ("&", names[id(value)][1])
        return _plain(value, kind)

    def _buffer(value: Any, kind: type) -> Value:
        try:
            size = value.nbytes if kind is memoryview else len(value)
        except ValueError:
            return ("b", "memoryview[released]")
        known = buffers[kind]
        found = known.get(size)
        if found is None:
            found = ("b", f"{type_name(kind)}[{size}]")
            # sizes repeat: one tuple for all of them spares time and memory
            if len(known) < BUFFER_SIZES:
                known[size] = found
        return found

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
    if kind is BuiltinFunctionType or kind is MethodDescriptorType:
        return ("&", value.__name__)
    # a subclass's data, by the base's own methods
    for base in _mro(kind):
        if base is int:
            return int.__pos__(value)
        if base is str:
            return str.__getitem__(value, slice(0, STR_LIMIT))
        if base is float:
            return float.__pos__(value)
    return ("?", type_name(kind))


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
