"""KVM as qemu-kvm had it: the start of qemu-kvm.c, its main loop, and what its threads agree on.

    main thread:  kvm_main_loop -> main_loop_wait(1000)             select, completions, timers, monitor
    vCPU thread:  ap_main_loop -> kvm_main_loop_cpu -> kvm_cpu_exec -> kvm_run      the guest, its ports

`qemu_mutex` is held by whoever touches the machine: the main thread gives it up while it waits in select(),
the vCPU thread while the guest runs. So a request is submitted on the vCPU thread, from within an OUT of
the guest, and completed on the main thread.

- `kvm_init(smp_cpus)`: open /dev/kvm and make a machine there; -1 where that cannot be.
- `kvm_main_loop()`: the main loop under KVM.
- `pause_all_threads()`, `resume_all_threads()`: have the processor stand, run.
- `on_vcpu(env, func, data)`: have a function called on the vCPU thread.

The processor's half is `hypervisor.qemu_kvm_vcpu`, memory `hypervisor.qemu_kvm_memory`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hypervisor import kvm_all
from hypervisor.accel import kvm_abi as abi
from hypervisor.compatfd import notify, qemu_eventfd, qemu_signalfd
from hypervisor.kvm_all import (
    KVMContext,
    KVMState,
    kvm_check_extension,
    kvm_enabled,
    kvm_ioctl,
    kvm_vm_ioctl,
    software_kvm,
)
from hypervisor.osdep import adopt_fd, close_fd
from hypervisor.program import on_exit, on_reset
from hypervisor.vl_state import state
from tracer import Struct, traced

if TYPE_CHECKING:
    from hypervisor.cpu_exec import CPUState

C_FILE = "qemu-kvm.c"

SIG_IPI = signal.SIGRTMIN + 4
_STOP_SECONDS = 5
_SIGINFO_SIZE = 128


class QemuWorkItem(Struct):
    """`struct qemu_work_item`: a function for the vCPU thread."""

    func: Callable[[Any], None] | None = None
    data: Any = None
    done: int = 0


class _Threads:
    """The static variables by which the threads find each other."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.vcpu_cond = threading.Condition(self.mutex)
        self.system_cond = threading.Condition(self.mutex)
        self.pause_cond = threading.Condition(self.mutex)
        self.work_cond = threading.Condition(self.mutex)
        self.owner = 0
        self.system_ready = False
        self.io_thread_fd = self.io_thread_sigfd = -1
        self.stopping = False
        self.failure: BaseException | None = None
        self.vcpu: threading.Thread | None = None


threads = _Threads()


@on_reset
def _reset() -> None:
    global threads
    threads = _Threads()


@on_exit
def _stop_vcpu() -> None:
    vcpu = threads.vcpu
    threads.stopping = True
    if threads.owner != threading.get_ident() and not threads.mutex.acquire(timeout=_STOP_SECONDS):
        return
    threads.system_cond.notify_all()
    _unlock()
    if vcpu is not None and vcpu.is_alive():
        with contextlib.suppress(ProcessLookupError):
            signal.pthread_kill(vcpu.ident or 0, SIG_IPI)
        vcpu.join(_STOP_SECONDS)


def _lock() -> None:
    threads.mutex.acquire()
    threads.owner = threading.get_ident()


def _unlock() -> None:
    threads.owner = 0
    threads.mutex.release()


@traced
def kvm_mutex_unlock() -> None:
    """Let the other thread at the machine."""
    _unlock()


@traced
def kvm_mutex_lock() -> None:
    """Have the machine to oneself; outside the vCPU thread no processor is current."""
    _lock()
    state.cpu_single_env = None


@traced
def qemu_mutex_unlock_iothread() -> None:
    """Let the vCPU thread at the machine while select() waits."""
    if kvm_enabled():
        kvm_mutex_unlock()


@traced
def qemu_mutex_lock_iothread() -> None:
    """Have the machine back after select()."""
    if kvm_enabled():
        kvm_mutex_lock()


