"""Modules that announce themselves before main() runs: module.c and module.h.

In C, ``block_init(bdrv_qcow_init)`` makes a constructor ``do_qemu_init_bdrv_qcow_init`` which the loader
runs before main and which calls `register_module_init`. Here importing a driver only makes that
constructor; `hypervisor.program` runs the constructors of a program, in the order of its 2010 link.

- ``block_init(fn)``, ``device_init(fn)``, ``machine_init(fn)``: at the end of a driver's module
- ``module_call_init(type)``: run the registered functions, as bdrv_init and main do
- ``NotModelled``: what stands for the init function of a device we have no model of
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeAlias

from hypervisor.program import on_reset
from tracer import Struct, symbol, traced

C_FILE = "module.c"

MODULE_INIT_BLOCK = 0
MODULE_INIT_DEVICE = 1
MODULE_INIT_MACHINE = 2
MODULE_INIT_MAX = 3


class NotModelled(Struct):
    """The init function of a device that is not modelled; `register` makes its name known."""

    register: Callable[[], None] | None = None


InitFunction: TypeAlias = "Callable[[], None] | NotModelled"


class ModuleEntry(Struct):
    """One registered init function (module.c)."""

    type: int = 0
    init: InitFunction | None = None


_init_type_list: list[list[ModuleEntry]] = []
_constructors: dict[tuple[str, str], Callable[[], None]] = {}
_names: dict[tuple[str, str], Callable[[], None]] = {}


@on_reset
def _reset() -> None:
    _init_type_list.clear()


@traced
def init_types() -> None:
    """Make one empty list a type of module, the first time."""
    if not _init_type_list:
        _init_type_list.extend([] for _ in range(MODULE_INIT_MAX))


@traced
def find_type(type: int) -> list[ModuleEntry]:
    """The list of modules of a MODULE_INIT_* type."""
    init_types()
    return _init_type_list[type]


@traced
def register_module_init(fn: InitFunction, type: int) -> None:
    """Append an init function to the list of its type."""
    entry = ModuleEntry()
    entry.init = fn
    find_type(type).append(entry)


@traced
def module_call_init(type: int) -> None:
    """Run the init functions of a type in the order of their registration."""
    for entry in find_type(type):
        function = entry.init.register if isinstance(entry.init, NotModelled) else entry.init
        if function is not None:
            function()


def block_init(function: Callable[[], None]) -> None:
    """Give a block driver's init function its constructor."""
    _module_init(function, MODULE_INIT_BLOCK)


def device_init(function: Callable[[], None]) -> None:
    """Give a device's init function its constructor."""
    _module_init(function, MODULE_INIT_DEVICE)


def machine_init(function: Callable[[], None]) -> None:
    """Give a machine's init function its constructor."""
    _module_init(function, MODULE_INIT_MACHINE)


def name_only(file: str, function: str, register: Callable[[], None]) -> None:
    """Have `register` make the names known that an init function would, of which there is no model."""
    _names[file, function] = register


def constructor(file: str, function: str, type: int) -> Callable[[], None]:
    """The constructor of `function` in the C file `file`; one is made if no module brings it."""
    known = _constructors.get((file, function))
    if known is None:
        init = NotModelled(register=_names.get((file, function)))
        known = _make_constructor(file, function, symbol(init, function), type)
    return known


def _module_init(function: Callable[[], None], type: int) -> None:
    name = function.__name__
    file = str(sys.modules[function.__module__].__dict__["C_FILE"])
    _make_constructor(file, name, function, type)


def _make_constructor(file: str, name: str, init: InitFunction, type: int) -> Callable[[], None]:
    def run() -> None:
        """Constructor: register the module's init function before main()."""
        register_module_init(init, type)

    run.__name__ = run.__qualname__ = f"do_qemu_init_{name}"
    _constructors[file, name] = traced(name=run.__name__, file=file)(run)
    return _constructors[file, name]
