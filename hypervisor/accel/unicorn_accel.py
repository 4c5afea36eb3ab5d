"""The processor by unicorn, the CPU emulator taken out of QEMU.

What unicorn leaves to its user is done here: interrupts and exceptions are delivered through the vector table
or, in protected mode, by descriptors (`hypervisor.accel.interrupt`); ports go to `hypervisor.ioport`; a halt
is seen by a slice that ends before its limit. Memory that is not there reads zeros, as the real program's
unassigned memory does. A triple fault resets the machine.

Stopping: a slice is ended by its count, or by a stop within an OUT or INT, never within an IN: unicorn would
lose a word of REP INS.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
from collections.abc import Callable, Collection
from mmap import mmap
from typing import Any

from hypervisor import ioport, trace_io, vl_state
from hypervisor.accel import FPU_AT_POWER_ON, FXSAVE_SIZE, CpuState, MmioRead, MmioWrite, Registers, Segment
from hypervisor.accel.dirty import Dirty
from hypervisor.accel.interrupt import TripleFault, deliver
from hypervisor.accel.unicorn_layout import SEGMENTS, Context
from hypervisor.accel.unicorn_native import (
    add_native_hook,
    address_of,
    native_library,
    register_reader,
    runs_machine_code,
)
from hypervisor.accel.unicorn_pages import CodePages
from hypervisor.accel.unicorn_slice import Blocks, Exact, Slice
from hypervisor.errors import HypervisorError
from hypervisor.exec import ram
from hypervisor.qemu_log import CPU_LOG_INT, qemu_loglevel_mask

_IF = 0x200
_UNDEFINED = 6
_STRAY_PAGES = 256
_MIB = 1 << 20
_LAST = (1 << 64) - 1
_NOWHERE = 0xFFFFFFFFFFFF
"""Where unicorn would stop by itself."""
_EFER = 0xC0000080
_MSRS = (0x174, 0x175, 0x176, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000102)
_RAM_FLAGS, _CODE_FLAGS, _LDT_FLAGS, _TSS_FLAGS = 0x9300, 0x9B00, 0x8200, 0x8B00
_PROCESSOR = 0x633
_IN = {1: ioport.cpu_inb, 2: ioport.cpu_inw, 4: ioport.cpu_inl}
_InHook = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p)
_OutHook = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p
)
_OUT = {1: ioport.cpu_outb, 2: ioport.cpu_outw, 4: ioport.cpu_outl}


class UnicornAccel:
    """`hypervisor.accel.Accel` by unicorn."""

    name = "unicorn"

    def __init__(self, exact: bool = False) -> None:
        self.executed = 0
        """Instructions so far; if `exact` was asked for, to the last one."""
        # The package has no types to check against.
        unicorn: Any = importlib.import_module("unicorn")
        x86: Any = importlib.import_module("unicorn.x86_const")
        self._all, self._readable = unicorn.UC_PROT_ALL, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC
        self._uc_error = unicorn.UcError
        self._errors = {
            unicorn.UC_ERR_FETCH_UNMAPPED: "jumped to where there is no memory",
            unicorn.UC_ERR_FETCH_PROT: "jumped to where there is no memory",
            unicorn.UC_ERR_EXCEPTION: "took an exception that the model does not deliver",
        }
        self._tlb_flush, self._io_write = unicorn.UC_CTL_TLB_FLUSH, unicorn.UC_CTL_IO_WRITE
        self._undefined, self._exception = unicorn.UC_ERR_INSN_INVALID, unicorn.UC_ERR_EXCEPTION
        self._x86 = x86
        self._ids = [getattr(x86, f"UC_X86_REG_{f.name.upper()}") for f in dataclasses.fields(Registers)]
        self._uc: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        self._native = native = native_library()
        self._context = Context(self._uc, x86, native)
        self._power_on = self._uc.context_save()
        self._uc.hook_add(unicorn.UC_HOOK_INTR, self._guarded(self._on_interrupt))
        self._read_eip, self._read_eflags, self._read_ecx, self._read_edi = (
            register_reader(native, self._uc, getattr(x86, f"UC_X86_REG_{name}"))
            for name in ("EIP", "EFLAGS", "ECX", "EDI")
        )
        # Without the wrappers of unicorn's package: these two are called a hundred thousand times.
        self._hooks = (_InHook(self._on_in), _OutHook(self._on_out))
        for hook, instruction in zip(self._hooks, (x86.UC_X86_INS_IN, x86.UC_X86_INS_OUT), strict=True):
            add_native_hook(native, self._uc, unicorn.UC_HOOK_INSN, address_of(hook), 0, instruction)
        self._blocks = runs_machine_code() and not exact
        self._slice: Slice = (
            Blocks(self._uc, native, unicorn.UC_HOOK_BLOCK) if self._blocks else Exact(self._uc)
        )
        self._code_pages = CodePages(self._uc, native)
        self._unmapped = unicorn.UC_HOOK_MEM_READ_UNMAPPED | unicorn.UC_HOOK_MEM_WRITE_UNMAPPED
        self._pins: list[Any] = []
        self._watch: int | None = None
        self._block_hook = unicorn.UC_HOOK_BLOCK
        self._running = self._reading = self._stop = False
        self._failure: BaseException | None = None
        self._traps: dict[int, Callable[[], bool]] = {}
        self._trap: Callable[[], bool] | None = None
        self._stray_pages = 0
        self._a20 = self._wanted_a20 = True
        self._dirty = Dirty()

    # Memory

    def map_ram(self) -> None:
        """Put the machine's memory at physical address 0."""
        # The second megabyte is a region of its own: `set_a20` exchanges it.
        for begin, end in ((0, _MIB), (_MIB, 2 * _MIB), (2 * _MIB, len(ram()))):
            self._map_ram(begin, begin, min(end, len(ram())) - begin)
        # Only where no RAM is: unicorn would call four functions at each store where a hook might be.
        self._uc.hook_add(self._unmapped, self._guarded(self._on_unmapped), None, len(ram()), _LAST)

    def _map_ram(self, address: int, offset: int, size: int) -> None:
        if size > 0:
            pin = ctypes.c_char.from_buffer(ram(), offset)
            self._pins.append(pin)
            self._uc.mem_map_ptr(address, size, self._all, ctypes.addressof(pin))

    def map_memory(self, address: int, memory: mmap, writable: bool) -> None:
        """Show a piece of memory of its own, a ROM, at `address`; whole pages."""
        self._map(address, memory, self._all if writable else self._readable)

    def _map(self, address: int, memory: mmap, access: int) -> None:
        # Keeps the pages in place for as long as unicorn executes from them.
        pin = ctypes.c_char.from_buffer(memory)
        self._pins.append(pin)
        self._uc.mem_map_ptr(address, len(memory), access, ctypes.addressof(pin))

    def map_mmio(self, address: int, size: int, read: MmioRead, write: MmioWrite) -> None:
        """Call a device for each access to whole pages of physical addresses, instead of memory."""

        def on_read(uc: Any, offset: int, width: int, data: None) -> int:
            return int(self._call(read, address + offset, width) or 0)

        def on_write(uc: Any, offset: int, width: int, value: int, data: None) -> None:
            self._call(write, address + offset, width, value)

        self._uc.mmio_map(address, size, on_read, None, on_write, None)

    def unmap(self, address: int, size: int) -> None:
        """Let nothing be at whole pages of physical addresses."""
        self._uc.mem_unmap(address, size)

    def set_a20(self, on: bool) -> None:
        """Let address line 20 through, or have the second megabyte show the first, as real mode sees it."""
        self._wanted_a20 = on
        if self._running:
            # Not under the feet of the instruction that asks for it.
            self.stop()
        else:
            self._apply_a20()

    def _apply_a20(self) -> None:
        on, size = self._wanted_a20, min(len(ram()), 2 * _MIB) - _MIB
        if on == self._a20 or size <= 0:
            return
        self._a20 = on
        self._uc.mem_unmap(_MIB, size)
        self._map_ram(_MIB, _MIB if on else 0, size)
        self._flush_tlb()

    def _flush_tlb(self) -> None:
        self._uc.ctl(self._tlb_flush, self._io_write)

    def memory_written(self, address: int, size: int) -> None:
        """Forget what was decoded of memory that a device wrote."""
        if size > 0:
            self._code_pages.written(address, size)

    def dirty_pages(self) -> Collection[int]:
        """Numbers of the pages of the machine's memory that changed since the last call; at first all."""
        return self._dirty.pages(ram())

    # State

    def reset(self) -> None:
        """Take the state after power-on."""
        self._uc.context_restore(self._power_on)
        self.set_a20(True)
        segs = {name: Segment(flags=_RAM_FLAGS) for name in SEGMENTS}
        segs["cs"] = Segment(0xF000, 0xFFFF0000, 0xFFFF, _CODE_FLAGS)
        segs["ldt"].flags, segs["tr"].flags = _LDT_FLAGS, _TSS_FLAGS
        regs = [0] * 16
        regs[2] = _PROCESSOR
        state = CpuState(regs=regs, eip=0xFFF0, segs=segs, cr=[0x60000010, 0, 0, 0, 0])
        state.dr[6:8] = [0xFFFF0FF0, 0x400]
        self._write(state)
        self._write_fpu(FPU_AT_POWER_ON)
        self._trap = None

    def state(self) -> CpuState:
        """Read all of the processor."""
        uc, x86 = self._uc, self._x86
        self._context.load()
        state = self._context.read(uc.reg_read(x86.UC_X86_REG_EFLAGS))
        state.efer = uc.msr_read(_EFER)
        state.msrs = {number: value for number in _MSRS if (value := uc.msr_read(number))}
        state.fpu = self._read_fpu()
        return state

    def set_state(self, state: CpuState) -> None:
        """Write all of the processor."""
        for number in _MSRS:
            self._uc.msr_write(number, state.msrs.get(number, 0))
        self._uc.msr_write(_EFER, state.efer)
        self._write(state)
        self._write_fpu(state.fpu)
        if state.interrupt_injected >= 0:
            self.inject(state.interrupt_injected)

    def _write(self, state: CpuState) -> None:
        self._context.load()
        self._context.write(state)
        self._context.store()
        self._uc.reg_write(self._x86.UC_X86_REG_EFLAGS, state.eflags | 2)
        self._code_pages.settle()
        self._flush_tlb()

    def _fpu_registers(self) -> list[tuple[int, int, int]]:
        """(unicorn's number, offset and size in the FXSAVE image) of what can be moved as it is."""
        x86 = self._x86
        places = [(x86.UC_X86_REG_FPCW, 0, 2), (x86.UC_X86_REG_FPSW, 2, 2), (x86.UC_X86_REG_MXCSR, 24, 4)]
        places += [(x86.UC_X86_REG_FP0 + number, 32 + 16 * number, 10) for number in range(8)]
        return places + [(x86.UC_X86_REG_XMM0 + number, 160 + 16 * number, 16) for number in range(8)]

    def _read_fpu(self) -> bytes:
        image = bytearray(FXSAVE_SIZE)
        for register, offset, size in self._fpu_registers():
            value = self._uc.reg_read(register)
            if isinstance(value, tuple):
                value = value[0] | value[1] << 64
            image[offset : offset + size] = value.to_bytes(size, "little")
        tags = self._uc.reg_read(self._x86.UC_X86_REG_FPTAG)
        image[4] = sum(1 << number for number in range(8) if tags >> 2 * number & 3 != 3)
        image[28:32] = (0xFFFF).to_bytes(4, "little")
        return bytes(image)

    def _write_fpu(self, image: bytes) -> None:
        for register, offset, size in self._fpu_registers():
            value = int.from_bytes(image[offset : offset + size], "little")
            self._uc.reg_write(register, (value & (1 << 64) - 1, value >> 64) if size == 10 else value)
        tags = sum((0 if image[4] >> number & 1 else 3) << 2 * number for number in range(8))
        self._uc.reg_write(self._x86.UC_X86_REG_FPTAG, tags)

    def registers(self) -> Registers:
        """Read the registers."""
        return Registers(*self._uc.reg_read_batch(self._ids))

    def set_registers(self, registers: Registers) -> None:
        """Write the registers."""
        # Segments last: loading one may depend on nothing that comes after it.
        self._uc.reg_write_batch(list(zip(self._ids, dataclasses.astuple(registers), strict=True)))

    def interrupts_enabled(self) -> bool:
        """Whether the guest would take an interrupt now."""
        if not self._read_eflags() & _IF:
            return False
        self._context.load()
        return not self._context.inhibited

    # Execution

    def on_trap(self, port: int, handler: Callable[[], bool]) -> None:
        """Call `handler` instead of the device when the guest writes to `port`."""
        self._traps[port] = handler

    def watch_blocks(self, watch: Callable[[int, int], None] | None) -> None:
        """Call `watch(address, size)` where a basic block begins; None: no more."""
        if self._watch is not None:
            self._uc.hook_del(self._watch)
            self._watch = None
        if watch is not None:
            self._watch = self._uc.hook_add(self._block_hook, self._guarded(watch))
        # What was translated before calls no hook.
        self._uc.ctl_flush_tb()

    def stop(self) -> None:
        """Have `run` return soon."""
        self._stop = True
        # Stopping within IN makes REP INS lose a word: then the end of the slice will do.
        if self._running and not self._reading:
            self._uc.emu_stop()

    def run(self, limit: int) -> bool:
        """Execute up to `limit` instructions; True when the guest halted."""
        uc = self._uc
        self._stop = False
        if self._code_pages.paging:
            self._code_pages.settle()
        self._running = True
        try:
            count = self._slice.begin(limit)
            error = self._native.uc_emu_start(uc._uch, self._read_eip(), _NOWHERE, 0, count)
        finally:
            self._running = False
        if uc._hook_exception is not None:
            # A signal's, that came before a hook of ours could take it.
            self._failure, uc._hook_exception = uc._hook_exception, None
        if error:
            self._fail(error)
            return False
        self._raise_failure()
        if self._wanted_a20 != self._a20:
            self._apply_a20()
        over, executed = self._slice.end()
        self.executed += executed
        if self._trap is not None:
            handler, self._trap = self._trap, None
            handler()
            return False
        return not over and not self._stop

    def inject(self, vector: int) -> None:
        """Have the guest take an interrupt from outside."""
        self._deliver(vector, outside=True)

    def _deliver(self, vector: int, outside: bool = False) -> None:
        context, uc = self._context, self._uc
        eflags = self._read_eflags()
        context.load()
        if qemu_loglevel_mask(CPU_LOG_INT):
            self._log_interrupt(vector, outside)
        if not context.protected:
            context.enter_real(vector, eflags, ram())
            context.store()
            return
        state = context.read(eflags)
        state.interrupt_shadow = 0
        try:
            error = None if outside else context.error_code
            deliver(state, ram(), vector, error, not outside and context.software)
        except TripleFault:
            self._triple_fault()
            return
        context.write(state)
        context.store()
        uc.reg_write(self._x86.UC_X86_REG_EFLAGS, state.eflags)

    def _log_interrupt(self, vector: int, outside: bool) -> None:
        from hypervisor.guest_log import log_interrupt

        env, context = vl_state.state.first_cpu, self._context
        if env is not None:
            software = not outside and context.software
            log_interrupt(env, vector, 0 if outside or software else context.error_code, software)
            context.load()

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Carry an exception from a hook through unicorn to `run`."""
        try:
            return function(*args)
        except BaseException as failure:
            self._failure = failure
            self._uc.emu_stop()
            return 0

    def _guarded(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(uc: Any, *args: Any) -> Any:
            return self._call(hook, *args[:-1])

        return guarded

    def _on_interrupt(self, vector: int) -> None:
        self._deliver(vector)

    def _on_in(self, uc: int, port: int, size: int, data: int) -> int:
        self._reading = True
        try:
            handler = None if trace_io.is_enabled() else ioport._read_table[size >> 1].get(port)
            if handler is None:
                return _IN[size](port)
            if size > 1 and self._blocks and port in ioport._block_read:
                read = self._read_block(port, size)
                if read:
                    return int.from_bytes(read, "little")
            return handler(ioport._opaque.get(port), port)
        except BaseException as failure:
            self._failure = failure
            self._native.uc_emu_stop(self._uc._uch)
            return 0
        finally:
            self._reading = False

    def _read_block(self, port: int, size: int) -> bytes:
        """Do most of a REP INS at once; the first element is left to the instruction, which stores it."""
        context, memory = self._context, ram()
        context.load()
        found = context.repeated_input(memory, size)
        if found is None or not self._a20:
            return b""
        target, count, mask = found
        data = ioport._block_read[port](ioport._opaque.get(port), size, count)
        done = len(data) // size - 1
        if done < 1:
            return b""
        memory[target + size : target + len(data)] = data[size:]
        self.memory_written(target + size, len(data) - size)
        x86 = self._x86
        ecx, edi = self._read_ecx(), self._read_edi()
        self._uc.reg_write(x86.UC_X86_REG_ECX, ecx & ~mask | ecx - done & mask)
        self._uc.reg_write(x86.UC_X86_REG_EDI, edi & ~mask | edi + done * size & mask)
        return data[:size]

    def _on_out(self, uc: int, port: int, size: int, value: int, data: int) -> None:
        try:
            handler = self._traps.get(port)
            if handler is None:
                _OUT[size](port, value & (1 << 8 * size) - 1)
                return
            self._trap = handler
        except BaseException as failure:
            self._failure = failure
        self._native.uc_emu_stop(self._uc._uch)

    def _on_unmapped(self, access: int, address: int, size: int, value: int) -> bool:
        if self._stray_pages >= _STRAY_PAGES:
            return False
        self._stray_pages += 1
        first, last = address & ~0xFFF, address + size - 1 & ~0xFFF
        for page in {first, last}:
            if not any(begin <= page <= end for begin, end, _ in self._uc.mem_regions()):
                self._uc.mem_map(page, 0x1000)
        return True

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _fail(self, errno: int) -> None:
        self._raise_failure()
        if errno == self._exception and self._code_pages.refused():
            return
        if errno == self._undefined:
            self._deliver(_UNDEFINED, outside=True)
            return
        what = self._errors.get(errno, f"could not go on (unicorn: {self._uc_error(errno)})")
        raise HypervisorError(f"the guest {what} at {self._place()}")

    def _triple_fault(self) -> None:
        from hypervisor import quirks
        from hypervisor.vl_loop import qemu_system_reset_request

        quirks.note(
            "triple-fault", f"the guest took a triple fault at {self._place()}: the machine was reset"
        )
        self._context.settle()
        self._context.store()
        self._stop = True
        if self._running:
            self._uc.emu_stop()
        qemu_system_reset_request()

    def _place(self) -> str:
        uc, x86 = self._uc, self._x86
        cs, eip = uc.reg_read(x86.UC_X86_REG_CS), uc.reg_read(x86.UC_X86_REG_EIP)
        return f"{cs:04x}:{eip:04x}"
