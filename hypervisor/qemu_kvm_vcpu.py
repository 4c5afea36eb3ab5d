"""The vCPU thread: the part of qemu-kvm.c that executes the guest.

    ap_main_loop -> kvm_create_vcpu, kvm_arch_init_vcpu, then for ever kvm_main_loop_cpu:
        kvm_cpu_exec -> kvm_run      enter the guest, do what each exit asks for, enter again ...
        kvm_main_loop_wait           ... until a signal or HLT; do what other threads left

The signal SIG_IPI is blocked but while the guest runs, so that one sent at any moment ends the next entry at
the latest. In the trace are the entries of `kvm_run`; the functions around each single exit, like the port
accesses that cause it, with --trace-io only.

- `vcpu_of(env)`: what qemu-kvm keeps of a processor.
- `kvm_init_vcpu(env)`: start the thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from hypervisor import kvm_all, qemu_kvm
from hypervisor.accel import kvm_abi as abi
from hypervisor.cpu_exec import cpu_interrupt
from hypervisor.exec import cpu_physical_memory_rw
from hypervisor.kvm_all import (
    KVMContext,
    kvm_handle_io,
    kvm_ioctl,
    kvm_irqchip_in_kernel,
    kvm_vcpu_ioctl,
    kvm_vm_ioctl,
)
from hypervisor.osdep import adopt_fd
from hypervisor.qemu_kvm import SIG_IPI, QemuWorkItem, qemu_cond_wait
from hypervisor.trace_io import traced_io
from hypervisor.vl_state import state
from tracer import Struct, traced

if TYPE_CHECKING:
    from hypervisor.accel.kvm_accel import KvmAccel
    from hypervisor.cpu_exec import CPUState

C_FILE = "qemu-kvm.c"


class KVMCPUState(Struct):
    """`struct KVMCPUState` and the other fields of `CPUX86State` that only KVM uses.

    Parameters
    ----------
    regs_modified : int
        The processor's state is with us and must go to the kernel before the guest runs.
    signalled : int
        SIG_IPI is under way already.
    """

    created: int = 0
    thread_id: int = 0
    kvm_fd: int = -1
    regs_modified: int = 1
    signalled: int = 0
    queued_work: list[QemuWorkItem]
    _run: abi.Run | None = None

    @property
    def run(self) -> abi.Run:
        """What is shared with the kernel."""
        assert self._run is not None
        return self._run


class _Stop(BaseException):
    """The program ends; the vCPU thread leaves."""


def accel_of(env: CPUState) -> KvmAccel:
    """The accelerator of a processor that runs under KVM."""
    from hypervisor.accel.kvm_accel import KvmAccel

    assert isinstance(env.accel, KvmAccel)
    return env.accel


def vcpu_of(env: CPUState) -> KVMCPUState:
    """What qemu-kvm keeps of a processor."""
    return accel_of(env).vcpu


def _lock() -> None:
    qemu_kvm._lock()
    if qemu_kvm.threads.stopping:
        qemu_kvm._unlock()
        raise _Stop


@traced
def kvm_get_thread_id() -> int:
    """The thread's number at the kernel."""
    return threading.get_native_id()


@traced
def kvm_create_vcpu(env: CPUState, id: int) -> None:
    """Make a processor at the kernel and share its `kvm_run`.

    Raises
    ------
    HypervisorError
        The kernel refuses.
    """
    from hypervisor.errors import HypervisorError

    s, vcpu = kvm_all.kvm_state, vcpu_of(env)
    assert s is not None
    fd = kvm_vm_ioctl(s, abi.KVM_CREATE_VCPU, id)
    if fd < 0:
        raise HypervisorError(f"kvm_create_vcpu: {os.strerror(-fd)}; run without -enable-kvm")
    vcpu.kvm_fd = adopt_fd(fd)
    vcpu._run = abi.Run(fd, kvm_ioctl(s, abi.KVM_GET_VCPU_MMAP_SIZE, 0))


@traced
def kvm_set_signal_mask(env: CPUState, sigset: set[int]) -> int:
    """Say which signals wait while the guest runs; 0 or -errno."""
    bits = sum(1 << number - 1 for number in sigset)
    mask = bytearray((8).to_bytes(4, "little") + bits.to_bytes(8, "little"))
    return kvm_vcpu_ioctl(env, abi.KVM_SET_SIGNAL_MASK, mask)


