"""A program killed at any write: the image is at worst leaking, and what was not being written is whole.

Each operation runs once for every system call that changes a file: up to the N-th they work, from there on
all fail, as if the process had ended there. ``check``, ours and the real one's, must then find no
corruption, and a guest must read either the old or the new bytes.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
from pathlib import Path

import pytest

SMALL = ("-o", "cluster_size=512")
SMALL_4K = ("-o", "cluster_size=4096")
FULL = ("-o", "cluster_size=4096,preallocation=metadata")


def build(tool, folder: Path) -> None:
    """The images that the operations start from."""
    rng = random.Random(5)
    (folder / "base.img").write_bytes(rng.randbytes(256 << 10))

    def img(*argv):
        result = tool("qemu-img", *argv)
        assert result.status == 0, result

    def io(image, *commands):
        argv = [part for command in commands for part in ("-c", command)]
        assert tool("qemu-io", *argv, image).status == 0

    img("create", "-f", "qcow2", "-o", "cluster_size=512,backing_file=base.img", "over.qcow2")
    img("create", "-f", "qcow2", "-o", "cluster_size=4096", "plain.qcow2", "1M")
    io("plain.qcow2", "write -P 1 0 65536", "write -P 2 131072 8192")
    shutil.copy(folder / "plain.qcow2", folder / "snap.qcow2")
    img("snapshot", "-c", "one", "snap.qcow2")
    io("snap.qcow2", "write -P 3 4096 4096")
    # 512-byte clusters: an L2 table maps 32 KiB, a refcount block 128 KiB of the file
    img("create", "-f", "qcow2", *SMALL, "small.qcow2", "1M")
    io("small.qcow2", "write -P 1 0 110592")
    io("over.qcow2", "write -P 4 1024 2048", "write -P 5 65536 512")
    img("convert", "-c", "-f", "raw", "-O", "qcow2", "base.img", "packed.qcow2")
    shutil.copy(folder / "base.img", folder / "same.img")
    # clusters that compress, to pieces of many lengths, so that some share host clusters and some sectors
    for name in ("text.img", "next.img"):
        parts = (rng.randbytes(part := rng.randrange(300, 3500)) + bytes(4096 - part) for _ in range(12))
        (folder / name).write_bytes(b"".join(parts))
    for fmt in ("qcow", "qcow2"):
        img("convert", "-c", "-O", fmt, *(SMALL_4K if fmt == "qcow2" else ()), "text.img", f"text.{fmt}")
    shutil.copy(folder / "small.qcow2", folder / "twice.qcow2")
    img("snapshot", "-c", "one", "twice.qcow2")
    io("twice.qcow2", "write -P 3 4096 4096")
    img("snapshot", "-c", "two", "twice.qcow2")
    # the snapshot table takes two clusters; each snapshot has data that no other has
    img("create", "-f", "qcow2", *SMALL, "many.qcow2", "128K")
    for number in range(1, 5):
        io("many.qcow2", f"write -P {number} {number * 4096} 12288")
        img("snapshot", "-c", f"{number}-{'long name ' * 20}", "many.qcow2")
    # one cluster of refcount table reaches to 8 MiB of the file, and the disk nearly so far
    img("create", "-f", "qcow2", "-o", "cluster_size=512,preallocation=metadata", "full.qcow2", "8016K")


OPERATIONS = {
    "allocate": ("plain.qcow2", ("qemu-io", "-c", "write -P 9 262144 10240", "plain.qcow2")),
    "allocate-l2": ("small.qcow2", ("qemu-io", "-c", "write -P 9 524288 1024", "small.qcow2")),
    "overwrite": ("plain.qcow2", ("qemu-io", "-c", "write -P 9 2048 8192", "plain.qcow2")),
    "overlay": ("over.qcow2", ("qemu-io", "-c", "write -P 9 1536 4096", "over.qcow2")),
    "overwrite-shared": ("snap.qcow2", ("qemu-io", "-c", "write -P 9 2048 12288", "snap.qcow2")),
    "copy-shared-table": ("many.qcow2", ("qemu-io", "-c", "write -P 9 2048 12288", "many.qcow2")),
    "overwrite-compressed": ("packed.qcow2", ("qemu-io", "-c", "write -P 9 1024 1024", "packed.qcow2")),
    "refcount-growth": ("small.qcow2", ("qemu-io", "-c", "write -P 9 131072 32768", "small.qcow2")),
    "table-growth": ("full.qcow2", ("qemu-io", "-c", "write -b -P 9 0 32768", "full.qcow2")),
    "l1-growth": ("small.qcow2", ("qemu-io", "-c", "write -b -P 9 0 65536", "small.qcow2")),
    "snapshot-create": ("plain.qcow2", ("qemu-img", "snapshot", "-c", "new", "plain.qcow2")),
    "snapshot-second": ("snap.qcow2", ("qemu-img", "snapshot", "-c", "two", "snap.qcow2")),
    "snapshot-small": ("small.qcow2", ("qemu-img", "snapshot", "-c", "two", "small.qcow2")),
    "snapshot-apply": ("snap.qcow2", ("qemu-img", "snapshot", "-a", "one", "snap.qcow2")),
    "snapshot-delete": ("snap.qcow2", ("qemu-img", "snapshot", "-d", "one", "snap.qcow2")),
    "snapshot-delete-first": ("twice.qcow2", ("qemu-img", "snapshot", "-d", "one", "twice.qcow2")),
    "snapshot-apply-first": ("twice.qcow2", ("qemu-img", "snapshot", "-a", "one", "twice.qcow2")),
    "snapshot-delete-reuse": ("many.qcow2", ("qemu-img", "snapshot", "-d", "2", "many.qcow2")),
    "snapshot-delete-last": ("many.qcow2", ("qemu-img", "snapshot", "-d", "4", "many.qcow2")),
    "overwrite-vmstate": ("many.qcow2", ("qemu-io", "-c", "write -b -P 9 0 32768", "many.qcow2")),
    "commit": ("over.qcow2", ("qemu-img", "commit", "over.qcow2")),
    "rebase": ("over.qcow2", ("qemu-img", "rebase", "-F", "raw", "-b", "same.img", "over.qcow2")),
    "create": ("new.qcow2", ("qemu-img", "create", "-f", "qcow2", *SMALL, "new.qcow2", "1M")),
    "preallocate": ("new.qcow2", ("qemu-img", "create", "-f", "qcow2", *FULL, "new.qcow2", "256K")),
    "convert": ("new.qcow2", ("qemu-img", "convert", "-O", "qcow2", "base.img", "new.qcow2")),
    "compress": (
        "new.qcow2",
        ("qemu-img", "convert", "-c", "-O", "qcow2", *SMALL_4K, "text.img", "new.qcow2"),
    ),
    "compress-qcow": ("new.qcow", ("qemu-img", "convert", "-c", "-O", "qcow", "text.img", "new.qcow")),
    "compress-again": (
        "text.qcow2",
        ("qemu-img", "convert", "-n", "-c", "-O", "qcow2", "next.img", "text.qcow2"),
    ),
    "compress-again-qcow": (
        "text.qcow",
        ("qemu-img", "convert", "-n", "-c", "-O", "qcow", "next.img", "text.qcow"),
    ),
    "compress-over": (
        "plain.qcow2",
        ("qemu-img", "convert", "-n", "-c", "-O", "qcow2", "next.img", "plain.qcow2"),
    ),
    "compress-shared": (
        "snap.qcow2",
        ("qemu-img", "convert", "-n", "-c", "-O", "qcow2", "next.img", "snap.qcow2"),
    ),
}
"""Name -> (the image at stake, the command)."""


@pytest.fixture(scope="module")
def stock(tmp_path_factory, run_tool):
    """A folder with the starting images, made once."""
    folder = tmp_path_factory.mktemp("stock")
    here = os.getcwd()
    os.chdir(folder)
    try:
        build(run_tool, folder)
    finally:
        os.chdir(here)
    return folder


def start_over(stock: Path, folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    for path in stock.iterdir():
        shutil.copy(path, folder)


def changes(tool, faults, stock, folder, command) -> int:
    """How many changing calls the whole operation makes."""
    start_over(stock, folder)
    with faults(folder) as counted:
        assert tool(*command).status == 0
    return counted.seen


def read_all(tool, folder: Path, image: str) -> bytes:
    result = tool("qemu-img", "convert", "-O", "raw", image, "content.raw")
    assert result.status == 0, result
    return (folder / "content.raw").read_bytes()


def is_leak(line: str) -> bool:
    """Whether an error that 0.12.4's ``check`` prints only counts a cluster too often."""
    match = re.fullmatch(r"ERROR cluster \d+ refcount=(\d+) reference=(\d+)", line)
    return match is not None and int(match[1]) > int(match[2])


