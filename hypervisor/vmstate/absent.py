"""Sections of devices that the PC of 0.12.4 has and the model lacks.

A stream of the real program has them, so one of the model has them too, as after a reset: then the
sections are the same, in the same order, and a stream of either can be read. When the model gains a
device, its description moves to where the others are.

- `register_absent(instance_id, vmsd)`: have such a section saved.
- `of_another_accelerator(idstr)`: for sections of KVM's, loaded by a machine without it.
"""

from __future__ import annotations

from hypervisor.savevm import SaveStateEntry, vmstate_register
from hypervisor.savevm_file import QEMUFile, qemu_get_be32
from hypervisor.vmstate import ABSENT, VMStateDescription, VMStateField
from hypervisor.vmstate.fields import (
    VMSTATE_BUFFER,
    VMSTATE_BYTES,
    VMSTATE_INT32,
    VMSTATE_INT32_EQUAL,
    VMSTATE_INT64,
    VMSTATE_STRUCT,
    VMSTATE_TIMER,
    VMSTATE_U64,
    VMSTATE_UINT8,
    VMSTATE_UINT8_EQUAL,
    VMSTATE_UINT16,
    VMSTATE_UINT32,
    VMSTATE_UINT64,
)
from hypervisor.vmstate.pc import _bytes
from hypervisor.vmstate.pci import VMSTATE_PCI_DEVICE, vmstate_pci_device
from tracer import symbol


def register_absent(instance_id: int, vmsd: VMStateDescription) -> None:
    """Have the section of a device saved that the model lacks."""
    vmstate_register(instance_id, vmsd, ABSENT)


def _drop_tpr(f: QEMUFile, opaque: None, version_id: int) -> int:
    for _ in range(36):
        qemu_get_be32(f)
    return 0


def of_another_accelerator(idstr: str) -> SaveStateEntry | None:
    """Where a section goes that only a machine under KVM has, and that any other can do without.

    0.12.4 refuses such a machine.
    """
    if idstr == "kvmclock":
        return SaveStateEntry(idstr=idstr, version_id=1, vmsd=vmstate_kvmclock, opaque=ABSENT)
    if idstr == "kvm-tpr-opt":
        return SaveStateEntry(idstr=idstr, version_id=1, load_state=_drop_tpr)
    return None


def _description(
    name: str, title: str, version: int, *fields: VMStateField, minimum: int | None = None
) -> VMStateDescription:
    minimum = version if minimum is None else minimum
    return symbol(
        VMStateDescription(name=title, version_id=version, minimum_version_id=minimum, fields=fields),
        f"vmstate_{name}",
    )


