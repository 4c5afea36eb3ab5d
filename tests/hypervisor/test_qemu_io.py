"""qemu-io in 0.12.4's words: its commands, its complaints, and the exit status of 7.2."""

import os
from pathlib import Path

import pytest

from tests.hypervisor.tools import img, io_, ours, untimed


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    img("create", "a.img", "1M")
    return tmp_path


@pytest.mark.parametrize(
    "command, out",
    [
        ("read foo 512", "non-numeric length argument -- foo\n"),
        ("read 0 1kB", "non-numeric length argument -- 1kB\n"),
        ("read 1 512", "offset 1 is not sector aligned\n"),
        ("write 0 100", "count 100 is not sector aligned\n"),
        ("write 3G 3G", "non-numeric length argument -- 3G\n"),
        ("read -P 256 0 512", "256 is not a valid pattern byte\n"),
        ("read -P 0 -l 600 0 512", "pattern verfication range exceeds end of read data\n"),
        ("read -b -p 0 512", "-b and -p cannot be specified at the same time\n"),
        ("read -P 1 0 512", "Pattern verification failed at offset 0, 512 bytes\n"),
        ("read 1M 512", "read failed: Input/output error\n"),
        ("readv 1M 512", "readv failed: Input/output error\n"),
        ("writev 0 100", "length argument 100 is not sector aligned\n"),
        ("writev 0 5G", "too large length argument -- 5G\n"),
        ("truncate all", "non-numeric truncate argument -- all\n"),
        ("alloc 1", "offset 1 is not sector aligned\n"),
        (
            "write -P 1 0",
            "write [-abCpq] [-P pattern ] off len -- writes a number of bytes at a specified offset\n",
        ),
        ("help frob", "command frob not found\n"),
    ],
)
def test_a_command_that_fails_says_so_and_the_exit_status_tells(command, out):
    shown = ours("qemu-io", "-c", command, "-c", "length", "a.img")
    lines = [line for line in shown.out.splitlines(True) if "512/512" not in line and "ops;" not in line]
    assert "".join(lines) == f"{out}1 MiB\n"
    assert shown.status == 1


@pytest.mark.parametrize(
    "argv, err",
    [
        (["-c", "frob", "a.img"], 'command "frob" not found\n'),
        (["-c", "read", "a.img"], "bad argument count 0 to read, expected at least 2 arguments\n"),
        (["-c", "truncate 1 2", "a.img"], "bad argument count 2 to truncate, expected 1 arguments\n"),
        (["-c", "alloc", "a.img"], "bad argument count 0 to alloc, expected between 1 and 2 arguments\n"),
        (["-c", "read 0 512"], "no file open, try 'help open'\n"),
        (["-c", "open a.img", "a.img"], "file open already, try 'help close'\n"),
        (["-c", "quit", "-f", "qcow", "a.img"], "qemu-io: can't open device a.img\n"),
        (["-t", "sometimes", "a.img"], "qemu-io: Invalid cache option: sometimes\n"),
        (["--aio=magic", "a.img"], "qemu-io: Invalid aio option: magic\n"),
        (["--image-opts", "a.img"], "qemu-io: --image-opts is younger than QEMU 0.12.4 and not modelled\n"),
    ],
)
def test_what_is_wrong_is_said_on_stderr(argv, err):
    shown = ours("qemu-io", *argv)
    assert shown.status == 1
    assert shown.err == err


def test_a_missing_image_is_a_drive_without_a_medium():
    shown = ours("qemu-io", "-c", "read 0 512", "-c", "length", "nothere")
    why = "studykvm: nothere does not open: No such file or directory\n"
    assert shown == (1, "read failed: No medium found\ngetlength: No medium found\n", why)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".", "studykvm: . does not open: Is a directory"),
        ("a:b", "a: before the first slash is taken for a protocol; for a file of that name say file:a:b"),
        ("nbd:x", "the nbd: protocol is recognised but not modelled"),
    ],
    ids=["directory", "unknown protocol", "known protocol"],
)
def test_why_an_image_does_not_open(name, reason):
    shown = ours("qemu-io", "-c", "read 0 512", name)
    assert shown.status == 1 and len(shown.err.splitlines()) == 1
    assert reason in shown.err


def test_commands_come_from_stdin_with_a_prompt():
    shown = ours("qemu-io", "a.img", stdin="length\n\n   read   0  1k  \nquit\nlength\n")
    assert (
        untimed(shown.out)
        == "qemu-io> 1 MiB\nqemu-io> qemu-io> read 1024/1024 bytes at offset 0\n1 KiB, 1 ops\nqemu-io> "
    )
    assert shown.status == 0
    assert ours("qemu-io", "a.img", stdin="length").out == "qemu-io> 1 MiB\nqemu-io> "


