"""What executes the guest's instructions, behind one small interface.

- `Accel`: run a slice, take an interrupt, get and set registers, serve a trap.
- `Registers`: the registers that the BIOS deals in.
- `make_accel()`: the one to use; now always unicorn's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass
class Registers:
    """Registers of a processor in real mode; `eax` and its kin have 32 bits."""

    eax: int
    ebx: int
    ecx: int
    edx: int
    esi: int
    edi: int
    ebp: int
    esp: int
    eip: int
    eflags: int
    cs: int
    ds: int
    es: int
    ss: int


class Accel(Protocol):
    """A processor."""

    def map_ram(self) -> None:
        """Put the machine's memory at physical address 0."""

    def reset(self) -> None:
        """Take the state after power-on: real mode, at the BIOS's entry."""

    def run(self, limit: int) -> bool:
        """Execute up to `limit` instructions; True when the guest halted.

        Raises
        ------
        HypervisorError
            The guest did what the processor or the model cannot do; the message says where.
        """

    def stop(self) -> None:
        """Have `run` return soon; may be called while it runs."""

    def interrupts_enabled(self) -> bool:
        """Whether the guest would take an interrupt now."""

    def inject(self, vector: int) -> None:
        """Have the guest take an interrupt."""

    def registers(self) -> Registers:
        """Read the registers."""

    def set_registers(self, registers: Registers) -> None:
        """Write the registers."""

    def on_trap(self, port: int, handler: Callable[[], bool]) -> None:
        """Call `handler` instead of the device when the guest writes to `port`.

        A handler that returns True has changed CS:IP: the guest goes on there.
        """


def make_accel() -> Accel:
    """Make the processor."""
    from hypervisor.accel.unicorn_accel import UnicornAccel

    return UnicornAccel()
