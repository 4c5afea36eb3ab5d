"""Reading, writing and describing open images, against byte arrays and hand-made tables."""

import errno
import random
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor.aio import qemu_aio_flush
from hypervisor.block import (
    bdrv_aio_multiwrite,
    bdrv_check,
    bdrv_commit,
    bdrv_delete,
    bdrv_eject,
    bdrv_find_format,
    bdrv_flush_all,
    bdrv_get_backing_filename,
    bdrv_get_dirty,
    bdrv_get_format,
    bdrv_get_geometry,
    bdrv_get_info,
    bdrv_get_translation_hint,
    bdrv_getlength,
    bdrv_guess_geometry,
    bdrv_info,
    bdrv_info_print,
    bdrv_info_stats,
    bdrv_init,
    bdrv_is_allocated,
    bdrv_load_vmstate,
    bdrv_media_changed,
    bdrv_new,
    bdrv_open2,
    bdrv_pread,
    bdrv_pwrite,
    bdrv_read,
    bdrv_reset_dirty,
    bdrv_save_vmstate,
    bdrv_set_dirty_tracking,
    bdrv_set_geometry_hint,
    bdrv_set_locked,
    bdrv_set_type_hint,
    bdrv_snapshot_create,
    bdrv_snapshot_delete,
    bdrv_snapshot_dump,
    bdrv_snapshot_goto,
    bdrv_snapshot_list,
    bdrv_stats_print,
    bdrv_truncate,
    bdrv_write,
    bdrv_write_compressed,
    get_human_readable_size,
)
from hypervisor.block_int import (
    BDRV_O_RDWR,
    BDRV_TYPE_CDROM,
    BDRV_TYPE_FLOPPY,
    BlockDriverInfo,
    BlockRequest,
    QEMUSnapshotInfo,
)
from hypervisor.cutils import QEMUIOVector, qemu_iovec_add, qemu_iovec_init
from hypervisor.program import linked, program

SECTORS = 64


@pytest.fixture(autouse=True)
def tool():
    with program("qemu-io"):
        bdrv_init()
        yield


@pytest.fixture
def disk(tmp_path):
    """A raw disk of 64 sectors of random bytes: its state and the bytes."""
    content = bytearray(random.Random(1).randbytes(SECTORS * 512))
    (tmp_path / "x").write_bytes(content)
    bs = bdrv_new("ide0-hd0")
    assert bdrv_open2(bs, str(tmp_path / "x"), BDRV_O_RDWR, bdrv_find_format("raw")) == 0
    yield bs, content
    bdrv_delete(bs)


def test_no_medium():
    bs, buf = bdrv_new("empty"), bytearray(512)
    missing = -errno.ENOMEDIUM
    assert [
        bdrv_read(bs, 0, buf, 1),
        bdrv_write(bs, 0, buf, 1),
        bdrv_pread(bs, 0, buf, 10),
        bdrv_pwrite(bs, 0, buf, 10),
        bdrv_truncate(bs, 0),
        bdrv_getlength(bs),
        bdrv_commit(bs),
        bdrv_write_compressed(bs, 0, buf, 1),
        bdrv_get_info(bs, BlockDriverInfo()),
        bdrv_save_vmstate(bs, buf, 0, 1),
        bdrv_load_vmstate(bs, buf, 0, 1),
        bdrv_snapshot_create(bs, QEMUSnapshotInfo()),
        bdrv_snapshot_goto(bs, "1"),
        bdrv_snapshot_delete(bs, "1"),
        bdrv_snapshot_list(bs)[0],
    ] == [missing] * 15
    assert bdrv_get_geometry(bs) == 0 and bdrv_get_format(bs, 128) == ""


def test_what_raw_cannot_do(disk):
    bs, _ = disk
    buf = bytearray(512)
    assert [
        bdrv_check(bs),
        bdrv_commit(bs),
        bdrv_write_compressed(bs, 0, buf, 1),
        bdrv_get_info(bs, BlockDriverInfo()),
        bdrv_save_vmstate(bs, buf, 0, 1),
        bdrv_load_vmstate(bs, buf, 0, 1),
        bdrv_snapshot_create(bs, QEMUSnapshotInfo()),
        bdrv_snapshot_goto(bs, "1"),
        bdrv_snapshot_delete(bs, "1"),
        bdrv_snapshot_list(bs)[0],
    ] == [-errno.ENOTSUP] * 10


def test_range_checks(disk):
    bs, content = disk
    buf = bytearray(1024)
    for sector, count in ((SECTORS, 1), (SECTORS - 1, 2), (-1, 1), (1 << 60, 1), (0, SECTORS + 1), (0, -1)):
        assert bdrv_read(bs, sector, buf, count) == -errno.EIO
        assert bdrv_write(bs, sector, buf, count) == -errno.EIO
    assert bdrv_read(bs, SECTORS - 1, buf, 1) == 0 and buf[:512] == content[-512:]