def test_help_lists_the_commands_by_name():
    lines = io_("a.img", "help").splitlines()
    names = [line.split()[0] for line in lines[:16]]
    assert names == sorted(names)
    assert "alloc off [sectors] -- checks if a sector is present in the file" in lines
    assert "reads a range of bytes from the given offset" in io_("a.img", "? r")


def test_reports_for_machines_and_dumps_for_people():
    out = io_("a.img", "write -P 0x41 0 512", "read -C 0 512", "read -v -q 0 512")
    assert out.splitlines()[2].startswith("512,1,0:00:00.00,")
    assert len(out.splitlines()) == 3
    out = io_("a.img", "write -q -P 0x41 0 512", "read -v 0 512")
    assert out.startswith("00000000:  " + "41 " * 16 + " " + "A" * 16 + "\n00000010:")


def test_every_way_to_write_and_read_meets_in_the_file():
    io_(
        "a.img",
        *("write -P 1 0 512", "write -p -P 2 600 10", "writev -P 3 1024 512 512", "aio_write -P 4 4k 512 1k"),
        *(
            "aio_flush",
            "flush",
            "read -p -P 2 600 10",
            "read -P 2 -s 88 -l 10 512 512",
            "readv -P 3 1024 1024",
        ),
        *("aio_read -P 4 4k 1536", "aio_flush"),
    )
    content = Path("a.img").read_bytes()
    assert content[:512] == b"\1" * 512
    assert content[600:610] == b"\2" * 10
    assert content[1024:2048] == b"\3" * 1024
    assert content[4096:5632] == b"\4" * 1536
    assert content.count(0) == len(content) - 512 - 10 - 1024 - 1536


def test_requests_under_way_are_done_before_the_image_closes():
    io_("a.img", "aio_write -P 7 0 64k", "close", "open a.img", "read -P 7 0 64k")
    io_("a.img", "aio_write -P 8 0 64k")
    assert Path("a.img").read_bytes()[: 64 << 10] == b"\x08" * (64 << 10)


def test_a_failed_request_in_the_background_is_remembered():
    assert ours("qemu-io", "-c", "aio_write 1M 512", "a.img").status == 1
    assert ours("qemu-io", "-c", "aio_read -P 1 0 512", "-c", "aio_flush", "a.img").status == 1


def test_the_vm_state_lies_behind_the_disk():
    img("create", "-f", "qcow2", "q.img", "1M")
    io_("q.img", "write -b -P 5 0 64k", "read -b -P 5 0 64k", "read -P 0 0 1M", "length")
    assert ours("qemu-io", "-c", "write -b 0 512", "a.img").out == "write failed: Operation not supported\n"


def test_a_snapshot_takes_the_writes():
    assert "wrote 512/512" in io_("a.img", "write -P 9 0 512", "read -P 9 0 512", options=("-s",))
    assert Path("a.img").read_bytes() == bytes(1 << 20)


def test_length_truncate_and_info():
    assert io_("a.img", "truncate 2M", "length", "info") == "2 MiB\nformat name: raw\n"
    assert os.path.getsize("a.img") == 2 << 20
    os.truncate("a.img", 4 << 30)
    # The conversion to int overflows in C: from 2 GiB on even a whole number has decimals.
    assert io_("a.img", "length") == "4.000 GiB\n"


def test_the_version_and_the_usage():
    assert ours("qemu-io", "-V") == (0, "qemu-io version 0.0.1\n", "")
    assert ours("qemu-io", "--help").status == 0
    wrong = ours("qemu-io", "-x")
    assert (wrong.status, wrong.err) == (1, "qemu-io: invalid option -- 'x'\n")
    assert wrong.out.startswith("Usage: qemu-io [-h] [-V] [-Crsnm] [-c cmd] ... [file]\n")


@pytest.mark.parametrize(
    "options",
    [
        *(["-n"], ["-t", "none"], ["--cache", "writethrough"], ["-m"], ["-g"], ["--nocache", "--misalign"]),
        *(["-t", "unsafe", "--aio", "threads", "-f", "raw", "-U"], ["-d", "unmap"], ["-F", "raw"]),
    ],
)
def test_caches_and_alignments_change_nothing_of_the_content(options):
    io_("a.img", "write -P 3 512 1k", "read -P 3 512 1k", "readv -P 3 512 512 512", options=tuple(options))
    assert Path("a.img").read_bytes()[512:1536] == b"\3" * 1024
