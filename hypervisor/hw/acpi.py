"""Power management of the PIIX4: hw/acpi.c; Intel 82371AB data sheet, ACPI specification chapter 4.

The firmware puts the registers somewhere by configuration bytes 40h (where) and 80h (that they are there):

    base+0 PM1 status    bit 0 the timer's top bit has changed, 8 the power button, 15 woken up
    base+2 PM1 enable    the same bits: which of them raise the SCI, interrupt 9
    base+4 PM1 control   bit 0 the guest has ACPI, 10-12 and 13: sleep this way, now
    base+8 timer         24 bits that count at 3.579545 MHz
    0xb2                 ACPI_ENABLE or ACPI_DISABLE: the guest takes the registers over, or gives them back

So `system_powerdown` is a bit and an interrupt; a guest that has not enabled it hears nothing of it:

    main_loop -> qemu_irq_raise(qemu_system_powerdown) -> piix4_powerdown -> pm_update_sci -> qemu_set_irq

- `piix4_pm_init(bus, devfn, smb_io_base, sci_irq)`: the device; `hypervisor.hw.acpi_smbus` serves its SMBus.
- `pm_state()`: the machine's, for hot-plugging; see `hypervisor.hw.acpi_hotplug`.
"""

from __future__ import annotations

from dataclasses import field

from hypervisor.hw import acpi_smbus
from hypervisor.hw import pci_regs as regs
from hypervisor.hw.i2c import I2CBus, i2c_init_bus
from hypervisor.hw.irq import IRQState, qemu_allocate_irqs, qemu_set_irq
from hypervisor.hw.pci import (
    PCIBus,
    PCIDevice,
    pci_config_set_class,
    pci_config_set_device_id,
    pci_config_set_vendor_id,
    pci_default_write_config,
    pci_register_device,
)
from hypervisor.ioport import register_ioport_read, register_ioport_write
from hypervisor.program import on_reset
from hypervisor.savevm import vmstate_register
from hypervisor.trace_io import traced_io
from hypervisor.vl_loop import (
    qemu_register_reset,
    qemu_system_reset_request,
    qemu_system_shutdown_request,
)
from hypervisor.vl_state import state
from hypervisor.vl_timers import (
    QEMUTimer,
    _clock_at_port,
    qemu_del_timer,
    qemu_get_clock,
    qemu_mod_timer,
    qemu_new_timer,
    vm_clock,
)
from hypervisor.vmstate.acpi import vmstate_acpi
from tracer import traced

C_FILE = "hw/acpi.c"

PM_FREQ = 3579545
ACPI_DBG_IO_ADDR = 0xB044
RSM_STS, RTC_EN, PWRBTN_EN, GBL_EN, TMROF_EN = 1 << 15, 1 << 10, 1 << 8, 1 << 5, 1 << 0
SCI_EN, SUS_EN = 1 << 0, 1 << 13
ACPI_ENABLE, ACPI_DISABLE = 0xF1, 0xF0
_SECOND = 1_000_000_000
_HALF = 0x800000
_BASE, _PRESENT, _SMI_ENABLE = 0x40, 0x80, 0x5B


class PIIX4PMState(PCIDevice):
    """`PIIX4PMState`: `tmr_overflow_time` is when the timer's top bit changes next, in its ticks."""

    pmsts: int = 0
    pmen: int = 0
    pmcntrl: int = 0
    apmc: int = 0
    apms: int = 0
    tmr_timer: QEMUTimer | None = None
    tmr_overflow_time: int = 0
    smbus: I2CBus | None = None
    smb_stat: int = 0
    smb_ctl: int = 0
    smb_cmd: int = 0
    smb_addr: int = 0
    smb_data0: int = 0
    smb_data1: int = 0
    smb_data: bytearray = field(default_factory=lambda: bytearray(32))
    smb_index: int = 0
    pm_irq: IRQState | None = None


_pm_state: PIIX4PMState | None = None


@on_reset
def _reset() -> None:
    global _pm_state
    _pm_state = None


def pm_state() -> PIIX4PMState | None:
    """The machine's power management; None without."""
    return _pm_state


