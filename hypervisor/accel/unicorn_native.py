"""Functions that unicorn calls directly: without its Python wrappers, or without Python at all.

- `native_library()`, `add_native_hook(...)`, `register_reader(...)`: unicorn's own C interface.
- `runs_machine_code()`: whether this host understands x86-64 code.
- `MachineCode(code)`: a few bytes of it that unicorn may call; `at` is where.
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
import os
from collections.abc import Callable
from typing import Any

from hypervisor.accel.unicorn_layout import unknown_unicorn


class MachineCode:
    """Code in memory that may be executed, for as long as this object lives."""

    def __init__(self, code: bytes) -> None:
        access = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=access)
        self._page[: len(code)] = code
        self.at = ctypes.addressof(ctypes.c_char.from_buffer(self._page))


def runs_machine_code() -> bool:
    """Whether the host understands x86-64 code."""
    return os.uname().machine in ("x86_64", "AMD64")


def native_library() -> Any:
    """Unicorn's own C library, as its package has loaded it."""
    return importlib.import_module("unicorn.unicorn_py3.unicorn").uclib


def address_of(function: Any) -> int:
    """Where a function of the library, or one made by ctypes, is."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def register_reader(native: Any, uc: Any, register: int) -> Callable[[], int]:
    """Return what reads a register of up to 64 bits, in a fifth of the time that the package takes."""
    value = ctypes.c_uint64(0)
    handle, place, read = uc._uch, ctypes.byref(value), native.uc_reg_read

    def reader() -> int:
        read(handle, register, place)
        return value.value

    return reader


def add_native_hook(native: Any, uc: Any, kind: int, function: int, data: int, instruction: int = 0) -> None:
    """Have unicorn call a C function, without Python's wrappers."""
    handle = ctypes.c_size_t()
    pointers = ctypes.c_void_p(function), ctypes.c_void_p(data)
    bounds = ctypes.c_uint64(1), ctypes.c_uint64(0)
    extra = (ctypes.c_int(instruction),) if instruction else ()
    error = native.uc_hook_add(uc._uch, ctypes.byref(handle), kind, *pointers, *bounds, *extra)
    if error:
        raise unknown_unicorn()