@traced
def setup_kernel_sigmask(env: CPUState) -> None:
    """Have SIG_IPI, blocked otherwise, bring the guest back."""
    kvm_set_signal_mask(env, set(signal.pthread_sigmask(signal.SIG_BLOCK, ())) - {SIG_IPI})


@traced
def kvm_inject_irq(env: CPUState, irq: int) -> int:
    """Have the guest take an interrupt at its next entry; 0 or -errno."""
    return kvm_vcpu_ioctl(env, abi.KVM_INTERRUPT, bytearray(irq.to_bytes(4, "little")))


@traced
def kvm_inject_nmi(env: CPUState) -> int:
    """Have the guest take a non-maskable interrupt at its next entry; 0 or -errno."""
    return kvm_vcpu_ioctl(env, abi.KVM_NMI)


@traced(file="qemu-kvm.c")
def inject_interrupt(data: int) -> None:
    """Raise an interrupt request of the processor whose thread this is."""
    assert state.first_cpu is not None
    cpu_interrupt(state.first_cpu, data)


@traced(file="qemu-kvm.c")
def kvm_inject_interrupt(env: CPUState, mask: int) -> None:
    """Raise an interrupt request of a processor, on its own thread."""
    qemu_kvm.on_vcpu(env, inject_interrupt, mask)


@traced_io
def kvm_is_ready_for_interrupt_injection(env: CPUState) -> int:
    """Whether `kvm_inject_irq` may be used now."""
    return vcpu_of(env).run.ready_for_interrupt_injection


@traced_io
def push_nmi(kvm: KVMContext) -> None:
    """Deliver a non-maskable interrupt, if one waits."""
    from hypervisor.qemu_kvm_x86 import kvm_arch_push_nmi

    kvm_arch_push_nmi(None)


@traced_io
def pre_kvm_run(kvm: KVMContext, env: CPUState) -> int:
    """Before the guest runs: give the kernel what was changed here, and let others at the machine."""
    from hypervisor.qemu_kvm_x86 import kvm_arch_pre_run

    vcpu = vcpu_of(env)
    kvm_arch_pre_run(env, vcpu.run)
    if vcpu.regs_modified:
        kvm_arch_put_registers(env)
        vcpu.regs_modified = 0
    qemu_kvm._unlock()
    return 0


@traced_io
def post_kvm_run(kvm: KVMContext, env: CPUState) -> None:
    """After the guest ran: have the machine to oneself again."""
    _lock()
    state.cpu_single_env = env


@traced
def handle_io_window(kvm: KVMContext) -> int:
    """A signal came, or the guest can take an interrupt again."""
    return 1


@traced
def handle_shutdown(kvm: KVMContext, env: CPUState) -> int:
    """A triple fault: reset the machine."""
    from hypervisor.vl_loop import qemu_system_reset_request

    env.stopped = 1
    qemu_system_reset_request()
    return 1


@traced
def handle_unhandled(reason: int) -> int:
    """An exit that nobody knows."""
    print(f"kvm: unhandled exit {reason:x}", file=sys.stderr)
    return -errno.EINVAL


@traced
def kvm_handle_internal_error(kvm: KVMContext, env: CPUState, run: abi.Run) -> int:
    """The kernel cannot go on with the guest: stop the machine."""
    from hypervisor.vl_loop import give_up, vm_stop

    reason = f"KVM internal error. Suberror: {run.detail()}"
    print(reason, file=sys.stderr)
    vm_stop(0)
    give_up(f"the machine stopped at CS:IP {accel_of(env).place()}")
    return 1


@traced_io
def handle_mmio(env: CPUState) -> int:
    """Do what the guest's access to a device's memory, or to none, asks for."""
    run = vcpu_of(env).run
    address, length, is_write = run.mmio()
    data = memoryview(run.memory)[abi.MMIO_DATA : abi.MMIO_DATA + length]
    if not accel_of(env).mmio(address, data, is_write):
        cpu_physical_memory_rw(address, data, length, is_write)
    return 0


