"""Guests run from boot to power-off: disk calls, errors, resets, and what the screen says at the end."""

import errno
import hashlib
import os
import shutil
import subprocess

import pytest

from hypervisor import posix_aio_compat, vl_state
from hypervisor.boot import run_boot
from hypervisor.errors import HypervisorError
from studykvm import guests
from tests.hypervisor import guest_code as asm
from tracer import record

SECTOR = 512


def digest(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()


def boot(*argv, timeout=20):
    return run_boot(["-net", "none", "-m", "4", *argv], timeout)


def overlay(base, path, kind):
    """An overlay, made by the model's own qemu-img."""
    from tests.hypervisor.tools import ours

    assert ours("qemu-img", "create", "-f", kind, "-b", str(base), str(path)).status == 0
    return str(path)


def sector(image, number, tmp_path):
    """A sector as the guest sees it, read by the model's own qemu-img."""
    from tests.hypervisor.tools import ours

    assert ours("qemu-img", "convert", "-O", "raw", str(image), str(tmp_path / "seen.raw")).status == 0
    return open(tmp_path / "seen.raw", "rb").read()[number * SECTOR : (number + 1) * SECTOR]


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guests.write_demo_disk("base.img", 4 << 20)
    return tmp_path / "base.img"


WRITTEN = guests.WRITTEN_TEXT * 32


def test_the_boot_sector_is_what_nasm_makes_of_its_source(tmp_path):
    if not shutil.which("nasm"):
        pytest.skip("nasm is not here: apt-get install nasm")
    command = ["nasm", "-f", "bin", "-o", tmp_path / "demo.bin", "demo.asm"]
    subprocess.run(command, check=True, cwd=guests.__path__[0])
    assert (tmp_path / "demo.bin").read_bytes() == guests.boot_sector()


@pytest.mark.parametrize("kind", ["qcow", "qcow2"])
def test_demo_guest_reads_the_base_and_writes_the_overlay(base, tmp_path, kind):
    top = overlay("base.img", "top.img", kind)
    before = digest(base)
    result = boot("-hda", top)
    assert (result.status, result.reason) == (0, "guest")
    assert guests.GREETING.decode() in result.screen
    assert result.screen.endswith("Sector 5 written and read back. Switching off.")
    assert digest(base) == before
    assert sector(top, 5, tmp_path) == WRITTEN
    assert sector(top, 4, tmp_path) == sector(base, 4, tmp_path)


def test_a_positional_image_is_the_first_disk(base):
    assert boot(str(base)).reason == "guest"
    assert open(base, "rb").read()[5 * SECTOR : 6 * SECTOR] == WRITTEN


def test_snapshot_leaves_overlay_and_base_untouched(base, tmp_path):
    top = overlay("base.img", "top.img", "qcow")
    before = digest(base), digest(top)
    result = boot("-snapshot", "-hda", top)
    assert "written and read back" in result.screen
    assert (digest(base), digest(top)) == before


def test_two_runs_make_the_same_calls_on_the_way_to_the_main_loop(base):
    def names():
        with record(None) as rec:
            boot("-hda", "base.img")
        found = [call.function for call in rec.trace.calls() if call.thread == 0]
        return found[: found.index("main_loop")]

    assert names() == names()


def test_guest_requests_go_by_bus_master_dma_and_come_back_in_the_main_loop(base):
    top = overlay("base.img", "top.img", "qcow")
    with record(None) as rec:
        boot("-hda", top)
    calls = {call.step: call for call in rec.trace.calls()}
    functions = [call.function for call in calls.values()]
    first = functions.index("bmdma_cmd_writeb", functions.index("ide_sector_read_dma"))
    chain = ["ide_read_dma_cb", "dma_bdrv_read", "dma_bdrv_io", "dma_bdrv_cb", "bdrv_aio_readv"]
    rest = iter(functions[first:])
    assert all(name in rest for name in [*chain, "qcow_aio_readv", "raw_aio_readv", "paio_submit"])
    back = iter(functions[functions.index("main_loop") :])
    done = ["main_loop_wait", "posix_aio_read", "posix_aio_process_queue", "dma_bdrv_cb", "ide_read_dma_cb"]
    assert all(name in back for name in [*done, "ide_set_irq", "i8259_set_irq", "cpu_interrupt"])
    assert "ide_ioport_write" not in functions


def test_chs_lba_and_odd_buffers_read_the_same(tmp_path):
    data = bytes(range(65, 91)).ljust(SECTOR, b".") + b"second".ljust(SECTOR, b".")
    code = asm.chs(2, 2, 0, 0, 2, 0x8000, 0x80) + asm.put_result() + asm.put_bytes(0x8000, 26)
    code += asm.lba(0x42, 2, 1, 0x9001) + asm.put_result() + asm.put_bytes(0x9201, 6)
    disk = asm.write_disk(tmp_path / "d.img", code + asm.OFF, rest=data)
    screen = boot("-hda", disk).screen
    assert "KAA" + data[:26].decode() + "KAA" + "second" in screen


def test_a_write_from_an_odd_buffer_arrives(tmp_path):
    code = asm.lba(0x43, 1, 7, 0x7C01) + asm.put_result() + asm.OFF
    disk = asm.write_disk(tmp_path / "d.img", code)
    assert "KAA" in boot("-hda", disk).screen
    image = open(disk, "rb").read()
    assert image[7 * SECTOR : 8 * SECTOR] == image[1:512] + b"\0"


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (asm.lba(0x42, 1, 1 << 20, 0x8000), "EAB"),
        (asm.lba(0x42, 1, 0, 0x8000, drive=0x81), "EAB"),
        (asm.chs(2, 1, 0, 0, 0, 0x8000, 0x80), "EAB"),
        (asm.chs(2, 1, 0, 0, 1, 0x8000, 0x00), "EIA"),
        (asm.chs(0x55, 1, 0, 0, 1, 0x8000, 0x80), "EAB"),
    ],
    ids=["beyond the end", "no such disk", "sector 0", "no floppy", "no such function"],
)
def test_refused_disk_calls(tmp_path, code, answer):
    disk = asm.write_disk(tmp_path / "d.img", code + asm.put_result() + asm.OFF)
    result = boot("-hda", disk)
    assert answer in result.screen.splitlines()[-1]
    assert (result.status, result.failures) == (0, ())


