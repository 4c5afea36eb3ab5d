"""Random work on images, held against a byte array and judged by QEMU's own tools."""

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hypervisor.tools import img, io_, needs_qemu, ours, real

SECTORS = 512
CREATE = {
    "raw": ("-f", "raw"),
    "qcow": ("-f", "qcow"),
    "qcow2, small clusters": ("-f", "qcow2", "-o", "cluster_size=512"),
    "qcow2": ("-f", "qcow2"),
}

write = st.tuples(st.just("write"), st.integers(0, SECTORS - 1), st.integers(1, 40), st.integers(0, 255))
snapshot = st.tuples(st.just("snapshot"), st.sampled_from("cccad"), st.sampled_from("xyz"))
resize = st.tuples(st.just("resize"), st.integers(1, 300))
commit = st.tuples(st.just("commit"))


class Disk:
    """An image and what it should hold."""

    def __init__(self, kind: str, base: bool) -> None:
        self.format = CREATE[kind][1]
        self.content = bytearray(SECTORS * 512)
        self.snapshots: dict[str, bytes] = {}
        options = CREATE[kind]
        self.base = base and self.format != "raw"
        if self.base:
            img("create", "-f", "raw", "base.img", str(len(self.content)))
            io_("base.img", "write -P 9 64k 96k")
            self.content[64 << 10 : 160 << 10] = b"\x09" * (96 << 10)
            options = (*options, "-b", "base.img")
        img("create", *options, "disk.img", str(len(self.content)))

    def write(self, sector: int, count: int, byte: int) -> None:
        count = min(count, len(self.content) // 512 - sector)
        io_("disk.img", f"write -P {byte} {sector * 512} {count * 512}", options=("-f", self.format))
        self.content[sector * 512 : (sector + count) * 512] = bytes((byte,)) * (count * 512)

    def snapshot(self, action: str, name: str) -> None:
        if self.format != "qcow2" or (action == "c") == (name in self.snapshots):
            return
        img("snapshot", f"-{action}", name, "disk.img")
        if action == "c":
            self.snapshots[name] = bytes(self.content)
        elif action == "a":
            self.content[:] = self.snapshots[name]
        else:
            del self.snapshots[name]

    def resize(self, sectors: int) -> None:
        if self.format == "qcow" or self.snapshots or self.base:
            return
        img("resize", "-f", self.format, "disk.img", f"+{sectors * 512}")
        self.content += bytes(sectors * 512)

    def commit(self) -> None:
        # A snapshot keeps nothing of the base, so a commit would change what it shows.
        if self.base and not self.snapshots:
            img("commit", "disk.img")

    def check(self) -> None:
        """Read it back with both tools."""
        Path("want.raw").write_bytes(self.content)
        img("convert", "-f", self.format, "-O", "raw", "disk.img", "ours.raw")
        assert Path("ours.raw").read_bytes() == self.content
        real("qemu-img", "compare", "-f", self.format, "-F", "raw", "disk.img", "want.raw")
        if self.format == "qcow2":
            real("qemu-img", "check", "-f", "qcow2", "disk.img")
            img("check", "disk.img")


@contextlib.contextmanager
def fresh_folder():
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield


@needs_qemu
@pytest.mark.parametrize("base", [False, True], ids=["alone", "on a base"])
@pytest.mark.parametrize("kind", CREATE)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.one_of(write, write, snapshot, resize, commit), max_size=9))
def test_any_sequence_reads_back_in_both_worlds(kind, base, steps):
    with fresh_folder():
        disk = Disk(kind, base)
        for name, *arguments in steps:
            getattr(disk, name)(*arguments)
        disk.check()
        for name, content in disk.snapshots.items():
            disk.snapshot("a", name)
            assert disk.content == content
            disk.check()


@needs_qemu
@pytest.mark.parametrize("fmt", ["qcow", "qcow2"])
def test_each_commits_what_the_other_wrote(fmt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["-o", "compat=0.10"] if fmt == "qcow2" else []
    for name, commit in (
        ("a", lambda top: img("commit", top)),
        ("b", lambda top: real("qemu-img", "commit", top)),
    ):
        base, top = f"{name}.base", f"{name}.top"
        img("create", "-f", "raw", base, "1M")
        if name == "a":
            real("qemu-img", "create", "-q", "-f", fmt, *options, "-b", base, "-F", "raw", top)
            real("qemu-io", "-f", fmt, "-c", "write -P 5 100k 130k", top)
        else:
            img("create", "-f", fmt, "-b", base, top)
            io_(top, "write -P 5 100k 130k")
        commit(top)
        content = Path(base).read_bytes()
        assert content == bytes(100 << 10) + b"\x05" * (130 << 10) + bytes(len(content) - (230 << 10))


@needs_qemu
def test_compressed_images_are_read_by_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("s.raw").write_bytes(bytes(range(256)) * 1024 + bytes(300 << 10) + b"x" * (212 << 10))
    img("convert", "-c", "-O", "qcow2", "s.raw", "ours.qcow2")
    real("qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compat=0.10", "s.raw", "theirs.qcow2")
    for image in ("ours.qcow2", "theirs.qcow2"):
        assert Path(image).stat().st_size < Path("s.raw").stat().st_size
        real("qemu-img", "check", image)
        real("qemu-img", "compare", "-F", "raw", image, "s.raw")
        assert ours("qemu-img", "compare", "-F", "raw", image, "s.raw").out == "Images are identical.\n"


@needs_qemu
def test_snapshots_of_the_one_are_applied_by_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real("qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "a.img", "1M")
    io_("a.img", "write -P 1 0 64k")
    real("qemu-img", "snapshot", "-c", "one", "a.img")
    io_("a.img", "write -P 2 0 64k")
    img("snapshot", "-c", "two", "a.img")
    io_("a.img", "write -P 3 0 64k")
    img("snapshot", "-a", "one", "a.img")
    real("qemu-io", "-f", "qcow2", "-c", "read -P 1 0 64k", "a.img")
    real("qemu-img", "snapshot", "-a", "two", "a.img")
    io_("a.img", "read -P 2 0 64k")
    img("snapshot", "-d", "one", "a.img")
    real("qemu-img", "snapshot", "-d", "two", "a.img")
    assert "one" not in real("qemu-img", "info", "a.img")
    real("qemu-img", "check", "a.img")
