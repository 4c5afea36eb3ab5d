"""Expressions in monitor commands, `p/x $eip + 2*(8|1)`: a part of monitor.c.

Numbers are C's (0x for hexadecimal, 0 for octal) and wrap at 64 bits. From the weakest operator to the
strongest:

    expr_sum    + -
    expr_logic  & | ^
    expr_prod   * / %
    expr_unary  + - ~ ( ) 'c' $register number

- `get_expr(mon, pp)`: 0 with the value and the rest of the line, or -1 after a message.
- `get_monitor_def(name)`: a register's value.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NoReturn

from hypervisor.monitor import Monitor, mon_get_cpu, monitor_printf
from hypervisor.monitor_cpu import cpu_state
from tracer import traced

if TYPE_CHECKING:
    from hypervisor.accel import CpuState

C_FILE = "monitor.c"

_SPACE = " \t\n\v\f\r"
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
_MAX_DEPTH: Final = 200
_REGS = ("eax", "ecx", "edx", "ebx", "esp|sp", "ebp|fp", "esi", "edi", *(f"r{n}" for n in range(8, 16)))
_SEGS = ("cs", "ds", "es", "ss", "fs", "gs")


class _Failed(Exception):
    """The expression is wrong, and the message is out; in C a longjmp."""


class _Text:
    """C's static `pch`, a pointer into the line."""

    def __init__(self) -> None:
        self.line = ""
        self.at = 0
        self.depth = 0

    def peek(self) -> str:
        return self.line[self.at : self.at + 1]

    def skip(self, count: int) -> None:
        self.at += count
        while self.peek() and self.peek() in _SPACE:
            self.at += 1


_pch = _Text()


def _wrap(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


@traced
def expr_error(mon: Monitor, msg: str) -> NoReturn:
    """Print what is wrong and leave the expression."""
    monitor_printf(mon, "%s\n", msg)
    raise _Failed


def _value(cpu: CpuState, name: str) -> int | None:
    for number, names in enumerate(_REGS):
        if name in names.split("|"):
            return cpu.regs[number]
    if name in ("eip", "eflags"):
        return int(getattr(cpu, name))
    if name == "pc":
        return cpu.eip + cpu.segs["cs"].base
    segment, dot, part = name.partition(".")
    if segment not in _SEGS or part not in ("", "base", "limit") or (dot and not part):
        return None
    return int(getattr(cpu.segs[segment], part or "selector"))


@traced
def get_monitor_def(name: str) -> tuple[int, int]:
    """0 and a register's value; -1 if there is no such register, -2 without a processor."""
    env = mon_get_cpu()
    if env is None:
        return -2, 0
    value = _value(cpu_state(env), name)
    return (-1, 0) if value is None else (0, _wrap(value))


@traced(name="next")
def next_() -> None:
    """Go on to the next character that is not a blank."""
    if _pch.peek():
        _pch.skip(1)


def _register(mon: Monitor) -> int:
    match = re.match(r"\$([a-zA-Z0-9_.]*)", _pch.line[_pch.at :])
    assert match is not None
    _pch.skip(match.end())
    ret, value = get_monitor_def(match[1][:127])
    if ret == -1:
        expr_error(mon, "unknown register")
    if ret == -2:
        expr_error(mon, "no cpu defined")
    return value


def _character(mon: Monitor) -> int:
    letter = _pch.line[_pch.at + 1 : _pch.at + 2]
    if not letter:
        expr_error(mon, "character constant expected")
    if _pch.line[_pch.at + 2 : _pch.at + 3] != "'":
        expr_error(mon, "missing terminating ' character")
    _pch.skip(3)
    return ord(letter)


def _number(mon: Monitor) -> int:
    match = _NUMBER.match(_pch.line, _pch.at)
    if match is None:
        expr_error(mon, "invalid char in expression")
    _pch.skip(len(match[0]))
    digits = match[0]
    base = 16 if digits[1:2] in ("x", "X") else 8 if digits[0] == "0" else 10
    # strtoull stops at its largest number.
    number = int(digits[:40], base) if base == 10 else int(digits, base)
    return _wrap(min(number, (1 << 64) - 1))


@traced
def expr_unary(mon: Monitor) -> int:
    """A number, register, character or parenthesis with its signs."""
    _pch.depth += 1
    if _pch.depth > _MAX_DEPTH:
        expr_error(mon, "the expression is nested too deeply")
    letter = _pch.peek()
    if letter in ("+", "-", "~"):
        next_()
        n = expr_unary(mon)
        n = {"+": n, "-": -n, "~": ~n}[letter]
    elif letter == "(":
        next_()
        n = expr_sum(mon)
        if _pch.peek() != ")":
            expr_error(mon, "')' expected")
        next_()
    elif letter == "'":
        n = _character(mon)
    elif letter == "$":
        n = _register(mon)
    elif not letter:
        expr_error(mon, "unexpected end of expression")
    else:
        n = _number(mon)
    _pch.depth -= 1
    return _wrap(n)


@traced
def expr_prod(mon: Monitor) -> int:
    """Products, quotients and remainders, which C rounds towards 0."""
    val = expr_unary(mon)
    while (op := _pch.peek()) and op in "*/%":
        next_()
        val2 = expr_unary(mon)
        if op == "*":
            val = _wrap(val * val2)
            continue
        if val2 == 0:
            expr_error(mon, "division by zero")
        quotient = abs(val) // abs(val2) * (1 if (val < 0) == (val2 < 0) else -1)
        val = _wrap(quotient if op == "/" else val - quotient * val2)
    return val


@traced
def expr_logic(mon: Monitor) -> int:
    """Bits of both, of either, of one."""
    val = expr_prod(mon)
    while (op := _pch.peek()) and op in "&|^":
        next_()
        val2 = expr_prod(mon)
        val = val & val2 if op == "&" else val | val2 if op == "|" else val ^ val2
    return val


@traced
def expr_sum(mon: Monitor) -> int:
    """Sums and differences."""
    val = expr_logic(mon)
    while (op := _pch.peek()) and op in "+-":
        next_()
        val2 = expr_logic(mon)
        val = _wrap(val + val2 if op == "+" else val - val2)
    return val


@traced
def get_expr(mon: Monitor, pp: str) -> tuple[int, int, str]:
    """Read an expression at the beginning of a line; 0 or -1, its value, and the rest of the line."""
    _pch.line, _pch.at, _pch.depth = pp, 0, 0
    _pch.skip(0)
    try:
        val = expr_sum(mon)
    except _Failed:
        return -1, 0, _pch.line[_pch.at :]
    return 0, val, _pch.line[_pch.at :]
