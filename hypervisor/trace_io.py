"""Functions of QEMU that run at every port access, and so are traced only when asked for.

A boot loader makes more than a hundred thousand port accesses; as events they would bury everything else.
Functions marked `@traced_io` are QEMU's as much as those marked `@traced`, but the tracer hears of them only
after `enable()`, which `studykvm boot --trace-io` calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tracer import traced

F = TypeVar("F", bound=Callable[..., Any])

_waiting: list[Callable[..., Any]] = []
_enabled = False


def traced_io(function: F) -> F:
    """Mark a function of QEMU that is traced on demand; its C file is its module's."""
    if _enabled:
        traced(function)
    else:
        _waiting.append(function)
    return function


def enable() -> None:
    """Trace port accesses from now on, for as long as the process lives."""
    global _enabled
    _enabled = True
    while _waiting:
        traced(_waiting.pop(0))


def is_enabled() -> bool:
    """Whether port accesses are traced."""
    return _enabled


def move(structure: Any, field: str, value: int) -> None:
    """Assign a field that changes with every port access: a trace has it when it has those."""
    if _enabled:
        setattr(structure, field, value)
    else:
        vars(structure)[field] = value


def waiting() -> list[Callable[..., Any]]:
    """Return the functions that the tracer does not hear of yet."""
    return list(_waiting)
