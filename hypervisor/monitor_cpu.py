"""The monitor's look at the processor: parts of monitor.c, exec.c and target-i386/helper.c.

- `info registers` (`cpu_dump_state`), `info cpus`, `info tlb` and `info mem` (32-bit page tables, as 0.12.4).
- `cpu_memory_rw_debug(env, addr, buf, len, is_write)`: memory by virtual address, through the page tables.
- `cpu_state(env)`: all of a processor, also of one that runs in another thread.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from hypervisor.accel import CpuState, Segment
from hypervisor.cpu_exec import CPUState
from hypervisor.exec import cpu_physical_memory_read, cpu_physical_memory_rw
from hypervisor.monitor import Monitor, mon_get_cpu, monitor_printf, monitor_vprintf
from hypervisor.vl_state import state
from tracer import traced

C_FILE = "monitor.c"

X86_DUMP_FPU = 0x0001
PG_PRESENT_MASK, PG_RW_MASK, PG_USER_MASK, PG_PSE_MASK = 1, 2, 4, 0x80
_PG = ((0x100, "G"), (0x80, "P"), (0x40, "D"), (0x20, "A"), (0x10, "C"), (8, "T"), (4, "U"), (2, "W"))
_EFLAGS = ((0x400, "D"), (0x800, "O"), (0x80, "S"), (0x40, "Z"), (0x10, "A"), (4, "P"), (1, "C"))
_PAGE = 4096
_CR0_PE, _CR0_PG, _CR4_PSE, _CR4_PAE, _EFER_LMA = 1, 1 << 31, 1 << 4, 1 << 5, 1 << 10
_SYSTEM_32 = {1: "TSS16-avl", 2: "LDT", 3: "TSS16-busy", 4: "CallGate16", 5: "TaskGate", 6: "IntGate16"}
_SYSTEM_32 |= {7: "TrapGate16", 9: "TSS32-avl", 11: "TSS32-busy", 12: "CallGate32", 14: "IntGate32"}
_SYSTEM_32 |= {15: "TrapGate32"}
_SYSTEM_64 = {0: "<hiword>", 2: "LDT", 9: "TSS64-avl", 11: "TSS64-busy", 12: "CallGate64"}
_SYSTEM_64 |= {14: "IntGate64", 15: "TrapGate64"}


def cpu_state(env: CPUState) -> CpuState:
    """What the processor holds now; one that runs in another thread is asked there."""
    if getattr(env.accel, "name", "") != "kvm":
        return env.accel.state()
    from hypervisor.qemu_kvm import on_vcpu

    found: list[CpuState] = []
    on_vcpu(env, lambda data: found.append(env.accel.state()), None)
    return found[0]


def pc(cpu: CpuState) -> int:
    """Linear address of the next instruction.

    Returns
    -------
    int
        In bytes, wider than 32 bits in long mode only; the `pc` of C's cpu state is the same sum.
    """
    return cpu.eip + cpu.segs["cs"].base


def _is_64(cpu: CpuState) -> bool:
    return bool(cpu.efer & _EFER_LMA and cpu.segs["cs"].flags >> 21 & 1)


@traced
def monitor_fprintf(stream: Monitor, fmt: str, *args: Any) -> int:
    """Print formatted text; `fprintf` of functions that know no monitor."""
    monitor_vprintf(stream, fmt, args)
    return 0


def _kind(cpu: CpuState, flags: int) -> str:
    """What the descriptor of a segment register says."""
    if not flags >> 12 & 1:
        names = _SYSTEM_64 if cpu.efer & _EFER_LMA else _SYSTEM_32
        return names.get(flags >> 8 & 15, "Reserved")
    wide = flags >> 22 & 1
    accessed = "A" if flags & 0x100 else "-"
    if flags & 0x800:
        name = "CS64" if flags >> 21 & 1 else "CS32" if wide else "CS16"
        return f"{name} [{'C' if flags & 0x400 else '-'}{'R' if flags & 0x200 else '-'}{accessed}]"
    name = "DS  " if wide else "DS16"
    return f"{name} [{'E' if flags & 0x400 else '-'}{'W' if flags & 0x200 else '-'}{accessed}]"


@traced(file="target-i386/helper.c")
def cpu_x86_dump_seg_cache(
    cpu: CpuState, f: Any, cpu_fprintf: Callable[..., object], name: str, sc: Segment
) -> None:
    """Print a segment register."""
    base = f"{sc.base:016x}" if _is_64(cpu) else f"{sc.base & 0xFFFFFFFF:08x}"
    line = f"{name:<3}={sc.selector:04x} {base} {sc.limit:08x} {sc.flags:08x}"
    if cpu.cr[0] & _CR0_PE and sc.flags >> 15 & 1:
        line += f" DPL={sc.flags >> 13 & 3} {_kind(cpu, sc.flags)}"
    cpu_fprintf(f, "%s\n", line)


def _registers(env: CPUState, cpu: CpuState) -> Iterator[str]:
    """The lines before the segments."""
    eax, ecx, edx, ebx, esp, ebp, esi, edi = cpu.regs[:8]
    letters = "".join(letter if cpu.eflags & bit else "-" for bit, letter in _EFLAGS)
    cpl = cpu.segs["cs"].selector & 3 if cpu.cr[0] & _CR0_PE else 0
    tail = (
        f" [{letters}] CPL={cpl} II={cpu.interrupt_shadow} A20={getattr(env, 'a20_mask', -1) >> 20 & 1}"
        f" SMM=0 HLT={env.halted}"
    )
    if _is_64(cpu):
        yield f"RAX={eax:016x} RBX={ebx:016x} RCX={ecx:016x} RDX={edx:016x}"
        yield f"RSI={esi:016x} RDI={edi:016x} RBP={ebp:016x} RSP={esp:016x}"
        for first in (8, 12):
            yield " ".join(f"{f'R{n}':<3}={cpu.regs[n]:016x}" for n in range(first, first + 4))
        yield f"RIP={cpu.eip:016x} RFL={cpu.eflags:08x}{tail}"
        return
    low = 0xFFFFFFFF
    yield f"EAX={eax & low:08x} EBX={ebx & low:08x} ECX={ecx & low:08x} EDX={edx & low:08x}"
    yield f"ESI={esi & low:08x} EDI={edi & low:08x} EBP={ebp & low:08x} ESP={esp & low:08x}"
    yield f"EIP={cpu.eip & low:08x} EFL={cpu.eflags:08x}{tail}"


def _system(cpu: CpuState) -> Iterator[str]:
    """Tables, control and debug registers."""
    digits = 16 if cpu.efer & _EFER_LMA else 8
    mask = (1 << 4 * digits) - 1
    for name, table in (("GDT", cpu.gdt), ("IDT", cpu.idt)):
        yield f"{name}=     {table.base & mask:0{digits}x} {table.limit:08x}"
    cr0, _, cr2, cr3, cr4 = (value & mask for value in cpu.cr)
    yield f"CR0={cr0 & 0xFFFFFFFF:08x} CR2={cr2:0{digits}x} CR3={cr3:0{digits}x} CR4={cr4 & 0xFFFFFFFF:08x}"
    yield "".join(f"DR{n}={cpu.dr[n] & mask:0{digits}x} " for n in range(4))
    yield f"DR6={cpu.dr[6] & mask:0{digits}x} DR7={cpu.dr[7] & mask:0{digits}x}"


def _fpu(cpu: CpuState) -> Iterator[str]:
    """Floating point and XMM registers; FXSAVE numbers the former from the top of the stack."""
    fcw, fsw, ftw, mxcsr = struct.unpack_from("<HHB19xI", cpu.fpu)
    top = fsw >> 11 & 7
    yield f"FCW={fcw:04x} FSW={fsw:04x} [ST={top}] FTW={ftw:02x} MXCSR={mxcsr:08x}"
    fprs = []
    for n in range(8):
        lower, upper = struct.unpack_from("<QH", cpu.fpu, 32 + 16 * (n - top & 7))
        fprs.append(f"FPR{n}={lower:016x} {upper:04x}")
    count = 16 if _is_64(cpu) else 8
    xmms = [f"XMM{n:02d}={cpu.fpu[160 + 16 * n : 176 + 16 * n][::-1].hex()}" for n in range(count)]
    for registers in (fprs, xmms):
        yield from (" ".join(registers[at : at + 2]) for at in range(0, len(registers), 2))


@traced(file="target-i386/helper.c")
def cpu_dump_state(env: CPUState, f: Any, cpu_fprintf: Callable[..., object], flags: int) -> None:
    """Print the processor; with X86_DUMP_FPU floating point and XMM registers, too."""
    cpu = cpu_state(env)
    for line in _registers(env, cpu):
        cpu_fprintf(f, "%s\n", line)
    for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr"):
        cpu_x86_dump_seg_cache(cpu, f, cpu_fprintf, name.upper(), cpu.segs.get(name, Segment()))
    for line in _system(cpu):
        cpu_fprintf(f, "%s\n", line)
    if flags & X86_DUMP_FPU:
        for line in _fpu(cpu):
            cpu_fprintf(f, "%s\n", line)


@traced
def do_info_registers(mon: Monitor) -> None:
    """Obey `info registers`."""
    env = mon_get_cpu()
    if env is not None:
        cpu_dump_state(env, mon, monitor_fprintf, X86_DUMP_FPU)


def _thread(env: CPUState) -> int:
    if getattr(env.accel, "name", "") != "kvm":
        return threading.get_native_id()
    from hypervisor.qemu_kvm_vcpu import vcpu_of

    return vcpu_of(env).thread_id


@traced
def do_info_cpus(mon: Monitor) -> list[dict[str, Any]]:
    """All processors: keys CPU, current, halted, pc, thread_id."""
    mon_get_cpu()
    found, env = [], state.first_cpu
    while env is not None:
        found.append(
            {
                "CPU": env.cpu_index,
                "current": env is mon.mon_cpu,
                "halted": bool(env.halted),
                "pc": pc(cpu_state(env)),
                "thread_id": _thread(env),
            }
        )
        env = env.next_cpu
    return found


@traced
def print_cpu_iter(obj: dict[str, Any], opaque: Monitor) -> None:
    """Print one processor."""
    monitor_printf(opaque, "%s CPU #%d: ", "*" if obj["current"] else " ", obj["CPU"])
    monitor_printf(opaque, "pc=0x%016x", obj["pc"])
    if obj["halted"]:
        monitor_printf(opaque, " (halted)")
    monitor_printf(opaque, " thread_id=%d ", obj["thread_id"])
    monitor_printf(opaque, "\n")


@traced
def monitor_print_cpus(mon: Monitor, data: list[dict[str, Any]]) -> None:
    """Print what `do_info_cpus` returned."""
    for obj in data:
        print_cpu_iter(obj, mon)


def _entry(address: int, size: int) -> int:
    return int.from_bytes(cpu_physical_memory_read(address & (1 << 52) - 1, size), "little")


def _walk(cpu: CpuState, address: int, shifts: tuple[int, ...], size: int, large: int) -> int:
    """Follow page tables of `size`-byte entries; the physical address, -1 if a page is not there."""
    bits = 9 if size == 8 else 10
    table = cpu.cr[3] & (~0xFFF if len(shifts) != 3 else ~0x1F)
    for shift in shifts:
        entry = _entry(table + (address >> shift & (1 << bits) - 1) * size, size)
        if not entry & PG_PRESENT_MASK:
            return -1
        if shift == 12 or (shift == large and entry & PG_PSE_MASK):
            offset = (1 << shift) - 1
            return entry & 0xFFFFFFFFFF000 & ~offset | address & offset
        table = entry & 0xFFFFFFFFFF000
    raise AssertionError("the last shift is 12")


@traced(file="target-i386/helper.c")
def cpu_get_phys_page_debug(env: CPUState, addr: int) -> int:
    """Physical address of a virtual one; -1 where no page is."""
    cpu = cpu_state(env)
    if not cpu.cr[0] & _CR0_PG:
        return addr
    if not cpu.cr[4] & _CR4_PAE:
        return _walk(cpu, addr & 0xFFFFFFFF, (22, 12), 4, 22 if cpu.cr[4] & _CR4_PSE else 0)
    if not cpu.efer & _EFER_LMA:
        return _walk(cpu, addr & 0xFFFFFFFF, (30, 21, 12), 8, 21)
    if addr >> 47 not in (0, (1 << 17) - 1):
        return -1
    return _walk(cpu, addr, (39, 30, 21, 12), 8, 21)


@traced(file="exec.c")
def cpu_memory_rw_debug(env: CPUState, addr: int, buf: memoryview, len: int, is_write: int) -> int:
    """Copy between memory at a virtual address and `buf`; 0, or -1 where no page is."""
    done = 0
    while done < len:
        virtual = addr + done & (1 << 64) - 1
        piece = min(len - done, _PAGE - virtual % _PAGE)
        physical = cpu_get_phys_page_debug(env, virtual)
        if physical == -1:
            return -1
        cpu_physical_memory_rw(physical, buf[done : done + piece], piece, is_write)
        done += piece
    return 0


@traced
def print_pte(mon: Monitor, addr: int, pte: int, mask: int) -> None:
    """Print a page and its flags."""
    flags = "".join(letter if pte & bit else "-" for bit, letter in _PG)
    monitor_printf(mon, "%08x: %08x %s\n", addr, pte & mask, flags)


def _directory(cpu: CpuState) -> Iterator[tuple[int, int, bool]]:
    """Every entry of the page directory: number, entry, whether it is a large page."""
    entries = struct.unpack("<1024I", cpu_physical_memory_read(cpu.cr[3] & 0xFFFFF000, _PAGE))
    for number, pde in enumerate(entries):
        yield number, pde, bool(pde & PG_PSE_MASK and cpu.cr[4] & _CR4_PSE)


def _table(pde: int) -> tuple[int, ...]:
    return struct.unpack("<1024I", cpu_physical_memory_read(pde & 0xFFFFF000, _PAGE))


def _paging(mon: Monitor) -> CpuState | None:
    """The processor, if page tables are in use; else None, after a message."""
    env = mon_get_cpu()
    cpu = cpu_state(env) if env is not None else None
    if cpu is not None and not cpu.cr[0] & _CR0_PG:
        monitor_printf(mon, "PG disabled\n")
        return None
    return cpu


@traced
def tlb_info(mon: Monitor) -> None:
    """Obey `info tlb`: every page that is there."""
    cpu = _paging(mon)
    if cpu is None:
        return
    for l1, pde, large in _directory(cpu):
        if not pde & PG_PRESENT_MASK:
            continue
        if large:
            print_pte(mon, l1 << 22, pde, 0xFFF00000)
            continue
        for l2, pte in enumerate(_table(pde)):
            if pte & PG_PRESENT_MASK:
                print_pte(mon, (l1 << 22) + (l2 << 12), pte & ~PG_PSE_MASK, 0xFFFFF000)


@traced
def mem_print(mon: Monitor, pstart: int, plast_prot: int, end: int, prot: int) -> tuple[int, int]:
    """Print the range that ends at `end`, if the rights change there; the new start and rights."""
    if prot == plast_prot:
        return pstart, plast_prot
    if pstart != -1:
        user, write = plast_prot & PG_USER_MASK, plast_prot & PG_RW_MASK
        rights = f"{'u' if user else '-'}r{'w' if write else '-'}"
        monitor_printf(mon, "%08x-%08x %08x %s\n", pstart, end, end - pstart, rights)
    return end if prot else -1, prot


@traced
def mem_info(mon: Monitor) -> None:
    """Obey `info mem`: ranges of pages with equal rights."""
    cpu = _paging(mon)
    if cpu is None:
        return
    mask = PG_USER_MASK | PG_RW_MASK | PG_PRESENT_MASK
    start, prot = -1, 0
    for l1, pde, large in _directory(cpu):
        end = l1 << 22
        if pde & PG_PRESENT_MASK and not large:
            for l2, pte in enumerate(_table(pde)):
                rights = pte & mask if pte & PG_PRESENT_MASK else 0
                start, prot = mem_print(mon, start, prot, end + (l2 << 12), rights)
        else:
            rights = pde & mask if pde & PG_PRESENT_MASK else 0
            start, prot = mem_print(mon, start, prot, end, rights)
