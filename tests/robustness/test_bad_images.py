"""Images that are missing, empty, cut, garbage, no files at all, or lead to a bad backing file."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import pytest

FORMATS = ("raw", "qcow", "qcow2")
READERS = {
    "info": ("qemu-img", "info"),
    "check": ("qemu-img", "check"),
    "commit": ("qemu-img", "commit"),
    "snapshot": ("qemu-img", "snapshot", "-l"),
    "io": ("qemu-io", "-c", "read 0 512"),
}
RUN = """
import sys
from hypervisor import qemu_img, qemu_io
from hypervisor.program import program
with program(sys.argv[1]):
    sys.exit({"qemu-img": qemu_img, "qemu-io": qemu_io}[sys.argv[1]].main(sys.argv[1:]))
"""


def failed(result, *words):
    """A message that says so, a status that says so, and no traceback."""
    text = result.out + result.err
    assert result.status not in (0, None), text
    assert text.strip()
    assert "Traceback" not in text
    for word in words:
        assert word in text, text


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("forced", [None, *FORMATS])
def test_missing(tool, tmp_path, reader, forced):
    name, *argv = READERS[reader]
    if forced and reader != "snapshot":  # which has no option that names a format
        argv += ["-f", forced]
    failed(tool(name, *argv, "nothere.img"), "" if reader == "io" else "nothere.img")
    assert os.listdir(tmp_path) == []


def make(tool, path: Path, fmt: str, base: str | None = None, size: str = "1M") -> Path:
    backing = [] if base is None else ["-b", base]
    result = tool("qemu-img", "create", "-f", fmt, *backing, path.name, *([] if base else [size]))
    assert result.status == 0, result
    return path


def spoil(kind: str, tool, path: Path) -> None:
    rng = random.Random(11)
    fmt, _, way = kind.partition("-")
    if fmt == "empty":
        path.write_bytes(b"")
    elif fmt == "garbage":
        path.write_bytes(rng.randbytes(5000))
    else:
        make(tool, path, fmt)
        assert tool("qemu-io", "-c", "write -P 7 0 8192", path.name).status == 0
        os.truncate(path, int(way) if way != "half" else path.stat().st_size // 2)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "kind",
    ["empty", "garbage", *(f"{f}-{n}" for f in ("qcow", "qcow2") for n in (4, 47, 60, 100, 600, "half"))],
)
def test_spoilt(tool, tmp_path, kind, reader):
    image = tmp_path / "spoilt.img"
    spoil(kind, tool, image)
    before = image.read_bytes()
    result = tool(*READERS[reader], "spoilt.img")
    assert "Traceback" not in result.out + result.err
    assert result.status == 0 or (result.out + result.err).strip()
    if reader not in ("commit", "io"):
        assert image.read_bytes() == before
    if kind == "empty" and reader == "io":
        failed(result)


@pytest.mark.parametrize("fmt", ["qcow", "qcow2"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 100], ids=["empty", "garbage"])
def test_forced_format_does_not_fit(tool, tmp_path, fmt, content):
    (tmp_path / "x.img").write_bytes(content)
    failed(tool("qemu-img", "info", "-f", fmt, "x.img"), "x.img")
    failed(tool("qemu-img", "check", "-f", fmt, "x.img"), "x.img")
    failed(tool("qemu-img", "convert", "-f", fmt, "-O", "raw", "x.img", "y.img"), "x.img")
    assert (tmp_path / "x.img").read_bytes() == content


@pytest.mark.parametrize("reader", READERS)
def test_directory(tool, tmp_path, reader):
    (tmp_path / "folder").mkdir()
    failed(tool(*READERS[reader], "folder"))
    assert os.listdir(tmp_path / "folder") == []


@pytest.mark.parametrize("reader", READERS)
def test_unreadable(tool, monkeypatch, reader):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to other users
        os.chmod(folder, 0o755)
        monkeypatch.chdir(folder)
        Path("secret.img").write_bytes(bytes(1 << 20))
        os.chmod("secret.img", 0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            failed(tool(*READERS[reader], "secret.img"))
        finally:
            if root:
                os.seteuid(0)
            monkeypatch.chdir("/")


@pytest.mark.parametrize(
    "argv",
    [
        *READERS.values(),
        *(("qemu-img", "create", "-f", fmt, "fifo", "1M") for fmt in FORMATS),
    ],
    ids=" ".join,
)
def test_fifo_does_not_hang(tmp_path, argv):
    os.mkfifo(tmp_path / "fifo")
    command = [sys.executable, "-c", RUN, *argv, *([] if "fifo" in argv else ["fifo"])]
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30)
    assert result.returncode not in (0, None)
    assert "Traceback" not in result.stderr
    assert "fifo" in result.stdout + result.stderr or "failed" in result.stdout + result.stderr


@pytest.mark.parametrize("fmt", ["qcow", "qcow2"])
@pytest.mark.parametrize("reader", ["info", "io", "commit"])
def test_backing_file_is_missing(tool, tmp_path, fmt, reader):
    make(tool, tmp_path / "base.img", "raw")
    overlay = make(tool, tmp_path / "overlay.img", fmt, "base.img")
    (tmp_path / "base.img").unlink()
    before = overlay.read_bytes()
    result = tool(*READERS[reader], "overlay.img")
    failed(result)
    assert overlay.read_bytes() == before
    assert os.listdir(tmp_path) == ["overlay.img"]


def set_backing(path: Path, name: str) -> None:
    """Point an image at a backing file whose name is as long as the present one's."""
    raw = bytearray(path.read_bytes())
    at, size = struct.unpack_from(">QI", raw, 8)
    assert size == len(name)
    raw[at : at + size] = name.encode()
    path.write_bytes(raw)