def is_complete(raw: bytes) -> bool:
    """Whether the header of an image, and the L1 table that it names, were written at all."""
    if raw[:4] != b"QFI\xfb":
        return False
    return len(raw) > int.from_bytes(raw[40:48])


@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_at_every_write(tool, faults, real_check, stock, tmp_path, name):
    image, command = OPERATIONS[name]
    path = tmp_path / image
    total = changes(tool, faults, stock, tmp_path, command)
    assert total
    new = read_all(tool, tmp_path, image)
    start_over(stock, tmp_path)
    old = read_all(tool, tmp_path, image) if path.exists() else None
    if old is None and name.startswith("compress"):
        old = bytes(len(new))
    met = set()
    # the call at which it ends does nothing, or half of its work
    halves = (False,) if name == "table-growth" else (False, True)  # a large image, slow to look through
    for survivors, torn in itertools.product(range(total), halves):
        start_over(stock, tmp_path)
        with faults(tmp_path, survivors, short=torn):
            result = tool(*command)
        where = f"killed after {survivors} of {total} changes: {result}"
        assert "Traceback" not in result.err, where
        assert result.status == 0 or (result.out + result.err).strip(), where
        raw = path.read_bytes() if path.exists() else b""
        if (raw, result.status) in met:
            continue
        met.add((raw, result.status))
        if raw[:8] == b"QFI\xfb\0\0\0\2":
            assert real_check(path) in (0, 3), where
            ours = tool("qemu-img", "check", image)
            errors = [line for line in (ours.out + ours.err).splitlines() if line.startswith("ERROR")]
            assert all(is_leak(line) for line in errors), (where, errors)
        if result.status == 0:
            assert read_all(tool, tmp_path, image) == new, where
        elif old is not None and is_complete(raw):
            content = read_all(tool, tmp_path, image)
            changed = [i for i in range(0, len(old), 512) if old[i : i + 512] != content[i : i + 512]]
            assert all(new[i : i + 512] != old[i : i + 512] for i in changed), where
