"""Traced functions: their identity (C file, C function), and swapping their code in and out.

- `traced`: the decorator. It returns the very function it is given; a call costs nothing while no trace runs.
- `TracedFunction`, `registry()`: everything decorated so far.
- `install(session)` / `uninstall()`: recording code in, original code back.
"""

from __future__ import annotations

import inspect
import itertools
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import CodeType, FunctionType
from typing import Any, TypeVar, overload

from tracer.codegen import recording_code
from tracer.errors import TracerError
from tracer.session import Session, current

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(eq=False, slots=True)
class TracedFunction:
    """What is known of a traced function; a definition that runs twice (a closure) is one function.

    Attributes
    ----------
    fid
        Number in this process, in order of decoration.
    file, name
        C file (``block/qcow.c``) and C function.
    module, line, params
        Python module, line of the definition, parameter names (``*args`` with its star).
    """

    fid: int
    file: str
    name: str
    module: str
    line: int
    params: tuple[str, ...]
    instances: set[weakref.ref[FunctionType]] = field(default_factory=set, repr=False)

    @property
    def function(self) -> FunctionType | None:
        """The Python function, or None when it is gone."""
        return next(self.functions(), None)

    def functions(self) -> Iterator[FunctionType]:
        """The Python functions that still exist."""
        return (function for reference in list(self.instances) if (function := reference()) is not None)


_entries: dict[tuple[str, str, str, int, tuple[str, ...]], TracedFunction] = {}
_installed: list[tuple[weakref.ref[FunctionType], CodeType, CodeType]] = []


@overload
def traced(function: F, /) -> F: ...
@overload
def traced(*, name: str | None = None, file: str | None = None) -> Callable[[F], F]: ...
def traced(function: Any = None, /, *, name: str | None = None, file: str | None = None) -> Any:
    """Mark a function of the model for recording.

    Parameters
    ----------
    name
        C name, when it is not the Python name.
    file
        C file, when it is not the module's ``C_FILE``.

    Raises
    ------
    TracerError
        When it is no Python function, or no C file is known.
    """
    if function is None:
        return lambda function: traced_as(function, name, file)
    return traced_as(function, name, file)


def traced_as(function: F, name: str | None, file: str | None) -> F:
    """Register `function` under a C name and file, and return it.

    Raises
    ------
    TracerError
        For anything but a Python function, or when neither `file` nor the module names a C file.
    """
    plain = getattr(function, "__func__", function)
    if not isinstance(plain, FunctionType):
        raise TracerError(f"@traced: {function!r} is no Python function; decorate a def")
    code, c_file = plain.__code__, file or plain.__globals__.get("C_FILE")
    if not isinstance(c_file, str):
        raise TracerError(
            f'@traced {plain.__qualname__}: declare C_FILE = "..." at the top of {plain.__module__}'
        )
    c_name, params = name or plain.__name__, _params(code)
    key = (plain.__module__, c_file, c_name, code.co_firstlineno, params)
    entry = _entries.get(key)
    if entry is None:
        entry = TracedFunction(len(_entries), c_file, c_name, plain.__module__, code.co_firstlineno, params)
        _entries[key] = entry
    entry.instances.add(weakref.ref(plain, entry.instances.discard))
    plain.__dict__["__traced__"] = entry
    session = current()
    if session is not None:
        _swap(entry, plain, session)
    return function


_STARS = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


def _params(code: CodeType) -> tuple[str, ...]:
    count = code.co_argcount + code.co_kwonlyargcount
    if not code.co_flags & _STARS:
        return code.co_varnames[:count]
    names = list(code.co_varnames[:count])
    stars = [
        mark
        for flag, mark in ((inspect.CO_VARARGS, "*"), (inspect.CO_VARKEYWORDS, "**"))
        if code.co_flags & flag
    ]
    names += [mark + name for mark, name in zip(stars, code.co_varnames[count:], strict=False)]
    return tuple(names)


def registry() -> list[TracedFunction]:
    """Return everything decorated so far that still exists, in order of decoration."""
    return [entry for entry in list(_entries.values()) if entry.function is not None]


def entries_from(fid: int) -> list[TracedFunction]:
    """Return the functions with this number and above."""
    return list(itertools.islice(_entries.values(), fid, None)) if fid < len(_entries) else []


def install(session: Session) -> None:
    """Swap recording code into every traced function."""
    for entry in list(_entries.values()):
        for function in entry.functions():
            _swap(entry, function, session)


def _swap(entry: TracedFunction, function: FunctionType, session: Session) -> None:
    if session.only and not any(fnmatchcase(entry.file, pattern) for pattern in session.only):
        return
    code = function.__code__
    original = FunctionType(code, function.__globals__, function.__name__, None, function.__closure__)
    recording = recording_code(entry.fid, code, original, session)
    _installed.append((weakref.ref(function), code, recording))
    function.__code__ = recording


def uninstall() -> None:
    """Give every function its own code back."""
    while _installed:
        reference, code, recording = _installed.pop()
        function = reference()
        if function is not None and function.__code__ is recording:
            function.__code__ = code
