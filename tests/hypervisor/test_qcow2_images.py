"""qcow2 images: ours judged by the real qemu-img, those of the real one read and written by us."""

from __future__ import annotations

import errno
import functools
import os
import random
import resource
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypervisor.aio import qemu_aio_flush
from hypervisor.block import (
    bdrv_aio_cancel,
    bdrv_aio_writev,
    bdrv_check,
    bdrv_create,
    bdrv_delete,
    bdrv_find_format,
    bdrv_is_allocated,
    bdrv_load_vmstate,
    bdrv_new,
    bdrv_open2,
    bdrv_read,
    bdrv_save_vmstate,
    bdrv_snapshot_create,
    bdrv_snapshot_delete,
    bdrv_snapshot_goto,
    bdrv_snapshot_list,
    bdrv_write,
    bdrv_write_compressed,
)
from hypervisor.block.qcow2_format import QCowHeader, words
from hypervisor.block_int import (
    BDRV_O_RDWR,
    BLOCK_OPT_BACKING_FILE,
    BLOCK_OPT_CLUSTER_SIZE,
    BLOCK_OPT_ENCRYPT,
    BLOCK_OPT_PREALLOC,
    BLOCK_OPT_SIZE,
    BlockDriverState,
    QEMUSnapshotInfo,
)
from hypervisor.cutils import QEMUIOVector, iovec, qemu_iovec_init_external
from hypervisor.monitor import Monitor
from hypervisor.monitor_control import eject_device
from hypervisor.qemu_option_parameter import QEMUOptionParameter
from tests.hypervisor import images
from tests.hypervisor.images import drivers, needs_real, opened_as
from tracer import record

SIZE = 1 << 20
CLUSTER_SIZES = (512, 4096, 65536, 2 << 20)
opened = functools.partial(opened_as, "qcow2")


@pytest.fixture(autouse=True)
def _qemu_io() -> Iterator[None]:
    with drivers():
        yield


def create(path: Path, size: int = SIZE, **options: Any) -> int:
    driver = bdrv_find_format("qcow2")
    assert driver is not None
    given = [QEMUOptionParameter(name=BLOCK_OPT_SIZE, n=size)]
    for name, value in options.items():
        text = value if isinstance(value, str) else None
        given.append(QEMUOptionParameter(name=name, n=0 if text else value, s=text))
    return bdrv_create(driver, str(path), given)


def content(bs: BlockDriverState, size: int = SIZE) -> bytes:
    return images.content(bs, size)


def scribble(bs: BlockDriverState, expected: bytearray, seed: int, times: int = 12) -> None:
    """Write at random places, some of it across clusters, and note it in `expected`."""
    dice = random.Random(seed)
    sectors = len(expected) // 512
    for _ in range(times):
        first = dice.randrange(sectors)
        count = dice.randrange(1, min(200, sectors - first) + 1)
        data = dice.randbytes(count * 512)
        assert bdrv_write(bs, first, data, count) == 0
        expected[first * 512 : (first + count) * 512] = data


def real(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=True)