def _handle_io(env: CPUState, run: abi.Run) -> int:
    direction, size, port, count, offset = run.io()
    handler = accel_of(env).traps.get(port) if direction != abi.KVM_EXIT_IO_IN else None
    if handler is None:
        data = memoryview(run.memory)[offset : offset + size * count]
        kvm_handle_io(port, data, direction, size, count)
        return 0
    # The kernel steps over the OUT at the next entry only: enter, but come back before the next instruction.
    run.set_immediate_exit(1)
    _enter(vcpu_of(env).kvm_fd)
    run.set_immediate_exit(0)
    handler()
    return 0


def _enter(fd: int) -> int:
    try:
        return fcntl.ioctl(fd, abi.KVM_RUN, 0)
    except OSError as error:
        return -(error.errno or errno.EIO)


_COME_BACK = (-errno.EINTR, -errno.EAGAIN)


@traced
def kvm_run(env: CPUState) -> int:
    """Execute the guest until a signal comes or it halts.

    Returns
    -------
    int
        Positive; -errno where the kernel refuses.
    """
    from hypervisor.qemu_kvm_x86 import kvm_arch_halt, kvm_arch_try_push_interrupts

    s, vcpu = kvm_all.kvm_state, vcpu_of(env)
    assert s is not None and s.kvm_context is not None
    kvm, run = s.kvm_context, vcpu.run
    while True:
        push_nmi(kvm)
        run.set_request_interrupt_window(kvm_arch_try_push_interrupts(env))
        pre_kvm_run(kvm, env)
        r = _enter(vcpu.kvm_fd)
        post_kvm_run(kvm, env)
        run.set_immediate_exit(0)
        if r < 0:
            if r not in _COME_BACK:
                print(f"kvm_run: {os.strerror(-r)}", file=sys.stderr)
                return r
            return handle_io_window(kvm)
        reason = run.exit_reason
        if reason == abi.KVM_EXIT_IO:
            r = _handle_io(env, run)
        elif reason == abi.KVM_EXIT_MMIO:
            r = handle_mmio(env)
        elif reason == abi.KVM_EXIT_HLT:
            r = kvm_arch_halt(env)
        elif reason == abi.KVM_EXIT_IRQ_WINDOW_OPEN:
            r = 0
        elif reason == abi.KVM_EXIT_SHUTDOWN:
            r = handle_shutdown(kvm, env)
        elif reason == abi.KVM_EXIT_INTERNAL_ERROR:
            r = kvm_handle_internal_error(kvm, env, run)
        else:
            hardware = reason in (abi.KVM_EXIT_UNKNOWN, abi.KVM_EXIT_FAIL_ENTRY)
            r = handle_unhandled(run.detail() if hardware else reason)
        if r:
            return r


@traced
def kvm_cpu_exec(env: CPUState) -> int:
    """Execute the guest until something else is wanted of its thread."""
    from hypervisor.vl_loop import vm_stop

    r = kvm_run(env)
    if r < 0:
        print(f"kvm_run returned {r}")
        vm_stop(0)
    return 0


@traced
def is_cpu_stopped(env: CPUState) -> int:
    """Whether the processor must stand."""
    return int(not state.vm_running or env.stopped)


@traced
def flush_queued_work(env: CPUState) -> None:
    """Call what other threads want called here."""
    work = vcpu_of(env).queued_work
    if not work:
        return
    while work:
        wi = work.pop(0)
        assert wi.func is not None
        wi.func(wi.data)
        wi.done = 1
    qemu_kvm.threads.work_cond.notify_all()


@traced
def kvm_main_loop_wait(env: CPUState, timeout: int) -> None:
    """Take the signals that have come, waiting `timeout` milliseconds for one, then do what others want."""
    while True:
        qemu_kvm._unlock()
        signal.sigtimedwait({SIG_IPI}, timeout / 1000)
        _lock()
        if SIG_IPI not in signal.sigpending():
            break
    state.cpu_single_env = env
    flush_queued_work(env)
    if env.stop:
        env.stop = 0
        env.stopped = 1
        qemu_kvm.threads.pause_cond.notify()
    vcpu_of(env).signalled = 0


@traced
def process_irqchip_events(env: CPUState) -> None:
    """End a halt if an interrupt waits."""
    from hypervisor.qemu_kvm_x86 import kvm_arch_has_work, kvm_arch_process_irqchip_events

    kvm_arch_process_irqchip_events(env)
    if kvm_arch_has_work(env):
        env.halted = 0


