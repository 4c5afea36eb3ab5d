"""The processor by unicorn, the CPU emulator taken out of QEMU.

What unicorn leaves to its user is done here: interrupts and exceptions are delivered through the real-mode
vector table, ports go to `hypervisor.ioport`, a halt is seen by the byte before IP. Memory that is not there
reads zeros, as the real program's unassigned memory does.

In protected mode interrupts and exceptions are not delivered: one that the guest has no descriptor for resets
the machine, as a triple fault does, and any other ends the run with a message.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

from hypervisor import ioport
from hypervisor.accel import Registers
from hypervisor.errors import HypervisorError
from hypervisor.exec import ram

_IF = 0x200
_TF = 0x100
_HLT = 0xF4
_STRAY_PAGES = 256
_IN = {1: ioport.cpu_inb, 2: ioport.cpu_inw, 4: ioport.cpu_inl}
_OUT = {1: ioport.cpu_outb, 2: ioport.cpu_outw, 4: ioport.cpu_outl}


class UnicornAccel:
    """`hypervisor.accel.Accel` by unicorn."""

    def __init__(self) -> None:
        # The package has no types to check against.
        unicorn: Any = importlib.import_module("unicorn")
        x86: Any = importlib.import_module("unicorn.x86_const")
        self._all = unicorn.UC_PROT_ALL
        self._uc_error = unicorn.UcError
        self._errors = {
            unicorn.UC_ERR_FETCH_UNMAPPED: "jumped to where there is no memory",
            unicorn.UC_ERR_FETCH_PROT: "jumped to where there is no memory",
            unicorn.UC_ERR_EXCEPTION: "took an exception that the model does not deliver",
        }
        self._undefined = unicorn.UC_ERR_INSN_INVALID
        self._x86 = x86
        self._ids = [getattr(x86, f"UC_X86_REG_{f.name.upper()}") for f in dataclasses.fields(Registers)]
        self._uc: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        self._uc.hook_add(unicorn.UC_HOOK_INTR, self._guarded(self._on_interrupt))
        self._uc.hook_add(unicorn.UC_HOOK_INSN, self._guarded(self._on_in), None, 1, 0, x86.UC_X86_INS_IN)
        self._uc.hook_add(unicorn.UC_HOOK_INSN, self._guarded(self._on_out), None, 1, 0, x86.UC_X86_INS_OUT)
        unmapped = unicorn.UC_HOOK_MEM_READ_UNMAPPED | unicorn.UC_HOOK_MEM_WRITE_UNMAPPED
        self._uc.hook_add(unmapped, self._guarded(self._on_unmapped))
        self._power_on = self._uc.context_save()
        self._pin: Any = None
        self._running = self._reading = self._stop = False
        self._failure: BaseException | None = None
        self._traps: dict[int, Callable[[], bool]] = {}
        self._trap: Callable[[], bool] | None = None
        self._stray_pages = 0

    def map_ram(self) -> None:
        """Put the machine's memory at physical address 0."""
        memory = ram()
        # Keeps the pages in place for as long as unicorn executes from them.
        self._pin = ctypes.c_char.from_buffer(memory)
        self._uc.mem_map_ptr(0, len(memory), self._all, ctypes.addressof(self._pin))

    def reset(self) -> None:
        """Take the state after power-on."""
        uc, x86 = self._uc, self._x86
        uc.context_restore(self._power_on)
        uc.reg_write(x86.UC_X86_REG_CR0, uc.reg_read(x86.UC_X86_REG_CR0) & ~1)
        zero = dict.fromkeys((f.name for f in dataclasses.fields(Registers)), 0)
        self.set_registers(Registers(**zero | {"cs": 0xF000, "eip": 0xFFF0, "eflags": 2}))
        self._trap = None

    def on_trap(self, port: int, handler: Callable[[], bool]) -> None:
        """Call `handler` instead of the device when the guest writes to `port`."""
        self._traps[port] = handler

    def registers(self) -> Registers:
        """Read the registers."""
        return Registers(*self._uc.reg_read_batch(self._ids))

    def set_registers(self, registers: Registers) -> None:
        """Write the registers."""
        # Segments last: loading one may depend on nothing that comes after it.
        self._uc.reg_write_batch(list(zip(self._ids, dataclasses.astuple(registers), strict=True)))

    def interrupts_enabled(self) -> bool:
        """Whether the guest would take an interrupt now."""
        return bool(self._uc.reg_read(self._x86.UC_X86_REG_EFLAGS) & _IF)

    def stop(self) -> None:
        """Have `run` return soon."""
        self._stop = True
        # Stopping within IN makes REP INS lose a word: then the end of the slice will do.
        if self._running and not self._reading:
            self._uc.emu_stop()

    def run(self, limit: int) -> bool:
        """Execute up to `limit` instructions; True when the guest halted."""
        uc, x86 = self._uc, self._x86
        self._stop = False
        self._running = True
        try:
            uc.emu_start(uc.reg_read(x86.UC_X86_REG_EIP), 0xFFFFFFFF, 0, limit)
        except self._uc_error as error:
            self._running = False
            self._fail(error.errno)
            return False
        finally:
            self._running = False
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._trap is not None:
            handler, self._trap = self._trap, None
            handler()
            return False
        return not self._stop and self._before_ip() == _HLT

    def inject(self, vector: int) -> None:
        """Have the guest take an interrupt."""
        uc, x86 = self._uc, self._x86
        if uc.reg_read(x86.UC_X86_REG_CR0) & 1:
            _, _, limit, _ = uc.reg_read(x86.UC_X86_REG_IDTR)
            if limit < vector * 8 + 7:
                self._triple_fault()
                return
            raise HypervisorError(
                f"the guest took interrupt {vector:#x} in protected mode at {self._place()}: the model"
                " delivers interrupts in real mode only"
            )
        ids = (
            x86.UC_X86_REG_IP,
            x86.UC_X86_REG_CS,
            x86.UC_X86_REG_EFLAGS,
            x86.UC_X86_REG_SS,
            x86.UC_X86_REG_SP,
        )
        ip, cs, eflags, ss, sp = uc.reg_read_batch(list(ids))
        frame = b"".join((value & 0xFFFF).to_bytes(2, "little") for value in (ip, cs, eflags))
        for at, byte in enumerate(frame):
            ram()[ss * 16 + (sp - 6 + at & 0xFFFF)] = byte
        entry = ram()[vector * 4 : vector * 4 + 4]
        uc.reg_write(x86.UC_X86_REG_SP, sp - 6 & 0xFFFF)
        uc.reg_write(x86.UC_X86_REG_EFLAGS, eflags & ~(_IF | _TF))
        uc.reg_write(x86.UC_X86_REG_CS, int.from_bytes(entry[2:], "little"))
        uc.reg_write(x86.UC_X86_REG_EIP, int.from_bytes(entry[:2], "little"))

    def _guarded(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Carry an exception from a hook through unicorn to `run`."""

        def guarded(uc: Any, *args: Any) -> Any:
            try:
                return hook(*args[:-1])
            except BaseException as failure:
                self._failure = failure
                uc.emu_stop()
                return 0

        return guarded

    def _on_interrupt(self, vector: int) -> None:
        self.inject(vector)

    def _on_in(self, port: int, size: int) -> int:
        self._reading = True
        try:
            return _IN[size](port)
        finally:
            self._reading = False

    def _on_out(self, port: int, size: int, value: int) -> None:
        handler = self._traps.get(port)
        if handler is None:
            _OUT[size](port, value & (1 << 8 * size) - 1)
            return
        self._trap = handler
        self._uc.emu_stop()

    def _on_unmapped(self, access: int, address: int, size: int, value: int) -> bool:
        if self._stray_pages >= _STRAY_PAGES:
            return False
        self._stray_pages += 1
        first, last = address & ~0xFFF, address + size - 1 & ~0xFFF
        for page in {first, last}:
            if not any(begin <= page <= end for begin, end, _ in self._uc.mem_regions()):
                self._uc.mem_map(page, 0x1000)
        return True

    def _fail(self, errno: int) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if errno == self._undefined and not self._uc.reg_read(self._x86.UC_X86_REG_CR0) & 1:
            self.inject(6)
            return
        what = self._errors.get(errno, f"could not go on (unicorn: {self._uc_error(errno)})")
        if errno == self._undefined:
            what = "executed an instruction that the processor does not know"
        raise HypervisorError(f"the guest {what} at {self._place()}")

    def _triple_fault(self) -> None:
        from hypervisor import quirks
        from hypervisor.vl_loop import qemu_system_reset_request

        quirks.note(
            "triple-fault", f"the guest took a triple fault at {self._place()}: the machine was reset"
        )
        qemu_system_reset_request()

    def _before_ip(self) -> int:
        uc, x86 = self._uc, self._x86
        real = not uc.reg_read(x86.UC_X86_REG_CR0) & 1
        base = uc.reg_read(x86.UC_X86_REG_CS) * 16 if real else 0
        address = base + uc.reg_read(x86.UC_X86_REG_EIP) - 1
        memory = ram()
        return memory[address] if 0 <= address < len(memory) else 0

    def _place(self) -> str:
        uc, x86 = self._uc, self._x86
        cs, eip = uc.reg_read(x86.UC_X86_REG_CS), uc.reg_read(x86.UC_X86_REG_EIP)
        return f"{cs:04x}:{eip:04x}"
