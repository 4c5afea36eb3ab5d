"""What the linker and the loader do for a C program: `program` is a process of 2010 within this one.

- ``with program("qemu-img"):`` start from fresh static variables, load the drivers, run their
  constructors in link order (traced); on the way out stop the threads, close the descriptors and
  remove the temporary files that the run left. Then or within: ``qemu_img.main(argv)``.
- ``@on_reset``: a module's function that puts its static variables back, called at every start
- ``@on_exit``: a module's function that releases what a run still holds, called at every end, the
  last registered first
- ``linked.qemu_bh_new(...)``: functions that the tools and the emulator link from different files.
  qemu-img and qemu-io have empty ones from qemu-tool.c; the emulator's are in async.c, vl.c, monitor.c.
- ``current()``: the running program's name, or None
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from hypervisor.errors import HypervisorError

Hook: TypeAlias = Callable[[], None]

PROGRAMS = ("qemu-img", "qemu-io", "qemu-system-x86_64")
RECURSION_LIMIT = 20_000
"""Enough to read through the longest chain of backing files, each of which costs some ten frames."""

_TOOL = ("hypervisor.qemu_tool",)
_SYSTEM = (
    "hypervisor.async_",
    "hypervisor.vl_loop",
    "hypervisor.vl_timers",
    "hypervisor.monitor",
    "hypervisor.qemu_tool",
)

_resets: list[Hook] = []
_exits: list[Hook] = []
_current: str | None = None


class Linked:
    """The functions that depend on the program; to use one while none runs is an error."""

    qemu_bh_new: Callable[[Callable[[Any], None], Any], Any]
    qemu_bh_poll: Callable[[], int]
    qemu_bh_schedule: Callable[[Any], None]
    qemu_bh_cancel: Callable[[Any], None]
    qemu_bh_delete: Callable[[Any], None]
    async_context_push: Callable[[], None]
    async_context_pop: Callable[[], None]
    get_async_context_id: Callable[[], int]
    qemu_set_fd_handler2: Callable[..., int]
    qemu_get_clock: Callable[[Any], int]
    rt_clock: Any
    qemu_notify_event: Callable[[], None]
    qemu_error: Callable[..., None]
    monitor_printf: Callable[..., None]
    monitor_print_filename: Callable[[Any, str], None]

    def __getattr__(self, name: str) -> Any:
        if name in Linked.__annotations__:
            raise HypervisorError(f"{name} is called outside `with program(...)`: start a program first")
        raise AttributeError(name)


linked = Linked()


def on_reset(function: Hook) -> Hook:
    """Have `function` called at the start of every program; returns it, so it is a decorator."""
    _resets.append(function)
    return function


def on_exit(function: Hook) -> Hook:
    """Have `function` called at the end of every program; returns it, so it is a decorator."""
    _exits.append(function)
    return function


def current() -> str | None:
    """The name of the running program."""
    return _current


@contextmanager
def program(name: str) -> Iterator[None]:
    """Run the body as the program `name`, between its loader and its end.

    Parameters
    ----------
    name
        One of `PROGRAMS`.

    Raises
    ------
    HypervisorError
        For another name, or while a program runs already: its static variables exist once.
    """
    global _current
    if name not in PROGRAMS:
        raise HypervisorError(f"there is no program {name!r}: choose one of {', '.join(PROGRAMS)}")
    if _current is not None:
        raise HypervisorError(f"{_current} is still running: end it before starting {name}")
    _current = name
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, RECURSION_LIMIT))
    try:
        _load(name)
        yield
    finally:
        try:
            for hook in reversed(_exits):
                hook()
        finally:
            vars(linked).clear()
            sys.setrecursionlimit(limit)
            _current = None


def _load(name: str) -> None:
    from hypervisor import constructors, module

    table = constructors.SYSTEM if name == "qemu-system-x86_64" else constructors.BLOCK
    for file, _, _ in table:
        _import_model(file)
    _link(_SYSTEM if name == "qemu-system-x86_64" else _TOOL)
    for hook in _resets:
        hook()
    for file, function, type_ in table:
        module.constructor(file, function, type_)()


def _import_model(file: str) -> None:
    """Import the model of a C file, if there is one: hw/ide/piix.c is hypervisor.hw.ide.piix."""
    name = "hypervisor." + file.removesuffix(".c").replace("-", "_").replace("/", ".")
    if name not in sys.modules and _exists(name):
        importlib.import_module(name)


def _link(modules: tuple[str, ...]) -> None:
    found = [importlib.import_module(name) for name in modules if _exists(name)]
    for symbol in Linked.__annotations__:
        for module in found:
            if hasattr(module, symbol):
                setattr(linked, symbol, getattr(module, symbol))
                break


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
