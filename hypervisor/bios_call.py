"""A call to the built-in BIOS: the caller's registers, in halves, and its flags on the stack."""

from __future__ import annotations

from hypervisor.accel import Registers
from hypervisor.exec import ram

_CARRY, _ZERO = 0x0001, 0x0040


def _half(register: str, shift: int, mask: int) -> property:
    def read(call: Call) -> int:
        return int(getattr(call.r, register)) >> shift & mask

    def write(call: Call, value: int) -> None:
        old = int(getattr(call.r, register))
        setattr(call.r, register, old & ~(mask << shift) | (value & mask) << shift)

    return property(read, write)


class Call:
    """One call.

    Parameters
    ----------
    r
        The registers; what a service leaves there is what the caller gets.
    returns
        False once the service has set CS:IP itself.
    """

    al, ah, ax = _half("eax", 0, 0xFF), _half("eax", 8, 0xFF), _half("eax", 0, 0xFFFF)
    bl, bh, bx = _half("ebx", 0, 0xFF), _half("ebx", 8, 0xFF), _half("ebx", 0, 0xFFFF)
    cl, ch, cx = _half("ecx", 0, 0xFF), _half("ecx", 8, 0xFF), _half("ecx", 0, 0xFFFF)
    dl, dh, dx = _half("edx", 0, 0xFF), _half("edx", 8, 0xFF), _half("edx", 0, 0xFFFF)

    def __init__(self, r: Registers, vector: int, returns: bool = True) -> None:
        self.r = r
        self.vector = vector
        self.returns = returns

    def _word(self, offset: int) -> int:
        return self.r.ss * 16 + ((self.r.esp + offset) & 0xFFFF)

    def return_address(self) -> tuple[int, int]:
        """IP and CS where the caller goes on."""
        ip, cs = (int.from_bytes(ram()[at : at + 2], "little") for at in (self._word(0), self._word(2)))
        return ip, cs

    def set_carry(self, on: bool) -> None:
        """Set the caller's carry flag: the sign of an error."""
        self._set_flag(_CARRY, on)

    def set_zero(self, on: bool) -> None:
        """Set the caller's zero flag."""
        self._set_flag(_ZERO, on)

    def _set_flag(self, flag: int, on: bool) -> None:
        at = self._word(4)
        ram()[at] = ram()[at] & ~flag | (flag if on else 0)
