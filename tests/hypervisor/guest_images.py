"""Disks of software that nobody here wrote, made without root: GRUB, syslinux, memtest86+.

Each is a raw base; `overlay(base)` puts a qcow2 overlay on it. What is missing makes the test skip.
"""

import functools
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

MIB = 1 << 20
SECTOR = 512
FIRST = 2048
TEXT = "read by GRUB from a FAT file system\n"
GRUB = Path("/usr/lib/grub/i386-pc")
MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")
MEMTEST = Path("/boot/memtest86+ia32.bin")
SEABIOS = Path("/usr/share/seabios/bios-256k.bin")
_SERIAL = "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\n"


def needs(*packages):
    """Skip unless the Debian packages are installed."""
    there = {
        "seabios": SEABIOS.exists(),
        "grub-pc-bin": GRUB.is_dir(),
        "grub-common": bool(shutil.which("grub-mkimage")),
        "mtools": bool(shutil.which("mcopy")),
        "syslinux": bool(shutil.which("syslinux")),
        "syslinux-common": MBR.exists(),
        "memtest86+": MEMTEST.exists(),
        "qemu-system-x86": bool(shutil.which("qemu-system-x86_64")),
    }
    missing = [name for name in packages if not there[name]]
    return pytest.mark.skipif(bool(missing), reason=f"apt-get install {' '.join(missing)}")


def run(*argv):
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@functools.cache
def _core(folder, config, modules):
    script, core = folder / "early.cfg", folder / "core.img"
    script.write_text(config)
    options = ("-O", "i386-pc", "-p", "(hd0,msdos1)/boot", "-c", script, "-o", core)
    run("grub-mkimage", *options, *modules.split())
    return core.read_bytes()


def _disk(path, size, boot_code, between=b""):
    """A disk of one FAT partition; `between` lies before it."""
    with open(path, "wb") as made:
        made.truncate(size)
        made.write(boot_code[:440])
        made.seek(446)
        made.write(
            struct.pack("<BxxxBxxxII", 0x80, 6, FIRST, size // SECTOR - FIRST) + bytes(48) + b"\x55\xaa"
        )
        made.write(between)
        assert made.tell() < FIRST * SECTOR
    at = f"{path}@@{FIRST * SECTOR}"
    sectors = str(size // SECTOR - FIRST)
    run("mformat", "-i", at, "-T", sectors, "-h", "16", "-s", "63", "-H", str(FIRST))
    return at


def _copy(at, source, name):
    run("mcopy", "-i", at, source, f"::{name}")


def grub_disk(folder, more=""):
    """GRUB 2 with its commands on the serial line, and hello.txt on a FAT partition."""
    modules = f"biosdisk part_msdos fat normal cat ls echo serial terminal reboot {more}"
    core = _core(folder, _SERIAL, modules)
    path, text = folder / "grub.img", folder / "hello.txt"
    at = _disk(path, 8 * MIB, (GRUB / "boot.img").read_bytes(), core)
    text.write_text(TEXT)
    _copy(at, text, "hello.txt")
    return path


def syslinux_disk(folder):
    """Syslinux, which asks `boot:` by the BIOS."""
    path, config = folder / "syslinux.img", folder / "syslinux.cfg"
    at = _disk(path, 8 * MIB, MBR.read_bytes())
    config.write_text("PROMPT 1\nTIMEOUT 0\nDEFAULT nothing\n")
    _copy(at, config, "syslinux.cfg")
    run("syslinux", "--install", "--offset", str(FIRST * SECTOR), path)
    return path


def memtest_disk(folder):
    """GRUB 2 that starts memtest86+."""
    early = "linux16 (hd0,msdos1)/memtest.bin console=ttyS0,115200\nboot\n"
    core = _core(folder, early, "biosdisk part_msdos fat linux16 boot")
    path = folder / "memtest.img"
    at = _disk(path, 8 * MIB, (GRUB / "boot.img").read_bytes(), core)
    _copy(at, MEMTEST, "memtest.bin")
    return path


def overlay(base):
    """A qcow2 overlay, made by the model's own qemu-img."""
    from tests.hypervisor.tools import ours

    path = base.with_suffix(".qcow2")
    made = ours("qemu-img", "create", "-f", "qcow2", "-b", str(base), "-F", "raw", str(path))
    assert made.status == 0, made
    return str(path)