def test_read_only(disk):
    bs, _ = disk
    bs.read_only = 1
    assert bdrv_write(bs, 0, bytes(512), 1) == -errno.EACCES
    assert bdrv_pwrite(bs, 5, b"x", 1) == -errno.EACCES
    assert bdrv_truncate(bs, 0) == -errno.EACCES
    assert bdrv_commit(bs) == -errno.EACCES


spans = st.tuples(st.integers(0, SECTORS * 512 - 1), st.integers(0, 5000)).map(
    lambda span: (span[0], min(span[1], SECTORS * 512 - span[0]))
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.tuples(spans, st.booleans()), max_size=8), st.randoms(use_true_random=False))
def test_pread_and_pwrite_behave_as_a_byte_array(disk, steps, rng):
    bs, content = disk
    for (offset, length), write in steps:
        if write:
            content[offset : offset + length] = data = rng.randbytes(length)
            assert bdrv_pwrite(bs, offset, data, length) == length
        else:
            buf = bytearray(length)
            assert bdrv_pread(bs, offset, buf, length) == length
            assert buf == content[offset : offset + length]
    whole = bytearray(len(content))
    assert bdrv_read(bs, 0, whole, SECTORS) == 0 and whole == content


requests = st.lists(st.tuples(st.integers(0, SECTORS - 9), st.integers(1, 8)), min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(requests)
def test_multiwrite_writes_all_and_calls_all_back(disk, spans):
    bs, content = disk
    done, reqs = [], []
    for n, (sector, count) in enumerate(spans):
        qiov = QEMUIOVector()
        qemu_iovec_init(qiov, 1)
        qemu_iovec_add(qiov, bytes([n + 1]) * (count * 512), count * 512)
        reqs.append(
            BlockRequest(
                sector=sector, nb_sectors=count, qiov=qiov, opaque=n, cb=lambda o, r: done.append((o, r))
            )
        )
    assert bdrv_aio_multiwrite(bs, reqs, len(reqs)) == 0
    qemu_aio_flush()
    assert sorted(done) == [(n, 0) for n in range(len(spans))]
    whole = bytearray(len(content))
    assert bdrv_read(bs, 0, whole, SECTORS) == 0
    for sector in range(SECTORS):
        writers = [n + 1 for n, (start, count) in enumerate(spans) if start <= sector < start + count]
        block = whole[sector * 512 : sector * 512 + 512]
        if len(writers) == 0:
            assert block == content[sector * 512 : sector * 512 + 512]
        else:
            assert set(block) <= set(writers) and len(set(block)) == 1
    content[:] = whole


def test_multiwrite_refused(disk):
    bs, _ = disk
    qiov = QEMUIOVector()
    qemu_iovec_init(qiov, 1)
    qemu_iovec_add(qiov, bytes(512), 512)
    done = []
    req = BlockRequest(sector=SECTORS, nb_sectors=1, qiov=qiov, cb=lambda o, r: done.append(r))
    assert bdrv_aio_multiwrite(bs, [], 0) == 0
    assert bdrv_aio_multiwrite(bs, [req], 1) == -1 and req.error == -errno.EIO and not done


def test_dirty_chunks(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    (tmp_path / "x").open("r+b").truncate(100 << 20)
    bs = bdrv_new("")
    assert bdrv_open2(bs, str(tmp_path / "x"), BDRV_O_RDWR, bdrv_find_format("raw")) == 0
    bdrv_set_dirty_tracking(bs, 1)
    chunks = (100 << 20) // (2048 * 512)

    def dirty():
        return [chunk for chunk in range(chunks) if bdrv_get_dirty(bs, chunk * 2048)]

    assert dirty() == []
    assert bdrv_write(bs, 2047, bytes(1024), 2) == 0
    assert bdrv_write(bs, 70 * 2048 + 5, bytes(512), 1) == 0
    assert bdrv_write(bs, chunks * 2048 - 1, bytes(512), 1) == 0
    assert dirty() == [0, 1, 70, 99]
    bdrv_reset_dirty(bs, 0, 2048)
    assert dirty() == [1, 70, 99]
    assert bdrv_get_dirty(bs, chunks * 2048) == 0
    bdrv_set_dirty_tracking(bs, 0)
    assert dirty() == [] and bs.dirty_bitmap is None


def test_allocation_of_a_driver_without_a_say(disk):
    bs, _ = disk
    assert bdrv_is_allocated(bs, 0, 10) == (1, 10)
    assert bdrv_is_allocated(bs, SECTORS - 3, 10) == (1, 3)
    assert bdrv_is_allocated(bs, SECTORS, 10) == (0, 0)


def partition(end_head, end_sector, sectors):
    return struct.pack("<8BII", 0x80, 1, 1, 0, 6, end_head, end_sector, 0, 63, sectors)


def geometry_disk(tmp_path, megabytes, table):
    image = tmp_path / "g"
    image.write_bytes((bytes(0x1BE) + table).ljust(510, b"\0") + (b"\x55\xaa" if table else b"\0\0"))
    image.open("r+b").truncate(megabytes << 20)
    bs = bdrv_new("")
    assert bdrv_open2(bs, str(image), BDRV_O_RDWR, bdrv_find_format("raw")) == 0
    return bs


@pytest.mark.parametrize(
    ("megabytes", "table", "geometry", "translation"),
    [
        (16, b"", (32, 16, 63), 0),
        (0, b"", (2, 16, 63), 0),
        (16 << 10, b"", (16383, 16, 63), 0),
        (16, partition(15, 63, 2000), (32, 16, 63), 1),
        (16, partition(7, 32, 2000), (128, 8, 32), 1),
        (16, bytes(16) + partition(7, 32, 2000), (128, 8, 32), 1),
        (16, partition(0, 32, 2000), (32, 16, 63), 0),
        (16, partition(7, 0, 2000), (32, 16, 63), 0),
        (16, partition(7, 32, 0), (32, 16, 63), 0),
        (1 << 10, partition(254, 63, 2000), (2080, 16, 63), 3),
        (8 << 10, partition(254, 63, 2000), (16383, 16, 63), 2),
    ],
)
def test_geometry(tmp_path, megabytes, table, geometry, translation):
    bs = geometry_disk(tmp_path, megabytes, table)
    assert bdrv_guess_geometry(bs) == geometry
    assert bdrv_get_translation_hint(bs) == translation
    assert (bs.cyls, bs.heads, bs.secs) == geometry


def test_geometry_hint_wins(tmp_path):
    bs = geometry_disk(tmp_path, 16, partition(7, 32, 2000))
    bdrv_set_geometry_hint(bs, 10, 4, 17)
    assert bdrv_guess_geometry(bs) == (10, 4, 17)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0K"),
        (10239, "10.0K"),
        (10240, "10K"),
        (1023999, "1000K"),
        (1024000, "1.0M"),
        (67108864, "64M"),
        (1 << 40, "1.0T"),
        (5000 << 40, "5000T"),
    ],
)
def test_human_sizes(size, text):
    assert get_human_readable_size(128, size) == text