def _ticks() -> int:
    return qemu_get_clock(vm_clock) * PM_FREQ // _SECOND


@traced_io
def get_pmtmr(s: PIIX4PMState) -> int:
    """Read the timer."""
    return _clock_at_port() * PM_FREQ // _SECOND & 0xFFFFFF


@traced
def get_pmsts(s: PIIX4PMState) -> int:
    """Read the status; the timer's bit is set when its time has come."""
    if _ticks() >= s.tmr_overflow_time:
        s.pmsts |= TMROF_EN
    return s.pmsts


@traced
def pm_update_sci(s: PIIX4PMState) -> None:
    """Raise or withdraw the interrupt, and have the timer wake us if the guest waits for it."""
    assert s.tmr_timer is not None
    pmsts = get_pmsts(s)
    qemu_set_irq(s.pm_irq, int(bool(pmsts & s.pmen & (RTC_EN | PWRBTN_EN | GBL_EN | TMROF_EN))))
    if s.pmen & TMROF_EN and not pmsts & TMROF_EN:
        # Rounded up: a nanosecond early, the bit would not be set yet, and with -icount never be.
        qemu_mod_timer(s.tmr_timer, -(-s.tmr_overflow_time * _SECOND // PM_FREQ))
    else:
        qemu_del_timer(s.tmr_timer)


@traced
def pm_tmr_timer(opaque: PIIX4PMState) -> None:
    """Tell the guest that the timer's top bit has changed."""
    pm_update_sci(opaque)


def _write_status(s: PIIX4PMState, val: int) -> None:
    """Clear the bits that are written as 1."""
    if get_pmsts(s) & val & TMROF_EN:
        s.tmr_overflow_time = (_ticks() + _HALF) & ~(_HALF - 1)
    s.pmsts &= ~val
    pm_update_sci(s)


def _write_control(s: PIIX4PMState, val: int) -> None:
    """Sleep in the way of bits 10 to 12: 0 is off; of 1, a sleep to RAM, the machine wakes up at once."""
    s.pmcntrl = val & ~SUS_EN
    if not val & SUS_EN:
        return
    way = val >> 10 & 7
    if way == 0:
        state.exit_reason = "guest"
        qemu_system_shutdown_request()
    elif way == 1:
        from hypervisor.hw.pc import cmos_set_s3_resume

        s.pmsts |= RSM_STS | PWRBTN_EN
        qemu_system_reset_request()
        cmos_set_s3_resume()


@traced_io
def pm_ioport_writew(opaque: PIIX4PMState, addr: int, val: int) -> None:
    """Write status, enable or control."""
    addr &= 0x3F
    if addr == 0:
        _write_status(opaque, val)
    elif addr == 2:
        opaque.pmen = val
        pm_update_sci(opaque)
    elif addr == 4:
        _write_control(opaque, val)


@traced_io
def pm_ioport_readw(opaque: PIIX4PMState, addr: int) -> int:
    """Read status, enable or control."""
    addr &= 0x3F
    if addr == 0:
        return get_pmsts(opaque)
    return {2: opaque.pmen, 4: opaque.pmcntrl}.get(addr, 0)


@traced_io
def pm_ioport_writel(opaque: PIIX4PMState, addr: int, val: int) -> None:
    """Nothing of 32 bits can be written."""


@traced_io
def pm_ioport_readl(opaque: PIIX4PMState, addr: int) -> int:
    """Read the timer."""
    return get_pmtmr(opaque) if addr & 0x3F == 8 else 0


@traced_io
def pm_smi_writeb(opaque: PIIX4PMState, addr: int, val: int) -> None:
    """Hand the registers to the guest's ACPI, or take them back.

    0.12.4's processor would enter system management mode, too; KVM's and the model's have none.
    """
    if addr & 1:
        opaque.apms = val
        return
    opaque.apmc = val
    if val == ACPI_ENABLE:
        opaque.pmcntrl |= SCI_EN
    elif val == ACPI_DISABLE:
        opaque.pmcntrl &= ~SCI_EN


@traced_io
def pm_smi_readb(opaque: PIIX4PMState, addr: int) -> int:
    """Read back what was written."""
    return opaque.apms if addr & 1 else opaque.apmc


@traced_io
def acpi_dbg_writel(opaque: PIIX4PMState, addr: int, val: int) -> None:
    """Swallow what the guest's ACPI code says for debugging."""


@traced
def pm_io_space_update(s: PIIX4PMState) -> None:
    """Take the ports where the firmware wants them, if it wants them."""
    if not s.config[_PRESENT] & 1:
        return
    base = int.from_bytes(s.config[_BASE : _BASE + 2], "little") & 0xFFC0
    register_ioport_write(base, 64, 2, pm_ioport_writew, s)
    register_ioport_read(base, 64, 2, pm_ioport_readw, s)
    register_ioport_write(base, 64, 4, pm_ioport_writel, s)
    register_ioport_read(base, 64, 4, pm_ioport_readl, s)


@traced
def pm_write_config(d: PIIX4PMState, address: int, val: int, len: int) -> None:
    """Write configuration space; byte 80h has the ports appear."""
    pci_default_write_config(d, address, val, len)
    if address == _PRESENT:
        pm_io_space_update(d)


@traced
def piix4_reset(opaque: PIIX4PMState) -> None:
    """Reset what the firmware sets up, but for the bit by which it takes SMM for set up already.

    0.12.4 leaves that bit under KVM only, which has no system management mode; nor has the model.
    """
    opaque.config[0x58 : _SMI_ENABLE + 1] = bytes((0, 0, 0, 2))


@traced
def piix4_powerdown(opaque: PIIX4PMState, irq: int, power_failing: int) -> None:
    """Press the power button: a guest that wants to hear of it does."""
    if opaque.pmen & PWRBTN_EN:
        opaque.pmsts |= PWRBTN_EN
        pm_update_sci(opaque)


@traced
def piix4_pm_init(bus: PCIBus, devfn: int, smb_io_base: int, sci_irq: IRQState) -> I2CBus:
    """Make the machine's power management; the SMBus behind it."""
    global _pm_state
    s = pci_register_device(bus, "PM", PIIX4PMState, devfn, None, pm_write_config)
    assert isinstance(s, PIIX4PMState)
    _pm_state = s
    conf = s.config
    pci_config_set_vendor_id(conf, regs.PCI_VENDOR_ID_INTEL)
    pci_config_set_device_id(conf, regs.PCI_DEVICE_ID_INTEL_82371AB_3)
    conf[0x06:0x0A] = bytes((0x80, 0x02, 0x03, 0x00))
    pci_config_set_class(conf, regs.PCI_CLASS_BRIDGE_OTHER)
    conf[regs.PCI_HEADER_TYPE] = regs.PCI_HEADER_TYPE_NORMAL
    conf[0x3D] = 0x01
    conf[_BASE] = 0x01
    register_ioport_write(0xB2, 2, 1, pm_smi_writeb, s)
    register_ioport_read(0xB2, 2, 1, pm_smi_readb, s)
    register_ioport_write(ACPI_DBG_IO_ADDR, 4, 4, acpi_dbg_writel, s)
    conf[_SMI_ENABLE] = 0x02
    conf[0x5F] = 0x10 | 0x80 * (state.parallel_hds[0] is not None)
    conf[0x63] = 0x60
    conf[0x67] = 0x08 * (state.serial_hds[0] is not None) | 0x90 * (state.serial_hds[1] is not None)
    conf[0x90:0x92] = (smb_io_base | 1).to_bytes(2, "little")
    conf[0xD2] = 0x09
    register_ioport_write(smb_io_base, 64, 1, acpi_smbus.smb_ioport_writeb, s)
    register_ioport_read(smb_io_base, 64, 1, acpi_smbus.smb_ioport_readb, s)
    s.tmr_timer = qemu_new_timer(vm_clock, pm_tmr_timer, s)
    state.qemu_system_powerdown = qemu_allocate_irqs(piix4_powerdown, s, 1)[0]
    vmstate_register(0, vmstate_acpi, s)
    s.smbus = i2c_init_bus(None, "i2c")
    s.pm_irq = sci_irq
    qemu_register_reset(piix4_reset, s)
    return s.smbus