@pytest.mark.parametrize("fmt", ["qcow", "qcow2"])
@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"]], ids=len)
@pytest.mark.parametrize("reader", ["info", "io", "commit", "check"])
def test_backing_files_in_a_ring(tool, tmp_path, fmt, names, reader):
    make(tool, tmp_path / "z", "raw")
    for name in names:
        make(tool, tmp_path / name, fmt, "z")
    for i, name in enumerate(names):
        set_backing(tmp_path / name, names[(i + 1) % len(names)])
    failed(tool(*READERS[reader], "a"))


@pytest.mark.parametrize("fmt", ["qcow", "qcow2"])
def test_long_chain(tool, tmp_path, fmt):
    (tmp_path / "0.img").write_bytes(b"\x5a" * 65536)
    assert tool("qemu-img", "create", "-f", fmt, "-b", "0.img", "1.img").status == 0
    for i in range(2, 200):
        raw = (tmp_path / f"{i - 1}.img").read_bytes()
        at, _ = struct.unpack_from(">QI", raw, 8)
        # room for a name of five characters is what the first of the chain has
        name = f"{i - 1}.img".encode()
        grown = raw[:16] + struct.pack(">I", len(name)) + raw[20:at] + name + raw[at + len(name) :]
        (tmp_path / f"{i}.img").write_bytes(grown)
    result = tool("qemu-io", "-c", "read -P 0x5a 0 65536", "199.img")
    assert result.status == 0
    assert "Pattern verification failed" not in result.out + result.err


def header_bombs() -> list[tuple[str, int, bytes]]:
    """(format, offset, bytes): numbers in a header that would need a huge table, or none at all."""
    huge = (b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x00\x40" + bytes(6), b"\x00\x00\x40\x00" + bytes(4))
    words = (b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x20\x00\x00\x00", bytes(4))
    bombs = [("qcow", offset, value) for offset in (8, 24, 40) for value in huge]
    bombs += [("qcow", offset, value) for offset in (4, 16, 36) for value in words]
    bits = ((9, 0), (9, 64), (255, 255), (31, 9), (16, 63), (0, 0))
    bombs += [("qcow", 32, bytes(pair)) for pair in bits]
    bombs += [("qcow2", offset, value) for offset in (8, 24, 40, 48, 64) for value in huge]
    bombs += [("qcow2", offset, value) for offset in (4, 16, 20, 32, 36, 56, 60) for value in words]
    bombs += [("qcow2", 20, struct.pack(">I", bits)) for bits in (0, 8, 22, 31, 32, 63)]
    return bombs


@pytest.mark.parametrize(("fmt", "offset", "value"), header_bombs(), ids=str)
def test_header_bomb(tool, tmp_path, fmt, offset, value):
    image = make(tool, tmp_path / "bomb.img", fmt, size="4M")
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(value)
    before = image.read_bytes()
    tracemalloc.start()
    try:
        for reader in ("info", "check", "snapshot", "io"):
            result = tool(*READERS[reader], "bomb.img")
            text = result.out + result.err
            assert "Traceback" not in text
            assert result.status == 0 or text.strip()
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert image.read_bytes() == before