def test_snapshot_lines_are_those_of_the_recording(monkeypatch):
    # c31_snapshot_list
    assert bdrv_snapshot_dump(256, None) == (
        "ID        TAG                 VM SIZE                DATE       VM CLOCK"
    )
    monkeypatch.setenv("TZ", "UTC")
    sn = QEMUSnapshotInfo(id_str="1", name="s1", date_sec=1795386083)
    assert bdrv_snapshot_dump(256, sn) == (
        "1         s1                        0 2026-11-22 22:21:23   00:00:00.000"
    )
    sn.vm_clock_nsec, sn.vm_state_size = 3_725_004_000_000, 34603008
    assert bdrv_snapshot_dump(256, sn).endswith("33M 2026-11-22 22:21:23   01:02:05.004")


def test_info_block_as_the_monitor_prints_it(disk, monkeypatch):
    bs, _ = disk
    bs.filename = "overlay.img"
    for name, kind in (("ide1-cd0", BDRV_TYPE_CDROM), ("floppy0", BDRV_TYPE_FLOPPY)):
        bdrv_set_type_hint(bdrv_new(name), kind)
    said = []
    monkeypatch.setattr(linked, "monitor_printf", lambda mon, fmt, *args: said.append(fmt % args))
    monkeypatch.setattr(linked, "monitor_print_filename", lambda mon, name: said.append(name))
    bdrv_info_print(None, bdrv_info(None))
    # d01_boot_tcg_qcow, with a raw disk in place of its qcow one
    assert "".join(said) == (
        "ide0-hd0: type=hd removable=0 file=overlay.img ro=0 drv=raw encrypted=0\n"
        "ide1-cd0: type=cdrom removable=1 locked=0 [not inserted]\n"
        "floppy0: type=floppy removable=1 locked=0 [not inserted]\n"
    )
    said.clear()
    bs.rd_bytes, bs.rd_ops = 1536, 3
    bdrv_stats_print(None, bdrv_info_stats(None)[:1])
    assert "".join(said) == ("ide0-hd0: rd_bytes=1536 wr_bytes=0 rd_operations=3 wr_operations=0\n")


def test_removable_media(disk):
    bs, _ = disk
    assert bdrv_media_changed(bs) == 1 and bdrv_media_changed(bs) == 0
    bdrv_set_locked(bs, 1)
    assert bdrv_eject(bs, 1) == -errno.EBUSY and bs.drv is not None
    bdrv_set_locked(bs, 0)
    assert bdrv_eject(bs, 0) == 0 and bs.drv is not None
    assert bdrv_eject(bs, 1) == 0 and bs.drv is None


def test_names(disk):
    bs, _ = disk
    assert bdrv_get_format(bs, 128) == "raw" and bdrv_get_backing_filename(bs, 1024) == ""


def test_flush_all_skips_what_has_nothing_to_flush(disk, monkeypatch):
    bs, _ = disk
    flushed = []
    monkeypatch.setattr(bs.drv, "bdrv_flush", flushed.append)
    bdrv_set_type_hint(bdrv_new("ide1-cd0"), BDRV_TYPE_CDROM)
    bdrv_flush_all()
    assert flushed == [bs]
    bs.read_only = 1
    bdrv_flush_all()
    assert flushed == [bs]
