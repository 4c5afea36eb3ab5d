"""qemu-img in 0.12.4's words: what it says of wrong options and arguments, and that it exits with 1."""

import os
import stat
import struct
from pathlib import Path

import pytest

from tests.hypervisor.tools import img, io_, ours

FORMATS = (
    "cow qcow vdi vmdk cloop dmg bochs vpc vvfat qcow2 parallels nbd host_cdrom host_floppy host_device raw"
)

NOT_MADE = "recognised but not modelled; make a raw, qcow or qcow2 image\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    img("create", "-f", "qcow2", "a.img", "1M")
    return tmp_path


@pytest.mark.parametrize(
    "argv, message",
    [
        (["create", "-f", "foo", "x", "1M"], "qemu-img: Unknown file format 'foo'\n"),
        (["create", "x"], "qemu-img: Image creation needs a size parameter\n"),
        (
            ["create", "x", "lots"],
            "Option 'size' needs size as parameter\nYou may use k, M, G or T suffixes for kilobytes,"
            " megabytes, gigabytes and terabytes.\nqemu-img: Image creation needs a size parameter\n",
        ),
        (
            ["create", "-o", "colour=red", "x", "1M"],
            "Unknown option 'colour'\nqemu-img: Invalid options for file format 'raw'.\n",
        ),
        (
            ["create", "-f", "qcow2", "-o", "encryption=maybe", "x", "1M"],
            "Option 'encryption': Use 'on' or 'off'\nqemu-img: Invalid options for file format 'qcow2'.\n",
        ),
        (
            ["create", "-f", "qcow2", "-o", "backing_file", "x", "1M"],
            "Option 'backing_file' needs a parameter\nqemu-img: Invalid options for file format 'qcow2'.\n",
        ),
        (
            ["create", "-6", "x", "1M"],
            "Unknown option 'compat6'\nqemu-img: VMDK version 6 not supported for file format 'raw'\n",
        ),
        (
            ["create", "-e", "x", "1M"],
            "Unknown option 'encryption'\nqemu-img: Encryption not supported for file format 'raw'\n",
        ),
        (
            ["create", "-b", "a.img", "x", "1M"],
            "Unknown option 'backing_file'\nqemu-img: Backing file not supported for file format 'raw'\n",
        ),
        (
            ["create", "-F", "raw", "x", "1M"],
            "Unknown option 'backing_fmt'\n"
            "qemu-img: Backing file format not supported for file format 'raw'\n",
        ),
        (
            ["create", "-f", "qcow2", "-b", "a.img", "-F", "foo", "x"],
            "qemu-img: Unknown backing file format 'foo'\n",
        ),
        (["info", "nothere"], "qemu-img: Could not open 'nothere'\n"),
        (["info", "-f", "foo", "a.img"], "qemu-img: Unknown file format 'foo'\n"),
        (["commit", "a.img"], "qemu-img: Image is already committed\n"),
        (
            ["check", "-r", "all", "a.img"],
            "qemu-img: check -r is younger than QEMU 0.12.4 and not modelled\n",
        ),
        (["convert", "-O", "foo", "a.img", "x"], "qemu-img: Unknown file format 'foo'\n"),
        (["create", "-f", "vmdk", "x", "1M"], f"qemu-img: the vmdk format is {NOT_MADE}"),
        (["convert", "-O", "vpc", "a.img", "x"], f"qemu-img: the vpc format is {NOT_MADE}"),
        (["convert", "-c", "a.img", "x"], "qemu-img: Compression not supported for this file format\n"),
        (
            ["convert", "-B", "a.img", "a.img", "a.img", "x"],
            "qemu-img: -B makes no sense when concatenating multiple input images\n",
        ),
        (["convert", "a.img", "no/such/x"], "qemu-img: Error while formatting 'no/such/x'\n"),
        (["create", "no/such/x", "1M"], "qemu-img: Error while formatting\n"),
        (
            ["snapshot", "-a", "s", "a.img"],
            "qemu-img: Could not apply snapshot 's': -2 (No such file or directory)\n",
        ),
        (
            ["snapshot", "-d", "s", "a.img"],
            "qemu-img: Could not delete snapshot 's': -2 (No such file or directory)\n",
        ),
        (["amend", "a.img"], "qemu-img: amend is younger than QEMU 0.12.4 and not modelled\n"),
        (
            ["info", "--image-opts", "a.img"],
            "qemu-img: --image-opts is younger than QEMU 0.12.4 and not modelled\n",
        ),
        (
            ["info", "-Z", "a.img"],
            "qemu-img: unrecognized option '-Z'\nTry 'qemu-img --help' for more information\n",
        ),
        (
            ["info", "a.img", "-f"],
            "qemu-img: missing argument for option '-f'\nTry 'qemu-img --help' for more information\n",
        ),
        (["rebase", "-b", "x", "-T", "?", "a.img"], "qemu-img: Invalid source cache option: ?\n"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(argv, message):
    before = Path("a.img").read_bytes()
    shown = ours("qemu-img", *argv)
    assert shown.status == 1
    reasons = shown.err.removesuffix(message).splitlines()
    assert shown.err.endswith(message) and all(line.startswith("studykvm: ") for line in reasons)
    assert sorted(os.listdir()) in (["a.img"], ["a.img", "x"])
    assert Path("a.img").read_bytes() == before


@pytest.mark.parametrize(
    "argv",
    [[], ["frob"], ["--help"], ["info"], ["check"], ["commit"], ["convert", "a.img"], ["snapshot", "-h"]],
)
def test_without_a_command_or_a_file_there_is_the_help(argv):
    shown = ours("qemu-img", *argv)
    assert shown.status == 1
    assert shown.out.startswith("qemu-img version 0.12.4, Copyright (c) 2004-2008 Fabrice Bellard\n")
    assert "  create [-f fmt] [-o options] filename [size]\n" in shown.out
    assert f"\nSupported formats: {FORMATS}\n" in shown.out


def test_two_snapshot_actions_are_too_many():
    assert ours("qemu-img", "snapshot", "-l", "-c", "s", "a.img").out.startswith("qemu-img version")
    assert ours("qemu-img", "snapshot", "-l", "a.img").out == ""


def test_the_options_of_a_format_are_listed():
    shown = ours("qemu-img", "create", "-f", "qcow2", "-o", "?")
    assert shown.status == 0
    assert shown.out.startswith("Supported options:\nsize             Virtual disk size\n")
    assert "cluster_size     qcow2 cluster size\n" in shown.out


def test_sizes_are_read_as_c_reads_doubles():
    for text, size in (("1.5k", 1536), ("0x400", 1024), ("2b", 2), ("1e3", 1000), ("3KB", 3072)):
        assert f"size={size} " in img("create", "x", text)


def test_an_image_of_an_older_day_is_described():
    img("create", "-f", "qcow", "-b", "a.img", "top.img")
    lines = img("info", "top.img").splitlines()
    assert lines[:3] == ["image: top.img", "file format: qcow", "virtual size: 1.0M (1048576 bytes)"]
    assert lines[4:] == ["cluster_size: 512", "backing file: a.img (actual path: a.img)"]


def test_a_concatenation_is_as_long_as_its_parts():
    io_("a.img", "write -P 1 0 1M")
    img("create", "b.img", "512k")
    img("convert", "-O", "raw", "a.img", "b.img", "a.img", "x")
    assert Path("x").read_bytes() == b"\1" * (1 << 20) + bytes(512 << 10) + b"\1" * (1 << 20)
    img("convert", "-c", "-O", "qcow2", "a.img", "b.img", "a.img", "y")
    img("convert", "-O", "raw", "y", "z")
    assert Path("z").read_bytes() == Path("x").read_bytes()


def test_zeros_over_a_backing_file_are_copied():
    """Zeros that hide what the backing file holds are no zeros to leave out."""
    io_("a.img", "write -P 1 0 1M")
    img("create", "-f", "qcow2", "-b", "a.img", "b.img")
    io_("b.img", "write -P 0 0 64k")
    for option in (["-B", "a.img"], ["-o", "backing_file=a.img"]):
        img("convert", "-O", "qcow2", *option, "b.img", "c.img")
        img("convert", "-O", "raw", "c.img", "x")
        assert Path("x").read_bytes() == bytes(64 << 10) + b"\1" * (960 << 10)


def test_a_missing_base_is_reported_under_the_overlays_name():
    img("create", "-f", "qcow2", "-b", "a.img", "b.img")
    os.remove("a.img")
    assert ours("qemu-img", "check", "b.img").err.endswith("\nqemu-img: Could not open 'b.img'\n")
    modern = ours("qemu-img", "check", "b.img", modern=True)
    gone = "Could not open backing file: Could not open 'a.img': No such file or directory"
    assert modern.err == f"qemu-img: Could not open 'b.img': {gone}\n"


def test_leaks_and_corruptions_have_exit_statuses_of_their_own():
    io_("a.img", "write -P 1 0 64k")
    content = bytearray(Path("a.img").read_bytes())
    (table,) = struct.unpack_from(">Q", content, 48)
    (counts,) = struct.unpack_from(">Q", content, table)
    clusters = len(content) >> 16
    struct.pack_into(">H", content, counts + 2 * clusters, 1)
    Path("a.img").write_bytes(content + bytes(1 << 16))
    leaked = ours("qemu-img", "check", "a.img", modern=True)
    assert leaked.status == 3
    assert "\n1 leaked clusters were found on the image.\n" in leaked.out
    plain = ours("qemu-img", "check", "a.img")
    assert (plain.status, plain.out) == (3, "1 errors were found on the image.\n")
    struct.pack_into(">H", content, counts + 2 * (clusters - 1), 0)
    Path("a.img").write_bytes(content + bytes(1 << 16))
    assert [ours("qemu-img", "check", "a.img", modern=modern).status for modern in (True, False)] == [2, 2]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_read_only_image_is_not_committed():
    img("create", "-f", "qcow2", "-b", "a.img", "b.img")
    os.chmod("b.img", stat.S_IRUSR)
    assert ours("qemu-img", "commit", "b.img").err == "qemu-img: Image is read-only\n"


def test_file_names_need_not_be_text():
    name = os.fsdecode(b"caf\xe9.img")
    assert ours("qemu-img", "create", name, "1M").status == 0
    assert os.path.getsize(name) == 1 << 20


def test_the_last_sector_of_an_odd_file_is_not_lost():
    Path("odd.img").write_bytes(b"\7" * 1000)
    reads = ("-c", "read -P 7 0 512", "-c", "read -P 7 -l 488 512 512", "-c", "read -P 0 -s 488 512 512")
    shown = ours("qemu-io", *reads, "odd.img", modern=True)
    assert shown.status == 0 and "failed" not in shown.out
    assert ours("qemu-io", "-c", "read 1024 512", "odd.img", modern=True).status == 1
    # 0.12.4 refuses the part of a sector
    assert "read failed: Input/output error" in ours("qemu-io", *reads[2:4], "odd.img").out
    img("convert", "-O", "raw", "odd.img", "whole.img")
    assert Path("whole.img").read_bytes() == b"\7" * 1000
    assert img("compare", "-f", "raw", "-F", "raw", "odd.img", "whole.img") == "Images are identical.\n"
    img("convert", "-O", "qcow2", "whole.img", "part.img")
    assert "virtual size: 512 (512 bytes)" in img("info", "part.img")
    hint = "studykvm: whole.img: its last 488 bytes, less than a sector, are left out"
    assert hint in ours("qemu-img", "convert", "-O", "qcow2", "whole.img", "part.img").err
    assert ours("qemu-img", "convert", "-O", "qcow2", "whole.img", "part.img", modern=True).err == ""
    assert "virtual size: 1.0K (1024 bytes)" in img("info", "part.img")
    assert ours("qemu-io", "-c", "write -p -P 8 999 2", "odd.img", modern=True).status == 0
    assert Path("odd.img").read_bytes() == b"\7" * 999 + b"\x08\x08" + bytes(23)


def test_a_missing_backing_file_is_named_once(tmp_path, monkeypatch):
    """Under the words of 0.12.4, which name the overlay alone, with the step that helps."""
    monkeypatch.chdir(tmp_path)
    img("create", "-f", "raw", "base.img", "1M")
    img("create", "-f", "qcow2", "-b", "base.img", "mid.img")
    img("create", "-f", "qcow", "-b", "mid.img", "top.img")
    Path("base.img").rename("gone.img")
    for command in (["info"], ["check"], ["convert", "-O", "raw"]):
        target = ["new.img"] if command[0] == "convert" else []
        shown = ours("qemu-img", *command, "top.img", *target)
        assert shown.status == 1
        assert not shown.out
        hint, last = shown.err.splitlines()
        assert last == "qemu-img: Could not open 'top.img'"
        assert hint.startswith("studykvm: mid.img needs its backing file base.img, which does not open: ")
        assert hint.endswith("studykvm img rebase -u -F FORMAT -b FILE mid.img")
    img("rebase", "-u", "-F", "raw", "-b", "gone.img", "mid.img")
    img("info", "top.img")
    shown = ours("qemu-io", "-c", "read 0 512", "top.img")
    assert not shown.err and shown.status == 0
