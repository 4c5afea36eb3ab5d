"""qcow images: against a byte array, against the real qemu-img, and damaged by hand."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import itertools
import random
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor.aio import qemu_aio_flush, qemu_aio_wait
from hypervisor.block import (
    bdrv_aio_cancel,
    bdrv_aio_readv,
    bdrv_aio_writev,
    bdrv_create,
    bdrv_find_format,
    bdrv_is_allocated,
    bdrv_read,
    bdrv_set_key,
    bdrv_write,
    bdrv_write_compressed,
)
from hypervisor.block.qcow_format import QCOW_MAGIC, QCowHeader, header_problem, l1_entries
from hypervisor.block_int import (
    BLOCK_OPT_BACKING_FILE,
    BLOCK_OPT_ENCRYPT,
    BLOCK_OPT_SIZE,
    BlockDriverState,
)
from hypervisor.cutils import QEMUIOVector, iovec, qemu_iovec_init_external
from hypervisor.qemu_option_parameter import QEMUOptionParameter
from tests.hypervisor import images
from tests.hypervisor.images import REAL, drivers, needs_real, opened_as

SIZE = 96 * 1024
opened = functools.partial(opened_as, "qcow")


@pytest.fixture(autouse=True)
def _qemu_io() -> Iterator[None]:
    with drivers():
        yield


def create(path: Path, size: int, base: str | None = None, encrypt: int = 0) -> int:
    options = [
        QEMUOptionParameter(name=BLOCK_OPT_SIZE, n=size),
        QEMUOptionParameter(name=BLOCK_OPT_BACKING_FILE, s=base),
        QEMUOptionParameter(name=BLOCK_OPT_ENCRYPT, n=encrypt),
    ]
    driver = bdrv_find_format("qcow")
    assert driver is not None
    return bdrv_create(driver, str(path), options)


def content(bs: BlockDriverState, size: int = SIZE) -> bytes:
    return images.content(bs, size)


def vector(data: bytearray, cuts: list[int]) -> QEMUIOVector:
    view, edges = memoryview(data), [0, *sorted(cuts), len(data)]
    pieces = [iovec(view[a:b], b - a) for a, b in itertools.pairwise(edges) if b > a]
    qiov = QEMUIOVector()
    qemu_iovec_init_external(qiov, pieces, len(pieces))
    return qiov


def transfer(submit: object, bs: BlockDriverState, sector: int, data: bytearray, cuts: list[int]) -> int:
    done: list[int] = []
    acb = submit(bs, sector, vector(data, cuts), len(data) // 512, lambda _, ret: done.append(ret), None)
    assert acb is not None
    while not done:
        qemu_aio_wait()
    return done[0]


def real(*argv: str | Path, status: int = 0) -> None:
    command = [str(REAL), *map(str, argv)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == status, result.stderr


def poke(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


WRITES = st.lists(
    st.tuples(
        st.integers(0, SIZE // 512 - 1),
        st.integers(1, 40),
        st.integers(0, 255),
        st.lists(st.integers(0, 40), max_size=3),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base=st.sampled_from([None, 0, 1, 100, SIZE // 512]), writes=WRITES, reopen=st.integers(0, 12))
def test_random_writes_equal_a_byte_array(tmp_path, base, writes, reopen):
    model = bytearray(SIZE)
    if base is not None:
        model[: base * 512] = random.Random(base).randbytes(base * 512)
        (tmp_path / "base").write_bytes(model[: base * 512])
    image = tmp_path / "image"
    assert create(image, SIZE, None if base is None else "base") == 0
    for part in (writes[:reopen], writes[reopen:]):
        with opened(image) as bs:
            for sector, count, pattern, cuts in part:
                count = min(count, SIZE // 512 - sector)
                data = bytearray(bytes((pattern + i) & 255 for i in range(count)) * 512)
                cuts = [cut * 512 for cut in cuts if cut < count]
                assert transfer(bdrv_aio_writev, bs, sector, data, cuts) == 0
                model[sector * 512 : sector * 512 + len(data)] = data
                back = bytearray(len(data))
                assert transfer(bdrv_aio_readv, bs, sector, back, cuts) == 0
                assert back == data
            assert content(bs) == model
    if REAL:
        real("convert", "-f", "qcow", "-O", "raw", image, tmp_path / "raw")
        assert (tmp_path / "raw").read_bytes() == model


@needs_real
@pytest.mark.parametrize("flags", [[], ["-c"]], ids=["plain", "compressed"])
def test_image_of_the_real_qemu_img_is_read_and_overwritten(tmp_path, flags):
    rng = random.Random(7)
    model = bytearray(rng.randbytes(8192) + bytes(16384) + b"text " * 8192 + rng.randbytes(32768))
    model += bytes(-len(model) % 4096)
    (tmp_path / "raw").write_bytes(model)
    image = tmp_path / "image"
    # 7.2's qcow driver refuses the empty write that ends a compressed image; all is there by then
    real("convert", *flags, "-f", "raw", "-O", "qcow", tmp_path / "raw", image, status=len(flags))
    real("compare", "-f", "raw", "-F", "qcow", tmp_path / "raw", image)
    with opened(image) as bs:
        assert content(bs, len(model)) == model
        for sector in (0, 17, 50, 70, len(model) // 512 - 1):
            assert bdrv_write(bs, sector, b"\x5a" * 512, 1) == 0
            model[sector * 512 : sector * 512 + 512] = b"\x5a" * 512
        assert bdrv_write(bs, 64, b"\xa5" * 4096, 8) == 0
        model[64 * 512 : 72 * 512] = b"\xa5" * 4096
        assert content(bs, len(model)) == model
    (tmp_path / "raw").write_bytes(model)
    real("compare", "-f", "qcow", "-F", "raw", image, tmp_path / "raw")


@needs_real
def test_real_qemu_img_reads_what_was_written_compressed(tmp_path):
    rng = random.Random(3)
    clusters = [rng.randbytes(4096), b"abcd" * 1024, bytes(4096), b"z" * 4000 + rng.randbytes(96)]
    image = tmp_path / "image"
    assert create(image, SIZE) == 0
    with opened(image) as bs:
        for i, data in enumerate(clusters):
            assert bdrv_write_compressed(bs, i * 16, data, 8) == 0
        assert bdrv_write_compressed(bs, 8, bytes(512), 1) == -errno.EINVAL
        # this place is taken, by a cluster of another size
        clusters[1] = b"y" * 4000 + rng.randbytes(96)
        assert bdrv_write_compressed(bs, 16, clusters[1], 8) == 0
    expected = bytearray(SIZE)
    for i, data in enumerate(clusters):
        expected[i * 8192 : i * 8192 + 4096] = data
    (tmp_path / "raw").write_bytes(expected)
    real("compare", "-f", "qcow", "-F", "raw", image, tmp_path / "raw")
    assert image.stat().st_size < 4096 + 4096 + 2 * 4096 + 1024


def test_layout_of_a_new_image(tmp_path):
    assert create(tmp_path / "overlay", 64 << 20, "base_raw.img") == 0
    raw = (tmp_path / "overlay").read_bytes()
    # as recorded: 48-byte header, name at 48, L1 table of 32 entries at 64
    assert raw[:48] == struct.pack(">4sIQIIQBB2xIQ", b"QFI\xfb", 1, 48, 12, 0, 64 << 20, 9, 12, 0, 64)
    assert raw[48:64] == b"base_raw.img\0\0\0\0"
    assert raw[64:] == bytes(256)
    assert create(tmp_path / "fat", 1 << 20, "fat:") == 0
    plain = (tmp_path / "fat").read_bytes()
    assert plain == struct.pack(">4sIQIIQBB2xIQ", b"QFI\xfb", 1, 0, 0, 0, 1 << 20, 12, 9, 0, 48) + bytes(8)


def test_create_refuses_what_it_cannot_keep(tmp_path, capsys):
    target = tmp_path / "image"
    target.write_bytes(b"precious")
    assert create(target, 1 << 20, encrypt=1) == -errno.ENOTSUP
    assert f"{target}: encryption is not modelled" in capsys.readouterr().err
    assert create(target, (8 << 40) + 512) == -errno.EFBIG
    assert create(target, 1 << 20, "x" * 1024) == -errno.EINVAL
    assert "1024 bytes" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"
    assert create(tmp_path / "no" / "image", 1 << 20) == -errno.ENOENT
    assert "No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "raw", "offset", "status", "named"),
    [
        ("magic", b"XFI\xfb", 0, -errno.EPERM, None),
        ("version", b"\0\0\0\2", 4, -errno.EPERM, None),
        ("size", bytes(7) + b"\1", 24, -errno.EPERM, "size is 1,"),
        ("size", b"\x7f" + b"\xff" * 7, 24, -errno.EFBIG, "size is 9223372036854775807,"),
        ("cluster_bits", b"\x08", 32, -errno.EPERM, "cluster_bits is 8,"),
        ("cluster_bits", b"\x1f", 32, -errno.EINVAL, "cluster_bits is 31,"),
        ("l2_bits", b"\xff", 33, -errno.EINVAL, "l2_bits is 255,"),
        ("crypt_method", b"\0\0\0\1", 36, -errno.ENOTSUP, "encryption is not modelled"),
        ("crypt_method", b"\0\0\0\2", 36, -errno.EPERM, "crypt_method is 2,"),
        ("l1_table_offset", b"\xff" * 8, 40, -errno.EINVAL, "l1_table_offset is 0xffffffffffffffff"),
        ("backing_file_offset", b"\x80" + bytes(7), 8, -errno.EINVAL, "backing_file_offset is 0x8000"),
    ],
)
def test_header_is_checked_before_memory_is_taken(tmp_path, capsys, field, raw, offset, status, named):
    image = tmp_path / "image"
    create(image, SIZE)
    poke(image, offset, raw)
    before = image.read_bytes()
    with opened(image, status):
        pass
    err = capsys.readouterr().err
    assert err.count("\n") == (named is not None)
    assert named is None or (f"qcow: {image}: " in err and named in err)
    assert image.read_bytes() == before


@given(
    st.builds(
        QCowHeader,
        magic=st.just(QCOW_MAGIC),
        version=st.just(1),
        mtime=st.integers(0, 2**32 - 1),
        size=st.integers(0, 2**64 - 1),
        cluster_bits=st.integers(0, 255),
        l2_bits=st.integers(0, 255),
        crypt_method=st.integers(0, 3),
        l1_table_offset=st.integers(0, 2**64 - 1),
        backing_file_offset=st.integers(0, 2**64 - 1),
        backing_file_size=st.integers(0, 2**32 - 1),
    )
)
def test_an_accepted_header_needs_little_memory(header):
    assert QCowHeader.unpack(header.pack()) == header
    if header_problem(header) is None:
        assert l1_entries(header.size, header.cluster_bits, header.l2_bits) * 8 <= 32 << 20
        assert (8 << header.l2_bits) * 16 <= 8 << 20
        assert 512 <= 1 << header.cluster_bits <= 65536


def test_tables_beyond_the_file_read_as_unallocated(tmp_path):
    (tmp_path / "base").write_bytes(b"B" * SIZE)
    image = tmp_path / "image"
    create(image, SIZE, "base")
    poke(image, 56, struct.pack(">Q", 1 << 30))
    with opened(image) as bs:
        assert content(bs) == b"B" * SIZE
        assert bdrv_is_allocated(bs, 0, 8) == (0, 8)


@pytest.mark.parametrize("entry", [1 << 62, 2**63 - 512, 2**64 - 512, 513])
def test_an_impossible_entry_is_an_error_not_the_base(tmp_path, entry):
    (tmp_path / "base").write_bytes(b"B" * SIZE)
    image = tmp_path / "image"
    create(image, SIZE, "base")
    with opened(image) as bs:
        assert bdrv_write(bs, 0, b"x" * 512, 1) == 0
    table = struct.unpack(">Q", image.read_bytes()[56:64])[0]
    poke(image, table, struct.pack(">Q", entry))
    before = image.read_bytes()
    with opened(image) as bs:
        assert bdrv_read(bs, 0, bytearray(512), 1) < 0
        if not entry >> 63:
            assert bdrv_write(bs, 0, b"y" * 512, 1) < 0
    assert image.read_bytes() == before or entry >> 63


def test_a_damaged_compressed_cluster_is_an_error(tmp_path):
    image = tmp_path / "image"
    create(image, SIZE)
    with opened(image) as bs:
        assert bdrv_write_compressed(bs, 0, b"q" * 4096, 8) == 0
    table = struct.unpack(">Q", image.read_bytes()[48:56])[0]
    entry = struct.unpack(">Q", image.read_bytes()[table : table + 8])[0]
    poke(image, entry & ((1 << 51) - 1), b"\xff" * 8)
    with opened(image) as bs:
        assert bdrv_read(bs, 0, bytearray(512), 1) == -errno.EIO
        assert bdrv_write(bs, 1, bytes(512), 1) == -errno.EIO
        # what replaces all of it needs none of it
        assert bdrv_write(bs, 0, b"r" * 4096, 8) == 0
        assert content(bs, 4096) == b"r" * 4096


def test_a_table_never_written_keeps_its_place(tmp_path):
    """Killed between L1 entry and L2 table: clusters allocated later must not land in the table."""
    image = tmp_path / "image"
    create(image, 6 << 20)
    with image.open("r+b") as file:
        file.truncate(512)
    poke(image, 48, struct.pack(">Q", 4096))
    with opened(image) as bs:
        for sector in (4096, 0, 8, 8192):
            assert bdrv_write(bs, sector, sector.to_bytes(2, "big") * 256, 1) == 0
    with opened(image) as bs:
        for sector in (0, 8, 4096, 8192):
            data = bytearray(512)
            assert bdrv_read(bs, sector, data, 1) == 0
            assert data == sector.to_bytes(2, "big") * 256


def test_short_base_gives_zeros_and_a_note(tmp_path):
    from hypervisor.quirks import notes

    (tmp_path / "base").write_bytes(b"B" * 1024)
    image = tmp_path / "image"
    create(image, SIZE, "base")
    with opened(image) as bs:
        assert bdrv_write(bs, 9, b"x" * 512, 1) == 0
        assert content(bs) == b"B" * 1024 + bytes(7 * 512) + b"x" * 512 + bytes(SIZE - 10 * 512)
    assert "qcow-short-base" in notes()


def test_cancelled_read_never_calls_back(tmp_path):
    (tmp_path / "base").write_bytes(b"B" * SIZE)
    image = tmp_path / "image"
    create(image, SIZE, "base")
    done: list[int] = []
    with opened(image) as bs:
        data = bytearray(1024)
        acb = bdrv_aio_readv(bs, 0, vector(data, []), 2, lambda _, ret: done.append(ret), None)
        bdrv_aio_cancel(acb)
        qemu_aio_flush()
    assert done == []


def test_key_is_refused(tmp_path):
    image = tmp_path / "image"
    create(image, SIZE)
    with opened(image) as bs:
        assert bdrv_set_key(bs, "secret") == -1
        bs.encrypted = 1
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            assert bdrv_set_key(bs, "secret") == -errno.ENOTSUP
        assert str(image) in err.getvalue()