@pytest.fixture
def failing(monkeypatch):
    """Have the worker's writes, or reads beyond the first sectors, fail with an errno."""

    def fail(function, code):
        real = getattr(os, function)

        def refuse(fd, buffers, offset, *rest):
            if os.readlink(f"/proc/self/fd/{fd}").endswith(".img") and offset >= 7 * SECTOR:
                raise OSError(code, os.strerror(code))
            return real(fd, buffers, offset, *rest)

        monkeypatch.setattr(posix_aio_compat.os, function, refuse)

    return fail


def test_a_failing_read_is_an_error_of_the_call(tmp_path, failing):
    disk = asm.write_disk(tmp_path / "d.img", asm.lba(0x42, 1, 8, 0x8000) + asm.put_result() + asm.OFF)
    failing("preadv", errno.EIO)
    failing("pread", errno.EIO)
    result = boot("-hda", disk)
    assert result.reason == "guest" and "EBA" in result.screen
    told = f"drive ide0-hd0 ({disk}): a read at sector 8 failed: Input/output error; the guest was told"
    assert (result.failures, result.status) == ((told,), 1)


def test_a_full_host_disk_stops_the_machine_unless_told_otherwise(tmp_path, failing, capsys):
    code = asm.lba(0x43, 1, 8, 0x7C00) + asm.put_result() + asm.OFF
    disk = asm.write_disk(tmp_path / "d.img", code)
    failing("pwritev", errno.ENOSPC)
    failing("pwrite", errno.ENOSPC)
    assert boot("-hda", disk, "-monitor", "stdio", timeout=1.5).reason == "timeout"
    assert vl_state.state.vm_running == 0
    assert "No space left on device; mend that, then say cont" in capsys.readouterr().err
    result = boot("-hda", disk)
    assert (result.reason, result.status) == ("stuck", 1)
    assert "No space left on device; no monitor is at hand" in capsys.readouterr().err
    result = boot("-drive", f"file={disk},werror=report")
    assert result.reason == "guest" and "EMM" in result.screen
    assert result.status == 1
    assert "a write at sector 8 failed: No space left on device" in result.failures[0]
    result = boot("-drive", f"file={disk},werror=ignore")
    assert (result.status, result.failures) == (0, ())


