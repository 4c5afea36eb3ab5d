"""What the kernel's KVM interface looks like: numbers and structures of linux/kvm.h for x86.

- ``KVM_RUN`` and its kin: request numbers for `ioctl`; ``KVM_CAP_*``; ``KVM_EXIT_*``.
- `Regs`, `SRegs`, `Fpu`, `MemoryRegion` ...: structures, as `ctypes` lays them out.
- `Run`: the page that a processor shares with us, at fixed offsets:

      0 request_interrupt_window   1 immediate_exit   8 exit_reason   12 ready_for_interrupt_injection
      13 if_flag   16 cr8   24 apic_base   32 ... what the exit was about
"""

from __future__ import annotations

import ctypes
import mmap
import struct

KVM_API_VERSION = 12

_NONE, _WRITE, _READ = 0, 1, 2


def _request(direction: int, number: int, size: int = 0) -> int:
    return direction << 30 | size << 16 | 0xAE << 8 | number


class Regs(ctypes.Structure):
    """`struct kvm_regs`."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11"),
            *("r12", "r13", "r14", "r15", "rip", "rflags"),
        )
    ]


class KvmSegment(ctypes.Structure):
    """`struct kvm_segment`."""

    _fields_ = [
        ("base", ctypes.c_uint64),
        ("limit", ctypes.c_uint32),
        ("selector", ctypes.c_uint16),
        *(
            (name, ctypes.c_uint8)
            for name in ("type", "present", "dpl", "db", "s", "l", "g", "avl", "unusable", "padding")
        ),
    ]


class KvmTable(ctypes.Structure):
    """`struct kvm_dtable`."""

    _fields_ = [
        ("base", ctypes.c_uint64),
        ("limit", ctypes.c_uint16),
        ("padding", ctypes.c_uint16 * 3),
    ]


class SRegs(ctypes.Structure):
    """`struct kvm_sregs`."""

    _fields_ = [
        *((name, KvmSegment) for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")),
        ("gdt", KvmTable),
        ("idt", KvmTable),
        *((name, ctypes.c_uint64) for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")),
        ("interrupt_bitmap", ctypes.c_uint64 * 4),
    ]


class Fpu(ctypes.Structure):
    """`struct kvm_fpu`."""

    _fields_ = [
        ("fpr", ctypes.c_uint8 * 128),
        ("fcw", ctypes.c_uint16),
        ("fsw", ctypes.c_uint16),
        ("ftwx", ctypes.c_uint8),
        ("pad1", ctypes.c_uint8),
        ("last_opcode", ctypes.c_uint16),
        ("last_ip", ctypes.c_uint64),
        ("last_dp", ctypes.c_uint64),
        ("xmm", ctypes.c_uint8 * 256),
        ("mxcsr", ctypes.c_uint32),
        ("pad2", ctypes.c_uint32),
    ]


class MemoryRegion(ctypes.Structure):
    """`struct kvm_userspace_memory_region`."""

    _fields_ = [
        ("slot", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("guest_phys_addr", ctypes.c_uint64),
        ("memory_size", ctypes.c_uint64),
        ("userspace_addr", ctypes.c_uint64),
    ]


class VcpuEvents(ctypes.Structure):
    """`struct kvm_vcpu_events`, of which only what an interrupt needs has a name."""

    _fields_ = [
        ("exception", ctypes.c_uint8 * 8),
        ("interrupt_injected", ctypes.c_uint8),
        ("interrupt_nr", ctypes.c_uint8),
        ("interrupt_soft", ctypes.c_uint8),
        ("interrupt_shadow", ctypes.c_uint8),
        ("rest", ctypes.c_uint8 * 52),
    ]


class DebugRegs(ctypes.Structure):
    """`struct kvm_debugregs`."""

    _fields_ = [
        ("db", ctypes.c_uint64 * 4),
        ("dr6", ctypes.c_uint64),
        ("dr7", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("reserved", ctypes.c_uint64 * 9),
    ]


_WORD, _QUAD = 4, 8
KVM_GET_API_VERSION = _request(_NONE, 0x00)
KVM_CREATE_VM = _request(_NONE, 0x01)
KVM_GET_MSR_INDEX_LIST = _request(_READ | _WRITE, 0x02, _WORD)
KVM_CHECK_EXTENSION = _request(_NONE, 0x03)
KVM_GET_VCPU_MMAP_SIZE = _request(_NONE, 0x04)
KVM_GET_SUPPORTED_CPUID = _request(_READ | _WRITE, 0x05, _QUAD)
KVM_CREATE_VCPU = _request(_NONE, 0x41)
KVM_SET_USER_MEMORY_REGION = _request(_WRITE, 0x46, ctypes.sizeof(MemoryRegion))
KVM_SET_TSS_ADDR = _request(_NONE, 0x47)
KVM_SET_IDENTITY_MAP_ADDR = _request(_WRITE, 0x48, _QUAD)
KVM_SET_BOOT_CPU_ID = _request(_NONE, 0x78)
KVM_SET_CLOCK = _request(_WRITE, 0x7B, 48)
KVM_GET_CLOCK = _request(_READ, 0x7C, 48)
KVM_RUN = _request(_NONE, 0x80)
KVM_GET_REGS = _request(_READ, 0x81, ctypes.sizeof(Regs))
KVM_SET_REGS = _request(_WRITE, 0x82, ctypes.sizeof(Regs))
KVM_GET_SREGS = _request(_READ, 0x83, ctypes.sizeof(SRegs))
KVM_SET_SREGS = _request(_WRITE, 0x84, ctypes.sizeof(SRegs))
KVM_INTERRUPT = _request(_WRITE, 0x86, _WORD)
KVM_GET_MSRS = _request(_READ | _WRITE, 0x88, _QUAD)
KVM_SET_MSRS = _request(_WRITE, 0x89, _QUAD)
KVM_SET_SIGNAL_MASK = _request(_WRITE, 0x8B, _WORD)
KVM_GET_FPU = _request(_READ, 0x8C, ctypes.sizeof(Fpu))
KVM_SET_FPU = _request(_WRITE, 0x8D, ctypes.sizeof(Fpu))
KVM_SET_CPUID2 = _request(_WRITE, 0x90, _QUAD)
KVM_NMI = _request(_NONE, 0x9A)
KVM_GET_VCPU_EVENTS = _request(_READ, 0x9F, ctypes.sizeof(VcpuEvents))
KVM_SET_VCPU_EVENTS = _request(_WRITE, 0xA0, ctypes.sizeof(VcpuEvents))
KVM_GET_DEBUGREGS = _request(_READ, 0xA1, ctypes.sizeof(DebugRegs))
KVM_SET_DEBUGREGS = _request(_WRITE, 0xA2, ctypes.sizeof(DebugRegs))

KVM_CAP_USER_MEMORY = 3
KVM_CAP_SET_TSS_ADDR = 4
KVM_CAP_COALESCED_MMIO = 15
KVM_CAP_IRQ_ROUTING = 25
KVM_CAP_SET_BOOT_CPU_ID = 34
KVM_CAP_SET_IDENTITY_MAP_ADDR = 37
KVM_CAP_ADJUST_CLOCK = 39
KVM_CAP_VCPU_EVENTS = 41
KVM_CAP_IMMEDIATE_EXIT = 136

KVM_MEM_READONLY = 2

KVM_EXIT_UNKNOWN = 0
KVM_EXIT_IO = 2
KVM_EXIT_HLT = 5
KVM_EXIT_MMIO = 6
KVM_EXIT_IRQ_WINDOW_OPEN = 7
KVM_EXIT_SHUTDOWN = 8
KVM_EXIT_FAIL_ENTRY = 9
KVM_EXIT_INTERNAL_ERROR = 17
KVM_EXIT_IO_IN = 0

_IO = struct.Struct("=BBHIQ")
_MMIO = struct.Struct("=Q8sIB")


class Run:
    """`struct kvm_run` of one processor, in memory shared with the kernel."""

    def __init__(self, fd: int, size: int) -> None:
        self.memory = mmap.mmap(fd, size)

    def close(self) -> None:
        """Give the memory back."""
        self.memory.close()

    @property
    def exit_reason(self) -> int:
        """Why the processor came back, a KVM_EXIT_*."""
        return int.from_bytes(self.memory[8:12], "little")

    @property
    def ready_for_interrupt_injection(self) -> int:
        """Whether KVM_INTERRUPT may be used now."""
        return self.memory[12]

    @property
    def if_flag(self) -> int:
        """The guest's interrupt flag."""
        return self.memory[13]

    def set_flags(self, rflags: int) -> None:
        """Have both speak of the flags that the kernel was given; it would do so at its next return."""
        self.memory[12] = self.memory[13] = rflags >> 9 & 1

    def set_request_interrupt_window(self, on: int) -> None:
        """Have the processor come back as soon as it can take an interrupt."""
        self.memory[0] = on

    def set_immediate_exit(self, on: int) -> None:
        """Have the processor finish what an exit left open, and come back before the next instruction."""
        self.memory[1] = on

    def io(self) -> tuple[int, int, int, int, int]:
        """Direction, size in bytes, port, count and where in this memory the data are."""
        return _IO.unpack_from(self.memory, 32)

    def mmio(self) -> tuple[int, int, int]:
        """Address, length and whether it is a write; the data are at `MMIO_DATA`."""
        address, _, length, is_write = _MMIO.unpack_from(self.memory, 32)
        return address, length, is_write

    def detail(self) -> int:
        """The first word of what the exit was about: a hardware reason or a suberror."""
        return int.from_bytes(self.memory[32:36], "little")


MMIO_DATA = 40
