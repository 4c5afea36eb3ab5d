"""What the monitor says to right and wrong lines, word for word what qemu-kvm 0.12.4 said to them.

`monitor_answers.txt` is a session of the real program, in order: its command line `-S -hda` with a qcow2
overlay of 1 MiB, `-m 16 -net none -nographic -serial null -monitor stdio`.
"""

import wave
from pathlib import Path

import pytest

from hypervisor import monitor
from tests.hypervisor import guest_code as asm
from tests.hypervisor.machines import answers, until
from tests.hypervisor.test_acpi import PROCESSORS
from tests.hypervisor.tools import ours

RECORDED = Path(__file__).with_name("monitor_answers.txt")


def recorded():
    found = []
    for line in RECORDED.read_text().splitlines(keepends=True):
        if line.startswith(">>> "):
            found.append([line[4:-1], ""])
        else:
            found[-1][1] += line
    return found


@pytest.fixture
def session(machine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asm.write_disk("base.img", b"\xf4\xeb\xfd")
    Path("second.img").write_bytes(bytes(1 << 20))
    assert ours("qemu-img", "create", "-f", "qcow2", "-b", "base.img", "over.img").status == 0

    def run(lines, *argv):
        running = machine("-hda", "over.img", "-nographic", "-serial", "null", "-monitor", "stdio", *argv)
        running.type("".join(f"{line}\n" for line in lines))
        running.type("quit\n")
        status, _ = running.end(60)
        assert status == 0
        return answers(running.output)

    return run


def test_the_monitor_says_what_the_real_one_said(session):
    wanted = recorded()
    said = session([line for line, _ in wanted], "-S", "-m", "16")
    assert len(wanted) > 190
    assert [(line, answer) for (line, _), answer in zip(wanted, said, strict=False)] == list(
        map(tuple, wanted)
    )


def test_what_the_model_lacks_is_refused_in_words(session):
    lines = [
        "pci_add auto nic", "pci_add auto storage if=virtio,file=second.img", "host_net_add user",
        "gdbserver", "device_add e1000", "mce 0 0 0 0 0 0", "cpu_set 3 online", "info jit", "info usbhost",
    ]  # fmt: skip
    said = session(lines, "-S")
    for line, answer in zip(lines, said, strict=False):
        assert "the model" in answer, (line, answer)
    assert said[0].endswith("failed to add \n") and "info status" not in said[-1]


def test_singlestep_shows_in_the_status(session):
    said = session(["singlestep", "info status", "singlestep off", "info status"])
    assert said[1] == "VM status: running (single step mode)\n" and said[3] == "VM status: running\n"


def test_a_mouse_is_chosen(session):
    said = session(["info mice", "mouse_set 0", "info mice"], "-S")
    assert said[0] == said[2] == "* Mouse #0: QEMU PS/2 Mouse\n"


def test_sound_is_captured_into_files_that_play(session):
    said = session(["wavcapture a.wav", "wavcapture b.wav 8000 8 1", "info capture", "stopcapture 1"], "-S")
    assert said[2] == (
        "[0]: Capturing audio(8000,8,1) to b.wav: 0 bytes\n"
        "[1]: Capturing audio(44100,16,2) to a.wav: 0 bytes\n"
    )
    with wave.open("a.wav") as first, wave.open("b.wav") as second:
        assert first.getparams()[:4] == (2, 2, 44100, 0)
        assert second.getparams()[:4] == (1, 1, 8000, 0)


def test_pci_del_asks_the_guest(session):
    """The PIIX3 in slot 1: bit 1 of the slots that are to go and of the events."""
    said = session(
        ["i/b 0xafe0", "pci_del 1", "i/w 0xae04", "i/b 0xafe0", "o/b 0xafe0 2", "i/b 0xafe0"], "-S"
    )
    values = [int(line.rpartition(" ")[2], 16) for line in said if " = " in line]
    assert values == [0, 2, 2, 0]


def test_a_drive_of_no_device_is_there_and_goes_nowhere(session):
    lines = [
        "drive_add 0 if=none,file=second.img,id=more",
        "info block",
        "drive_add 0 if=none,file=nosuch.img",
    ]
    said = session(lines, "-S")
    assert said[0] == "OK\n" and "more: type=hd removable=0 file=second.img" in said[1] and said[2] == ""


@pytest.mark.parametrize("processor", PROCESSORS)
def test_an_interrupt_that_cannot_be_refused(machine, tmp_path, processor):
    # Vector 2 leads to 0:7d00, which prints N and switches off; interrupts are off and the processor halts.
    vector = b"\x31\xc0\x8e\xd8\xc7\x06\x08\x00\x00\x7d\xc7\x06\x0a\x00\0\0"
    code = (vector + asm.put("R") + b"\xfa\xf4\xeb\xfd").ljust(0x100, b"\x90") + asm.put("N") + asm.OFF
    asm.write_disk(tmp_path / "nmi.img", code)
    running = machine("-hda", str(tmp_path / "nmi.img"), "-monitor", "stdio", *processor)
    running.wait_for("(qemu) ")
    until(lambda: "0x7d00 0x0000" in running.ask("xp/2hx 8"))
    running.type("nmi 1\ninfo status\nnmi 0\n")
    assert running.end()[0] == 0
    assert "VM status: running" in running.plain() and "RN" in running.plain()


ERRORS = {
    "overflow": (OverflowError("int too large"), "int too large"),
    "memory": (MemoryError(), "not enough memory for that"),
    "file": (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_odd_numbers_are_answered(name, monkeypatch):
    error, words = ERRORS[name]

    class Odd:
        name = "odd"

        def handler(self):
            raise error

    said = []
    monkeypatch.setattr(monitor, "monitor_printf", lambda mon, fmt, *args: said.append(fmt % args))
    assert monitor._obey(monitor.Monitor(), Odd(), {}) is None
    assert said == [f"odd: {words}\n"]
