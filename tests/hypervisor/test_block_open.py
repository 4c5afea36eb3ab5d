"""Opening images: probe order, refusals, backing chains, and that nothing is left behind."""

import errno
import os
import shutil
import struct
import subprocess
import threading

import pytest

from hypervisor.block import (
    bdrv_close,
    bdrv_delete,
    bdrv_file_open,
    bdrv_find,
    bdrv_find_format,
    bdrv_get_encrypted_filename,
    bdrv_init,
    bdrv_is_encrypted,
    bdrv_iterate_format,
    bdrv_key_required,
    bdrv_new,
    bdrv_open,
    bdrv_open2,
    bdrv_read,
    bdrv_set_key,
    devices,
    path_combine,
    path_is_absolute,
)
from hypervisor.block.bdrv_open import MAX_CHAIN
from hypervisor.block_int import BDRV_O_RDWR, BDRV_O_SNAPSHOT, BlockDriver
from hypervisor.errors import HypervisorError
from hypervisor.program import current, program

QCOW_HEADER = struct.Struct(">4sIQIIQBBHIQ")


@pytest.fixture(autouse=True)
def tool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(os.listdir("/proc/self/fd"))
    with program("qemu-io"):
        bdrv_init()
        yield
    assert set(os.listdir("/proc/self/fd")) <= before
    assert not [thread for thread in threading.enumerate() if thread.name == "aio"]


def qcow(path, backing):
    """An empty qcow image of 1 MiB, laid out by hand from the format's description."""
    name = backing.encode()
    l1_table = (QCOW_HEADER.size + len(name) + 7) & ~7
    header = QCOW_HEADER.pack(b"QFI\xfb", 1, QCOW_HEADER.size, len(name), 0, 1 << 20, 9, 12, 0, 0, l1_table)
    path.write_bytes((header + name).ljust(l1_table + 8, b"\0"))


def qemu_img(*args):
    if shutil.which("qemu-img") is None:
        pytest.skip("needs qemu-img: apt install qemu-utils")
    subprocess.run(["qemu-img", *args], check=True, capture_output=True)


def open_image(name, flags=BDRV_O_RDWR):
    bs = bdrv_new("")
    return bdrv_open(bs, str(name), flags), bs


def test_probe_order_is_that_of_2010():
    names = []
    bdrv_iterate_format(lambda opaque, name: names.append(name), None)
    assert names == [
        "cow",
        "qcow",
        "vdi",
        "vmdk",
        "cloop",
        "dmg",
        "bochs",
        "vpc",
        "vvfat",
        "qcow2",
        "parallels",
        "nbd",
        "host_cdrom",
        "host_floppy",
        "host_device",
        "raw",
    ]


def test_devices_are_listed_in_order_of_creation(tmp_path):
    first, second, third = bdrv_new("a"), bdrv_new("b"), bdrv_new("c")
    bdrv_new("")
    assert list(devices()) == [first, second, third]
    bdrv_delete(second)
    assert list(devices()) == [first, third] and bdrv_find("c") is third and bdrv_find("b") is None


@pytest.mark.parametrize(
    ("base", "name", "combined"),
    [
        ("overlay.img", "base.img", "base.img"),
        ("/a/overlay.img", "base.img", "/a/base.img"),
        ("a/b/overlay.img", "../base.img", "a/b/../base.img"),
        ("/a/overlay.img", "/c/base.img", "/c/base.img"),
        ("/a/overlay.img", "nbd:host:1", "nbd:host:1"),
        ("/a/b:c.img", "base.img", "/a/base.img"),
        ("./a:b.img", "./c:d.img", "././c:d.img"),
        ("file:a:b.img", "base.img", "./base.img"),
        ("/a/overlay.img", "file:base.img", "file:base.img"),
        ("/a/overlay.img", "file:/c/base.img", "file:/c/base.img"),
        ("fat:overlay.img", "base.img", "fat:base.img"),
    ],
)
def test_path_combine(base, name, combined):
    assert path_combine(1024, base, name) == combined


def test_path_combine_is_cut_to_its_buffer():
    assert path_combine(8, "/folder/overlay.img", "base.img") == "/folder"
    assert path_combine(12, "/folder/overlay.img", "base.img") == "/folder/bas"


def test_absolute_paths():
    assert [path_is_absolute(p) for p in ("/a", "a", "nbd:/a", "nbd:a", "")] == [1, 0, 1, 0, 0]


