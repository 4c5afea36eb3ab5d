"""Modelled C structs, whose field writes are recorded while a trace runs.

- `Struct`: base class. Annotated fields with defaults; keyword-only init; equality is identity.
- `symbol(obj, name)`: names a static object, shown as ``&bdrv_raw``.
- `install_hooks(create, write)`, `remove_hooks()`: used by a session; while idle there are none.

Only declared fields without a leading underscore are recorded, and only when they are assigned: what happens
inside a list or a bytearray that a field holds is not.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, dataclass_transform

from tracer.errors import TracerError

T = TypeVar("T")


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
    _trace_ref: tuple[int, tuple[str, str]]
    _trace_symbol: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if type(cls) is not StructType:
            raise TracerError(f"{cls.__name__}: a Struct cannot have the metaclass {type(cls).__name__}")
        dataclasses.dataclass(kw_only=True, eq=False, repr=False)(cls)
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        cls.__struct_fields__ = dict.fromkeys(name for name in names if not name.startswith("_"))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the trace id and the symbol behind: a copy is another object."""
        return dict(self.__dict__)

    def __repr__(self) -> str:
        """Show scalar fields; pointers by their class only, so that rings of structures end."""
        values = self.__dict__
        parts = [f"{name}={_brief(values[name])}" for name in self.__struct_fields__ if name in values]
        return f"{type(self).__name__}({', '.join(parts)})"


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
