"""Asynchronous requests by a pool of worker threads: posix-aio-compat.c.

::

    main thread                              worker (aio_thread)
    paio_submit ─ request_list, cond ──────► handle_aiocb_rw: pread, pwrite
    poll() wakes in qemu_aio_wait ◄───────── SIGUSR2, read from a signalfd
    posix_aio_read ─ posix_aio_process_queue ─ cb(opaque, 0 or -errno) ─ qemu_aio_release

A worker that waits ten seconds in vain ends. Workers are daemon threads and are stopped and joined when
the program ends; a request that is under way then is finished, one that still waits is dropped.

- ``paio_init()``: once a program; ``paio_submit(...)``, ``paio_ioctl(...)``: a request
- a request's ``ret`` is -EINPROGRESS until a worker puts the byte count or -errno there
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from hypervisor.aio import qemu_aio_set_fd_handler
from hypervisor.block.bdrv_aio import qemu_aio_get, qemu_aio_release
from hypervisor.block_int import (
    AIOPool,
    BlockDriverAIOCB,
    BlockDriverCompletionFunc,
    BlockDriverState,
)
from hypervisor.compatfd import notify, qemu_signalfd
from hypervisor.cutils import QEMUIOVector, iovec, qemu_fdatasync
from hypervisor.osdep import qemu_memalign, qemu_vfree
from hypervisor.program import linked, on_exit
from tracer import Struct, symbol, traced

C_FILE = "posix-aio-compat.c"

QEMU_AIO_READ = 0x0001
QEMU_AIO_WRITE = 0x0002
QEMU_AIO_IOCTL = 0x0004
QEMU_AIO_FLUSH = 0x0008
QEMU_AIO_TYPE_MASK = QEMU_AIO_READ | QEMU_AIO_WRITE | QEMU_AIO_IOCTL | QEMU_AIO_FLUSH
QEMU_AIO_MISALIGNED = 0x1000

MAX_THREADS = 64
IDLE_SECONDS = 10


class qemu_paiocb(BlockDriverAIOCB):
    """A request for a worker (posix-aio-compat.c); `next` chains the requests not yet reported."""

    aio_fildes: int = 0
    aio_iov: list[iovec] | None = None
    aio_ioctl_buf: Any = None
    aio_niov: int = 0
    aio_nbytes: int = 0
    ev_signo: int = 0
    aio_offset: int = 0
    aio_type: int = 0
    ret: int = 0
    active: int = 0
    async_context_id: int = 0


class PosixAioState(Struct):
    """The descriptor that tells of completions, and the requests under way (posix-aio-compat.c)."""

    fd: int = -1
    first_aio: qemu_paiocb | None = None


class _Pool:
    """The static variables of the thread pool."""

    def __init__(self) -> None:
        self.cur_threads = 0
        self.idle_threads = 0
        self.request_list: deque[qemu_paiocb] = deque()
        self.preadv_present = True
        self.state: PosixAioState | None = None
        self.threads: list[threading.Thread] = []
        self.stopping = False


class _Stop(BaseException):
    """Ends a worker that waits, when the program ends."""


class _Cond:
    """A condition variable that, unlike Python's, is signalled without its lock, as pthread's is."""

    def __init__(self) -> None:
        self.waiters: deque[threading.Lock] = deque()

    def wait(self, mutex: threading.Lock, seconds: float) -> bool:
        """Wait with `mutex` given up; whether a signal came in time."""
        waiter = threading.Lock()
        waiter.acquire()
        self.waiters.append(waiter)
        mutex.release()
        signalled = waiter.acquire(timeout=max(seconds, 0))
        mutex.acquire()
        if not signalled:
            with contextlib.suppress(ValueError):
                self.waiters.remove(waiter)
        return signalled

    def signal(self) -> None:
        """Wake the thread that has waited longest."""
        with contextlib.suppress(IndexError):
            self.waiters.popleft().release()


_lock = symbol(threading.Lock(), "lock")
_cond = symbol(_Cond(), "cond")
_pool = _Pool()


@on_exit
def _stop_workers() -> None:
    global _pool
    with _lock:
        _pool.stopping = True
        _pool.request_list.clear()
        while _cond.waiters:
            _cond.signal()
    for thread in _pool.threads:
        thread.join()
    _pool = _Pool()


@traced
def mutex_lock(mutex: threading.Lock) -> None:
    """Take the pool's lock."""
    mutex.acquire()


