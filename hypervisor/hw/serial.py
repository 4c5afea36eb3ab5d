"""The serial port: hw/serial.c, a 16550 that sends at once.

What the guest writes goes to the character device without waiting for a baud clock; what comes is kept in the
receive FIFO until the guest reads it. Break and modem status lines are constant.
"""

from __future__ import annotations

from collections import deque
from dataclasses import field

from hypervisor.hw.irq import IRQState, qemu_irq_lower, qemu_irq_raise
from hypervisor.hw.isa_bus import ISADevice, ISADeviceInfo, isa_create, isa_init_irq, isa_qdev_register
from hypervisor.hw.qdev import qdev_init
from hypervisor.hw.qdev_properties import Property, qdev_prop_set_chr, qdev_prop_set_uint32
from hypervisor.ioport import register_ioport_read, register_ioport_write
from hypervisor.module import device_init
from hypervisor.qemu_char import CharDriverState, qemu_chr_accept_input, qemu_chr_add_handlers, qemu_chr_write
from hypervisor.savevm import vmstate_register
from hypervisor.trace_io import traced_io
from hypervisor.vl_loop import qemu_register_reset
from hypervisor.vmstate.pc import vmstate_serial
from tracer import traced

C_FILE = "hw/serial.c"

UART_LCR_DLAB = 0x80
UART_IER_RDI = 0x01
UART_IER_THRI = 0x02
UART_IIR_NO_INT = 0x01
UART_IIR_THRI = 0x02
UART_IIR_RDI = 0x04
UART_IIR_FE = 0xC0
UART_MCR_LOOP = 0x10
UART_LSR_DR = 0x01
UART_LSR_THRE = 0x20
UART_LSR_TEMT = 0x40
UART_FCR_FE = 0x01
UART_FCR_RFR = 0x02
FIFO_LENGTH = 16
_IOBASE = (0x3F8, 0x2F8, 0x3E8, 0x2E8)
_IRQ = (4, 3, 4, 3)


class SerialState(ISADevice):
    """`SerialState`: one port's registers."""

    index: int = -1
    iobase: int = -1
    chr: CharDriverState | None = None
    divider: int = 12
    rbr: int = 0
    ier: int = 0
    iir: int = UART_IIR_NO_INT
    lcr: int = 0
    mcr: int = 0x08
    lsr: int = UART_LSR_TEMT | UART_LSR_THRE
    msr: int = 0xB0
    scr: int = 0
    fcr: int = 0
    fcr_vmstate: int = 0
    thr_ipending: int = 0
    recv_fifo: deque[int] = field(default_factory=deque)
    irq: IRQState | None = None


@traced
def serial_update_irq(s: SerialState) -> None:
    """Ask for an interrupt, or take it back, as the registers say."""
    if s.ier & UART_IER_RDI and s.lsr & UART_LSR_DR:
        iir = UART_IIR_RDI
    elif s.ier & UART_IER_THRI and s.thr_ipending:
        iir = UART_IIR_THRI
    else:
        iir = UART_IIR_NO_INT
    s.iir = iir | s.iir & 0xF0
    (qemu_irq_lower if iir == UART_IIR_NO_INT else qemu_irq_raise)(s.irq)


@traced
def serial_xmit(opaque: SerialState, tsr: int) -> None:
    """Send a byte; C keeps it in the structure."""
    s = opaque
    if s.mcr & UART_MCR_LOOP:
        serial_receive1(s, bytes((tsr,)), 1)
    elif s.chr is not None:
        qemu_chr_write(s.chr, bytes((tsr,)), 1)
    s.thr_ipending = 1
    serial_update_irq(s)


@traced_io
def serial_ioport_write(opaque: SerialState, addr: int, val: int) -> None:
    """Write a register."""
    s = opaque
    addr &= 7
    if addr < 2 and s.lcr & UART_LCR_DLAB:
        shift = 8 * addr
        s.divider = s.divider & ~(0xFF << shift) | val << shift
    elif addr == 0:
        s.thr_ipending = 0
        serial_update_irq(s)
        serial_xmit(s, val)
    elif addr == 1:
        s.ier = val & 0x0F
        s.thr_ipending = 1
        serial_update_irq(s)
    elif addr == 2:
        if (val ^ s.fcr) & UART_FCR_FE or val & UART_FCR_RFR:
            s.recv_fifo.clear()
        s.iir = s.iir | UART_IIR_FE if val & UART_FCR_FE else s.iir & ~UART_IIR_FE
        s.fcr = val & 0xC9
        serial_update_irq(s)
    elif addr == 3:
        s.lcr = val
    elif addr == 4:
        s.mcr = val & 0x1F
    elif addr == 7:
        s.scr = val


