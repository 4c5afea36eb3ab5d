"""Requests to the kernel's KVM: kvm-all.c, as far as qemu-kvm 0.12 used it.

- `KVMState`: the module's descriptor, the machine's, and what was found out about them.
- `kvm_ioctl(s, type, arg)`, `kvm_vm_ioctl`, `kvm_vcpu_ioctl(env, type, arg)`: the kernel's answer or -errno.
- `kvm_check_extension(s, extension)`: what the kernel can, 0 if it cannot.
- `kvm_handle_io(port, data, direction, size, count)`: do what an IN or OUT of the guest asks for.
- `kvm_enabled()`: whether the machine runs under KVM, a macro in C.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from hypervisor import ioport
from hypervisor.accel import kvm_abi as abi
from hypervisor.program import on_reset
from hypervisor.trace_io import traced_io
from tracer import Struct, traced

if TYPE_CHECKING:
    from hypervisor.cpu_exec import CPUState

C_FILE = "kvm-all.c"

_C_INT_MAX = 0x7FFFFFFF
_STORE = {1: ioport.cpu_inb, 2: ioport.cpu_inw, 4: ioport.cpu_inl}
_LOAD = {1: ioport.cpu_outb, 2: ioport.cpu_outw, 4: ioport.cpu_outl}


class KVMContext(Struct):
    """`struct kvm_context`.

    Parameters
    ----------
    no_irqchip_creation, no_pit_creation : int
        The interrupt controllers, the timer are ours and not the kernel's; the model always has it so.
    """

    irqchip_in_kernel: int = 0
    no_irqchip_creation: int = 0
    no_pit_creation: int = 0
    dirty_pages_log_all: int = 0


class KVMState(Struct):
    """`KVMState`: `fd` is /dev/kvm, `vmfd` the machine."""

    fd: int = -1
    vmfd: int = -1
    coalesced_mmio: int = 0
    irqchip_in_kernel: int = 0
    vcpu_events: int = 0
    kvm_context: KVMContext | None = None


kvm_state: KVMState | None = None
kvm_allowed = 0
kvm_irqchip = 1
kvm_pit = 1


@on_reset
def _reset() -> None:
    global kvm_state, kvm_allowed, kvm_irqchip, kvm_pit
    kvm_state = None
    kvm_allowed = 0
    kvm_irqchip = kvm_pit = 1


def kvm_enabled() -> int:
    """Whether the machine runs under KVM."""
    return kvm_allowed


def _request(fd: int, type: int, arg: object) -> int:
    try:
        if isinstance(arg, int) and arg > _C_INT_MAX:
            # Python's ioctl takes a C int; this number is an unsigned long.
            libc = ctypes.CDLL(None, use_errno=True)
            done = int(libc.ioctl(fd, ctypes.c_ulong(type), ctypes.c_ulong(arg)))
            return done if done >= 0 else -ctypes.get_errno()
        return fcntl.ioctl(fd, type, arg)  # type: ignore[call-overload,no-any-return]
    except OSError as error:
        return -(error.errno or errno.EIO)


@traced
def kvm_ioctl(s: KVMState, type: int, arg: object = 0) -> int:
    """Ask the module; its answer or -errno."""
    return _request(s.fd, type, arg)


@traced
def kvm_vm_ioctl(s: KVMState, type: int, arg: object = 0) -> int:
    """Ask for something about the machine; the answer or -errno."""
    return _request(s.vmfd, type, arg)


@traced
def kvm_vcpu_ioctl(env: CPUState, type: int, arg: object = 0) -> int:
    """Ask for something about a processor; the answer or -errno."""
    from hypervisor.qemu_kvm_vcpu import vcpu_of

    return _request(vcpu_of(env).kvm_fd, type, arg)


@traced
def kvm_check_extension(s: KVMState, extension: int) -> int:
    """Whether, or how much of, an extension the kernel has; 0 for none."""
    return max(kvm_ioctl(s, abi.KVM_CHECK_EXTENSION, extension), 0)


@traced_io
def kvm_irqchip_in_kernel() -> int:
    """Whether the interrupt controllers are the kernel's."""
    return kvm_state.irqchip_in_kernel if kvm_state is not None else 0


@traced_io
def kvm_handle_io(port: int, data: memoryview, direction: int, size: int, count: int) -> int:
    """Do what the guest's IN or OUT, maybe repeated, asks for.

    Parameters
    ----------
    data : memoryview
        `count` pieces of `size` bytes: what the guest writes, or room for what it reads.
    """
    for at in range(0, size * count, size):
        if direction == abi.KVM_EXIT_IO_IN:
            data[at : at + size] = _STORE[size](port).to_bytes(size, "little")
        else:
            _LOAD[size](port, int.from_bytes(data[at : at + size], "little"))
    return 1


def software_kvm() -> str:
    """Name a KVM that does without the processor's help, which is much slower; empty for a real one.

    Returns
    -------
    str
        "kvm-pvm", "a software KVM", or "": what the kernel modules in /sys/module and the flags in
        /proc/cpuinfo tell.
    """
    if os.path.isdir("/sys/module/kvm_pvm"):
        return "kvm-pvm"
    if any(os.path.isdir(f"/sys/module/{name}") for name in ("kvm_intel", "kvm_amd")):
        return ""
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            flags = next((line.split() for line in cpuinfo if line.startswith("flags")), [])
    except OSError:
        return ""
    return "" if {"vmx", "svm"} & set(flags) or not flags else "a software KVM"
