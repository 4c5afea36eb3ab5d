"""The processor as the main loop sees it: cpu-exec.c and the parts of exec.c about it.

The instructions themselves are executed by an accelerator (`hypervisor.accel`); this module decides when it
runs, when it comes back, and when an interrupt reaches it.

- `CPUState`: the flags by which the main loop and the devices talk to the processor.
- `cpu_exec(env)`: run until the main loop is wanted: by an alarm, an event, or because the guest halts.
- `cpu_interrupt(env, mask)`, `cpu_reset_interrupt`: a device's interrupt line rises, falls.
- `cpu_exit(env)`: come back at the next chance.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from hypervisor import vl_timers as timers
from hypervisor.qemu_log import CPU_LOG_RESET, qemu_log, qemu_loglevel_mask
from hypervisor.vl_state import state
from tracer import Struct, traced

if TYPE_CHECKING:
    from hypervisor.accel import Accel

C_FILE = "cpu-exec.c"

EXCP_INTERRUPT = 0x10000
EXCP_HALTED = 0x10003
CPU_INTERRUPT_HARD = 0x0002
CPU_INTERRUPT_EXIT = 0x0001
CPU_INTERRUPT_NMI = 0x0200
_NMI_VECTOR = 2
SLICE = 100_000
"""Instructions between two looks at the clock and the interrupt lines."""


class CPUState(Struct):
    """`CPUX86State`, without the registers, which the accelerator holds.

    Parameters
    ----------
    halted : int
        The guest executed HLT and waits for an interrupt.
    interrupt_request : int
        CPU_INTERRUPT_* bits.
    exit_request : int
        The main loop is wanted.
    """

    cpu_index: int = 0
    nr_cores: int = 1
    nr_threads: int = 1
    stop: int = 0
    stopped: int = 0
    halted: int = 0
    a20_mask: int = 0xFFFFFFFF
    interrupt_request: int = 0
    exit_request: int = 0
    next_cpu: CPUState | None = None
    _accel: Accel | None = None

    @property
    def accel(self) -> Accel:
        """What executes this processor's instructions."""
        assert self._accel is not None
        return self._accel


@traced(file="exec.c")
def cpu_exit(env: CPUState) -> None:
    """Have `cpu_exec` return at the next chance."""
    env.exit_request = 1
    env.accel.stop()


@traced(file="exec.c")
def cpu_interrupt(env: CPUState, mask: int) -> None:
    """Raise an interrupt request."""
    env.interrupt_request |= mask
    env.accel.stop()


@traced(file="exec.c")
def cpu_reset_interrupt(env: CPUState, mask: int) -> None:
    """Withdraw an interrupt request."""
    env.interrupt_request &= ~mask


@traced(file="target-i386/helper.c")
def cpu_reset(env: CPUState) -> None:
    """Put the processor into the state it has after power-on."""
    if qemu_loglevel_mask(CPU_LOG_RESET):
        from hypervisor.monitor_cpu import X86_DUMP_FPU
        from hypervisor.monitor_log import log_cpu_state

        qemu_log("CPU Reset (CPU %d)\n", env.cpu_index)
        log_cpu_state(env, X86_DUMP_FPU)
    env.halted = env.stopped = env.interrupt_request = env.exit_request = 0
    env.a20_mask = 0xFFFFFFFF
    env.accel.reset()


@traced(file="target-i386/helper.c")
def cpu_x86_set_a20(env: CPUState, a20_state: int) -> None:
    """Let address line 20 through, or hold it low."""
    take_a20(env, bool(a20_state))


def take_a20(env: CPUState, through: bool) -> None:
    """What `cpu_x86_set_a20` does, for a state that is loaded: the real one needs no call for that."""
    mask = 0xFFFFFFFF if through else 0xFFEFFFFF
    if mask != env.a20_mask:
        env.a20_mask = mask
        env.accel.set_a20(through)


@traced(file="target-i386/exec.h")
def cpu_has_work(env: CPUState) -> int:
    """Whether an interrupt waits that the guest would take."""
    return int(is_wanted(env))


def is_wanted(env: CPUState) -> bool:
    """Whether the guest would take an interrupt now that waits."""
    if env.interrupt_request & CPU_INTERRUPT_NMI:
        return True
    return bool(env.interrupt_request & CPU_INTERRUPT_HARD) and env.accel.interrupts_enabled()


@traced(file="target-i386/exec.h")
def cpu_halted(env: CPUState) -> int:
    """EXCP_HALTED as long as the guest waits for an interrupt, else 0; an interrupt ends the wait."""
    if not env.halted:
        return 0
    if cpu_has_work(env):
        env.halted = 0
        return 0
    return EXCP_HALTED


@traced
def qemu_cpu_has_work(env: CPUState) -> int:
    """`cpu_has_work` for other files."""
    return cpu_has_work(env)


def _deliver_interrupt(env: CPUState) -> None:
    from hypervisor.hw.pc import cpu_get_pic_interrupt

    env.interrupt_request &= ~CPU_INTERRUPT_HARD
    intno = cpu_get_pic_interrupt(env)
    if intno >= 0:
        env.accel.inject(intno)


@traced(name="cpu_x86_exec")
def cpu_exec(env: CPUState) -> int:
    """Execute the guest until the main loop is wanted.

    Returns
    -------
    int
        EXCP_HALTED when the guest waits for an interrupt, else EXCP_INTERRUPT.
    """
    from hypervisor.vl_loop import _fd_ready

    if cpu_halted(env) == EXCP_HALTED:
        return EXCP_HALTED
    state.cpu_single_env = env
    try:
        while True:
            if env.interrupt_request & CPU_INTERRUPT_NMI:
                env.interrupt_request &= ~CPU_INTERRUPT_NMI
                env.accel.inject(_NMI_VECTOR)
            if env.interrupt_request & CPU_INTERRUPT_HARD and env.accel.interrupts_enabled():
                _deliver_interrupt(env)
            if env.exit_request:
                env.exit_request = 0
                return EXCP_INTERRUPT
            if env.accel.run(SLICE):
                env.halted = 1
                return EXCP_HALTED
            if timers._alarm_due():
                timers.host_alarm_handler(signal.SIGALRM)
            elif _fd_ready():
                return EXCP_INTERRUPT
    finally:
        state.cpu_single_env = None
