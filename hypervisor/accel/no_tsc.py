"""A processor without time-stamp counter, by unicorn: for -icount.

Unicorn's RDTSC reads the host's counter, and nothing can be put in its place: a program that measures time
by it would run otherwise each time. Programs ask CPUID first, and take another clock if it says no.

- `hide_time_stamp_counter(uc)`: have CPUID say so.
"""

from __future__ import annotations

import importlib
from typing import Any

_CPUID = b"\x0f\xa2"
_TSC, _FEATURES = 1 << 4, 1


def hide_time_stamp_counter(uc: Any) -> None:
    """Have CPUID deny the counter."""
    unicorn: Any = importlib.import_module("unicorn")
    x86: Any = importlib.import_module("unicorn.x86_const")
    registers = (x86.UC_X86_REG_EAX, x86.UC_X86_REG_EBX, x86.UC_X86_REG_ECX, x86.UC_X86_REG_EDX)
    probe: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
    probe.mem_map(0, 0x1000)
    probe.mem_write(0, _CPUID)
    probe.reg_write(registers[0], _FEATURES)
    probe.emu_start(0, len(_CPUID), 0, 1)
    *answer, features = (probe.reg_read(register) for register in registers)
    answer.append(features & ~_TSC)

    def on_cpuid(uc: Any, user_data: Any) -> int:
        if uc.reg_read(registers[0]) != _FEATURES:
            return 0
        for register, value in zip(registers, answer, strict=True):
            uc.reg_write(register, value)
        return 1

    uc.hook_add(unicorn.UC_HOOK_INSN, on_cpuid, None, 1, 0, x86.UC_X86_INS_CPUID)
