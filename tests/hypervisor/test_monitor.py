"""The monitor and the multiplexed terminal, through pipes as the recordings had it."""

import re
import signal

import pytest

from graphs import recordings
from studykvm import guests
from tests.hypervisor import guest_code as asm
from tests.hypervisor.machines import answers, until
from tests.hypervisor.tools import ours

BANNER = "QEMU 0.12.4 monitor - type 'help' for more information\n(qemu) "
IDLE = b"\xf4\xeb\xfd"
SECTOR = 512


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guests.write_demo_disk("base_raw.img", 4 << 20)
    assert ours("qemu-img", "create", "-f", "qcow", "-b", "base_raw.img", "overlay.img").status == 0
    asm.write_disk("idle.img", asm.put("I") + IDLE)
    return tmp_path


def test_typing_is_echoed_as_the_recordings_show_it(here, machine):
    running = machine("-hda", "idle.img", "-nographic", "-serial", "null", "-monitor", "stdio")
    running.wait_for("(qemu) ")
    running.type("quit\n")
    assert running.end()[0] == 0
    recorded = recordings.load("d00").scenario.output
    assert running.output.replace("\r\n", "\n") + "rc=0\n" == recorded


def test_info_block_and_blockstats_as_the_recordings_show_them(here, machine):
    running = machine("-hda", "overlay.img", "-S", "-nographic", "-serial", "null", "-monitor", "stdio")
    running.type("info block\ninfo blockstats\nquit\n")
    assert running.end()[0] == 0
    block, stats = answers(running.output)[:2]
    recorded = answers(recordings.load("d01").scenario.output)
    assert block == recorded[0]
    # Before the guest runs: sector 0, which QEMU read itself.
    assert re.sub(r"\d+", "N", stats) == re.sub(r"\d+", "N", recorded[1])
    assert "ide0-hd0: rd_bytes=512 wr_bytes=0 rd_operations=1 wr_operations=0\n" in stats


def test_commit_moves_what_the_guest_wrote(here, machine):
    running = machine(
        "-hda", "overlay.img", "-nographic", "-serial", "file:SER", "-monitor", "stdio", "-no-shutdown"
    )
    running.wait_for("(qemu) ")
    until(lambda: "VM status: paused" in running.ask("info status"))
    assert (here / "base_raw.img").read_bytes()[5 * SECTOR : 6 * SECTOR] == bytes(SECTOR)
    running.type("commit all\ninfo blockstats\nquit\n")
    assert running.end()[0] == 0
    assert (here / "base_raw.img").read_bytes()[5 * SECTOR : 6 * SECTOR] == guests.WRITTEN_TEXT * 32
    assert "Switching off." in (here / "SER").read_text()


def test_media_change_as_the_recording_shows_it(here, machine):
    running = machine("-hda", "overlay.img", "-S", "-nographic", "-serial", "null", "-monitor", "stdio")
    running.wait_for("(qemu) ")
    scenario = recordings.load("d11").scenario
    for line in scenario.monitor:
        if not line.startswith("sleep"):
            running.type(f"{line}\n")
    assert running.end()[0] == 0
    assert running.output.replace("\r\n", "\n") + "rc=0\n" == scenario.output


def test_a_medium_that_does_not_open_leaves_the_drive_empty_and_is_named(here, machine):
    running = machine("-hda", "idle.img", "-S", "-nographic", "-serial", "null", "-monitor", "stdio")
    running.wait_for("(qemu) ")
    # As 0.12.4: nothing on the monitor.
    assert running.ask("change ide1-cd0 gone.iso").endswith("change ide1-cd0 gone.iso\n")
    assert "ide1-cd0: type=cdrom removable=1 locked=0 [not inserted]" in running.ask("info block")
    running.type("quit\n")
    assert "studykvm: gone.iso: No such file or directory; ide1-cd0 is empty now" in running.end()[1]


ANSWERS = {
    "foo": "unknown command: 'foo'\n",
    "gdbserver": "the model has no gdbserver\nCould not open gdbserver on device 'tcp::1234'\n",
    "info jit": "info jit: the model has no such command\n",
    "commit": "commit: block device name expected\n",
    "change ide1-cd0": "change: filename expected\n",
    "stop now": "stop: extraneous characters at the end of line\n",
    "eject -x ide1-cd0": "eject: unsupported option -x\n",
    "eject nothing": "The nothing device has not been found\n",
    "eject ide0-hd0": "Device ide0-hd0 is not removable\n",
    "change ide1-cd0 idle.img foo": "Invalid block format foo\n",
    "info kvm": "kvm support: disabled\n",
    "info status": "VM status: paused\n",
    "info name": "test\n",
    "info version": "0.12.4 (qemu-kvm-0.12.4)\n",
    "help quit": "",
    "help stop": "stop  -- stop emulation\n",
}