@traced_io
def serial_ioport_read(opaque: SerialState, addr: int) -> int:
    """Read a register."""
    s = opaque
    addr &= 7
    if addr < 2 and s.lcr & UART_LCR_DLAB:
        return s.divider >> 8 * addr & 0xFF
    if addr == 0:
        ret = s.recv_fifo.popleft() if s.recv_fifo else 0
        if not s.recv_fifo:
            s.lsr &= ~UART_LSR_DR
        serial_update_irq(s)
        if s.chr is not None and not s.mcr & UART_MCR_LOOP:
            qemu_chr_accept_input(s.chr)
        return ret
    if addr == 2:
        ret = s.iir
        s.thr_ipending = 0
        serial_update_irq(s)
        return ret
    if addr == 6:
        if s.mcr & UART_MCR_LOOP:
            return (s.mcr & 0x0C) << 4 | (s.mcr & 0x02) << 3 | (s.mcr & 0x01) << 5
        return s.msr
    return (0, s.ier, 0, s.lcr, s.mcr, s.lsr, 0, s.scr)[addr]


@traced
def serial_can_receive1(opaque: SerialState) -> int:
    """How many bytes the port takes now."""
    room = FIFO_LENGTH if opaque.fcr & UART_FCR_FE else 1
    return max(room - len(opaque.recv_fifo), 0)


@traced
def serial_receive1(opaque: SerialState, buf: bytes, size: int) -> None:
    """Take bytes from the character device."""
    opaque.recv_fifo.extend(buf[:size])
    opaque.lsr |= UART_LSR_DR
    serial_update_irq(opaque)


@traced
def serial_event(opaque: SerialState, event: int) -> None:
    """Hear of the character device's opening."""


@traced
def serial_reset(opaque: SerialState) -> None:
    """Put the registers back."""
    s = opaque
    s.ier = s.lcr = s.scr = s.fcr = s.thr_ipending = 0
    s.iir = UART_IIR_NO_INT
    s.lsr = UART_LSR_TEMT | UART_LSR_THRE
    s.msr = 0xB0
    s.mcr = 0x08
    s.divider = 12
    s.recv_fifo.clear()
    qemu_irq_lower(s.irq)


@traced
def serial_init_core(s: SerialState) -> None:
    """Connect the port to its character device."""
    qemu_register_reset(serial_reset, s)
    assert s.chr is not None
    qemu_chr_add_handlers(s.chr, serial_can_receive1, serial_receive1, serial_event, s)


@traced
def serial_isa_initfn(dev: SerialState) -> int:
    """Take the port's interrupt and ports."""
    dev.iobase = _IOBASE[dev.index]
    # Ports 3 and 4 share the first two's numbers, which the bus gives once.
    dev.irq = isa_init_irq(dev, _IRQ[dev.index]) if dev.index < 2 else None
    serial_init_core(dev)
    vmstate_register(dev.iobase, vmstate_serial, dev)
    register_ioport_write(dev.iobase, 8, 1, serial_ioport_write, dev)
    register_ioport_read(dev.iobase, 8, 1, serial_ioport_read, dev)
    return 0


@traced
def serial_isa_init(index: int, chr: CharDriverState) -> SerialState | None:
    """Make a serial port of the machine."""
    dev = isa_create("isa-serial")
    qdev_prop_set_uint32(dev, "index", index)
    qdev_prop_set_chr(dev, "chardev", chr)
    if qdev_init(dev) < 0:
        return None
    assert isinstance(dev, SerialState)
    return dev


serial_isa_info = ISADeviceInfo(
    name="isa-serial",
    size=SerialState,
    isa_init=serial_isa_initfn,
    props=[
        Property(name="index", type="uint32", field="index", defval=-1),
        Property(name="chardev", type="chr", field="chr"),
    ],
)


@traced
def serial_register_devices() -> None:
    """Register the port."""
    isa_qdev_register(serial_isa_info)


device_init(serial_register_devices)
