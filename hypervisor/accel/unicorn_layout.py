"""Where unicorn keeps the processor: the saved context is its `CPUX86State`, read and written here in place.

Unicorn's own calls give selectors without their descriptors, and cost a microsecond a register. The context
holds everything and costs one copy. Offsets are those of unicorn 2.1, counted from the first register:

    0x000 regs[16]   0x080 eip   0x088 eflags   0x0ac df   0x0b0 hflags
    0x0b8 segs[6], ldt, tr, gdt, idt: 24 bytes each (selector, base, limit, flags)
    0x1a8 cr[5]   0x338 xmm[32], 64 bytes each
    0x1508 error_code, exception_is_int   0x1518 dr[8]   0x1578 old_exception

- `Context(uc, x86, native)`: `load()` from the processor, `store()` into it, fields in between.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any

from hypervisor.accel import CpuState, Segment
from hypervisor.errors import HypervisorError

SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr")
CS, SS = 1, 2
_HEADER = 0x28
_REP, _ADDRESS, _PREFIXES, _NOTHING = b"\xf3", b"\x67", b"\xf3\x66\x67", (b"", b"", b"")
_REGS, _EIP, _EFLAGS, _HFLAGS = 0, 0x80, 0x88, 0xB0
_DF = 0xAC
_SEGS, _GDT, _IDT, _CR, _XMM = 0xB8, 0x178, 0x190, 0x1A8, 0x338
_ERROR, _IS_INT, _DR, _OLD = 0x1508, 0x150C, 0x1518, 0x1578
_SEGMENT = struct.Struct("<IxxxxQII")
_CR0_BITS = 0x0E
_INHIBIT = 1 << 3
_COMPUTED = 0x3 | _INHIBIT | 0xF0 | 0xE00 | 3 << 14 | 1 << 22


def unknown_unicorn() -> HypervisorError:
    """Complain of a unicorn that is not as this module knows it."""
    return HypervisorError("this unicorn keeps its state elsewhere than 2.1: pip install 'unicorn~=2.1.1'")


def engine(uc: Any) -> int:
    """Address of unicorn's `uc_struct`."""
    return int(ctypes.cast(uc._uch, ctypes.c_void_p).value or 0)