def test_answers(here, machine):
    options = ("-S", "-name", "test", "-nographic", "-serial", "null", "-monitor", "stdio")
    running = machine("-hda", "idle.img", *options)
    running.type("".join(f"{line}\n" for line in ANSWERS) + "quit\n")
    assert running.end()[0] == 0
    assert dict(zip(ANSWERS, answers(running.output), strict=False)) == ANSWERS


def test_the_line_can_be_edited(here, machine):
    running = machine("-hda", "idle.img", "-S", "-nographic", "-serial", "null", "-monitor", "stdio")
    running.type("info foo\x17status\n")
    running.type("\x1b[A" + "\x7f" * 6 + "\x01\x05\x1b[D\x1b[Cname\n")
    running.type("\x1b[A\x1b[A\x1b[B\x1b[Binfo history\nquit\n")
    assert running.end()[0] == 0
    found = answers(running.output)
    assert found[0] == "VM status: paused\n"
    assert "0: 'info status'\n1: 'info name'\n" in found[2]


def test_stop_cont_and_reset(here, machine):
    running = machine("-hda", "idle.img", "-nographic", "-serial", "file:SER", "-monitor", "stdio")
    running.wait_for("(qemu) ")
    running.type("stop\ninfo status\ncont\ninfo status\nsystem_reset\n")
    running.wait_for("VM status: running")
    until(lambda: (here / "SER").read_text().count("Booting") == 2)
    running.type("quit\n")
    assert running.end()[0] == 0
    assert "VM status: paused" in running.plain()


def test_nographic_shares_the_terminal(here, machine):
    """The guest has it first; C-a c gives it to the monitor and back, C-a x ends."""
    # mov ah, 0; int 16h; mov ah, 0eh; mov bx, 7; int 10h; jmp back
    asm.write_disk("echo.img", bytes.fromhex("b400cd16b40ebb0700cd10ebf3"))
    running = machine("-hda", "echo.img", "-nographic")
    running.wait_for("Booting from Hard Disk...")
    running.type("ab\x01\x01")
    running.wait_for("ab")
    running.type("\x01h")
    running.wait_for("C-a c    switch between console and monitor")
    running.type("\x01c")
    running.wait_for("(qemu) ")
    running.type("info status\n")
    running.wait_for("VM status: running")
    running.type("\x01c")
    running.type("z")
    running.wait_for("z")
    running.type("\x01x")
    status, _ = running.end()
    assert status == 0 and "QEMU: Terminated" in running.output


def test_the_end_of_input_does_not_end_the_machine(here, machine):
    guests.write_counting_disk("letters.img")
    running = machine("-hda", "letters.img", "-nographic", "-serial", "file:SER", "-monitor", "stdio")
    running.wait_for("(qemu) ")
    running.process.stdin.close()
    so_far = (here / "SER").stat().st_size
    until(lambda: (here / "SER").stat().st_size > so_far + 1000)
    assert running.process.poll() is None
    running.process.send_signal(signal.SIGTERM)
    running.process.stdin = None
    assert running.end()[0] == 0


@pytest.mark.parametrize("code", [IDLE, b"\xeb\xfe", b"\xfa\xeb\xfe"], ids=["halted", "busy", "deaf"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_machine_cleanly(here, machine, code, number):
    asm.write_disk("loop.img", asm.put("L") + code)
    running = machine("-hda", "loop.img", "-nographic", "-monitor", "null", "-serial", "stdio")
    running.wait_for("L")
    running.process.send_signal(number)
    assert running.end()[0] == 0


def test_what_goes_to_the_serial_port_arrives(here, machine):
    # mov dx, 3f8h; mov al, 'S'; out dx, al
    asm.write_disk("ser.img", bytes.fromhex("baf803b053ee") + asm.OFF)
    running = machine("-hda", "ser.img", "-serial", "file:SER")
    assert running.end()[0] == 0
    assert (here / "SER").read_text() == "S"


def test_a_traced_run_can_be_read_back(here, machine):
    running = machine("-hda", "overlay.img", "--trace", "boot.trace", "--trace-io")
    assert running.end()[0] == 0
    from tracer import load

    functions = {call.function for call in load("boot.trace").calls()}
    assert {"drive_init", "qcow_open", "ide_read_dma_cb", "ide_ioport_write"} <= functions
