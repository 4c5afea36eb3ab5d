"""The worker threads of posix-aio-compat.c: what they do, and the lock they share.

- ``pool``: the static variables: how many workers there are, and the requests that wait
- ``spawn_thread()``: one more worker; it takes requests off ``pool.request_list``, puts the byte count or
  -errno into ``ret``, and sends the signal that ``pool.state.fd`` waits for
- ``mutex_lock``, ``cond_signal`` and their kin, as the recordings show them

A worker that waits ten seconds in vain ends. Workers are daemon threads and are stopped and joined when
the program ends; a request that is under way then is finished, one that still waits is dropped.
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

from hypervisor import icount
from hypervisor.block_int import BlockDriverAIOCB
from hypervisor.compatfd import notify
from hypervisor.cutils import iovec, qemu_fdatasync
from hypervisor.errors import HypervisorError
from hypervisor.osdep import qemu_memalign, qemu_vfree
from hypervisor.program import on_exit
from tracer import Struct, symbol, traced

C_FILE = "posix-aio-compat.c"

QEMU_AIO_READ = 0x0001
QEMU_AIO_WRITE = 0x0002
QEMU_AIO_IOCTL = 0x0004
QEMU_AIO_FLUSH = 0x0008
QEMU_AIO_TYPE_MASK = QEMU_AIO_READ | QEMU_AIO_WRITE | QEMU_AIO_IOCTL | QEMU_AIO_FLUSH
QEMU_AIO_MISALIGNED = 0x1000

IDLE_SECONDS = 10
_FOREVER = threading.TIMEOUT_MAX
STOP_SECONDS = 5
"""How long the end of a program waits for a read or write that hangs in the kernel."""


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
        self.reset()

    def reset(self) -> None:
        """Be as at the start of a program."""
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


lock = symbol(threading.Lock(), "lock")
cond = symbol(_Cond(), "cond")
pool = _Pool()


@on_exit
def _stop_workers() -> None:
    # Ctrl-C may have come while this thread held the lock; no worker holds it for long.
    lock.acquire(timeout=1)
    pool.stopping = True
    pool.request_list.clear()
    while cond.waiters:
        cond.signal()
    lock.release()
    for thread in pool.threads:
        thread.join(STOP_SECONDS)
    pool.reset()


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
    # Counted time stands while a worker waits: then it waits for ever.
    seconds = _FOREVER if icount.enabled() else ts - time.time()
    signalled = pool.stopping or cond.wait(mutex, seconds)
    if pool.stopping:
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
        lock.release()


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
        if pool.preadv_present:
            nbytes = handle_aiocb_rw_vector(aiocb)
            if nbytes == aiocb.aio_nbytes or (nbytes < 0 and nbytes != -errno.ENOSYS):
                return nbytes
            # quirk: one short request, and vectors are never used again
            pool.preadv_present = False
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
    while True:
        ret = 0
        ts = icount.time_ns() // 1_000_000_000 + IDLE_SECONDS
        mutex_lock(lock)
        while not pool.request_list and ret != errno.ETIMEDOUT:
            ret = cond_timedwait(cond, lock, ts)
        if not pool.request_list:
            break
        aiocb = pool.request_list.popleft()
        aiocb.active = 1
        pool.idle_threads -= 1
        mutex_unlock(lock)
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
        mutex_lock(lock)
        aiocb.ret = ret
        pool.idle_threads += 1
        mutex_unlock(lock)
        if pool.state is not None:
            notify(pool.state.fd)
    pool.idle_threads -= 1
    pool.cur_threads -= 1
    mutex_unlock(lock)


@traced
def spawn_thread() -> None:
    """Start a worker with all signals blocked."""
    pool.cur_threads += 1
    pool.idle_threads += 1
    oldset = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        new = thread_create(None, None, aio_thread, None)
    except RuntimeError as error:
        raise HypervisorError(f"pthread_create failed: {error}; allow more threads (ulimit -u)") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, oldset)
    pool.threads = [thread for thread in pool.threads if thread.is_alive()]
    pool.threads.append(new)