@traced
def mutex_unlock(mutex: threading.Lock) -> None:
    """Leave the pool's lock."""
    mutex.release()


@traced
def cond_timedwait(cond: _Cond, mutex: threading.Lock, ts: float) -> int:
    """Wait, the lock given up meanwhile, for a signal (0) or the time `ts` (ETIMEDOUT)."""
    signalled = _pool.stopping or cond.wait(mutex, ts - time.time())
    if _pool.stopping:
        raise _Stop
    return 0 if signalled else errno.ETIMEDOUT


@traced
def cond_signal(cond: _Cond) -> None:
    """Wake one worker."""
    cond.signal()


@traced
def thread_create(
    thread: None, attr: None, start_routine: Callable[[Any], None], arg: Any
) -> threading.Thread:
    """Start a detached thread."""
    new = threading.Thread(target=_run, args=(start_routine, arg), name="aio", daemon=True)
    new.start()
    return new


def _run(start_routine: Callable[[Any], None], arg: Any) -> None:
    try:
        start_routine(arg)
    except _Stop:
        _lock.release()


@traced
def handle_aiocb_ioctl(aiocb: qemu_paiocb) -> int:
    """Pass a request to a device; its number, which stands for success, or -errno."""
    try:
        fcntl.ioctl(aiocb.aio_fildes, aiocb.aio_nbytes, aiocb.aio_ioctl_buf)
    except OSError as error:
        return _negative(error)
    return aiocb.aio_nbytes


@traced
def handle_aiocb_flush(aiocb: qemu_paiocb) -> int:
    """Force a file's data to the disk."""
    try:
        return qemu_fdatasync(aiocb.aio_fildes)
    except OSError as error:
        return _negative(error)


@traced
def qemu_preadv(fd: int, iov: list[iovec], nr_iov: int, offset: int) -> int:
    """Read into several pieces of memory at once."""
    return os.preadv(fd, [piece.iov_base for piece in iov[:nr_iov]], offset)


@traced
def qemu_pwritev(fd: int, iov: list[iovec], nr_iov: int, offset: int) -> int:
    """Write from several pieces of memory at once."""
    return os.pwritev(fd, [piece.iov_base for piece in iov[:nr_iov]], offset)


@traced
def handle_aiocb_rw_vector(aiocb: qemu_paiocb) -> int:
    """Read or write several aligned pieces with one system call; the count or -errno."""
    assert aiocb.aio_iov is not None
    call = qemu_pwritev if aiocb.aio_type & QEMU_AIO_WRITE else qemu_preadv
    try:
        return call(aiocb.aio_fildes, aiocb.aio_iov, aiocb.aio_niov, aiocb.aio_offset)
    except OSError as error:
        return _negative(error)


@traced
def handle_aiocb_rw_linear(aiocb: qemu_paiocb, buf: memoryview) -> int:
    """Read or write one piece, until all of it is done or the file ends; the count or -errno."""
    offset = 0
    total = aiocb.aio_nbytes
    try:
        while offset < total:
            part, at = buf[offset:total], aiocb.aio_offset + offset
            if aiocb.aio_type & QEMU_AIO_WRITE:
                done = os.pwrite(aiocb.aio_fildes, part, at)
            else:
                done = os.preadv(aiocb.aio_fildes, [part], at)
            if done == 0:
                break
            offset += done
    except OSError as error:
        return _negative(error)
    return offset


@traced
def handle_aiocb_rw(aiocb: qemu_paiocb) -> int:
    """Read or write, by the way that suits the number and the alignment of the pieces."""
    assert aiocb.aio_iov is not None
    if not aiocb.aio_type & QEMU_AIO_MISALIGNED:
        if aiocb.aio_niov == 1:
            return handle_aiocb_rw_linear(aiocb, aiocb.aio_iov[0].iov_base)
        if _pool.preadv_present:
            nbytes = handle_aiocb_rw_vector(aiocb)
            if nbytes == aiocb.aio_nbytes or (nbytes < 0 and nbytes != -errno.ENOSYS):
                return nbytes
            # quirk: one short request, and vectors are never used again
            _pool.preadv_present = False
    buf = qemu_memalign(512, aiocb.aio_nbytes)
    pieces = aiocb.aio_iov[: aiocb.aio_niov]
    at = 0
    if aiocb.aio_type & QEMU_AIO_WRITE:
        for piece in pieces:
            buf[at : at + piece.iov_len] = piece.iov_base
            at += piece.iov_len
    nbytes = handle_aiocb_rw_linear(aiocb, buf)
    if not aiocb.aio_type & QEMU_AIO_WRITE:
        for piece in pieces:
            piece.iov_base[:] = buf[at : at + piece.iov_len]
            at += piece.iov_len
    qemu_vfree(buf)
    return nbytes