def test_unknown_content_is_raw(tmp_path):
    (tmp_path / "x").write_bytes(b"\x12" * 4096)
    ret, bs = open_image("x")
    assert ret == 0 and bs.drv.format_name == "raw" and bs.total_sectors == 8
    assert (bs.filename, bs.media_changed, bs.growable) == ("x", 1, 0)


@pytest.mark.parametrize("name", ["missing", "folder", "", "nothere/x", "a\0b"])
def test_what_is_no_image_is_enoent(tmp_path, name):
    (tmp_path / "folder").mkdir()
    ret, bs = open_image(name)
    assert ret == -errno.ENOENT and bs.drv is None and bs.opaque is None


def test_a_fifo_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert open_image("fifo")[0] == -errno.ENOENT
    assert bdrv_file_open("fifo", BDRV_O_RDWR)[0] == -errno.ESPIPE


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path):
    (tmp_path / "x").write_bytes(bytes(512))
    (tmp_path / "x").chmod(0)
    assert open_image("x")[0] == -errno.ENOENT
    assert bdrv_file_open("x", BDRV_O_RDWR)[0] == -errno.EACCES


def test_a_read_only_file_is_opened_read_only(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(bytes(512))
    really = os.open

    def refuse_writing(name, flags, *rest, **more):
        if flags & os.O_ACCMODE == os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return really(name, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse_writing)
    ret, bs = open_image("x")
    assert ret == 0 and bs.read_only == 1


@pytest.mark.parametrize("fmt", ["vmdk", "vdi", "vpc"])
def test_other_formats_are_recognised_and_refused(tmp_path, capsys, fmt):
    qemu_img("create", "-f", fmt, "x.img", "8M")
    ret, bs = open_image("x.img")
    assert ret == -errno.ENOTSUP and bs.drv is None
    assert capsys.readouterr().err == (
        f"x.img: the {fmt} format is recognised but not modelled;"
        " convert it with QEMU's own qemu-img convert -O qcow2\n"
    )


@pytest.mark.parametrize(
    ("fmt", "name", "head"),
    [
        ("cow", "x", b"OOOM\0\0\0\2"),
        (
            "bochs",
            "x",
            b"Bochs Virtual HD Image".ljust(32, b"\0")
            + b"Redolog".ljust(16, b"\0")
            + b"Growing".ljust(16, b"\0")
            + b"\0\0\2\0",
        ),
        (
            "cloop",
            "x",
            b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n",
        ),
        ("dmg", "x.dmg", b"anything"),
        ("parallels", "x", b"WithoutFreeSpace\2\0\0\0"),
        ("nbd", "nbd:localhost:10809", None),
        ("fat", "fat:folder", None),
    ],
)
def test_headers_and_protocols_are_recognised_and_refused(tmp_path, capsys, fmt, name, head):
    if head is not None:
        (tmp_path / name).write_bytes(head.ljust(4096, b"\0"))
    ret, _ = open_image(name)
    said = capsys.readouterr().err
    if fmt == "nbd":
        # probing opens the protocol, is refused, and so knows no format
        assert ret == -errno.ENOENT
    else:
        assert ret == -errno.ENOTSUP
    assert f"the {fmt}" in said and "recognised but not modelled" in said


@pytest.mark.parametrize("length", [1, 7, 63, 511])
def test_short_headers_are_not_taken_for_the_real_thing(tmp_path, length):
    for head in (b"OOOM\0\0\0\3", b"Bochs Virtual HD Image\0", b"WithoutFreeSpace\1", b"conecti"):
        (tmp_path / "x").write_bytes(head[:length])
        assert open_image("x")[1].drv.format_name == "raw"


def test_an_image_that_is_its_own_backing_file(tmp_path, capsys):
    qcow(tmp_path / "x", "x")
    assert open_image("x")[0] == -errno.ELOOP
    assert capsys.readouterr().err == "x: its backing file x leads back to it\n"


def test_a_ring_of_backing_files_and_links(tmp_path, capsys):
    qcow(tmp_path / "a", "b")
    qcow(tmp_path / "b", "link")
    (tmp_path / "link").symlink_to("a")
    assert open_image("a")[0] == -errno.ELOOP
    assert "leads back to it" in capsys.readouterr().err


def test_a_deep_chain_opens_and_reads_through(tmp_path):
    depth = 200
    (tmp_path / "0").write_bytes(b"\x5a" * (1 << 20))
    for n in range(1, depth + 1):
        qcow(tmp_path / str(n), str(n - 1))
    ret, bs = open_image(str(depth))
    buf = bytearray(512)
    assert ret == 0 and bdrv_read(bs, 100, buf, 1) == 0 and buf == b"\x5a" * 512
    bdrv_delete(bs)


def test_a_chain_without_end_is_refused(tmp_path, capsys):
    for n in range(1, MAX_CHAIN + 3):
        qcow(tmp_path / str(n), str(n - 1))
    (tmp_path / "0").write_bytes(bytes(512))
    assert open_image(str(MAX_CHAIN + 2))[0] == -errno.ELOOP
    assert f"more than {MAX_CHAIN} backing files" in capsys.readouterr().err


def test_a_missing_backing_file_closes_all(tmp_path):
    qcow(tmp_path / "x", "gone")
    ret, bs = open_image("x")
    assert ret == -errno.ENOENT and bs.drv is None


def test_reopening_forgets_the_last_backing_file(tmp_path):
    (tmp_path / "base").write_bytes(b"b" * 512)
    (tmp_path / "other").write_bytes(b"o" * 512)
    qcow(tmp_path / "x", "base")
    ret, bs = open_image("x")
    assert ret == 0 and bs.backing_hd.filename == "base"
    bdrv_close(bs)
    assert bdrv_open(bs, "other", BDRV_O_RDWR) == 0 and bs.backing_hd is None and bs.backing_file == ""


def test_snapshot_leaves_the_image_and_tmpdir_alone(tmp_path, monkeypatch):
    image, folder = tmp_path / "x", tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    image.write_bytes(b"\x11" * (1 << 20))
    ret, bs = open_image("x", BDRV_O_RDWR | BDRV_O_SNAPSHOT)
    assert ret == 0 and bs.is_temporary and bs.drv.format_name == "qcow2"
    assert bs.backing_hd.filename == str(image) and not list(folder.iterdir())
    assert bs.drv.bdrv_write(bs, 0, bytes(512), 1) == 0
    buf = bytearray(1024)
    assert bdrv_read(bs, 0, buf, 2) == 0 and buf == bytes(512) + b"\x11" * 512
    bdrv_delete(bs)
    assert image.read_bytes() == b"\x11" * (1 << 20)


def test_snapshot_without_a_temporary_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "x").write_bytes(bytes(512))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    assert open_image("x", BDRV_O_SNAPSHOT)[0] == -errno.ENOENT
    assert "set TMPDIR" in capsys.readouterr().err


