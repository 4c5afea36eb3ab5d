"""How unicorn is brought back from a guest that would not come back by itself.

Unicorn counts instructions, at a third of its speed. It also calls a function at the beginning of each basic
block, which costs a tenth if the function is a machine's: then a few bytes of code count down and stop.

    dec qword [rcx]; js stop; ret; stop: mov rax, uc_emu_stop; jmp rax      rcx: the hook's user data

- `Exact(uc)`: by unicorn's count; the same instructions in each run, on any host.
- `Blocks(uc, native)`: by the code above; on x86-64 hosts.

Both end a slice at the beginning of an instruction, where nothing of it can be lost.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from typing import Any, Protocol

from hypervisor.accel.unicorn_layout import engine, unknown_unicorn
from hypervisor.accel.unicorn_native import MachineCode, add_native_hook, address_of

PER_BLOCK = 4
"""Instructions of a basic block, about."""
_LIMIT, _ENGINE_SIZE = 0x5A5A5A5A5A, 0x800
_COUNT_DOWN = bytes.fromhex("48ff097801c348b8"), bytes.fromhex("ffe0")


class Slice(Protocol):
    """What ends a slice."""

    def begin(self, limit: int) -> int:
        """Prepare `limit` instructions; the count for `emu_start`."""

    def end(self) -> tuple[bool, int]:
        """Whether the slice ended because it was over, and how many instructions it had, about."""


class Exact:
    """By unicorn's count, which stands one beyond the limit when that ended the slice."""

    def __init__(self, uc: Any) -> None:
        self._value = ctypes.c_size_t.from_address(engine(uc) + _counter_offset())
        self._limit = 0

    def begin(self, limit: int) -> int:
        """Have unicorn count."""
        self._limit = limit
        return limit

    def end(self) -> tuple[bool, int]:
        """Read the count."""
        done = int(self._value.value)
        return done > self._limit, min(done, self._limit)


@functools.cache
def _counter_offset() -> int:
    """Find the counter by running three instructions: it lies before the limit, which is known."""
    unicorn: Any = importlib.import_module("unicorn")
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
    uc.mem_map(0, 0x1000)
    uc.mem_write(0, b"\x90\x90\xf4")
    uc.emu_start(0, 0x1000, 0, _LIMIT)
    state = ctypes.string_at(engine(uc), _ENGINE_SIZE)
    offset = state.find((3).to_bytes(8, "little") + _LIMIT.to_bytes(8, "little"))
    if offset < 0:
        raise unknown_unicorn()
    return offset


class Blocks:
    """By a hook of machine code at the beginning of each basic block."""

    def __init__(self, uc: Any, native: Any, block_hook: int) -> None:
        self._left = ctypes.c_int64(0)
        self._blocks = 0
        head, tail = _COUNT_DOWN
        self._code = MachineCode(head + address_of(native.uc_emu_stop).to_bytes(8, "little") + tail)
        add_native_hook(native, uc, block_hook, self._code.at, ctypes.addressof(self._left))

    def begin(self, limit: int) -> int:
        """Set the count."""
        self._blocks = self._left.value = max(limit // PER_BLOCK, 1)
        return 0

    def end(self) -> tuple[bool, int]:
        """Read the count."""
        left = int(self._left.value)
        return left < 0, (self._blocks - max(left, 0)) * PER_BLOCK
