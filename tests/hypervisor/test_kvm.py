"""Guests under /dev/kvm: the same guests as on the default processor, on a thread of their own."""

import errno
import os
import subprocess
import sys

import pytest

from hypervisor import kvm_all
from hypervisor.boot import run_boot
from hypervisor.errors import HypervisorError
from studykvm import guests
from tests.hypervisor import guest_code as asm
from tests.hypervisor.test_icount import FIVE_INTERRUPTS, SEABIOS, SHUTDOWN, TIMER
from tests.hypervisor.tools import ours
from tracer import record


def usable():
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        return error.strerror
    return ""


with_kvm = pytest.mark.skipif(bool(usable()), reason=f"no usable /dev/kvm: {usable()}")


def boot(*argv, timeout=20):
    return run_boot(["-enable-kvm", "-net", "none", "-m", "4", *argv], timeout)


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guests.write_demo_disk("base.img", 4 << 20)
    assert ours("qemu-img", "create", "-f", "qcow", "-b", "base.img", "ov.img").status == 0
    return tmp_path


@with_kvm
def test_the_demo_guest_reads_the_base_and_writes_the_overlay(base):
    expected = run_boot(["-net", "none", "-m", "4", "-hda", "ov.img", "-snapshot"], 20)
    result = boot("-hda", "ov.img")
    assert (result.status, result.reason) == (0, "guest")
    assert result.screen == expected.screen != ""
    assert ours("qemu-img", "convert", "-O", "raw", "ov.img", "seen.raw").status == 0
    written = guests.WRITTEN_TEXT * 32
    assert written in (base / "seen.raw").read_bytes()
    assert written not in (base / "base.img").read_bytes()


@with_kvm
def test_requests_are_submitted_by_the_processor_and_completed_by_the_main_loop(base):
    with record() as recording:
        boot("-hda", "ov.img")
    calls = list(recording.trace.calls())
    threads = {call.function: call.thread for call in calls if call.thread}
    vcpu = threads["ap_main_loop"]
    assert threads["kvm_run"] == vcpu != threads["aio_thread"]
    by_main_loop = {call.function for call in calls if call.thread == 0}
    assert {"kvm_init", "kvm_main_loop", "ide_read_dma_cb"} <= by_main_loop
    assert "sigfd_handler" not in threads
    # The first, of sector 0, is QEMU's own look for the geometry.
    of_the_guest = [call for call in calls if call.function == "paio_submit" and "kvm_run" in call.path]
    assert of_the_guest and {call.thread for call in of_the_guest} == {vcpu}
    reported = [call for call in calls if call.function == "dma_bdrv_cb" and "posix_aio_read" in call.path]
    assert len(reported) == len(of_the_guest)
    assert {call.thread for call in reported} == {0}


@with_kvm
def test_interrupts_end_a_halt(base):
    asm.write_disk(base / "timer.img", TIMER + FIVE_INTERRUPTS + asm.put("5") + asm.OFF)
    result = boot("-hda", "timer.img")
    assert result.reason == "guest"
    assert result.screen.endswith("5")


@with_kvm
@pytest.mark.skipif(not os.path.exists(SEABIOS), reason="SeaBIOS is not here: apt-get install seabios")
def test_seabios_comes_to_the_boot_sector_and_reads_the_disk(base):
    code = asm.lba(0x42, 1, 1, 0x8000) + asm.put_result() + SHUTDOWN
    asm.write_disk(base / "s.img", code)
    quiet = ("-nographic", "-serial", "file:serial", "-monitor", "null")
    result = boot("-hda", "s.img", "-bios", "seabios", *quiet, timeout=60)
    assert result.reason == "guest"
    assert b"KAA" in (base / "serial").read_bytes()


@with_kvm
def test_a_runaway_guest_is_ended_from_outside(base):
    asm.write_disk(base / "loop.img", b"\xeb\xfe")
    assert boot("-hda", "loop.img", timeout=1).reason == "timeout"


