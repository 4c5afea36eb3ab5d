"""Which memory the guest sees where: the memory slots of qemu-kvm.c.

A slot is a piece of memory that the kernel shows at a physical address. Slots never overlap:
what is put over a part of one cuts it into what is left of it.

- `kvm_set_phys_mem(start_addr, size, memory, flags)`: show memory, or with None nothing.
"""

from __future__ import annotations

import ctypes
import os
import sys
from mmap import mmap

from hypervisor import kvm_all
from hypervisor.accel import kvm_abi as abi
from hypervisor.errors import HypervisorError
from hypervisor.kvm_all import KVMContext, KVMState, kvm_ioctl, kvm_vm_ioctl
from hypervisor.program import on_exit, on_reset
from tracer import Struct, traced

C_FILE = "qemu-kvm.c"

KVM_MAX_NUM_MEM_REGIONS = 32


class SlotInfo(Struct):
    """`struct slot_info`; a slot of length 0 is free."""

    phys_addr: int = 0
    len: int = 0
    userspace_addr: int = 0
    flags: int = 0


slots: list[SlotInfo] = []
_pins: list[object] = []


@on_reset
@on_exit
def _reset() -> None:
    slots.clear()
    _pins.clear()


def _state() -> KVMState:
    assert kvm_all.kvm_state is not None
    return kvm_all.kvm_state


@traced
def init_slots() -> None:
    """Free all slots."""
    slots[:] = [SlotInfo() for _ in range(KVM_MAX_NUM_MEM_REGIONS)]


@traced
def get_free_slot(kvm: KVMContext) -> int:
    """The first free slot, -1 if there is none."""
    first = 0 if kvm_ioctl(_state(), abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_SET_TSS_ADDR) > 0 else 1
    return next((at for at in range(first, len(slots)) if not slots[at].len), -1)


@traced
def register_slot(slot: int, phys_addr: int, len: int, userspace_addr: int, flags: int) -> None:
    """Note what a slot shows."""
    taken = slots[slot]
    taken.phys_addr, taken.len, taken.userspace_addr, taken.flags = phys_addr, len, userspace_addr, flags


@traced
def free_slot(slot: int) -> None:
    """Note that a slot shows nothing."""
    slots[slot].len = 0


@traced
def get_slot(phys_addr: int) -> int:
    """The slot that has an address, -1 if none has."""
    return next(
        (at for at, slot in enumerate(slots) if slot.phys_addr <= phys_addr < slot.phys_addr + slot.len), -1
    )


@traced
def kvm_register_phys_mem(kvm: KVMContext, phys_start: int, userspace_addr: int, len: int, log: int) -> int:
    """Show `len` bytes of this process at a physical address; -1 if the kernel refuses.

    Parameters
    ----------
    log : int
        The slot's flags, KVM_MEM_*; in C, whether to log what the guest writes.
    """
    slot = get_free_slot(kvm)
    memory = abi.MemoryRegion(slot, log, phys_start, len, userspace_addr)
    r = kvm_vm_ioctl(_state(), abi.KVM_SET_USER_MEMORY_REGION, memory)
    if r < 0:
        print(f"create_userspace_phys_mem: {os.strerror(-r)}", file=sys.stderr)
        return -1
    register_slot(slot, phys_start, len, userspace_addr, log)
    return 0


@traced
def kvm_destroy_phys_mem(kvm: KVMContext, phys_start: int, len: int) -> None:
    """Show nothing any more where a slot begins."""
    slot = get_slot(phys_start)
    r = kvm_vm_ioctl(_state(), abi.KVM_SET_USER_MEMORY_REGION, abi.MemoryRegion(slot, 0, phys_start, 0, 0))
    if r < 0:
        print(f"destroy_userspace_phys_mem: {os.strerror(-r)}", file=sys.stderr)
        return
    free_slot(slot)


@traced
def kvm_set_phys_mem(start_addr: int, size: int, phys_offset: mmap | None, flags: int = 0) -> None:
    """Show memory from its beginning on at `start_addr`, or nothing.

    Parameters
    ----------
    phys_offset : mmap or None
        The memory; in C, where it is among all memory of the machine.
    flags : int
        KVM_MEM_READONLY for a ROM.
    """
    context = _state().kvm_context
    assert context is not None
    end = start_addr + size
    for slot in list(slots):
        begin, behind, place, kept = (
            slot.phys_addr,
            slot.phys_addr + slot.len,
            slot.userspace_addr,
            slot.flags,
        )
        if begin == behind or behind <= start_addr or end <= begin:
            continue
        kvm_destroy_phys_mem(context, begin, slot.len)
        if begin < start_addr:
            _show(context, begin, start_addr - begin, place, kept)
        if end < behind:
            _show(context, end, behind - end, place + end - begin, kept)
    if phys_offset is not None:
        # Keeps the pages in place for as long as the kernel uses them.
        pin = ctypes.c_char.from_buffer(phys_offset)
        _pins.append(pin)
        _show(context, start_addr, size, ctypes.addressof(pin), flags)


def _show(context: KVMContext, start: int, size: int, place: int, flags: int) -> None:
    if kvm_register_phys_mem(context, start, place, size, flags) < 0:
        raise HypervisorError("kvm_cpu_register_physical_memory: failed; run without -enable-kvm")