def judge(path: Path, expected: bytes) -> None:
    """The real qemu-img must find the image clean, and its content as expected."""
    raw = path.with_suffix(".expected")
    raw.write_bytes(expected)
    real("qemu-img", "check", "-f", "qcow2", path)
    real("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, path)


def snapshot(bs: BlockDriverState, name: str) -> int:
    return bdrv_snapshot_create(bs, QEMUSnapshotInfo(name=name, date_sec=1))


@needs_real
@pytest.mark.parametrize("cluster_size", CLUSTER_SIZES)
def test_ours_is_clean_and_equal(tmp_path: Path, cluster_size: int) -> None:
    path, expected = tmp_path / "ours.qcow2", bytearray(SIZE)
    assert create(path, **{BLOCK_OPT_CLUSTER_SIZE: cluster_size}) == 0
    with opened(path) as bs:
        scribble(bs, expected, cluster_size)
        assert content(bs) == expected
        assert bdrv_check(bs) == 0
    judge(path, expected)
    with opened(path) as bs:
        assert content(bs) == expected


@needs_real
@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("cluster_size", CLUSTER_SIZES)
def test_real_images_read_and_written(tmp_path: Path, compat: str, cluster_size: int) -> None:
    source, path = tmp_path / "source.raw", tmp_path / "real.qcow2"
    expected = bytearray(random.Random(1).randbytes(SIZE // 2) + bytes(SIZE // 2))
    source.write_bytes(expected)
    options = f"compat={compat},cluster_size={cluster_size}"
    real("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", options, source, path)
    with opened(path) as bs:
        assert content(bs) == expected
        scribble(bs, expected, 2)
    judge(path, expected)


@needs_real
@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_compressed_by_the_real_one_overwritten_by_us(tmp_path: Path, compat: str) -> None:
    source, path = tmp_path / "source.raw", tmp_path / "packed.qcow2"
    expected = bytearray(b"".join(bytes([i % 7]) * 1024 + os.urandom(16) + bytes(496) for i in range(683)))
    del expected[SIZE:]
    expected += bytes(SIZE - len(expected))
    source.write_bytes(expected)
    options = f"compat={compat},cluster_size=16384"
    real("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, source, path)
    with opened(path) as bs:
        assert content(bs) == expected
        scribble(bs, expected, 3, 6)
        assert content(bs) == expected
    judge(path, expected)


@needs_real
@pytest.mark.parametrize("cluster_size", CLUSTER_SIZES[:3])
def test_compressed_by_us(tmp_path: Path, cluster_size: int) -> None:
    path = tmp_path / "ours.qcow2"
    size = SIZE // 2 - 512 * 3  # the last cluster is cut
    dice = random.Random(4)
    expected = bytearray()
    assert create(path, size, **{BLOCK_OPT_CLUSTER_SIZE: cluster_size}) == 0
    with opened(path) as bs:
        for offset in range(0, size, cluster_size):
            length = min(cluster_size, size - offset)
            noise = dice.randrange(length + 1)
            data = dice.randbytes(noise) + bytes([offset % 251]) * (length - noise)
            assert bdrv_write_compressed(bs, offset // 512, data, length // 512) == 0
            expected += data
        assert content(bs, size) == expected
        again = b"\x55" * cluster_size
        assert bdrv_write_compressed(bs, 0, again, cluster_size // 512) == 0
        expected[:cluster_size] = again
        assert bdrv_write(bs, cluster_size // 512, b"\x66" * 512, 1) == 0
        expected[cluster_size : cluster_size + 512] = b"\x66" * 512
        assert bdrv_write_compressed(bs, cluster_size // 512, again, cluster_size // 512) == 0
        expected[cluster_size : 2 * cluster_size] = again
    judge(path, expected)


@needs_real
@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_snapshots_go_back_and_forth(tmp_path: Path, compat: str) -> None:
    path = tmp_path / "snap.qcow2"
    real("qemu-img", "create", "-f", "qcow2", "-o", f"compat={compat},cluster_size=4096", path, str(SIZE))
    now = bytearray(SIZE)
    with opened(path) as bs:
        scribble(bs, now, 5)
    then = bytes(now)
    real("qemu-img", "snapshot", "-c", "theirs", path)
    with opened(path) as bs:
        scribble(bs, now, 6)
        assert snapshot(bs, "ours") == 0
        later = bytes(now)
        scribble(bs, now, 7)
        count, infos = bdrv_snapshot_list(bs)
        assert (count, [info.name for info in infos]) == (2, ["theirs", "ours"])
        assert [info.id_str for info in infos] == ["1", "2"]
    judge(path, now)
    real("qemu-img", "snapshot", "-a", "ours", path)
    judge(path, later)
    with opened(path) as bs:
        assert content(bs) == later
        assert bdrv_snapshot_goto(bs, "theirs") == 0
        assert content(bs) == then
        assert bdrv_snapshot_goto(bs, "none") == -errno.ENOENT
    judge(path, then)
    with opened(path) as bs:
        assert bdrv_snapshot_delete(bs, "1") == 0
        assert bdrv_snapshot_delete(bs, "1") == -errno.ENOENT
        assert bdrv_check(bs) == 0
        assert snapshot(bs, "third") == 0
        scribble(bs, (now := bytearray(then)), 8)
    judge(path, now)
    assert "ours" in real("qemu-img", "snapshot", "-l", path).stdout
    real("qemu-img", "snapshot", "-d", "ours", path)
    real("qemu-img", "snapshot", "-d", "third", path)
    judge(path, now)


@needs_real
@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_overlay_on_a_shorter_base(tmp_path: Path, fmt: str) -> None:
    base, path = tmp_path / "base.img", tmp_path / "over.qcow2"
    expected = bytearray(random.Random(9).randbytes(SIZE // 2 - 1536) + bytes(SIZE // 2 + 1536))
    (tmp_path / "part.raw").write_bytes(expected[: SIZE // 2 - 1536])
    real("qemu-img", "convert", "-f", "raw", "-O", fmt, tmp_path / "part.raw", base)
    assert create(path, **{BLOCK_OPT_BACKING_FILE: str(base)}) == 0
    with opened(path) as bs:
        assert content(bs) == expected
        assert bdrv_is_allocated(bs, 0, 8) == (0, 8)
        scribble(bs, expected, 10, 5)
        assert content(bs) == expected
    real("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", fmt, "-b", base, path)
    judge(path, expected)


@needs_real
@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("lazy_refcounts=on", "lazy refcounts"),
        ("refcount_bits=1", "refcount_order is 0"),
        ("refcount_bits=64", "refcount_order is 6"),
        ("extended_l2=on", "extended L2 entries"),
        ("compression_type=zstd", "compression type"),
        ("data_file=side.raw", "external data file"),
        ("encrypt.format=aes,encrypt.key-secret=s", "encrypted"),
    ],
)
def test_features_are_refused_by_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: str,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = ("--object", "secret,id=s,data=123456")
    real("qemu-img", "create", "-q", *secret, "-f", "qcow2", "-o", options, "new.qcow2", "1M")
    before = Path("new.qcow2").read_bytes()
    with opened(Path("new.qcow2"), -errno.ENOTSUP):
        pass
    assert Path("new.qcow2").read_bytes() == before
    message = capsys.readouterr().err
    assert name in message
    assert message.startswith("qcow2: new.qcow2: ")


@needs_real
def test_bitmaps_and_unknown_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new.qcow2"
    real("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    plain = path.read_bytes()
    real("qemu-img", "bitmap", "--add", path, "b0")
    with opened(path, -errno.ENOTSUP):
        pass
    assert "bitmaps" in capsys.readouterr().err
    at = plain.index(b"dirty bit\0") - 2  # an entry of the feature name table
    new = bytearray(plain)
    new[at : at + 12] = b"\x00\x2a" + b"quantum\0\0\0"
    new[72:80] = (1 << 42).to_bytes(8)
    path.write_bytes(new)
    with opened(path, -errno.ENOTSUP):
        pass
    assert 'feature "quantum" (incompatible bit 42)' in capsys.readouterr().err
    assert path.read_bytes() == new


@needs_real
def test_zero_clusters_fail_without_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "zero.qcow2"
    real("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    real("qemu-io", "-c", "write -P 1 0 128k", "-c", "write -z 64k 64k", path)
    before = path.read_bytes()
    with opened(path) as bs:
        assert bdrv_read(bs, 0, bytearray(512), 1) < 0
        assert bdrv_write(bs, 0, bytes(512), 1) < 0
        assert snapshot(bs, "s") < 0
    assert "zero clusters" in capsys.readouterr().err
    real("qemu-io", "-c", "read -P 1 0 64k", "-c", "read -P 0 64k 64k", path)
    assert path.read_bytes()[: len(before)] == before


@needs_real
def test_concurrent_writes_to_the_same_clusters(tmp_path: Path) -> None:
    path, expected = tmp_path / "aio.qcow2", bytearray(SIZE)
    assert create(path) == 0
    done: list[int] = []
    dice = random.Random(11)
    with opened(path) as bs:
        keep = []
        for first in dice.sample(range(0, 1024, 8), 64):  # disjoint sectors, clusters shared by many
            data = dice.randbytes(8 * 512)
            qiov = QEMUIOVector()
            qemu_iovec_init_external(qiov, [iovec(memoryview(data), len(data))], 1)
            keep.append(qiov)
            expected[first * 512 : first * 512 + len(data)] = data
            assert bdrv_aio_writev(bs, first, qiov, 8, lambda _, ret: done.append(ret), None) is not None
        qemu_aio_flush()
        assert done == [0] * 64
        assert content(bs) == expected
        assert bs.opaque.cluster_allocs is None
    judge(path, expected)


def test_a_medium_is_taken_out_once_its_writes_are_done(tmp_path: Path) -> None:
    path, data = tmp_path / "eject.qcow2", random.Random(3).randbytes(8 * 512)
    assert create(path) == 0
    done: list[int] = []
    with opened(path) as bs:
        qiov = QEMUIOVector()
        qemu_iovec_init_external(qiov, [iovec(memoryview(data), len(data))], 1)
        assert bdrv_aio_writev(bs, 0, qiov, 8, lambda _, ret: done.append(ret), None) is not None
        assert eject_device(Monitor(), bs, 1) == 0
        assert done == [0]
    with opened(path) as bs:
        assert content(bs)[: len(data)] == data


@needs_real
def test_cancelled_writes_let_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "aio.qcow2"
    assert create(path) == 0
    done: list[int] = []
    with opened(path) as bs:
        requests = []
        for number in range(4):  # all in the first cluster: each waits for the first
            data = bytes([number + 1]) * 512
            qiov = QEMUIOVector()
            qemu_iovec_init_external(qiov, [iovec(memoryview(data), 512)], 1)
            cb = lambda number, ret: done.append(number)  # noqa: E731
            requests.append((bdrv_aio_writev(bs, number, qiov, 1, cb, number), qiov))
        bdrv_aio_cancel(requests[2][0])
        bdrv_aio_cancel(requests[0][0])
        qemu_aio_flush()
        assert sorted(done) == [1, 3]
        assert content(bs)[512:1024] == b"\x02" * 512
        assert content(bs)[1536:2048] == b"\x04" * 512
        assert bs.opaque.cluster_allocs is None
    assert subprocess.run(["qemu-img", "check", path], capture_output=True).returncode in (0, 3)


@needs_real
def test_refcount_table_and_l1_grow(tmp_path: Path) -> None:
    size = 10 << 20  # clusters of 512 bytes: the refcount table grows at 8 MiB, L2 tables every 32 KiB
    path = tmp_path / "small.qcow2"
    assert create(path, size, **{BLOCK_OPT_CLUSTER_SIZE: 512}) == 0
    expected = random.Random(12).randbytes(size)
    with opened(path) as bs:
        before = bs.opaque.refcount_table_size, bs.opaque.l1_size
        for at in range(0, size, 1 << 20):
            assert bdrv_write(bs, at // 512, expected[at : at + (1 << 20)], 2048) == 0
        assert bdrv_save_vmstate(bs, b"state" * 30000, 777, 150000) == 150000
        assert bs.opaque.refcount_table_size > before[0]
        assert bs.opaque.l1_size > before[1]
        assert snapshot(bs, "vm") == 0
        assert bdrv_save_vmstate(bs, bytes(150000), 777, 150000) == 150000
    judge(path, expected)
    with opened(path) as bs:
        assert bdrv_snapshot_goto(bs, "vm") == 0
        state = bytearray(150000)
        assert bdrv_load_vmstate(bs, state, 777, 150000) == 150000
        assert state == b"state" * 30000
    judge(path, expected)


@needs_real
@pytest.mark.parametrize("cluster_size", [512, 65536])
def test_preallocated(tmp_path: Path, cluster_size: int) -> None:
    path = tmp_path / "full.qcow2"
    options = {BLOCK_OPT_CLUSTER_SIZE: cluster_size, BLOCK_OPT_PREALLOC: "metadata"}
    assert create(path, **options) == 0
    with opened(path) as bs:
        assert bdrv_is_allocated(bs, 0, SIZE // 512) == (1, SIZE // 512 if cluster_size > 512 else 64)
    judge(path, bytes(SIZE))


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({BLOCK_OPT_CLUSTER_SIZE: 1000}, -errno.EINVAL, "power of two between 512 and 2048k"),
        ({BLOCK_OPT_CLUSTER_SIZE: 4 << 20}, -errno.EINVAL, "power of two between 512 and 2048k"),
        ({BLOCK_OPT_PREALLOC: "half"}, -errno.EINVAL, "Invalid preallocation mode: 'half'"),
        ({BLOCK_OPT_ENCRYPT: 1}, -errno.ENOTSUP, "encryption"),
        ({BLOCK_OPT_BACKING_FILE: "b" * 1024}, -errno.EINVAL, "1024 bytes"),
        ({BLOCK_OPT_CLUSTER_SIZE: 512, BLOCK_OPT_BACKING_FILE: "b" * 460}, -errno.EINVAL, "460 bytes"),
        ({BLOCK_OPT_SIZE: 1 << 50, BLOCK_OPT_CLUSTER_SIZE: 512}, -errno.EFBIG, "use larger ones"),
    ],
)
def test_impossible_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], status: int, message: str
) -> None:
    assert create(tmp_path / "no.qcow2", **options) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "no.qcow2").exists()
    (tmp_path / "precious").write_bytes(b"something else")
    assert create(tmp_path / "precious", **options) == status
    assert (tmp_path / "precious").read_bytes() == b"something else"


def test_a_file_that_cannot_be_opened_is_not_laid_out(tmp_path: Path) -> None:
    """0.12.4 opens the file before it computes anything."""
    with record(None) as rec:
        assert create(tmp_path / "missing" / "no.qcow2") == -errno.ENOENT
    names = [call.function for call in rec.trace.calls()]
    assert "qcow_create2" in names
    assert not {"get_bits_from_size", "align_offset", "qcow2_create_refcount_update"} & set(names)


def test_a_shared_table_is_freed_before_its_copy_is_made(tmp_path: Path) -> None:
    """The order of 0.12.4's get_cluster_table; what the disk holds meanwhile is for test_killed."""
    path = tmp_path / "disk.qcow2"
    create(path)
    with opened(path) as bs:
        assert bdrv_write(bs, 0, bytes(512), 1) == 0
        assert snapshot(bs, "one") == 0
        with record(None) as rec:
            assert bdrv_write(bs, 0, b"\1" * 512, 1) == 0
    calls = list(rec.trace.calls())
    at = next(i for i, call in enumerate(calls) if call.function == "get_cluster_table")
    below = [call for call in calls[at + 1 :] if call.depth == calls[at].depth + 1][:2]
    assert [call.function for call in below] == ["qcow2_free_clusters", "l2_allocate"]
    judge(path, b"\1" * 512 + bytes(SIZE - 512))


BOMBS = {
    "version": (4, 4, 9),
    "cluster_bits": (20, 4, 63),
    "crypt_method": (32, 4, 1),
    "l1_size": (36, 4, 0xFFFFFFFF),
    "l1_table_offset": (40, 8, 0xFFFFFFFFFFFF0000),
    "refcount_table_offset": (48, 8, 1 << 60),
    "refcount_table_clusters": (56, 4, 0xFFFFFFFF),
    "nb_snapshots": (60, 4, 0xFFFFFFFF),
    "backing_file_size": (16, 4, 0xFFFFFFFF),
}


@pytest.mark.parametrize("field", BOMBS)
def test_header_bombs(tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str) -> None:
    path = tmp_path / "bomb.qcow2"
    assert create(path) == 0
    raw = bytearray(path.read_bytes())
    raw[8:16] = (80).to_bytes(8)  # a backing name, so that its length counts
    at, length, value = BOMBS[field]
    raw[at : at + length] = value.to_bytes(length)
    path.write_bytes(raw)
    bs = bdrv_new("")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert bdrv_open2(bs, str(path), BDRV_O_RDWR, bdrv_find_format("qcow2")) in (
        -errno.EINVAL,
        -errno.EFBIG,
        -errno.ENOTSUP,
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 64 << 10
    bdrv_delete(bs)
    message = capsys.readouterr().err
    assert f"{field} is" in message or f"({field} 1)" in message
    assert path.read_bytes() == raw


def test_tables_that_name_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "loop.qcow2"
    assert create(path, 16 << 30) == 0  # 32 L1 entries
    raw = bytearray(path.read_bytes())
    header = QCowHeader.unpack(raw)
    entry = (header.l1_table_offset | 1 << 63).to_bytes(8)
    raw[header.l1_table_offset : header.l1_table_offset + 256] = entry * 32
    path.write_bytes(raw)
    with opened(path) as bs:
        assert bdrv_check(bs) > 0
        assert bdrv_write(bs, 0, bytes(512), 1) < 0
        assert snapshot(bs, "s") < 0
    assert "named twice" in capsys.readouterr().err
    assert path.read_bytes()[: len(raw)] == raw


def test_free_clusters_that_are_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "zeroed.qcow2"
    assert create(path) == 0
    raw = bytearray(path.read_bytes())
    raw[0x30000:0x40000] = bytes(0x10000)  # the refcount block: all is free
    path.write_bytes(raw)
    with opened(path) as bs:
        assert bdrv_write(bs, 0, b"\x77" * 512, 1) < 0
    assert "its own tables" in capsys.readouterr().err
    assert path.read_bytes() == raw


@pytest.mark.parametrize(("wording", "word"), [("", "ERROR"), ("modern", "Leaked")])
def test_check_tells_leaks_from_corruption(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    wording: str,
    word: str,
) -> None:
    """0.12.4 calls both errors, in its words and its number; later versions say Leaked."""
    monkeypatch.setenv("STUDYKVM_WORDING", wording)
    path = tmp_path / "bad.qcow2"
    assert create(path) == 0
    with opened(path) as bs:
        assert bdrv_write(bs, 0, b"\x01" * 512, 1) == 0
    raw = bytearray(path.read_bytes())
    data_cluster = words(raw[0x40000:0x40008])[0] >> 16 & 0xFFFF
    struct.pack_into(">H", raw, 0x30000 + 2 * data_cluster, 0)
    struct.pack_into(">H", raw, 0x30000 + 2 * (data_cluster - 2), 3)
    path.write_bytes(raw)
    with opened(path) as bs:
        assert bdrv_check(bs) == 3
        assert bs.opaque._check == (2, 1, 0)
    assert capsys.readouterr().err.splitlines() == [
        f"ERROR OFLAG_COPIED: offset=80000000000{data_cluster:x}0000 refcount=0",
        f"{word} cluster {data_cluster - 2} refcount=3 reference=1",
        f"ERROR cluster {data_cluster} refcount=0 reference=1",
    ]


@needs_real
@pytest.mark.parametrize("survivors", range(0, 14, 2))
def test_after_a_failed_snapshot_all_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: int
) -> None:
    path, expected = tmp_path / "disk.qcow2", bytearray(SIZE)
    assert create(path, **{BLOCK_OPT_CLUSTER_SIZE: 4096}) == 0
    with opened(path) as bs:
        scribble(bs, expected, 13)
        assert snapshot(bs, "one") == 0
        scribble(bs, expected, 14)
        left = survivors

        def failing(call: Any) -> Any:
            def wrapped(*args: Any) -> Any:
                nonlocal left
                left -= 1
                if left == -1:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return call(*args)

            return wrapped

        with monkeypatch.context() as patch:
            for name in ("write", "pwrite", "pwritev"):
                patch.setattr(os, name, failing(getattr(os, name)))
            bdrv_snapshot_delete(bs, "one")
            assert left < 0
        scribble(bs, expected, 15)
        assert content(bs) == expected
    assert subprocess.run(["qemu-img", "check", path], capture_output=True).returncode in (0, 3)
    with opened(path) as bs:
        assert content(bs) == expected