def test_floppy_boots_and_is_written(tmp_path):
    code = asm.chs(2, 1, 0, 1, 1, 0x8000) + asm.put_result() + asm.put_bytes(0x8000, 5)
    code += asm.chs(3, 1, 0, 0, 3, 0x7C00, 0) + asm.put_result() + asm.OFF
    disk = asm.write_disk(tmp_path / "fd.img", code, 1440 << 10, rest=bytes(17 * SECTOR) + b"track")
    result = boot("-fda", disk, "-boot", "a")
    assert "Booting from Floppy..." in result.screen and "KAAtrackKAA" in result.screen
    image = open(disk, "rb").read()
    assert image[2 * SECTOR : 3 * SECTOR] == image[:SECTOR]


def test_cdrom_boots_without_emulation(tmp_path):
    """El Torito: boot record in block 17, catalog in block 18, image in block 19."""
    iso = bytearray(24 * 2048)
    record_ = b"\x00CD001\x01EL TORITO SPECIFICATION".ljust(0x47, b"\0") + (18).to_bytes(4, "little")
    iso[17 * 2048 : 17 * 2048 + len(record_)] = record_
    entry = bytes((0x88, 0, 0, 0, 0, 0)) + (4).to_bytes(2, "little") + (19).to_bytes(4, "little")
    iso[18 * 2048 + 32 : 18 * 2048 + 32 + len(entry)] = entry
    code = asm.lba(0x42, 1, 20, 0x9000, drive=0xE0) + asm.put_result() + asm.put_bytes(0x9000, 6) + asm.OFF
    iso[19 * 2048 : 19 * 2048 + 512] = asm.boot_sector(code)
    iso[20 * 2048 : 20 * 2048 + 6] = b"block!"
    (tmp_path / "cd.iso").write_bytes(iso)
    assert "KAAblock!" in boot("-cdrom", str(tmp_path / "cd.iso"), "-boot", "d").screen


def test_a_boot_medium_boots_where_the_disk_holds_nothing(tmp_path):
    from studykvm.guests import write_boot_cd

    (tmp_path / "empty.img").write_bytes(bytes(1 << 20))
    write_boot_cd(tmp_path / "cd.img")
    drives = ("-hda", str(tmp_path / "empty.img"), "-cdrom", str(tmp_path / "cd.img"))
    disk_first, disc_alone = boot(*drives, "-boot", "cd"), boot(*drives, "-boot", "d")
    assert "Boot failed: not a bootable disk" in disk_first.screen and disk_first.reason == "guest"
    assert "Here a system would be installed on the disk" in disc_alone.screen
    assert "Hard Disk" not in disc_alone.screen


def test_boot_order_goes_on_to_the_next_drive(base, tmp_path):
    (tmp_path / "blank.img").write_bytes(bytes(1440 << 10))
    result = boot("-fda", str(tmp_path / "blank.img"), "-hda", "base.img", "-boot", "ac")
    assert result.reason == "guest"
    assert "Boot failed: not a bootable disk" in result.screen


def test_without_a_bootable_disk_the_machine_ends_where_nobody_could_help(capsys):
    result = boot()
    assert (result.reason, result.status, result.screen) == ("stuck", 1, "No bootable device.")
    assert "the guest found nothing to boot" in capsys.readouterr().err