def test_change_callback_and_forced_format(tmp_path):
    (tmp_path / "x").write_bytes(bytes(512))
    bs, calls = bdrv_new("ide1-cd0"), []
    bs.change_cb, bs.change_opaque = calls.append, "drive"
    assert bdrv_open2(bs, "x", 0, bdrv_find_format("raw")) == 0 and calls == ["drive"]
    bdrv_close(bs)
    assert calls == ["drive", "drive"] and bs.drv is None


def test_keys():
    given, changed = [], []
    drv = BlockDriver(
        format_name="locked",
        bdrv_set_key=lambda bs, key: given.append((bs.filename, key)) or (0 if key == "sesame" else -1),
    )
    top, base = bdrv_new("ide0-hd0"), bdrv_new("")
    for bs, name in ((top, "top"), (base, "base")):
        bs.drv, bs.filename, bs.encrypted, bs.change_cb, bs.change_opaque = drv, name, 1, changed.append, name
    top.backing_hd, top.backing_file = base, "base"
    assert (bdrv_key_required(top), bdrv_is_encrypted(top)) == (1, 1)
    assert bdrv_get_encrypted_filename(top) == "base"
    assert bdrv_set_key(top, "wrong") < 0 and given == [("base", "wrong")] and not changed
    assert bdrv_set_key(top, "sesame") == 0 and given[1:] == [("base", "sesame"), ("top", "sesame")]
    assert bdrv_key_required(top) == 0 and changed == ["base", "top"]
    plain = bdrv_new("")
    plain.backing_hd = base
    base.valid_key = 0
    assert bdrv_key_required(plain) == 1 and bdrv_set_key(plain, "sesame") == 0
    assert bdrv_set_key(bdrv_new(""), "sesame") == -1
    assert bdrv_get_encrypted_filename(bdrv_new("")) is None


def test_programs_do_not_nest():
    assert current() == "qemu-io"
    with pytest.raises(HypervisorError, match="qemu-io is still running"), program("qemu-img"):
        pass
    assert current() == "qemu-io"


def test_unknown_program():
    with pytest.raises(HypervisorError, match="no program 'qemu'"), program("qemu"):
        pass
