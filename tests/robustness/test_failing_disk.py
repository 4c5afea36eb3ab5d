"""A full disk, and reads and writes that fail in mid-operation, for all formats.

A message and a non-zero exit; what was not being written reads as before; what was written before is there.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil

import pytest

FORMATS = ("raw", "qcow", "qcow2")
SIZE = 128 << 10


@pytest.fixture(scope="module")
def stock(tmp_path_factory, run_tool):
    """A folder a format: disk.img, its first 64 KiB written, over base.img unless it is raw."""
    folders = {}
    here = os.getcwd()
    for fmt in FORMATS:
        folders[fmt] = folder = tmp_path_factory.mktemp(fmt)
        os.chdir(folder)
        base = random.Random(fmt).randbytes(SIZE)
        head = b"".join(bytes([i + 1]) * 4096 for i in range(16))
        (folder / "base.img").write_bytes(base)
        if fmt == "raw":
            (folder / "disk.img").write_bytes(base)
        else:
            assert run_tool("qemu-img", "create", "-f", fmt, "-b", "base.img", "disk.img").status == 0
        writes = [part for i in range(16) for part in ("-c", f"write -P {i + 1} {i * 4096} 4096")]
        assert run_tool("qemu-io", *writes, "disk.img").status == 0
        (folder / "content").write_bytes(head + base[len(head) :])
    os.chdir(here)
    return folders


def build(stock, folder, fmt: str) -> bytes:
    """Put a format's images into `folder`; what the guest sees on disk.img."""
    for path in stock[fmt].iterdir():
        shutil.copy(path, folder)
    content = folder / "content"
    data = content.read_bytes()
    content.unlink()
    return data


def read_all(tool, folder) -> bytes:
    result = tool("qemu-img", "convert", "-O", "raw", "disk.img", "content.raw")
    assert result.status == 0, result
    return (folder / "content.raw").read_bytes()


def complaint(result, code: int) -> None:
    text = result.out + result.err
    assert "Traceback" not in text
    assert result.status not in (0, None), text
    assert text.strip(), code


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=lambda code: errno.errorcode[code])
@pytest.mark.parametrize(("once", "short"), [(0, 0), (0, 1), (1, 0)], ids=["for good", "after half", "once"])
def test_write_fails_at_every_call(stock, tool, faults, tmp_path, fmt, code, once, short):
    old = build(stock, tmp_path, fmt)
    pristine = (tmp_path / "disk.img").read_bytes()
    start, length = 62 << 10, 4 << 10
    command = ("qemu-io", "-c", f"write -P 255 {start} {length}", "disk.img")
    with faults(tmp_path) as counted:
        assert tool(*command).status == 0
    for survivors in sorted({*range(min(counted.seen, 8)), counted.seen - 1}):
        (tmp_path / "disk.img").write_bytes(pristine)
        with faults(tmp_path, survivors, code, once=once, short=short) as broken:
            result = tool(*command)
        complaint(result, code)
        assert os.strerror(code) in result.out + result.err, survivors
        assert broken.seen > survivors
        now = read_all(tool, tmp_path)
        assert now[:start] == old[:start], survivors
        assert now[start + length :] == old[start + length :], survivors
        assert (tmp_path / "base.img").stat().st_size == SIZE
        # the disk works again: the same write goes through, and nothing else has moved
        assert tool(*command).status == 0
        now = read_all(tool, tmp_path)
        assert now == old[:start] + b"\xff" * length + old[start + length :], survivors


@pytest.mark.parametrize("fmt", FORMATS)
def test_disk_fills_up_while_the_image_stays_open(stock, tool, faults, tmp_path, fmt):
    """Later writes of the same run must not build on tables that never reached the disk."""
    old = build(stock, tmp_path, fmt)
    pristine = (tmp_path / "disk.img").read_bytes()
    writes = [("write -P 254 73728 1024", 73728), ("write -P 253 98304 1024", 98304)]
    command = ("qemu-io", *(part for text, _ in writes for part in ("-c", text)), "disk.img")
    with faults(tmp_path) as counted:
        assert tool(*command).status == 0
    for survivors in range(counted.seen):
        (tmp_path / "disk.img").write_bytes(pristine)
        with faults(tmp_path, survivors, errno.ENOSPC, once=True):
            result = tool(*command)
        complaint(result, errno.ENOSPC)
        now = read_all(tool, tmp_path)
        for value, (_, at) in zip((254, 253), writes, strict=True):
            assert now[at : at + 1024] in (bytes([value]) * 1024, old[at : at + 1024]) or survivors, survivors
        rest = bytearray(now)
        for _, at in writes:
            rest[at : at + 1024] = old[at : at + 1024]
        assert rest == old, survivors


