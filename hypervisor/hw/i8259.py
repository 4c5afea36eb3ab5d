"""The two interrupt controllers of a PC: hw/i8259.c.

Lines 0-7 end in the master, 8-15 in the slave, whose output is the master's line 2. `irr` holds what is asked
for, `isr` what is being served, `imr` what is masked. Intel 8259A data sheet; edge-triggered unless `elcr`
says otherwise.
"""

from __future__ import annotations

from dataclasses import field

from hypervisor.hw.irq import IRQState, qemu_allocate_irqs, qemu_irq_lower, qemu_irq_raise
from hypervisor.ioport import register_ioport_read, register_ioport_write
from hypervisor.program import on_reset
from hypervisor.savevm import vmstate_register
from hypervisor.trace_io import traced_io
from hypervisor.vl_loop import qemu_register_reset
from hypervisor.vmstate.pc import vmstate_pic
from tracer import Struct, traced

C_FILE = "hw/i8259.c"


class PicState(Struct):
    """`struct PicState`: one controller."""

    last_irr: int = 0
    irr: int = 0
    imr: int = 0
    isr: int = 0
    priority_add: int = 0
    irq_base: int = 0
    read_reg_select: int = 0
    poll: int = 0
    special_mask: int = 0
    init_state: int = 0
    auto_eoi: int = 0
    rotate_on_auto_eoi: int = 0
    special_fully_nested_mode: int = 0
    init4: int = 0
    single_mode: int = 0
    elcr: int = 0
    elcr_mask: int = 0
    pics_state: PicState2 | None = None


class PicState2(Struct):
    """`struct PicState2`: master and slave, and the line to the processor."""

    pics: list[PicState] = field(default_factory=list)
    parent_irq: IRQState | None = None


isa_pic: PicState2 | None = None


@on_reset
def _reset() -> None:
    global isa_pic
    isa_pic = None


@traced
def pic_set_irq1(s: PicState, irq: int, level: int) -> None:
    """Set one of a controller's eight lines."""
    mask = 1 << irq
    if level:
        if s.elcr & mask or not s.last_irr & mask:
            s.irr |= mask
        s.last_irr |= mask
    else:
        if s.elcr & mask:
            s.irr &= ~mask
        s.last_irr &= ~mask


@traced_io
def get_priority(s: PicState, mask: int) -> int:
    """Highest priority among the lines of `mask`, 0 being the highest; 8 if there is none."""
    return next((p for p in range(8) if mask & 1 << (p + s.priority_add & 7)), 8)


@traced
def pic_get_irq(s: PicState) -> int:
    """The line that a controller wants served, -1 if none."""
    priority = get_priority(s, s.irr & ~s.imr)
    if priority == 8:
        return -1
    mask = s.isr
    if s.special_mask:
        mask &= ~s.imr
    if s.special_fully_nested_mode and s.pics_state is not None and s is s.pics_state.pics[0]:
        mask &= ~(1 << 2)
    if priority < get_priority(s, mask):
        return priority + s.priority_add & 7
    return -1


@traced
def pic_update_irq(s: PicState2) -> None:
    """Ask the processor for an interrupt if a controller wants one."""
    if pic_get_irq(s.pics[1]) >= 0:
        pic_set_irq1(s.pics[0], 2, 1)
        pic_set_irq1(s.pics[0], 2, 0)
    if pic_get_irq(s.pics[0]) >= 0:
        qemu_irq_raise(s.parent_irq)


@traced
def i8259_set_irq(opaque: PicState2, irq: int, level: int) -> None:
    """Set one of the sixteen lines."""
    pic_set_irq1(opaque.pics[irq >> 3], irq & 7, level)
    pic_update_irq(opaque)


@traced
def pic_intack(s: PicState, irq: int) -> None:
    """Begin to serve a line."""
    if not s.auto_eoi:
        s.isr |= 1 << irq
    elif s.rotate_on_auto_eoi:
        s.priority_add = irq + 1 & 7
    if not s.elcr & 1 << irq:
        s.irr &= ~(1 << irq)


@traced
def pic_read_irq(s: PicState2) -> int:
    """The processor takes an interrupt: its vector."""
    irq = pic_get_irq(s.pics[0])
    if irq < 0:
        intno = s.pics[0].irq_base + 7
    else:
        pic_intack(s.pics[0], irq)
        intno = s.pics[0].irq_base + irq
        if irq == 2:
            irq2 = pic_get_irq(s.pics[1])
            if irq2 >= 0:
                pic_intack(s.pics[1], irq2)
            intno = s.pics[1].irq_base + (irq2 if irq2 >= 0 else 7)
    pic_update_irq(s)
    return intno


