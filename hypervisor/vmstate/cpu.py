"""What is saved of a processor: the sections "cpu_common" and "cpu" (exec.c, target-i386/machine.c).

The accelerator holds the registers; `CPUX86Image` lays them out as `CPUX86State` does, which is what stands
in the stream. So a stream says nothing of who executed the guest, and another accelerator can go on with it.

Of the FXSAVE area that accelerators give, 0.12.4 saves no pointers to the last instruction and its operand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypervisor.accel import CpuState, Segment, Table
from hypervisor.cpu_exec import CPUState, take_a20
from hypervisor.exec import ram
from hypervisor.kvm_all import kvm_enabled
from hypervisor.savevm import register_savevm, vmstate_register
from hypervisor.savevm_file import QEMUFile, qemu_get_be16, qemu_get_be64, qemu_put_be16, qemu_put_be64
from hypervisor.vmstate import (
    VMStateDescription,
    VMStateField,
    VMStateInfo,
    vmstate_load_state,
    vmstate_save_state,
)
from hypervisor.vmstate.fields import (
    VMSTATE_INT32,
    VMSTATE_SINGLE,
    VMSTATE_STRUCT,
    VMSTATE_UINT8,
    VMSTATE_UINT16,
    VMSTATE_UINT32,
    VMSTATE_UINT64,
)
from tracer import symbol, traced

C_FILE = "target-i386/machine.c"

CPU_SAVE_VERSION = 12
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
_INHIBIT_IRQ, _CS32, _SS32, _PE, _OSFXSR = 1 << 3, 1 << 4, 1 << 5, 1 << 7, 1 << 22
_DESC_B = 1 << 22
_MSRS = {
    "sysenter_cs": 0x174,
    "sysenter_esp": 0x175,
    "sysenter_eip": 0x176,
    "star": 0xC0000081,
    "lstar": 0xC0000082,
    "cstar": 0xC0000083,
    "fmask": 0xC0000084,
    "kernelgsbase": 0xC0000102,
    "pat": 0x277,
    "tsc": 0x10,
    "vm_hsave": 0xC0010117,
    "mtrr_deftype": 0x2FF,
    "mcg_cap": 0x179,
    "mcg_status": 0x17A,
    "mcg_ctl": 0x17B,
    "tsc_aux": 0xC0000103,
    "system_time_msr": 0x12,
    "wall_clock_msr": 0x11,
}
_MTRR_FIXED = (0x250, 0x258, 0x259, *range(0x268, 0x270))
_MTRR_VAR = tuple((0x200 + 2 * i, 0x201 + 2 * i) for i in range(8))


@dataclass
class Xmm:
    """`XMMReg`: 128 bits, the lower half first."""

    q: list[int]


@dataclass
class MTRRVar:
    """`MTRRVar`: a variable memory type range."""

    base: int = 0
    mask: int = 0


@dataclass
class CPUX86Image:
    """What of `CPUX86State` is saved; fields are QEMU's.

    Parameters
    ----------
    version_id : int
        Of what is to be loaded.
    """

    env: CPUState
    version_id: int = 0
    regs: list[int] = field(default_factory=lambda: [0] * 16)
    eip: int = 0
    eflags: int = 2
    hflags: int = 0
    interrupt_injected: int = -1
    fpuc: int = 0
    fpus_vmstate: int = 0
    fptag_vmstate: int = 0
    fpregs_format_vmstate: int = 0
    fpregs: list[int] = field(default_factory=lambda: [0] * 8)
    segs: list[Segment] = field(default_factory=lambda: [Segment() for _ in _SEGMENTS])
    ldt: Segment = field(default_factory=Segment)
    tr: Segment = field(default_factory=Segment)
    gdt: Segment = field(default_factory=Segment)
    idt: Segment = field(default_factory=Segment)
    cr: list[int] = field(default_factory=lambda: [0] * 5)
    dr: list[int] = field(default_factory=lambda: [0] * 8)
    a20_mask: int = -1
    mxcsr: int = 0
    xmm_regs: list[Xmm] = field(default_factory=lambda: [Xmm([0, 0]) for _ in range(16)])
    efer: int = 0
    msrs: dict[int, int] = field(default_factory=dict)
    mtrr_fixed: list[int] = field(default_factory=lambda: [0] * 11)
    mtrr_var: list[MTRRVar] = field(default_factory=lambda: [MTRRVar() for _ in range(8)])

    def __getattr__(self, name: str) -> Any:
        if name in _MSRS:
            return self.msrs.get(_MSRS[name], 0)
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _MSRS:
            self.msrs[_MSRS[name]] = value
        else:
            object.__setattr__(self, name, value)

    def take(self, cpu: CpuState) -> None:
        """Lay out what the accelerator holds."""
        self.a20_mask = self.env.a20_mask - (1 << 32)
        self.regs, self.eip, self.eflags = list(cpu.regs), cpu.eip, cpu.eflags
        self.segs = [cpu.segs.get(name, Segment()) for name in _SEGMENTS]
        self.ldt, self.tr = (cpu.segs.get(name, Segment()) for name in ("ldt", "tr"))
        self.gdt = Segment(0, cpu.gdt.base, cpu.gdt.limit)
        self.idt = Segment(0, cpu.idt.base, cpu.idt.limit)
        self.cr, self.dr, self.efer, self.msrs = list(cpu.cr), list(cpu.dr), cpu.efer, dict(cpu.msrs)
        self.mtrr_fixed = [cpu.msrs.get(number, 0) for number in _MTRR_FIXED]
        self.mtrr_var = [MTRRVar(*(cpu.msrs.get(n, 0) for n in pair)) for pair in _MTRR_VAR]
        self.hflags, self.interrupt_injected = self._hflags(cpu), cpu.interrupt_injected
        fpu = cpu.fpu
        self.fpuc, self.fpus_vmstate = _little(fpu, 0, 2), _little(fpu, 2, 2)
        self.fptag_vmstate, self.mxcsr = fpu[4], _little(fpu, 24, 4)
        top = self.fpus_vmstate >> 11 & 7
        for i in range(8):
            self.fpregs[top + i & 7] = _little(fpu, 32 + 16 * i, 10)
        self.xmm_regs = [
            Xmm([_little(fpu, 160 + 16 * i, 8), _little(fpu, 168 + 16 * i, 8)]) for i in range(16)
        ]

    def _hflags(self, cpu: CpuState) -> int:
        code, stack = self.segs[1], self.segs[2]
        protected = cpu.cr[0] & 1
        flags = (code.selector & 3 if protected else 0) | (_PE if protected else 0)
        flags |= (_CS32 if code.flags & _DESC_B else 0) | (_SS32 if stack.flags & _DESC_B else 0)
        flags |= _OSFXSR if cpu.cr[4] & 1 << 9 else 0
        return flags | (_INHIBIT_IRQ if cpu.interrupt_shadow else 0)

    def give(self) -> CpuState:
        """Turn the layout back into what an accelerator takes."""
        top = self.fpus_vmstate >> 11 & 7
        fpu = bytearray(512)
        fpu[0:2], fpu[2:4] = self.fpuc.to_bytes(2, "little"), self.fpus_vmstate.to_bytes(2, "little")
        fpu[4], fpu[24:28] = self.fptag_vmstate & 0xFF, self.mxcsr.to_bytes(4, "little")
        for i in range(8):
            fpu[32 + 16 * i : 42 + 16 * i] = self.fpregs[top + i & 7].to_bytes(10, "little")
        for i, xmm in enumerate(self.xmm_regs):
            fpu[160 + 16 * i : 176 + 16 * i] = b"".join(half.to_bytes(8, "little") for half in xmm.q)
        msrs = dict(self.msrs)
        msrs.update(zip(_MTRR_FIXED, self.mtrr_fixed, strict=True))
        for pair, var in zip(_MTRR_VAR, self.mtrr_var, strict=True):
            msrs.update(zip(pair, (var.base, var.mask), strict=True))
        segs = dict(zip(_SEGMENTS, self.segs, strict=True)) | {"ldt": self.ldt, "tr": self.tr}
        return CpuState(
            regs=self.regs,
            eip=self.eip,
            eflags=self.eflags,
            segs=segs,
            gdt=Table(self.gdt.base, self.gdt.limit),
            idt=Table(self.idt.base, self.idt.limit),
            cr=self.cr,
            dr=self.dr,
            efer=self.efer,
            fpu=bytes(fpu),
            msrs={number: value for number, value in msrs.items() if value},
            interrupt_injected=self.interrupt_injected,
            interrupt_shadow=int(bool(self.hflags & _INHIBIT_IRQ)),
        )


def _little(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


@traced(file="exec.c")
def cpu_common_pre_save(opaque: CPUState) -> None:
    """Nothing: the accelerator is asked when the registers are saved."""


@traced(file="exec.c")
def cpu_common_pre_load(opaque: CPUState) -> int:
    """Nothing: the accelerator is told when the registers are loaded."""
    return 0


@traced(file="exec.c")
def cpu_common_post_load(opaque: CPUState, version_id: int) -> int:
    """Drop a request to come back that was made elsewhere."""
    opaque.interrupt_request &= ~0x01
    return 0


@traced
def cpu_pre_save(opaque: CPUX86Image) -> None:
    """Ask the accelerator."""
    opaque.take(opaque.env.accel.state())


@traced
def cpu_pre_load(opaque: CPUX86Image) -> int:
    """Begin with what the accelerator holds, unless all of it stands in the stream."""
    if opaque.version_id < CPU_SAVE_VERSION or kvm_enabled():
        opaque.take(opaque.env.accel.state())
    return 0


@traced
def cpu_post_load(opaque: CPUX86Image, version_id: int) -> int:
    """Give the registers to the accelerator, which forgets what it had decoded."""
    accel = opaque.env.accel
    accel.memory_written(0, len(ram()))
    accel.set_state(opaque.give())
    take_a20(opaque.env, bool(opaque.a20_mask >> 20 & 1))
    return 0


def _put_fpreg(f: QEMUFile, pv: int, size: int) -> None:
    qemu_put_be64(f, pv)
    qemu_put_be16(f, pv >> 64)


def _get_fpreg(f: QEMUFile, pv: int | None, size: int) -> tuple[int, int]:
    return 0, qemu_get_be64(f) | qemu_get_be16(f) << 64


_FPREG = symbol(VMStateInfo(name="fpreg", get=_get_fpreg, put=_put_fpreg), "vmstate_fpreg")

vmstate_cpu_common = symbol(
    VMStateDescription(
        name="cpu_common",
        version_id=1,
        minimum_version_id=1,
        pre_save=cpu_common_pre_save,
        pre_load=cpu_common_pre_load,
        post_load=cpu_common_post_load,
        fields=(VMSTATE_UINT32("halted"), VMSTATE_UINT32("interrupt_request")),
    ),
    "vmstate_cpu_common",
)
vmstate_segment = symbol(
    VMStateDescription(
        name="segment",
        version_id=1,
        minimum_version_id=1,
        fields=(
            VMSTATE_UINT32("selector"),
            VMSTATE_UINT64("base"),
            VMSTATE_UINT32("limit"),
            VMSTATE_UINT32("flags"),
        ),
    ),
    "vmstate_segment",
)
vmstate_xmm_reg = symbol(
    VMStateDescription(
        name="xmm_reg",
        version_id=1,
        minimum_version_id=1,
        fields=(VMSTATE_UINT64("_q[0]", attr="q[0]"), VMSTATE_UINT64("_q[1]", attr="q[1]")),
    ),
    "vmstate_xmm_reg",
)
vmstate_mtrr_var = symbol(
    VMStateDescription(
        name="mtrr_var",
        version_id=1,
        minimum_version_id=1,
        fields=(VMSTATE_UINT64("base"), VMSTATE_UINT64("mask")),
    ),
    "vmstate_mtrr_var",
)


def _less_than_7(opaque: Any, version_id: int) -> int:
    return int(version_id < 7)


def _version_is_5(opaque: Any, version_id: int) -> int:
    return int(version_id == 5)


def _none(kind: Any, names: str, version: int) -> list[VMStateField]:
    """Fields that no processor of the model has."""
    return [kind(name, version, missing=0) for name in names.split()]


vmstate_cpu = symbol(
    VMStateDescription(
        name="cpu",
        version_id=CPU_SAVE_VERSION,
        minimum_version_id=3,
        pre_save=cpu_pre_save,
        pre_load=cpu_pre_load,
        post_load=cpu_post_load,
        fields=(
            VMSTATE_UINT64("regs", num=16),
            VMSTATE_UINT64("eip"),
            VMSTATE_UINT64("eflags"),
            VMSTATE_UINT32("hflags"),
            VMSTATE_UINT16("fpuc"),
            VMSTATE_UINT16("fpus_vmstate"),
            VMSTATE_UINT16("fptag_vmstate"),
            VMSTATE_UINT16("fpregs_format_vmstate"),
            VMSTATE_SINGLE("fpregs", _FPREG, 10, num=8),
            VMSTATE_STRUCT("segs", vmstate_segment, num=6),
            VMSTATE_STRUCT("ldt", vmstate_segment),
            VMSTATE_STRUCT("tr", vmstate_segment),
            VMSTATE_STRUCT("gdt", vmstate_segment),
            VMSTATE_STRUCT("idt", vmstate_segment),
            VMSTATE_UINT32("sysenter_cs"),
            VMSTATE_UINT32("sysenter_esp", test=_less_than_7),
            VMSTATE_UINT32("sysenter_eip", test=_less_than_7),
            VMSTATE_UINT64("sysenter_esp", 7),
            VMSTATE_UINT64("sysenter_eip", 7),
            VMSTATE_UINT64("cr[0]"),
            VMSTATE_UINT64("cr[2]"),
            VMSTATE_UINT64("cr[3]"),
            VMSTATE_UINT64("cr[4]"),
            VMSTATE_UINT64("dr", num=8),
            VMSTATE_INT32("a20_mask"),
            VMSTATE_UINT32("mxcsr"),
            VMSTATE_STRUCT("xmm_regs", vmstate_xmm_reg, num=16),
            VMSTATE_UINT64("efer"),
            VMSTATE_UINT64("star"),
            VMSTATE_UINT64("lstar"),
            VMSTATE_UINT64("cstar"),
            VMSTATE_UINT64("fmask"),
            VMSTATE_UINT64("kernelgsbase"),
            VMSTATE_UINT32("smbase", 4, missing=0x30000),
            VMSTATE_UINT64("pat", 5),
            VMSTATE_UINT32("hflags2", 5, missing=1),
            VMSTATE_UINT32("halted", test=_version_is_5, missing=0),
            VMSTATE_UINT64("vm_hsave", 5),
            *_none(VMSTATE_UINT64, "vm_vmcb tsc_offset intercept", 5),
            *_none(
                VMSTATE_UINT16, "intercept_cr_read intercept_cr_write intercept_dr_read intercept_dr_write", 5
            ),
            *_none(VMSTATE_UINT32, "intercept_exceptions", 5),
            *_none(VMSTATE_UINT8, "v_tpr", 5),
            VMSTATE_UINT64("mtrr_fixed", 8, num=11),
            VMSTATE_UINT64("mtrr_deftype", 8),
            VMStateField(name="mtrr_var", attr="mtrr_var", vmsd=vmstate_mtrr_var, num=8, version_id=8),
            VMSTATE_INT32("interrupt_injected", 9),
            VMSTATE_UINT32("mp_state", 9, missing=0),
            VMSTATE_UINT64("tsc", 9),
            VMSTATE_INT32("exception_injected", 11, missing=-1),
            *_none(VMSTATE_UINT8, "soft_interrupt nmi_injected nmi_pending has_error_code", 11),
            *_none(VMSTATE_UINT32, "sipi_vector", 11),
            VMSTATE_UINT64("mcg_cap", 10),
            VMSTATE_UINT64("mcg_status", 10),
            VMSTATE_UINT64("mcg_ctl", 10),
            VMSTATE_UINT64("mce_banks", 10, num=40, missing=0),
            VMSTATE_UINT64("tsc_aux", 11),
            VMSTATE_UINT64("system_time_msr", 11),
            VMSTATE_UINT64("wall_clock_msr", 11),
        ),
    ),
    "vmstate_cpu",
)


@traced
def cpu_save(f: QEMUFile, opaque: CPUState) -> None:
    """Write a processor's registers."""
    vmstate_save_state(f, vmstate_cpu, CPUX86Image(opaque))


@traced
def cpu_load(f: QEMUFile, opaque: CPUState, version_id: int) -> int:
    """Read a processor's registers."""
    return vmstate_load_state(f, vmstate_cpu, CPUX86Image(opaque, version_id), version_id)


def register_cpu(env: CPUState) -> None:
    """Have a processor saved; the end of `cpu_exec_init`."""
    vmstate_register(env.cpu_index, vmstate_cpu_common, env)
    register_savevm("cpu", env.cpu_index, CPU_SAVE_VERSION, cpu_save, cpu_load, env)
