"""What an interrupt or exception does in protected mode: the frame it pushes and where it goes on.

Intel SDM volume 3, chapter 6. A gate of the interrupt table names a code segment; if that is more privileged
than the interrupted code, the stack comes from the task state segment:

    [ES DS FS GS]  left by virtual-8086 code    SS ESP  left by less privileged code    EFLAGS CS EIP [error]

- `deliver(cpu, memory, vector, error, software)`: change `cpu` and push onto its stack in `memory`.
- `Fault`: the delivery itself met an exception; `TripleFault`: nothing is left to take it.

Left out: task gates, paging and 64-bit mode, which none of the supported guests combines with interrupts.
"""

from __future__ import annotations

from mmap import mmap

from hypervisor.accel import CpuState, Segment
from hypervisor.errors import HypervisorError

DF, TS, NP, SS, GP, PF = 8, 10, 11, 12, 13, 14
HAVE_ERROR = frozenset((DF, TS, NP, SS, GP, PF, 17))
CR0_PE, CR0_PG = 1, 1 << 31
FLAG_TF, FLAG_IF, FLAG_NT, FLAG_RF, FLAG_VM = 1 << 8, 1 << 9, 1 << 14, 1 << 16, 1 << 17
DESC_P, DESC_S, DESC_CODE, DESC_CONFORMING = 1 << 15, 1 << 12, 1 << 11, 1 << 10
DESC_A, DESC_B, DESC_G = 1 << 8, 1 << 22, 1 << 23
_CONTRIBUTING = frozenset((0, TS, NP, SS, GP))
_GATES = {6: (2, True), 7: (2, False), 14: (4, True), 15: (4, False)}


class Fault(Exception):
    """An exception met while another was delivered."""

    def __init__(self, vector: int, error: int) -> None:
        self.vector, self.error = vector, error


class TripleFault(Exception):
    """The processor gives up: a real one resets."""


def deliver(cpu: CpuState, memory: mmap, vector: int, error: int | None, software: bool = False) -> None:
    """Have the processor take an interrupt or exception in protected mode.

    Parameters
    ----------
    error : int or None
        Pushed for the exceptions that have one; None for an interrupt from outside.
    software : bool
        An INT instruction asked: the gate's privilege counts, and there is no error code.

    Raises
    ------
    TripleFault
        Neither this nor a double fault can be delivered.
    HypervisorError
        The guest uses what is left out here.
    """
    if cpu.cr[0] & CR0_PG or cpu.efer & 1 << 10:
        raise HypervisorError(f"the guest took interrupt {vector:#x} while paging: the model delivers none")
    try:
        pushed = error if vector in HAVE_ERROR and not software else None
        _enter(cpu, memory, vector, pushed, software)
    except Fault as fault:
        if vector == DF:
            raise TripleFault from None
        double = vector in _CONTRIBUTING and not software and error is not None
        following = Fault(DF, 0) if double else fault
        deliver(cpu, memory, following.vector, following.error)


def _enter(cpu: CpuState, memory: mmap, vector: int, error: int | None, software: bool) -> None:
    wrong = vector * 8 + 2
    if vector * 8 + 7 > cpu.idt.limit:
        raise Fault(GP, wrong)
    low, high = _words(memory, cpu.idt.base + vector * 8)
    kind = high >> 8 & 0x1F
    if kind == 5:
        raise HypervisorError(f"the guest's interrupt {vector:#x} is a task gate: the model has none")
    if kind not in _GATES or (software and high >> 13 & 3 < _cpl(cpu)):
        raise Fault(GP, wrong)
    if not high & DESC_P:
        raise Fault(NP, wrong)
    size, masks = _GATES[kind]
    target = low & 0xFFFF | (high & 0xFFFF0000 if size == 4 else 0)
    code, dpl = _code_segment(cpu, memory, low >> 16)
    words = [cpu.eflags, cpu.segs["cs"].selector, cpu.eip]
    inner = dpl < _cpl(cpu) and not code.flags & DESC_CONFORMING
    if inner:
        words = _change_stack(cpu, memory, dpl) + words
    if error is not None:
        words.append(error)
    _push(cpu, memory, words, size)
    cpu.eflags &= ~(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | (FLAG_IF if masks else 0))
    code.selector = low >> 16 & ~3 | (dpl if inner else _cpl(cpu))
    cpu.segs["cs"], cpu.eip = code, target