vmstate_kvmclock = _description("kvmclock", "kvmclock", 1, VMSTATE_U64("clock"))
vmstate_apic = _description(
    "apic",
    "apic",
    3,
    VMSTATE_UINT32("apicbase", missing=0xFEE00900),
    *_bytes("id arb_id tpr"),
    VMSTATE_UINT32("spurious_vec", missing=0xFF),
    *_bytes("log_dest dest_mode"),
    VMSTATE_UINT32("isr", num=8),
    VMSTATE_UINT32("tmr", num=8),
    VMSTATE_UINT32("irr", num=8),
    VMSTATE_UINT32("lvt", num=6, missing=1 << 16),
    VMSTATE_UINT32("esr"),
    VMSTATE_UINT32("icr", num=2),
    VMSTATE_UINT32("divide_conf"),
    VMSTATE_INT32("count_shift"),
    VMSTATE_UINT32("initial_count"),
    VMSTATE_INT64("initial_count_load_time"),
    VMSTATE_INT64("next_time"),
    VMSTATE_TIMER("timer"),
)
vmstate_cirrus_vga = _description(
    "cirrus_vga",
    "cirrus_vga",
    2,
    VMSTATE_UINT32("vga.latch"),
    VMSTATE_UINT8("vga.sr_index"),
    VMSTATE_BUFFER("vga.sr", 256),
    *_bytes("vga.gr_index cirrus_shadow_gr0 cirrus_shadow_gr1"),
    VMSTATE_BUFFER("vga.gr", 254),
    VMSTATE_UINT8("vga.ar_index"),
    VMSTATE_BUFFER("vga.ar", 21),
    VMSTATE_INT32("vga.ar_flip_flop"),
    VMSTATE_UINT8("vga.cr_index"),
    VMSTATE_BUFFER("vga.cr", 256),
    *_bytes("vga.msr vga.fcr vga.st00 vga.st01 vga.dac_state vga.dac_sub_index vga.dac_read_index"),
    VMSTATE_UINT8("vga.dac_write_index"),
    VMSTATE_BUFFER("vga.dac_cache", 3),
    VMSTATE_BUFFER("vga.palette", 768),
    VMSTATE_INT32("vga.bank_offset"),
    *_bytes("cirrus_hidden_dac_lockindex cirrus_hidden_dac_data"),
    VMSTATE_UINT32("hw_cursor_x"),
    VMSTATE_UINT32("hw_cursor_y"),
    minimum=1,
)
vmstate_pci_cirrus_vga = _description(
    "pci_cirrus_vga",
    "cirrus_vga",
    2,
    VMSTATE_PCI_DEVICE(),
    VMSTATE_STRUCT("cirrus_vga", vmstate_cirrus_vga),
)
vmstate_ioapic = _description(
    "ioapic",
    "ioapic",
    2,
    *_bytes("id ioregsel"),
    VMSTATE_UINT64("base_address", 2, missing=0xFEC00000),
    VMSTATE_UINT32("irr", 2),
    VMSTATE_UINT64("ioredtbl", num=24, missing=1 << 16),
    minimum=1,
)
vmstate_hpet_timer = _description(
    "hpet_timer",
    "hpet_timer",
    1,
    VMSTATE_UINT8("tn"),
    *(VMSTATE_UINT64(name) for name in ("config", "cmp", "fsb", "period")),
    VMSTATE_UINT8("wrap_flag"),
    VMSTATE_TIMER("qemu_timer"),
)
vmstate_hpet = _description(
    "hpet",
    "hpet",
    1,
    *(VMSTATE_UINT64(name) for name in ("config", "isr", "hpet_counter")),
    VMSTATE_STRUCT("timer", vmstate_hpet_timer, num=3),
)
vmstate_vmmouse = _description(
    "vmmouse",
    "vmmouse",
    0,
    VMSTATE_INT32_EQUAL("queue_size", missing=1024),
    VMSTATE_UINT32("queue", num=1024),
    VMSTATE_UINT16("nb_queue"),
    VMSTATE_UINT16("status"),
    VMSTATE_UINT8("absolute"),
)
vmstate_dma_regs = _description(
    "dma_regs",
    "dma_regs",
    1,
    VMSTATE_INT32("now", num=2),
    VMSTATE_UINT16("base", num=2),
    *_bytes("mode page pageh dack eop"),
)
vmstate_dma = _description(
    "dma",
    "dma",
    1,
    *_bytes("command mask flip_flop"),
    VMSTATE_INT32("dshift"),
    VMSTATE_STRUCT("regs", vmstate_dma_regs, 1, num=4),
)
vmstate_fdrive = _description("fdrive", "fdrive", 1, *_bytes("head track sect"))
vmstate_fdc = _description(
    "fdc",
    "fdc",
    2,
    *_bytes("sra srb dor_vmstate tdr dsr msr status0 status1 status2"),
    VMSTATE_BYTES("fifo", 512),
    VMSTATE_UINT32("data_pos"),
    VMSTATE_UINT32("data_len"),
    *_bytes("data_state data_dir eot timer0 timer1 precomp_trk config lock pwrd"),
    VMSTATE_UINT8_EQUAL("num_floppies", missing=2),
    VMSTATE_STRUCT("drives", vmstate_fdrive, 1, num=2),
)
__all__ = [
    "register_absent",
    "vmstate_apic",
    "vmstate_dma",
    "vmstate_fdc",
    "vmstate_hpet",
    "vmstate_ioapic",
    "vmstate_kvmclock",
    "vmstate_pci_cirrus_vga",
    "vmstate_pci_device",
    "vmstate_vmmouse",
]
