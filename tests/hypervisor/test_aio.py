"""Asynchronous requests: real worker threads, contexts, bottom halves, cancelling, failing."""

import errno
import os
import random
import signal
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor import async_, posix_aio_compat, posix_aio_thread
from hypervisor.aio import (
    qemu_aio_flush,
    qemu_aio_process_queue,
    qemu_aio_set_fd_handler,
    qemu_aio_wait,
)
from hypervisor.block import (
    bdrv_aio_cancel,
    bdrv_aio_flush,
    bdrv_aio_readv,
    bdrv_aio_writev,
    bdrv_find_format,
    bdrv_init,
    bdrv_new,
    bdrv_open2,
    bdrv_read,
    bdrv_register,
)
from hypervisor.block.bdrv_aio import bdrv_read_em, bdrv_write_em
from hypervisor.block_int import BDRV_O_RDWR, BlockDriver
from hypervisor.cutils import (
    QEMUIOVector,
    qemu_iovec_add,
    qemu_iovec_concat,
    qemu_iovec_from_buffer,
    qemu_iovec_init,
    qemu_iovec_reset,
    qemu_iovec_to_buffer,
)
from hypervisor.errors import HypervisorError
from hypervisor.program import Linked, linked, program
from tests.hypervisor.machines import until
from tracer import record

SECTORS = 64


@pytest.fixture
def tools():
    """The block layer as the tools link it."""
    with program("qemu-io"):
        bdrv_init()
        yield "tools"


@pytest.fixture
def emulator(tools, monkeypatch):
    """The block layer with the emulator's contexts and bottom halves; no machine is there to be woken."""
    for name in Linked.__annotations__:
        if hasattr(async_, name):
            monkeypatch.setitem(vars(linked), name, getattr(async_, name))
    monkeypatch.setitem(vars(linked), "qemu_notify_event", lambda: woken.append(1))
    woken = []
    return woken


@pytest.fixture(params=["tools", "emulator"])
def running(request):
    request.getfixturevalue(request.param)
    return request.param


@pytest.fixture
def disk(running, tmp_path):
    content = bytearray(random.Random(3).randbytes(SECTORS * 512))
    (tmp_path / "x").write_bytes(content)
    bs = bdrv_new("ide0-hd0")
    assert bdrv_open2(bs, str(tmp_path / "x"), BDRV_O_RDWR, bdrv_find_format("raw")) == 0
    return bs, content


def vector(*pieces):
    qiov = QEMUIOVector()
    qemu_iovec_init(qiov, 1)
    for piece in pieces:
        qemu_iovec_add(qiov, piece, len(piece))
    return qiov


class Results(list):
    def __call__(self, opaque, ret):
        self.append((opaque, ret))


def wait_for_idle_workers():
    until(lambda: posix_aio_thread.pool.idle_threads == posix_aio_thread.pool.cur_threads)


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "aio"]


def test_a_read_and_a_write(disk):
    bs, content = disk
    done, buf = Results(), bytearray(1024)
    assert bdrv_aio_readv(bs, 3, vector(buf), 2, done, "read") is not None
    assert done == [], "completion comes from qemu_aio_wait, not from the worker"
    qemu_aio_flush()
    assert done == [("read", 0)] and buf == content[3 * 512 : 5 * 512]
    assert bdrv_aio_writev(bs, 0, vector(b"w" * 512), 1, done, "write") is not None
    assert bdrv_aio_flush(bs, done, "flush") is not None
    qemu_aio_flush()
    assert sorted(done[1:]) == [("flush", 0), ("write", 0)]
    assert bdrv_read(bs, 0, buf, 1) == 0 and buf[:512] == b"w" * 512
    assert (bs.rd_bytes, bs.rd_ops, bs.wr_bytes, bs.wr_ops) == (1024, 1, 512, 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, SECTORS - 8), st.lists(st.integers(1, 3), min_size=1, max_size=2)),
        max_size=12,
    )
)
def test_many_requests_in_pieces(disk, spans):
    bs, content = disk
    done, reads = Results(), []
    for n, (sector, counts) in enumerate(spans):
        pieces = [bytearray(count * 512) for count in counts]
        reads.append((sector, pieces))
        assert bdrv_aio_readv(bs, sector, vector(*pieces), sum(counts), done, n) is not None
    qemu_aio_flush()
    assert sorted(done) == [(n, 0) for n in range(len(spans))]
    for sector, pieces in reads:
        whole = b"".join(pieces)
        assert whole == content[sector * 512 : sector * 512 + len(whole)]
    assert len(workers()) <= posix_aio_compat.MAX_THREADS


