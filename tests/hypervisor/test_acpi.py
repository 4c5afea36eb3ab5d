"""The power button, sleep and the SMBus, as a guest sees them: ACPI specification, chapter 4; Intel 82371AB.

The guests find the registers where the firmware put them.
"""

import pytest

from hypervisor.boot import run_boot
from tests.hypervisor import guest_code as asm
from tests.hypervisor import guest_images as images
from tests.hypervisor.machines import until
from tests.hypervisor.test_guests import Console
from tests.hypervisor.test_kvm import with_kvm

PM = 0xB000
SLEEP = 1 << 13


def out(port, value, width=16):
    """Write a port: mov dx, port; mov (e)ax or al, value; out dx, ..."""
    move, write = {8: (b"\xb0", b"\xee"), 16: (b"\xb8", b"\xef"), 32: (b"\x66\xb8", b"\x66\xef")}[width]
    return b"\xba" + port.to_bytes(2, "little") + move + value.to_bytes(width // 8, "little") + write


def put_port(port):
    """Print the byte of a port: mov dx, port; in al, dx; mov ah, 0eh; mov bx, 7; int 10h."""
    return b"\xba" + port.to_bytes(2, "little") + bytes((0xEC, 0xB4, 0x0E, 0xBB, 7, 0, 0xCD, 0x10))


BUTTON = b"\xba" + PM.to_bytes(2, "little") + bytes.fromhex("eda9000174fa")
"""mov dx, PM; l: in ax, dx; test ax, 100h; jz l: wait for the button."""
OFF = out(PM + 4, SLEEP) + b"\xf4\xeb\xfd"
FOREVER = b"\xf4\xeb\xfd"


def disk(tmp_path, code):
    asm.write_disk(tmp_path / "guest.img", code)
    return ["-hda", str(tmp_path / "guest.img"), "-net", "none", "-m", "4"]


def come_up(running):
    """Wait until the firmware has put the registers where they belong; the timer's bit is set by then."""
    running.wait_for("(qemu) ")
    until(lambda: "= 0x01" in running.ask("i/h 0xb000"))


def press(running):
    """Press the button once the guest has enabled it."""
    running.wait_for("(qemu) ")
    until(lambda: "0x100" in running.ask("i/h 0xb002"))
    running.type("system_powerdown\n")


def test_a_guest_switches_itself_off_by_acpi(tmp_path):
    result = run_boot(disk(tmp_path, asm.put("Z") + OFF), 20)
    assert (result.reason, result.status) == ("guest", 0) and result.screen.endswith("Z")


PROCESSORS = [pytest.param((), id="unicorn"), pytest.param(("-enable-kvm",), id="kvm", marks=with_kvm)]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_guest_that_waits_for_the_button_switches_itself_off(machine, tmp_path, processor):
    code = out(PM + 2, 1 << 8) + asm.put("R") + BUTTON + asm.put("B") + OFF
    running = machine(*disk(tmp_path, code), "-monitor", "stdio", *processor)
    press(running)
    assert running.end()[0] == 0
    assert "RB" in running.plain()


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_button_interrupts_a_guest_that_asks_for_it(machine, tmp_path, processor):
    # Interrupt 9 is int 71h: its handler, at 0:7d00, switches off.
    entry = (0x71 * 4).to_bytes(2, "little")
    vector = (
        b"\x31\xc0\x8e\xd8\xc7\x06" + entry + b"\x00\x7d" + b"\xc7\x06" + (0x71 * 4 + 2).to_bytes(2, "little")
    )
    vector += b"\0\0"
    # in al, 0a1h; and al, 0fdh; out 0a1h, al; sti; then wait
    unmask = bytes.fromhex("e4a124fde6a1fb")
    code = vector + unmask + out(PM + 2, 1 << 8) + asm.put("R") + FOREVER
    code = code.ljust(0x100, b"\x90") + asm.put("I") + OFF
    running = machine(*disk(tmp_path, code), "-monitor", "stdio", *processor)
    press(running)
    assert running.end()[0] == 0
    assert "RI" in running.plain()


def test_a_guest_that_has_not_enabled_the_button_hears_nothing(machine, tmp_path):
    running = machine(*disk(tmp_path, asm.put("R") + FOREVER), "-monitor", "stdio")
    come_up(running)
    running.type("system_powerdown\nxp/1xh 0x410\ni/h 0xb000\ninfo status\n")
    assert "VM status: running" in running.wait_for("VM status: ")
    # The timer's bit has been set all along, the button's is not.
    assert "portw[0xb000] = 0x01" in running.plain()
    running.type("quit\n")
    assert running.end()[0] == 0


def test_the_registers_read_as_written(machine, tmp_path):
    running = machine(*disk(tmp_path, FOREVER), "-monitor", "stdio")
    come_up(running)
    running.type(
        "o/h 0xb002 0x121\ni/h 0xb002\no/b 0xb2 0xf1\ni/h 0xb004\no/b 0xb2 0xf0\ni/h 0xb004\ni/b 0xb2\n"
    )
    running.type("o/b 0xb3 0x5a\ni/b 0xb3\ninfo pci\nquit\n")
    assert running.end()[0] == 0
    said = running.plain()
    for answer in (
        "[0xb002] = 0x121",
        "[0xb004] = 0x01",
        "[0xb004] = 0000",
        "[0x00b2] = 0xf0",
        "[0x00b3] = 0x5a",
    ):
        assert answer in said, answer
    assert "device   1, function 3:" in said and "Bridge: PCI device 8086:7113" in said


def test_the_timer_counts_at_its_rate(machine, tmp_path):
    running = machine(*disk(tmp_path, FOREVER), "-monitor", "stdio", "-icount", "0")
    come_up(running)
    running.type("stop\ni/w 0xb008\ni/w 0xb008\nquit\n")
    assert running.end()[0] == 0
    first, second = [line.split(" = ")[1] for line in running.plain().splitlines() if "portl" in line]
    assert first == second and int(first, 16) < 1 << 24


def test_the_timers_top_bit_interrupts_a_guest_that_counts_instructions(tmp_path):
    # Clear the bit, have it interrupt, and wait: after 2.34 seconds int 71h, at 0:7d00, switches off.
    entry = (0x71 * 4).to_bytes(2, "little"), (0x71 * 4 + 2).to_bytes(2, "little")
    vector = b"\x31\xc0\x8e\xd8\xc7\x06" + entry[0] + b"\x00\x7d\xc7\x06" + entry[1] + b"\0\0"
    unmask = bytes.fromhex("e4a124fde6a1fb")
    code = vector + out(PM, 1) + out(PM + 2, 1) + unmask + FOREVER
    result = run_boot(
        [*disk(tmp_path, code.ljust(0x100, b"\x90") + asm.put("T") + OFF), "-icount", "auto"], 60
    )
    assert result.reason == "guest" and result.screen.endswith("T")


def test_a_memory_module_keeps_what_is_written_and_nobody_answers_for_one_that_is_not_there(tmp_path):
    write = out(0xB104, 0xA0, 8) + out(0xB103, 7, 8) + out(0xB105, ord("w"), 8) + out(0xB102, 0x48, 8)
    read = out(0xB104, 0xA1, 8) + out(0xB105, 0, 8) + out(0xB102, 0x48, 8) + put_port(0xB105)
    # Nobody pulls the wires of address 60h down: all ones, a blank on the screen.
    nobody = out(0xB104, 0xC1, 8) + out(0xB102, 0x48, 8) + put_port(0xB105)
    result = run_boot(disk(tmp_path, write + read + nobody + asm.put("Z") + asm.OFF), 20)
    assert result.screen.endswith("w Z")


@images.needs("seabios", "grub-pc-bin", "grub-common", "mtools")
def test_grub_halts_the_machine_by_acpi(tmp_path):
    with Console("-hda", images.overlay(images.grub_disk(tmp_path, "halt"))) as console:
        console.expect("grub>")
        console.type("halt")
        assert console.process.wait(30) == 0