@traced
def qemu_cond_wait(cond: threading.Condition) -> None:
    """Wait for the other thread, the machine given up meanwhile."""
    env = state.cpu_single_env
    threads.owner = 0
    cond.wait()
    threads.owner = threading.get_ident()
    state.cpu_single_env = env


@traced
def kvm_get_gsi_count(kvm: KVMContext) -> int:
    """How many interrupts the kernel can route."""
    assert kvm_all.kvm_state is not None
    return kvm_check_extension(kvm_all.kvm_state, abi.KVM_CAP_IRQ_ROUTING)


@traced
def kvm_disable_irqchip_creation(kvm: KVMContext) -> None:
    """Keep the interrupt controllers out of the kernel."""
    kvm.no_irqchip_creation = 1


@traced
def kvm_disable_pit_creation(kvm: KVMContext) -> None:
    """Keep the timer out of the kernel."""
    kvm.no_pit_creation = 1


@traced
def kvm_create_vm(kvm: KVMContext) -> int:
    """Make a machine without memory and processor; 0 or -1."""
    s = kvm_all.kvm_state
    assert s is not None
    fd = kvm_ioctl(s, abi.KVM_CREATE_VM, 0)
    if fd < 0:
        print(f"kvm_create_vm: {os.strerror(-fd)}", file=sys.stderr)
        return -1
    s.vmfd = adopt_fd(fd)
    return 0


@traced
def kvm_init_coalesced_mmio(kvm: KVMContext) -> int:
    """Note that no memory access is held back; the model asks for none to be."""
    assert kvm_all.kvm_state is not None
    kvm_ioctl(kvm_all.kvm_state, abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_COALESCED_MMIO)
    return 0


@traced
def kvm_create_default_phys_mem(kvm: KVMContext, phys_mem_bytes: int, vm_mem: None) -> int:
    """Check that memory can be that of this process."""
    assert kvm_all.kvm_state is not None
    if kvm_ioctl(kvm_all.kvm_state, abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_USER_MEMORY) > 0:
        return 0
    print("Hypervisor too old: KVM_CAP_USER_MEMORY extension not supported", file=sys.stderr)
    return -1


@traced
def kvm_create_irqchip(kvm: KVMContext) -> None:
    """Leave the interrupt controllers to `hypervisor.hw.i8259`, as -no-kvm-irqchip does."""
    assert kvm_all.kvm_state is not None
    kvm.irqchip_in_kernel = kvm_all.kvm_state.irqchip_in_kernel = 0


@traced
def kvm_create(kvm: KVMContext, phys_mem_bytes: int, vm_mem: None) -> int:
    """Make a machine; 0 or -1."""
    from hypervisor.qemu_kvm_memory import init_slots
    from hypervisor.qemu_kvm_x86 import kvm_arch_create

    if kvm_create_vm(kvm) < 0 or kvm_arch_create(kvm, phys_mem_bytes, vm_mem) < 0:
        return -1
    init_slots()
    if kvm_create_default_phys_mem(kvm, phys_mem_bytes, vm_mem) < 0:
        return -1
    kvm_create_irqchip(kvm)
    return 0


@traced
def kvm_finalize(s: KVMState) -> None:
    """Give /dev/kvm up."""
    close_fd(s.fd)


@traced
def kvm_create_context() -> int:
    """Make a machine and look at what the kernel can; 0 or negative."""
    from hypervisor.qemu_kvm_x86 import kvm_arch_qemu_create_context

    s = kvm_all.kvm_state
    assert s is not None and s.kvm_context is not None
    # The model has no devices in the kernel; the options -no-kvm-irqchip and -no-kvm-pit ask for just that.
    kvm_disable_irqchip_creation(s.kvm_context)
    kvm_disable_pit_creation(s.kvm_context)
    if kvm_create(s.kvm_context, 0, None) < 0:
        kvm_finalize(s)
        return -1
    r = kvm_arch_qemu_create_context()
    if r < 0:
        kvm_finalize(s)
        return r
    s.vcpu_events = kvm_check_extension(s, abi.KVM_CAP_VCPU_EVENTS)
    return kvm_init_ap()