def test_without_a_bootable_disk_a_machine_with_a_monitor_waits(capsys):
    result = boot("-monitor", "stdio", timeout=0.8)
    assert (result.reason, result.screen) == ("timeout", "No bootable device.")
    assert "nothing to boot" not in capsys.readouterr().err


def test_a_missing_backing_file_is_named(tmp_path, base, capsys):
    image = overlay(base, tmp_path / "o.img", "qcow")
    base.unlink()
    result = boot("-hda", image)
    assert result.status == 1
    assert f"needs its backing file {base}, which does not open: No such file" in capsys.readouterr().err


def test_power_off_by_apm(tmp_path):
    disk = asm.write_disk(tmp_path / "d.img", asm.put("P") + asm.APM_OFF)
    result = boot("-hda", disk)
    assert (result.reason, result.screen.splitlines()[-1]) == ("guest", "P")


def test_a_runaway_guest_is_ended_from_outside(tmp_path):
    disk = asm.write_disk(tmp_path / "d.img", b"\xeb\xfe")
    assert boot("-hda", disk, timeout=0.8).reason == "timeout"


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (b"\x0f\x0b", "executed an instruction that the processor does not know at 0000:7c00: 0f 0b"),
        (b"\x31\xc9\xf7\xf1", "divided by zero"),
        # lgdt [7c20h]; mov eax, cr0; or al, 1; mov cr0, eax; jmp 8:7c15h ... jmp far away in 32 bits
        (
            bytes.fromhex("fa0f0116207c0f20c00c010f22c0ea157c0800") + b"\0\0\xe9\0\0\0\x70".ljust(13, b"\0")
            + (23).to_bytes(2, "little") + (0x7C28).to_bytes(4, "little") + bytes(2)
            + bytes(8) + bytes.fromhex("ffff0000009bcf00") + bytes.fromhex("ffff00000093cf00"),
            "jumped to where there is no memory",
        ),
    ],
    ids=["undefined instruction", "division", "jump into nothing"],
)  # fmt: skip
def test_a_guest_the_model_cannot_follow_is_a_named_error(tmp_path, code, what):
    disk = asm.write_disk(tmp_path / "d.img", code)
    with pytest.raises(HypervisorError, match=what):
        boot("-hda", disk)


def test_a_triple_fault_resets_the_machine(tmp_path):
    """Protected mode without interrupts, then int 3; the second boot sees the mark and goes off."""
    # cmp byte [500h], 1; je off; mov byte [500h], 1
    mark = bytes.fromhex("803e0005017413") + bytes.fromhex("c606000501")
    # lidt [7c60h]; mov eax, cr0; or al, 1; mov cr0, eax; int3
    fault = bytes.fromhex("0f011e607c0f20c00c010f22c0cc")
    code = mark + fault + asm.OFF
    image = code.ljust(0x60, b"\0") + bytes(6)
    disk = asm.write_disk(tmp_path / "d.img", image)
    result = boot("-hda", disk)
    assert result.reason == "guest"
    assert "triple-fault" in result.notes


def test_no_reboot_turns_a_reset_into_the_end(tmp_path):
    disk = asm.write_disk(
        tmp_path / "d.img", bytes.fromhex("0f011e607c0f20c00c010f22c0cc").ljust(0x66, b"\0")
    )
    assert boot("-hda", disk, "-no-reboot").status == 0


def test_keys_screen_and_clock_services(tmp_path):
    """Code: mov ah, 2; mov dx, 0510h; int 10h: cursor to row 5, column 16; then a letter nine times."""
    code = bytes.fromhex("b402ba1005b700cd10") + bytes.fromhex("b82a09bb0700b90900cd10")
    # mov ah, 0; int 1ah; mov ah, 12h... equipment: int 11h; int 12h; cmp ax, 640; jne +9; put '6'
    code += bytes.fromhex("b400cd1acd11cd123d80027509") + asm.put("6") + asm.OFF
    disk = asm.write_disk(tmp_path / "d.img", code)
    rows = boot("-hda", disk).screen.splitlines()
    assert rows[5] == " " * 16 + "6" + "*" * 8