def _negative(error: OSError) -> int:
    return -(error.errno or errno.EIO)


_HANDLERS: dict[int, Callable[[qemu_paiocb], int]] = {
    QEMU_AIO_READ: handle_aiocb_rw,
    QEMU_AIO_WRITE: handle_aiocb_rw,
    QEMU_AIO_FLUSH: handle_aiocb_flush,
    QEMU_AIO_IOCTL: handle_aiocb_ioctl,
}


@traced
def aio_thread(unused: None) -> None:
    """A worker: take requests until none has come for ten seconds."""
    pool = _pool
    while True:
        ret = 0
        ts = int(time.time()) + IDLE_SECONDS
        mutex_lock(_lock)
        while not pool.request_list and ret != errno.ETIMEDOUT:
            ret = cond_timedwait(_cond, _lock, ts)
        if not pool.request_list:
            break
        aiocb = pool.request_list.popleft()
        aiocb.active = 1
        pool.idle_threads -= 1
        mutex_unlock(_lock)
        handler = _HANDLERS.get(aiocb.aio_type & QEMU_AIO_TYPE_MASK)
        if handler is None:
            print(f"invalid aio request (0x{aiocb.aio_type:x})", file=sys.stderr)
            ret = -errno.EINVAL
        else:
            try:
                ret = handler(aiocb)
            except Exception as error:
                # Whoever waits for the request would wait for ever.
                print(f"aio request failed: {error!r}", file=sys.stderr)
                ret = -errno.EIO
        mutex_lock(_lock)
        aiocb.ret = ret
        pool.idle_threads += 1
        mutex_unlock(_lock)
        if pool.state is not None:
            notify(pool.state.fd)
    pool.idle_threads -= 1
    pool.cur_threads -= 1
    mutex_unlock(_lock)


@traced
def spawn_thread() -> None:
    """Start a worker with all signals blocked."""
    _pool.cur_threads += 1
    _pool.idle_threads += 1
    oldset = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        new = thread_create(None, None, aio_thread, None)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, oldset)
    _pool.threads = [thread for thread in _pool.threads if thread.is_alive()]
    _pool.threads.append(new)


@traced
def qemu_paio_submit(aiocb: qemu_paiocb) -> None:
    """Queue a request, starting a worker if none is idle."""
    aiocb.ret = -errno.EINPROGRESS
    aiocb.active = 0
    mutex_lock(_lock)
    if _pool.idle_threads == 0 and _pool.cur_threads < MAX_THREADS:
        spawn_thread()
    _pool.request_list.append(aiocb)
    mutex_unlock(_lock)
    cond_signal(_cond)


@traced
def qemu_paio_return(aiocb: qemu_paiocb) -> int:
    """What a request has come to so far."""
    mutex_lock(_lock)
    ret = aiocb.ret
    mutex_unlock(_lock)
    return ret


@traced
def qemu_paio_error(aiocb: qemu_paiocb) -> int:
    """The errno of a request: 0 if it is done, EINPROGRESS if it is not."""
    ret = qemu_paio_return(aiocb)
    return -ret if ret < 0 else 0


@traced
def posix_aio_process_queue(opaque: PosixAioState) -> int:
    """Report the requests of the active context that are done; 1 if there were any."""
    s = opaque
    result = 0
    async_context_id = linked.get_async_context_id()
    before: qemu_paiocb | None = None
    acb = s.first_aio
    while acb is not None:
        ret = errno.EINPROGRESS if acb.async_context_id != async_context_id else qemu_paio_error(acb)
        if ret == errno.EINPROGRESS:
            before, acb = acb, acb.next
            continue
        following: qemu_paiocb | None = acb.next
        if ret == 0:
            ret = 0 if qemu_paio_return(acb) == acb.aio_nbytes else -errno.EINVAL
        else:
            ret = -ret
        if before is None:
            s.first_aio = following
        else:
            before.next = following
        result = 1
        if ret == -errno.ECANCELED:
            qemu_aio_release(acb)
            acb = following
            continue
        assert acb.cb is not None
        acb.cb(acb.opaque, ret)
        qemu_aio_release(acb)
        # The callback may have changed the list.
        before, acb = None, s.first_aio
    return result