@traced
def kvm_init_ap() -> int:
    """Hear when the machine starts and stops."""
    from hypervisor.vl_loop import qemu_add_vm_change_state_handler

    qemu_add_vm_change_state_handler(kvm_vm_state_change_handler, None)
    return 0


@traced
def kvm_init(smp_cpus: int) -> int:
    """Open /dev/kvm and make a machine there.

    Returns
    -------
    int
        0; negative, with a message, where KVM cannot be used.
    """
    try:
        fd = adopt_fd(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        print(f"open /dev/kvm: {error.strerror}", file=sys.stderr)
        return -1
    s = KVMState(fd=fd, kvm_context=KVMContext())
    complaint = _complaint(s)
    if complaint:
        print(complaint, file=sys.stderr)
        close_fd(fd)
        return -1
    kvm_all.kvm_state = s
    assert s.kvm_context is not None
    kvm_get_gsi_count(s.kvm_context)
    _lock()
    r = kvm_create_context()
    if r < 0:
        kvm_all.kvm_state = None
        _unlock()
    elif software_kvm():
        print(
            f"studykvm: note: /dev/kvm is {software_kvm()}, which executes most of a guest in software:"
            " expect it to be slower than without -enable-kvm",
            file=sys.stderr,
        )
    return r


def _complaint(s: KVMState) -> str:
    """What is wrong with the kernel's KVM; the last of these is the model's own condition."""
    version = kvm_all._request(s.fd, abi.KVM_GET_API_VERSION, 0)
    if version < 0:
        return "kvm kernel version too old: KVM_GET_API_VERSION ioctl not supported"
    if version < abi.KVM_API_VERSION:
        expected = abi.KVM_API_VERSION
        return (
            f"kvm kernel version too old: We expect API version {expected} or newer,"
            f" but got version {version}"
        )
    if version > abi.KVM_API_VERSION:
        return "kvm userspace version too old"
    if kvm_all._request(s.fd, abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_IMMEDIATE_EXIT) <= 0:
        return "kvm kernel version too old: KVM_CAP_IMMEDIATE_EXIT is missing, use Linux 4.11 or newer"
    return ""


@traced
def kvm_set_boot_vcpu_id(kvm: KVMContext, id: int) -> int:
    """Say which processor boots; 0 or -errno."""
    s = kvm_all.kvm_state
    assert s is not None
    if kvm_ioctl(s, abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_SET_BOOT_CPU_ID) > 0:
        return kvm_vm_ioctl(s, abi.KVM_SET_BOOT_CPU_ID, id)
    return 0


@traced
def kvm_set_boot_cpu_id(id: int) -> int:
    """Say which processor boots; 0 or -errno."""
    assert kvm_all.kvm_state is not None and kvm_all.kvm_state.kvm_context is not None
    return kvm_set_boot_vcpu_id(kvm_all.kvm_state.kvm_context, id)


def _kick(env: CPUState) -> None:
    """Have the vCPU thread look up; a signal that comes between two looks waits for the next."""
    vcpu = threads.vcpu
    if vcpu is not None and vcpu.is_alive():
        signal.pthread_kill(vcpu.ident or 0, SIG_IPI)


@traced
def on_vcpu(env: CPUState, func: Callable[[Any], None], data: Any) -> None:
    """Have `func(data)` called on the vCPU thread, and wait for it."""
    from hypervisor.qemu_kvm_vcpu import vcpu_of

    if threading.current_thread() is threads.vcpu:
        func(data)
        return
    wi = QemuWorkItem(func=func, data=data)
    vcpu_of(env).queued_work.append(wi)
    _kick(env)
    while not wi.done and not threads.failure:
        qemu_cond_wait(threads.work_cond)


@traced
def kvm_update_interrupt_request(env: CPUState) -> None:
    """Have the processor see an interrupt line that another thread has raised."""
    from hypervisor.qemu_kvm_vcpu import vcpu_of

    vcpu = vcpu_of(env)
    if threading.current_thread() is not threads.vcpu and not vcpu.signalled:
        vcpu.signalled = 1
        _kick(env)


@traced
def all_threads_paused() -> int:
    """Whether the processor stands."""
    return int(state.first_cpu is None or not state.first_cpu.stop)


@traced
def pause_all_threads() -> None:
    """Have the processor stand, and wait until it does."""
    from hypervisor.cpu_exec import cpu_exit

    penv = state.first_cpu
    if penv is None:
        return
    if penv is not state.cpu_single_env:
        penv.stop = 1
        _kick(penv)
    else:
        penv.stop = 0
        penv.stopped = 1
        cpu_exit(penv)
    while not all_threads_paused() and not threads.failure:
        qemu_cond_wait(threads.pause_cond)


@traced
def resume_all_threads() -> None:
    """Let the processor run."""
    penv = state.first_cpu
    if penv is not None:
        penv.stop = penv.stopped = 0
        _kick(penv)


@traced
def kvm_vm_state_change_handler(context: None, running: int, reason: int) -> None:
    """Have the processor run or stand as the machine does."""
    if running:
        resume_all_threads()
    else:
        pause_all_threads()


@traced
def qemu_kvm_system_reset() -> None:
    """Reset the machine while its processor stands."""
    from hypervisor.qemu_kvm_x86 import kvm_arch_cpu_reset
    from hypervisor.vl_loop import qemu_system_reset

    pause_all_threads()
    qemu_system_reset()
    if state.first_cpu is not None:
        kvm_arch_cpu_reset(state.first_cpu)
    resume_all_threads()


@traced
def qemu_kvm_notify_work() -> None:
    """Have the main thread's select() return."""
    if threads.io_thread_fd >= 0:
        with contextlib.suppress(BlockingIOError):
            os.write(threads.io_thread_fd, (1).to_bytes(8, "little"))


def ring() -> None:
    """Send the alarm's signal."""
    notify(threads.io_thread_sigfd)


@traced
def io_thread_wakeup(opaque: int) -> None:
    """Drain what `qemu_kvm_notify_work` wrote."""
    with contextlib.suppress(BlockingIOError):
        while os.read(opaque, 4096):
            pass


@traced
def sigfd_handler(opaque: int) -> None:
    """Take the signals that have come, each to its handler; the alarm's is the only one."""
    from hypervisor.vl_timers import host_alarm_handler

    with contextlib.suppress(BlockingIOError):
        while os.read(opaque, _SIGINFO_SIZE):
            host_alarm_handler(signal.SIGALRM)


@traced
def kvm_main_loop() -> int:
    """Serve the machine until its end is asked for; the guest runs on its own thread."""
    from hypervisor.hw.irq import qemu_irq_raise
    from hypervisor.vl_loop import (
        main_loop_wait,
        qemu_powerdown_requested,
        qemu_reset_requested,
        qemu_set_fd_handler2,
        qemu_shutdown_requested,
        vm_stop,
    )

    threads.system_ready = True
    _, fds = qemu_eventfd()
    qemu_set_fd_handler2(fds[0], None, io_thread_wakeup, None, fds[0])
    threads.io_thread_fd = fds[1]
    sigfd = qemu_signalfd({signal.SIGIO, signal.SIGALRM, signal.SIGBUS})
    qemu_set_fd_handler2(sigfd, None, sigfd_handler, None, sigfd)
    threads.io_thread_sigfd = sigfd
    threads.system_cond.notify_all()
    state.cpu_single_env = None
    while True:
        main_loop_wait(1000)
        if threads.failure is not None:
            raise threads.failure
        if qemu_shutdown_requested():
            if not state.no_shutdown:
                break
            vm_stop(0)
            state.no_shutdown = 0
        elif qemu_powerdown_requested():
            qemu_irq_raise(state.qemu_system_powerdown)
        elif qemu_reset_requested():
            qemu_kvm_system_reset()
    pause_all_threads()
    _unlock()
    return 0
