"""Interrupt lines between devices: hw/irq.c and hw/irq.h."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracer import Struct, traced

C_FILE = "hw/irq.c"

qemu_irq_handler = Callable[[Any, int, int], None]
"""handler(opaque, n, level)"""


class IRQState(Struct):
    """`struct IRQState`: one line; devices hold a reference to it, a `qemu_irq`."""

    handler: qemu_irq_handler | None = None
    opaque: Any = None
    n: int = 0


@traced
def qemu_allocate_irqs(handler: qemu_irq_handler, opaque: Any, n: int) -> list[IRQState]:
    """Make `n` lines that end in `handler`."""
    return [IRQState(handler=handler, opaque=opaque, n=i) for i in range(n)]


@traced
def qemu_set_irq(irq: IRQState | None, level: int) -> None:
    """Set a line's level; a line that leads nowhere is None."""
    if irq is not None:
        assert irq.handler is not None
        irq.handler(irq.opaque, irq.n, level)


@traced(file="hw/irq.h")
def qemu_irq_raise(irq: IRQState | None) -> None:
    """Set a line to 1."""
    qemu_set_irq(irq, 1)


@traced(file="hw/irq.h")
def qemu_irq_lower(irq: IRQState | None) -> None:
    """Set a line to 0."""
    qemu_set_irq(irq, 0)
