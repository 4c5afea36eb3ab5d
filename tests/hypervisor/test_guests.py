"""Software that nobody here wrote boots from a qcow2 overlay on a raw base, and its disk reads right."""

import os
import select
import subprocess
import sys
import time

import pytest

from hypervisor import bios_file, kvm_all
from hypervisor.boot import run_boot
from hypervisor.errors import HypervisorError
from tests.hypervisor import guest_code as asm
from tests.hypervisor import guest_images as images
from tests.hypervisor.test_kvm import with_kvm
from tracer import load

NO_SCREEN = ("-bios", "seabios", "-nographic", "-monitor", "null", "-net", "none", "-m", "64")


class Console:
    """A machine whose serial line is held by the test."""

    def __init__(self, *argv):
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "studykvm", "boot", *NO_SCREEN, "-serial", "stdio", *map(str, argv)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=asm.ENVIRONMENT,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.communicate()

    def expect(self, text, seconds=60):
        """Read until the guest says `text`; what it said before that."""
        end = time.monotonic() + seconds
        out = self.process.stdout.fileno()
        while text not in self.seen:
            ready, _, _ = select.select([out], [], [], max(end - time.monotonic(), 0))
            more = os.read(out, 4096) if ready else b""
            assert more, f"no {text!r} within {seconds} s, but {self.seen!r}"
            self.seen += more.decode("latin1")
        before, self.seen = self.seen.split(text, 1)
        return before

    def type(self, line):
        self.process.stdin.write(line.encode() + b"\r")
        self.process.stdin.flush()


@pytest.fixture
def greeting(tmp_path):
    code = b"".join(asm.put(letter) for letter in "Hello") + asm.OFF
    return images.overlay(tmp_path / asm.write_disk(tmp_path / "hello.img", code).rsplit("/", 1)[-1])


def test_own_boot_sector_on_the_built_in_bios(greeting):
    result = run_boot(["-net", "none", "-m", "4", "-hda", greeting], 20)
    assert result.reason == "guest" and result.screen.endswith("Hello")


@images.needs("seabios")
def test_seabios_to_the_boot_sector(greeting):
    result = run_boot(["-bios", "seabios", "-net", "none", "-m", "16", "-hda", greeting], 60)
    assert result.reason == "guest"
    assert result.screen.startswith("SeaBIOS") and "Booting from Hard Disk..." in result.screen
    assert result.screen.endswith("Hello")


@images.needs("seabios")
def test_seabios_on_the_serial_line_without_a_screen(greeting):
    with Console("-hda", greeting) as console:
        console.expect("SeaBIOS (version")
        console.expect("Booting from Hard Disk...")
        assert console.process.wait(30) == 0


@images.needs("seabios", "grub-pc-bin", "grub-common", "mtools")
def test_grub_reads_a_file_that_is_asked_for_on_the_serial_line(tmp_path):
    base = images.grub_disk(tmp_path)
    before = base.read_bytes()
    trace = tmp_path / "boot.trace"
    with Console("--trace", trace, "-hda", images.overlay(base)) as console:
        console.expect("grub>")
        console.type("cat (hd0,msdos1)/hello.txt")
        console.expect(images.TEXT.strip())
        console.expect("grub>")
        console.type("ls (hd0,msdos1)/")
        assert "hello.txt" in console.expect("grub>")
        console.type("reboot")
        console.expect("SeaBIOS (version")
        console.expect("grub>")
    assert base.read_bytes() == before
    assert trace.stat().st_size < 20_000_000
    called = {call.function for call in load(trace).calls()}
    block = {"bdrv_open2", "bdrv_aio_readv", "qcow_aio_readv", "raw_aio_readv", "paio_submit"}
    machine = {"ide_sector_read", "main_loop_wait", "qemu_run_timers", "pit_irq_timer", "cpu_x86_exec"}
    assert block | machine <= called, block | machine - called
    assert not {"cpu_inw", "ide_data_readw", "ioport_read"} & called


@pytest.mark.slow
@with_kvm
@pytest.mark.skipif(bool(kvm_all.software_kvm()), reason="a software KVM needs a minute and more for GRUB")
@images.needs("seabios", "grub-pc-bin", "grub-common", "mtools")
def test_grub_reads_a_file_under_kvm(tmp_path):
    with Console("-enable-kvm", "-hda", images.overlay(images.grub_disk(tmp_path))) as console:
        console.expect("grub>", 240)
        console.type("cat (hd0,msdos1)/hello.txt")
        console.expect(images.TEXT.strip())


@images.needs("seabios", "syslinux", "syslinux-common", "mtools")
def test_syslinux_to_its_prompt(tmp_path):
    with Console("-hda", images.overlay(images.syslinux_disk(tmp_path))) as console:
        assert "SYSLINUX" in console.expect("boot:")
        console.type("absent")
        console.expect("Loading absent... failed: No such file or directory")
        console.expect("boot:")


@pytest.mark.slow
@images.needs("seabios", "grub-pc-bin", "grub-common", "mtools", "memtest86+")
def test_memtest_to_its_first_screen(tmp_path):
    with Console("-m", "16", "-hda", images.overlay(images.memtest_disk(tmp_path))) as console:
        console.expect("Memtest86+", 180)
        console.expect("Testing", 180)


def test_seabios_that_is_not_here_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bios_file, "DATA_DIRS", (str(tmp_path),))
    with pytest.raises(HypervisorError, match="apt-get install seabios"):
        run_boot(["-bios", "seabios", "-net", "none"], 10)


@pytest.mark.parametrize("size", [0, 1000, 65536 + 1], ids=["empty", "too short", "no whole 64 KiB"])
def test_a_bios_of_a_wrong_size_is_refused_as_the_real_program_does(tmp_path, size, capsys):
    rom = tmp_path / "rom.bin"
    rom.write_bytes(bytes(size))
    assert run_boot(["-bios", str(rom), "-net", "none"], 10).status == 1
    assert capsys.readouterr().err == f"qemu: could not load PC BIOS '{rom}'\n"


def test_a_bios_of_ones_own_runs_below_4_gib(tmp_path):
    """At the reset address: mov dx, 8900h; mov si, string; mov cx, 8; cs rep outsb; hlt."""
    rom = bytearray(65536)
    code = bytes.fromhex("fcba0089be0001b908002ef36ef4ebfd")
    rom[0x200 : 0x200 + len(code)] = code
    rom[0x100:0x108] = b"Shutdown"
    rom[0xFFF0:0xFFF3] = b"\xe9" + (0x200 - 0xFFF3 & 0xFFFF).to_bytes(2, "little")
    path = tmp_path / "rom.bin"
    path.write_bytes(rom)
    assert run_boot(["-bios", str(path), "-net", "none", "-m", "4"], 10).reason == "guest"