@pytest.mark.parametrize("fmt", FORMATS)
def test_read_fails_at_every_call(stock, tool, faults, tmp_path, fmt):
    build(stock, tmp_path, fmt)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for command in (
        ("qemu-io", "-c", f"read 0 {SIZE // 2}", "disk.img"),
        ("qemu-img", "convert", "-O", "raw", "disk.img", "copy.raw"),
    ):
        with faults(tmp_path, calls=faults.READS) as counted:
            assert tool(*command).status == 0
        (tmp_path / "copy.raw").unlink(missing_ok=True)
        for survivors in sorted({*range(min(counted.seen, 12)), counted.seen // 2, counted.seen - 1}):
            with faults(tmp_path, survivors, errno.EIO, calls=faults.READS):
                result = tool(*command)
            complaint(result, errno.EIO)
            (tmp_path / "copy.raw").unlink(missing_ok=True)
            assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("target", ["create", "convert"])
def test_no_room_for_a_new_image(stock, tool, faults, tmp_path, fmt, target):
    build(stock, tmp_path, "qcow2")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    command = {
        "create": ("qemu-img", "create", "-f", fmt, "new.img", "1M"),
        "convert": ("qemu-img", "convert", "-O", fmt, "disk.img", "new.img"),
    }[target]
    with faults(tmp_path) as counted:
        assert tool(*command).status == 0
    for survivors in sorted({*range(min(counted.seen, 10)), counted.seen // 2, counted.seen - 1}):
        (tmp_path / "new.img").unlink(missing_ok=True)
        with faults(tmp_path, survivors, errno.ENOSPC, short=True):
            result = tool(*command)
        complaint(result, errno.ENOSPC)
        (tmp_path / "new.img").unlink(missing_ok=True)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("fmt", ["qcow", "qcow2"])
@pytest.mark.parametrize("once", [False, True], ids=["for good", "once"])
def test_compressing_fails_at_every_call(stock, tool, faults, tmp_path, fmt, once):
    """Also at the last one, which moves the end of the file to a whole sector."""
    old = build(stock, tmp_path, "qcow2")
    command = ("qemu-img", "convert", "-c", "-O", fmt, "disk.img", "new.img")
    with faults(tmp_path) as counted:
        assert tool(*command).status == 0
    for survivors in range(counted.seen):
        (tmp_path / "new.img").unlink(missing_ok=True)
        with faults(tmp_path, survivors, errno.EIO, once=once):
            result = tool(*command)
        complaint(result, errno.EIO)
    assert read_all(tool, tmp_path) == old


@pytest.mark.parametrize("fmt", ["qcow", "qcow2"])
@pytest.mark.parametrize("broken", ["base.img", "disk.img"])
def test_commit_that_fails_can_be_done_again(stock, tool, faults, tmp_path, fmt, broken):
    old = build(stock, tmp_path, fmt)
    pristine = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    command = ("qemu-img", "commit", "disk.img")
    calls = faults.CHANGES if broken == "base.img" else faults.READS
    with faults(tmp_path, calls=calls) as counted:
        assert tool(*command).status == 0
    for survivors in sorted({0, 1, 2, 3, 5, 50, counted.seen // 2, counted.seen - 1}):
        for name, raw in pristine.items():
            (tmp_path / name).write_bytes(raw)
        with faults(tmp_path, survivors, errno.EIO, calls=calls):
            result = tool(*command)
        complaint(result, errno.EIO)
        assert read_all(tool, tmp_path) == old, survivors
        assert tool(*command).status == 0
        assert read_all(tool, tmp_path) == old, survivors
        assert (tmp_path / "base.img").read_bytes() == old


def test_a_really_full_disk(tool, tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here: run on Linux")
    result = tool("qemu-io", "-c", "write 0 512", "/dev/full")
    complaint(result, errno.ENOSPC)


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_kernel_refuses_a_longer_file(stock, tool, tmp_path, fmt):
    """A real EFBIG: the calls that extend the image fail, those within it work."""
    old = build(stock, tmp_path, fmt)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (0, 512, 1024, 33280):
        build(stock, tmp_path, fmt)
        limit = (tmp_path / "disk.img").stat().st_size + (room if fmt != "raw" else -65536)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            result = tool("qemu-io", "-c", "write -P 255 65536 65536", "disk.img")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        complaint(result, errno.EFBIG)
        assert read_all(tool, tmp_path)[:65536] == old[:65536]
        assert tool("qemu-io", "-c", "write -P 255 65536 65536", "disk.img").status == 0
        assert read_all(tool, tmp_path) == old[:65536] + b"\xff" * 65536
