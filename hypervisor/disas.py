"""Machine code in words, for the monitor's `x/i` and the log's `in_asm`: disas.c.

0.12.4 carries the disassembler of binutils; here Capstone reads the instructions, and its words are brought
into binutils' AT&T spelling where they differ: no blank behind a comma, every number hexadecimal, no size
at a mnemonic where a register tells it.

    0x0000000000007c00:  mov    $0x241,%ax

- `monitor_disas(mon, env, pc, nb_insn, is_physical, flags)`: what `x/i` prints.
- `instructions(code, address, flags)`: the same as text. `flags`: 0 for 32 bits, 1 for 16, 2 for 64.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hypervisor.errors import HypervisorError
from hypervisor.exec import cpu_physical_memory_rw
from tracer import traced

if TYPE_CHECKING:
    from hypervisor.cpu_exec import CPUState
    from hypervisor.monitor import Monitor

C_FILE = "disas.c"

BITS_32, BITS_16, BITS_64 = 0, 1, 2
LONGEST = 15
"""Bytes of the longest instruction."""
_LONG_MODE, _DESC_L, _DESC_B = 1 << 10, 1 << 21, 1 << 22
_MASK = (1 << 64) - 1

_DECIMAL = re.compile(r"(?<![\w.])(?<!st\()(-?)(\d+)(?=\(|,|$)")
_INDEX = re.compile(r"\((%?\w*),(%[er]\w+)\)")
_SIZED = re.compile(
    r"(adc|add|and|bsf|bsr|bt|btc|btr|bts|cmp|cmpxchg|dec|div|idiv|imul|in|inc|lea|mov|mul|neg|not|or|out|pop|push"
    r"|rcl|rcr|rol|ror|sar|sbb|shl|shld|shr|shrd|sub|test|xadd|xchg|xor)[bwlq]"
)
_REGISTER = re.compile(r"%(?!\w*:)(?![^(]*\))")
_UNSIZED = frozenset((
    "call", "enter", "iret", "jmp", "lcall", "lds", "leave", "les", "ljmp", "lret", "popa", "popf", "pusha",
    "pushf", "ret", "sldt", "str",
))  # fmt: skip
"""Instructions whose usual size goes without saying."""
_EXTENDED = frozenset(("adc", "add", "and", "cmp", "imul", "or", "push", "sbb", "sub", "xor"))
"""Instructions that extend a byte's sign to 32 bits, which shows."""
_SHIFTS = frozenset(("rcl", "rcr", "rol", "ror", "sal", "sar", "shl", "shr"))
_STRINGS = frozenset(("movs", "cmps", "lods", "outs"))
_PORTS = frozenset(("in", "out", "insb", "insw", "insl", "outsb", "outsw", "outsl"))
_NEGATIVE = re.compile(r"\$-(0x[0-9a-f]+)")


def _name(name: str, operands: str, flags: int) -> str:
    """A mnemonic without its size, where a register or the mode tells it."""
    if _SIZED.fullmatch(name):
        told = _REGISTER.search(operands.removeprefix("%cl,") if name[:-1] in _SHIFTS else operands)
        return name[:-1] if told or (name[:-1] == "push" and operands.startswith("$")) else name
    usual = name[-1:] == ("l" if flags == BITS_32 else "w") or name in ("sldtw", "strw")
    return name[:-1] if usual and name[:-1] in _UNSIZED and flags != BITS_64 else name


def _spell(mnemonic: str, operands: str, flags: int) -> str:
    """An instruction as binutils writes it."""
    operands = _INDEX.sub(r"(\1,\2,1)", operands.replace(", ", ",").replace(":$", ",$").replace("$", "$ "))
    outside = re.split(r"(\([^)]*\))", operands)
    outside[::2] = [_DECIMAL.sub(lambda m: f"{m[1]}{int(m[2]):#x}", part) for part in outside[::2]]
    operands = "".join(outside).replace("$ ", "$")
    prefix, _, sized = mnemonic.rpartition(" ")
    name = _name(sized, operands, flags)
    base = name if name in _EXTENDED | _SHIFTS else name.rstrip("bwlq")
    width = 32 if base in _EXTENDED else {"b": 8, "l": 32}.get(sized[-1:], 16)
    width = 64 if flags == BITS_64 and sized[-1:] != "b" else 8 if sized[-1:] == "b" else width
    operands = _NEGATIVE.sub(lambda m: f"${(1 << width) - int(m[1], 16):#x}", operands)
    if base in _SHIFTS:
        operands = operands.removeprefix("$0x1,")
    if name in _PORTS:
        operands = re.sub(r"(^|,)%dx", r"\1(%dx)", operands)
    if name[:-1] in _STRINGS:
        operands = re.sub(r"^(?=\(%[er]?si)", "%ds:", operands)
    return f"{prefix} {name} {operands}" if prefix else f"{name:6} {operands}"


def _disassembler(flags: int) -> Any:
    try:
        import capstone
    except ImportError as error:
        raise HypervisorError(
            f"Capstone is needed to read machine code: pip install capstone ({error})"
        ) from None
    mode = (capstone.CS_MODE_32, capstone.CS_MODE_16, capstone.CS_MODE_64)[flags]
    found = capstone.Cs(capstone.CS_ARCH_X86, mode)
    found.syntax = capstone.CS_OPT_SYNTAX_ATT
    return found


def _read(reader: Any, code: bytes, address: int, flags: int) -> tuple[int, str]:
    found = next(reader.disasm_lite(code, address, 1), None)
    return (1, "(bad)  ") if found is None else (found[1], _spell(found[2], found[3], flags))


def instructions(code: bytes, address: int, flags: int) -> Iterator[tuple[int, str]]:
    """Read instructions until the bytes end; their addresses and words.

    >>> list(instructions(bytes.fromhex("b8410289c2"), 0x7C00, BITS_16))
    [(31744, 'mov    $0x241,%ax'), (31747, 'mov    %ax,%dx')]
    """
    reader, at = _disassembler(flags), 0
    while at < len(code):
        size, words = _read(reader, code[at : at + LONGEST], address + at, flags)
        yield address + at, words
        at += size


def code_flags(env: CPUState) -> int:
    """How the processor reads instructions now: BITS_16, BITS_32 or BITS_64."""
    from hypervisor.monitor_cpu import cpu_state

    cpu = cpu_state(env)
    flags = cpu.segs["cs"].flags
    if cpu.efer & _LONG_MODE and flags & _DESC_L:
        return BITS_64
    return BITS_32 if flags & _DESC_B else BITS_16


@traced
def monitor_disas(
    mon: Monitor, env: CPUState | None, pc: int, nb_insn: int, is_physical: int, flags: int
) -> None:
    """Print instructions; memory that is not there reads as zeros."""
    from hypervisor.monitor import monitor_printf
    from hypervisor.monitor_cpu import cpu_memory_rw_debug

    reader, code = _disassembler(flags), bytearray(LONGEST)
    for _ in range(nb_insn):
        code[:] = bytes(LONGEST)
        if is_physical or env is None:
            cpu_physical_memory_rw(pc, code, LONGEST, 0)
        else:
            cpu_memory_rw_debug(env, pc, memoryview(code), LONGEST, 0)
        size, words = _read(reader, bytes(code), pc, flags)
        monitor_printf(mon, "0x%016x:  %s\n", pc, words)
        pc = pc + size & _MASK