@traced
def kvm_main_loop_cpu(env: CPUState) -> int:
    """Execute the guest, or wait, for ever."""
    while True:
        run_cpu = not is_cpu_stopped(env)
        if run_cpu and not kvm_irqchip_in_kernel():
            process_irqchip_events(env)
            run_cpu = not env.halted
        if run_cpu:
            kvm_cpu_exec(env)
        kvm_main_loop_wait(env, 0 if run_cpu else 1000)


@traced
def ap_main_loop(_env: CPUState) -> None:
    """The vCPU thread: make the processor, say so, wait for the machine, execute."""
    from hypervisor.qemu_kvm_x86 import kvm_arch_init_vcpu, kvm_arch_load_regs

    env, vcpu = _env, vcpu_of(_env)
    vcpu.thread_id = kvm_get_thread_id()
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    kvm_create_vcpu(env, env.cpu_index)
    setup_kernel_sigmask(env)
    _lock()
    state.cpu_single_env = env
    kvm_arch_init_vcpu(env)
    kvm_arch_load_regs(env)
    vcpu.created = 1
    qemu_kvm.threads.vcpu_cond.notify()
    while not qemu_kvm.threads.system_ready:
        _wait_for_machine()
    state.cpu_single_env = env
    kvm_main_loop_cpu(env)


def _wait_for_machine() -> None:
    # A program that ends before its machine ran leaves nobody who would notify.
    qemu_cond_wait(qemu_kvm.threads.system_cond)
    if qemu_kvm.threads.stopping:
        qemu_kvm._unlock()
        raise _Stop


def _thread(env: CPUState) -> None:
    """Run `ap_main_loop`; what it dies of is raised again by the main thread."""
    threads = qemu_kvm.threads
    try:
        ap_main_loop(env)
    except _Stop:
        return
    except BaseException as failure:
        if threads.owner != threading.get_ident():
            qemu_kvm._lock()
        threads.failure = failure
        for cond in (threads.vcpu_cond, threads.pause_cond, threads.work_cond):
            cond.notify_all()
        qemu_kvm.qemu_kvm_notify_work()
        qemu_kvm._unlock()


@traced
def kvm_init_vcpu(env: CPUState) -> None:
    """Start the processor's thread and wait until the processor is there."""
    threads = qemu_kvm.threads
    threads.vcpu = threading.Thread(target=_thread, args=(env,), name="vcpu", daemon=True)
    threads.vcpu.start()
    while not vcpu_of(env).created:
        if threads.failure is not None:
            raise threads.failure
        qemu_cond_wait(threads.vcpu_cond)


@traced(file="qemu-kvm.h")
def kvm_arch_put_registers(env: CPUState) -> None:
    """Give the kernel the processor's state."""
    kvm_load_registers(env)


@traced
def kvm_do_load_registers(_env: CPUState) -> None:
    """Give the kernel the processor's state, on the vCPU thread."""
    from hypervisor.qemu_kvm_x86 import kvm_arch_load_regs

    kvm_arch_load_regs(_env)


@traced
def kvm_load_registers(env: CPUState) -> None:
    """Give the kernel the processor's state."""
    if qemu_kvm.threads.system_ready:
        qemu_kvm.on_vcpu(env, kvm_do_load_registers, env)


@traced
def kvm_arch_get_registers(env: CPUState) -> None:
    """Get the processor's state from the kernel."""
    from hypervisor.qemu_kvm_x86 import kvm_arch_save_regs

    kvm_arch_save_regs(env)


@traced
def do_kvm_cpu_synchronize_state(_env: CPUState) -> None:
    """Get the processor's state from the kernel, unless ours is newer, and have it go back afterwards."""
    vcpu = vcpu_of(_env)
    if not vcpu.regs_modified:
        kvm_arch_get_registers(_env)
        vcpu.regs_modified = 1


@traced
def kvm_cpu_synchronize_state(env: CPUState) -> None:
    """Have the processor's state here, for who reads or changes it."""
    if not vcpu_of(env).regs_modified:
        qemu_kvm.on_vcpu(env, do_kvm_cpu_synchronize_state, env)