def test_refused_requests(disk):
    bs, _ = disk
    done, qiov = Results(), vector(bytearray(512))
    assert bdrv_aio_readv(bs, SECTORS, qiov, 1, done, None) is None
    bs.read_only = 1
    assert bdrv_aio_writev(bs, 0, qiov, 1, done, None) is None
    empty = bdrv_new("empty")
    assert bdrv_aio_readv(empty, 0, qiov, 1, done, None) is None
    assert bdrv_aio_writev(empty, 0, qiov, 1, done, None) is None
    assert bdrv_aio_flush(empty, done, None) is None
    qemu_aio_flush()
    assert done == []


def test_errors_reach_the_callback(disk, monkeypatch):
    bs, _ = disk
    done = Results()

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    monkeypatch.setattr(os, "fdatasync", fail)
    assert bdrv_aio_writev(bs, 0, vector(bytes(512)), 1, done, "w") is not None
    qemu_aio_flush()
    assert bdrv_aio_flush(bs, done, "f") is not None
    qemu_aio_flush()
    assert done == [("w", -errno.ENOSPC), ("f", -errno.ENOSPC)]


def test_a_defect_in_a_worker_fails_the_request_instead_of_hanging(disk, monkeypatch, capsys):
    bs, _ = disk
    done = Results()
    monkeypatch.setattr(os, "pwrite", lambda *args: 1 // 0)
    assert bdrv_aio_writev(bs, 0, vector(bytes(512)), 1, done, "w") is not None
    qemu_aio_flush()
    assert done == [("w", -errno.EIO)] and "ZeroDivisionError" in capsys.readouterr().err


def test_past_the_end_is_einval_and_zeros(disk):
    bs, content = disk
    bs.growable = 1
    done, buf = Results(), bytearray(1024)
    assert bdrv_aio_readv(bs, SECTORS - 1, vector(buf), 2, done, None) is not None
    qemu_aio_flush()
    assert done == [(None, -errno.EINVAL)] and buf == content[-512:] + bytes(512)


def test_cancel_what_waits_and_what_runs(disk, monkeypatch):
    bs, _ = disk
    done, begun, go = Results(), threading.Event(), threading.Event()
    really = os.preadv
    monkeypatch.setattr(posix_aio_compat, "MAX_THREADS", 1)

    def slow(fd, views, offset):
        begun.set()
        go.wait(10)
        return really(fd, views, offset)

    monkeypatch.setattr(os, "preadv", slow)
    first = bdrv_aio_readv(bs, 0, vector(bytearray(512)), 1, done, "first")
    assert begun.wait(10)
    second = bdrv_aio_readv(bs, 0, vector(bytearray(512)), 1, done, "second")
    bdrv_aio_cancel(second)
    threading.Timer(0.05, go.set).start()
    bdrv_aio_cancel(first)
    qemu_aio_flush()
    assert go.is_set() and done == []


def test_one_worker_serves_one_after_the_other(disk):
    bs, _ = disk
    for _ in range(5):
        assert bdrv_aio_readv(bs, 0, vector(bytearray(512)), 1, Results(), None) is not None
        qemu_aio_flush()
        wait_for_idle_workers()
    assert len(workers()) == 1 and workers()[0].daemon


def test_idle_workers_end(disk, monkeypatch):
    monkeypatch.setattr(posix_aio_thread, "IDLE_SECONDS", 0)
    bs, _ = disk
    done = Results()
    assert bdrv_aio_readv(bs, 0, vector(bytearray(512)), 1, done, None) is not None
    qemu_aio_flush()
    until(lambda: not workers())
    assert done == [(None, 0)]
    assert bdrv_aio_readv(bs, 0, vector(bytearray(512)), 1, done, None) is not None
    qemu_aio_flush()
    assert done == [(None, 0)] * 2


def test_the_end_of_a_program_drops_what_is_under_way(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(bytes(SECTORS * 512))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    fds = set(os.listdir("/proc/self/fd"))
    with program("qemu-io"):
        bdrv_init()
        bs = bdrv_new("")
        assert bdrv_open2(bs, str(tmp_path / "x"), BDRV_O_RDWR, bdrv_find_format("raw")) == 0
        for sector in range(SECTORS):
            assert bdrv_aio_readv(bs, sector, vector(bytearray(512)), 1, Results(), None) is not None
    assert not workers()
    assert set(os.listdir("/proc/self/fd")) <= fds
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_ctrl_c_while_the_lock_is_held(tmp_path):
    (tmp_path / "x").write_bytes(bytes(512))
    with pytest.raises(KeyboardInterrupt), program("qemu-io"):
        bdrv_init()
        bs = bdrv_new("")
        assert bdrv_open2(bs, str(tmp_path / "x"), 0, bdrv_find_format("raw")) == 0
        assert bdrv_aio_readv(bs, 0, vector(bytearray(512)), 1, Results(), None) is not None
        posix_aio_thread.mutex_lock(posix_aio_thread.lock)
        raise KeyboardInterrupt
    assert not workers() and not posix_aio_thread.lock.locked()


def test_no_more_threads(disk, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(HypervisorError, match="allow more threads"):
        bdrv_aio_readv(disk[0], 0, vector(bytearray(512)), 1, Results(), None)


def test_outside_the_main_thread(tmp_path):
    (tmp_path / "x").write_bytes(b"t" * 512)
    done, buf, errors = Results(), bytearray(512), []

    def run():
        try:
            with program("qemu-io"):
                bdrv_init()
                bs = bdrv_new("")
                assert bdrv_open2(bs, str(tmp_path / "x"), 0, bdrv_find_format("raw")) == 0
                assert bdrv_aio_readv(bs, 0, vector(buf), 1, done, None) is not None
                qemu_aio_flush()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert not errors and done == [(None, 0)] and buf == b"t" * 512


def test_synchronous_driver_served_asynchronously_and_the_reverse(running):
    memory = bytearray(range(256)) * 4

    def read(bs, sector_num, buf, nb_sectors):
        buf[:] = memory[sector_num * 512 : (sector_num + nb_sectors) * 512]
        return 0

    def write(bs, sector_num, buf, nb_sectors):
        memory[sector_num * 512 : (sector_num + nb_sectors) * 512] = buf
        return 0

    drv = BlockDriver(format_name="memory", bdrv_read=read, bdrv_write=write)
    bdrv_register(drv)
    bs = bdrv_new("")
    bs.drv, bs.total_sectors, bs.buffer_alignment = drv, 2, 512
    done, buf = Results(), bytearray(512)
    assert bdrv_aio_writev(bs, 1, vector(b"q" * 200, b"r" * 312), 1, done, "w") is not None
    assert bdrv_aio_readv(bs, 1, vector(buf), 1, done, "r") is not None
    qemu_aio_flush()
    assert sorted(done) == [("r", 0), ("w", 0)] and buf == b"q" * 200 + b"r" * 312
    assert bdrv_write_em(bs, 0, b"s" * 512, 1) == 0 and memory[:512] == b"s" * 512
    assert bdrv_read_em(bs, 0, buf, 1) == 0 and buf == b"s" * 512
    assert bdrv_read_em(bs, 9, buf, 1) < 0
    if running == "emulator":
        acb = bdrv_aio_readv(bs, 1, vector(buf), 1, done, "cancelled")
        bdrv_aio_cancel(acb)
        qemu_aio_flush()
        assert len(done) == 2


def test_a_nested_context_keeps_others_back(emulator, tmp_path):
    (tmp_path / "x").write_bytes(bytes(SECTORS * 512))
    bs = bdrv_new("")
    assert bdrv_open2(bs, str(tmp_path / "x"), BDRV_O_RDWR, bdrv_find_format("raw")) == 0
    done = Results()
    assert bdrv_aio_readv(bs, 0, vector(bytearray(512)), 1, done, "outer") is not None
    async_.async_context_push()
    assert async_.get_async_context_id() == 1
    assert bdrv_aio_readv(bs, 1, vector(bytearray(512)), 1, done, "inner") is not None
    while not done:
        qemu_aio_wait()
    wait_for_idle_workers()
    qemu_aio_process_queue()
    assert done == [("inner", 0)]
    async_.async_context_pop()
    qemu_aio_flush()
    assert done == [("inner", 0), ("outer", 0)]


def test_bottom_halves(emulator):
    ran = []
    bh = async_.qemu_bh_new(ran.append, "a")
    assert async_.qemu_bh_poll() == 0
    async_.qemu_bh_schedule(bh)
    async_.qemu_bh_schedule(bh)
    assert emulator == [1] and async_.qemu_bh_update_timeout(1000) == 0
    assert async_.qemu_bh_poll() == 1 and ran == ["a"] and async_.qemu_bh_poll() == 0
    async_.qemu_bh_schedule_idle(bh)
    assert async_.qemu_bh_update_timeout(1000) == 10 and async_.qemu_bh_update_timeout(5) == 5
    assert async_.qemu_bh_poll() == 0 and ran == ["a", "a"]
    async_.qemu_bh_schedule(bh)
    async_.qemu_bh_cancel(bh)
    assert async_.qemu_bh_poll() == 0
    others = [async_.qemu_bh_new(ran.append, n) for n in range(3)]
    async_.qemu_bh_delete(others[1])
    for other in (others[0], others[2]):
        async_.qemu_bh_schedule(other)
    assert async_.qemu_bh_poll() == 1 and ran[2:] == [2, 0]
    assert async_.qemu_bh_update_timeout(1000) == 1000


def test_descriptor_handlers(tools):
    reader, writer = os.pipe()
    seen = []

    def read(opaque):
        seen.append((opaque, os.read(reader, 1)))
        qemu_aio_set_fd_handler(reader, None, None, None, None, None)

    qemu_aio_set_fd_handler(reader, read, None, lambda opaque: 1, None, "pipe")
    os.write(writer, b"x")
    qemu_aio_wait()
    assert seen == [("pipe", b"x")]
    qemu_aio_wait()
    os.close(reader)
    os.close(writer)


def test_vectors():
    whole = bytearray(range(200))
    qiov = vector(whole[:50], whole[50:80], whole[80:])
    assert (qiov.size, qiov.niov) == (200, 3)
    flat = bytearray(200)
    qemu_iovec_to_buffer(qiov, flat)
    assert flat == whole
    part = QEMUIOVector()
    qemu_iovec_init(part, 1)
    qemu_iovec_concat(part, qiov, 60)
    assert [piece.iov_len for piece in part.iov] == [50, 10] and part.size == 60
    qemu_iovec_from_buffer(part, b"z" * 55, 55)
    assert bytes(part.iov[0].iov_base) == b"z" * 50
    assert bytes(part.iov[1].iov_base) == b"z" * 5 + bytes(range(55, 60))
    qemu_iovec_reset(part)
    assert (part.size, part.niov, part.iov) == (0, 0, [])


def test_a_trace_shows_both_threads(tmp_path):
    (tmp_path / "x").write_bytes(bytes(512))
    with record(None) as rec, program("qemu-io"):
        bdrv_init()
        bs = bdrv_new("")
        assert bdrv_open2(bs, str(tmp_path / "x"), 0, bdrv_find_format("raw")) == 0
        assert bdrv_aio_readv(bs, 0, vector(bytearray(512)), 1, Results(), None) is not None
        qemu_aio_flush()
    calls = list(rec.trace.calls())
    assert [call.function for call in calls if call.thread == 1][:5] == [
        "aio_thread",
        "mutex_lock",
        "mutex_unlock",
        "handle_aiocb_rw",
        "handle_aiocb_rw_linear",
    ]
    assert next(call.args["fn"] for call in calls if call.function == "register_module_init") == (
        "&",
        "bdrv_raw_init",
    )
