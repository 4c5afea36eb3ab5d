"""The course's overlay exercise: a guest writes, the overlay grows, a commit, a new overlay shows it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from studykvm import guests
from studykvm.errors import StudyError
from tests.hypervisor.machines import Machine, until
from tests.hypervisor.tools import img, needs_qemu, real

MADE = "Made the directory IN_GUEST with in_BASE_HOST.txt in it."
SAID = "Written by the guest. Whoever reads this on the base has seen a commit."
needs_mtools = pytest.mark.skipif(not shutil.which("mdir"), reason="apt-get install mtools")


@pytest.fixture
def machine():
    """Boot an image with its screen and monitor on pipes; afterwards it is gone."""
    started = []

    def start(image):
        started.append(Machine("-hda", image, "-nographic", "-monitor", "stdio", "-serial", "file:serial"))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.communicate()


def boot(machine, image, says, commands=()):
    """Boot `image` until the guest `says` what it did, give commands, quit; what its disk had to do."""
    Path("serial").unlink(missing_ok=True)
    running = machine(image)
    # What the built-in BIOS prints goes to the serial line, too.
    until(lambda: Path("serial").exists() and says in Path("serial").read_text(), 60, running.plain)
    running.type("info blockstats\n")
    shown = re.search(r"ide0-hd0: (.*)", running.wait_for("sd0:"))[1]
    for command in (*commands, "quit"):
        running.type(command + "\n")
    status, _ = running.end()
    assert status == 0
    return shown


def sizes(image):
    """What `studykvm img info` prints of an image: its virtual size, and its bytes on the disk."""
    shown = img("info", image)
    print(shown)
    return int(re.search(r"virtual size: .*\((\d+) bytes\)", shown)[1]), re.search(r"disk size: (.*)", shown)[
        1
    ]


def on_disk(image, tool, *path):
    done = subprocess.run([tool, "-i", image, *path], capture_output=True, text=True, timeout=30)
    return done.stdout if done.returncode == 0 else done.stderr


@needs_qemu
@needs_mtools
@pytest.mark.parametrize("fmt", ["qcow", "qcow2"])
def test_a_directory_made_in_the_guest_reaches_the_base_by_a_commit(tmp_path, monkeypatch, machine, fmt):
    monkeypatch.chdir(tmp_path)
    guests.write_fat_disk("base.img")
    base_bytes = (tmp_path / "base.img").read_bytes()
    img("create", "-f", fmt, "-b", "base.img", "overlay.img")
    empty = (tmp_path / "overlay.img").stat().st_size
    assert sizes("base.img")[0] == sizes("overlay.img")[0] == 16 << 20
    before = sizes("overlay.img")[1]

    # The guest writes: the overlay grows, the base stays as it was.
    boot(machine, "overlay.img", MADE)
    grown = (tmp_path / "overlay.img").stat().st_size
    assert grown > empty
    assert sizes("overlay.img")[1] != before
    assert (tmp_path / "base.img").read_bytes() == base_bytes
    assert "IN_GUEST" not in on_disk("base.img", "mdir")
    real("qemu-img", "convert", "-f", fmt, "-O", "raw", "overlay.img", "merged.img")
    assert SAID in on_disk("merged.img", "mtype", "::IN_GUEST/in_BASE_HOST.txt")
    if fmt == "qcow2":
        assert "No errors" in real("qemu-img", "check", "overlay.img")
    # Only what was written is there: two tables, the root, the directory, the file, each in its cluster.
    offsets = {f"{sector * 512:#x}" for sector in written_sectors()}
    mapped = real("qemu-img", "map", "overlay.img")
    assert all(any(int(o, 16) in span for span in overlay_spans(mapped)) for o in offsets)

    # commit all: the base has the directory, the overlay is asked for nothing any more.
    boot(machine, "overlay.img", SAID, ["commit all"])
    assert (tmp_path / "base.img").read_bytes() == (tmp_path / "merged.img").read_bytes()
    assert "IN_GUEST" in on_disk("base.img", "mdir")
    assert "in_BASE_HOST.txt" in on_disk("base.img", "mdir", "::IN_GUEST")
    assert on_disk("base.img", "mtype", "::IN_GUEST/in_BASE_HOST.txt").strip() == SAID
    sizes("overlay.img")
    if fmt == "qcow2":
        assert "No errors" in real("qemu-img", "check", "overlay.img")

    # A new overlay shows it; the guest finds it, and writes nothing.
    img("create", "-f", fmt, "-b", "base.img", "new.img")
    new = (tmp_path / "new.img").read_bytes()
    assert "wr_operations=0" in boot(machine, "new.img", SAID)
    assert (tmp_path / "new.img").read_bytes() == new
    assert real("qemu-img", "compare", "-f", "raw", "-F", fmt, "merged.img", "new.img")


def written_sectors():
    """Where the guest writes, by FAT's own arithmetic: 5 reserved, two tables of 64, 32 of root, data."""
    reserved, table, root = 5, 64, 32
    data = reserved + 2 * table + root
    return [reserved, reserved + table, reserved + 2 * table, *range(data, data + 4)]


def overlay_spans(mapped):
    rows = [line.split() for line in mapped.splitlines()[1:]]
    return [range(int(o, 16), int(o, 16) + int(n, 16)) for o, n, _, file in rows if file == "overlay.img"]


@pytest.mark.parametrize("name", ["makedir", "count", "counting", "medium"])
def test_the_program_is_what_nasm_makes_of_its_source(tmp_path, name):
    if not shutil.which("nasm"):
        pytest.skip("nasm is not here: apt-get install nasm")
    command = ["nasm", "-f", "bin", "-o", tmp_path / "made.bin", f"{name}.asm"]
    subprocess.run(command, check=True, cwd=guests.__path__[0])
    assert (tmp_path / "made.bin").read_bytes() == guests.boot_sector(name)


@pytest.mark.skipif(not shutil.which("fsck.fat"), reason="apt-get install dosfstools")
@pytest.mark.parametrize("mib", [8, 16, 100, 255])
def test_the_file_system_is_sound(tmp_path, mib):
    guests.write_fat_disk(tmp_path / "fat.img", mib << 20)
    done = subprocess.run(["fsck.fat", "-n", tmp_path / "fat.img"], capture_output=True, text=True)
    assert done.returncode == 0 and "0 files" in done.stdout
    assert len(done.stdout.splitlines()) == 2, done.stdout


@pytest.mark.parametrize("size", [0, 1 << 20, 256 << 20, (8 << 20) + 1])
def test_a_size_that_fat16_does_not_suit_is_refused(tmp_path, size):
    with pytest.raises(StudyError, match="8 MiB to 255 MiB"):
        guests.write_fat_disk(tmp_path / "fat.img", size)
