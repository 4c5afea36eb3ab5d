"""What the log shows of the guest's instructions: items in_asm, exec, cpu and int, with unicorn. Ours.

Unicorn translates out of sight, but calls a function where a basic block begins:

    in_asm  the block's instructions, the first time it runs        exec  one line each time it runs
    cpu     the processor, the first time it runs                   int   interrupts of protected mode

- `watch(env, mask)`: log these items from now on; bits of `hypervisor.qemu_log`.
- `log_interrupt(env, vector, error, software)`: what `do_interrupt` of 0.12.4 logs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypervisor import disas
from hypervisor.exec import cpu_physical_memory_rw
from hypervisor.program import on_reset
from hypervisor.qemu_log import CPU_LOG_EXEC, CPU_LOG_INT, CPU_LOG_TB_CPU, CPU_LOG_TB_IN_ASM, qemu_log
from hypervisor.qemu_log import qemu_loglevel_mask as logs

if TYPE_CHECKING:
    from hypervisor.cpu_exec import CPUState

BLOCKS = CPU_LOG_TB_IN_ASM | CPU_LOG_EXEC | CPU_LOG_TB_CPU
_seen: set[tuple[int, int]] = set()
_MOST = 1 << 18
"""Blocks that are remembered; a guest that has more sees the first ones again."""
_interrupts = 0


@on_reset
def _reset() -> None:
    global _interrupts
    _seen.clear()
    _interrupts = 0


def watch(env: CPUState, mask: int) -> None:
    """Have the processor tell of its blocks if the items want it, else no more."""
    _seen.clear()
    env.accel.watch_blocks((lambda address, size: _block(env, address, size)) if mask & BLOCKS else None)


def _block(env: CPUState, address: int, size: int) -> None:
    if (address, size) not in _seen:
        if len(_seen) >= _MOST:
            _seen.clear()
        _seen.add((address, size))
        _first_time(env, address, size)
    if logs(CPU_LOG_EXEC):
        qemu_log("Trace 0x%08x [%016x] \n", 0, address)


def _first_time(env: CPUState, address: int, size: int) -> None:
    from hypervisor.monitor_log import log_cpu_state

    if logs(CPU_LOG_TB_CPU):
        log_cpu_state(env, 0)
    if logs(CPU_LOG_TB_IN_ASM):
        code = bytearray(size)
        cpu_physical_memory_rw(address, code, size, 0)
        qemu_log("----------------\nIN: \n")
        for where, words in disas.instructions(bytes(code), address, disas.code_flags(env)):
            qemu_log("0x%016x:  %s\n", where, words)
        qemu_log("\n")


def _length(end: int, vector: int) -> int:
    """Bytes of the INT instruction that ends here: 2, or 1 for those of their own."""
    before = bytearray(2)
    cpu_physical_memory_rw(end - 2 & 0xFFFFFFFF, before, 2, 0)
    return 2 if before == bytes((0xCD, vector)) else 1


def log_interrupt(env: CPUState, vector: int, error: int, software: bool) -> None:
    """Log an interrupt or exception before it is delivered; those of real mode are not logged."""
    global _interrupts
    from hypervisor.monitor_cpu import cpu_state
    from hypervisor.monitor_log import log_cpu_state

    if not logs(CPU_LOG_INT):
        return
    cpu = cpu_state(env)
    if not cpu.cr[0] & 1:
        return
    code, stack = cpu.segs["cs"], cpu.segs["ss"]
    eip = cpu.eip - (_length(code.base + cpu.eip, vector) if software else 0)
    where = (code.selector, eip, code.base + eip & 0xFFFFFFFF, stack.selector, cpu.regs[4])
    line = "%6d: v=%02x e=%04x i=%d cpl=%d IP=%04x:%016x pc=%016x SP=%04x:%016x"
    qemu_log(line, _interrupts, vector, error, software, stack.flags >> 13 & 3, *where)
    qemu_log(" CR2=%016x\n", cpu.cr[2]) if vector == 14 else qemu_log(" EAX=%016x\n", cpu.regs[0])
    log_cpu_state(env, 0)
    _interrupts += 1
