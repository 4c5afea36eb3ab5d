"""Modelled C structs, whose field writes are recorded while a trace runs.

- `Struct`: base class. Annotated fields with defaults; keyword-only init; equality is identity.
- `symbol(obj, name)`: names a static object, shown as ``&bdrv_raw``.
- `install_hooks(create, write)`, `remove_hooks()`: used by a session; while idle there are none.

Only declared fields without a leading underscore are recorded, and only when they are assigned: what happens
inside a list or a bytearray that a field holds is not.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, dataclass_transform

from tracer.errors import TracerError

MISSING = dataclasses.MISSING
T = TypeVar("T")
_CLASS_VAR = re.compile(r"(typing\.)?ClassVar\b")


class StructType(type):
    """Metaclass of structures: marks them, and carries the creation hook while a trace runs."""


@dataclass_transform(
    kw_only_default=True, eq_default=False, field_specifiers=(dataclasses.field, dataclasses.Field)
)
class Struct(metaclass=StructType):
    """Base class of a modelled C struct.

    Examples
    --------
    >>> class BDRVRawState(Struct):
    ...     fd: int = -1
    ...     type: int = 0
    >>> BDRVRawState(fd=3)
    BDRVRawState(fd=3, type=0)
    """

    __slots__ = ("__dict__", "__weakref__", "_trace_ref", "_trace_symbol")
    __struct_fields__: ClassVar[dict[str, None]] = {}
    __struct_defaults__: ClassVar[dict[str, Any]] = {}
    __struct_factories__: ClassVar[dict[str, Callable[[], Any]]] = {}
    __struct_wanted__: ClassVar[list[str]] = []
    _trace_ref: tuple[int, tuple[str, str]]
    _trace_symbol: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if type(cls) is not StructType:
            raise TracerError(f"{cls.__name__}: a Struct cannot have the metaclass {type(cls).__name__}")
        defaults: dict[str, Any] = {}
        factories: dict[str, Callable[[], Any]] = {}
        for base in reversed(cls.__mro__[1:]):
            defaults |= base.__dict__.get("__struct_defaults__", {})
            factories |= base.__dict__.get("__struct_factories__", {})
        for name in _declared(cls):
            defaults[name], factory = _default(cls, name)
            factories.pop(name, None)
            if factory is not None:
                defaults[name] = None
                factories[name] = factory
        cls.__struct_defaults__, cls.__struct_factories__ = defaults, factories
        cls.__struct_wanted__ = [name for name, value in defaults.items() if value is MISSING]
        cls.__struct_fields__ = dict.fromkeys(name for name in defaults if not name.startswith("_"))

    def __init__(self, /, **values: Any) -> None:
        cls = type(self)
        fields = self.__dict__
        fields.update(cls.__struct_defaults__)
        if values:
            if not values.keys() <= fields.keys():
                unknown = min(values.keys() - fields.keys())
                raise TypeError(f"{cls.__name__} has no field {unknown!r}; it has {', '.join(fields)}")
            fields.update(values)
        for name, factory in cls.__struct_factories__.items():
            if name not in values:
                fields[name] = factory()
        for name in cls.__struct_wanted__:
            if name not in values:
                raise TypeError(f"{cls.__name__}: field {name!r} wants a value: {cls.__name__}({name}=...)")
        self.__post_init__()

    def __post_init__(self) -> None:
        """Complete an object whose fields are set."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave the trace id and the symbol behind: a copy is another object."""
        return dict(self.__dict__)

    def __repr__(self) -> str:
        """Show scalar fields; pointers by their class only, so that rings of structures end."""
        values = self.__dict__
        parts = [f"{name}={_brief(values[name])}" for name in self.__struct_fields__ if name in values]
        return f"{type(self).__name__}({', '.join(parts)})"


def _declared(cls: type) -> list[str]:
    """Names of the fields that a class adds to its bases'."""
    annotations = inspect.get_annotations(cls)
    return [name for name, kind in annotations.items() if not _CLASS_VAR.match(str(kind))]


def _default(cls: type, name: str) -> tuple[Any, Callable[[], Any] | None]:
    """Value of a field unless one is given, and what makes it; the class shows plain defaults only."""
    value = cls.__dict__.get(name, MISSING)
    if isinstance(value, dataclasses.Field):
        default, factory = value.default, value.default_factory
        if default is MISSING:
            delattr(cls, name)
        else:
            setattr(cls, name, default)
        return default, None if factory is MISSING else factory
    if type(value).__hash__ is None:
        raise TracerError(
            f"{cls.__name__}.{name}: all objects would share this {type(value).__name__};"
            " write field(default_factory=...)"
        )
    return value, None


def _brief(value: Any) -> str:
    kind = type(value)
    if kind in (int, bool, float, type(None)):
        return str(value)
    if kind is str:
        return repr(value if len(value) <= 40 else value[:39] + "…")
    if kind in (bytes, bytearray, list, tuple, dict, set):
        return f"<{kind.__name__}[{len(value)}]>"
    return f"<{kind.__name__}>"


NAMES: dict[int, tuple[weakref.ref[Any], str]] = {}
"""Named objects that are no structures: id -> (weak reference, name)."""


def symbol(obj: T, name: str) -> T:
    """Give a static C object its name, and return the object.

    Parameters
    ----------
    obj
        A structure or any object that a weak reference can point to; it is not kept alive.
    name : const char *
        The C identifier, shown as ``&name``.

    Raises
    ------
    TracerError
        When `obj` is a list, an int or the like, which no weak reference can point to.
    """
    if isinstance(obj, Struct):
        obj._trace_symbol = name
        # a running trace announces it again, under its name
        obj._trace_ref = (0, ("@", ""))
        return obj
    key = id(obj)
    try:
        NAMES[key] = (weakref.ref(obj, lambda _: NAMES.pop(key, None)), name)
    except TypeError:
        kind = type(obj).__name__
        raise TracerError(
            f"symbol {name!r}: a {kind} cannot be named; make it a Struct or a class of its own"
        ) from None
    return obj


def install_hooks(create: Callable[..., Any], write: Callable[[Any, str, Any], None]) -> None:
    """Have `create` called for ``Class(...)`` and `write` for every attribute assignment."""
    StructType.__call__ = create  # type: ignore[method-assign]
    Struct.__setattr__ = write  # type: ignore[method-assign]


def remove_hooks() -> None:
    """Return to plain creation and assignment."""
    if "__call__" in StructType.__dict__:
        del StructType.__call__
        del Struct.__setattr__
