"""The part of KVM that knows an x86: qemu-kvm-x86.c.

- `kvm_arch_create`, `kvm_arch_qemu_create_context`: what an x86 machine wants of the kernel.
- `kvm_arch_init_vcpu(env)`: which features the processor has.
- `kvm_arch_load_regs(env)`, `kvm_arch_save_regs(env)`: the processor's state to and from the kernel.
- `kvm_arch_try_push_interrupts(env)`, `kvm_arch_halt(env)`: interrupts and HLT.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import TYPE_CHECKING

from hypervisor import cpu_exec as cpu
from hypervisor import kvm_all
from hypervisor.accel import CpuState, Segment, Table
from hypervisor.accel import kvm_abi as abi
from hypervisor.kvm_all import (
    KVMContext,
    KVMState,
    kvm_check_extension,
    kvm_ioctl,
    kvm_vcpu_ioctl,
    kvm_vm_ioctl,
)
from hypervisor.kvm_tpr_opt import kvm_tpr_opt_setup
from hypervisor.program import on_reset
from hypervisor.qemu_kvm import kvm_init_coalesced_mmio
from hypervisor.qemu_kvm_vcpu import accel_of, kvm_inject_irq, kvm_inject_nmi, vcpu_of
from hypervisor.savevm import vmstate_register
from hypervisor.trace_io import traced_io
from hypervisor.vl_state import state
from hypervisor.vmstate import VMStateDescription
from hypervisor.vmstate.fields import VMSTATE_U64
from tracer import Struct, symbol, traced

if TYPE_CHECKING:
    from hypervisor.cpu_exec import CPUState

C_FILE = "qemu-kvm-x86.c"

_TSS_ADDRESS = 0xFEFFD000
_IDENTITY_MAP_ADDRESS = 0xFEFFC000
_MSRS = (
    0x174, 0x175, 0x176,  # SYSENTER: CS, ESP, EIP
    0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000102,  # STAR, LSTAR, CSTAR, FMASK, KERNELGSBASE
    0x277,  # PAT
)  # fmt: skip
_MSR_TSC = 0x10
_GENERAL = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
_DESCRIPTOR_BITS = {"type": (8, 15), "s": (12, 1), "dpl": (13, 3), "present": (15, 1), "avl": (20, 1)}
_DESCRIPTOR_BITS |= {"l": (21, 1), "db": (22, 1), "g": (23, 1)}
_PE = 1
_VM = 1 << 17
_SHADOW_STI = 2
_CLOCK_DATA = 48

_msr_indices: set[int] = set()


@on_reset
def _reset() -> None:
    _msr_indices.clear()


def _state() -> KVMState:
    assert kvm_all.kvm_state is not None
    return kvm_all.kvm_state


@traced
def kvm_set_tss_addr(kvm: KVMContext, addr: int) -> int:
    """Give Intel's processors three pages for their tricks with real mode."""
    if kvm_ioctl(_state(), abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_SET_TSS_ADDR) <= 0:
        return -1
    r = kvm_vm_ioctl(_state(), abi.KVM_SET_TSS_ADDR, addr)
    if r < 0:
        print("kvm_set_tss_addr: " + os.strerror(-r), file=sys.stderr)
    return r


@traced
def kvm_init_tss(kvm: KVMContext) -> int:
    """Give the kernel those pages, if it wants them."""
    if kvm_ioctl(_state(), abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_SET_TSS_ADDR) > 0:
        r = kvm_set_tss_addr(kvm, _TSS_ADDRESS)
        if r < 0:
            print("kvm_init_tss: unable to set tss addr", file=sys.stderr)
            return r
    return 0


@traced
def kvm_set_identity_map_addr(kvm: KVMContext, addr: int) -> int:
    """Give the kernel a page for the tables of a processor that has paging off."""
    if kvm_ioctl(_state(), abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_SET_IDENTITY_MAP_ADDR) <= 0:
        return -1
    return kvm_vm_ioctl(_state(), abi.KVM_SET_IDENTITY_MAP_ADDR, bytearray(addr.to_bytes(8, "little")))


