"""Somebody removes, or shortens, an image that a machine has open.

The machine stands until the image is changed. Then the guest reads sector 64, writes it, reads it again, and
prints K or E for each, by the carry flag of int 13h, with the BIOS's error number in two letters.
"""

import os

import pytest

from tests.hypervisor import guest_code as asm
from tests.hypervisor.machines import until
from tests.hypervisor.tools import ours

FAR = 64
GUEST = b"".join(asm.lba(function, 1, FAR, 0x8000) + asm.put_result() for function in (0x42, 0x43, 0x42))


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asm.write_disk("base.img", GUEST + asm.OFF)
    return tmp_path


def overlay(kind):
    if kind == "raw":
        return "base.img"
    assert ours("qemu-img", "create", "-f", kind, "-b", "base.img", "over.img").status == 0
    return "over.img"


def run(machine, spoil, *drive):
    """What the guest printed, what the monitor said, the program's status and its last words."""
    running = machine(*drive, "-S", "-monitor", "stdio")
    running.wait_for("(qemu) ")
    spoil()
    running.type("info block\nc\n")
    status, errors = running.end()
    said = running.plain()
    return said.rpartition("Booting from Hard Disk...\n")[2].strip(), said, status, errors


@pytest.mark.parametrize("kind", ["raw", "qcow", "qcow2"])
def test_an_image_without_a_name_is_read_and_written_to_the_end(there, machine, kind):
    image = overlay(kind)
    screen, said, status, _ = run(machine, lambda: os.unlink(image), "-hda", image)
    assert screen == "KAAKAAKAA" and f"file={image}" in said and status == 0
    assert not os.path.exists(image)


def test_a_raw_image_that_was_cut_fails_where_it_ends(there, machine):
    """0.12.4 asks the file how long it is at each request: int 13h's errors 10h, CCh for the write, 10h."""
    screen, said, status, errors = run(
        machine, lambda: os.truncate("base.img", FAR * 512), "-hda", "base.img"
    )
    assert screen == "EBAEMMEBA"
    assert "ide0-hd0: type=hd" in said
    assert status == 1 and "base.img" in errors and "the guest was told" in errors
    assert os.path.getsize("base.img") == FAR * 512


def test_a_cut_image_stops_a_machine_that_shall_stop_until_it_is_whole_again(there, machine):
    drive = ("-drive", "file=base.img,if=ide,rerror=stop")
    running = machine(*drive, "-S", "-monitor", "stdio")
    running.wait_for("(qemu) ")
    os.truncate("base.img", FAR * 512)
    running.ask("c")
    until(lambda: "paused" in running.ask("info status"))
    os.truncate("base.img", 1 << 20)
    running.type("c\n")
    assert running.end()[0] == 0
    assert running.plain().strip().endswith("KAAKAAKAA")