def _cpl(cpu: CpuState) -> int:
    return 3 if cpu.eflags & FLAG_VM else cpu.segs["cs"].selector & 3


def _code_segment(cpu: CpuState, memory: mmap, selector: int) -> tuple[Segment, int]:
    segment = _descriptor(cpu, memory, selector, GP)
    dpl = segment.flags >> 13 & 3
    if not segment.flags & DESC_S or not segment.flags & DESC_CODE or dpl > _cpl(cpu):
        raise Fault(GP, selector & ~3)
    if not segment.flags & DESC_P:
        raise Fault(NP, selector & ~3)
    return segment, _cpl(cpu) if segment.flags & DESC_CONFORMING else dpl


def _descriptor(cpu: CpuState, memory: mmap, selector: int, vector: int) -> Segment:
    table = cpu.segs["ldt"] if selector & 4 else cpu.gdt
    if not selector & ~3 or selector | 7 > table.limit:
        raise Fault(vector, selector & ~3)
    return unpack(selector, *_words(memory, table.base + (selector & ~7)))


def unpack(selector: int, low: int, high: int) -> Segment:
    """Read a descriptor.

    >>> flat = unpack(8, 0x0000FFFF, 0x00CF9A00)
    >>> hex(flat.base), hex(flat.limit)
    ('0x0', '0xffffffff')
    """
    limit = high & 0xF0000 | low & 0xFFFF
    if high & DESC_G:
        limit = limit << 12 | 0xFFF
    base = high & 0xFF000000 | (high & 0xFF) << 16 | low >> 16
    return Segment(selector, base, limit, (high & 0x00FFFF00) | DESC_A)


def _change_stack(cpu: CpuState, memory: mmap, dpl: int) -> list[int]:
    """Take the inner stack from the task state segment; what must be pushed of the outer one."""
    task = cpu.segs["tr"]
    if task.flags >> 8 & 0xF in (9, 11):
        stack, selector = _words(memory, task.base + 4 + 8 * dpl)
    else:
        stack = _words(memory, task.base + 2 + 4 * dpl)[0]
        stack, selector = stack & 0xFFFF, stack >> 16
    selector &= 0xFFFF
    segment = _descriptor(cpu, memory, selector, TS)
    old = [cpu.segs["ss"].selector, cpu.regs[4]]
    if cpu.eflags & FLAG_VM:
        old = [cpu.segs[name].selector for name in ("gs", "fs", "ds", "es")] + old
        for name in ("gs", "fs", "ds", "es"):
            cpu.segs[name] = Segment(0, 0, 0, 0)
    cpu.segs["ss"] = segment
    cpu.regs[4] = stack
    return old


def _push(cpu: CpuState, memory: mmap, words: list[int], size: int) -> None:
    segment = cpu.segs["ss"]
    mask = 0xFFFFFFFF if segment.flags & DESC_B else 0xFFFF
    for word in words:
        at = cpu.regs[4] - size & mask
        cpu.regs[4] = cpu.regs[4] & ~mask | at
        address = segment.base + at & 0xFFFFFFFF
        if address + size <= len(memory):
            memory[address : address + size] = (word & (1 << 8 * size) - 1).to_bytes(size, "little")


def _words(memory: mmap, address: int) -> tuple[int, int]:
    """Two double words; where no memory is, all ones."""
    address &= 0xFFFFFFFF
    raw = memory[address : address + 8].ljust(8, b"\xff")
    return int.from_bytes(raw[:4], "little"), int.from_bytes(raw[4:], "little")