@traced
def kvm_init_identity_map_page(kvm: KVMContext) -> int:
    """Give the kernel that page, if it wants it."""
    if kvm_ioctl(_state(), abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0:
        r = kvm_set_identity_map_addr(kvm, _IDENTITY_MAP_ADDRESS)
        if r < 0:
            print("kvm_init_identity_map_page: unable to set identity mapping addr", file=sys.stderr)
            return r
    return 0


@traced
def kvm_create_pit(kvm: KVMContext) -> int:
    """Leave the timer to the model."""
    return 0


@traced
def kvm_arch_create(kvm: KVMContext, phys_mem_bytes: int, vm_mem: None) -> int:
    """Prepare a new machine for an x86."""
    r = kvm_init_tss(kvm)
    if r < 0:
        return r
    r = kvm_init_identity_map_page(kvm)
    if r < 0:
        return r
    kvm_create_pit(kvm)
    r = kvm_init_coalesced_mmio(kvm)
    if r < 0:
        return r
    kvm_tpr_opt_setup()
    return 0


@traced
def kvm_get_msr_list(kvm: KVMContext) -> list[int]:
    """Numbers of the model-specific registers that the kernel can give and take."""
    first = bytearray(4)
    kvm_ioctl(_state(), abi.KVM_GET_MSR_INDEX_LIST, first)
    count = int.from_bytes(first, "little")
    listed = bytearray(first + bytes(4 * count))
    if kvm_ioctl(_state(), abi.KVM_GET_MSR_INDEX_LIST, listed) < 0:
        return []
    return list(struct.unpack_from(f"<{count}I", listed, 4))


class KVMClockData(Struct):
    """`struct kvm_clock_data`: nanoseconds of the clock that the kernel shows a guest which knows KVM."""

    clock: int = 0


@traced
def kvmclock_pre_save(opaque: KVMClockData) -> None:
    """Get the clock."""
    data = bytearray(_CLOCK_DATA)
    if kvm_vm_ioctl(_state(), abi.KVM_GET_CLOCK, data) >= 0:
        opaque.clock = int.from_bytes(data[:8], "little")


@traced
def kvmclock_post_load(opaque: KVMClockData, version_id: int) -> int:
    """Set the clock; 0 or -errno."""
    data = bytearray(opaque.clock.to_bytes(8, "little")).ljust(_CLOCK_DATA, b"\0")
    return kvm_vm_ioctl(_state(), abi.KVM_SET_CLOCK, data)


vmstate_kvmclock = symbol(
    VMStateDescription(
        name="kvmclock",
        version_id=1,
        minimum_version_id=1,
        pre_save=kvmclock_pre_save,
        post_load=kvmclock_post_load,
        fields=(VMSTATE_U64("clock"),),
    ),
    "vmstate_kvmclock",
)


@traced
def kvm_arch_qemu_create_context() -> int:
    """Note which model-specific registers there are."""
    context = _state().kvm_context
    assert context is not None
    _msr_indices.update(kvm_get_msr_list(context))
    if not _msr_indices:
        return -1
    if kvm_check_extension(_state(), abi.KVM_CAP_ADJUST_CLOCK):
        vmstate_register(0, vmstate_kvmclock, KVMClockData())
    return 0


@traced
def try_get_cpuid(s: KVMState, max: int) -> bytearray | None:
    """What CPUID may answer, as the kernel lists it; None if that is more than `max` answers."""
    listed = bytearray(max.to_bytes(4, "little") + bytes(4 + 40 * max))
    return listed if kvm_ioctl(s, abi.KVM_GET_SUPPORTED_CPUID, listed) >= 0 else None


@traced
def kvm_setup_cpuid2(env: CPUState, listed: bytearray) -> int:
    """Say what CPUID answers; 0 or -errno."""
    return kvm_vcpu_ioctl(env, abi.KVM_SET_CPUID2, listed)


@traced
def kvm_arch_init_vcpu(cenv: CPUState) -> int:
    """Give the processor all features that the kernel can."""
    entries, listed = 1, None
    while listed is None and entries <= 256:
        listed = try_get_cpuid(_state(), entries)
        entries *= 2
    return kvm_setup_cpuid2(cenv, listed) if listed is not None else -1


@traced
def set_seg(lhs: abi.KvmSegment, rhs: Segment) -> None:
    """A segment for the kernel."""
    lhs.selector, lhs.base, lhs.limit = rhs.selector, rhs.base, rhs.limit
    for name, (shift, mask) in _DESCRIPTOR_BITS.items():
        setattr(lhs, name, rhs.flags >> shift & mask)
    lhs.unusable = 0 if lhs.present else 1


@traced
def set_v8086_seg(lhs: abi.KvmSegment, rhs: Segment) -> None:
    """A segment for the kernel, of a program in virtual 8086 mode."""
    lhs.selector, lhs.base, lhs.limit = rhs.selector, rhs.selector << 4, 0xFFFF
    lhs.type, lhs.present, lhs.dpl, lhs.s = 3, 1, 3, 1
    lhs.db = lhs.l = lhs.g = lhs.avl = lhs.unusable = 0


@traced
def get_seg(lhs: Segment, rhs: abi.KvmSegment) -> None:
    """A segment from the kernel."""
    lhs.selector, lhs.base, lhs.limit = rhs.selector, rhs.base, rhs.limit
    lhs.flags = 0 if rhs.unusable else sum(getattr(rhs, n) << s for n, (s, _) in _DESCRIPTOR_BITS.items())


@traced(file="qemu-kvm.c")
def kvm_set_regs(env: CPUState, regs: abi.Regs) -> int:
    """Give the kernel the general registers; 0 or -errno."""
    return kvm_vcpu_ioctl(env, abi.KVM_SET_REGS, regs)


@traced(file="qemu-kvm.c")
def kvm_get_regs(env: CPUState, regs: abi.Regs) -> int:
    """Get the general registers; 0 or -errno."""
    return kvm_vcpu_ioctl(env, abi.KVM_GET_REGS, regs)


@traced(file="qemu-kvm.c")
def kvm_set_fpu(env: CPUState, fpu: abi.Fpu) -> int:
    """Give the kernel the floating point registers; 0 or -errno."""
    return kvm_vcpu_ioctl(env, abi.KVM_SET_FPU, fpu)


@traced(file="qemu-kvm.c")
def kvm_get_fpu(env: CPUState, fpu: abi.Fpu) -> int:
    """Get the floating point registers; 0 or -errno."""
    return kvm_vcpu_ioctl(env, abi.KVM_GET_FPU, fpu)


@traced(file="qemu-kvm.c")
def kvm_set_sregs(env: CPUState, sregs: abi.SRegs) -> int:
    """Give the kernel segments and control registers; 0 or -errno."""
    return kvm_vcpu_ioctl(env, abi.KVM_SET_SREGS, sregs)


@traced(file="qemu-kvm.c")
def kvm_get_sregs(env: CPUState, sregs: abi.SRegs) -> int:
    """Get segments and control registers; 0 or -errno."""
    return kvm_vcpu_ioctl(env, abi.KVM_GET_SREGS, sregs)


@traced
def kvm_set_msrs(env: CPUState, msrs: dict[int, int]) -> int:
    """Give the kernel model-specific registers; how many it took."""
    packed = bytearray(struct.pack("<II", len(msrs), 0))
    for index, value in msrs.items():
        packed += struct.pack("<IIQ", index, 0, value)
    return kvm_vcpu_ioctl(env, abi.KVM_SET_MSRS, packed)


@traced
def kvm_get_msrs(env: CPUState, indices: list[int]) -> dict[int, int]:
    """Get model-specific registers, those that the kernel gives."""
    packed = bytearray(struct.pack("<II", len(indices), 0))
    for index in indices:
        packed += struct.pack("<IIQ", index, 0, 0)
    count = max(kvm_vcpu_ioctl(env, abi.KVM_GET_MSRS, packed), 0)
    entries = (struct.unpack_from("<IIQ", packed, 8 + 16 * at) for at in range(count))
    return {index: value for index, _, value in entries}


def _to_fpu(image: bytes) -> abi.Fpu:
    """What FXSAVE stores, as the kernel wants it."""
    fcw, fsw, ftw, fop, fip, fdp, mxcsr = struct.unpack_from("<HHBxHQQI", image)
    fpu = abi.Fpu(fcw=fcw, fsw=fsw, ftwx=ftw, last_opcode=fop, last_ip=fip, last_dp=fdp, mxcsr=mxcsr)
    fpu.fpr[:] = list(image[32:160])
    fpu.xmm[:] = list(image[160:416])
    return fpu


def _from_fpu(fpu: abi.Fpu) -> bytes:
    """What the kernel gave, as FXSAVE stores it."""
    head = struct.pack(
        "<HHBxHQQII", fpu.fcw, fpu.fsw, fpu.ftwx, fpu.last_opcode, fpu.last_ip, fpu.last_dp, fpu.mxcsr, 0xFFFF
    )
    return (head + bytes(fpu.fpr) + bytes(fpu.xmm)).ljust(512, b"\0")


@traced
def kvm_arch_load_regs(env: CPUState) -> None:
    """Give the kernel the state that `KvmAccel.shadow` holds."""
    held = accel_of(env).shadow
    regs = abi.Regs(rip=held.eip, rflags=held.eflags)
    for name, value in zip(_GENERAL, held.regs, strict=True):
        setattr(regs, name, value)
    kvm_set_regs(env, regs)
    vcpu_of(env).run.set_flags(held.eflags)
    kvm_set_fpu(env, _to_fpu(held.fpu))
    sregs = abi.SRegs()
    _fetch_fixed(env, sregs)
    injected = held.interrupt_injected
    for at in range(4):
        sregs.interrupt_bitmap[at] = 1 << injected % 64 if injected >= 0 and injected // 64 == at else 0
    for name in _SEGMENTS:
        convert = set_v8086_seg if held.eflags & _VM and name not in ("tr", "ldt") else set_seg
        convert(getattr(sregs, name), held.segs[name])
    if held.cr[0] & _PE and not held.eflags & _VM:
        # The stack segment's privilege is the code segment's.
        sregs.ss.selector = sregs.ss.selector & ~3 | sregs.cs.selector & 3
        sregs.ss.dpl = sregs.ss.selector & 3
    for table, kept in ((sregs.gdt, held.gdt), (sregs.idt, held.idt)):
        table.base, table.limit = kept.base, kept.limit
    sregs.cr0, _, sregs.cr2, sregs.cr3, sregs.cr4 = held.cr
    sregs.efer = held.efer
    kvm_set_sregs(env, sregs)
    wanted = {index: held.msrs.get(index, 0) for index in _MSRS if index in _msr_indices and index != 0x277}
    wanted |= {index: value for index, value in held.msrs.items() if index in _msr_indices}
    kvm_set_msrs(env, wanted)
    _load_rest(env, held)


def _fetch_fixed(env: CPUState, sregs: abi.SRegs) -> None:
    # The local APIC is not modelled: its base and the task priority stay as the kernel has them.
    kvm_all._request(vcpu_of(env).kvm_fd, abi.KVM_GET_SREGS, sregs)


def _load_rest(env: CPUState, held: CpuState) -> None:
    fd = vcpu_of(env).kvm_fd
    events = abi.VcpuEvents()
    if kvm_all._request(fd, abi.KVM_GET_VCPU_EVENTS, events) >= 0:
        events.interrupt_shadow = _SHADOW_STI if held.interrupt_shadow else 0
        kvm_all._request(fd, abi.KVM_SET_VCPU_EVENTS, events)
    registers = abi.DebugRegs()
    if kvm_all._request(fd, abi.KVM_GET_DEBUGREGS, registers) >= 0:
        registers.db[:] = held.dr[:4]
        registers.dr6, registers.dr7 = held.dr[6] or registers.dr6, held.dr[7] or registers.dr7
        kvm_all._request(fd, abi.KVM_SET_DEBUGREGS, registers)


@traced
def kvm_arch_save_regs(env: CPUState) -> None:
    """Get the kernel's state into `KvmAccel.shadow`."""
    held, vcpu = CpuState(), vcpu_of(env)
    regs, fpu, sregs = abi.Regs(), abi.Fpu(), abi.SRegs()
    kvm_get_regs(env, regs)
    held.regs = [getattr(regs, name) for name in _GENERAL]
    held.eip, held.eflags = regs.rip, regs.rflags
    kvm_get_fpu(env, fpu)
    held.fpu = _from_fpu(fpu)
    kvm_get_sregs(env, sregs)
    pending = sum(word << 64 * at for at, word in enumerate(sregs.interrupt_bitmap))
    held.interrupt_injected = pending.bit_length() - 1
    for name in _SEGMENTS:
        held.segs[name] = Segment()
        get_seg(held.segs[name], getattr(sregs, name))
    held.gdt = Table(sregs.gdt.base, sregs.gdt.limit)
    held.idt = Table(sregs.idt.base, sregs.idt.limit)
    held.cr = [sregs.cr0, 0, sregs.cr2, sregs.cr3, sregs.cr4]
    held.efer = sregs.efer
    held.msrs = kvm_get_msrs(env, [index for index in (*_MSRS, _MSR_TSC) if index in _msr_indices])
    events, registers = abi.VcpuEvents(), abi.DebugRegs()
    if kvm_all._request(vcpu.kvm_fd, abi.KVM_GET_VCPU_EVENTS, events) >= 0:
        held.interrupt_shadow = int(bool(events.interrupt_shadow))
    if kvm_all._request(vcpu.kvm_fd, abi.KVM_GET_DEBUGREGS, registers) >= 0:
        held.dr = [*registers.db, 0, 0, registers.dr6, registers.dr7]
    accel_of(env).shadow = held


@traced
def kvm_arch_halt(env: CPUState) -> int:
    """The guest waits for an interrupt, unless one is there."""
    if not cpu.is_wanted(env):
        env.halted = 1
    return 1


@traced_io
def kvm_arch_pre_run(env: CPUState, run: abi.Run) -> int:
    """Before the guest runs: the task priority would go to the kernel, which the model has not."""
    return 0


@traced
def kvm_arch_has_work(env: CPUState) -> int:
    """Whether an interrupt waits that the guest would take."""
    return int(cpu.is_wanted(env))


@traced_io
def kvm_arch_try_push_interrupts(opaque: CPUState) -> int:
    """Have the guest take the interrupt that waits, if it can; whether one still waits."""
    from hypervisor.hw.pc import cpu_get_pic_interrupt
    from hypervisor.qemu_kvm_vcpu import kvm_is_ready_for_interrupt_injection

    env = opaque
    ready = kvm_is_ready_for_interrupt_injection(env) and not vcpu_of(env).regs_modified
    if ready and env.interrupt_request & cpu.CPU_INTERRUPT_HARD and env.accel.interrupts_enabled():
        env.interrupt_request &= ~cpu.CPU_INTERRUPT_HARD
        irq = cpu_get_pic_interrupt(env)
        if irq >= 0 and kvm_inject_irq(env, irq) < 0:
            print(f"cpu {env.cpu_index} fail inject {irq:x}")
    return int(bool(env.interrupt_request & cpu.CPU_INTERRUPT_HARD))


@traced_io
def kvm_arch_push_nmi(opaque: None) -> None:
    """Deliver a non-maskable interrupt, if the monitor has asked for one."""
    env = state.cpu_single_env
    if env is None or not env.interrupt_request & cpu.CPU_INTERRUPT_NMI:
        return
    env.interrupt_request &= ~cpu.CPU_INTERRUPT_NMI
    if kvm_inject_nmi(env) < 0:
        print(f"cpu {env.cpu_index} fail inject NMI")


@traced
def kvm_arch_process_irqchip_events(env: CPUState) -> None:
    """Start or reset a processor that another one woke; there is only one."""


@traced
def kvm_arch_cpu_reset(env: CPUState) -> None:
    """After a reset: give the kernel the state that the processor has now."""
    kvm_arch_load_regs(env)
    vcpu_of(env).regs_modified = 0