class Context:
    """The processor's saved context."""

    def __init__(self, uc: Any, x86: Any, native: Any) -> None:
        self._uc, self._x86, self._native = uc, x86, native
        self._context = uc.context_save()
        size = self._context.size
        self.bytes = (ctypes.c_ubyte * size).from_address(self._at())
        self.env = memoryview(self.bytes).cast("B")[_HEADER:]
        self._check()

    def _at(self) -> int:
        pointer: Any = ctypes.cast(self._context.context, ctypes.c_void_p)
        assert pointer.value is not None
        return int(pointer.value)

    def _check(self) -> None:
        """Look whether this unicorn keeps its state where the offsets say."""
        uc, x86 = self._uc, self._x86
        marks = {x86.UC_X86_REG_EBX: 0x18, x86.UC_X86_REG_EIP: _EIP, x86.UC_X86_REG_CR3: _CR + 24}
        marks |= {x86.UC_X86_REG_DR3: _DR + 24, x86.UC_X86_REG_XMM1: _XMM + 64}
        old = {register: uc.reg_read(register) for register in marks}
        for register, offset in marks.items():
            uc.reg_write(register, 0x5A000000 + offset * 4096)
        self.load()
        right = all(self._get(offset) == 0x5A000000 + offset * 4096 for offset in marks.values())
        for register, value in old.items():
            uc.reg_write(register, value)
        if not right or self.env[_GDT] != self.env[_IDT]:
            raise HypervisorError(
                "this unicorn keeps its registers elsewhere: pip install 'unicorn>=2.1.1,<2.2'"
            )

    def load(self) -> None:
        """Copy from the processor."""
        self._native.uc_context_save(self._uc._uch, self._context.context)

    def store(self) -> None:
        """Copy into the processor."""
        self._uc.context_restore(self._context)

    def _get(self, offset: int) -> int:
        return int.from_bytes(self.env[offset : offset + 4], "little")

    def _set(self, offset: int, value: int) -> None:
        self.env[offset : offset + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    def _quad(self, offset: int) -> int:
        return int.from_bytes(self.env[offset : offset + 8], "little")

    def _set_quad(self, offset: int, value: int) -> None:
        self.env[offset : offset + 8] = (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")

    @property
    def protected(self) -> bool:
        """Whether protected mode is on."""
        return bool(self.env[_CR] & 1)

    @property
    def inhibited(self) -> bool:
        """Whether the instruction before holds interrupts off for one more."""
        return bool(self.env[_HFLAGS] & _INHIBIT)

    @property
    def error_code(self) -> int:
        """Error code of the exception under way."""
        return self._get(_ERROR)

    @property
    def software(self) -> bool:
        """Whether an INT instruction made the exception under way."""
        return bool(self._get(_IS_INT))

    def enter_real(self, vector: int, eflags: int, memory: Any) -> None:
        """Take an interrupt by the vector table: push FLAGS, CS and IP, go where the table says."""
        env = self.env
        sp = self._get(_REGS + 32)
        base = self._quad(_SEGS + 24 * SS + 8)
        frame = struct.pack(
            "<HHH", self._get(_EIP) & 0xFFFF, self._get(_SEGS + 24 * CS) & 0xFFFF, eflags & 0xFFFF
        )
        below = sp - 6 & 0xFFFF
        for number, byte in enumerate(frame):
            at = base + (below + number & 0xFFFF)
            if at < len(memory):
                memory[at] = byte
        env[_REGS + 32 : _REGS + 34] = below.to_bytes(2, "little")
        table = self._quad(_IDT + 8)
        ip, cs = struct.unpack("<HH", memory[table + vector * 4 : table + vector * 4 + 4].ljust(4, b"\xff"))
        self._set(_SEGS + 24 * CS, cs)
        self._set_quad(_SEGS + 24 * CS + 8, cs << 4)
        self._set_quad(_EIP, ip)
        self._set(_EFLAGS, self._get(_EFLAGS) & ~0x50300)
        self._set(_OLD, 0xFFFFFFFF)

    def repeated_input(self, memory: Any, size: int) -> tuple[int, int, int] | None:
        """Where REP INS stores next, how many elements are left, and the mask of its registers.

        None unless the next instruction is one, upwards, without wrapping, paging or overwriting itself.
        """
        code = self._quad(_SEGS + 24 * CS + 8) + self._get(_EIP)
        prefixes, found, _ = (
            memory[code : code + 4].partition(b"\x6d") if code + 4 <= len(memory) else _NOTHING
        )
        if not found or _REP not in prefixes or prefixes.strip(_PREFIXES):
            return None
        wide = (self._get(_HFLAGS) >> 4 & 1) ^ (_ADDRESS in prefixes)
        mask = 0xFFFFFFFF if wide else 0xFFFF
        count, offset = self._get(_REGS + 8) & mask, self._get(_REGS + 56) & mask
        _, base, limit, _ = _SEGMENT.unpack_from(self.env, _SEGS)
        target, end = base + offset, base + offset + count * size
        if self._get(_CR) >> 31 or self._get(_DF) != 1 or target - 16 < code < end:
            return None
        if offset + count * size > min(limit, mask) or end > len(memory):
            return None
        return target, count, mask

    def settle(self) -> None:
        """Forget the exception under way: it has been delivered."""
        self._set(_OLD, 0xFFFFFFFF)

    def read(self, eflags: int) -> CpuState:
        """All of the processor but its model-specific registers and floating point."""
        state = CpuState(eflags=eflags, eip=self._quad(_EIP))
        state.regs = list(struct.unpack_from("<16Q", self.env, _REGS))
        for number, name in enumerate(SEGMENTS):
            selector, base, limit, flags = _SEGMENT.unpack_from(self.env, _SEGS + 24 * number)
            state.segs[name] = Segment(selector & 0xFFFF, base, limit, flags)
        for table, offset in ((state.gdt, _GDT), (state.idt, _IDT)):
            _, table.base, table.limit, _ = _SEGMENT.unpack_from(self.env, offset)
        state.cr = list(struct.unpack_from("<5Q", self.env, _CR))
        state.dr = list(struct.unpack_from("<8Q", self.env, _DR))
        state.interrupt_shadow = int(self.inhibited)
        return state

    def write(self, state: CpuState) -> None:
        """Write what `read` reads, but EFLAGS, which unicorn computes by itself."""
        struct.pack_into("<16Q", self.env, _REGS, *state.regs)
        self._set_quad(_EIP, state.eip)
        for number, name in enumerate(SEGMENTS):
            segment = state.segs[name]
            values = (segment.selector, segment.base, segment.limit, segment.flags)
            _SEGMENT.pack_into(self.env, _SEGS + 24 * number, *values)
        for offset, table in ((_GDT, state.gdt), (_IDT, state.idt)):
            _SEGMENT.pack_into(self.env, offset, 0, table.base, table.limit, 0)
        struct.pack_into("<5Q", self.env, _CR, *state.cr)
        struct.pack_into("<8Q", self.env, _DR, *state.dr)
        self._set(_HFLAGS, _hidden_flags(state) | self._get(_HFLAGS) & ~_COMPUTED)
        if state.interrupt_shadow:
            self.env[_HFLAGS] |= _INHIBIT
        self._set(_OLD, 0xFFFFFFFF)


def _hidden_flags(state: CpuState) -> int:
    """What QEMU's translator looks at instead of registers: HF_* of target/i386/cpu.h."""
    cr0, cs, ss = state.cr[0], state.segs["cs"], state.segs["ss"]
    flags = (cs.flags >> 22 & 1) << 4 | (ss.flags >> 22 & 1) << 5
    flags |= (cr0 & _CR0_BITS) << 8 | (state.cr[4] >> 9 & 1) << 22
    if cr0 & 1:
        flags |= 1 << 7 | (3 if state.eflags & 1 << 17 else ss.flags >> 13 & 3)
    based = any(state.segs[name].base for name in ("ds", "es", "ss"))
    if not cr0 & 1 or state.eflags & 1 << 17 or not flags & 1 << 4 or based:
        flags |= 1 << 6
    if state.efer & 1 << 10:
        flags |= 1 << 14
        if cs.flags & 1 << 21:
            flags |= 1 << 15 | 1 << 4 | 1 << 5
    return flags