@traced
def pic_reset(opaque: PicState) -> None:
    """Put a controller's registers back; `elcr` stays."""
    s = opaque
    s.last_irr = s.irr = s.imr = s.isr = s.priority_add = s.irq_base = s.read_reg_select = 0
    s.poll = s.special_mask = s.init_state = s.auto_eoi = s.rotate_on_auto_eoi = 0
    s.special_fully_nested_mode = s.init4 = s.single_mode = 0


def _command(s: PicState, pics: PicState2, val: int) -> None:
    """Obey an end of interrupt or a change of priorities (OCW2)."""
    cmd, irq = val >> 5, val & 7
    if cmd in (0, 4):
        s.rotate_on_auto_eoi = cmd >> 2
        return
    if cmd in (1, 5):
        priority = get_priority(s, s.isr)
        if priority == 8:
            return
        irq = priority + s.priority_add & 7
    if cmd in (1, 3, 5, 7):
        s.isr &= ~(1 << irq)
    if cmd in (5, 6, 7):
        s.priority_add = irq + 1 & 7
    if cmd != 2:
        pic_update_irq(pics)


@traced_io
def pic_ioport_write(opaque: PicState, addr: int, val: int) -> None:
    """Write a controller's command or data port."""
    s, pics = opaque, opaque.pics_state
    assert pics is not None
    if addr & 1:
        if s.init_state == 0:
            s.imr = val
            pic_update_irq(pics)
        elif s.init_state == 1:
            s.irq_base = val & 0xF8
            s.init_state = (3 if s.init4 else 0) if s.single_mode else 2
        elif s.init_state == 2:
            s.init_state = 3 if s.init4 else 0
        else:
            s.special_fully_nested_mode = val >> 4 & 1
            s.auto_eoi = val >> 1 & 1
            s.init_state = 0
    elif val & 0x10:
        pic_reset(s)
        qemu_irq_lower(pics.parent_irq)
        s.init_state = 1
        s.init4 = val & 1
        s.single_mode = val & 2
    elif val & 0x08:
        if val & 0x04:
            s.poll = 1
        if val & 0x02:
            s.read_reg_select = val & 1
        if val & 0x40:
            s.special_mask = val >> 5 & 1
    else:
        _command(s, pics, val)


@traced_io
def pic_poll_read(s: PicState, addr1: int) -> int:
    """Serve a line without an interrupt."""
    assert s.pics_state is not None
    master = s.pics_state.pics[0]
    ret = pic_get_irq(s)
    if ret < 0:
        pic_update_irq(s.pics_state)
        return 7
    if addr1 >> 7:
        master.isr &= ~(1 << 2)
        master.irr &= ~(1 << 2)
    s.irr &= ~(1 << ret)
    s.isr &= ~(1 << ret)
    if addr1 >> 7 or ret != 2:
        pic_update_irq(s.pics_state)
    return ret


@traced_io
def pic_ioport_read(opaque: PicState, addr1: int) -> int:
    """Read a controller's status or mask."""
    s = opaque
    if s.poll:
        s.poll = 0
        return pic_poll_read(s, addr1)
    if addr1 & 1:
        return s.imr
    return s.isr if s.read_reg_select else s.irr


@traced_io
def elcr_ioport_write(opaque: PicState, addr: int, val: int) -> None:
    """Choose which lines are level-triggered."""
    opaque.elcr = val & opaque.elcr_mask


@traced_io
def elcr_ioport_read(opaque: PicState, addr1: int) -> int:
    """Read which lines are level-triggered."""
    return opaque.elcr


@traced
def pic_init1(io_addr: int, elcr_addr: int, s: PicState) -> None:
    """Take a controller's ports."""
    register_ioport_write(io_addr, 2, 1, pic_ioport_write, s)
    register_ioport_read(io_addr, 2, 1, pic_ioport_read, s)
    register_ioport_write(elcr_addr, 1, 1, elcr_ioport_write, s)
    register_ioport_read(elcr_addr, 1, 1, elcr_ioport_read, s)
    vmstate_register(io_addr, vmstate_pic, s)
    qemu_register_reset(pic_reset, s)


@traced
def i8259_init(parent_irq: IRQState) -> list[IRQState]:
    """Make both controllers; their sixteen lines."""
    global isa_pic
    s = PicState2(parent_irq=parent_irq)
    s.pics = [PicState(elcr_mask=mask, pics_state=s) for mask in (0xF8, 0xDE)]
    pic_init1(0x20, 0x4D0, s.pics[0])
    pic_init1(0xA0, 0x4D1, s.pics[1])
    isa_pic = s
    return qemu_allocate_irqs(i8259_set_irq, s, 16)
