"""The processor by the kernel's KVM, through /dev/kvm and nothing but `ioctl` and `mmap`.

The thread that executes is `hypervisor.qemu_kvm_vcpu`'s; this is what the rest of the machine sees of it.
The processor's state is at the kernel, or here in `shadow` while `vcpu.regs_modified` says so: whoever
reads or sets all of it gets it here, and the vCPU thread gives it back before the guest runs again.
The built-in BIOS, which is served on the vCPU thread between two entries, sets single registers directly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from mmap import mmap
from typing import TYPE_CHECKING

from hypervisor import kvm_all, qemu_kvm
from hypervisor.accel import FPU_AT_POWER_ON, CpuState, MmioRead, MmioWrite, Registers, Segment
from hypervisor.accel import kvm_abi as abi
from hypervisor.accel.dirty import Dirty
from hypervisor.errors import HypervisorError
from hypervisor.exec import ram
from hypervisor.vl_state import state

if TYPE_CHECKING:
    from hypervisor.cpu_exec import CPUState

_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", "rflags")
_SELECTORS = ("cs", "ds", "es", "ss")
_CODE, _DATA, _LDT, _TSS = 0x9B00, 0x9300, 0x8200, 0x8B00


class KvmAccel:
    """`hypervisor.accel.Accel` by KVM."""

    name = "kvm"

    def __init__(self) -> None:
        from hypervisor.qemu_kvm_vcpu import KVMCPUState

        self.vcpu = KVMCPUState(queued_work=[])
        self.shadow = self._power_on()
        self.traps: dict[int, Callable[[], bool]] = {}
        self._mmio: list[tuple[int, int, MmioRead, MmioWrite]] = []
        self._dirty = Dirty()

    @staticmethod
    def _power_on() -> CpuState:
        held = CpuState(eip=0xFFF0, fpu=FPU_AT_POWER_ON)
        held.segs = {name: Segment(flags=_DATA) for name in ("ds", "es", "fs", "gs", "ss")}
        held.segs |= {
            "cs": Segment(0xF000, 0xF0000, 0xFFFF, _CODE),
            "ldt": Segment(flags=_LDT),
            "tr": Segment(flags=_TSS),
        }
        held.regs[2] = 0x663
        held.cr[0] = 0x60000010
        held.dr[6:] = [0xFFFF0FF0, 0x400]
        return held

    def map_ram(self) -> None:
        """Put the machine's memory at physical address 0."""
        self.map_memory(0, ram(), True)

    def map_memory(self, address: int, memory: mmap, writable: bool) -> None:
        """Show a piece of memory at `address`."""
        from hypervisor.qemu_kvm_memory import kvm_set_phys_mem

        self._forget_mmio(address, len(memory))
        kvm_set_phys_mem(address, len(memory), memory, 0 if writable else abi.KVM_MEM_READONLY)

    def map_mmio(self, address: int, size: int, read: MmioRead, write: MmioWrite) -> None:
        """Call a device for each access to physical addresses."""
        self.unmap(address, size)
        self._mmio.append((address, size, read, write))

    def unmap(self, address: int, size: int) -> None:
        """Let nothing be at physical addresses."""
        from hypervisor.qemu_kvm_memory import kvm_set_phys_mem

        self._forget_mmio(address, size)
        kvm_set_phys_mem(address, size, None)

    def _forget_mmio(self, address: int, size: int) -> None:
        kept = []
        for begin, length, read, write in self._mmio:
            end, cut_end = begin + length, address + size
            if begin < min(address, end):
                kept.append((begin, min(address, end) - begin, read, write))
            if end > max(cut_end, begin):
                kept.append((max(cut_end, begin), end - max(cut_end, begin), read, write))
        self._mmio = kept

    def mmio(self, address: int, data: memoryview, is_write: int) -> bool:
        """Do an access if a device is there; False if none is."""
        for begin, size, read, write in self._mmio:
            if begin <= address < begin + size:
                if is_write:
                    write(address, len(data), int.from_bytes(data, "little"))
                else:
                    data[:] = read(address, len(data)).to_bytes(len(data), "little")
                return True
        return False

    def set_a20(self, on: bool) -> None:
        """Leave address line 20 on: KVM cannot hold it back, and qemu-kvm did not try."""

    def reset(self) -> None:
        """Take the state after power-on; it reaches the kernel before the guest runs."""
        self.shadow = self._power_on()
        self.vcpu.regs_modified = 1

    def run(self, limit: int) -> bool:
        """Do not: the vCPU thread executes."""
        raise HypervisorError("under KVM the guest runs on a thread of its own")

    def stop(self) -> None:
        """Have the vCPU thread look up soon."""
        env = state.first_cpu
        if env is None:
            return
        if threading.current_thread() is not qemu_kvm.threads.vcpu:
            qemu_kvm.kvm_update_interrupt_request(env)
        elif env.exit_request:
            env.exit_request = 0
            self.vcpu.run.set_immediate_exit(1)

    def interrupts_enabled(self) -> bool:
        """Whether the guest would take an interrupt now."""
        if self.vcpu.regs_modified:
            return bool(self.shadow.eflags & 0x200)
        return bool(self.vcpu.run.if_flag)

    def inject(self, vector: int) -> None:
        """Have the guest take an interrupt from outside."""
        from hypervisor.qemu_kvm_vcpu import kvm_inject_irq

        kvm_inject_irq(self._env(), vector)

    def _env(self) -> CPUState:
        assert state.first_cpu is not None
        return state.first_cpu

    def _fetch(self) -> tuple[abi.Regs, abi.SRegs]:
        regs, sregs = abi.Regs(), abi.SRegs()
        kvm_all._request(self.vcpu.kvm_fd, abi.KVM_GET_REGS, regs)
        kvm_all._request(self.vcpu.kvm_fd, abi.KVM_GET_SREGS, sregs)
        return regs, sregs

    def registers(self) -> Registers:
        """Read the registers of a processor in real mode."""
        regs, sregs = self._fetch()
        general = [getattr(regs, name) & 0xFFFFFFFF for name in _GENERAL]
        return Registers(*general, *(getattr(sregs, name).selector for name in _SELECTORS))

    def set_registers(self, registers: Registers) -> None:
        """Write the registers of a processor in real mode."""
        r, (regs, sregs) = registers, self._fetch()
        values = (r.eax, r.ebx, r.ecx, r.edx, r.esi, r.edi, r.ebp, r.esp, r.eip, r.eflags)
        for name, value in zip(_GENERAL, values, strict=True):
            setattr(regs, name, value)
        changed = False
        for name, selector in zip(_SELECTORS, (r.cs, r.ds, r.es, r.ss), strict=True):
            segment = getattr(sregs, name)
            if segment.selector != selector:
                segment.selector, segment.base, changed = selector, selector << 4, True
        kvm_all._request(self.vcpu.kvm_fd, abi.KVM_SET_REGS, regs)
        if changed:
            kvm_all._request(self.vcpu.kvm_fd, abi.KVM_SET_SREGS, sregs)

    def state(self) -> CpuState:
        """Read all of the processor."""
        from hypervisor.qemu_kvm_vcpu import kvm_cpu_synchronize_state

        kvm_cpu_synchronize_state(self._env())
        return self.shadow

    def set_state(self, state: CpuState) -> None:
        """Write all of the processor."""
        from hypervisor.qemu_kvm_vcpu import kvm_cpu_synchronize_state

        kvm_cpu_synchronize_state(self._env())
        self.shadow = state
        self.vcpu.regs_modified = 1

    def place(self) -> str:
        """CS:IP, for messages; on the vCPU thread."""
        regs, sregs = self._fetch()
        return f"{sregs.cs.selector:04x}:{regs.rip:04x}"

    def memory_written(self, address: int, size: int) -> None:
        """Hear that a device wrote memory: the processor sees it anyway."""

    def dirty_pages(self) -> Collection[int]:
        """Numbers of the pages of memory that changed since the last call; at first all.

        By comparison: the kernel's log would not show what devices and the built-in BIOS wrote.
        """
        return self._dirty.pages(ram())

    def watch_blocks(self, watch: Callable[[int, int], None] | None) -> None:
        """The kernel runs the guest out of sight."""

    def on_trap(self, port: int, handler: Callable[[], bool]) -> None:
        """Call `handler` instead of the device when the guest writes to `port`."""
        self.traps[port] = handler
