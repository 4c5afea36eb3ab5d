"""The PC's own lists and devices: what -M and -device know, and what the chips answer."""

from datetime import datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hypervisor.boot import run_boot
from hypervisor.errors import HypervisorError
from hypervisor.hw.mc146818rtc import rtc_next_second, tm

# What the real program prints for -device ?: the kind registered last comes first.
KINDS = """
pci-bridge:PCI virtio-balloon-pci:PCI virtio-console-pci:PCI virtio-net-pci:PCI virtio-blk-pci:PCI i82562:PCI
i82559er:PCI i82559c:PCI i82559b:PCI i82559a:PCI i82558b:PCI i82558a:PCI i82557c:PCI i82557b:PCI i82557a:PCI
i82551:PCI i82550:PCI pcnet:PCI rtl8139:PCI e1000:PCI ide-drive:IDE isa-ide:ISA piix4-ide:PCI piix3-ide:PCI
i8042:ISA sb16:ISA ES1370:PCI AC97:PCI VGA:PCI SUNW,fdtwo:System sysbus-fdc:System isa-fdc:ISA mc146818rtc:ISA
isa-serial:ISA cirrus-vga:PCI isa-parallel:ISA PIIX3:PCI i440FX:PCI i440FX-pcihost:System piix4-usb-uhci:PCI
piix3-usb-uhci:PCI vmware-svga:PCI ib700:ISA ne2k_isa:ISA testdev:ISA smbus-eeprom:I2C scsi-disk:SCSI
scsi-generic:SCSI usb-hub:USB usb-host:USB usb-kbd:USB usb-mouse:USB usb-tablet:USB usb-storage:USB
usb-wacom-tablet:USB usb-braille:USB usb-serial:USB usb-net:USB usb-bt-dongle:USB i6300esb:PCI ne2k_pci:PCI
lsi53c895a:PCI isabus-bridge:System
"""


def test_device_lists_all_kinds_as_the_real_program_does(capsys):
    assert run_boot(["-net", "none", "-m", "4", "-device", "?"], 10).status == 1
    lines = capsys.readouterr().err.splitlines()
    found = [line.split('"')[1] + ":" + line.split("bus ")[1].split(",")[0] for line in lines]
    assert found == KINDS.split()
    assert 'name "lsi53c895a", bus PCI, alias "lsi"' in lines
    assert 'name "PIIX3", bus PCI, desc "ISA bridge", no-user' in lines
    assert 'name "scsi-disk", bus SCSI, desc "virtual scsi disk or cdrom"' in lines


@pytest.mark.parametrize(
    ("driver", "answer"),
    [
        ("foo", "The foo device has not been found\n"),
        ("isa-fdc", 'device "isa-fdc" can\'t be added via command line\n'),
        ("usb-mouse", "Did not find USB bus for usb-mouse\n"),
        ("scsi-disk", "Did not find SCSI bus for scsi-disk\n"),
        ("smbus-eeprom", "Did not find I2C bus for smbus-eeprom\n"),
    ],
)
def test_device_refuses_as_the_real_program_does(driver, answer, capsys):
    assert run_boot(["-net", "none", "-m", "4", "-device", driver], 10).status == 1
    assert capsys.readouterr().err == answer


def test_a_device_that_has_a_name_only_is_a_named_error():
    with pytest.raises(HypervisorError, match="the model makes no 'e1000' by -device"):
        run_boot(["-net", "none", "-m", "4", "-device", "e1000"], 10)


def test_machines_are_listed_in_the_order_of_their_registration(capsys):
    assert run_boot(["-M", "?"], 10).status == 0
    assert capsys.readouterr().out == (
        "Supported machines are:\n"
        "pc         Standard PC (alias of pc-0.12)\n"
        "pc-0.12    Standard PC (default)\n"
        "pc-0.11    Standard PC, qemu 0.11\n"
        "pc-0.10    Standard PC, qemu 0.10\n"
        "isapc      ISA-only PC\n"
    )


def broken_down(when):
    """`struct tm` of a moment; a `tm`'s week begins on Sunday."""
    return {
        "tm_sec": when.second,
        "tm_min": when.minute,
        "tm_hour": when.hour,
        "tm_wday": when.isoweekday() % 7,
        "tm_mday": when.day,
        "tm_mon": when.month - 1,
        "tm_year": when.year - 1900,
    }


@given(st.datetimes(datetime(1980, 1, 1), datetime(2099, 12, 30)), st.sampled_from(["any", "last of a day"]))
@example(datetime(2000, 2, 28), "last of a day")
@example(datetime(2010, 12, 31), "last of a day")
def test_the_clock_goes_as_the_calendar_does(when, second):
    if second != "any":
        when = when.replace(hour=23, minute=59, second=59)
    time = tm(**broken_down(when))
    rtc_next_second(time)
    expected = broken_down(when + timedelta(seconds=1))
    assert {name: getattr(time, name) for name in expected} == expected