@traced
def posix_aio_read(opaque: PosixAioState) -> None:
    """The descriptor is readable: take the signal off it and report what is done."""
    with contextlib.suppress(BlockingIOError):
        os.read(opaque.fd, 128)
    posix_aio_process_queue(opaque)


@traced
def posix_aio_flush(opaque: PosixAioState) -> int:
    """1 while requests are under way or not reported yet."""
    return int(opaque.first_aio is not None)


@traced
def paio_remove(acb: qemu_paiocb) -> None:
    """Take a request off the list without a report."""
    s = _pool.state
    assert s is not None
    if s.first_aio is acb:
        s.first_aio = acb.next
    else:
        before = s.first_aio
        while before is not None and before.next is not acb:
            before = before.next
        if before is None:
            print("paio_remove: aio request not found!", file=sys.stderr)
            return
        before.next = acb.next
    qemu_aio_release(acb)


@traced
def paio_cancel(blockacb: qemu_paiocb) -> None:
    """Take back a request that no worker has begun, else wait until it is done."""
    acb = blockacb
    mutex_lock(_lock)
    active = 0
    if not acb.active:
        _pool.request_list.remove(acb)
        acb.ret = -errno.ECANCELED
    elif acb.ret == -errno.EINPROGRESS:
        active = 1
    mutex_unlock(_lock)
    while active and qemu_paio_error(acb) == errno.EINPROGRESS:
        time.sleep(0.001)
    paio_remove(acb)


raw_aio_pool = symbol(AIOPool(aiocb_size=qemu_paiocb, cancel=paio_cancel), "raw_aio_pool")


@traced
def paio_submit(
    bs: BlockDriverState,
    fd: int,
    sector_num: int,
    qiov: QEMUIOVector | None,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: Any,
    type: int,
) -> qemu_paiocb:
    """Begin a read, write or flush of `fd`; `type` is QEMU_AIO_*."""
    acb: qemu_paiocb = qemu_aio_get(raw_aio_pool, bs, cb, opaque)
    acb.aio_type = type
    acb.aio_fildes = fd
    acb.ev_signo = int(signal.SIGUSR2)
    acb.async_context_id = linked.get_async_context_id()
    if qiov is not None:
        acb.aio_iov = qiov.iov
        acb.aio_niov = qiov.niov
    acb.aio_nbytes = nb_sectors * 512
    acb.aio_offset = sector_num * 512
    return _begin(acb)


@traced
def paio_ioctl(
    bs: BlockDriverState, fd: int, req: int, buf: Any, cb: BlockDriverCompletionFunc, opaque: Any
) -> qemu_paiocb:
    """Begin an ioctl of `fd`."""
    acb: qemu_paiocb = qemu_aio_get(raw_aio_pool, bs, cb, opaque)
    acb.aio_type = QEMU_AIO_IOCTL
    acb.aio_fildes = fd
    acb.ev_signo = int(signal.SIGUSR2)
    # unlike C, which leaves the context of the request's last use
    acb.async_context_id = 0
    acb.aio_offset = 0
    acb.aio_ioctl_buf = buf
    acb.aio_nbytes = req
    return _begin(acb)


def _begin(acb: qemu_paiocb) -> qemu_paiocb:
    s = _pool.state
    assert s is not None, "paio_init() comes with the opening of a file"
    acb.next = s.first_aio
    s.first_aio = acb
    qemu_paio_submit(acb)
    return acb


@traced
def paio_init() -> int:
    """Make the descriptor that tells of completions, the first time; 0 or -1."""
    if _pool.state is not None:
        return 0
    s = PosixAioState()
    try:
        s.fd = qemu_signalfd([signal.SIGUSR2])
    except OSError:
        print("failed to create signalfd", file=sys.stderr)
        return -1
    qemu_aio_set_fd_handler(s.fd, posix_aio_read, None, posix_aio_flush, posix_aio_process_queue, s)
    _pool.state = s
    return 0