@with_kvm
def test_the_monitor_stops_and_goes_on_with_a_guest_that_never_waits(base):
    asm.write_disk(base / "loop.img", b"\xeb\xfe")
    command = [sys.executable, "-m", "studykvm", "boot", "-enable-kvm", "-m", "4", "-net", "none",
               "-hda", "loop.img", "-nographic", "-serial", "null", "-monitor", "stdio"]  # fmt: skip
    lines = "stop\ninfo status\ncont\ninfo status\ninfo kvm\nquit\n"
    ran = subprocess.run(
        command, input=lines, capture_output=True, text=True, timeout=60, env=asm.ENVIRONMENT
    )
    assert ran.returncode == 0, ran.stderr
    words = [line for line in ran.stdout.splitlines() if "support" in line or line.startswith("VM status")]
    assert words == ["VM status: paused", "VM status: running", "kvm support: enabled"]


@with_kvm
def test_what_fails_on_the_vcpu_thread_is_said_by_the_main_one(base, monkeypatch):
    from hypervisor.hw.ide import pci

    def broken(*args):
        raise HypervisorError("the disk's wires are cut")

    monkeypatch.setattr(pci, "ide_dma_cancel", broken)
    with pytest.raises(HypervisorError, match="wires are cut"):
        boot("-hda", "ov.img")


@with_kvm
def test_a_reset_keeps_the_machine(base):
    """The first boot marks memory and has the keyboard reset it; the second sees the mark and goes off."""
    # cmp byte [500h], 1; je +11; mov byte [500h], 1; mov al, feh; out 64h, al; jmp $
    mark = bytes.fromhex("803e000501740bc606000501b0fee664ebfe")
    asm.write_disk(base / "r.img", mark + asm.OFF)
    assert boot("-hda", "r.img").reason == "guest"


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES], ids=["missing", "forbidden"])
def test_without_kvm_the_default_goes_on_after_qemus_words(base, monkeypatch, capsys, number):
    real = os.open

    def without_kvm(path, *rest, **more):
        if path == "/dev/kvm":
            raise OSError(number, os.strerror(number), path)
        return real(path, *rest, **more)

    monkeypatch.setattr("os.open", without_kvm)
    assert boot("-hda", "ov.img").reason == "guest"
    said = capsys.readouterr().err.splitlines()
    words = os.strerror(number)
    assert said[:2] == [f"open /dev/kvm: {words}", "Could not initialize KVM, will disable KVM support"]


@pytest.mark.parametrize(
    ("modules", "flags", "name"),
    [
        (["kvm_intel"], "fpu vmx", ""),
        (["kvm_amd"], "fpu svm", ""),
        (["kvm_pvm"], "fpu hypervisor", "kvm-pvm"),
        ([], "fpu hypervisor", "a software KVM"),
        ([], "fpu svm", ""),
    ],
    ids=["Intel", "AMD", "pvm", "no module, no flag", "built in"],
)
def test_a_software_kvm_is_recognised(monkeypatch, tmp_path, modules, flags, name):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    real = open
    monkeypatch.setattr("os.path.isdir", lambda path: path.removeprefix("/sys/module/") in modules)
    monkeypatch.setattr("builtins.open", lambda path, *rest: real(tmp_path / "cpuinfo", *rest))
    assert kvm_all.software_kvm() == name


@with_kvm
def test_a_software_kvm_is_named_once(base, capsys):
    boot("-hda", "ov.img")
    named = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("studykvm: note: /dev/kvm")
    ]
    assert len(named) == (1 if kvm_all.software_kvm() else 0)


def test_nobody_counts_instructions_under_kvm(base):
    with pytest.raises(HypervisorError, match="use -icount or -enable-kvm"):
        boot("-icount", "auto")


@pytest.mark.parametrize("vector", [-1, 0x08, 0xFF])
def test_an_interrupt_on_its_way_to_the_processor_is_saved(vector):
    from hypervisor.accel import CpuState
    from hypervisor.cpu_exec import CPUState
    from hypervisor.vmstate.cpu import CPUX86Image

    image = CPUX86Image(CPUState())
    image.take(CpuState(interrupt_injected=vector))
    assert image.interrupt_injected == image.give().interrupt_injected == vector
