"""What executes the guest's instructions, behind one small interface.

- `Accel`: run a slice, take an interrupt, get and set state, map memory, find what memory changed.
- `Registers`: the registers that the built-in BIOS deals in.
- `CpuState`, `Segment`, `Table`: everything a processor holds, for saving it and for moving it elsewhere.
- `make_accel(name)`: "unicorn", the default, or "kvm".

The machine's memory is one piece, `hypervisor.exec.ram()`, which an accelerator executes from directly: a
device that writes there has written the guest's memory. What appears at which physical address is said by
`map_memory` and `map_mmio`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from mmap import mmap
from typing import Protocol

PAGE_SIZE = 4096
FXSAVE_SIZE = 512
FPU_AT_POWER_ON = b"\x7f\x03".ljust(24, b"\0") + b"\x80\x1f".ljust(488, b"\0")
"""As FXSAVE stores it: FCW 037f, MXCSR 1f80, no register in use."""


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


@dataclass
class Segment:
    """`SegmentCache`: a segment register and what the processor keeps of its descriptor.

    Parameters
    ----------
    flags : int
        The descriptor's second word, of which the bits 8 to 23 count, as in QEMU's DESC_* masks.
    """

    selector: int = 0
    base: int = 0
    limit: int = 0xFFFF
    flags: int = 0


@dataclass
class Table:
    """Where the table of descriptors or of interrupts is."""

    base: int = 0
    limit: int = 0xFFFF


@dataclass
class CpuState:
    """What a processor holds between two instructions, under the names of `CPUX86State`.

    Parameters
    ----------
    regs : list of int
        RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, then R8 to R15; a 32-bit processor has eight that are not 0.
    segs : dict
        "es", "cs", "ss", "ds", "fs", "gs", "ldt" and "tr" to `Segment`.
    cr : list of int
        CR0, an unused one, CR2, CR3, CR4.
    dr : list of int
        The debug registers.
    fpu : bytes
        Floating point and XMM registers as FXSAVE stores them, 512 bytes.
    msrs : dict
        Number of a model-specific register to its value; those that are 0 may be missing.
    interrupt_injected : int
        An interrupt that was handed to the processor and not taken yet; -1 for none.
    interrupt_shadow : int
        The instruction before this one was STI or a load of SS: no interrupt may come here.
    """

    regs: list[int] = field(default_factory=lambda: [0] * 16)
    eip: int = 0
    eflags: int = 2
    segs: dict[str, Segment] = field(default_factory=dict)
    gdt: Table = field(default_factory=Table)
    idt: Table = field(default_factory=Table)
    cr: list[int] = field(default_factory=lambda: [0] * 5)
    dr: list[int] = field(default_factory=lambda: [0] * 8)
    efer: int = 0
    fpu: bytes = bytes(FXSAVE_SIZE)
    msrs: dict[int, int] = field(default_factory=dict)
    interrupt_injected: int = -1
    interrupt_shadow: int = 0


MmioRead = Callable[[int, int], int]
"""read(address, size) -> value"""
MmioWrite = Callable[[int, int, int], None]
"""write(address, size, value)"""


class Accel(Protocol):
    """A processor."""

    name: str

    def map_ram(self) -> None:
        """Put the machine's memory at physical address 0."""

    def map_memory(self, address: int, memory: mmap, writable: bool) -> None:
        """Show a piece of memory of its own, a ROM, at `address`; whole pages."""

    def map_mmio(self, address: int, size: int, read: MmioRead, write: MmioWrite) -> None:
        """Call a device for each access to whole pages of physical addresses, instead of memory."""

    def unmap(self, address: int, size: int) -> None:
        """Let nothing be at whole pages of physical addresses."""

    def set_a20(self, on: bool) -> None:
        """Let address line 20 through, or have the odd megabytes show the even ones."""

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
        """Have the guest take an interrupt from outside."""

    def registers(self) -> Registers:
        """Read the registers."""

    def set_registers(self, registers: Registers) -> None:
        """Write the registers."""

    def state(self) -> CpuState:
        """Read all of the processor; not while it runs."""

    def set_state(self, state: CpuState) -> None:
        """Write all of the processor; not while it runs."""

    def memory_written(self, address: int, size: int) -> None:
        """Hear that a device wrote memory: instructions there that were decoded before are others now."""

    def dirty_pages(self) -> Collection[int]:
        """Numbers of the pages of the machine's memory that changed since the last call; at first all.

        A page is `PAGE_SIZE` bytes; whoever wrote it, processor or device, it counts.
        """

    def watch_blocks(self, watch: Callable[[int, int], None] | None) -> None:
        """Call `watch(address, size)` where a basic block begins, None: no more; KVM cannot, and does not."""

    def on_trap(self, port: int, handler: Callable[[], bool]) -> None:
        """Call `handler` instead of the device when the guest writes to `port`.

        A handler that returns True has changed CS:IP: the guest goes on there.
        """


def make_accel(name: str = "unicorn") -> Accel:
    """Make the processor; memory is mapped afterwards."""
    if name == "kvm":
        from hypervisor.accel.kvm_accel import KvmAccel

        return KvmAccel()
    from hypervisor import icount
    from hypervisor.accel.no_tsc import hide_time_stamp_counter
    from hypervisor.accel.unicorn_accel import UnicornAccel

    assert name == "unicorn"
    accel = UnicornAccel(exact=icount.enabled())
    if icount.enabled():
        hide_time_stamp_counter(accel._uc)
    return accel
